package manager_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

var errStore = errors.New("the store is out of order")

// reports is what health was told.
type reports struct {
	mu   sync.Mutex
	errs []error
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

func (r *reports) all() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

// A Manager goes on following the store's changes after an error, however long it lasts:
// what others did meanwhile counts, and health has said that something is wrong.
func TestFollowingGoesOn(t *testing.T) {
	for _, lasts := range []time.Duration{0, time.Second, time.Hour} {
		t.Run(lasts.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := open(t)
				var health reports
				m := manageWith(t, store, manager.Config{Health: health.add})
				mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
				bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: 2 * time.Hour})

				failing := time.Now().Add(lasts)
				store.beforeEvents.set(func() error {
					if time.Now().After(failing) {
						return nil
					}
					return errStore
				})
				other := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("b")}) // an event, after which the next are asked for
				synctest.Wait()
				store.others(t, lock.Unlocked)
				if bob.ended() {
					t.Error("the waiter has heard of what the store did not tell")
				}
				if told := health.all(); len(told) != 1 || !errors.Is(told[0], errStore) {
					t.Errorf("health was told %v, want %v", told, errStore)
				}
				time.Sleep(lasts + time.Minute)
				if !bob.ended() || bob.err != nil {
					t.Errorf("the waiter for a lock that others freed: ended %t, %v; want the lock", bob.done.Load(), bob.err)
				}
				if told := health.all(); len(told) != 2 || told[1] != nil {
					t.Errorf("health was told %v, want %v and then that all is well", told, errStore)
				}

				// It follows as before.
				if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: other.Name, Token: other.Token}); err != nil {
					t.Fatal(err)
				}
				carol := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "carol", Wait: time.Second})
				store.others(t, lock.Unlocked)
				if !carol.ended() || carol.err != nil {
					t.Errorf("the waiter for a lock that others freed later: ended %t, %v; want the lock", carol.done.Load(), carol.err)
				}
				if told := health.all(); len(told) != 2 {
					t.Errorf("health was told %v", told)
				}
			})
		})
	}
}
