package locktest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// together are the rules on more than one lock, and on more than one kind of hold.
var together = []managerTest{
	{name: "Set", test: testSet},
	{name: "SetRefused", test: testSetRefused},
	{name: "SetWaits", test: testSetWaits},
	{name: "SetAgain", test: testSetAgain},
	{name: "SetIsInOrder", test: testSetIsInOrder},
	{name: "SetLeaves", test: testSetLeaves},
	{name: "UnlockSet", test: testUnlockSet},
	{name: "RenewSet", test: testRenewSet},
	{name: "Pool", test: testPool},
	{name: "PoolKeepsFew", test: testPoolKeepsFew},
	{name: "PoolMovesOn", test: testPoolMovesOn},
	{name: "Shared", test: testShared},
	{name: "SharedInLine", test: testSharedInLine},
	{name: "SharedLimit", test: testSharedLimit},
	{name: "SharedAgain", test: testSharedAgain},
	{name: "Tree", test: testTree},
	{name: "TreeOfAll", test: testTreeOfAll},
	{name: "TreeWaits", test: testTreeWaits},
	{name: "TreeAndGrantsUnderWay", test: testTreeAndGrantsUnderWay},
	{name: "Drain", test: testDrain},
	{name: "DrainGivesUp", test: testDrainGivesUp},
	{name: "ThroughFreeze", test: testThroughFreeze},
	{name: "KindsRefused", test: testKindsRefused},
	{name: "Stale", test: testStale},
	{name: "ReplaceStale", test: testReplaceStale},
	{name: "HandOver", test: testHandOverTo},
	{name: "HandOverRefused", test: testHandOverRefused},
	{name: "RefuseManual", test: testRefuseManual},
	{name: "WaitForever", test: testWaitForever},
	{name: "NoWaitForever", test: testNoWaitForever, config: manager.Config{MaxWait: time.Minute}},
	{name: "Waiting", test: testWaiting},
	{name: "Dismiss", test: testDismiss},
	{name: "Ask", test: testAsk},
	{name: "WatchShared", test: testWatchShared},
}

func named(text string) lock.Name { return lock.MustParseName(text) }

func names(texts ...string) (names []lock.Name) {
	for _, text := range texts {
		names = append(names, named(text))
	}
	return names
}

// by is a LockRequest for a name.
func by(holder, name string, edits ...func(*lock.LockRequest)) lock.LockRequest {
	r := lock.LockRequest{Name: named(name), Holder: holder}
	for _, edit := range edits {
		edit(&r)
	}
	return r
}

func shared(r *lock.LockRequest)  { r.Shared = true }
func tree(r *lock.LockRequest)    { r.Tree = true }
func drain(r *lock.LockRequest)   { r.Tree, r.Drain, r.Wait = true, true, patience }
func through(r *lock.LockRequest) { r.ThroughFreeze, r.Reason = true, "hot fix" }
func keeping(r *lock.LockRequest) { r.TTL, r.OnExpiry = 150*time.Millisecond, lock.Keep }

func limited(n int) func(*lock.LockRequest) {
	return func(r *lock.LockRequest) { r.Shared, r.Limit = true, n }
}

// setBy is a SetRequest for names.
func setBy(holder string, all ...string) lock.SetRequest {
	return lock.SetRequest{Names: names(all...), Holder: holder}
}

// poolBy is a SetRequest for some of the names, and for all that are.
func poolBy(holder string, count int, of ...string) lock.SetRequest {
	return lock.SetRequest{Choices: []lock.Choice{{Names: names(of...), Count: count}}, Holder: holder}
}

type setResult struct {
	lock.SetGrant
	err error
}

// mustLockSet grants a set.
func (m *managed) mustLockSet(r lock.SetRequest) []lock.Lock {
	m.t.Helper()
	grant, err := m.LockSet(m.t.Context(), lock.Caller{}, r)
	if err != nil {
		m.t.Fatalf("LockSet by %q: %v", r.Holder, err)
	}
	return grant.Locks
}

// waitSet calls LockSet with a wait in the background, and returns when it waits for a lock.
func (m *managed) waitSet(ctx context.Context, r lock.SetRequest, inLineOf string) <-chan setResult {
	m.t.Helper()
	r.Wait = patience
	before := m.status(named(inLineOf)).Waiters
	results := make(chan setResult, 1)
	go func() {
		grant, err := m.LockSet(ctx, lock.Caller{}, r)
		results <- setResult{grant, err}
	}()
	m.awaitWaiters(named(inLineOf), before+1)
	return results
}

// grantedSet takes a result that must be a grant, and returns what was granted.
func (m *managed) grantedSet(what string, results <-chan setResult) []lock.Lock {
	m.t.Helper()
	select {
	case r := <-results:
		if r.err != nil {
			m.t.Fatalf("%s: %v", what, r.err)
		}
		return r.Locks
	case <-time.After(patience):
		m.t.Fatalf("%s: no answer in %v", what, patience)
		return nil
	}
}

// waits checks that a call is not answered: another that was sent after it has been decided.
func waits[T any](t *testing.T, what string, results <-chan T) {
	t.Helper()
	select {
	case r := <-results:
		t.Errorf("%s: got an answer, %+v; want it to wait", what, r)
	default:
	}
}

// wantHolds checks who holds locks; an empty holder means that the lock is free.
func (m *managed) wantHolds(holders map[string]string) {
	m.t.Helper()
	for name, holder := range holders {
		if l := m.status(named(name)); l.Held() != (holder != "") || l.Holder != holder {
			m.t.Errorf("%s is %s by %q, want it by %q", name, l.State(), l.Holder, holder)
		}
	}
}

// refusedLock takes an error of a request that was refused for a lock in the way.
func wantHeld(t *testing.T, what string, err error, inTheWay string, says ...string) {
	t.Helper()
	var refusal *lock.Error
	if !errors.As(err, &refusal) || refusal.Reason != lock.ErrLockHeld {
		t.Errorf("%s: got error %v, want %v", what, err, lock.ErrLockHeld)
		return
	}
	if refusal.Lock == nil || refusal.Lock.Name.String() != inTheWay {
		t.Errorf("%s: the error carries %+v, want %s", what, refusal.Lock, inTheWay)
	}
	for _, word := range says {
		if !strings.Contains(refusal.Message, word) {
			t.Errorf("%s: the message %q does not say %q", what, refusal.Message, word)
		}
	}
}

func (m *managed) lockErr(r lock.LockRequest) error {
	_, err := m.Lock(m.t.Context(), lock.Caller{}, r)
	return err
}

func (m *managed) lockSetErr(r lock.SetRequest) error {
	_, err := m.LockSet(m.t.Context(), lock.Caller{}, r)
	return err
}

func refs(locks []lock.Lock) (refs []lock.HoldRef) {
	for _, l := range locks {
		refs = append(refs, lock.HoldRef{Name: l.Name, Token: l.Token})
	}
	return refs
}

func testSet(m *managed) {
	before := m.revision()
	locks := m.mustLockSet(setBy("alice", "web", "db", "cache"))
	if len(locks) != 3 || locks[0].Name != named("cache") || locks[2].Name != named("web") {
		m.t.Fatalf("LockSet granted %+v, want cache, db, web", locks)
	}
	for i, l := range locks {
		if want := before + lock.Revision(i) + 1; l.Revision != want || l.Token != lock.Token(want) {
			m.t.Errorf("%v has revision %d and token %d, want %d: one commit in name order", l.Name, l.Revision, l.Token, want)
		}
		if want := (lock.SetRef{ID: locks[0].Token, Size: 3}); l.Set != want {
			m.t.Errorf("%v is of the set %+v, want %+v", l.Name, l.Set, want)
		}
		if got := m.status(l.Name); got.Token != l.Token || got.Set != l.Set {
			m.t.Errorf("Status of %v: %+v", l.Name, got)
		}
	}
	if l := m.mustLockSet(setBy("bob", "one"))[0]; l.Set != (lock.SetRef{}) {
		m.t.Errorf("a set of one lock is of the set %+v, want none", l.Set)
	}
}

func testSetRefused(m *managed) {
	m.mustLock(by("bob", "db"))
	m.mustLock(by("carol", "web"))
	revision := m.revision()
	wantHeld(m.t, "a set of which two are held", m.lockSetErr(setBy("alice", "web", "db", "cache")), "db", "bob", "web", "carol")
	m.wantHolds(map[string]string{"cache": "", "db": "bob", "web": "carol"})
	var many, again []string
	for i := range 65 {
		many = append(many, fmt.Sprintf("many/%d", i))
	}
	again = append(again, "a", "b", "a")
	for what, r := range map[string]lock.SetRequest{
		"no name":          {},
		"65 names":         setBy("alice", many...),
		"a name twice":     setBy("alice", again...),
		"an empty choice":  {Choices: []lock.Choice{{}}},
		"three of two":     poolBy("alice", 3, "a", "b"),
		"less than none":   poolBy("alice", -1, "a", "b"),
		"overlapping":      {Names: names("a"), Choices: []lock.Choice{{Names: names("b", "a")}}},
		"a slot":           setBy("alice", "a/_+1"),
		"a freeze, silent": {Names: names("a"), ThroughFreeze: true},
	} {
		if err := m.lockSetErr(r); !errors.Is(err, lock.ErrInvalidArgument) && !errors.Is(err, lock.ErrInvalidName) {
			m.t.Errorf("%s: got error %v, want it to be invalid", what, err)
		}
	}
	if got := m.revision(); got != revision {
		m.t.Errorf("the revision went from %d to %d", revision, got)
	}
}

func testSetWaits(m *managed) {
	m.mustLock(by("bob", "db"))
	set := m.waitSet(m.t.Context(), setBy("alice", "web", "db"), "db")
	wantHeld(m.t, "a lock that a set keeps", m.lockErr(by("carol", "web")), "web", "alice")
	l := m.status(named("web"))
	if l.Held() || l.Situation == nil || l.Situation.BlockedBy == nil || l.Situation.BlockedBy.Kind != lock.ByWaiter || l.Situation.BlockedBy.Waiter.Holder != "alice" {
		m.t.Errorf("Status of what a set keeps: %+v, %+v; want it free, blocked by alice", l, l.Situation)
	}
	carol := m.wait(m.t.Context(), by("carol", "web", waiting))
	m.mustUnlock(named("db"))
	locks := m.grantedSet("the set", set)
	waits(m.t, "who came after the set", carol)
	m.mustUnlock(locks[1].Name)
	m.granted("who came after the set", carol)
}

func testSetAgain(m *managed) {
	r := setBy("alice", "web", "db", "cache")
	r.RequestID = "r1"
	first := m.mustLockSet(r)
	again := m.mustLockSet(r)
	if !slices.EqualFunc(first, again, func(a, b lock.Lock) bool { return a.Name == b.Name && a.Token == b.Token }) {
		m.t.Errorf("the same request again got %+v, want %+v", again, first)
	}
	other := setBy("alice", "web", "db")
	other.RequestID = "r1"
	wantError(m.t, "the request id with other names", m.lockSetErr(other), lock.ErrInvalidArgument)
	m.mustUnlock(named("db"))
	err := m.lockSetErr(r)
	wantError(m.t, "the same request when one is gone", err, lock.ErrNotHolder)
	if err != nil && (!strings.Contains(err.Error(), "cache") || !strings.Contains(err.Error(), "web")) {
		m.t.Errorf("the refusal %q does not say what is left", err)
	}

	m.mustLock(by("bob", "x"))
	waitingSet := setBy("carol", "x", "y")
	waitingSet.RequestID = "r2"
	one := m.waitSet(m.t.Context(), waitingSet, "x")
	two := make(chan setResult, 1)
	resent := waitingSet
	resent.Wait = patience
	go func() {
		grant, err := m.LockSet(m.t.Context(), lock.Caller{}, resent)
		two <- setResult{grant, err}
	}()
	waitingSet.Names = names("x", "z")
	wantError(m.t, "the id of a waiter with other names", m.lockSetErr(waitingSet), lock.ErrInvalidArgument)
	m.mustUnlock(named("x"))
	a, b := m.grantedSet("a set", one), m.grantedSet("the same set again", two)
	if a[0].Token != b[0].Token {
		m.t.Errorf("the two sendings of a request got the tokens %d and %d", a[0].Token, b[0].Token)
	}
}

func testSetIsInOrder(m *managed) {
	m.mustLock(by("holder", "a"))
	m.mustLock(by("holder", "b"))
	first := m.waitSet(m.t.Context(), setBy("first", "a", "b"), "a")
	second := m.waitSet(m.t.Context(), setBy("second", "b", "c"), "b")
	third := m.wait(m.t.Context(), by("third", "c", waiting))
	m.mustUnlock(named("b")) // first waits for a still, and keeps b
	m.wantHolds(map[string]string{"b": "", "c": ""})
	waits(m.t, "second", second)
	waits(m.t, "third", third)
	m.mustUnlock(named("a"))
	locks := m.grantedSet("first", first)
	waits(m.t, "second", second)
	m.mustUnlock(locks[1].Name)
	m.grantedSet("second", second)
	waits(m.t, "third", third)
	m.mustUnlock(named("c"))
	m.granted("third", third)
}

func testSetLeaves(m *managed) {
	m.mustLock(by("holder", "a"))
	ctx, cancel := context.WithCancel(m.t.Context())
	set := m.waitSet(ctx, setBy("set", "a", "b"), "a")
	bob := m.wait(m.t.Context(), by("bob", "b", waiting))
	cancel()
	if r := <-set; !errors.Is(r.err, context.Canceled) {
		m.t.Errorf("the set that left: %v", r.err)
	}
	m.granted("who stood behind the set", bob)
	m.wantHolds(map[string]string{"a": "holder", "b": "bob"})
}

func testUnlockSet(m *managed) {
	locks := m.mustLockSet(setBy("alice", "a", "b", "c", "d"))
	m.mustUnlock(named("b"))
	m.mustLock(by("bob", "b"))
	m.mustUnlock(named("c"))
	before := m.revision()
	answers, err := m.UnlockSet(m.t.Context(), lock.Caller{}, lock.UnlockSetRequest{Holds: refs(locks)})
	if err != nil {
		m.t.Fatal(err)
	}
	for i, want := range []error{nil, lock.ErrNotHolder, lock.ErrNotLocked, nil} {
		if !errors.Is(answers[i].Err, want) || (want == nil) != (answers[i].Err == nil) {
			m.t.Errorf("the answer for %v: %v, want %v", answers[i].Name, answers[i].Err, want)
		}
	}
	if answers[0].Revision != before+1 || answers[3].Revision != before+2 || m.revision() != before+2 {
		m.t.Errorf("the releases have revisions %d and %d, want %d and %d", answers[0].Revision, answers[3].Revision, before+1, before+2)
	}
	m.wantHolds(map[string]string{"a": "", "b": "bob", "c": "", "d": ""})

	locks = m.mustLockSet(setBy("alice", "a", "c"))
	id := locks[0].Set.ID
	answers, err = m.UnlockSet(m.t.Context(), lock.Caller{}, lock.UnlockSetRequest{Set: id, Holder: "mallory"})
	if err != nil || !errors.Is(answers[0].Err, lock.ErrNotHolder) || !errors.Is(answers[1].Err, lock.ErrNotHolder) {
		m.t.Errorf("another holder ended a set: %+v, %v", answers, err)
	}
	m.mustUnlock(named("c"))
	answers, err = m.UnlockSet(m.t.Context(), lock.Caller{}, lock.UnlockSetRequest{Set: id, Holder: "alice"})
	if err != nil || len(answers) != 1 || answers[0].Err != nil {
		m.t.Errorf("what is left of a set: %+v, %v", answers, err)
	}
	m.wantHolds(map[string]string{"a": "", "c": ""})
	for what, r := range map[string]lock.UnlockSetRequest{
		"nothing":      {},
		"both":         {Holds: refs(locks), Set: id},
		"a lock twice": {Holds: append(refs(locks), refs(locks)...)},
		"no token":     {Holds: []lock.HoldRef{{Name: named("a")}}},
	} {
		_, err := m.UnlockSet(m.t.Context(), lock.Caller{}, r)
		wantError(m.t, what, err, lock.ErrInvalidArgument)
	}
}

func testRenewSet(m *managed) {
	r := setBy("alice", "a", "b", "c")
	r.TTL = time.Hour
	locks := m.mustLockSet(r)
	m.mustUnlock(named("b"))
	m.mustUnlock(named("c"))
	m.mustLock(by("bob", "c"))
	before := m.revision()
	answers, err := m.RenewSet(m.t.Context(), lock.Caller{}, lock.RenewSetRequest{Holds: refs(locks), TTL: 2 * time.Hour})
	if err != nil {
		m.t.Fatal(err)
	}
	for i, want := range []error{nil, lock.ErrNotLocked, lock.ErrNotHolder} {
		if !errors.Is(answers[i].Err, want) || (want == nil) != (answers[i].Err == nil) {
			m.t.Errorf("the answer for %v: %v, want %v", answers[i].Name, answers[i].Err, want)
		}
	}
	if l := m.status(named("a")); l.TTL != 2*time.Hour || answers[0].Lock.TTL != 2*time.Hour || m.revision() != before {
		m.t.Errorf("after the renewal the ttl is %v, the answer says %v, the revision went from %d to %d", l.TTL, answers[0].Lock.TTL, before, m.revision())
	}
}

func testPool(m *managed) {
	slots := []string{"p/1", "p/2", "p/3"}
	got := make(map[string]bool)
	for i := range 3 {
		l := m.mustLockSet(poolBy(fmt.Sprintf("server-%d", i), 1, slots...))
		if len(l) != 1 || got[l[0].Name.String()] {
			m.t.Fatalf("grant %d of a pool: %+v, after %v", i, l, got)
		}
		got[l[0].Name.String()] = true
	}
	wantHeld(m.t, "a fourth of three", m.lockSetErr(poolBy("server-3", 1, slots...)), "p/1")
	fourth := m.waitSet(m.t.Context(), poolBy("server-3", 1, slots...), "p/1")
	fifth := m.waitSet(m.t.Context(), poolBy("server-4", 1, slots...), "p/1")
	m.mustUnlock(named("p/2"))
	if l := m.grantedSet("the fourth", fourth); l[0].Name != named("p/2") {
		m.t.Errorf("the fourth got %v, want what became free", l[0].Name)
	}
	waits(m.t, "the fifth", fifth)
	m.mustUnlock(named("p/1"))
	m.grantedSet("the fifth", fifth)
	two := lock.SetRequest{Names: names("x"), Choices: []lock.Choice{{Names: names("q/1", "q/2", "q/3"), Count: 2}}, Holder: "two"}
	m.mustLock(by("somebody", "q/1"))
	locks := m.mustLockSet(two)
	if len(locks) != 3 || locks[0].Name != named("q/2") || locks[1].Name != named("q/3") || locks[2].Name != named("x") || locks[0].Set.Size != 3 {
		m.t.Errorf("x and two of three: %+v", locks)
	}
}

// A set that waits for x and any one of 20 slots holds back one slot, not 20.
func testPoolKeepsFew(m *managed) {
	var slots []string
	for i := range 20 {
		slots = append(slots, fmt.Sprintf("p/%02d", i))
	}
	m.mustLock(by("holder", "x"))
	r := poolBy("set", 1, slots...)
	r.Names = names("x")
	set := m.waitSet(m.t.Context(), r, "x")
	for i := range 19 {
		m.mustLockSet(poolBy(fmt.Sprintf("other-%d", i), 1, slots...))
	}
	wantError(m.t, "the slot that the set keeps", m.lockSetErr(poolBy("one too many", 1, slots...)), lock.ErrLockHeld)
	m.mustUnlock(named("x"))
	m.grantedSet("the set", set)
}

// What a set keeps of its choice it gives up when a hand takes it, and keeps another.
func testPoolMovesOn(m *managed) {
	m.mustLock(by("holder", "x"))
	m.mustLock(by("holder", "p/2"))
	r := poolBy("set", 1, "p/1", "p/2")
	r.Names = names("x")
	set := m.waitSet(m.t.Context(), r, "x")
	one := m.wait(m.t.Context(), by("one", "p/1", waiting)) // the set keeps it
	m.mustUnlock(named("p/2"))                              // the set goes on keeping p/1, the first that is free
	two := m.mustLock(by("two", "p/2"))
	waits(m.t, "who waits for what the set keeps", one)
	m.mustUnlock(two.Name)
	m.mustUnlock(named("x"))
	if locks := m.grantedSet("the set", set); locks[0].Name != named("p/1") {
		m.t.Errorf("the set got %v, want what it kept", locks[0].Name)
	}
	m.mustUnlock(named("p/1"))
	m.granted("who waits for what the set kept", one)
}

func testShared(m *managed) {
	one := m.mustLock(by("one", "conf/app", shared))
	two := m.mustLock(by("two", "conf/app", shared))
	if one.Name != named("conf/app/_+1") || two.Name != named("conf/app/_+2") || !one.Shared() {
		m.t.Fatalf("the shared holds are %v and %v", one.Name, two.Name)
	}
	wantHeld(m.t, "a writer beside readers", m.lockErr(by("writer", "conf/app")), "conf/app/_+1", "one")
	l := m.status(named("conf/app"))
	if l.Held() || l.Situation == nil || l.Situation.SharedHolds != 2 || l.Situation.BlockedBy == nil || l.Situation.BlockedBy.Kind != lock.ByShared {
		m.t.Errorf("Status of a lock with shared holds: %+v, %+v", l, l.Situation)
	}
	if _, err := m.Renew(m.t.Context(), lock.Caller{}, lock.RenewRequest{Name: one.Name, Token: one.Token, TTL: time.Hour}); err != nil {
		m.t.Errorf("Renew of a shared hold: %v", err)
	}
	m.mustUnlock(one.Name)
	if three := m.mustLock(by("three", "conf/app", shared)); three.Name != named("conf/app/_+1") {
		m.t.Errorf("the third has %v, want the lowest number that is free", three.Name)
	}
	m.mustUnlock(named("conf/app/_+1"))
	m.mustUnlock(named("conf/app/_+2"))
	m.mustLock(by("writer", "conf/app"))
	wantHeld(m.t, "a reader beside a writer", m.lockErr(by("reader", "conf/app", shared)), "conf/app", "writer")
	m.wantHolds(map[string]string{"conf/app/_+1": ""})
}

func testSharedInLine(m *managed) {
	m.mustLock(by("r1", "a", shared))
	writer := m.wait(m.t.Context(), by("writer", "a", waiting))
	wantHeld(m.t, "a reader behind a writer", m.lockErr(by("r2", "a", shared)), "a", "writer")
	r2 := m.wait(m.t.Context(), by("r2", "a", shared, waiting))
	r3 := m.wait(m.t.Context(), by("r3", "a", shared, waiting))
	second := m.wait(m.t.Context(), by("second writer", "a", waiting))
	m.mustUnlock(named("a/_+1"))
	m.granted("the writer", writer)
	waits(m.t, "a reader", r2)
	m.mustUnlock(named("a"))
	l2, l3 := m.granted("r2", r2), m.granted("r3", r3)
	waits(m.t, "the second writer", second)
	m.mustUnlock(l2.Name)
	waits(m.t, "the second writer", second)
	m.mustUnlock(l3.Name)
	m.granted("the second writer", second)
}

func testSharedLimit(m *managed) {
	for i := range 3 {
		m.mustLock(by(fmt.Sprint(i), "a", limited(3)))
	}
	wantError(m.t, "a fourth of three", m.lockErr(by("4", "a", limited(3))), lock.ErrLockHeld)
	fourth := m.wait(m.t.Context(), by("4", "a", limited(3), waiting))
	any := m.wait(m.t.Context(), by("5", "a", shared, waiting)) // there is room, but it is in line
	m.mustUnlock(named("a/_+2"))
	m.granted("the fourth", fourth)
	m.granted("one without a limit", any)
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			for range 5 {
				grant, err := m.Lock(m.t.Context(), lock.Caller{}, by(fmt.Sprint(i), "b", limited(3), waiting))
				if err != nil {
					m.t.Error(err)
					return
				}
				if n := m.status(named("b")).Situation; n == nil || n.SharedHolds > 3 {
					m.t.Errorf("shared holds: %+v, want at most 3", n)
				}
				if _, err := m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: grant.Lock.Name, Token: grant.Lock.Token}); err != nil {
					m.t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}

func testSharedAgain(m *managed) {
	r := by("one", "a", shared, withRequestID("r1"))
	first := m.mustLock(r)
	if again := m.mustLock(r); again.Name != first.Name || again.Token != first.Token {
		m.t.Errorf("the same request again got %v, %d; want %v, %d", again.Name, again.Token, first.Name, first.Token)
	}
}

func testTree(m *managed) {
	m.mustLock(by("deploy", "prod/web"))
	held := m.mustLock(by("deploy", "prod/web/1"))
	freeze := m.mustLock(by("ops", "prod", tree))
	if !freeze.Tree || freeze.Situation == nil || freeze.Situation.HeldBelow != 2 {
		m.t.Errorf("the freeze: %+v, %+v; want it to have 2 held below", freeze, freeze.Situation)
	}
	for _, name := range []string{"prod/db", "prod/a/b/c", "prod/web/1/x"} {
		wantHeld(m.t, name, m.lockErr(by("late", name)), "prod", "frozen", "ops")
		l := m.status(named(name))
		if l.Held() || l.Situation == nil || l.Situation.BlockedBy == nil || l.Situation.BlockedBy.Kind != lock.ByTree || l.Situation.BlockedBy.Lock.Name != named("prod") {
			m.t.Errorf("Status of %s in a freeze: %+v", name, l.Situation)
		}
	}
	wantHeld(m.t, "a shared hold in a freeze", m.lockErr(by("late", "prod/db", shared)), "prod")
	wantHeld(m.t, "a set with one lock in a freeze", m.lockSetErr(setBy("late", "prod/db", "other")), "prod")
	wantHeld(m.t, "a tree in a freeze", m.lockErr(by("late", "prod/db", tree)), "prod")
	wantHeld(m.t, "to overwrite in a freeze", m.lockErr(by("deploy", "prod/web", overwriting)), "prod")
	m.mustLock(by("other", "production"))
	m.mustLock(by("other", "pro"))
	if _, err := m.Renew(m.t.Context(), lock.Caller{}, lock.RenewRequest{Name: held.Name, Token: held.Token, TTL: time.Hour}); err != nil {
		m.t.Errorf("Renew in a freeze: %v", err)
	}
	if _, err := m.HandOver(m.t.Context(), lock.Caller{}, lock.HandOverRequest{Name: held.Name, Token: held.Token, Holder: "night shift"}); err != nil {
		m.t.Errorf("HandOver in a freeze: %v", err)
	}
	m.mustUnlock(held.Name)
	waiter := m.wait(m.t.Context(), by("patient", "prod/db", waiting))
	set := m.waitSet(m.t.Context(), setBy("patient set", "prod/x", "other/x"), "prod/x")
	m.mustUnlock(named("prod"))
	m.granted("who waited for the end of the freeze", waiter)
	m.grantedSet("a set that did", set)
}

func testTreeOfAll(m *managed) {
	m.mustLock(by("ops", "_all", tree))
	wantHeld(m.t, "anything", m.lockErr(by("late", "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p")), "_all")
	wantHeld(m.t, "a tree", m.lockErr(by("late", "prod", tree)), "_all")
	m.mustUnlock(named("_all"))
	m.mustLock(by("early", "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p"))
	m.mustLock(by("plain", "_all"))
	m.mustLock(by("plain", "b"))
}

func testTreeWaits(m *managed) {
	m.mustLock(by("holder", "prod"))
	freeze := m.wait(m.t.Context(), by("ops", "prod", tree, waiting))
	m.mustLock(by("deploy", "prod/web")) // a freeze that does not drain keeps nobody waiting
	m.mustUnlock(named("prod"))
	m.granted("the freeze", freeze)
	wantHeld(m.t, "a lock in the freeze", m.lockErr(by("late", "prod/db")), "prod")
	m.mustUnlock(named("prod"))
	m.mustLock(by("early", "prod/db"))
}

// While a freeze is granted, grants below are under way: no one of them comes after it.
func testTreeAndGrantsUnderWay(m *managed) {
	for round := range 20 {
		var wait sync.WaitGroup
		for i := range 8 {
			wait.Go(func() {
				name := named(fmt.Sprintf("prod/%d/%d", round, i))
				grant, err := m.Lock(m.t.Context(), lock.Caller{}, lock.LockRequest{Name: name, Holder: "deploy"})
				if err != nil && !errors.Is(err, lock.ErrLockHeld) {
					m.t.Error(err)
				}
				if err == nil {
					m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: name, Token: grant.Lock.Token})
				}
			})
		}
		wait.Go(func() {
			grant, err := m.Lock(m.t.Context(), lock.Caller{}, by("ops", "prod", tree))
			if err != nil {
				m.t.Error(err)
				return
			}
			m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: grant.Lock.Name, Token: grant.Lock.Token})
		})
		wait.Wait()
	}
	page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{}, 0, 10_000)
	if err != nil {
		m.t.Fatal(err)
	}
	frozen := false
	for _, e := range page.Events {
		switch {
		case e.Lock.Name == named("prod"):
			frozen = e.Type == lock.Locked
		case frozen && e.Type == lock.Locked:
			m.t.Errorf("revision %d grants %v in a freeze", e.Revision, e.Lock.Name)
		}
	}
}

func testDrain(m *managed) {
	m.mustLock(by("deploy", "prod/web"))
	m.mustLock(by("deploy", "prod/db"))
	older := m.wait(m.t.Context(), by("older", "prod/web", waiting))
	wantError(m.t, "a drain of one's own hold", m.lockErr(by("deploy", "prod", drain)), lock.ErrLockHeld)
	freeze := m.wait(m.t.Context(), by("ops", "prod", drain))
	wantError(m.t, "a later request below", m.lockErr(by("late", "prod/cache")), lock.ErrLockHeld)
	late := m.wait(m.t.Context(), by("late", "prod/cache", waiting))
	m.mustUnlock(named("prod/db"))
	waits(m.t, "the drain", freeze)
	m.mustUnlock(named("prod/web"))
	m.granted("who came before the drain", older)
	waits(m.t, "the drain", freeze)
	m.mustUnlock(named("prod/web"))
	m.granted("the drain", freeze)
	waits(m.t, "who came after the drain", late)
	m.mustUnlock(named("prod"))
	m.granted("who came after the drain", late)
}

func testDrainGivesUp(m *managed) {
	m.mustLock(by("deploy", "prod/web"))
	ctx, cancel := context.WithCancel(m.t.Context())
	freeze := m.wait(ctx, by("ops", "prod", drain))
	late := m.wait(m.t.Context(), by("late", "prod/cache", waiting))
	cancel()
	<-freeze
	m.granted("who stood behind the drain", late)
	wantHeld(m.t, "a drain whose wait is over", m.lockErr(by("ops", "prod", tree, func(r *lock.LockRequest) { r.Drain, r.Wait = true, 10*time.Millisecond })), "prod/cache", "late", "not drained")
	if l := m.status(named("prod/x")); l.Situation != nil {
		m.t.Errorf("Status after the drain: %+v", l.Situation)
	}
}

func testThroughFreeze(m *managed) {
	m.mustLock(by("ops", "prod", tree))
	patient := m.wait(m.t.Context(), by("patient", "prod/db", waiting))
	l := m.mustLock(by("fixer", "prod/db", through))
	waits(m.t, "who waits for the end of the freeze", patient)
	page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{Pattern: lock.MustParsePattern("prod/db")}, 0, 10)
	if err != nil || len(page.Events) != 1 || page.Events[0].Reason != "through the freeze of prod: hot fix" {
		m.t.Errorf("the history: %+v, %v", page.Events, err)
	}
	if got := m.status(named("prod/db")); got.Situation == nil || got.Situation.ConflictWith != named("prod") {
		m.t.Errorf("Status of a hold through a freeze: %+v", got.Situation)
	}
	wantError(m.t, "without a reason", m.lockErr(by("fixer", "prod/x", func(r *lock.LockRequest) { r.ThroughFreeze = true })), lock.ErrInvalidArgument)
	m.mustUnlock(l.Name)
	m.mustUnlock(named("prod"))
	m.granted("who waited for the end of the freeze", patient)
}

func testKindsRefused(m *managed) {
	long := strings.TrimSuffix(strings.Repeat("a/", 16), "/")
	revision := m.revision()
	for what, r := range map[string]lock.LockRequest{
		"shared and tree":         by("x", "a", shared, tree),
		"shared and overwrite":    by("x", "a", shared, overwriting),
		"tree and overwrite":      by("x", "a", tree, overwriting),
		"tree and keep":           by("x", "a", tree, keeping),
		"a limit alone":           by("x", "a", func(r *lock.LockRequest) { r.Limit = 3 }),
		"a limit below 0":         by("x", "a", limited(-1)),
		"drain alone":             by("x", "a", func(r *lock.LockRequest) { r.Drain, r.Wait = true, time.Second }),
		"drain without a wait":    by("x", "a", tree, func(r *lock.LockRequest) { r.Drain = true }),
		"stale without a reason":  by("x", "a", func(r *lock.LockRequest) { r.ReplaceStale = true }),
		"a shared hold's name":    by("x", "a/_+1"),
		"below a shared hold":     by("x", "a/_+1/b"),
		"shared, 16 segments":     by("x", long, shared),
		"an expiry of some kind":  by("x", "a", func(r *lock.LockRequest) { r.OnExpiry = 7 }),
		"a first segment like it": by("x", "_+1/b"),
	} {
		if err := m.lockErr(r); !errors.Is(err, lock.ErrInvalidArgument) && !errors.Is(err, lock.ErrInvalidName) {
			m.t.Errorf("%s: got error %v, want it to be invalid", what, err)
		}
	}
	if got := m.revision(); got != revision {
		m.t.Errorf("the revision went from %d to %d", revision, got)
	}
}

// awaitStale waits until a hold is stale.
func (m *managed) awaitStale(name lock.Name) lock.Lock {
	m.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		l := m.status(name)
		if l.Stale() {
			return l
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%v is %+v, want it to be stale", name, l)
		}
	}
}

func testStale(m *managed) {
	held := m.mustLock(by("deploy", "prod/web", keeping, withRequestID("r1")))
	if held.OnExpiry != lock.Keep {
		m.t.Errorf("the grant echoes on_expiry %v", held.OnExpiry)
	}
	waiter := m.wait(m.t.Context(), by("next", "prod/web", waiting))
	stale := m.awaitStale(held.Name)
	if stale.Token != held.Token || stale.Holder != "deploy" || !stale.Deadline.IsZero() {
		m.t.Errorf("the stale hold: %+v", stale)
	}
	m.wantHistory(held.Name, "locked request deploy", "updated expired deploy")
	waits(m.t, "who waits", waiter)
	_, err := m.Renew(m.t.Context(), lock.Caller{}, lock.RenewRequest{Name: held.Name, Token: held.Token, TTL: time.Hour})
	wantError(m.t, "Renew of a stale hold", err, lock.ErrNotHolder)
	_, err = m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: held.Name, Token: held.Token, Holder: "deploy"})
	wantError(m.t, "Unlock of a stale hold by who had it", err, lock.ErrNotHolder)
	_, err = m.HandOver(m.t.Context(), lock.Caller{}, lock.HandOverRequest{Name: held.Name, Token: held.Token})
	wantError(m.t, "HandOver of a stale hold", err, lock.ErrNotHolder)
	wantError(m.t, "the request again", m.lockErr(by("deploy", "prod/web", keeping, withRequestID("r1"))), lock.ErrLockHeld)
	_, err = m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: held.Name, Stale: true})
	wantError(m.t, "Unlock of a stale hold without a reason", err, lock.ErrInvalidArgument)
	if _, err = m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: held.Name, Stale: true, Reason: "looked", Holder: "eve"}); err != nil {
		m.t.Errorf("Unlock of a stale hold by who has looked: %v", err)
	}
	next := m.granted("who waited", waiter)
	_, err = m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: next.Name, Stale: true, Reason: "looked"})
	wantError(m.t, "Unlock of a hold that is not stale, as one that is", err, lock.ErrNotHolder)
	m.wantHistory(held.Name, "locked request deploy", "updated expired deploy", "unlocked request deploy", "locked request next")
}

func testReplaceStale(m *managed) {
	held := m.mustLock(by("deploy", "prod/web", keeping))
	replacing := by("eve", "prod/web", func(r *lock.LockRequest) { r.ReplaceStale, r.Reason = true, "looked" })
	wantError(m.t, "to replace what is not stale yet", m.lockErr(replacing), lock.ErrLockHeld)
	m.awaitStale(held.Name)
	waiter := m.wait(m.t.Context(), by("next", "prod/web", waiting))
	l := m.mustLock(replacing)
	if l.Holder != "eve" || l.Token <= held.Token || l.Stale() {
		m.t.Errorf("the hold in its place: %+v", l)
	}
	waits(m.t, "who waits", waiter)
	m.wantHistory(held.Name, "locked request deploy", "updated expired deploy", "unlocked request deploy", "locked request eve")
	m.mustUnlock(l.Name)
	m.granted("who waits", waiter)
}

func testHandOverTo(m *managed) {
	r := by("alice", "shift", withRequestID("r1"))
	r.TTL = time.Hour
	r.Data = data(m.t, map[string]any{"msg": "patching"})
	held := m.mustLock(r)
	waiter := m.wait(m.t.Context(), by("next", "shift", waiting))
	handOver := lock.HandOverRequest{Name: held.Name, Token: held.Token, Holder: "bob", Reason: "shift ends", RequestID: "h1"}
	answer, err := m.HandOver(m.t.Context(), lock.Caller{}, handOver)
	if err != nil {
		m.t.Fatal(err)
	}
	l := answer.Lock
	if l.Holder != "bob" || l.Token <= held.Token || l.TTL != time.Hour || l.Data != held.Data {
		m.t.Errorf("the hold goes on as %+v", l)
	}
	again, err := m.HandOver(m.t.Context(), lock.Caller{}, handOver)
	if err != nil || again.Lock.Token != l.Token {
		m.t.Errorf("the same request again: %+v, %v", again.Lock, err)
	}
	waits(m.t, "who waits", waiter)
	page, err := m.History(m.t.Context(), lock.Caller{}, lock.HistoryQuery{}, 0, 10)
	if err != nil || len(page.Events) != 3 {
		m.t.Fatalf("the history: %+v, %v", page.Events, err)
	}
	if e := page.Events[2]; e.Type != lock.Locked || e.Cause != lock.Request || e.Previous != held.Token || e.Actor != "alice" || e.Reason != "handed over to bob: shift ends" {
		m.t.Errorf("the event of the hand-over: %+v", e)
	}
	_, err = m.Renew(m.t.Context(), lock.Caller{}, lock.RenewRequest{Name: held.Name, Token: held.Token})
	wantError(m.t, "Renew with the old token", err, lock.ErrNotHolder)
	_, err = m.Unlock(m.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: held.Name, Token: held.Token})
	wantError(m.t, "Unlock with the old token", err, lock.ErrNotHolder)
	never, err := m.HandOver(m.t.Context(), lock.Caller{}, lock.HandOverRequest{Name: held.Name, Token: l.Token, Holder: "carol", Never: true})
	if err != nil || never.Lock.TTL != 0 || !never.Lock.Deadline.IsZero() {
		m.t.Errorf("without an end: %+v, %v", never.Lock, err)
	}

	set := m.mustLockSet(setBy("alice", "a", "b"))
	moved, err := m.HandOver(m.t.Context(), lock.Caller{}, lock.HandOverRequest{Name: named("a"), Token: set[0].Token, Holder: "bob"})
	if err != nil || moved.Lock.Set != set[0].Set {
		m.t.Errorf("the set of a hold that was handed over: %+v, want %+v (%v)", moved.Lock.Set, set[0].Set, err)
	}
	freeze := m.mustLock(by("ops", "prod", tree))
	moved, err = m.HandOver(m.t.Context(), lock.Caller{}, lock.HandOverRequest{Name: named("prod"), Token: freeze.Token, Holder: "bob"})
	if err != nil || !moved.Lock.Tree {
		m.t.Errorf("a freeze that was handed over: %+v, %v", moved.Lock, err)
	}
	wantError(m.t, "a lock in the freeze", m.lockErr(by("late", "prod/x")), lock.ErrLockHeld)
	_, err = m.HandOver(m.t.Context(), lock.Caller{}, lock.HandOverRequest{Name: named("prod"), Token: moved.Lock.Token, Holder: "eve", NoTree: true})
	wantError(m.t, "a freeze to who may not freeze", err, lock.ErrPermissionDenied)
}

func testHandOverRefused(m *managed) {
	held := m.mustLock(by("alice", "shift"))
	for what, test := range map[string]struct {
		edit func(*lock.HandOverRequest)
		want error
	}{
		"no token":      {func(r *lock.HandOverRequest) { r.Token = 0 }, lock.ErrInvalidArgument},
		"another token": {func(r *lock.HandOverRequest) { r.Token++ }, lock.ErrNotHolder},
		"a free lock":   {func(r *lock.HandOverRequest) { r.Name = named("free") }, lock.ErrNotLocked},
		"never and ttl": {func(r *lock.HandOverRequest) { r.Never, r.TTL = true, time.Hour }, lock.ErrInvalidArgument},
	} {
		r := lock.HandOverRequest{Name: held.Name, Token: held.Token, Holder: "bob"}
		test.edit(&r)
		_, err := m.HandOver(m.t.Context(), lock.Caller{}, r)
		wantError(m.t, what, err, test.want)
	}
	m.wantHolds(map[string]string{"shift": "alice"})
}

func testRefuseManual(m *managed) {
	refusing := func(r *lock.LockRequest) { r.RefuseManual, r.Wait, r.TTL = true, patience, time.Hour }
	m.mustLock(by("person", "a"))
	wantHeld(m.t, "a manual hold in the way", m.lockErr(by("job", "a", refusing)), "a", "person")
	m.mustLock(by("job 1", "b", func(r *lock.LockRequest) { r.TTL = time.Hour }))
	m.wait(m.t.Context(), by("person", "b", waiting))
	wantError(m.t, "a manual request ahead", m.lockErr(by("job 2", "b", refusing)), lock.ErrLockHeld)
	ttl := func(r *lock.LockRequest) { r.TTL = time.Hour }
	m.mustLock(by("job 1", "c", ttl))
	waiter := m.wait(m.t.Context(), by("job 2", "c", refusing))
	m.mustLock(by("job 1", "c", overwriting)) // without an end
	m.refused("who does not wait for a person", waiter, lock.ErrLockHeld)
}

func testWaitForever(m *managed) {
	m.mustLock(by("alice", "a"))
	ctx, cancel := context.WithCancel(m.t.Context())
	forever := func(r *lock.LockRequest) { r.Wait = lock.WaitForever }
	one := m.wait(ctx, by("one", "a", forever))
	two := m.wait(m.t.Context(), by("two", "a", forever))
	if w := m.status(named("a")).Situation.Waiting; len(w) != 2 || !w[0].Until.IsZero() {
		m.t.Errorf("who waits without an end: %+v", w)
	}
	cancel()
	if r := <-one; !errors.Is(r.err, context.Canceled) {
		m.t.Errorf("who left: %v", r.err)
	}
	m.mustUnlock(named("a"))
	m.granted("who waits without an end", two)
}

func testNoWaitForever(m *managed) {
	wantError(m.t, "a wait without an end where there is a longest", m.lockErr(by("one", "a", func(r *lock.LockRequest) { r.Wait = lock.WaitForever })), lock.ErrInvalidArgument)
}

func testWaiting(m *managed) {
	m.mustLock(by("alice", "a"))
	for i := range 12 {
		r := by(fmt.Sprintf("w%d", i), "a", waiting)
		r.Data = data(m.t, map[string]any{"msg": "why"})
		m.wait(m.t.Context(), r)
	}
	m.waitSet(m.t.Context(), setBy("set", "a", "b"), "a")
	l := m.status(named("a"))
	if l.Waiters != 13 || len(l.Situation.Waiting) != 13 {
		m.t.Fatalf("%d waiters, %d shown; want 13", l.Waiters, len(l.Situation.Waiting))
	}
	for i, w := range l.Situation.Waiting[:12] {
		if w.Holder != fmt.Sprintf("w%d", i) || w.Message != "why" || w.Since.IsZero() || w.Until.IsZero() || i > 0 && w.Place <= l.Situation.Waiting[i-1].Place {
			m.t.Errorf("waiter %d: %+v", i, w)
		}
	}
	if w := l.Situation.Waiting[12]; w.Holder != "set" || !slices.Equal(w.Names, names("a", "b")) {
		m.t.Errorf("the set in line: %+v", w)
	}
	page, _, _, err := m.List(m.t.Context(), lock.Caller{}, lock.Pattern{}, lock.Name{}, 10)
	if err != nil || page[0].Waiters != 13 || len(page[0].Situation.Waiting) != 10 {
		m.t.Errorf("List shows %d of %d waiters (%v), want 10 of 13", len(page[0].Situation.Waiting), page[0].Waiters, err)
	}
}

func testDismiss(m *managed) {
	m.mustLock(by("alice", "a"))
	m.wait(m.t.Context(), by("one", "a", waiting))
	two := m.wait(m.t.Context(), by("two", "a", waiting))
	set := m.waitSet(m.t.Context(), setBy("set", "a", "b"), "a")
	behind := m.wait(m.t.Context(), by("behind", "b", waiting))
	places := m.status(named("a")).Situation.Waiting
	dismiss := func(name string, place uint64, reason string) (lock.Waiter, error) {
		return m.Dismiss(m.t.Context(), lock.Caller{}, lock.DismissRequest{Name: named(name), Place: place, Holder: "boss", Reason: reason})
	}
	if w, err := dismiss("a", places[1].Place, "not today"); err != nil || w.Holder != "two" {
		m.t.Errorf("Dismiss: %+v, %v", w, err)
	}
	r := <-two
	wantHeld(m.t, "who was put out of line", r.err, "a", "boss", "not today")
	if _, err := dismiss("a", places[2].Place, "not today"); err != nil {
		m.t.Errorf("Dismiss of a set: %v", err)
	}
	if r := <-set; !errors.Is(r.err, lock.ErrLockHeld) {
		m.t.Errorf("the set that was put out of line: %v", r.err)
	}
	m.granted("who stood behind the set", behind)
	_, err := dismiss("a", places[1].Place, "again")
	wantError(m.t, "nobody's place", err, lock.ErrNotLocked)
	_, err = dismiss("a", places[0].Place, " ")
	wantError(m.t, "no reason", err, lock.ErrInvalidArgument)
	if l := m.status(named("a")); l.Waiters != 1 {
		m.t.Errorf("%d wait, want 1", l.Waiters)
	}
}

func testAsk(m *managed) {
	held := m.mustLock(by("alice", "a"))
	ask := func(message string) lock.AskAnswer {
		m.t.Helper()
		answer, err := m.Ask(m.t.Context(), lock.Caller{}, lock.AskRequest{Name: held.Name, Message: message, Holder: "bob"})
		if err != nil {
			m.t.Fatal(err)
		}
		return answer
	}
	if answer := ask("early"); answer.Heard || answer.Lock.Token != held.Token {
		m.t.Errorf("Ask while nobody listens: %+v", answer)
	}
	for i := range 20 {
		ask(fmt.Sprint(i))
	}
	follow := func(token lock.Token) (next func() (lock.Event, error, bool), stop func()) {
		return iter.Pull2(m.Watch(m.t.Context(), lock.Caller{}, lock.WatchRequest{Pattern: lock.MustParsePattern("a"), After: held.Revision, Token: token}))
	}
	next, stop := follow(held.Token)
	defer stop()
	if e, err, _ := next(); e.Type != lock.Synced || err != nil {
		m.t.Fatalf("got %+v, %v; want it synced", e, err)
	}
	for i := 4; i < 20; i++ { // the newest 16
		e, err, _ := next()
		if e.Type != lock.Asked || e.Reason != fmt.Sprint(i) || e.Actor != "bob" || e.Lock.Token != held.Token || e.Revision != 0 || err != nil {
			m.t.Fatalf("what was asked before: %+v, %v; want %d", e, err, i)
		}
	}
	others, stopOthers := follow(0)
	defer stopOthers()
	if e, _, _ := others(); e.Type != lock.Synced {
		m.t.Fatalf("others got %+v; want it synced", e)
	}
	heard := make(chan lock.Event, 1)
	go func() {
		e, _, _ := next()
		heard <- e
	}()
	if answer := ask("please"); !answer.Heard {
		m.t.Error("Ask while somebody listens: not heard")
	}
	if e := <-heard; e.Type != lock.Asked || e.Reason != "please" {
		m.t.Errorf("got %+v", e)
	}
	m.mustUnlock(held.Name)
	if e, _, _ := others(); e.Type != lock.Unlocked {
		m.t.Errorf("others got %+v, want the end alone", e)
	}
	if e, _, _ := next(); e.Type != lock.Unlocked {
		m.t.Errorf("the holder got %+v, want the end", e)
	}
	_, err := m.Ask(m.t.Context(), lock.Caller{}, lock.AskRequest{Name: held.Name, Message: "gone?"})
	wantError(m.t, "Ask of a free lock", err, lock.ErrNotLocked)
	again := m.mustLock(by("alice", "a"))
	_, err = m.Ask(m.t.Context(), lock.Caller{}, lock.AskRequest{Name: held.Name, Message: "still you?", Token: held.Token})
	wantError(m.t, "Ask of another hold", err, lock.ErrNotHolder)
	_, err = m.Ask(m.t.Context(), lock.Caller{}, lock.AskRequest{Name: held.Name, Token: again.Token})
	wantError(m.t, "Ask for nothing", err, lock.ErrInvalidArgument)

	mine, err := m.Lock(m.t.Context(), lock.Caller{Name: "unix:alice"}, by("alice", "b"))
	if err != nil {
		m.t.Fatal(err)
	}
	spy, stopSpy := iter.Pull2(m.Watch(m.t.Context(), lock.Caller{Name: "unix:eve"}, lock.WatchRequest{Pattern: lock.MustParsePattern("b"), After: mine.Lock.Revision, Token: mine.Lock.Token}))
	defer stopSpy()
	if answer, err := m.Ask(m.t.Context(), lock.Caller{}, lock.AskRequest{Name: named("b"), Message: "secret"}); err != nil || answer.Heard {
		m.t.Errorf("Ask: %+v, %v", answer, err)
	}
	if e, _, _ := spy(); e.Type != lock.Synced {
		m.t.Errorf("another caller with the token got %+v", e)
	}
}

func testWatchShared(m *managed) {
	next, stop := iter.Pull2(m.Watch(m.t.Context(), lock.Caller{}, lock.WatchRequest{Pattern: lock.MustParsePattern("conf/app").WithSlots(), After: m.mustLock(by("x", "other")).Revision}))
	defer stop()
	if e, err, _ := next(); e.Type != lock.Synced {
		m.t.Fatalf("got %+v, %v", e, err)
	}
	m.mustLock(by("no", "conf/app2"))
	m.mustLock(by("reader", "conf/app", shared))
	if e, err, _ := next(); e.Type != lock.Locked || e.Lock.Name != named("conf/app/_+1") {
		m.t.Errorf("got %+v, %v; want the shared hold", e, err)
	}
}

// data makes data of a document.
func data(t *testing.T, document map[string]any) lock.Data {
	t.Helper()
	d, err := lock.NewData(document)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
