// Package contract holds promises that no single package can hold: the field
// numbers of the wire contract and who may import whom.
package contract

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// messages lists the fields of each message in the order of their numbers, which
// start at 1. Fields may be added at the end, and never change.
var messages = map[protoreflect.Name][]string{
	"Lock": {
		"name string",
		"state pylok.v1.LockState",
		"lock_file_location string",
		"data google.protobuf.Struct",
		"holder string",
		"token uint64",
		"revision uint64",
		"acquire_time google.protobuf.Timestamp",
		"ttl google.protobuf.Duration",
		"expire_time google.protobuf.Timestamp",
		"waiters uint32",
		"problem string",
		"warnings repeated string",
		"caller string",
		"tree bool",
		"set pylok.v1.SetRef",
		"on_expiry pylok.v1.OnExpiry",
		"stale_time google.protobuf.Timestamp",
		"waiting repeated pylok.v1.Waiter",
		"shared_holds uint32",
		"held_below uint32",
		"blocked_by pylok.v1.Obstacle",
		"conflict string",
		"shared bool",
	},
	"SetRef": {
		"id uint64",
		"size uint32",
	},
	"Waiter": {
		"place uint64",
		"holder string",
		"caller string",
		"since_time google.protobuf.Timestamp",
		"until_time google.protobuf.Timestamp",
		"shared bool",
		"tree bool",
		"names repeated string",
		"message string",
	},
	"Obstacle": {
		"kind pylok.v1.ObstacleKind",
		"lock pylok.v1.Lock",
		"waiter pylok.v1.Waiter",
	},
	"Event": {
		"revision uint64",
		"time google.protobuf.Timestamp",
		"type pylok.v1.EventType",
		"cause pylok.v1.EventCause",
		"lock pylok.v1.Lock",
		"actor string",
		"reason string",
		"previous_token uint64",
	},
	"LockRequest": {
		"name string",
		"data google.protobuf.Struct",
		"holder string",
		"ttl google.protobuf.Duration in expiry",
		"expire_time google.protobuf.Timestamp in expiry",
		"wait google.protobuf.Duration",
		"request_id string",
		"overwrite bool",
		"shared bool",
		"limit uint32",
		"tree bool",
		"drain bool",
		"through_freeze bool",
		"reason string",
		"on_expiry pylok.v1.OnExpiry",
		"replace_stale bool",
		"refuse_manual bool",
		"wait_forever bool",
	},
	"LockResponse": {
		"lock pylok.v1.Lock",
		"queued google.protobuf.Duration",
	},
	"Choice": {
		"names repeated string",
		"count uint32",
	},
	"LockSetRequest": {
		"names repeated string",
		"choices repeated pylok.v1.Choice",
		"data google.protobuf.Struct",
		"holder string",
		"ttl google.protobuf.Duration in expiry",
		"expire_time google.protobuf.Timestamp in expiry",
		"wait google.protobuf.Duration",
		"request_id string",
		"through_freeze bool",
		"reason string",
		"on_expiry pylok.v1.OnExpiry",
		"refuse_manual bool",
		"wait_forever bool",
	},
	"LockSetResponse": {
		"locks repeated pylok.v1.Lock",
		"queued google.protobuf.Duration",
	},
	"HoldRef": {
		"name string",
		"token uint64",
	},
	"UnlockSetRequest": {
		"holds repeated pylok.v1.HoldRef",
		"set uint64",
		"holder string",
		"force bool",
		"reason string",
		"data google.protobuf.Struct",
	},
	"UnlockSetResponse": {"answers repeated pylok.v1.SetAnswer"},
	"SetAnswer": {
		"name string",
		"token uint64",
		"lock pylok.v1.Lock",
		"revision uint64",
		"next pylok.v1.Lock",
		"reason string",
		"message string",
	},
	"RenewSetRequest": {
		"holds repeated pylok.v1.HoldRef",
		"ttl google.protobuf.Duration in expiry",
		"expire_time google.protobuf.Timestamp in expiry",
		"holder string",
	},
	"RenewSetResponse": {"answers repeated pylok.v1.SetAnswer"},
	"HandOverRequest": {
		"name string",
		"token uint64",
		"holder string",
		"caller string",
		"ttl google.protobuf.Duration in expiry",
		"expire_time google.protobuf.Timestamp in expiry",
		"never bool in expiry",
		"data google.protobuf.Struct",
		"reason string",
		"request_id string",
		"from string",
	},
	"HandOverResponse": {
		"lock pylok.v1.Lock",
		"warnings repeated string",
	},
	"AskRequest": {
		"name string",
		"token uint64",
		"message string",
		"holder string",
	},
	"AskResponse": {
		"lock pylok.v1.Lock",
		"heard bool",
	},
	"DismissRequest": {
		"name string",
		"place uint64",
		"holder string",
		"reason string",
	},
	"DismissResponse": {"waiter pylok.v1.Waiter"},
	"UnlockRequest": {
		"name string",
		"token uint64",
		"holder string",
		"force bool",
		"reason string",
		"data google.protobuf.Struct",
		"stale bool",
	},
	"UnlockResponse": {
		"lock pylok.v1.Lock",
		"revision uint64",
		"next pylok.v1.Lock",
	},
	"RenewRequest": {
		"name string",
		"token uint64",
		"ttl google.protobuf.Duration in expiry",
		"expire_time google.protobuf.Timestamp in expiry",
		"data google.protobuf.Struct",
		"holder string",
	},
	"RenewResponse":  {"lock pylok.v1.Lock"},
	"StatusRequest":  {"name string"},
	"StatusResponse": {"lock pylok.v1.Lock"},
	"ListRequest": {
		"pattern string",
		"page_size int32",
		"page_token string",
	},
	"ListResponse": {
		"locks repeated pylok.v1.Lock",
		"next_page_token string",
		"revision uint64",
	},
	"WatchRequest": {
		"pattern string",
		"after_revision uint64",
		"token uint64",
	},
	"WatchResponse": {"event pylok.v1.Event"},
	"HistoryRequest": {
		"pattern string",
		"after_revision uint64",
		"page_size int32",
		"page_token string",
		"newest_first bool",
		"after_time google.protobuf.Timestamp",
		"before_time google.protobuf.Timestamp",
		"actor string",
		"cause pylok.v1.EventCause",
	},
	"HistoryResponse": {
		"events repeated pylok.v1.Event",
		"next_page_token string",
	},
	"InfoRequest": {},
	"InfoResponse": {
		"version string",
		"root string",
		"store string",
		"revision uint64",
		"start_time google.protobuf.Timestamp",
		"caller string",
		"proof string",
		"groups repeated string",
		"features repeated string",
	},
	"MayRequest": {
		"verb pylok.v1.Verb",
		"name string",
		"as string",
	},
	"MayResponse": {
		"allowed bool",
		"caller string",
		"groups repeated string",
		"why string",
	},
}

// enums lists the values of each enum in the order of their numbers, which start
// at 0.
var enums = map[protoreflect.Name][]string{
	"Verb": {
		"VERB_UNSPECIFIED",
		"VERB_VIEW",
		"VERB_LOCK",
		"VERB_BREAK",
		"VERB_FREEZE",
		"VERB_ADMIN",
	},
	"LockState": {
		"LOCK_STATE_UNSPECIFIED",
		"LOCK_STATE_UNLOCKED",
		"LOCK_STATE_LOCKED",
	},
	"OnExpiry": {
		"ON_EXPIRY_UNSPECIFIED",
		"ON_EXPIRY_RELEASE",
		"ON_EXPIRY_KEEP",
	},
	"ObstacleKind": {
		"OBSTACLE_KIND_UNSPECIFIED",
		"OBSTACLE_KIND_TREE",
		"OBSTACLE_KIND_SHARED",
		"OBSTACLE_KIND_WAITER",
	},
	"EventType": {
		"EVENT_TYPE_UNSPECIFIED",
		"EVENT_TYPE_RESET",
		"EVENT_TYPE_LOCKED",
		"EVENT_TYPE_UPDATED",
		"EVENT_TYPE_UNLOCKED",
		"EVENT_TYPE_SYNCED",
		"EVENT_TYPE_ASKED",
	},
	"EventCause": {
		"EVENT_CAUSE_UNSPECIFIED",
		"EVENT_CAUSE_REQUEST",
		"EVENT_CAUSE_FORCED",
		"EVENT_CAUSE_EXPIRED",
		"EVENT_CAUSE_FILE",
	},
}

// methods lists the RPCs in their order.
var methods = []string{
	"Lock(LockRequest) LockResponse",
	"Unlock(UnlockRequest) UnlockResponse",
	"Renew(RenewRequest) RenewResponse",
	"LockSet(LockSetRequest) LockSetResponse",
	"UnlockSet(UnlockSetRequest) UnlockSetResponse",
	"RenewSet(RenewSetRequest) RenewSetResponse",
	"HandOver(HandOverRequest) HandOverResponse",
	"Ask(AskRequest) AskResponse",
	"Dismiss(DismissRequest) DismissResponse",
	"Status(StatusRequest) StatusResponse",
	"List(ListRequest) ListResponse",
	"Watch(WatchRequest) stream WatchResponse",
	"History(HistoryRequest) HistoryResponse",
	"Info(InfoRequest) InfoResponse",
	"May(MayRequest) MayResponse",
}

var file = pylokv1.File_pylok_v1_lock_service_proto

func TestMessages(t *testing.T) {
	for name, want := range messages {
		t.Run(string(name), func(t *testing.T) {
			message := file.Messages().ByName(name)
			if message == nil {
				t.Fatalf("pylok.v1 has no message %s", name)
			}
			for _, problem := range checkFields(message, want) {
				t.Error(problem)
			}
		})
	}
	for i := range file.Messages().Len() {
		if name := file.Messages().Get(i).Name(); messages[name] == nil {
			t.Errorf("message %s is not held here: add its fields to the table", name)
		}
	}
}

func TestEnums(t *testing.T) {
	for name, want := range enums {
		t.Run(string(name), func(t *testing.T) {
			enum := file.Enums().ByName(name)
			if enum == nil {
				t.Fatalf("pylok.v1 has no enum %s", name)
			}
			for i, want := range want {
				got := "no value"
				if value := enum.Values().ByNumber(protoreflect.EnumNumber(i)); value != nil {
					got = string(value.Name())
				}
				if got != want {
					t.Errorf("value %d: got %s, want %s", i, got, want)
				}
			}
		})
	}
}

func TestMethods(t *testing.T) {
	service := file.Services().ByName("LockService")
	if service == nil {
		t.Fatal("pylok.v1 has no service LockService")
	}
	var got []string
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		stream := map[bool]string{true: "stream "}
		got = append(got, fmt.Sprintf("%s(%s%s) %s%s", m.Name(),
			stream[m.IsStreamingClient()], m.Input().Name(),
			stream[m.IsStreamingServer()], m.Output().Name()))
	}
	if len(got) < len(methods) || !slices.Equal(got[:len(methods)], methods) {
		t.Errorf("the methods:\ngot  %s\nwant %s", strings.Join(got, ", "), strings.Join(methods, ", "))
	}
}

// TestProtoImports: users of every language compile the contract with nothing but
// protobuf itself.
func TestProtoImports(t *testing.T) {
	for i := range file.Imports().Len() {
		switch path := file.Imports().Get(i).Path(); path {
		case "google/protobuf/duration.proto", "google/protobuf/struct.proto", "google/protobuf/timestamp.proto":
		default:
			t.Errorf("the contract imports %s", path)
		}
	}
}

// checkFields returns how a message's fields differ from want; fields after those
// are not looked at.
func checkFields(message protoreflect.MessageDescriptor, want []string) (problems []string) {
	for i, want := range want {
		got := "no field"
		if field := message.Fields().ByNumber(protoreflect.FieldNumber(i + 1)); field != nil {
			got = describeField(field)
		}
		if got != want {
			problems = append(problems, fmt.Sprintf("field %d: got %s, want %s", i+1, got, want))
		}
	}
	return problems
}

// describeField writes a field as the tables above do.
func describeField(field protoreflect.FieldDescriptor) string {
	kind := field.Kind().String()
	switch {
	case field.Message() != nil:
		kind = string(field.Message().FullName())
	case field.Enum() != nil:
		kind = string(field.Enum().FullName())
	}
	if field.Cardinality() == protoreflect.Repeated {
		kind = "repeated " + kind
	}
	if oneof := field.ContainingOneof(); oneof != nil {
		kind += " in " + string(oneof.Name())
	}
	return string(field.Name()) + " " + kind
}

// TestCheckFields shows that checkFields can fail.
func TestCheckFields(t *testing.T) {
	for _, test := range []struct {
		name    string
		message protoreflect.Name
		fields  []string
		want    []string
	}{
		{"as it is", "UnlockResponse", []string{"lock pylok.v1.Lock", "revision uint64"}, nil},
		{"field added later", "UnlockResponse", []string{"lock pylok.v1.Lock"}, nil},
		{"renumbered", "UnlockResponse", []string{"revision uint64", "lock pylok.v1.Lock"}, []string{
			"field 1: got lock pylok.v1.Lock, want revision uint64",
			"field 2: got revision uint64, want lock pylok.v1.Lock",
		}},
		{"renamed", "StatusRequest", []string{"lock_name string"}, []string{"field 1: got name string, want lock_name string"}},
		{"other type", "StatusRequest", []string{"name bytes"}, []string{"field 1: got name string, want name bytes"}},
		{"removed", "InfoRequest", []string{"verbose bool"}, []string{"field 1: got no field, want verbose bool"}},
		{"out of its oneof", "LockRequest", append(append([]string{}, messages["LockRequest"][:3]...), "ttl google.protobuf.Duration"), []string{
			"field 4: got ttl google.protobuf.Duration in expiry, want ttl google.protobuf.Duration",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := checkFields(file.Messages().ByName(test.message), test.fields)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
