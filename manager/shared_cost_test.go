package manager_test

import (
	"context"
	"testing"

	"github.com/pylok/pylok/lock"
)

// lookedStore counts the looks at locks.
type lookedStore struct {
	lock.Store
	looks int
}

func (s *lookedStore) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	s.looks++
	return s.Store.Get(ctx, name)
}

// While none ends, a shared hold costs the same however many there are. It has the lowest
// number that is free, also when that was another's.
func TestCostOfSharedHolds(t *testing.T) {
	const most = 300
	store := &lookedStore{Store: open(t)}
	m := manage(t, store)
	share := func() lock.Lock {
		return mustLock(t, m, lock.LockRequest{Name: nameA, Shared: true})
	}
	holds := make([]lock.Lock, most)
	for i := range holds {
		holds[i] = share()
	}
	again := func(i int) {
		t.Helper()
		if got := share(); got.Name != holds[i].Name {
			t.Errorf("the hold has the name %v, want %v", got.Name, holds[i].Name)
		} else {
			holds[i] = got
		}
	}
	for _, i := range []int{most - 1, most / 2, 0} {
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: holds[i].Name, Token: holds[i].Token}); err != nil {
			t.Fatal(err)
		}
		again(i)
	}
	share()
	store.looks = 0
	share()
	if store.looks > 20 {
		t.Errorf("beside %d shared holds there were %d looks at locks", most, store.looks)
	}
}
