package manager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

// TestManyBelowTree drains a tree of 100,000 held locks, with hundreds of trees beside it, 16
// levels deep: it is granted when the last below is released, and what it costs meanwhile
// does not grow with the locks.
func TestManyBelowTree(t *testing.T) {
	const below, trees, commit = 100_000, 400, 100
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		var changes []lock.Change
		var held []lock.Lock
		flush := func() {
			events, err := store.Store.Commit(t.Context(), changes)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				held = append(held, e.Lock)
			}
			changes = nil
		}
		deep := strings.Repeat("/d", 13)
		for i := range below {
			name := lock.MustParseName(fmt.Sprintf("prod/%d%s/x", i%977, deep) + fmt.Sprint(i))
			changes = append(changes, lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: name, Holder: "deploy"}})
			if len(changes) == commit {
				flush()
			}
		}
		m := manage(t, store)
		for i := range trees {
			mustLock(t, m, lock.LockRequest{Name: lock.MustParseName(fmt.Sprintf("other/%d", i)), Tree: true})
		}
		before := memory()
		drain := lockSoon(t.Context(), m, lock.LockRequest{Name: lock.MustParseName("prod"), Tree: true, Drain: true, Wait: time.Hour})
		if grown := int64(memory()) - int64(before); grown > 1<<20 {
			t.Errorf("a request to drain keeps %d bytes", grown)
		}
		if drain.ended() {
			t.Fatalf("the drain ended: %v", drain.err)
		}
		for _, l := range held {
			changes = append(changes, lock.Change{Type: lock.Unlocked, Cause: lock.Request, Prev: l.Revision, Lock: l})
			if len(changes) == commit && len(changes) < below {
				if _, err := store.Store.Commit(t.Context(), changes); err != nil {
					t.Fatal(err)
				}
				changes = nil
				if last := l.Name == held[len(held)-1].Name; drain.ended() != last {
					t.Fatalf("the drain has ended: %t, and %v is the last: %t", !last, l.Name, last)
				}
			}
		}
		if drain.err != nil {
			t.Fatalf("the drain: %v", drain.err)
		}
		_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: held[0].Name})
		if !errors.Is(err, lock.ErrLockHeld) || !strings.Contains(err.Error(), "prod") {
			t.Errorf("a lock in the drained tree: %v", err)
		}
		_, err = m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: lock.MustParseName("other/7/x")})
		if !errors.Is(err, lock.ErrLockHeld) || !strings.Contains(err.Error(), "other/7") {
			t.Errorf("a lock in one of many trees: %v", err)
		}
		mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("free/x")})
	})
}
