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

// A store that panics under a request, which the service survives, keeps nobody else
// from the lock.
func TestStorePanics(t *testing.T) {
	tests := []struct {
		name string
		call func(ctx context.Context, m *manager.Manager, token lock.Token) error
	}{
		{"Lock", func(ctx context.Context, m *manager.Manager, token lock.Token) error {
			_, err := m.Lock(ctx, lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "alice", Overwrite: true})
			return err
		}},
		{"Renew", func(ctx context.Context, m *manager.Manager, token lock.Token) error {
			_, err := m.Renew(ctx, lock.Caller{}, lock.RenewRequest{Name: nameA, Token: token, TTL: time.Hour})
			return err
		}},
		{"Unlock", func(ctx context.Context, m *manager.Manager, token lock.Token) error {
			_, err := m.Unlock(ctx, lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: token})
			return err
		}},
	}
	for _, test := range tests {
		for _, method := range []string{"Get", "Commit"} {
			t.Run(test.name+" in "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := open(t)
					m := manage(t, store)
					held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
					if method == "Get" {
						store.afterGet.set(func() { panic(t.Name()) })
					} else {
						store.beforeCommit.set(func(*lock.Change) error { panic(t.Name()) })
					}
					mustPanic(t, func() error { return test.call(t.Context(), m, held.Token) })
					store.afterGet.remove()
					store.beforeCommit.remove()
					if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
						t.Errorf("Unlock: %v", err)
					}
					mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "bob"})
				})
			})
		}
	}
}

// A waiter who was being granted the lock by another's request when the store
// panicked keeps the place in line.
func TestStorePanicsForWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		gate := make(chan struct{})
		defer close(gate)
		store.beforeEvents.set(func() error { <-gate; return nil }) // requests alone hand over
		m := manage(t, store)
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		store.others(t, lock.Unlocked)
		store.beforeCommit.set(func(*lock.Change) error { panic(t.Name()) })
		carol := lock.LockRequest{Name: nameA, Holder: "carol"}
		mustPanic(t, func() error {
			_, err := m.Lock(t.Context(), lock.Caller{}, carol)
			return err
		})
		store.beforeCommit.remove()
		if _, err := m.Lock(t.Context(), lock.Caller{}, carol); !errors.Is(err, lock.ErrLockHeld) {
			t.Errorf("a later request: got error %v, want %v, for the waiter comes first", err, lock.ErrLockHeld)
		}
		if !bob.ended() || bob.err != nil {
			t.Errorf("the waiter: ended %t, error %v; want the lock", bob.ended(), bob.err)
		}
	})
}

// A waiter who was being granted the lock along with its release when the store
// panicked keeps the place in line.
func TestStorePanicsDuringHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		store.beforeCommit.set(func(*lock.Change) error { panic(t.Name()) })
		unlock := func() error {
			_, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token})
			return err
		}
		mustPanic(t, unlock)
		store.beforeCommit.remove()
		if bob.ended() {
			t.Fatalf("the waiter: %v; want it in line", bob.err)
		}
		if err := unlock(); err != nil {
			t.Errorf("Unlock: %v", err)
		}
		if !bob.ended() || bob.err != nil {
			t.Errorf("the waiter: ended %t, error %v; want the lock", bob.ended(), bob.err)
		}
	})
}

// mustPanic calls f as the service calls the Manager.
func mustPanic(t *testing.T, f func() error) {
	t.Helper()
	defer func() {
		t.Helper()
		if recover() == nil {
			t.Error("the store's panic did not come through")
		}
	}()
	if err := f(); err != nil {
		t.Error(err)
	}
}
