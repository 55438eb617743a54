package manager_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// onceRequests ask for one or more locks without a wait, each in a way of its own.
var onceRequests = map[string]func(t *testing.T, m *manager.Manager, holder string, wait time.Duration) error{
	"lock": func(t *testing.T, m *manager.Manager, holder string, wait time.Duration) error {
		_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: holder, Wait: wait})
		return err
	},
	"shared": func(t *testing.T, m *manager.Manager, holder string, wait time.Duration) error {
		_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: holder, Shared: true, Wait: wait})
		return err
	},
	"tree": func(t *testing.T, m *manager.Manager, holder string, wait time.Duration) error {
		_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: holder, Tree: true, Wait: wait})
		return err
	},
	"set": func(t *testing.T, m *manager.Manager, holder string, wait time.Duration) error {
		_, err := m.LockSet(t.Context(), lock.Caller{}, lock.SetRequest{Names: []lock.Name{nameA, lock.MustParseName("lb/b")}, Holder: holder, Wait: wait})
		return err
	},
	"pool": func(t *testing.T, m *manager.Manager, holder string, wait time.Duration) error {
		_, err := m.LockSet(t.Context(), lock.Caller{}, lock.SetRequest{Choices: []lock.Choice{{Names: []lock.Name{nameA, lock.MustParseName("lb/b")}}}, Holder: holder, Wait: wait})
		return err
	},
}

// Who does not want to wait is told at once that the store cannot grant anything for now,
// also behind somebody who waits for that.
func TestNoWaitForTheStore(t *testing.T) {
	for name, ask := range onceRequests {
		for _, reason := range []lock.Reason{lock.ErrReadOnly, lock.ErrTooManyLocks} {
			t.Run(name+" "+string(reason), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := open(t)
					m := manage(t, store)
					store.beforeCommit.set(func(*lock.Change) error { return reason })
					start := time.Now()
					if err := ask(t, m, "alice", 0); !errors.Is(err, reason) {
						t.Errorf("%v, want %v", err, reason)
					}
					waits := make(chan error)
					go func() { waits <- ask(t, m, "bob", time.Hour) }()
					synctest.Wait()
					if err := ask(t, m, "carol", 0); !errors.Is(err, reason) {
						t.Errorf("behind a waiter: %v, want %v", err, reason)
					}
					if waited := time.Since(start); waited != 0 {
						t.Errorf("they waited %v", waited)
					}
					store.beforeCommit.remove()
					if err := <-waits; err != nil && (name != "lock" || !errors.Is(err, reason)) { // a plain one is told before it stands in line
						t.Errorf("who waits: %v", err)
					}
				})
			})
		}
	}
}
