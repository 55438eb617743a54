package manager_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

// TestTreeAfterGrantsUnderWay: a freeze comes after the grants below that were decided before
// it, however long they take, and keeps out who comes meanwhile.
func TestTreeAfterGrantsUnderWay(t *testing.T) {
	for _, drain := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := open(t)
			m := manage(t, store)
			web, prod := lock.MustParseName("prod/web"), lock.MustParseName("prod")
			goOn := make(chan struct{})
			var once sync.Once
			store.beforeCommit.set(func(change *lock.Change) error {
				if change.Lock.Name == web {
					once.Do(func() { <-goOn })
				}
				return nil
			})
			below := lockSoon(t.Context(), m, lock.LockRequest{Name: web, Holder: "deploy"})
			freeze := lockSoon(t.Context(), m, lock.LockRequest{Name: prod, Holder: "ops", Tree: true, Drain: drain, Wait: time.Hour})
			if freeze.ended() {
				t.Fatalf("drain %t: the freeze began while a grant below was under way: %v", drain, freeze.err)
			}
			if _, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: lock.MustParseName("prod/db")}); !errors.Is(err, lock.ErrLockHeld) {
				t.Errorf("drain %t: a lock below a freeze that is about to begin: %v", drain, err)
			}
			close(goOn)
			if !below.ended() || below.err != nil {
				t.Fatalf("drain %t: the grant below: %v", drain, below.err)
			}
			if freeze.ended() == drain {
				t.Errorf("drain %t: the freeze has begun: %t", drain, drain)
			}
			if drain {
				if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: web, Token: below.grant.Lock.Token}); err != nil {
					t.Error(err)
				}
			}
			if !freeze.ended() || freeze.err != nil || freeze.grant.Lock.Token < below.grant.Lock.Token {
				t.Errorf("drain %t: the freeze has token %d (%v), the grant below %d", drain, freeze.grant.Lock.Token, freeze.err, below.grant.Lock.Token)
			}
		})
	}
}
