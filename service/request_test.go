package service

import (
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// wholeRequest is a request with every field that can be set with the others, and what the
// locks are asked then.
type wholeRequest struct {
	method  string
	request proto.Message
	want    any
}

func wholeRequests(t *testing.T) []wholeRequest {
	const text = `{"msg": "m"}`
	data, err := lock.ParseData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	sent := document(t, text)
	a, b, c := lock.MustParseName("x/a"), lock.MustParseName("x/b"), lock.MustParseName("x/c")
	minute := durationpb.New(time.Minute)
	all := lock.MustParsePattern("x/*")
	query := lock.HistoryQuery{
		Pattern: all, After: 7, NewestFirst: true, AfterTime: time.Unix(1, 0).UTC(), BeforeTime: time.Unix(2, 0).UTC(), Actor: "a", Cause: lock.Forced,
	}
	return []wholeRequest{
		{"Lock", &pylokv1.LockRequest{
			Name: "x/a", Data: sent, Holder: "h", Expiry: &pylokv1.LockRequest_Ttl{Ttl: minute}, Wait: minute, RequestId: "id",
			Overwrite: true, Shared: true, Limit: 3, Tree: true, Drain: true, ThroughFreeze: true, Reason: "why",
			OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP, ReplaceStale: true, RefuseManual: true,
		}, lock.LockRequest{
			Name: a, Data: data, Holder: "h", TTL: time.Minute, Wait: time.Minute, RequestID: "id",
			Overwrite: true, Shared: true, Limit: 3, Tree: true, Drain: true, ThroughFreeze: true, Reason: "why",
			OnExpiry: lock.Keep, ReplaceStale: true, RefuseManual: true,
		}},
		{"Unlock", &pylokv1.UnlockRequest{Name: "x/a", Token: 7, Holder: "h", Force: true, Reason: "why", Data: sent, Stale: true},
			lock.UnlockRequest{Name: a, Token: 7, Holder: "h", Force: true, Reason: "why", Data: &data, Stale: true}},
		{"Renew", &pylokv1.RenewRequest{Name: "x/a", Token: 7, Expiry: &pylokv1.RenewRequest_Ttl{Ttl: minute}, Data: sent, Holder: "h"},
			lock.RenewRequest{Name: a, Token: 7, TTL: time.Minute, Data: &data, Holder: "h"}},
		{"LockSet", &pylokv1.LockSetRequest{
			Names: []string{"x/a"}, Choices: []*pylokv1.Choice{{Names: []string{"x/c", "x/b"}, Count: 2}}, Data: sent, Holder: "h",
			Expiry: &pylokv1.LockSetRequest_Ttl{Ttl: minute}, Wait: minute, RequestId: "id", ThroughFreeze: true, Reason: "why",
			OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP, RefuseManual: true,
		}, lock.SetRequest{
			Names: []lock.Name{a}, Choices: []lock.Choice{{Names: []lock.Name{c, b}, Count: 2}}, Data: data, Holder: "h",
			TTL: time.Minute, Wait: time.Minute, RequestID: "id", ThroughFreeze: true, Reason: "why",
			OnExpiry: lock.Keep, RefuseManual: true,
		}},
		{"UnlockSet", &pylokv1.UnlockSetRequest{
			Holds: []*pylokv1.HoldRef{{Name: "x/b", Token: 8}, {Name: "x/a", Token: 7}}, Set: 7, Holder: "h", Force: true, Reason: "why", Data: sent,
		}, lock.UnlockSetRequest{Holds: []lock.HoldRef{{Name: b, Token: 8}, {Name: a, Token: 7}}, Set: 7, Holder: "h", Force: true, Reason: "why", Data: &data}},
		{"RenewSet", &pylokv1.RenewSetRequest{
			Holds: []*pylokv1.HoldRef{{Name: "x/b", Token: 8}, {Name: "x/a", Token: 7}}, Expiry: &pylokv1.RenewSetRequest_Ttl{Ttl: minute}, Holder: "h",
		}, lock.RenewSetRequest{Holds: []lock.HoldRef{{Name: b, Token: 8}, {Name: a, Token: 7}}, TTL: time.Minute, Holder: "h"}},
		{"HandOver", &pylokv1.HandOverRequest{
			Name: "x/a", Token: 7, Holder: "h", Caller: "unix:bob", Expiry: &pylokv1.HandOverRequest_Ttl{Ttl: minute}, Data: sent, Reason: "why", RequestId: "id", From: "f",
		}, lock.HandOverRequest{Name: a, Token: 7, Holder: "h", Caller: "unix:bob", TTL: time.Minute, Data: &data, Reason: "why", RequestID: "id", From: "f"}},
		{"Ask", &pylokv1.AskRequest{Name: "x/a", Token: 7, Message: "may I?", Holder: "h"}, lock.AskRequest{Name: a, Token: 7, Message: "may I?", Holder: "h"}},
		{"Dismiss", &pylokv1.DismissRequest{Name: "x/a", Place: 7, Holder: "h", Reason: "why"}, lock.DismissRequest{Name: a, Place: 7, Holder: "h", Reason: "why"}},
		{"Status", &pylokv1.StatusRequest{Name: "x/a"}, a},
		{"List", &pylokv1.ListRequest{Pattern: "x/*", PageSize: 5, PageToken: listSequence(all).afterName(b)}, askedPage{pattern: all, after: b, limit: 5}},
		{"History", &pylokv1.HistoryRequest{
			Pattern: "x/*", AfterRevision: 7, PageSize: 5, PageToken: historySequence(query).afterRevision(9), NewestFirst: true,
			AfterTime: timestamppb.New(query.AfterTime), BeforeTime: timestamppb.New(query.BeforeTime), Actor: "a", Cause: pylokv1.EventCause_EVENT_CAUSE_FORCED,
		}, askedPage{query: query, from: 9, limit: 5}},
		{"Watch", &pylokv1.WatchRequest{Pattern: "x/a", AfterRevision: 7, Token: 9}, lock.WatchRequest{Pattern: lock.MustParsePattern("x/a").WithSlots(), After: 7, Token: 9}},
	}
}

// TestRequests: the locks are asked what the message says, and no field of it goes unheard.
func TestRequests(t *testing.T) {
	fake := &fakeLocks{}
	s := New(fake, Config{})
	for _, test := range wholeRequests(t) {
		t.Run(test.method, func(t *testing.T) {
			if _, err := invoke(t, s, test.method, test.request); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(fake.asked, test.want) {
				t.Fatalf("asked %+v, want %+v", fake.asked, test.want)
			}
			if _, waits := test.request.(interface{ GetWait() *durationpb.Duration }); waits && !fake.confirmed {
				t.Error("who waited is not asked whether it is still there")
			}
			fields := test.request.ProtoReflect().Descriptor().Fields()
			for i := range fields.Len() {
				field, other := fields.Get(i), proto.Clone(test.request).ProtoReflect()
				switch {
				case other.Has(field):
					other.Clear(field)
				case field.ContainingOneof() != nil && field.Message() != nil:
					fillFields(other.Mutable(field).Message(), 1)
				case field.ContainingOneof() != nil || field.Name() == "wait_forever":
					other.Set(field, protoreflect.ValueOfBool(true))
				default:
					t.Errorf("%s is not in the request: set it", field.Name())
					continue
				}
				fake.asked = nil
				if _, err := invoke(t, s, test.method, other.Interface()); err == nil && reflect.DeepEqual(fake.asked, test.want) {
					t.Errorf("with another %s it is asked the same", field.Name())
				}
			}
		})
	}
}

// TestWaits: a wait without an end is asked for by its name alone.
func TestWaits(t *testing.T) {
	fake := &fakeLocks{}
	s := New(fake, Config{})
	for _, test := range []struct {
		wait    *durationpb.Duration
		forever bool
		want    time.Duration
		refused bool
	}{
		{nil, false, 0, false},
		{durationpb.New(time.Hour), false, time.Hour, false},
		{nil, true, lock.WaitForever, false},
		{durationpb.New(0), true, 0, true},
		{durationpb.New(time.Hour), true, 0, true},
		{durationpb.New(math.MaxInt64), false, lock.WaitForever - 1, false},
		{&durationpb.Duration{Seconds: 9000 * 365 * 24 * 3600}, false, lock.WaitForever - 1, false}, // more than a time.Duration has
		{durationpb.New(-time.Second), false, -time.Second, false},                                  // the manager's to refuse
		{&durationpb.Duration{Seconds: 1, Nanos: -1}, false, 0, true},
	} {
		for method, request := range map[string]proto.Message{
			"Lock":    &pylokv1.LockRequest{Name: "a", Wait: test.wait, WaitForever: test.forever},
			"LockSet": &pylokv1.LockSetRequest{Names: []string{"a"}, Wait: test.wait, WaitForever: test.forever},
		} {
			_, err := invoke(t, s, method, request)
			if test.refused {
				if d := refused(t, err, codes.InvalidArgument, lock.ErrInvalidArgument); d.violation.GetField() != "wait" {
					t.Errorf("%s %v: got %v, want wait at fault", method, request, err)
				}
				continue
			}
			got := time.Duration(-1)
			switch asked := fake.asked.(type) {
			case lock.LockRequest:
				got = asked.Wait
			case lock.SetRequest:
				got = asked.Wait
			}
			if err != nil || got != test.want {
				t.Errorf("%s %v: it waits %v, want %v; %v", method, request, got, test.want, err)
			}
		}
	}
}

// TestBadRequests: every refused request names the field at fault as the proto does, and
// changes nothing.
func TestBadRequests(t *testing.T) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s := New(m, Config{})
	ctx := t.Context()
	held, err := s.Lock(ctx, &pylokv1.LockRequest{Name: "held"})
	if err != nil {
		t.Fatal(err)
	}
	token := held.GetLock().GetToken()
	names := func(n int) (names []string) {
		for i := range n {
			names = append(names, "n/"+string(rune('A'+i/26))+string(rune('a'+i%26)))
		}
		return names
	}
	refs := func(n int) (refs []*pylokv1.HoldRef) {
		for _, name := range names(n) {
			refs = append(refs, &pylokv1.HoldRef{Name: name, Token: 1})
		}
		return refs
	}
	choice := func(count uint32, names ...string) *pylokv1.Choice {
		return &pylokv1.Choice{Names: names, Count: count}
	}
	long := string(make([]byte, 2000))
	for _, test := range []struct {
		what, method string
		request      proto.Message
		field        string
	}{
		{"an on_expiry of the future", "Lock", &pylokv1.LockRequest{Name: "a", OnExpiry: 7}, "on_expiry"},
		{"a negative on_expiry", "Lock", &pylokv1.LockRequest{Name: "a", OnExpiry: -1}, "on_expiry"},
		{"limit without shared", "Lock", &pylokv1.LockRequest{Name: "a", Limit: 3}, "limit"},
		{"a limit beyond all", "Lock", &pylokv1.LockRequest{Name: "a", Shared: true, Limit: math.MaxUint32}, "limit"},
		{"drain without tree", "Lock", &pylokv1.LockRequest{Name: "a", Drain: true, Wait: durationpb.New(time.Second)}, "drain"},
		{"drain without a wait", "Lock", &pylokv1.LockRequest{Name: "a", Tree: true, Drain: true}, "drain"},
		{"a tree to keep", "Lock", &pylokv1.LockRequest{Name: "a", Tree: true, OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP}, "on_expiry"},
		{"a shared tree", "Lock", &pylokv1.LockRequest{Name: "a", Tree: true, Shared: true}, "shared"},
		{"through a freeze without a reason", "Lock", &pylokv1.LockRequest{Name: "a", ThroughFreeze: true}, "reason"},
		{"replace_stale without a reason", "Lock", &pylokv1.LockRequest{Name: "a", ReplaceStale: true}, "reason"},
		{"a shared hold by its name", "Lock", &pylokv1.LockRequest{Name: "a/_+1"}, "name"},
		{"a negative wait", "Lock", &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(-time.Second)}, "wait"},
		{"stale without a reason", "Unlock", &pylokv1.UnlockRequest{Name: "held", Token: token, Stale: true}, "reason"},

		{"nothing", "LockSet", &pylokv1.LockSetRequest{}, "names"},
		{"65 names", "LockSet", &pylokv1.LockSetRequest{Names: names(65)}, "names"},
		{"65 names with those of choices", "LockSet", &pylokv1.LockSetRequest{Names: names(63), Choices: []*pylokv1.Choice{choice(1, "x", "y")}}, "names"},
		{"a name twice", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a", "b", "a"}}, "names"},
		{"a name in a choice too", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a"}, Choices: []*pylokv1.Choice{choice(1, "b", "a")}}, "names"},
		{"a name that is none", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a", "b", "/c"}}, "names[2]"},
		{"an empty name", "LockSet", &pylokv1.LockSetRequest{Names: []string{""}}, "names[0]"},
		{"a name in a choice that is none", "LockSet", &pylokv1.LockSetRequest{Choices: []*pylokv1.Choice{choice(1, "a"), choice(1, "b", "c d")}}, "choices[1].names[1]"},
		{"a shared hold in a set", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a/_+1"}}, "names"},
		{"an empty choice", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a"}, Choices: []*pylokv1.Choice{choice(1, "b"), {}}}, "choices[1].names"},
		{"2 of 1", "LockSet", &pylokv1.LockSetRequest{Choices: []*pylokv1.Choice{choice(2, "a")}}, "choices"},
		{"2^32-1 of 1", "LockSet", &pylokv1.LockSetRequest{Choices: []*pylokv1.Choice{choice(math.MaxUint32, "a")}}, "choices"},
		{"an on_expiry of the future for a set", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a", "b"}, OnExpiry: 7}, "on_expiry"},
		{"a ttl of 0", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a"}, Expiry: &pylokv1.LockSetRequest_Ttl{Ttl: durationpb.New(0)}}, "ttl"},
		{"a negative wait for a set", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a"}, Wait: durationpb.New(-time.Second)}, "wait"},
		{"a set through a freeze without a reason", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a"}, ThroughFreeze: true}, "reason"},
		{"a long holder", "LockSet", &pylokv1.LockSetRequest{Names: []string{"a"}, Holder: long}, "holder"},

		{"no holds", "UnlockSet", &pylokv1.UnlockSetRequest{}, "holds"},
		{"65 holds", "UnlockSet", &pylokv1.UnlockSetRequest{Holds: refs(65)}, "holds"},
		{"a hold twice", "UnlockSet", &pylokv1.UnlockSetRequest{Holds: append(refs(2), refs(1)...)}, "holds"},
		{"holds and a set", "UnlockSet", &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held", Token: token}}, Set: token}, "set"},
		{"token 0", "UnlockSet", &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held", Token: token}, {Name: "b"}}}, "holds[1].token"},
		{"no name", "UnlockSet", &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held", Token: token}, {Token: 1}}}, "holds[1].name"},
		{"force without a reason", "UnlockSet", &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held", Token: token}}, Force: true}, "reason"},
		{"a long reason", "UnlockSet", &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held", Token: token}}, Reason: long}, "reason"},

		{"nothing to renew", "RenewSet", &pylokv1.RenewSetRequest{}, "holds"},
		{"65 to renew", "RenewSet", &pylokv1.RenewSetRequest{Holds: refs(65)}, "holds"},
		{"one to renew twice", "RenewSet", &pylokv1.RenewSetRequest{Holds: append(refs(2), refs(1)...)}, "holds"},
		{"one to renew with token 0", "RenewSet", &pylokv1.RenewSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held"}}}, "holds[0].token"},
		{"a negative ttl", "RenewSet", &pylokv1.RenewSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held", Token: token}}, Expiry: &pylokv1.RenewSetRequest_Ttl{Ttl: durationpb.New(-1)}}, "ttl"},

		{"hand over without a token", "HandOver", &pylokv1.HandOverRequest{Name: "held", Holder: "bob"}, "token"},
		{"never is false", "HandOver", &pylokv1.HandOverRequest{Name: "held", Token: token, Expiry: &pylokv1.HandOverRequest_Never{}}, "never"},
		{"hand over to a long holder", "HandOver", &pylokv1.HandOverRequest{Name: "held", Token: token, Holder: long}, "holder"},
		{"hand over to a long caller", "HandOver", &pylokv1.HandOverRequest{Name: "held", Token: token, Caller: long}, "caller"},
		{"hand over from a long holder", "HandOver", &pylokv1.HandOverRequest{Name: "held", Token: token, From: long}, "from"},
		{"hand over until yesterday", "HandOver", &pylokv1.HandOverRequest{Name: "held", Token: token, Expiry: &pylokv1.HandOverRequest_ExpireTime{ExpireTime: timestamppb.New(time.Now().Add(-24 * time.Hour))}}, "expire_time"},
		{"hand over for a long reason", "HandOver", &pylokv1.HandOverRequest{Name: "held", Token: token, Reason: long}, "reason"},

		{"ask nothing", "Ask", &pylokv1.AskRequest{Name: "held"}, "message"},
		{"ask blanks", "Ask", &pylokv1.AskRequest{Name: "held", Message: " \n"}, "message"},
		{"ask at length", "Ask", &pylokv1.AskRequest{Name: "held", Message: long + "x"}, "message"},
		{"ask of no lock", "Ask", &pylokv1.AskRequest{Message: "x"}, "name"},
		{"dismiss nobody", "Dismiss", &pylokv1.DismissRequest{Name: "held", Reason: "x"}, "place"},
		{"dismiss for nothing", "Dismiss", &pylokv1.DismissRequest{Name: "held", Place: 1}, "reason"},
		{"dismiss from no lock", "Dismiss", &pylokv1.DismissRequest{Place: 1, Reason: "x"}, "name"},
	} {
		_, err := invoke(t, s, test.method, test.request)
		if err == nil {
			t.Errorf("%s: it is done", test.what)
			continue
		}
		reason := lock.ErrInvalidArgument
		if refusal := refusedBy(err); refusal != nil && refusal.Reason == lock.ErrInvalidName {
			reason = lock.ErrInvalidName
		}
		if d := refused(t, err, codes.InvalidArgument, reason); d.violation.GetField() != test.field {
			t.Errorf("%s: the field %q is at fault, want %q: %v", test.what, d.violation.GetField(), test.field, err)
		}
		now, err := s.List(ctx, &pylokv1.ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if now.GetRevision() != 1 || len(now.GetLocks()) != 1 || !proto.Equal(now.GetLocks()[0], held.GetLock()) {
			t.Fatalf("%s: now there is %v", test.what, now)
		}
	}
}
