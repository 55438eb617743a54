package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// status returns a lock as it stands.
func (r *running) status(t testing.TB, name string) *pylokv1.Lock {
	t.Helper()
	response, err := r.Status(t.Context(), &pylokv1.StatusRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetLock()
}

// TestOneSet follows one set through every RPC.
func TestOneSet(t *testing.T) {
	r := serve(t, setup{})
	ctx, cancel := contextOf(t)
	defer cancel()
	r.lock(t, &pylokv1.LockRequest{Name: "pool/1", Holder: "bob", Data: document(t, `{"msg": "mine"}`)})
	request := &pylokv1.LockSetRequest{
		Names: []string{"db", "cache"}, Choices: []*pylokv1.Choice{{Names: []string{"pool/1", "pool/2"}}}, Data: document(t, `{"msg": "deploy"}`),
		Holder: "alice", Expiry: &pylokv1.LockSetRequest_Ttl{Ttl: durationpb.New(time.Hour)}, RequestId: "r1", OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP,
	}
	granted, err := r.LockSet(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var holds []*pylokv1.HoldRef
	for _, l := range granted.GetLocks() {
		got = append(got, fmt.Sprintf("%s %d of %d/%d", l.GetName(), l.GetToken(), l.GetSet().GetId(), l.GetSet().GetSize()))
		holds = append(holds, &pylokv1.HoldRef{Name: l.GetName(), Token: l.GetToken()})
		if l.GetHolder() != "alice" || l.GetTtl().AsDuration() != time.Hour || l.GetOnExpiry() != pylokv1.OnExpiry_ON_EXPIRY_KEEP || l.GetData().GetFields()["msg"].GetStringValue() != "deploy" {
			t.Errorf("granted %v", l)
		}
	}
	if want := []string{"cache 2 of 2/3", "db 3 of 2/3", "pool/2 4 of 2/3"}; !slices.Equal(got, want) {
		t.Fatalf("granted %q, want %q", got, want)
	}
	again, err := r.LockSet(ctx, request)
	if err != nil || len(again.GetLocks()) != 3 || again.GetLocks()[0].GetToken() != 2 {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	// A refusal has the first that is in the way whole, and names the others.
	_, err = r.LockSet(ctx, &pylokv1.LockSetRequest{Names: []string{"web", "pool/1", "db"}, Holder: "carol"})
	d := refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld)
	if d.lock.GetName() != "db" || d.lock.GetData() == nil || d.info.GetMetadata()["name"] != "db" || !strings.Contains(status.Convert(err).Message(), "pool/1") {
		t.Errorf("refused with %v and %v", err, d.lock)
	}
	if l := r.status(t, "web"); l.GetState() != unlocked {
		t.Errorf("refused, it has %v", l)
	}
	// One hold is lost.
	if _, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "db", Force: true, Reason: "it is mine", Holder: "carol"}); err != nil {
		t.Fatal(err)
	}
	renewed, err := r.RenewSet(ctx, &pylokv1.RenewSetRequest{Holds: holds, Expiry: &pylokv1.RenewSetRequest_Ttl{Ttl: durationpb.New(2 * time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	reasons := func(answers []*pylokv1.SetAnswer) (reasons []string) {
		for _, a := range answers {
			reasons = append(reasons, fmt.Sprintf("%s %d %s", a.GetName(), a.GetToken(), a.GetReason()))
		}
		return reasons
	}
	want := []string{"cache 2 ", "db 3 NOT_LOCKED", "pool/2 4 "}
	if got := reasons(renewed.GetAnswers()); !slices.Equal(got, want) {
		t.Errorf("renewed %q, want %q", got, want)
	}
	if l := renewed.GetAnswers()[0].GetLock(); l.GetTtl().AsDuration() != 2*time.Hour {
		t.Errorf("renewed, it is %v", l)
	}
	_, err = r.LockSet(ctx, request)
	refused(t, err, codes.FailedPrecondition, lock.ErrNotHolder)

	next := make(chan error, 1)
	go func() {
		_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "cache", Holder: "next", WaitForever: true})
		next <- err
	}()
	r.waiters(t, "cache", 1)
	if w := r.status(t, "cache").GetWaiting(); len(w) != 1 || w[0].GetHolder() != "next" || w[0].GetPlace() == 0 || w[0].GetSinceTime() == nil || w[0].GetUntilTime() != nil {
		t.Errorf("who waits without an end is %v", w)
	}
	ended, err := r.UnlockSet(ctx, &pylokv1.UnlockSetRequest{Holds: holds, Reason: "done", Data: document(t, `{"msg": "bye"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := reasons(ended.GetAnswers()); !slices.Equal(got, want) {
		t.Errorf("ended %q, want %q", got, want)
	}
	if a := ended.GetAnswers()[2]; a.GetRevision() == 0 || a.GetLock().GetToken() != 4 || a.GetLock().GetState() != locked {
		t.Errorf("ended %v", a)
	}
	if err := <-next; err != nil {
		t.Error(err)
	}
	// What is left of a set, by its number.
	two, err := r.LockSet(ctx, &pylokv1.LockSetRequest{Names: []string{"s/1", "s/2", "s/3"}, Holder: "dave"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "s/2", Holder: "dave"}); err != nil {
		t.Fatal(err)
	}
	left, err := r.UnlockSet(ctx, &pylokv1.UnlockSetRequest{Set: two.GetLocks()[0].GetSet().GetId(), Holder: "dave"})
	if err != nil || len(left.GetAnswers()) != 2 || left.GetAnswers()[0].GetRevision() == 0 {
		t.Errorf("what is left of the set: %v, %v", left, err)
	}
	past, err := r.History(ctx, &pylokv1.HistoryRequest{Pattern: "pool/2"})
	if err != nil {
		t.Fatal(err)
	}
	if e := past.GetEvents()[1]; e.GetType() != pylokv1.EventType_EVENT_TYPE_UNLOCKED || e.GetReason() != "done" || e.GetLock().GetData().GetFields()["msg"].GetStringValue() != "bye" || e.GetLock().GetSet().GetSize() != 3 {
		t.Errorf("the history has %v", e)
	}
}

// TestTree: the lock in the way is another than the one asked for.
func TestTree(t *testing.T) {
	r := serve(t, setup{})
	ctx, cancel := contextOf(t)
	defer cancel()
	r.lock(t, &pylokv1.LockRequest{Name: "prod/db", Holder: "bob"})
	tree := r.lock(t, &pylokv1.LockRequest{Name: "prod", Tree: true, Holder: "alice", Data: document(t, `{"msg": "holiday"}`)})
	if !tree.GetTree() {
		t.Errorf("granted %v, want a tree", tree)
	}
	if l := r.status(t, "prod"); l.GetHeldBelow() != 1 {
		t.Errorf("the tree is %v, want one held below", l)
	}
	_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "prod/web", Holder: "bob"})
	if d := refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld); d.lock.GetName() != "prod" || !d.lock.GetTree() || d.info.GetMetadata()["name"] != "prod" || d.info.GetMetadata()["holder"] != "alice" {
		t.Errorf("refused with %v and %v", d.lock, d.info)
	}
	l := r.status(t, "prod/web")
	if o := l.GetBlockedBy(); l.GetState() != unlocked || o.GetKind() != pylokv1.ObstacleKind_OBSTACLE_KIND_TREE || o.GetLock().GetName() != "prod" || o.GetWaiter() != nil {
		t.Errorf("what is frozen is %v", l)
	}
	through := r.lock(t, &pylokv1.LockRequest{Name: "prod/web", Holder: "bob", ThroughFreeze: true, Reason: "hot fix"})
	if l := r.status(t, "prod/web"); l.GetToken() != through.GetToken() || l.GetConflict() == "" || l.GetBlockedBy() != nil {
		t.Errorf("what is held in a freeze is %v", l)
	}
	past, err := r.History(ctx, &pylokv1.HistoryRequest{Pattern: "prod/web"})
	if err != nil || past.GetEvents()[0].GetReason() == "" || past.GetEvents()[0].GetLock().GetConflict() != "" {
		t.Errorf("the history has %v, %v", past, err)
	}
}

// TestShared: readers stand beside each other, and a watch of their lock has them.
func TestShared(t *testing.T) {
	r := serve(t, setup{})
	ctx, cancel := contextOf(t)
	defer cancel()
	stream := r.watch(t, &pylokv1.WatchRequest{Pattern: "conf/app"})
	next(t, stream, 2) // RESET, SYNCED
	for i := range 2 {
		l := r.lock(t, &pylokv1.LockRequest{Name: "conf/app", Shared: true, Limit: 2})
		if want := fmt.Sprintf("conf/app/_+%d", i+1); l.GetName() != want || !l.GetShared() {
			t.Errorf("granted %v, want %s", l, want)
		}
		if e := next(t, stream, 1)[0]; e.GetType() != pylokv1.EventType_EVENT_TYPE_LOCKED || e.GetLock().GetName() != l.GetName() || !e.GetLock().GetShared() {
			t.Errorf("the watch has %v", e)
		}
	}
	if l := r.status(t, "conf/app"); l.GetSharedHolds() != 2 || l.GetState() != unlocked || l.GetBlockedBy().GetKind() != pylokv1.ObstacleKind_OBSTACLE_KIND_SHARED || l.GetBlockedBy().GetLock().GetName() != "conf/app/_+1" {
		t.Errorf("the lock is %v", l)
	}
	for _, request := range []*pylokv1.LockRequest{{Name: "conf/app"}, {Name: "conf/app", Shared: true, Limit: 2}} {
		_, err := r.Lock(ctx, request)
		if d := refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld); d.lock.GetName() != "conf/app/_+1" || !d.lock.GetShared() {
			t.Errorf("%v: refused with %v", request, d.lock)
		}
	}
	// A pattern of many names is the names that it matches.
	with, without := r.watch(t, &pylokv1.WatchRequest{Pattern: "conf/app/*"}), r.watch(t, &pylokv1.WatchRequest{Pattern: "conf/*"})
	if e := next(t, with, 2)[1]; e.GetLock().GetName() != "conf/app/_+1" {
		t.Errorf("the watch of conf/app/* has %v", e)
	}
	if e := next(t, without, 2)[1]; e.GetType() != pylokv1.EventType_EVENT_TYPE_SYNCED {
		t.Errorf("the watch of conf/* has %v", e)
	}
}

// TestStale: a hold to keep whose time is over stays until somebody has looked.
func TestStale(t *testing.T) {
	r := serve(t, setup{})
	ctx, cancel := contextOf(t)
	defer cancel()
	stream := r.watch(t, &pylokv1.WatchRequest{Pattern: "job/*"})
	next(t, stream, 2)
	keep := func(name string) *pylokv1.Lock {
		return r.lock(t, &pylokv1.LockRequest{Name: name, Holder: "alice", OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP, Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(100 * time.Millisecond)}})
	}
	for i, end := range []func(hold *pylokv1.Lock) (uint64, error){
		func(hold *pylokv1.Lock) (uint64, error) {
			_, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: hold.GetName(), Holder: "bob", Stale: true, Reason: "I looked"})
			return 0, err
		},
		func(hold *pylokv1.Lock) (uint64, error) {
			_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: hold.GetName(), Holder: "bob", ReplaceStale: true, Reason: "I looked"})
			return hold.GetToken(), err
		},
	} {
		hold := keep(fmt.Sprintf("job/%d", i))
		events := next(t, stream, 2)
		e := events[1]
		if l := e.GetLock(); e.GetType() != pylokv1.EventType_EVENT_TYPE_UPDATED || e.GetCause() != pylokv1.EventCause_EVENT_CAUSE_EXPIRED || l.GetStaleTime() == nil || l.GetState() != locked || l.GetExpireTime() != nil {
			t.Fatalf("when its time is over: %v", e)
		}
		if l := r.status(t, hold.GetName()); l.GetStaleTime() == nil || l.GetExpireTime() != nil || l.GetToken() != hold.GetToken() {
			t.Errorf("the stale hold is %v", l)
		}
		for _, err := range []error{
			second(r.Renew(ctx, &pylokv1.RenewRequest{Name: hold.GetName(), Token: hold.GetToken()})),
			second(r.Unlock(ctx, &pylokv1.UnlockRequest{Name: hold.GetName(), Token: hold.GetToken()})),
			second(r.HandOver(ctx, &pylokv1.HandOverRequest{Name: hold.GetName(), Token: hold.GetToken(), Holder: "bob"})),
		} {
			if d := refused(t, err, codes.FailedPrecondition, lock.ErrNotHolder); d.lock.GetStaleTime() == nil {
				t.Errorf("refused with %v", d.lock)
			}
		}
		previous, err := end(hold)
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, stream, 1)[0]; e.GetType() != pylokv1.EventType_EVENT_TYPE_UNLOCKED {
			t.Errorf("at its end: %v", e)
		}
		if previous != 0 {
			if e := next(t, stream, 1)[0]; e.GetPreviousToken() != previous {
				t.Errorf("replaced by %v, want previous_token %d", e, previous)
			}
		}
	}
}

// TestHandOver: a hold goes on with another token, and what is asked of its holder is told
// to who has that.
func TestHandOver(t *testing.T) {
	r := serve(t, setup{})
	ctx, cancel := contextOf(t)
	defer cancel()
	all := r.watch(t, &pylokv1.WatchRequest{})
	next(t, all, 2)
	hold := r.lock(t, &pylokv1.LockRequest{Name: "shift", Holder: "alice", Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)}})
	over := &pylokv1.HandOverRequest{Name: "shift", Token: hold.GetToken(), Holder: "bob", Reason: "end of shift", RequestId: "h1", Expiry: &pylokv1.HandOverRequest_Never{Never: true}}
	handed, err := r.HandOver(ctx, over)
	if err != nil {
		t.Fatal(err)
	}
	l := handed.GetLock()
	if l.GetHolder() != "bob" || l.GetToken() <= hold.GetToken() || l.GetTtl() != nil || l.GetExpireTime() != nil {
		t.Errorf("handed over is %v", handed)
	}
	again, err := r.HandOver(ctx, over)
	if err != nil || again.GetLock().GetToken() != l.GetToken() {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	_, err = r.Renew(ctx, &pylokv1.RenewRequest{Name: "shift", Token: hold.GetToken()})
	refused(t, err, codes.FailedPrecondition, lock.ErrNotHolder)
	events := next(t, all, 3)
	if e := events[2]; events[1].GetType() != pylokv1.EventType_EVENT_TYPE_UNLOCKED || e.GetType() != pylokv1.EventType_EVENT_TYPE_LOCKED || e.GetPreviousToken() != hold.GetToken() || !strings.Contains(e.GetReason(), "end of shift") || e.GetCause() != pylokv1.EventCause_EVENT_CAUSE_REQUEST {
		t.Errorf("the watch has %v", events[1:])
	}

	// Nobody listens yet; who comes with the token hears of it.
	for i, request := range []*pylokv1.AskRequest{{Name: "shift", Message: "may I?", Holder: "carol"}, {Name: "shift", Token: l.GetToken(), Message: "now?", Holder: "carol"}} {
		asked, err := r.Ask(ctx, request)
		if err != nil || asked.GetHeard() || asked.GetLock().GetToken() != l.GetToken() {
			t.Errorf("ask %d: %v, %v", i, asked, err)
		}
	}
	_, err = r.Ask(ctx, &pylokv1.AskRequest{Name: "shift", Token: hold.GetToken(), Message: "x"})
	refused(t, err, codes.FailedPrecondition, lock.ErrNotHolder)
	_, err = r.Ask(ctx, &pylokv1.AskRequest{Name: "free", Message: "x"})
	refused(t, err, codes.NotFound, lock.ErrNotLocked)
	mine := r.watch(t, &pylokv1.WatchRequest{Pattern: "shift", Token: l.GetToken()})
	var words []string
	for len(words) < 2 {
		if e := next(t, mine, 1)[0]; e.GetType() == pylokv1.EventType_EVENT_TYPE_ASKED {
			words = append(words, e.GetReason())
			if e.GetRevision() != 0 || e.GetCause() != 0 || e.GetActor() != "carol" || e.GetLock().GetToken() != l.GetToken() || e.GetTime() == nil {
				t.Errorf("asked: %v", e)
			}
		}
	}
	if want := []string{"may I?", "now?"}; !slices.Equal(words, want) {
		t.Errorf("asked %q, want %q", words, want)
	}
	asked, err := r.Ask(ctx, &pylokv1.AskRequest{Name: "shift", Message: "please", Holder: "carol"})
	if err != nil || !asked.GetHeard() {
		t.Errorf("while the holder listens: %v, %v", asked, err)
	}
	for e := next(t, mine, 1)[0]; e.GetReason() != "please"; e = next(t, mine, 1)[0] {
		if e.GetType() != pylokv1.EventType_EVENT_TYPE_SYNCED {
			t.Fatalf("the holder is told %v", e)
		}
	}
	// Others are told of the next change, and of nothing in between.
	r.lock(t, &pylokv1.LockRequest{Name: "other"})
	if e := next(t, all, 1)[0]; e.GetLock().GetName() != "other" {
		t.Errorf("others are told %v", e)
	}
}

// TestDismiss: a waiter is put out of the line, and told why.
func TestDismiss(t *testing.T) {
	r := serve(t, setup{})
	ctx, cancel := contextOf(t)
	defer cancel()
	r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "alice"})
	waiting := make(chan error, 1)
	go func() {
		_, err := r.LockSet(ctx, &pylokv1.LockSetRequest{Names: []string{"b", "a"}, Holder: "bob", Data: document(t, `{"msg": "both"}`), Wait: durationpb.New(time.Hour)})
		waiting <- err
	}()
	r.waiters(t, "a", 1)
	w := r.status(t, "a").GetWaiting()[0]
	if !slices.Equal(w.GetNames(), []string{"a", "b"}) || w.GetMessage() != "both" || w.GetHolder() != "bob" || w.GetUntilTime() == nil {
		t.Errorf("who waits is %v", w)
	}
	if o := r.status(t, "b").GetBlockedBy(); o.GetKind() != pylokv1.ObstacleKind_OBSTACLE_KIND_WAITER || o.GetWaiter().GetPlace() != w.GetPlace() || o.GetLock() != nil {
		t.Errorf("b is blocked by %v", o)
	}
	dismissed, err := r.Dismiss(ctx, &pylokv1.DismissRequest{Name: "a", Place: w.GetPlace(), Holder: "carol", Reason: "you are in the way"})
	if err != nil || !proto.Equal(dismissed.GetWaiter(), w) {
		t.Errorf("dismissed %v, %v; want %v", dismissed, err, w)
	}
	err = <-waiting
	refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld)
	if text := status.Convert(err).Message(); !strings.Contains(text, "carol") || !strings.Contains(text, "you are in the way") {
		t.Errorf("the waiter is told %q", text)
	}
	_, err = r.Dismiss(ctx, &pylokv1.DismissRequest{Name: "a", Place: w.GetPlace(), Reason: "again"})
	refused(t, err, codes.NotFound, lock.ErrNotLocked)
}

// TestWaitForeverEnds: who waits without an end goes when it is cancelled.
func TestWaitForeverEnds(t *testing.T) {
	r := serve(t, setup{})
	r.lock(t, &pylokv1.LockRequest{Name: "a"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a", WaitForever: true})
		ended <- err
	}()
	r.waiters(t, "a", 1)
	cancel()
	refusedCode(t, <-ended, codes.Canceled)
	r.waiters(t, "a", 0)
}
