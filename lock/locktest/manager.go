package locktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// TestManager holds a manager.Manager on a store to the rules of Lock, Unlock, Renew,
// Watch and History. open returns a fresh, empty store, which the suite closes.
func TestManager(t *testing.T, open func(t *testing.T) lock.Store) {
	tests := []managerTest{
		{name: "Lock", test: testLock},
		{name: "LockHeld", test: testLockHeld},
		{name: "LockAgain", test: testLockAgain},
		{name: "Overwrite", test: testOverwrite},
		{name: "LockRefused", test: testLockRefused},
		{name: "LockOneWinner", test: testLockOneWinner},
		{name: "Unlock", test: testUnlock},
		{name: "UnlockTells", test: testUnlockTells},
		{name: "UnlockTellsNext", test: testUnlockTellsNext},
		{name: "Actors", test: testActors},
		{name: "Callers", test: testCallers},
		{name: "Warnings", test: testWarnings},
		{name: "Renew", test: testRenew},
		{name: "CallerGone", test: testCallerGone},
		{name: "CallerLeaves", test: testCallerLeaves},
		{name: "WaiterLeaves", test: testWaiterLeaves},
		{name: "FirstComeFirstServed", test: testFirstComeFirstServed},
		{name: "CanceledWaiter", test: testCanceledWaiter},
		{name: "HandedOver", test: testHandedOver},
		{name: "FreedByOthers", test: testFreedByOthers},
		{name: "WaitRunsOut", test: testWaitRunsOut},
		{name: "TooManyWaiters", test: testTooManyWaiters, config: manager.Config{MaxWaiters: 3}},
		{name: "TooMuchToWaitWith", test: testTooMuchToWaitWith},
		{name: "WaitAgain", test: testWaitAgain},
		{name: "CloseEndsWaits", test: testCloseEndsWaits},
		{name: "WatchAll", test: testWatchAll},
		{name: "WatchFrom", test: testWatchFrom},
		{name: "WatchPattern", test: testWatchPattern},
		{name: "WatchYetToCome", test: testWatchYetToCome},
		{name: "WatchFallsBehind", test: testWatchFallsBehind},
		{name: "WatchEnds", test: testWatchEnds},
		{name: "List", test: testManagerList},
		{name: "History", test: testHistory},
	}
	for _, test := range append(tests, together...) {
		t.Run(test.name, func(t *testing.T) {
			store := &hookedStore{Store: open(t)}
			t.Cleanup(func() { store.Close() })
			manager, err := manager.New(store, test.config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(manager.Close)
			test.test(&managed{t: t, Manager: manager, store: store})
		})
	}
}

// managerTest is one of the rules.
type managerTest struct {
	name   string
	test   func(m *managed)
	config manager.Config
}

// hookedStore lets a test step into a store.
type hookedStore struct {
	lock.Store
	beforeCommit atomic.Pointer[func(changes []lock.Change)]
	beforeEvents atomic.Pointer[func(ctx context.Context, after lock.Revision) error]
}

func (s *hookedStore) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	if hook := s.beforeCommit.Load(); hook != nil {
		(*hook)(changes)
	}
	return s.Store.Commit(ctx, changes, guards...)
}

func (s *hookedStore) Events(ctx context.Context, p lock.Pattern, after lock.Revision, wait time.Duration) ([]lock.Event, lock.Revision, error) {
	if hook := s.beforeEvents.Load(); hook != nil {
		if err := (*hook)(ctx, after); err != nil {
			return nil, after, err
		}
	}
	return s.Store.Events(ctx, p, after, wait)
}

// managed is a Manager in a test.
type managed struct {
	t *testing.T
	*manager.Manager
	store *hookedStore
}

// revision returns the manager's present revision.
func (m *managed) revision() lock.Revision {
	m.t.Helper()
	revision, err := m.Revision(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return revision
}

var nameA = lock.MustParseName("lb/a")

// request is a LockRequest for lb/a.
func request(holder string, edits ...func(*lock.LockRequest)) lock.LockRequest {
	r := lock.LockRequest{Name: nameA, Holder: holder}
	for _, edit := range edits {
		edit(&r)
	}
	return r
}

func waiting(r *lock.LockRequest)     { r.Wait = patience }
func overwriting(r *lock.LockRequest) { r.Overwrite = true }

func withRequestID(id string) func(*lock.LockRequest) {
	return func(r *lock.LockRequest) { r.RequestID = id }
}

// mustLock grants the lock.
func (m *managed) mustLock(r lock.LockRequest) lock.Lock {
	m.t.Helper()
	grant, err := m.Lock(m.t.Context(), lock.Caller{}, r)
	if err != nil {
		m.t.Fatalf("Lock by %q: %v", r.Holder, err)
	}
	return grant.Lock
}

// mustUnlock ends the present hold of a lock, whoever has it.
func (m *managed) mustUnlock(name lock.Name) lock.Revision {
	m.t.Helper()
	l := m.status(name)
	release, err := m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: name, Token: l.Token})
	if err != nil {
		m.t.Fatalf("Unlock of %v: %v", name, err)
	}
	return release.Revision
}

func (m *managed) status(name lock.Name) lock.Lock {
	m.t.Helper()
	l, err := m.Status(m.t.Context(), lock.Caller{}, name)
	if err != nil {
		m.t.Fatalf("Status of %v: %v", name, err)
	}
	return l
}

// result is the answer to a call of Lock.
type result struct {
	lock.Grant
	err error
}

// lockSoon calls Lock in the background.
func (m *managed) lockSoon(ctx context.Context, r lock.LockRequest) <-chan result {
	results := make(chan result, 1)
	go func() {
		grant, err := m.Lock(ctx, lock.Caller{}, r)
		results <- result{grant, err}
	}()
	return results
}

// wait calls Lock in the background and returns when it stands in line.
func (m *managed) wait(ctx context.Context, r lock.LockRequest) <-chan result {
	m.t.Helper()
	before := m.status(r.Name).Waiters
	results := m.lockSoon(ctx, r)
	m.awaitWaiters(r.Name, before+1)
	return results
}

// awaitWaiters waits until n requests wait for the lock.
func (m *managed) awaitWaiters(name lock.Name, n int) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); m.status(name).Waiters != n; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("%d requests wait for %v, want %d", m.status(name).Waiters, name, n)
		}
	}
}

// granted takes a result that must be a grant.
func (m *managed) granted(what string, results <-chan result) lock.Lock {
	m.t.Helper()
	select {
	case r := <-results:
		if r.err != nil {
			m.t.Fatalf("%s: %v", what, r.err)
		}
		return r.Lock
	case <-time.After(patience):
		m.t.Fatalf("%s: no answer in %v", what, patience)
		return lock.Lock{}
	}
}

// refused takes a result that must be an error.
func (m *managed) refused(what string, results <-chan result, want error) {
	m.t.Helper()
	select {
	case r := <-results:
		wantError(m.t, what, r.err, want)
	case <-time.After(patience):
		m.t.Fatalf("%s: no answer in %v", what, patience)
	}
}

// wantRefusal checks an error that carries a lock.
func wantRefusal(t *testing.T, what string, err error, reason lock.Reason, present lock.Lock, says ...string) {
	t.Helper()
	var refusal *lock.Error
	if !errors.As(err, &refusal) || refusal.Reason != reason {
		t.Errorf("%s: got error %v, want %v", what, err, reason)
		return
	}
	if refusal.Lock == nil || refusal.Lock.Token != present.Token || refusal.Lock.Name != present.Name || refusal.Lock.Holder != present.Holder {
		t.Errorf("%s: the error carries the lock %+v, want %+v", what, refusal.Lock, present)
	}
	for _, word := range says {
		if !strings.Contains(refusal.Message, word) {
			t.Errorf("%s: the message %q does not say %q", what, refusal.Message, word)
		}
	}
}

// history returns all events of a lock, in short.
func (m *managed) history(name lock.Name) (lines []string) {
	m.t.Helper()
	page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{Pattern: lock.MustParsePattern(name.String())}, 0, 10_000)
	if err != nil || page.Next != 0 {
		m.t.Fatalf("History: next %d, error %v", page.Next, err)
	}
	for _, e := range page.Events {
		lines = append(lines, fmt.Sprintf("%v %v %s", e.Type, e.Cause, e.Lock.Holder))
	}
	return lines
}

func (m *managed) wantHistory(name lock.Name, want ...string) {
	m.t.Helper()
	if got := m.history(name); !slices.Equal(got, want) {
		m.t.Errorf("the history of %v is\n got %q\nwant %q", name, got, want)
	}
}

func testLock(m *managed) {
	data, err := lock.ParseData([]byte(`{"msg":"canary","lock_token":7}`))
	if err != nil {
		m.t.Fatal(err)
	}
	free := m.status(nameA)
	wantLock(m.t, "Status of a free lock", free, lock.Lock{Name: nameA})

	grant, err := m.Lock(m.t.Context(), lock.Caller{Name: "alice@corp"}, lock.LockRequest{
		Name: nameA, Data: data, Holder: "alice", TTL: time.Hour, RequestID: "r1",
	})
	if err != nil {
		m.t.Fatal(err)
	}
	l := grant.Lock
	if l.Token == 0 || lock.Revision(l.Token) != l.Revision || l.Holder != "alice" || l.Caller != "alice@corp" || l.Data != data || l.TTL != time.Hour || l.RequestID != "r1" || grant.Queued != 0 {
		m.t.Errorf("the grant is %+v", grant)
	}
	if left := time.Until(l.Deadline); left <= 59*time.Minute || left > time.Hour {
		m.t.Errorf("the deadline is in %v, want an hour at most", left)
	}
	got := m.status(nameA)
	if got.Deadline.Before(l.Deadline.Add(-time.Minute)) || got.Deadline.After(l.Deadline.Add(time.Minute)) {
		m.t.Errorf("Status: the deadline is %v, want about %v", got.Deadline, l.Deadline)
	}
	got.Deadline = l.Deadline
	wantLock(m.t, "Status of a held lock", got, l)

	page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{}, 0, 10)
	events := page.Events
	if err != nil || len(events) != 1 || events[0].Actor != "alice@corp" || events[0].Cause != lock.Request || events[0].Type != lock.Locked {
		m.t.Errorf("History: got %+v, %v; want one locked event by alice@corp", events, err)
	}

	expire := time.Now().Add(time.Hour).Add(500 * time.Microsecond)
	l = m.mustLock(lock.LockRequest{Name: lock.MustParseName("by-time"), ExpireTime: expire})
	if l.ExpireTime.Before(expire) || l.ExpireTime.Sub(expire) >= time.Millisecond || !l.Deadline.Equal(l.ExpireTime) {
		m.t.Errorf("the expire time is %v and the deadline %v, want %v or less than 1 ms later", l.ExpireTime, l.Deadline, expire)
	}
	data, err = lock.NewData(map[string]any{"expire": expire.Format(time.RFC3339)})
	if err != nil {
		m.t.Fatal(err)
	}
	l = m.mustLock(lock.LockRequest{Name: lock.MustParseName("by-data"), Data: data})
	if want := expire.Truncate(time.Second); !l.ExpireTime.Equal(want) {
		m.t.Errorf("the expire time from the data is %v, want %v", l.ExpireTime, want)
	}
	l = m.mustLock(lock.LockRequest{Name: lock.MustParseName("by-ttl"), Data: data, TTL: time.Minute})
	if !l.ExpireTime.IsZero() || l.TTL != time.Minute {
		m.t.Errorf("with a ttl and an expire key the hold ends at %v, ttl %v; want the ttl alone", l.ExpireTime, l.TTL)
	}
}

func testLockHeld(m *managed) {
	alice := m.mustLock(request("alice", withRequestID("r1")))
	tests := []struct {
		name string
		lock.LockRequest
	}{
		{"another holder", request("bob")},
		{"the same holder, which proves nothing", request("alice")},
		{"nobody", request("")},
		{"another request id", request("alice", withRequestID("r2"))},
		{"overwrite by another holder", request("bob", overwriting)},
		{"overwrite by nobody", request("", overwriting)},
	}
	for _, test := range tests {
		_, err := m.Lock(m.t.Context(), lock.Caller{}, test.LockRequest)
		wantRefusal(m.t, test.name, err, lock.ErrLockHeld, alice, "held by alice since")
	}
	anonymous := m.mustLock(lock.LockRequest{Name: lock.MustParseName("anonymous")})
	_, err := m.Lock(m.t.Context(), lock.Caller{}, lock.LockRequest{Name: anonymous.Name})
	wantRefusal(m.t, "an anonymous request for an anonymous hold", err, lock.ErrLockHeld, anonymous)
	m.wantHistory(nameA, "locked request alice")
}

func testLockAgain(m *managed) {
	first := m.mustLock(request("alice", withRequestID("r1")))
	again := m.mustLock(request("alice", withRequestID("r1")))
	wantLock(m.t, "the same request again", again, first)
	m.wantHistory(nameA, "locked request alice")

	m.mustUnlock(nameA)
	if l := m.mustLock(request("alice", withRequestID("r1"))); l.Token <= first.Token {
		m.t.Errorf("the same request after the hold ended: got token %d, want one above %d", l.Token, first.Token)
	}
}

func testOverwrite(m *managed) {
	steps := []struct {
		name, holder string
		ok           bool
	}{
		{"a free lock", "", true},
		{"an anonymous hold, by nobody", "", true},
		{"an anonymous hold, by alice", "alice", true},
		{"alice's hold, by alice", "alice", true},
		{"alice's hold, by bob", "bob", false},
		{"alice's hold, by nobody", "", false},
	}
	var last lock.Token
	for _, step := range steps {
		grant, err := m.Lock(m.t.Context(), lock.Caller{}, request(step.holder, overwriting))
		if !step.ok {
			wantError(m.t, step.name, err, lock.ErrLockHeld)
			continue
		}
		if err != nil || grant.Lock.Token <= last || grant.Lock.Holder != step.holder {
			m.t.Errorf("%s: got %+v, %v; want a hold of %q with a token above %d", step.name, grant.Lock, err, step.holder, last)
		}
		last = grant.Lock.Token
	}
	m.wantHistory(nameA, "locked request ",
		"unlocked request ", "locked request ",
		"unlocked request ", "locked request alice",
		"unlocked request alice", "locked request alice")

	// Who waits goes on waiting: the lock is not free in between.
	bob := m.wait(m.t.Context(), request("bob", waiting))
	const rounds = 20
	for range rounds {
		l := m.mustLock(request("alice", overwriting))
		if l.Token <= last || l.Waiters != 1 {
			m.t.Fatalf("alice's next hold is %+v, want a token above %d and one waiter", l, last)
		}
		last = l.Token
	}
	page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{After: m.revision() - 2*rounds}, 0, 2*rounds)
	events := page.Events
	if err != nil || len(events) != 2*rounds {
		m.t.Fatalf("History: got %d events, %v", len(events), err)
	}
	for i, e := range events {
		if e.Lock.Holder != "alice" || e.Actor != "alice" || e.Type != []lock.EventType{lock.Unlocked, lock.Locked}[i%2] {
			m.t.Errorf("event %d of alice's holds that replace each other is %+v", i, e)
		}
	}
	m.mustUnlock(nameA)
	m.granted("who waited", bob)
}

func testLockRefused(m *managed) {
	tests := []struct {
		name, field string
		edit        func(*lock.LockRequest)
		want        error
	}{
		{"no name", "name", func(r *lock.LockRequest) { r.Name = lock.Name{} }, lock.ErrInvalidName},
		{"long holder", "holder", func(r *lock.LockRequest) { r.Holder = strings.Repeat("x", 257) }, lock.ErrInvalidArgument},
		{"holder of two lines", "holder", func(r *lock.LockRequest) { r.Holder = "a\nb" }, lock.ErrInvalidArgument},
		{"holder that is no text", "holder", func(r *lock.LockRequest) { r.Holder = "a\xff" }, lock.ErrInvalidArgument},
		{"long request id", "request_id", withRequestID(strings.Repeat("x", 129)), lock.ErrInvalidArgument},
		{"short ttl", "ttl", func(r *lock.LockRequest) { r.TTL = 99 * time.Millisecond }, lock.ErrInvalidArgument},
		{"long ttl", "ttl", func(r *lock.LockRequest) { r.TTL = 367 * 24 * time.Hour }, lock.ErrInvalidArgument},
		{"negative ttl", "ttl", func(r *lock.LockRequest) { r.TTL = -time.Minute }, lock.ErrInvalidArgument},
		{"ttl and expire time", "ttl", func(r *lock.LockRequest) { r.TTL, r.ExpireTime = time.Minute, time.Now().Add(time.Hour) }, lock.ErrInvalidArgument},
		{"past", "expire_time", func(r *lock.LockRequest) { r.ExpireTime = time.Now().Add(-time.Second) }, lock.ErrInvalidArgument},
		{"far", "expire_time", func(r *lock.LockRequest) { r.ExpireTime = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, lock.ErrInvalidArgument},
		{"the last instant, rounded up", "expire_time", func(r *lock.LockRequest) { r.ExpireTime = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC) }, lock.ErrInvalidArgument},
		{"the last hour, far west", "expire_time", func(r *lock.LockRequest) {
			r.ExpireTime = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("west", -12*3600))
		}, lock.ErrInvalidArgument},
		{"negative wait", "wait", func(r *lock.LockRequest) { r.Wait = -1 }, lock.ErrInvalidArgument},
		{"long wait", "wait", func(r *lock.LockRequest) { r.Wait = 25 * time.Hour }, lock.ErrInvalidArgument},
		{"large data", "", func(r *lock.LockRequest) {
			r.Data, _ = lock.NewData(map[string]any{"bulk": strings.Repeat("x", lock.MaxFileBytes)})
		}, lock.ErrDataTooLarge},
	}
	for _, test := range tests {
		_, err := m.Lock(m.t.Context(), lock.Caller{}, request("alice", test.edit))
		wantError(m.t, test.name, err, test.want)
		var refusal *lock.Error
		if errors.As(err, &refusal) && test.field != "" && refusal.Field != test.field {
			m.t.Errorf("%s: the field is %q, want %q", test.name, refusal.Field, test.field)
		}
	}
	if m.status(nameA).Held() {
		m.t.Error("a refused request was granted")
	}
	m.mustLock(request("alice", func(r *lock.LockRequest) { r.ExpireTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }))
	if l := m.status(nameA); !l.Held() {
		m.t.Error("a hold until the year 9999 has ended")
	}
}

// testLockOneWinner has 64 callers lock one free lock.
func testLockOneWinner(m *managed) {
	const callers = 64
	for range 3 {
		start := make(chan struct{})
		results := make(chan result, callers)
		for i := range callers {
			go func() {
				<-start
				grant, err := m.Lock(m.t.Context(), lock.Caller{}, request(fmt.Sprintf("caller-%d", i)))
				results <- result{grant, err}
			}()
		}
		close(start)
		var winners []lock.Lock
		var refusals []error
		for range callers {
			if r := <-results; r.err == nil {
				winners = append(winners, r.Lock)
			} else {
				refusals = append(refusals, r.err)
			}
		}
		if len(winners) != 1 {
			m.t.Fatalf("%d callers were granted the lock, want 1: %+v", len(winners), winners)
		}
		for _, err := range refusals {
			wantRefusal(m.t, "a loser", err, lock.ErrLockHeld, winners[0], winners[0].Holder)
		}
		m.mustUnlock(nameA)
	}
}

func testUnlock(m *managed) {
	const theToken, anotherToken = 1, 2
	tests := []struct {
		held   string // by whom; "-": free
		token  int
		holder string
		force  bool
		want   error
		cause  lock.Cause
	}{
		{held: "-", want: lock.ErrNotLocked},
		{held: "-", force: true, want: lock.ErrNotLocked},
		{held: "-", token: anotherToken, want: lock.ErrNotLocked},

		{held: "", cause: lock.Request},
		{held: "", holder: "bob", cause: lock.Request},
		{held: "", token: theToken, cause: lock.Request},
		{held: "", token: anotherToken, want: lock.ErrNotHolder},
		{held: "", force: true, cause: lock.Forced},

		{held: "alice", want: lock.ErrNotHolder},
		{held: "alice", holder: "alice", cause: lock.Request},
		{held: "alice", holder: "bob", want: lock.ErrNotHolder},
		{held: "alice", holder: "Alice", want: lock.ErrNotHolder},

		{held: "alice", token: theToken, cause: lock.Request},
		{held: "alice", token: theToken, holder: "alice", cause: lock.Request},
		{held: "alice", token: theToken, holder: "bob", cause: lock.Request},
		{held: "alice", token: anotherToken, want: lock.ErrNotHolder},
		{held: "alice", token: anotherToken, holder: "alice", want: lock.ErrNotHolder},

		{held: "alice", force: true, cause: lock.Forced},
		{held: "alice", force: true, holder: "bob", cause: lock.Forced},
		{held: "alice", force: true, holder: "alice", cause: lock.Request},
		{held: "alice", force: true, token: theToken, cause: lock.Forced},
		{held: "alice", force: true, token: theToken, holder: "bob", cause: lock.Forced},
		{held: "alice", force: true, token: anotherToken, want: lock.ErrNotHolder},
		{held: "alice", force: true, token: anotherToken, holder: "alice", want: lock.ErrNotHolder},
	}
	for i, test := range tests {
		what := fmt.Sprintf("held by %q, unlock with token %d, holder %q, force %v", test.held, test.token, test.holder, test.force)
		name := lock.MustParseName(fmt.Sprintf("unlock/%d", i))
		var held lock.Lock
		if test.held != "-" {
			held = m.mustLock(lock.LockRequest{Name: name, Holder: test.held})
		}
		r := lock.UnlockRequest{Name: name, Holder: test.holder, Force: test.force, Reason: "because"}
		switch test.token {
		case theToken:
			r.Token = held.Token
		case anotherToken:
			r.Token = held.Token + 1000
		}
		release, err := m.Unlock(m.t.Context(), lock.Caller{Name: "actor"}, r)
		if !errors.Is(err, test.want) {
			m.t.Errorf("%s: got error %v, want %v", what, err, test.want)
			continue
		}
		now := m.status(name)
		if test.want != nil {
			if test.want == lock.ErrNotHolder {
				wantRefusal(m.t, what, err, lock.ErrNotHolder, held)
			}
			if now.Token != held.Token {
				m.t.Errorf("%s: the lock was refused and has become %+v", what, now)
			}
			continue
		}
		wantLock(m.t, what+": the lock as it was", release.Lock, held)
		if release.Next.Held() {
			m.t.Errorf("%s: nobody waited, and the lock was granted to %+v", what, release.Next)
		}
		if now.Held() {
			m.t.Errorf("%s: the lock is still held", what)
		}
		page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{Pattern: lock.MustParsePattern(name.String()), After: held.Revision}, 0, 10)
		events := page.Events
		if err != nil || len(events) != 1 {
			m.t.Fatalf("%s: History: %+v, %v", what, events, err)
		}
		if e := events[0]; e.Type != lock.Unlocked || e.Cause != test.cause || e.Actor != "actor" || e.Reason != "because" || e.Revision != release.Revision {
			m.t.Errorf("%s: the event is %+v, want cause %v, revision %d", what, e, test.cause, release.Revision)
		}
	}
}

func testUnlockTells(m *managed) {
	closing, err := lock.NewData(map[string]any{"msg": "canary complete, READY"})
	if err != nil {
		m.t.Fatal(err)
	}
	held := m.mustLock(request("alice", func(r *lock.LockRequest) { r.Data, _ = lock.NewData(map[string]any{"msg": "at work"}) }))
	release, err := m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token, Data: &closing})
	if err != nil {
		m.t.Fatal(err)
	}
	wantLock(m.t, "the lock as it was", release.Lock, held)
	page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{After: held.Revision}, 0, 10)
	events := page.Events
	if err != nil || len(events) != 1 || events[0].Lock.Data != closing || events[0].Revision != release.Revision || events[0].Lock.Token != held.Token {
		m.t.Errorf("History: got %+v, %v; want the closing message", events, err)
	}

	_, err = m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Reason: strings.Repeat("x", 1025)})
	wantError(m.t, "a long reason", err, lock.ErrInvalidArgument)
	_, err = m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "a\x00"})
	wantError(m.t, "a holder that is no text", err, lock.ErrInvalidArgument)

	m.mustLock(lock.LockRequest{Name: nameA, Holder: "alice"})
	for _, blank := range []string{"", " ", " \t\n", "\u00a0\u3000", "\u200b"} {
		for _, r := range []lock.UnlockRequest{{Holder: "bob"}, {Holder: "alice"}, {Token: m.status(nameA).Token}} {
			r.Name, r.Force, r.Reason = nameA, true, blank
			_, err = m.Unlock(m.t.Context(), lock.Caller{}, r)
			what := fmt.Sprintf("force for the reason %q by %q with token %d", blank, r.Holder, r.Token)
			wantError(m.t, what, err, lock.ErrInvalidArgument)
			if refused, ok := errors.AsType[*lock.Error](err); !ok || refused.Field != "reason" {
				m.t.Errorf("%s: got %#v, want the field reason at fault", what, err)
			}
		}
	}
	if !m.status(nameA).Held() {
		m.t.Error("force without a reason has broken the hold")
	}
}

// testUnlockTellsNext: who ends a hold hears who has the lock now.
func testUnlockTellsNext(m *managed) {
	held := m.mustLock(lock.LockRequest{Name: nameA, Holder: "alice"})
	bob := m.wait(m.t.Context(), request("bob", waiting, func(r *lock.LockRequest) { r.TTL = time.Hour }))
	carol := m.wait(m.t.Context(), request("carol", waiting))
	for _, test := range []struct {
		unlock lock.UnlockRequest
		next   <-chan result
	}{
		{lock.UnlockRequest{Name: nameA, Force: true, Reason: "it hangs", Holder: "boss"}, bob},
		{lock.UnlockRequest{Name: nameA, Holder: "bob"}, carol},
	} {
		release, err := m.Unlock(m.t.Context(), lock.Caller{}, test.unlock)
		if err != nil {
			m.t.Fatal(err)
		}
		got := m.granted("the next in line", test.next)
		if release.Lock.Token != held.Token || release.Next.Token != got.Token || release.Next.Holder != got.Holder || release.Next.Waiters != got.Waiters || release.Next.Deadline.IsZero() != got.Deadline.IsZero() {
			m.t.Errorf("the end of %+v tells of %+v next, want %+v", held, release.Next, got)
		}
		held = got
	}
	if release, err := m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "carol"}); err != nil || release.Next.Held() {
		m.t.Errorf("the last one's end: got %+v, %v", release, err)
	}
}

// testActors: an event says who made the change, and of one that nobody made, nobody.
func testActors(m *managed) {
	data, err := lock.NewData(map[string]any{"step": 2.0})
	if err != nil {
		m.t.Fatal(err)
	}
	last := func() lock.Event {
		page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{After: m.revision() - 1}, 0, 10)
		events := page.Events
		if err != nil || len(events) != 1 {
			m.t.Fatalf("History: got %+v, %v", events, err)
		}
		return events[0]
	}
	l := m.mustLock(request("alice"))
	for _, test := range []struct {
		what, actor, want string
		unlock, force     bool
	}{
		{what: "a renewal by who has the token", want: "alice"},
		{what: "a renewal by somebody else with the token", actor: "bob", want: "bob"},
		{what: "a release by somebody else with the token", unlock: true, actor: "bob", want: "bob"},
		{what: "a release by who has the token", unlock: true, want: "alice"},
		{what: "a break", unlock: true, force: true, actor: "bob", want: "bob"},
		{what: "a break by somebody unknown", unlock: true, force: true, want: ""},
	} {
		if l = m.status(nameA); !l.Held() {
			l = m.mustLock(request("alice"))
		}
		if test.unlock {
			_, err = m.Unlock(m.t.Context(), lock.Caller{Name: test.actor}, lock.UnlockRequest{Name: nameA, Token: l.Token, Force: test.force, Reason: "it hangs"})
		} else {
			_, err = m.Renew(m.t.Context(), lock.Caller{Name: test.actor}, lock.RenewRequest{Name: nameA, Token: l.Token, Data: &data})
		}
		if err != nil {
			m.t.Fatalf("%s: %v", test.what, err)
		}
		if e := last(); e.Actor != test.want || e.Lock.Holder != "alice" {
			m.t.Errorf("%s: got the event %+v, want the actor %q and the holder alice", test.what, e, test.want)
		}
	}
	_, err = m.Renew(m.t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: 1, Holder: "a\x00"})
	wantError(m.t, "Renew by a holder that is no text", err, lock.ErrInvalidArgument)

	m.mustLock(request("alice", func(r *lock.LockRequest) { r.TTL = 100 * time.Millisecond }))
	for m.status(nameA).Held() {
		time.Sleep(time.Millisecond)
	}
	if e := last(); e.Cause != lock.Expired || e.Actor != "" || e.Lock.Holder != "alice" {
		m.t.Errorf("the end of a lease: got the event %+v, want no actor", e)
	}
}

// testWarnings: an end in the data that does not count is told wherever the lock is shown.
func testWarnings(m *managed) {
	future := time.Now().Add(time.Hour).Format(time.RFC3339)
	for i, test := range []struct {
		data string
		ttl  time.Duration
		end  time.Time
		says string // empty: nothing
	}{
		{data: `{"msg":"mine"}`},
		{data: `{"expire":"` + future + `"}`},
		{data: `{"expire":""}`},
		{data: `{"expire":null}`},
		{data: `{"a":{"expire":"soon"}}`},
		{data: `{"expire":"soon"}`, says: `"soon", is neither like`},
		{data: `{"expire":"soon"}`, ttl: time.Hour, says: `"soon", is neither like`},
		{data: `{"expire":1700000000}`, says: "is not text"},
		{data: `{"expire":["2099-01-01 00:00:00"]}`, says: "is not text"},
		{data: `{"expire":"2019-12-20 00:00:00"}`, says: "was past"},
		{data: `{"expire":"` + future + `"}`, ttl: time.Hour, says: "has a ttl"},
		{data: `{"expire":"` + future + `"}`, end: time.Now().Add(2 * time.Hour), says: "an expire time of its own"},
	} {
		data, err := lock.ParseData([]byte(test.data))
		if err != nil {
			m.t.Fatal(err)
		}
		name := lock.MustParseName(fmt.Sprintf("warned/%d", i))
		locked := m.mustLock(lock.LockRequest{Name: name, Data: data, TTL: test.ttl, ExpireTime: test.end})
		_, err = m.Lock(m.t.Context(), lock.Caller{}, lock.LockRequest{Name: name})
		refused, ok := errors.AsType[*lock.Error](err)
		if !ok || refused.Lock == nil {
			m.t.Fatalf("Lock of a held lock: got %v", err)
		}
		page, _, _, err := m.List(m.t.Context(), lock.Caller{}, lock.MustParsePattern(name.String()), lock.Name{}, 1)
		if err != nil || len(page) != 1 {
			m.t.Fatalf("List: got %+v, %v", page, err)
		}
		for what, l := range map[string]lock.Lock{"Lock": locked, "a refusal": *refused.Lock, "List": page[0], "Status": m.status(name)} {
			if !strings.Contains(l.Warnings, test.says) || test.says == "" && l.Warnings != "" {
				m.t.Errorf("%s with %s, ttl %v, expire time %v: got the warnings %q, want %q in them", what, test.data, test.ttl, test.end, l.Warnings, test.says)
			}
		}
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	for e, err := range m.Watch(ctx, lock.Caller{}, lock.WatchRequest{}) {
		if err != nil || e.Lock.Warnings != "" {
			m.t.Errorf("an event has warnings: %+v, %v", e, err)
		}
		if e.Type == lock.Synced {
			break
		}
	}
}

func testRenew(m *managed) {
	ctx := m.t.Context()
	_, err := m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: 1})
	wantError(m.t, "Renew of a free lock", err, lock.ErrNotLocked)

	held := m.mustLock(request("alice", func(r *lock.LockRequest) { r.TTL = time.Hour }))
	revision := m.revision()
	_, err = m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA})
	wantError(m.t, "Renew without a token", err, lock.ErrInvalidArgument)
	_, err = m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token + 1000})
	wantRefusal(m.t, "Renew with another token", err, lock.ErrNotHolder, held, fmt.Sprint(held.Token))
	_, err = m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token, TTL: time.Millisecond})
	wantError(m.t, "Renew with a short ttl", err, lock.ErrInvalidArgument)

	renew := func(what string, r lock.RenewRequest, want lock.Lock) lock.Lock {
		m.t.Helper()
		r.Name, r.Token = nameA, held.Token
		l, err := m.Renew(ctx, lock.Caller{}, r)
		if err != nil {
			m.t.Fatalf("%s: %v", what, err)
		}
		if l.Deadline.IsZero() == (l.TTL != 0 || !l.ExpireTime.IsZero()) {
			m.t.Errorf("%s: the deadline is %v", what, l.Deadline)
		}
		got := l
		got.Deadline, want.Deadline = time.Time{}, time.Time{}
		wantLock(m.t, what, got, want)
		now := m.status(nameA)
		now.Deadline = time.Time{}
		wantLock(m.t, what+": Status", now, want)
		return got
	}
	want := renew("by the hold's own ttl", lock.RenewRequest{}, held)
	want.TTL = 2 * time.Hour
	want = renew("by another ttl", lock.RenewRequest{TTL: 2 * time.Hour}, want)
	expire := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	want.TTL, want.ExpireTime = 0, expire
	want = renew("to an expire time", lock.RenewRequest{ExpireTime: expire}, want)
	if got := m.revision(); got != revision {
		m.t.Errorf("renewals made the revision %d, want %d", got, revision)
	}
	m.wantHistory(nameA, "locked request alice")
	_, err = m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token})
	wantError(m.t, "Renew of a hold without ttl by its own", err, lock.ErrInvalidArgument)

	data, err := lock.NewData(map[string]any{"step": 2.0})
	if err != nil {
		m.t.Fatal(err)
	}
	l, err := m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token, Data: &data, TTL: time.Minute})
	if err != nil {
		m.t.Fatal(err)
	}
	if l.Data != data || l.TTL != time.Minute || l.Token != held.Token || l.Revision <= held.Revision || !l.ExpireTime.IsZero() {
		m.t.Errorf("Renew with data: got %+v", l)
	}
	m.wantHistory(nameA, "locked request alice", "updated request alice")

	large, err := lock.NewData(map[string]any{"bulk": strings.Repeat("x", lock.MaxFileBytes)})
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token, Data: &large})
	wantError(m.t, "Renew with large data", err, lock.ErrDataTooLarge)
	if got := m.status(nameA); got.Data != data || got.Revision != l.Revision {
		m.t.Errorf("after ErrDataTooLarge the lock is %+v", got)
	}

	m.mustUnlock(nameA)
	_, err = m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token})
	wantError(m.t, "Renew after Unlock", err, lock.ErrNotLocked)
	next := m.mustLock(request("bob"))
	_, err = m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token})
	wantRefusal(m.t, "Renew of a hold that another has replaced", err, lock.ErrNotHolder, next, "bob")
}

// testCallerGone: who has left before asking changes nothing.
func testCallerGone(m *managed) {
	gone, cancel := context.WithCancel(m.t.Context())
	cancel()
	for range 20 {
		_, err := m.Lock(gone, lock.Caller{}, request("alice"))
		wantError(m.t, "Lock", err, context.Canceled)
	}
	if got := m.history(nameA); len(got) != 0 {
		m.t.Errorf("the history of what a gone caller did: %q", got)
	}
}

// testCallerLeaves: a grant whose caller leaves while it is committed is undone.
func testCallerLeaves(m *managed) {
	ctx, cancel := context.WithCancel(m.t.Context())
	hook := func(changes []lock.Change) {
		if changes[0].Type == lock.Locked {
			cancel()
		}
	}
	m.store.beforeCommit.Store(&hook)
	_, err := m.Lock(ctx, lock.Caller{}, request("alice"))
	wantError(m.t, "Lock", err, context.Canceled)
	m.store.beforeCommit.Store(nil)
	if got := m.status(nameA); got.Held() {
		m.t.Errorf("the lock is held: %+v", got)
	}
	m.wantHistory(nameA, "locked request alice", "unlocked request alice")

	// Overwriting, with others in line: they get the lock.
	m.mustLock(request("alice"))
	bob := m.wait(m.t.Context(), request("bob", waiting))
	ctx, cancel = context.WithCancel(m.t.Context())
	defer cancel()
	m.store.beforeCommit.Store(&hook)
	_, err = m.Lock(ctx, lock.Caller{}, request("alice", overwriting))
	wantError(m.t, "Lock with overwrite", err, context.Canceled)
	m.store.beforeCommit.Store(nil)
	m.granted("the waiter after an undone grant", bob)
}

// testWaiterLeaves: a waiter who leaves while it is being granted has the grant
// undone, and the next gets the lock.
func testWaiterLeaves(m *managed) {
	m.mustLock(request("alice"))
	ctx, cancel := context.WithCancel(m.t.Context())
	bob := m.wait(ctx, request("bob", waiting))
	carol := m.wait(m.t.Context(), request("carol", waiting))
	hook := func(changes []lock.Change) {
		if slices.ContainsFunc(changes, func(c lock.Change) bool { return c.Lock.Holder == "bob" }) {
			cancel()
		}
	}
	m.store.beforeCommit.Store(&hook)
	m.mustUnlock(nameA)
	m.refused("the waiter who left", bob, context.Canceled)
	m.granted("the next waiter", carol)
	m.wantHistory(nameA, "locked request alice", "unlocked request alice",
		"locked request bob", "unlocked request bob", "locked request carol")
}

func testFirstComeFirstServed(m *managed) {
	const waiters = 10
	m.mustLock(request("first"))
	var results []<-chan result
	for i := range waiters {
		results = append(results, m.wait(m.t.Context(), request(fmt.Sprintf("waiter-%d", i), waiting)))
	}
	// Nobody passes those in line, not by luck and not in the moment in which the
	// lock changes hands.
	stop := make(chan struct{})
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if grant, err := m.Lock(m.t.Context(), lock.Caller{}, request("pusher")); err == nil {
				m.t.Errorf("a request passed the waiters: %+v", grant.Lock)
				return
			}
		}
	})
	var last lock.Token
	for i, waiter := range results {
		m.mustUnlock(nameA)
		l := m.granted(fmt.Sprintf("waiter %d", i), waiter)
		if want := fmt.Sprintf("waiter-%d", i); l.Holder != want || l.Token <= last {
			m.t.Errorf("waiter %d was granted %+v, want holder %q and a token above %d", i, l, want, last)
		}
		if want := waiters - i - 1; l.Waiters != want {
			m.t.Errorf("the grant of waiter %d says that %d wait, want %d", i, l.Waiters, want)
		}
		last = l.Token
	}
	close(stop)
	pushing.Wait()
}

func testCanceledWaiter(m *managed) {
	m.mustLock(request("alice"))
	ctx, cancel := context.WithCancel(m.t.Context())
	bob := m.wait(ctx, request("bob", waiting))
	carol := m.wait(m.t.Context(), request("carol", waiting))
	cancel()
	m.refused("the canceled waiter", bob, context.Canceled)
	if got := m.status(nameA).Waiters; got != 1 {
		m.t.Errorf("%d wait after one left, want 1", got)
	}
	m.mustUnlock(nameA)
	m.granted("the next waiter", carol)
	m.wantHistory(nameA, "locked request alice", "unlocked request alice", "locked request carol")
}

// testHandedOver: a waiter gets the lock however it becomes free.
func testHandedOver(m *managed) {
	tests := []struct {
		name string
		ttl  time.Duration
		free func(held lock.Lock) error
	}{
		{"unlock", 0, func(held lock.Lock) error {
			_, err := m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"})
			return err
		}},
		{"break", 0, func(held lock.Lock) error {
			_, err := m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Force: true, Reason: "it hangs"})
			return err
		}},
		{"expiry", 100 * time.Millisecond, func(lock.Lock) error { return nil }},
		{"by others", 0, func(held lock.Lock) error {
			_, err := m.store.Commit(m.t.Context(), []lock.Change{{Type: lock.Unlocked, Cause: lock.File, Prev: held.Revision, Lock: held}})
			return err
		}},
	}
	for _, test := range tests {
		held := m.mustLock(request("alice", func(r *lock.LockRequest) { r.TTL = test.ttl }))
		var results <-chan result
		if test.ttl == 0 {
			results = m.wait(m.t.Context(), request("bob", waiting))
		} else { // on a busy machine the lease may be over by now
			results = m.lockSoon(m.t.Context(), request("bob", waiting))
		}
		if err := test.free(held); err != nil {
			m.t.Fatalf("%s: %v", test.name, err)
		}
		if l := m.granted(test.name, results); l.Holder != "bob" || l.Token <= held.Token {
			m.t.Errorf("%s: the waiter was granted %+v", test.name, l)
		}
		m.mustUnlock(nameA)
	}
}

// testFreedByOthers frees the lock behind the Manager's back just as a request comes
// to wait for it: it is never left waiting for a free lock.
func testFreedByOthers(m *managed) {
	for range 30 {
		m.mustLock(request("alice"))
		held, err := m.store.Get(m.t.Context(), nameA)
		if err != nil {
			m.t.Fatal(err)
		}
		results := m.lockSoon(m.t.Context(), request("bob", waiting))
		if _, err := m.store.Commit(m.t.Context(), []lock.Change{{Type: lock.Unlocked, Cause: lock.File, Prev: held.Revision, Lock: held}}); err != nil {
			m.t.Fatal(err)
		}
		m.granted("a request that comes as the lock becomes free", results)
		m.mustUnlock(nameA)
	}
}

func testWaitRunsOut(m *managed) {
	held := m.mustLock(request("alice"))
	began := time.Now()
	_, err := m.Lock(m.t.Context(), lock.Caller{}, request("bob", func(r *lock.LockRequest) { r.Wait = 30 * time.Millisecond }))
	if waited := time.Since(began); waited < 30*time.Millisecond {
		m.t.Errorf("the wait of 30 ms ended after %v", waited)
	}
	wantRefusal(m.t, "a wait that runs out", err, lock.ErrLockHeld, held, "alice", "after waiting ")
	if got := m.status(nameA).Waiters; got != 0 {
		m.t.Errorf("%d wait, want none", got)
	}
	m.mustUnlock(nameA)
	m.mustLock(request("carol"))
	m.wantHistory(nameA, "locked request alice", "unlocked request alice", "locked request carol")
}

// testTooManyWaiters: every call counts that waits, the second of one request too.
func testTooManyWaiters(m *managed) {
	m.mustLock(request("alice"))
	first := m.wait(m.t.Context(), request("first", waiting, withRequestID("r1")))
	ctx, cancel := context.WithCancel(m.t.Context())
	second := m.wait(ctx, request("second", waiting))
	third := m.wait(m.t.Context(), request("third", waiting))
	_, err := m.Lock(m.t.Context(), lock.Caller{}, request("fourth", waiting))
	wantError(m.t, "the fourth waiter of three", err, lock.ErrTooManyWaiters)
	_, err = m.Lock(m.t.Context(), lock.Caller{}, request("first", waiting, withRequestID("r1")))
	wantError(m.t, "the fourth call of three", err, lock.ErrTooManyWaiters)
	_, err = m.Lock(m.t.Context(), lock.Caller{}, request("fourth"))
	wantError(m.t, "a request that does not wait", err, lock.ErrLockHeld)

	cancel()
	m.refused("the second", second, context.Canceled)
	again := m.lockSoon(m.t.Context(), request("first", waiting, withRequestID("r1"))) // has a place
	m.mustUnlock(nameA)
	if a, b := m.granted("the first", first), m.granted("the first again", again); a.Token != b.Token {
		m.t.Errorf("one request was granted tokens %d and %d", a.Token, b.Token)
	}
	fourth := m.wait(m.t.Context(), request("fourth", waiting))
	m.mustUnlock(nameA)
	m.granted("the third", third)
	m.mustUnlock(nameA)
	m.granted("the fourth, later", fourth)
}

// testTooMuchToWaitWith: data that no lock file can hold are refused before they wait.
func testTooMuchToWaitWith(m *managed) {
	m.mustLock(request("alice"))
	_, err := m.Lock(m.t.Context(), lock.Caller{}, request("bob", waiting, func(r *lock.LockRequest) {
		r.Data, _ = lock.NewData(map[string]any{"bulk": strings.Repeat("x", lock.MaxFileBytes)})
	}))
	wantError(m.t, "a request that cannot be granted", err, lock.ErrDataTooLarge)
	if got := m.status(nameA).Waiters; got != 0 {
		m.t.Errorf("%d wait, want none", got)
	}
}

// testWaitAgain sends a request again while its first sending waits.
func testWaitAgain(m *managed) {
	m.mustLock(request("alice"))
	bob := request("bob", waiting, withRequestID("r1"))
	first := m.wait(m.t.Context(), bob)
	carol := m.wait(m.t.Context(), request("carol", waiting))
	second := m.lockSoon(m.t.Context(), bob)
	m.mustUnlock(nameA)
	l := m.granted("the first sending", first)
	if again := m.granted("the second sending", second); l.Holder != "bob" || again.Token != l.Token {
		m.t.Errorf("the second sending got token %d, the first %d", again.Token, l.Token)
	}
	if again := m.mustLock(bob); again.Token != l.Token {
		m.t.Errorf("a third sending got token %d, want %d", again.Token, l.Token)
	}
	m.mustUnlock(nameA)
	m.granted("carol", carol)
	m.wantHistory(nameA, "locked request alice", "unlocked request alice",
		"locked request bob", "unlocked request bob", "locked request carol")
}

func testCloseEndsWaits(m *managed) {
	m.mustLock(request("alice"))
	var results []<-chan result
	for i := range 5 {
		results = append(results, m.wait(m.t.Context(), request(fmt.Sprint(i), waiting)))
	}
	m.Close()
	for _, r := range results {
		m.refused("a waiter at Close", r, lock.ErrShuttingDown)
	}
	for range 20 {
		_, err := m.Lock(m.t.Context(), lock.Caller{}, lock.LockRequest{Name: lock.MustParseName("b")})
		wantError(m.t, "Lock after Close", err, lock.ErrShuttingDown)
	}
	if l, err := m.store.Get(m.t.Context(), nameA); err != nil || l.Holder != "alice" {
		m.t.Errorf("after Close the lock is %+v, %v; want it held as before", l, err)
	}
}

// watch is a Watch in the background.
type watch struct {
	m      *managed
	events chan lock.Event
	ended  chan error
	cancel context.CancelFunc
}

func (m *managed) watch(pattern string, after lock.Revision) *watch {
	ctx, cancel := context.WithCancel(context.WithValue(m.t.Context(), watching{}, true))
	w := &watch{m: m, events: make(chan lock.Event), ended: make(chan error, 1), cancel: cancel}
	go func() {
		for event, err := range m.Watch(ctx, lock.Caller{}, lock.WatchRequest{Pattern: lock.MustParsePattern(pattern), After: after}) {
			if err != nil {
				w.ended <- err
				return
			}
			select {
			case w.events <- event:
			case <-ctx.Done():
			}
		}
	}()
	m.t.Cleanup(cancel)
	return w
}

// next returns the next event.
func (w *watch) next() lock.Event {
	w.m.t.Helper()
	select {
	case event := <-w.events:
		return event
	case err := <-w.ended:
		w.m.t.Fatalf("the watch ended: %v", err)
	case <-time.After(patience):
		w.m.t.Fatalf("the watch yielded nothing in %v", patience)
	}
	return lock.Event{}
}

// want takes the next events and checks them: "reset", "synced" or like "locked a".
func (w *watch) want(want ...string) (last lock.Event) {
	w.m.t.Helper()
	for _, want := range want {
		last = w.next()
		got := last.Type.String()
		if !last.Lock.Name.IsZero() {
			got += " " + last.Lock.Name.String()
		}
		if got != want {
			w.m.t.Fatalf("the watch yielded %s at revision %d, want %s", got, last.Revision, want)
		}
	}
	return last
}

// lockAll locks free locks and returns the last.
func (m *managed) lockAll(names ...string) (l lock.Lock) {
	m.t.Helper()
	for _, name := range names {
		l = m.mustLock(lock.LockRequest{Name: lock.MustParseName(name), Holder: "of " + name})
	}
	return l
}

func testWatchAll(m *managed) {
	m.lockAll("b", "a", "c/d", "gone")
	m.mustUnlock(lock.MustParseName("gone"))
	revision := m.revision()

	w := m.watch("", 0)
	w.want("reset")
	event := w.want("locked a")
	if want := m.status(lock.MustParseName("a")); event.Revision != want.Revision || !sameLock(event.Lock, want) || event.Actor != "of a" {
		m.t.Errorf("the watch tells of %+v, want %+v", event, want)
	}
	w.want("locked b", "locked c/d")
	if got := w.want("synced"); got.Revision != revision || got.Cause != 0 {
		m.t.Errorf("synced at revision %d, cause %v; want %d and none", got.Revision, got.Cause, revision)
	}

	l := m.lockAll("e")
	if got := w.want("locked e"); got.Revision != l.Revision || got.Cause != lock.Request {
		m.t.Errorf("the watch yielded %+v, want revision %d", got, l.Revision)
	}
	data := lock.Data{}
	if _, err := m.Renew(m.t.Context(), lock.Caller{}, lock.RenewRequest{Name: l.Name, Token: l.Token, Data: &data}); err != nil {
		m.t.Fatal(err)
	}
	w.want("updated e")
	at := m.mustUnlock(l.Name)
	if got := w.want("unlocked e"); got.Revision != at || got.Lock.Token != l.Token {
		m.t.Errorf("the watch yielded %+v, want revision %d and token %d", got, at, l.Token)
	}
	w.cancel()
	wantError(m.t, "a watch whose ctx ended", <-w.ended, context.Canceled)
}

func testWatchFrom(m *managed) {
	first := m.lockAll("a")
	m.lockAll("b", "c")
	m.mustUnlock(first.Name)
	last := m.revision()

	w := m.watch("", first.Revision)
	w.want("locked b", "locked c", "unlocked a")
	if got := w.want("synced"); got.Revision != last {
		m.t.Errorf("synced at revision %d, want %d", got.Revision, last)
	}
	m.lockAll("d")
	w.want("locked d")

	w = m.watch("", m.revision())
	w.want("synced")
	m.lockAll("e")
	w.want("locked e")
}

func testWatchPattern(m *managed) {
	first := m.lockAll("lb/one", "db/one")
	m.lockAll("lb/two", "db/two")
	w := m.watch("lb/**", 0)
	w.want("reset", "locked lb/one", "locked lb/two", "synced")
	v := m.watch("lb/**", first.Revision)
	v.want("locked lb/two", "synced")
	m.lockAll("db/three", "lb/three")
	w.want("locked lb/three")
	v.want("locked lb/three")
}

// testWatchYetToCome: a revision that is not reached, of another store perhaps, is
// no place to go on from.
func testWatchYetToCome(m *managed) {
	m.lockAll("a")
	w := m.watch("", m.revision()+1000)
	w.want("reset", "locked a", "synced")
	m.lockAll("b")
	w.want("locked b")
}

// testWatchFallsBehind: where the events are no longer kept, a watch begins anew.
func testWatchFallsBehind(m *managed) {
	a := m.lockAll("a")
	w := m.watch("", a.Revision)
	w.want("synced")

	var failed atomic.Bool
	hook := func(ctx context.Context, after lock.Revision) error {
		if ctx.Value(watching{}) != nil && after > a.Revision && failed.CompareAndSwap(false, true) {
			return &lock.CompactedError{Kept: after + 1}
		}
		return nil
	}
	m.store.beforeEvents.Store(&hook)
	m.lockAll("b")
	w.want("locked b", "reset", "locked a", "locked b", "synced")
	m.lockAll("c")
	w.want("locked c")
}

// watching is the key of a value that the ctx of a watch has.
type watching struct{}

func testWatchEnds(m *managed) {
	m.lockAll("a", "b")
	seen := 0
	for _, err := range m.Watch(m.t.Context(), lock.Caller{}, lock.WatchRequest{}) {
		if err != nil {
			m.t.Error(err)
		}
		if seen++; seen == 2 {
			break
		}
	}
	w := m.watch("", 0)
	w.want("reset", "locked a", "locked b", "synced")
	m.Close()
	select {
	case err := <-w.ended:
		wantError(m.t, "a watch at Close", err, lock.ErrShuttingDown)
	case <-time.After(patience):
		m.t.Fatal("the watch goes on after Close")
	}
}

func testManagerList(m *managed) {
	m.lockAll("a", "b", "c", "d", "e", "lb/x")
	revision := m.revision()
	tests := []struct {
		pattern, after string
		limit          int
		want           []string
		more           bool
	}{
		{"", "", 10, []string{"a", "b", "c", "d", "e", "lb/x"}, false},
		{"", "", 6, []string{"a", "b", "c", "d", "e", "lb/x"}, false},
		{"", "", 2, []string{"a", "b"}, true},
		{"", "b", 2, []string{"c", "d"}, true},
		{"", "d", 2, []string{"e", "lb/x"}, false},
		{"*", "d", 2, []string{"e"}, false},
		{"none", "", 2, nil, false},
	}
	for _, test := range tests {
		var after lock.Name
		if test.after != "" {
			after = lock.MustParseName(test.after)
		}
		page, at, more, err := m.List(m.t.Context(), lock.Caller{}, lock.MustParsePattern(test.pattern), after, test.limit)
		var got []string
		for _, l := range page {
			got = append(got, l.Name.String())
		}
		if err != nil || !slices.Equal(got, test.want) || more != test.more || at != revision {
			m.t.Errorf("List(%q, %q, %d): got %q, revision %d, more %v, %v; want %q, %d, %v",
				test.pattern, test.after, test.limit, got, at, more, err, test.want, revision, test.more)
		}
	}
}

// testHistory: the pages of the store are handed on, and calls beyond the limit wait.
func testHistory(m *managed) {
	for range 3 {
		m.lockAll("lb/a", "db/b")
		m.mustUnlock(lock.MustParseName("lb/a"))
		m.mustUnlock(lock.MustParseName("db/b"))
	}
	q := lock.HistoryQuery{Pattern: lock.MustParsePattern("lb/**"), NewestFirst: true}
	first, err := m.History(m.t.Context(), lock.Caller{}, q, 0, 4)
	if err != nil || len(first.Events) != 4 || first.Next != first.Events[3].Revision {
		m.t.Fatalf("the first page: %+v, error %v", first, err)
	}
	second, err := m.History(m.t.Context(), lock.Caller{}, q, first.Next, 4)
	if err != nil || len(second.Events) != 2 || second.Next != 0 || second.Events[0].Revision >= first.Next {
		m.t.Fatalf("the second page: %+v, error %v", second, err)
	}
}
