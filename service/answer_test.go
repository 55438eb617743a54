package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// clientBytes is how large an answer gRPC clients take by default.
const clientBytes = 4 << 20

// TestLockMessage: what a lock is, and what stands around it, on the wire.
func TestLockMessage(t *testing.T) {
	at := time.Date(2026, 11, 28, 16, 0, 0, 0, time.UTC)
	sent, later := timestamppb.New(at), timestamppb.New(at.Add(time.Hour))
	release, keep := pylokv1.OnExpiry_ON_EXPIRY_RELEASE, pylokv1.OnExpiry_ON_EXPIRY_KEEP
	data, err := lock.ParseData([]byte(`{"msg": "m", "more": [1, 2]}`))
	if err != nil {
		t.Fatal(err)
	}
	msg := document(t, `{"msg": "m"}`)
	a, b, slot := lock.MustParseName("x/a"), lock.MustParseName("x"), lock.MustParseName("x/a/_+2")
	waiter := lock.Waiter{Place: 3, Holder: "h", Caller: "unix:h", Since: at, Until: at.Add(time.Hour), Shared: true, Tree: true, Names: []lock.Name{b, a}, Message: "m"}
	waiterMessage := &pylokv1.Waiter{Place: 3, Holder: "h", Caller: "unix:h", SinceTime: sent, UntilTime: later, Shared: true, Tree: true, Names: []string{"x", "x/a"}, Message: "m"}
	free := func(o lock.Obstacle) lock.Lock {
		return lock.Lock{Name: a, Situation: &lock.Situation{BlockedBy: &o}}
	}
	blocked := func(o *pylokv1.Obstacle) *pylokv1.Lock {
		return &pylokv1.Lock{Name: "x/a", State: unlocked, BlockedBy: o}
	}
	s, written := New(nil, Config{}), map[protoreflect.FullName]bool{}
	rooted := New(nil, Config{Root: "/srv"})
	for _, test := range []struct {
		what string
		lock lock.Lock
		want *pylokv1.Lock
	}{
		{"free", lock.Lock{Name: a}, &pylokv1.Lock{Name: "x/a", State: unlocked}},
		{"a slot that is free", lock.Lock{Name: slot}, &pylokv1.Lock{Name: "x/a/_+2", State: unlocked}},
		{"held", lock.Lock{Name: a, Token: 7, Revision: 8, AcquireTime: at},
			&pylokv1.Lock{Name: "x/a", State: locked, Token: 7, Revision: 8, AcquireTime: sent, OnExpiry: release}},
		{"to keep, in a set", lock.Lock{Name: a, Token: 7, Revision: 8, AcquireTime: at, TTL: time.Hour, OnExpiry: lock.Keep, Set: lock.SetRef{ID: 5, Size: 3}},
			&pylokv1.Lock{Name: "x/a", State: locked, Token: 7, Revision: 8, AcquireTime: sent, Ttl: durationpb.New(time.Hour), ExpireTime: later, OnExpiry: keep, Set: &pylokv1.SetRef{Id: 5, Size: 3}}},
		{"stale, of a ttl", lock.Lock{Name: a, Token: 7, Revision: 8, AcquireTime: at, TTL: time.Hour, OnExpiry: lock.Keep, StaleTime: at.Add(time.Hour)},
			&pylokv1.Lock{Name: "x/a", State: locked, Token: 7, Revision: 8, AcquireTime: sent, Ttl: durationpb.New(time.Hour), OnExpiry: keep, StaleTime: later}},
		{"stale, of an expiry", lock.Lock{Name: a, Token: 7, Revision: 8, AcquireTime: at, ExpireTime: at.Add(time.Hour), OnExpiry: lock.Keep, StaleTime: at.Add(time.Hour)},
			&pylokv1.Lock{Name: "x/a", State: locked, Token: 7, Revision: 8, AcquireTime: sent, OnExpiry: keep, StaleTime: later}},
		{"a tree", lock.Lock{Name: b, Token: 7, Revision: 7, AcquireTime: at, Tree: true, Situation: &lock.Situation{HeldBelow: 9}},
			&pylokv1.Lock{Name: "x", State: locked, Token: 7, Revision: 7, AcquireTime: sent, OnExpiry: release, Tree: true, HeldBelow: 9}},
		{"a shared hold", lock.Lock{Name: slot, Token: 7, Revision: 7, AcquireTime: at, Situation: &lock.Situation{Conflict: "c", ConflictWith: a}},
			&pylokv1.Lock{Name: "x/a/_+2", State: locked, Token: 7, Revision: 7, AcquireTime: sent, OnExpiry: release, Shared: true, Conflict: "c"}},
		{"waited for", lock.Lock{Name: a, Waiters: 2, Situation: &lock.Situation{Waiting: []lock.Waiter{waiter, {Place: 4}}, SharedHolds: 5}},
			&pylokv1.Lock{Name: "x/a", State: unlocked, Waiters: 2, Waiting: []*pylokv1.Waiter{waiterMessage, {Place: 4}}, SharedHolds: 5}},
		{"behind a waiter", free(lock.Obstacle{Kind: lock.ByWaiter, Waiter: waiter}),
			blocked(&pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_WAITER, Waiter: waiterMessage})},
		{"under a tree", free(lock.Obstacle{Kind: lock.ByTree, Lock: lock.Lock{Name: b, Token: 7, Revision: 7, Tree: true, Data: data, Warnings: "w", Situation: &lock.Situation{HeldBelow: 2}}}),
			blocked(&pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_TREE, Lock: &pylokv1.Lock{Name: "x", State: locked, Token: 7, Revision: 7, Tree: true, OnExpiry: release, Data: msg}})},
		{"under a tree that is about to be", free(lock.Obstacle{Kind: lock.ByTree}),
			blocked(&pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_TREE})},
		{"under a tree of which nothing may be seen", free(lock.Obstacle{Kind: lock.ByTree, Hidden: true}),
			blocked(&pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_TREE, Lock: &pylokv1.Lock{State: locked}})},
		{"beside a shared hold", free(lock.Obstacle{Kind: lock.ByShared, Lock: lock.Lock{Name: slot, Token: 7, Revision: 7}}),
			blocked(&pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_SHARED, Lock: &pylokv1.Lock{Name: "x/a/_+2", State: locked, Token: 7, Revision: 7, OnExpiry: release, Shared: true}})},
	} {
		got := s.lockMessage(test.lock)
		if !proto.Equal(got, test.want) {
			t.Errorf("%s:\ngot  %v\nwant %v", test.what, got, test.want)
		}
		noteFields(written, got.ProtoReflect())
	}
	noteFields(written, rooted.lockMessage(lock.Lock{
		Name: a, Token: 7, Data: data, Holder: "h", Caller: "c", Problem: "p", Warnings: "w",
	}).ProtoReflect())
	for _, message := range []proto.Message{&pylokv1.Lock{}, &pylokv1.SetRef{}, &pylokv1.Waiter{}, &pylokv1.Obstacle{}} {
		fields := message.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if name := fields.Get(i).FullName(); !written[name] {
				t.Errorf("%s is never written", name)
			}
		}
	}
}

// noteFields notes which fields are set in a message and in those in it.
func noteFields(set map[protoreflect.FullName]bool, message protoreflect.Message) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		set[field.FullName()] = true
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				noteFields(set, value.List().Get(i).Message())
			}
		default:
			noteFields(set, value.Message())
		}
		return true
	})
}

// TestEventMessage: what is new in events.
func TestEventMessage(t *testing.T) {
	s := New(nil, Config{})
	at := time.Date(2026, 11, 28, 16, 0, 0, 0, time.UTC)
	hold := lock.Lock{Name: lock.MustParseName("a"), Token: 9, Revision: 9, AcquireTime: at, TTL: time.Hour, OnExpiry: lock.Keep, Tree: true}

	e := s.eventMessage(lock.Event{Revision: 9, Type: lock.Locked, Cause: lock.Request, Time: at, Lock: hold, Previous: 4})
	if e.GetPreviousToken() != 4 || !e.GetLock().GetTree() || e.GetLock().GetOnExpiry() != pylokv1.OnExpiry_ON_EXPIRY_KEEP {
		t.Errorf("LOCKED is %v", e)
	}
	e = s.eventMessage(lock.Event{Revision: 10, Type: lock.Unlocked, Cause: lock.Request, Time: at, Lock: hold})
	if l := e.GetLock(); l.GetState() != unlocked || !l.GetTree() || l.GetOnExpiry() != 0 {
		t.Errorf("UNLOCKED is %v", e)
	}
	// Two are asked in the same words: each is told.
	hold.Deadline = at.Add(2 * time.Hour)
	asked := lock.Event{Type: lock.Asked, Time: at, Lock: hold, Actor: "bob", Reason: "may I?"}
	e = s.watchResponse(asked).GetEvent()
	want := &pylokv1.Event{Time: timestamppb.New(at), Type: pylokv1.EventType_EVENT_TYPE_ASKED, Actor: "bob", Reason: "may I?", Lock: s.lockMessage(hold)}
	if !proto.Equal(e, want) || e.GetLock().GetExpireTime().AsTime() != hold.Deadline {
		t.Errorf("ASKED is %v, want %v", e, want)
	}
}

// TestSetAnswers: each hold of a set has what became of it, and a fault is not one of that.
func TestSetAnswers(t *testing.T) {
	a, b, c := lock.MustParseName("a"), lock.MustParseName("b"), lock.MustParseName("c")
	hold := func(n lock.Name, token lock.Token) lock.Lock { return lock.Lock{Name: n, Token: token, Revision: 1} }
	present := hold(b, 9)
	fake := &fakeLocks{answers: []lock.SetAnswer{
		{HoldRef: lock.HoldRef{Name: a, Token: 1}, Lock: hold(a, 1), Revision: 12, Next: hold(a, 13)},
		{HoldRef: lock.HoldRef{Name: b, Token: 2}, Err: &lock.Error{Reason: lock.ErrNotHolder, Message: "it is not yours", Lock: &present}},
		{HoldRef: lock.HoldRef{Name: c, Token: 3}, Err: fmt.Errorf("wrapped: %w", lock.ErrNotLocked)},
	}}
	s := New(fake, Config{})
	want := []*pylokv1.SetAnswer{
		{Name: "a", Token: 1, Lock: s.lockMessage(hold(a, 1)), Revision: 12, Next: s.lockMessage(hold(a, 13))},
		{Name: "b", Token: 2, Lock: s.lockMessage(present), Reason: "NOT_HOLDER", Message: "it is not yours"},
		{Name: "c", Token: 3, Reason: "NOT_LOCKED", Message: "the lock is free"},
	}
	refs := []*pylokv1.HoldRef{{Name: "a", Token: 1}}
	for method, request := range map[string]proto.Message{"UnlockSet": &pylokv1.UnlockSetRequest{Holds: refs}, "RenewSet": &pylokv1.RenewSetRequest{Holds: refs}} {
		answer, err := invoke(t, s, method, request)
		if err != nil {
			t.Fatal(err)
		}
		got := answer.(interface{ GetAnswers() []*pylokv1.SetAnswer }).GetAnswers()
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || !proto.Equal(got[i], want[i]) {
				t.Errorf("%s:\ngot  %v\nwant %v", method, got, want)
				break
			}
		}
	}
	before := fake.answers
	for err, code := range map[error]codes.Code{errDisk: codes.Internal, context.Canceled: codes.Canceled} {
		fake.answers = append(before[:3:3], lock.SetAnswer{HoldRef: lock.HoldRef{Name: lock.MustParseName("d"), Token: 4}, Err: err})
		for method, request := range map[string]proto.Message{"UnlockSet": &pylokv1.UnlockSetRequest{Holds: refs}, "RenewSet": &pylokv1.RenewSetRequest{Holds: refs}} {
			_, got := invoke(t, s, method, request)
			refusedCode(t, got, code)
			if !errors.Is(got, err) || strings.Contains(status.Convert(got).Message(), "input/output") {
				t.Errorf("%s: got %v, want %v for the log alone", method, got, err)
			}
		}
	}
	// What is too many is not looked at, by a guard as little as here.
	fake.asked = nil
	for method, request := range map[string]proto.Message{
		"LockSet":   &pylokv1.LockSetRequest{Names: make([]string, 65)},
		"UnlockSet": &pylokv1.UnlockSetRequest{Holds: make([]*pylokv1.HoldRef, 65)},
		"RenewSet":  &pylokv1.RenewSetRequest{Holds: make([]*pylokv1.HoldRef, 65)},
	} {
		_, err := invoke(t, s, method, request)
		if d := refused(t, err, codes.InvalidArgument, lock.ErrInvalidArgument); strings.Contains(d.violation.GetField(), "[") || fake.asked != nil {
			t.Errorf("%s: got %v, and the locks were asked %v", method, err, fake.asked)
		}
	}
}

// largestLock is a lock with all that a lock can have around it: with so many waiters, and
// data that are as large as can be on the wire.
func largestLock(t *testing.T, waiting int) lock.Lock {
	zeros := make([]any, lock.MaxFileBytes/4)
	for i := range zeros {
		zeros[i] = 0.0
	}
	data, err := lock.NewData(map[string]any{"a": zeros})
	if err != nil {
		t.Fatal(err)
	}
	segment := strings.Repeat("n", 127)
	long := lock.MustParseName(strings.Join([]string{segment, segment, segment, segment + "n"}, "/"))
	holder, caller := strings.Repeat("h", 256), strings.Repeat("c", 512)
	at := time.Now()
	waiter := lock.Waiter{Place: 1 << 60, Holder: holder, Caller: caller, Since: at, Until: at, Shared: true, Tree: true, Message: strings.Repeat("m", 256)}
	for range lock.MaxSetNames {
		waiter.Names = append(waiter.Names, long)
	}
	l := lock.Lock{
		Name: long, Data: data, Holder: holder, Caller: caller, Token: 1 << 60, Revision: 1 << 60, AcquireTime: at, TTL: time.Hour, ExpireTime: at, Deadline: at,
		Tree: true, Set: lock.SetRef{ID: 1 << 60, Size: 64}, OnExpiry: lock.Keep, Problem: strings.Repeat("p", 1000), Warnings: strings.Repeat("w", 1000), Waiters: 1 << 20,
	}
	l.Situation = &lock.Situation{SharedHolds: 1 << 20, HeldBelow: 1 << 20, Conflict: strings.Repeat("c", 2000)}
	l.Situation.BlockedBy = &lock.Obstacle{Kind: lock.ByWaiter, Waiter: waiter}
	for range waiting {
		l.Situation.Waiting = append(l.Situation.Waiting, waiter)
	}
	return l
}

// TestLargestAnswers: no answer is larger than clients take, and each says what it must.
func TestLargestAnswers(t *testing.T) {
	l := largestLock(t, 10)
	fake := &fakeLocks{lock: largestLock(t, 100), release: lock.Release{Lock: l, Next: l}}
	for range lock.MaxSetNames {
		fake.setGrant.Locks = append(fake.setGrant.Locks, l)
		fake.answers = append(fake.answers, lock.SetAnswer{HoldRef: lock.HoldRef{Name: l.Name, Token: l.Token}, Lock: l, Next: l, Err: &lock.Error{Reason: lock.ErrNotHolder, Message: strings.Repeat("m", 9000)}})
	}
	s := New(fake, Config{Root: "/" + strings.Repeat("r", 200)})
	refs := []*pylokv1.HoldRef{{Name: "a", Token: 1}}
	for method, request := range map[string]proto.Message{
		"Status":    &pylokv1.StatusRequest{Name: "a"},
		"Unlock":    &pylokv1.UnlockRequest{Name: "a"},
		"LockSet":   &pylokv1.LockSetRequest{Names: []string{"a"}},
		"UnlockSet": &pylokv1.UnlockSetRequest{Holds: refs},
		"RenewSet":  &pylokv1.RenewSetRequest{Holds: refs},
	} {
		answer, err := invoke(t, s, method, request)
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(answer); size > clientBytes {
			t.Errorf("%s: the answer has %d bytes, want at most %d", method, size, clientBytes)
		}
		var locks []*pylokv1.Lock
		switch answer := answer.(type) {
		case *pylokv1.StatusResponse:
			if n := len(answer.GetLock().GetWaiting()); n != 100 {
				t.Errorf("Status shows %d waiters, want 100", n)
			}
		case *pylokv1.LockSetResponse:
			locks = answer.GetLocks()
		case *pylokv1.UnlockSetResponse:
			for _, a := range answer.GetAnswers() {
				locks = append(locks, a.GetLock(), a.GetNext())
				if n := len(a.GetMessage()); n > 2000 {
					t.Fatalf("%s: the message has %d bytes", method, n)
				}
			}
		}
		for i, got := range locks {
			if got.GetName() != l.Name.String() || got.GetToken() != uint64(l.Token) || got.GetHolder() != l.Holder {
				t.Fatalf("%s: lock %d is %v", method, i, got)
			}
			if i == 0 && (got.GetData() == nil || len(got.GetWaiting()) != 10) {
				t.Errorf("%s: lock 0 is not whole", method)
			}
		}
	}
}

// TestSmallAnswers: locks that are not counted, as many as there can be, leave room for those
// that are.
func TestSmallAnswers(t *testing.T) {
	l := largestLock(t, 0)
	l.Situation, l.Warnings, l.Problem = nil, "", ""
	zeros := make([]any, 252) // of what grows most, see TestLargestDocument
	for i := range zeros {
		zeros[i] = 0.0
	}
	var err error
	if l.Data, err = lock.NewData(map[string]any{"a": zeros}); err != nil || l.Data.Size() > 512 {
		t.Fatal(l.Data.Size(), err)
	}
	fake := &fakeLocks{}
	for range lock.MaxSetNames {
		fake.answers = append(fake.answers, lock.SetAnswer{Lock: l, Next: l})
	}
	s := New(fake, Config{Root: "/" + strings.Repeat("r", 4095)})
	answer, err := invoke(t, s, "UnlockSet", &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "a", Token: 1}}})
	if size := proto.Size(answer); err != nil || size > clientBytes-setBytes {
		t.Errorf("the answer has %d bytes, want at most %d; %v", size, clientBytes-setBytes, err)
	}
	for _, a := range answer.(*pylokv1.UnlockSetResponse).GetAnswers() {
		if a.GetLock().GetData() == nil || a.GetNext().GetData() == nil {
			t.Fatalf("not whole: %v", a)
		}
	}
}

// TestLargestRefusals: no status is larger than clients read, and it shows the lock in the
// way, by its own name, as far as there is room.
func TestLargestRefusals(t *testing.T) {
	s := New(nil, Config{Root: "/srv/locks"})
	msg, err := lock.ParseData([]byte(`{"msg": "` + strings.Repeat("m", 500) + `", "more": "` + strings.Repeat("x", 5000) + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	small := lock.Lock{Name: lock.MustParseName("prod"), Token: 7, Revision: 7, Holder: "alice", Data: msg, Tree: true}
	waited := small
	waited.Data = lock.Data{}
	waited.Situation = &lock.Situation{Waiting: []lock.Waiter{{Place: 1, Names: make([]lock.Name, 0)}}}
	busy := largestLock(t, 10)
	for _, test := range []struct {
		what    string
		lock    lock.Lock
		message string
		whole   bool // nothing of the message is cut
		msg     bool // the key msg is there
		waiting int
	}{
		{"a lock with a waiter", waited, "a sentence", true, false, 1},
		{"large data", small, "a sentence", true, true, 0},
		{"large data and many names", small, strings.Repeat("é", 600), true, true, 0},
		{"more names than there is room", small, strings.Repeat("é", 3000), false, true, 0},
		{"everything", busy, strings.Repeat("é", 3000), false, false, 0},
	} {
		for _, reason := range []lock.Reason{lock.ErrLockHeld, lock.ErrNotHolder} {
			err := s.statusError(&lock.Error{Reason: reason, Message: test.message, Lock: &test.lock}, &pylokv1.LockRequest{Name: "prod/web"})
			d := refused(t, err, codes.FailedPrecondition, reason)
			got := status.Convert(err)
			if size := proto.Size(got.Proto()); size > maxStatusBytes {
				t.Errorf("%s: the status has %d bytes, want at most %d", test.what, size, maxStatusBytes)
			}
			if name := test.lock.Name.String(); d.lock.GetName() != name || d.info.GetMetadata()["name"] != name || d.lock.GetToken() != uint64(test.lock.Token) || !d.lock.GetTree() {
				t.Errorf("%s: the lock in the way is %v", test.what, d.lock)
			}
			if whole := got.Message() == test.message; whole != test.whole || len(got.Message()) < 500 && !whole {
				t.Errorf("%s: the message is %q", test.what, got.Message())
			}
			if has := d.lock.GetData().GetFields()["msg"] != nil; has != test.msg || len(d.lock.GetWaiting()) != test.waiting {
				t.Errorf("%s: shown is %v", test.what, d.lock)
			}
		}
	}
	// Without a lock to show, as where that may not be viewed.
	err = s.statusError(&lock.Error{Reason: lock.ErrLockHeld, Message: strings.Repeat("m", 9000)}, &pylokv1.LockRequest{Name: "prod/web"})
	if size := proto.Size(status.Convert(err).Proto()); size > maxStatusBytes {
		t.Errorf("the status has %d bytes, want at most %d", size, maxStatusBytes)
	}
}
