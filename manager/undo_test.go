package manager_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// A hold whose caller left, and that the store cannot end for now, is ended later, unless
// somebody has it by then.
func TestUndoLater(t *testing.T) {
	for _, reason := range []lock.Reason{lock.ErrReadOnly, lock.ErrLockFile} {
		for _, adopts := range []string{"", "Lock", "Renew"} {
			t.Run(string(reason)+" "+adopts, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := open(t)
					m := manage(t, store)
					ctx, cancel := context.WithCancel(t.Context())
					store.beforeCommit.set(func(change *lock.Change) error {
						if change.Type == lock.Unlocked {
							return reason
						}
						cancel()
						return nil
					})
					request := lock.LockRequest{Name: nameA, Holder: "alice", RequestID: "r1"}
					if _, err := m.Lock(ctx, lock.Caller{}, request); !errors.Is(err, context.Canceled) || !errors.Is(err, reason) {
						t.Fatalf("Lock: %v, want %v and %v", err, context.Canceled, reason)
					}
					held := status(t, m, nameA)
					if !held.Held() {
						t.Fatal("the hold was ended although the store refused that")
					}
					bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: 2 * time.Hour})
					time.Sleep(10 * time.Minute)
					switch adopts {
					case "Lock":
						mustLock(t, m, request)
					case "Renew":
						if _, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token, TTL: 12 * time.Hour}); err != nil {
							t.Fatal(err)
						}
					}
					store.beforeCommit.remove()
					time.Sleep(time.Hour)
					if bob.ended() == (adopts != "") || bob.err != nil {
						t.Errorf("the waiter: ended %t, %v", bob.done.Load(), bob.err)
					}
					want := "bob"
					if adopts != "" {
						want = "alice"
					}
					if got := status(t, m, nameA); got.Holder != want {
						t.Errorf("the lock is held by %q, want %q", got.Holder, want)
					}
				})
			})
		}
	}
}

// So is one of which its waiter could not be told.
func TestGiveBackLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		errGone := errors.New("gone")
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour, Confirm: func(context.Context) error {
			store.beforeCommit.set(func(change *lock.Change) error {
				if change.Type == lock.Unlocked {
					return lock.ErrReadOnly
				}
				return nil
			})
			return errGone
		}})
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"}); err != nil {
			t.Fatal(err)
		}
		if !bob.ended() || !errors.Is(bob.err, errGone) {
			t.Errorf("the waiter who is gone: ended %t, %v", bob.done.Load(), bob.err)
		}
		time.Sleep(time.Minute)
		if got := status(t, m, nameA); got.Holder != "bob" {
			t.Fatalf("the lock is %+v, want it held by bob, for the store ends nothing", got)
		}
		store.beforeCommit.remove()
		time.Sleep(time.Minute)
		if got := status(t, m, nameA); got.Held() {
			t.Errorf("the lock is %+v, want it free", got)
		}
	})
}

// A request that is sent again while the first try to give its grant back has just failed
// has the lock, and keeps it.
func TestGiveBackBesideTheSameRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		var m *manager.Manager
		request := lock.LockRequest{Name: nameA, Holder: "bob", RequestID: "bob's"}
		var again lock.Lock
		m = manageWith(t, store, manager.Config{Logger: slog.New(logged(func(slog.Record) {
			again = mustLock(t, m, request)
		}))})
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		waits := request
		waits.Wait = time.Hour
		waits.Confirm = func(context.Context) error {
			store.beforeCommit.set(func(*lock.Change) error { return lock.ErrReadOnly })
			return errors.New("gone")
		}
		bob := lockSoon(t.Context(), m, waits)
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"}); err != nil {
			t.Fatal(err)
		}
		if !bob.ended() || !errors.Is(bob.err, lock.ErrReadOnly) {
			t.Errorf("the waiter who is gone: ended %t, %v", bob.done.Load(), bob.err)
		}
		store.beforeCommit.remove()
		time.Sleep(time.Minute)
		if got := status(t, m, nameA); !again.Held() || got.Token != again.Token {
			t.Errorf("the lock is %+v, want the hold with token %d that bob was told of", got, again.Token)
		}
	})
}

// logged is a slog.Handler that is a function.
type logged func(slog.Record)

func (f logged) Enabled(context.Context, slog.Level) bool { return true }

func (f logged) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}

func (f logged) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f logged) WithGroup(string) slog.Handler      { return f }
