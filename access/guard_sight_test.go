package access_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

// root is a caller of whose holds and requests the tests look for traces.
var root = lock.Caller{Name: "unix:root"}

// textOf returns all texts in an answer, however deep.
func textOf(answer any) string {
	var b strings.Builder
	seen := make(map[uintptr]bool)
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() && !seen[v.Pointer()] {
				seen[v.Pointer()] = true
				walk(v.Elem())
			}
		case reflect.Interface:
			walk(v.Elem())
		case reflect.Struct:
			for _, field := range v.Fields() {
				walk(field)
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.String:
			b.WriteString(v.String() + "\n")
		}
	}
	if err, isError := answer.(error); isError {
		b.WriteString(err.Error() + "\n")
	}
	walk(reflect.ValueOf(answer))
	return b.String()
}

// secretly are data and a holder that no answer may have.
func secretly(t *testing.T) lock.LockRequest {
	t.Helper()
	data, err := lock.NewData(map[string]any{"msg": "q7data"})
	if err != nil {
		t.Fatal(err)
	}
	return lock.LockRequest{Holder: "q7holder", Data: data, Reason: "q7reason"}
}

// TestGuardHides: of trees, sets and waiters that stand in the way or around, and that the
// caller may not view, no answer and no refusal has more than that there is something.
func TestGuardHides(t *testing.T) {
	name, pattern := lock.MustParseName, lock.MustParsePattern
	for what, test := range map[string]struct {
		stand  func(g *guarded, r lock.LockRequest) // has something stand in the way of a/x
		about  lock.ObstacleKind                    // what Status of a/x then tells of
		hidden bool                                 // by the rules that let ci lock a/**
	}{
		"a tree": {func(g *guarded, r lock.LockRequest) { r.Name, r.Tree = name("a"), true; g.lock(r) }, lock.ByTree, true},
		"of all": {func(g *guarded, r lock.LockRequest) { r.Name, r.Tree = name("_all"), true; g.lock(r) }, lock.ByTree, true},
		"seen": {func(g *guarded, r lock.LockRequest) {
			r.Name, r.Tree = name("a/x"), true
			r.Tree = false
			r.Shared = true
			g.lock(r)
		}, lock.ByShared, false},
		"a drain": {func(g *guarded, r lock.LockRequest) {
			if _, err := g.inner.Lock(g.t.Context(), lock.Caller{Name: "unix:other"}, lock.LockRequest{Name: name("a/busy")}); err != nil {
				g.t.Fatal(err)
			}
			r.Name, r.Tree, r.Drain, r.Wait = name("a"), true, true, time.Hour
			g.later(r)
		}, lock.ByWaiter, true},
		"a set": {func(g *guarded, r lock.LockRequest) {
			g.take("q7hidden/y")
			g.laterSet(lock.SetRequest{Names: []lock.Name{name("a/x"), name("q7hidden/y")}, Holder: "seen", Wait: time.Hour})
		}, lock.ByWaiter, false},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, "  - {who: [\"*\"], may: [lock, break], locks: [\"a/**\"]}\n", nil)
				ctx, ci := g.ci()
				test.stand(g, secretly(t))
				x := name("a/x")
				answers := map[string]any{}
				status, err := g.Status(ctx, ci, x)
				if err != nil || status.Situation == nil || status.Situation.BlockedBy == nil || status.Situation.BlockedBy.Kind != test.about {
					t.Fatalf("status: %+v, %v; want an obstacle of the kind %v", status, err, test.about)
				}
				if by := status.Situation.BlockedBy; test.about == lock.ByTree && (!by.Hidden || !by.Lock.Name.IsZero()) {
					t.Errorf("the obstacle is %+v, want it hidden", by)
				}
				if by := status.Situation.BlockedBy; test.about == lock.ByWaiter && by.Waiter.Place == 0 {
					t.Errorf("the obstacle %+v has no place", by)
				}
				answers["status"] = status
				list, _, _, err := g.List(ctx, ci, pattern("**"), lock.Name{}, 100)
				answers["list"], answers["list's"] = list, err
				requests := map[string]lock.LockRequest{
					"lock":      {Name: x},
					"wait":      {Name: x, Wait: time.Second},
					"overwrite": {Name: x, Overwrite: true, Holder: "q7"},
					"manual":    {Name: x, Wait: time.Second, RefuseManual: true},
				}
				for what, request := range requests {
					_, err := g.Lock(ctx, ci, request)
					refused, ok := errors.AsType[*lock.Error](err)
					if !ok || refused.Reason != lock.ErrLockHeld {
						t.Fatalf("%s: %v, want %v", what, err, lock.ErrLockHeld)
					}
					if test.hidden && !strings.HasPrefix(err.Error(), "a/x cannot be had for now: ") {
						t.Errorf("%s: %v, want that it says which lock is meant", what, err)
					}
					if test.hidden && refused.Lock != nil && refused.Lock.Name != x {
						t.Errorf("%s: the detail is %v", what, refused.Lock.Name)
					}
					if !test.hidden && strings.Contains(err.Error(), "may not view") {
						t.Errorf("%s: %v, but it may be viewed", what, err)
					}
					answers[what] = err
				}
				_, err = g.LockSet(ctx, ci, lock.SetRequest{Names: []lock.Name{x, name("a/z")}})
				answers["set"] = err
				_, err = g.Ask(ctx, ci, lock.AskRequest{Name: x, Message: "m"})
				answers["ask"] = err
				for what, answer := range answers {
					text := textOf(answer)
					for _, secret := range []string{"q7data", "q7holder", "q7reason", "q7hidden", "unix:root"} {
						if test.hidden || secret == "q7hidden" {
							if strings.Contains(text, secret) {
								t.Errorf("%s has %q: %s", what, secret, text)
							}
						}
					}
				}
				// Who may view all has it all.
				g.change("  - {who: [\"*\"], may: [lock], locks: [\"**\"]}\n")
				ctx, ci = g.ci()
				if _, err := g.Lock(ctx, ci, lock.LockRequest{Name: x}); !errors.Is(err, lock.ErrLockHeld) || strings.Contains(err.Error(), "may not view") || test.hidden && !strings.Contains(textOf(err), "q7holder") {
					t.Errorf("who may view all is told %v", err)
				}
			})
		})
	}
}

// TestGuardHidesAround: what is shown around a lock that is held has nothing of hidden ones.
func TestGuardHidesAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := lock.MustParseName
		g := newGuarded(t, "  - {who: [\"*\"], may: [lock, break], locks: [\"a/**\"]}\n", nil)
		ctx, ci := g.ci()
		held, err := g.Lock(ctx, ci, lock.LockRequest{Name: name("a/x"), TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		g.laterSet(lock.SetRequest{Names: []lock.Name{name("a/x"), name("a/y"), name("q7hidden/y")}, Holder: "seen", Wait: time.Hour})
		through := secretly(t)
		through.Name, through.Tree = name("a"), true
		g.lock(through)
		hand := lock.LockRequest{Name: name("a/hand"), ThroughFreeze: true, Reason: "public", Holder: "seen"}
		g.lock(hand)
		check := func(what string, l lock.Lock, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			text := textOf(l)
			for _, secret := range []string{"q7data", "q7holder", "q7reason", "q7hidden"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s has %q: %s", what, secret, text)
				}
			}
		}
		status, err := g.Status(ctx, ci, name("a/x"))
		check("status", status, err)
		if waiting := status.Situation.Waiting; len(waiting) != 1 || fmt.Sprint(waiting[0].Names) != "[a/x a/y]" || waiting[0].Holder != "seen" {
			t.Errorf("those who wait are %+v, want one with the names that may be viewed", waiting)
		}
		status, err = g.Status(ctx, ci, name("a/hand"))
		check("status of what went through", status, err)
		if status.Situation == nil || status.Situation.Conflict == "" {
			t.Errorf("its conflict is not shown: %+v", status.Situation)
		}
		renewed, err := g.Renew(ctx, ci, lock.RenewRequest{Name: name("a/x"), Token: held.Lock.Token})
		check("renew", renewed, err)
		answers, err := g.RenewSet(ctx, ci, lock.RenewSetRequest{Holds: []lock.HoldRef{{Name: name("a/x"), Token: held.Lock.Token}}})
		if err != nil || len(answers) != 1 {
			t.Fatal(answers, err)
		}
		check("renew as a set", answers[0].Lock, answers[0].Err)
		asked, err := g.Ask(ctx, ci, lock.AskRequest{Name: name("a/x"), Message: "m"})
		check("ask", asked.Lock, err)
		waiter, err := g.Dismiss(ctx, ci, lock.DismissRequest{Name: name("a/x"), Place: status0(g, "a/x"), Reason: "r"})
		check("dismiss", lock.Lock{Situation: &lock.Situation{Waiting: []lock.Waiter{waiter}}}, err)
		release, err := g.Unlock(ctx, ci, lock.UnlockRequest{Name: name("a/x"), Token: held.Lock.Token})
		check("unlock", release.Lock, err)
	})
}

// status0 is the place of the first who waits for a lock.
func status0(g *guarded, name string) uint64 {
	g.t.Helper()
	l := g.status(lock.MustParseName(name))
	if l.Situation == nil || len(l.Situation.Waiting) == 0 {
		g.t.Fatalf("nobody waits for %s", name)
	}
	return l.Situation.Waiting[0].Place
}

// TestGuardShared: shared holds are judged as the lock that they are of.
func TestGuardShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [\"*\"], may: [lock], locks: [\"conf/app\", \"only/*\"]}\n", nil)
		ctx, ci := g.ci()
		name, pattern := lock.MustParseName, lock.MustParsePattern
		slot, other := name("conf/app/_+1"), name("only/_+1") // of only, which ci may not lock
		grant, err := g.Lock(ctx, ci, lock.LockRequest{Name: name("conf/app"), Shared: true, TTL: time.Hour})
		if err != nil || grant.Lock.Name != slot {
			t.Fatalf("a shared hold: %+v, %v", grant, err)
		}
		g.lock(lock.LockRequest{Name: name("only"), Shared: true})
		if l, err := g.Status(ctx, ci, slot); err != nil || !l.Held() {
			t.Errorf("status: %+v, %v", l, err)
		}
		if _, err := g.Renew(ctx, ci, lock.RenewRequest{Name: slot, Token: grant.Lock.Token}); err != nil {
			t.Errorf("renew: %v", err)
		}
		if _, err := g.Status(ctx, ci, other); !errors.Is(err, lock.ErrPermissionDenied) {
			t.Errorf("status of another's slot: %v", err)
		}
		if _, err := g.Unlock(ctx, ci, lock.UnlockRequest{Name: other, Token: 2}); !errors.Is(err, lock.ErrPermissionDenied) {
			t.Errorf("unlock of another's slot: %v", err)
		}
		names := func(page []lock.Lock) (names []string) {
			for _, l := range page {
				names = append(names, l.Name.String())
			}
			return names
		}
		page, _, _, err := g.List(ctx, ci, pattern("**"), lock.Name{}, 100)
		if err != nil || strings.Join(names(page), " ") != "conf/app/_+1" {
			t.Errorf("list: %q, %v", names(page), err)
		}
		past, err := g.History(ctx, ci, lock.HistoryQuery{}, 0, 100)
		if err != nil || len(past.Events) != 1 || past.Events[0].Lock.Name != slot {
			t.Errorf("history: %+v, %v", past, err)
		}
		for what, p := range map[string]lock.Pattern{"all": {}, "the lock and its slots": pattern("conf/app").WithSlots(), "the slot": pattern("conf/app/_+1")} {
			var told []string
			for e, err := range g.Watch(ctx, ci, lock.WatchRequest{Pattern: p}) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Type == lock.Synced {
					break
				}
				if e.Type == lock.Locked {
					told = append(told, e.Lock.Name.String())
				}
			}
			if strings.Join(told, " ") != "conf/app/_+1" {
				t.Errorf("watch of %s: %q", what, told)
			}
		}
		for _, err := range g.Watch(ctx, ci, lock.WatchRequest{Pattern: pattern("only").WithSlots()}) {
			if !errors.Is(err, lock.ErrPermissionDenied) {
				t.Errorf("watch of another and its slots: %v", err)
			}
			break
		}
	})
}

// TestGuardUnlockSetByID: who knows the number of a set ends of it what it may, and learns
// nothing of what it may not view.
func TestGuardUnlockSetByID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [\"*\"], may: [lock], locks: [\"**\"]}\n", nil)
		ctx, ci := g.ci()
		name := lock.MustParseName
		set := func(ctx context.Context, l lock.Locks, c lock.Caller, names ...string) lock.Token {
			var r lock.SetRequest
			for _, n := range names {
				r.Names = append(r.Names, name(n))
			}
			grant, err := l.LockSet(ctx, c, r)
			if err != nil {
				t.Fatal(err)
			}
			return grant.Locks[0].Set.ID
		}
		id := set(ctx, g, ci, "a/mine", "a/seen", "q7hidden/mine")
		gone := set(ctx, g, ci, "q7hidden/1", "q7hidden/2")
		others := set(t.Context(), g.inner, root, "a/others", "q7hidden/others")
		g.change("  - {who: [\"*\"], may: [lock], locks: [\"a/mine\", \"a/others\"]}\n  - {who: [\"*\"], may: [view], locks: [\"a/**\"]}\n")
		ctx, ci = g.ci()

		answers, err := g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Set: id})
		if err != nil || len(answers) != 2 || answers[0].Name != name("a/mine") || answers[0].Err != nil || answers[1].Name != name("a/seen") || !errors.Is(answers[1].Err, lock.ErrPermissionDenied) {
			t.Errorf("a set of which it may end one: %+v, %v", answers, err)
		}
		if text := textOf(answers); strings.Contains(text, "q7") {
			t.Errorf("the answers tell of what is hidden: %s", text)
		}
		if g.status(name("a/mine")).Held() || !g.status(name("a/seen")).Held() || !g.status(name("q7hidden/mine")).Held() {
			t.Error("not just a/mine has been ended")
		}
		answers, err = g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Set: others})
		if err != nil || len(answers) != 1 || !errors.Is(answers[0].Err, lock.ErrNotHolder) {
			t.Errorf("another's set: %+v, %v", answers, err)
		}
		_, err = g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Set: gone})
		_, never := g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Set: 4711})
		if !errors.Is(err, lock.ErrNotLocked) || never == nil || strings.ReplaceAll(err.Error(), fmt.Sprint(gone), "ID") != strings.ReplaceAll(never.Error(), "4711", "ID") {
			t.Errorf("a hidden set is told from none: %v, %v", err, never)
		}
		if !g.status(name("q7hidden/1")).Held() || !g.status(name("a/others")).Held() {
			t.Error("a hold that may not be touched has been ended")
		}
	})
}

// lock takes a lock past the guard, as root.
func (g *guarded) lock(r lock.LockRequest) lock.Lock {
	g.t.Helper()
	grant, err := g.inner.Lock(g.t.Context(), root, r)
	if err != nil {
		g.t.Fatal(err)
	}
	return grant.Lock
}

// later has root stand in line for a lock, in a bubble.
func (g *guarded) later(r lock.LockRequest) {
	go g.inner.Lock(g.t.Context(), root, r)
	synctest.Wait()
}

// laterSet has root stand in line for a set, in a bubble.
func (g *guarded) laterSet(r lock.SetRequest) {
	go g.inner.LockSet(g.t.Context(), root, r)
	synctest.Wait()
}
