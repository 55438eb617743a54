package manager_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// hang makes the store stop at the next commit of a change for a holder, or of any change
// where that is empty, until it is let go.
func hang(t *testing.T, store *hookedStore, holder string) (letGo func()) {
	gate := make(chan struct{})
	store.beforeCommit.set(func(change *lock.Change) error {
		if holder == "" || change.Lock.Holder == holder {
			<-gate
		}
		return nil
	})
	letGo = func() {
		store.beforeCommit.remove()
		close(gate)
	}
	return letGo
}

// pendingStore is a store whose commits hang, and are given up when their ctx ends.
type pendingStore struct {
	*hookedStore
	gate chan struct{} // nil: they do not hang
}

func (s *pendingStore) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	if s.gate == nil {
		return s.hookedStore.Commit(ctx, changes, guards...)
	}
	gate, done := s.gate, make(chan struct{})
	var events []lock.Event
	var err error
	go func() {
		defer close(done)
		<-gate
		events, err = s.hookedStore.Commit(ctx, changes, guards...)
	}()
	outcome := func() ([]lock.Event, error) {
		<-done
		return events, err
	}
	select {
	case <-done:
		return outcome()
	case <-ctx.Done():
		return nil, &lock.PendingError{Outcome: outcome, Err: &lock.Error{Reason: lock.ErrOutcomeUnknown, Message: "given up"}}
	}
}

// letGo lets all commits go that hang.
func (s *pendingStore) letGo() {
	gate := s.gate
	s.gate = nil
	close(gate)
	synctest.Wait()
}

// Who asked for a change that a store hangs at is told in time that its outcome is
// unknown. The lock's queue is kept until it is known, and then all is as it should be: a
// grant that nobody was told of is undone, a renewal counts, the next is served.
func TestOutcomeUnknown(t *testing.T) {
	type world struct {
		m     *manager.Manager
		store *pendingStore
		alice lock.Lock // a hold of nameA, not of the tests of Lock
		bob   *pending  // waits for it, likewise
	}
	lockRequest := lock.LockRequest{Name: nameA, Holder: "carol", RequestID: "carol's"}
	tests := []struct {
		name string
		held bool // by alice, with bob in line
		call func(w *world) error
		then func(t *testing.T, w *world) // what the outcome is checked by
	}{
		{"Lock", false, func(w *world) error {
			_, err := w.m.Lock(context.Background(), lock.Caller{}, lockRequest)
			return err
		}, func(t *testing.T, w *world) {
			if l := status(t, w.m, nameA); l.Held() {
				t.Errorf("the lock is %+v, want it free", l)
			}
		}},
		{"Lock again", false, func(w *world) error {
			_, err := w.m.Lock(context.Background(), lock.Caller{}, lockRequest)
			again := lockRequest
			again.Wait = time.Hour
			w.bob = lockSoon(context.Background(), w.m, again)
			return err
		}, func(t *testing.T, w *world) {
			if !w.bob.ended() || w.bob.err != nil || status(t, w.m, nameA).Token != w.bob.grant.Lock.Token {
				t.Errorf("the same request: ended %t, %v; want the lock", w.bob.ended(), w.bob.err)
			}
		}},
		{"Unlock", true, func(w *world) error {
			_, err := w.m.Unlock(context.Background(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: w.alice.Token})
			return err
		}, func(t *testing.T, w *world) {
			if !w.bob.ended() || w.bob.err != nil || status(t, w.m, nameA).Token != w.bob.grant.Lock.Token {
				t.Errorf("the next in line: ended %t, %v; want the lock", w.bob.ended(), w.bob.err)
			}
		}},
		{"Renew", true, func(w *world) error {
			_, err := w.m.Renew(context.Background(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: w.alice.Token, TTL: 2 * time.Hour})
			return err
		}, func(t *testing.T, w *world) {
			time.Sleep(time.Hour + 50*time.Minute)
			if l := status(t, w.m, nameA); l.Token != w.alice.Token {
				t.Errorf("after 1 h 50 min the lock is %+v, want alice's hold", l)
			}
			time.Sleep(15 * time.Minute)
			if l := status(t, w.m, nameA); l.Holder != "bob" {
				t.Errorf("after 2 h 5 min the lock is %+v, want bob's hold", l)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{store: &pendingStore{hookedStore: open(t)}}
				w.m = manage(t, w.store)
				if test.held {
					w.alice = mustLock(t, w.m, lock.LockRequest{Name: nameA, Holder: "alice", TTL: time.Hour})
					w.bob = lockSoon(t.Context(), w.m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: 24 * time.Hour})
				}
				w.store.gate = make(chan struct{})
				began := time.Now()
				if err := test.call(w); !errors.Is(err, lock.ErrOutcomeUnknown) {
					t.Errorf("got error %v, want %v", err, lock.ErrOutcomeUnknown)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %v", took)
				}
				if w.bob != nil && w.bob.ended() {
					t.Errorf("who waits was answered: %v", w.bob.err)
				}
				if test.name != "Lock again" { // which would be sent away too
					if _, err := w.m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "dora"}); !errors.Is(err, lock.ErrReadOnly) {
						t.Errorf("the next request: %v, want %v", err, lock.ErrReadOnly)
					}
				}
				w.store.letGo()
				test.then(t, w)
				if left := whatIsLeft(t, w.m, w.store.Store); left != "" {
					t.Error(left)
				}
			})
		})
	}
}

// A waiter whose grant the store refuses keeps the place, although the store then hangs at
// the end of the hold alone.
func TestRefusedThenHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &pendingStore{hookedStore: open(t)}
		m := manage(t, store)
		alice := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		store.beforeCommit.set(func(change *lock.Change) error {
			if change.Type != lock.Locked {
				return nil
			}
			store.beforeCommit.remove()
			store.gate = make(chan struct{})
			return lock.ErrReadOnly
		})
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: alice.Token}); !errors.Is(err, lock.ErrOutcomeUnknown) {
			t.Errorf("Unlock: %v, want %v", err, lock.ErrOutcomeUnknown)
		}
		store.letGo()
		if !bob.ended() || bob.err != nil {
			t.Errorf("the waiter: ended %t, %v; want the lock", bob.ended(), bob.err)
		}
	})
}

// So does one whose grant was to be made along with the end of a hold, which hangs and is
// then refused, for the sake of that end maybe.
func TestHangingThenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &pendingStore{hookedStore: open(t)}
		m := manage(t, store)
		alice := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		store.gate = make(chan struct{})
		unlock := func() error {
			_, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: alice.Token})
			return err
		}
		if err := unlock(); !errors.Is(err, lock.ErrOutcomeUnknown) {
			t.Errorf("Unlock: %v, want %v", err, lock.ErrOutcomeUnknown)
		}
		store.beforeCommit.set(func(*lock.Change) error { return lock.ErrLockFile })
		store.letGo()
		store.beforeCommit.remove()
		if bob.ended() {
			t.Fatalf("the waiter: %v; want it in line", bob.err)
		}
		if err := unlock(); err != nil || !bob.ended() || bob.err != nil {
			t.Errorf("Unlock: %v, and the waiter: ended %t, %v; want the lock", err, bob.ended(), bob.err)
		}
	})
}

// A grant of which nobody was told is undone in the end, although the store hangs at that
// and then does not do it.
func TestUndoHangs(t *testing.T) {
	for _, waits := range []time.Duration{0, time.Hour} {
		t.Run(waits.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &pendingStore{hookedStore: open(t)}
				m := manage(t, store)
				ctx, cancel := context.WithCancel(t.Context())
				hang := func() {
					cancel()
					store.gate = make(chan struct{})
				}
				request := lock.LockRequest{Name: nameA, Holder: "bob", Wait: waits}
				if waits > 0 {
					mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
					request.Confirm = func(ctx context.Context) error {
						hang()
						return ctx.Err()
					}
				} else {
					store.beforeCommit.set(func(*lock.Change) error {
						hang()
						return nil
					})
				}
				bob := lockSoon(ctx, m, request)
				if waits > 0 {
					if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				if !bob.ended() || !errors.Is(bob.err, lock.ErrOutcomeUnknown) {
					t.Errorf("bob: ended %t, %v, want %v", bob.ended(), bob.err, lock.ErrOutcomeUnknown)
				}
				store.beforeCommit.set(func(*lock.Change) error { return lock.ErrReadOnly })
				store.letGo()
				store.beforeCommit.remove()
				time.Sleep(time.Minute)
				if got := status(t, m, nameA); got.Held() {
					t.Errorf("the lock is %+v, want it free", got)
				}
			})
		})
	}
}

// Requests behind one that a hanging store keeps are told so in time, nothing of them
// comes about later, other locks' requests do not notice, and all goes on when the store
// does.
func TestBehindAHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		letGo := hang(t, store, "alice")
		alice := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "alice"})
		behind := map[string]func() error{
			"Lock": func() error {
				_, err := m.Lock(context.Background(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "bob", Wait: 24 * time.Hour})
				return err
			},
			"Unlock": func() error {
				_, err := m.Unlock(context.Background(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Force: true, Reason: "it hangs"})
				return err
			},
			"Renew": func() error {
				_, err := m.Renew(context.Background(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: 1, TTL: time.Hour})
				return err
			},
		}
		for name, call := range behind {
			began := time.Now()
			if err := call(); !errors.Is(err, lock.ErrReadOnly) {
				t.Errorf("%s: %v, want %v", name, err, lock.ErrReadOnly)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("%s took %v", name, took)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Lock(ctx, lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "bob"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock with a deadline: %v, want %v", err, context.DeadlineExceeded)
		}
		mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("b")})
		if got := status(t, m, nameA); got.Held() {
			t.Errorf("the lock is %+v, want it free", got)
		}
		letGo()
		if !alice.ended() || alice.err != nil {
			t.Errorf("who was there first: ended %t, %v; want the lock", alice.done.Load(), alice.err)
		}
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: alice.grant.Lock.Token}); err != nil {
			t.Errorf("Unlock: %v", err)
		}
		if !bob.ended() || bob.err != nil {
			t.Errorf("the next: ended %t, %v; want the lock", bob.done.Load(), bob.err)
		}
	})
}

// A queue that moves sends nobody away, however long it is.
func TestSlowStoreIsNoHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		store.beforeCommit.set(func(*lock.Change) error {
			time.Sleep(20 * time.Second)
			return nil
		})
		hold := lock.LockRequest{Name: nameA, Overwrite: true}
		var all []*pending
		for range 20 {
			all = append(all, lockSoon(t.Context(), m, hold))
		}
		time.Sleep(time.Hour)
		for i, p := range all {
			if !p.ended() || p.err != nil {
				t.Errorf("request %d: ended %t, %v", i, p.done.Load(), p.err)
			}
		}
	})
}

// A waiter whose wait ends while a hanging store grants it the lock does not stay for
// ever, and does not have the lock in the end.
func TestWaitEndsInAHangingStore(t *testing.T) {
	for _, ends := range []string{"wait", "cancel"} {
		t.Run(ends, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := open(t)
				m := manage(t, store)
				mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				bob := lockSoon(ctx, m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
				carol := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "carol", Wait: 24 * time.Hour})
				letGo := hang(t, store, "bob")
				var unlocked error
				go func() {
					_, unlocked = m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"})
				}()
				synctest.Wait()
				if ends == "cancel" {
					cancel()
				} else {
					time.Sleep(time.Hour)
				}
				time.Sleep(10 * time.Second)
				if !bob.ended() || !errors.Is(bob.err, lock.ErrOutcomeUnknown) {
					t.Errorf("the waiter: ended %t, %v; want %v", bob.done.Load(), bob.err, lock.ErrOutcomeUnknown)
				}
				if carol.ended() {
					t.Errorf("the next waiter: %v; want it in line", carol.err)
				}
				letGo()
				if !carol.ended() || carol.err != nil || unlocked != nil {
					t.Errorf("the next waiter: ended %t, %v, and the holder before: %v; want the lock", carol.done.Load(), carol.err, unlocked)
				}
			})
		})
	}
}

// Close waits for a hand-over that is under way, and no longer than a store may hang;
// none begins afterwards.
func TestCloseWaitsForHandOvers(t *testing.T) {
	for _, answers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := open(t)
			m := manage(t, store)
			mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
			bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
			letGo := hang(t, store, "bob")
			store.others(t, lock.Unlocked)
			synctest.Wait() // until the hand-over has come to the store
			closed := make(chan struct{})
			go func() {
				m.Close()
				close(closed)
			}()
			synctest.Wait()
			select {
			case <-closed:
				t.Error("Close has not waited for the hand-over")
			default:
			}
			if answers {
				letGo()
			} else {
				defer letGo()
				time.Sleep(5 * time.Second)
			}
			synctest.Wait()
			select {
			case <-closed:
			default:
				t.Fatal("Close waits still")
			}
			if answers && (!bob.ended() || bob.err != nil) {
				t.Errorf("who was being granted the lock: ended %t, %v; want the lock", bob.done.Load(), bob.err)
			}
		})
	}
}
