package service

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// TestWholeMessages: every answer and every event leaves the service whole. Nothing is in
// fields that its message does not know, its JSON says it all, and so do the bytes that
// codec makes of it.
func TestWholeMessages(t *testing.T) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s := New(m, Config{Root: testRoot, Store: "memory", Version: "1"})
	codec, seen := newCodec(256<<10), map[string]bool{}
	whole := func(method string, message proto.Message, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		seen[method] = true
		wantKnown(t, method, message.ProtoReflect())
		text, err := protojson.Marshal(message)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		again := message.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal(text, again); err != nil || !proto.Equal(again, message) {
			t.Errorf("%s: the JSON %s is not %v: %v", method, text, message, err)
		}
		for range 2 { // the second time as it was remembered
			wire, err := codec.Marshal(message)
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			decoded := message.ProtoReflect().New().Interface()
			if err := encoding.GetCodecV2("proto").Unmarshal(wire, decoded); err != nil || !proto.Equal(decoded, message) {
				t.Errorf("%s: sent is %v, want %v: %v", method, decoded, message, err)
			}
		}
	}
	wantData := func(method string, l *pylokv1.Lock) {
		t.Helper()
		if l.GetData().GetFields()["msg"].GetStringValue() != "canary" {
			t.Errorf("%s: the data is %v", method, l.GetData())
		}
	}

	ctx := t.Context()
	data := document(t, `{"msg": "canary", "list": [1, null, {"a": true}]}`)
	locked, err := s.Lock(ctx, &pylokv1.LockRequest{Name: "lb/a", Data: data, Holder: "alice", Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)}})
	whole("Lock", locked, err)
	wantData("Lock", locked.Lock)
	token := locked.Lock.Token
	found, err := s.Status(ctx, &pylokv1.StatusRequest{Name: "lb/a"})
	whole("Status", found, err)
	wantData("Status", found.Lock)
	listed, err := s.List(ctx, &pylokv1.ListRequest{})
	whole("List", listed, err)
	wantData("List", listed.Locks[0])
	renewed, err := s.Renew(ctx, &pylokv1.RenewRequest{Name: "lb/a", Token: token, Data: data})
	whole("Renew", renewed, err)
	wantData("Renew", renewed.Lock)
	released, err := s.Unlock(ctx, &pylokv1.UnlockRequest{Name: "lb/a", Token: token})
	whole("Unlock", released, err)
	may, err := s.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_BREAK, Name: "lb/a"})
	whole("May", may, err)
	wantData("Unlock", released.Lock)
	past, err := s.History(ctx, &pylokv1.HistoryRequest{})
	whole("History", past, err)
	wantData("History", past.Events[0].Lock)
	info, err := s.Info(ctx, &pylokv1.InfoRequest{})
	whole("Info", info, err)

	_, err = s.Lock(ctx, &pylokv1.LockRequest{Name: "lb/b", Data: data})
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{0, 1} { // the present state, the changes
		watching, end := context.WithCancel(ctx)
		stream := &sentEvents{ctx: watching}
		stream.sent = func(response *pylokv1.WatchResponse) {
			whole("Watch", response, nil)
			switch response.GetEvent().GetType() {
			case pylokv1.EventType_EVENT_TYPE_LOCKED:
				wantData("Watch", response.Event.Lock)
			case pylokv1.EventType_EVENT_TYPE_SYNCED:
				end()
			}
		}
		s.Watch(&pylokv1.WatchRequest{AfterRevision: after}, stream)
	}
	for _, method := range pylokv1.LockService_ServiceDesc.Methods {
		if !seen[method.MethodName] {
			t.Errorf("no answer of %s was looked at", method.MethodName)
		}
	}
	if streams := pylokv1.LockService_ServiceDesc.Streams; len(streams) != 1 || !seen["Watch"] {
		t.Errorf("streams besides Watch were not looked at: %v", streams)
	}
}

// wantKnown looks for fields that a message does not know, in it and below it.
func wantKnown(t *testing.T, where string, message protoreflect.Message) {
	t.Helper()
	if unknown := message.GetUnknown(); len(unknown) > 0 {
		t.Errorf("%s: %s has unknown fields: %x", where, message.Descriptor().FullName(), unknown)
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
				wantKnown(t, where, value.Message())
				return true
			})
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				wantKnown(t, where, value.List().Get(i).Message())
			}
		case field.Message() != nil && !field.IsMap():
			wantKnown(t, where, value.Message())
		}
		return true
	})
}

// TestWireDataHasAllFields: codec's copy of a lock has every field of a Lock.
func TestWireDataHasAllFields(t *testing.T) {
	l := &pylokv1.Lock{}
	fields := l.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		value := l.ProtoReflect().NewField(field)
		switch {
		case field.IsList():
			value.List().Append(protoreflect.ValueOfString("x"))
		case field.Message() != nil:
		case field.Kind() == protoreflect.StringKind:
			value = protoreflect.ValueOfString("x")
		case field.Kind() == protoreflect.Uint64Kind:
			value = protoreflect.ValueOfUint64(1)
		case field.Kind() == protoreflect.Uint32Kind:
			value = protoreflect.ValueOfUint32(1)
		case field.Kind() == protoreflect.EnumKind:
			value = protoreflect.ValueOfEnum(1)
		default:
			t.Fatalf("set the field %s here", field.Name())
		}
		l.ProtoReflect().Set(field, value)
	}
	for _, answer := range []proto.Message{
		&pylokv1.LockResponse{Lock: l, Queued: durationpb.New(1)},
		&pylokv1.UnlockResponse{Lock: l, Revision: 1, Next: l},
		&pylokv1.RenewResponse{Lock: l},
		&pylokv1.StatusResponse{Lock: l},
		&pylokv1.ListResponse{Locks: []*pylokv1.Lock{l}, NextPageToken: "x", Revision: 1},
	} {
		fields := answer.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if !answer.ProtoReflect().Has(fields.Get(i)) {
				t.Errorf("set the field %s here", fields.Get(i).FullName())
			}
		}
		wire, err := newCodec(1 << 10).Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		got := answer.ProtoReflect().New().Interface()
		if err := encoding.GetCodecV2("proto").Unmarshal(wire, got); err != nil || !proto.Equal(got, answer) {
			t.Errorf("sent is %v, want %v; %v", got, answer, err)
		}
	}
}

// sentEvents is a stream of Watch whose events go to a function.
type sentEvents struct {
	grpc.ServerStream
	ctx  context.Context
	sent func(*pylokv1.WatchResponse)
}

func (s *sentEvents) Context() context.Context { return s.ctx }

func (s *sentEvents) Send(response *pylokv1.WatchResponse) error {
	s.sent(response)
	return nil
}
