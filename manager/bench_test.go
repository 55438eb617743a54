package manager_test

import (
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// BenchmarkLockUnlock takes and releases a free lock with a lease: what Manager adds to
// a store, here one that takes next to no time.
func BenchmarkLockUnlock(b *testing.B) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		grant, err := m.Lock(b.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "alice@ci-7", TTL: time.Hour})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Unlock(b.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: grant.Lock.Token}); err != nil {
			b.Fatal(err)
		}
	}
}
