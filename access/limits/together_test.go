package limits

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

// counts checks how many holds count for callers, and how many all have.
func counts(t *testing.T, l *Limits, when string, all int, want map[string]int) {
	t.Helper()
	time.Sleep(time.Second) // the events are told
	synctest.Wait()
	for _, who := range []lock.Caller{alice, bob, far} {
		k, _ := keyOf(&who)
		c := l.callers.use(k)
		l.holds.mu.Lock()
		got, reserved := c.holds, c.reserved
		l.holds.mu.Unlock()
		c.leave()
		if got != want[k.String()] || reserved != 0 {
			t.Errorf("%s: %s has %d holds and %d reserved, want %d and none", when, k, got, reserved, want[k.String()])
		}
	}
	if got := l.holds.count(); got != all {
		t.Errorf("%s: %d are held, want %d", when, got, all)
	}
}

func names(from, to int) (names []lock.Name) {
	for i := from; i <= to; i++ {
		names = append(names, name(i))
	}
	return names
}

// A set counts each of its holds, all or none, and one wait and one call.
func TestSetCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{MaxHolds: 4, MaxWaits: 1, MaxWaitingBytes: 100})
		first := lock.SetRequest{Names: names(1, 2), Choices: []lock.Choice{{Names: names(3, 9), Count: 1}}, RequestID: "again"}
		set, err := l.LockSet(t.Context(), alice, first)
		if err != nil || len(set.Locks) != 3 {
			t.Fatal(set, err)
		}
		counts(t, l, "a set of three", 3, map[string]int{"unix:alice": 3})
		_, err = l.LockSet(t.Context(), alice, lock.SetRequest{Names: names(10, 11)})
		refusal(t, err, lock.ErrTooManyLocks, "unix:alice holds 3 locks, and with 2 more")
		_, err = l.LockSet(t.Context(), alice, lock.SetRequest{Choices: []lock.Choice{{Names: names(10, 20), Count: 2}}, Wait: time.Hour})
		refusal(t, err, lock.ErrTooManyLocks, "with 2 more")
		mustLock(t, l, alice, lock.LockRequest{Name: name(10)})
		counts(t, l, "at the limit", 4, map[string]int{"unix:alice": 4})
		again, err := l.LockSet(t.Context(), alice, first)
		if err != nil || again.Locks[0].Token != set.Locks[0].Token {
			t.Errorf("the set sent again at the limit: %+v, %v", again, err)
		}
		counts(t, l, "sent again", 4, map[string]int{"unix:alice": 4})
		if got := l.Stats().Refused.Holds; got != 2 {
			t.Errorf("%d refusals are counted, want 2", got)
		}

		// One wait, without an end, for two locks that are held.
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		done := make(chan error, 1)
		go func() {
			_, err := l.LockSet(ctx, bob, lock.SetRequest{Names: names(1, 2), Wait: lock.WaitForever})
			done <- err
		}()
		synctest.Wait()
		if open := l.Stats().Open; open.Waits != 1 || open.Calls != 1 || open.WaitingBytes != len("n/1n/2") {
			t.Errorf("open: %+v, want one wait with the bytes of two names", open)
		}
		_, err = l.Lock(t.Context(), bob, lock.LockRequest{Name: name(1), Wait: lock.WaitForever})
		refusal(t, err, lock.ErrTooManyWaiters, "token:bob")
		_, err = l.LockSet(t.Context(), alice, lock.SetRequest{Names: []lock.Name{lock.MustParseName(strings.Repeat("a", 60)), lock.MustParseName(strings.Repeat("b", 60))}, Wait: time.Hour})
		refusal(t, err, lock.ErrTooManyWaiters, "unix:alice that wait for locks have 0 bytes")

		answers, err := l.UnlockSet(t.Context(), alice, lock.UnlockSetRequest{Set: set.Locks[0].Set.ID})
		if err != nil || len(answers) != 3 {
			t.Fatal(answers, err)
		}
		set, err = l.LockSet(t.Context(), alice, lock.SetRequest{Names: names(11, 13)}) // at once
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		leave()
		if err := <-done; err != nil {
			t.Errorf("the set that waited: %v", err)
		}
		counts(t, l, "released as a set", 6, map[string]int{"unix:alice": 4, "token:bob": 2})
		if open := l.Stats().Open; open.Waits != 0 || open.Calls != 0 || open.WaitingBytes != 0 {
			t.Errorf("open: %+v, want none", open)
		}
	})
}

// Many sets at once are no way around the limit.
func TestSetsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{MaxHolds: 10})
		var requests sync.WaitGroup
		for i := range 100 {
			requests.Go(func() { l.LockSet(t.Context(), far, lock.SetRequest{Names: names(4*i, 4*i+3)}) })
		}
		requests.Wait()
		counts(t, l, "in the end", 8, map[string]int{"anonymous at 192.0.2.1": 8})
	})
}

// Shared holds and trees are holds, and one that is stale counts for who had it until
// somebody ends it.
func TestOtherHoldsCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{MaxHolds: 3})
		mustLock(t, l, alice, lock.LockRequest{Name: name(1), Shared: true, RequestID: "again"})
		mustLock(t, l, alice, lock.LockRequest{Name: name(2), Tree: true})
		mustLock(t, l, alice, lock.LockRequest{Name: name(3), TTL: time.Second, OnExpiry: lock.Keep})
		time.Sleep(time.Minute)
		if stale, err := l.Status(t.Context(), alice, name(3)); err != nil || !stale.Stale() {
			t.Fatalf("not stale: %+v, %v", stale, err)
		}
		counts(t, l, "a slot, a tree and a stale one", 3, map[string]int{"unix:alice": 3})
		for what, request := range map[string]lock.LockRequest{
			"plain": {Name: name(4)}, "shared": {Name: name(1), Shared: true}, "another shared": {Name: name(1), Shared: true, RequestID: "other"},
			"tree": {Name: name(5), Tree: true}, "in place of none": {Name: name(4), ReplaceStale: true, Reason: "looked"},
		} {
			if _, err := l.Lock(t.Context(), alice, request); !errors.Is(err, lock.ErrTooManyLocks) {
				t.Errorf("%s: %v, want %v", what, err, lock.ErrTooManyLocks)
			}
		}
		mustLock(t, l, alice, lock.LockRequest{Name: name(1), Shared: true, RequestID: "again"})
		counts(t, l, "a shared request sent again", 3, map[string]int{"unix:alice": 3})
		mustLock(t, l, alice, lock.LockRequest{Name: name(3), ReplaceStale: true, Reason: "looked", TTL: time.Second, OnExpiry: lock.Keep})
		counts(t, l, "its own stale one replaced", 3, map[string]int{"unix:alice": 3})
		time.Sleep(time.Minute)
		mustLock(t, l, bob, lock.LockRequest{Name: name(3), ReplaceStale: true, Reason: "looked"})
		counts(t, l, "its stale one taken over", 3, map[string]int{"unix:alice": 2, "token:bob": 1})
		mustLock(t, l, alice, lock.LockRequest{Name: name(4)})
	})
}

// A hold that is handed over counts for who has it from then on, who must have room for it.
func TestHandOverCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{MaxHolds: 2})
		hand := func(who lock.Caller, from lock.Lock, to string) (lock.Lock, error) {
			answer, err := l.HandOver(t.Context(), who, lock.HandOverRequest{Name: from.Name, Token: from.Token, Caller: to, Holder: "next", RequestID: "h"})
			return answer.Lock, err
		}
		one := mustLock(t, l, alice, lock.LockRequest{Name: name(1)})
		two := mustLock(t, l, alice, lock.LockRequest{Name: name(2)})
		three, err := hand(alice, two, bob.Name)
		if err != nil {
			t.Fatal(err)
		}
		mustLock(t, l, alice, lock.LockRequest{Name: name(3)}) // at once
		counts(t, l, "to bob", 3, map[string]int{"unix:alice": 2, "token:bob": 1})
		again, err := hand(alice, two, bob.Name)
		if err != nil || again.Token != three.Token {
			t.Errorf("sent again: %+v, %v; want %+v", again, err, three)
		}
		counts(t, l, "sent again", 3, map[string]int{"unix:alice": 2, "token:bob": 1})
		mustLock(t, l, bob, lock.LockRequest{Name: name(4)})
		again, err = hand(alice, two, bob.Name)
		if err != nil || again.Token != three.Token {
			t.Errorf("sent again at the limit: %+v, %v; want %+v", again, err, three)
		}
		_, err = hand(alice, one, bob.Name)
		refusal(t, err, lock.ErrTooManyLocks, "token:bob holds 2 locks")
		if one, err = hand(alice, one, alice.Name); err != nil {
			t.Errorf("to oneself, at the limit: %v", err)
		}
		counts(t, l, "to oneself", 4, map[string]int{"unix:alice": 2, "token:bob": 2})
		if three, err = hand(bob, three, ""); err != nil {
			t.Errorf("to nobody, at the limit: %v", err)
		}
		counts(t, l, "to nobody", 4, map[string]int{"unix:alice": 2, "token:bob": 2})
		if _, err := l.Unlock(t.Context(), bob, lock.UnlockRequest{Name: three.Name, Token: three.Token}); err != nil {
			t.Fatal(err)
		}
		counts(t, l, "released", 3, map[string]int{"unix:alice": 2, "token:bob": 1})
		nobodys := mustLock(t, l, far, lock.LockRequest{Name: name(5)})
		if _, err = hand(alice, nobodys, ""); err != nil { // who has the token may, of a hold that is no caller's
			t.Errorf("to nobody by another: %v", err)
		}
		counts(t, l, "to nobody by another", 4, map[string]int{"unix:alice": 2, "token:bob": 1, "anonymous at 192.0.2.1": 1})
	})
}

// Renewals and releases of sets and hand-overs of what a caller holds have a rate of their
// own, and asking and dismissing have that of other requests.
func TestSetRates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{Rate: 1, Burst: 5})
		set, err := l.LockSet(t.Context(), bob, lock.SetRequest{Names: names(1, 3), TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var holds []lock.HoldRef
		for _, l := range set.Locks {
			holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
		}
		for range 2 {
			if _, err := l.Ask(t.Context(), bob, lock.AskRequest{Name: name(1), Message: "m"}); err != nil {
				t.Fatal(err)
			}
			_, err := l.Dismiss(t.Context(), bob, lock.DismissRequest{Name: name(1), Place: 1, Reason: "r"})
			refusal(t, err, lock.ErrNotLocked, "")
		}
		_, err = l.Ask(t.Context(), bob, lock.AskRequest{Name: name(1), Message: "m"})
		refusal(t, err, lock.ErrRateLimited, "token:bob")
		_, err = l.Dismiss(t.Context(), bob, lock.DismissRequest{Name: name(1), Place: 1, Reason: "r"})
		refusal(t, err, lock.ErrRateLimited, "token:bob")
		_, err = l.RenewSet(t.Context(), bob, lock.RenewSetRequest{Holds: append([]lock.HoldRef{{Name: name(9), Token: 4711}}, holds...)})
		refusal(t, err, lock.ErrRateLimited, "") // not all are what it holds
		_, err = l.UnlockSet(t.Context(), bob, lock.UnlockSetRequest{})
		refusal(t, err, lock.ErrRateLimited, "")
		if _, err := l.RenewSet(t.Context(), bob, lock.RenewSetRequest{Holds: holds}); err != nil {
			t.Errorf("the renewal of a set: %v", err)
		}
		if _, err := l.HandOver(t.Context(), bob, lock.HandOverRequest{Name: holds[0].Name, Token: holds[0].Token, Caller: alice.Name}); err != nil {
			t.Errorf("a hand-over: %v", err)
		}
		if _, err := l.UnlockSet(t.Context(), bob, lock.UnlockSetRequest{Holds: holds[1:]}); err != nil {
			t.Errorf("the release of a set: %v", err)
		}
		counts(t, l, "in the end", 1, map[string]int{"unix:alice": 1})
	})
}

// However sets, hand-overs and events run across each other, in the end nothing is left that
// counts.
func TestNothingIsLeftTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, store := limited(t, Config{Rate: 1e6, MaxCalls: 50, MaxWaits: 20, MaxHolds: 6})
		callers := []lock.Caller{alice, bob, far, farther}
		var work sync.WaitGroup
		for i := range 40 {
			work.Go(func() {
				random := rand.New(rand.NewPCG(2, uint64(i)))
				who := callers[i%4]
				for range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(500))*time.Millisecond)
					request := lock.SetRequest{Names: names(random.IntN(4), 4+random.IntN(3))}
					if random.IntN(2) == 0 {
						request.Wait = time.Second
					}
					grant, err := l.LockSet(ctx, who, request)
					if err != nil {
						cancel()
						expire(t, store, name(random.IntN(7)))
						continue
					}
					held := grant.Locks[random.IntN(len(grant.Locks))]
					switch random.IntN(4) {
					case 0:
						l.HandOver(ctx, who, lock.HandOverRequest{Name: held.Name, Token: held.Token, Caller: callers[random.IntN(2)].Name})
					case 1:
						l.HandOver(ctx, who, lock.HandOverRequest{Name: held.Name, Token: held.Token})
					case 2:
						l.Unlock(ctx, who, lock.UnlockRequest{Name: held.Name, Token: held.Token})
					}
					if random.IntN(2) == 0 {
						l.UnlockSet(ctx, who, lock.UnlockSetRequest{Set: held.Set.ID})
					}
					cancel()
				}
			})
		}
		work.Wait()
		for i := range 7 {
			expire(t, store, name(i))
		}
		time.Sleep(2 * time.Minute) // callers are forgotten
		synctest.Wait()
		if stats := l.Stats(); stats.Open != (Open{}) {
			t.Errorf("%+v, want nothing open", stats)
		}
	})
}
