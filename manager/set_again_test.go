package manager_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

// A set that is asked for again, with the same request id, while it is being granted is the
// same set: the second sending neither waits for its own holds nor finds only some of them.
func TestSetAgainAtItsGrant(t *testing.T) {
	m := manage(t, open(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	names := []lock.Name{lock.MustParseName("set/a"), lock.MustParseName("set/b"), lock.MustParseName("set/c")}
	for round := range 1000 {
		before := mustLock(t, m, lock.LockRequest{Name: names[round%3], Holder: "alice"})
		request := lock.SetRequest{Names: names, Holder: "bob", RequestID: fmt.Sprint("r", round), Wait: lock.WaitForever}
		var sendings sync.WaitGroup
		var grants [3]lock.SetGrant
		send := func(i int) {
			sendings.Go(func() {
				var err error
				if grants[i], err = m.LockSet(ctx, lock.Caller{}, request); err != nil {
					t.Errorf("round %d, sending %d: %v", round, i, err)
				}
			})
		}
		send(0)
		sendings.Go(func() {
			if _, err := m.Unlock(ctx, lock.Caller{}, lock.UnlockRequest{Name: before.Name, Token: before.Token}); err != nil {
				t.Error(err)
			}
		})
		send(1)
		send(2)
		sendings.Wait()
		if t.Failed() {
			return
		}
		var holds []lock.HoldRef
		for i, l := range grants[0].Locks {
			holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
			if l.Token != grants[1].Locks[i].Token || l.Token != grants[2].Locks[i].Token {
				t.Fatalf("round %d: the sendings of one request have different holds of %v", round, l.Name)
			}
		}
		if _, err := m.UnlockSet(ctx, lock.Caller{}, lock.UnlockSetRequest{Holds: holds}); err != nil {
			t.Fatal(err)
		}
	}
}

// A set whose caller left while it was being granted is given back. If it is asked for again
// just then, what the second sending gets are holds that stand.
func TestSetAgainAtItsUndoing(t *testing.T) {
	for _, at := range []string{"set/a", "set/b", "set/c"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := open(t)
				m := manage(t, store)
				names := []lock.Name{lock.MustParseName("set/a"), lock.MustParseName("set/b"), lock.MustParseName("set/c")}
				request := lock.SetRequest{Names: names, Holder: "bob", RequestID: "bob's", Wait: time.Hour}
				ctx, leave := context.WithCancel(t.Context())
				var again lock.SetGrant
				var againErr error
				done := make(chan struct{})
				store.beforeCommit.set(func(change *lock.Change) error {
					switch {
					case change.Type == lock.Locked:
						leave()
					case change.Lock.Name.String() == at:
						store.beforeCommit.remove()
						go func() {
							again, againErr = m.LockSet(t.Context(), lock.Caller{}, request)
							close(done)
						}()
						synctest.Wait()
					}
					return nil
				})
				if _, err := m.LockSet(ctx, lock.Caller{}, request); !errors.Is(err, context.Canceled) {
					t.Fatalf("the first sending: %v, want %v", err, context.Canceled)
				}
				<-done
				if againErr != nil {
					t.Fatalf("the second sending: %v", againErr)
				}
				synctest.Wait()
				for _, l := range again.Locks {
					if got := status(t, m, l.Name); got.Token != l.Token {
						t.Errorf("%v was granted with token %d and has token %d", l.Name, l.Token, got.Token)
					}
				}
			})
		})
	}
}

// A set of which its caller could not be told, and of which the store could not end all
// holds, is asked for again: it is granted anew.
func TestSetAgainHalfGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		names := []lock.Name{lock.MustParseName("set/a"), lock.MustParseName("set/b"), lock.MustParseName("set/c")}
		request := lock.SetRequest{Names: names, Holder: "bob", RequestID: "bob's", Wait: time.Hour}
		errGone := errors.New("gone")
		request.Confirm = func(context.Context) error {
			store.beforeCommit.set(func(change *lock.Change) error {
				if change.Type == lock.Unlocked && change.Lock.Name != names[0] {
					return lock.ErrReadOnly
				}
				return nil
			})
			return errGone
		}
		if _, err := m.LockSet(t.Context(), lock.Caller{}, request); !errors.Is(err, errGone) {
			t.Fatalf("the first sending: %v, want %v", err, errGone)
		}
		request.Confirm = nil
		time.Sleep(time.Second) // until each has been tried to be ended by itself
		if _, err := m.LockSet(t.Context(), lock.Caller{}, request); !errors.Is(err, lock.ErrReadOnly) {
			t.Errorf("while the store cannot end what is left: %v, want %v", err, lock.ErrReadOnly)
		}
		store.beforeCommit.remove()
		grant, err := m.LockSet(t.Context(), lock.Caller{}, request)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		for _, l := range grant.Locks {
			if got := status(t, m, l.Name); got.Token != l.Token {
				t.Errorf("%v was granted with token %d and has token %d", l.Name, l.Token, got.Token)
			}
		}
	})
}

// A set that is sent again without a wait while an earlier sending is in line is told at once
// what is in the way. The earlier sending keeps its place, also for those that have a wait.
func TestSetAgainWithoutWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		nameB := lock.MustParseName("b")
		alice := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		request := lock.SetRequest{Names: []lock.Name{nameA, nameB}, Holder: "bob", RequestID: "bob's", Wait: time.Hour}
		first := lockSetSoon(t.Context(), m, request)
		request.Wait = 0
		began := time.Now()
		if _, err := m.LockSet(t.Context(), lock.Caller{}, request); !errors.Is(err, lock.ErrLockHeld) {
			t.Errorf("without a wait: %v, want %v", err, lock.ErrLockHeld)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v to say so", took)
		}
		request.Wait = time.Hour
		third := lockSetSoon(t.Context(), m, request)
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: alice.Token}); err != nil {
			t.Error(err)
		}
		if !first.ended() || first.err != nil || !third.ended() || third.err != nil {
			t.Fatalf("those who wait: ended %t, %v and %t, %v; want the set", first.ended(), first.err, third.ended(), third.err)
		}
		if first.grant.Locks[0].Token != third.grant.Locks[0].Token {
			t.Errorf("the sendings have different holds: %v and %v", first.grant.Locks, third.grant.Locks)
		}
	})
}
