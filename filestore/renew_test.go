package filestore_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// BenchmarkRenew renews leases by their ttl, as their holders do all day, with few
// and with many of them held. Nothing is written, and how many there are must not
// matter.
func BenchmarkRenew(b *testing.B) {
	for _, leases := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("leases=%d", leases), func(b *testing.B) {
			root, err := os.MkdirTemp(".", "renew-root-")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(root)
			store, err := filestore.Open(b.Context(), filestore.Config{Root: root})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			m, err := manager.New(store, manager.Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			requests := make([]lock.RenewRequest, leases)
			atOnce(leases, func(i int) {
				name := manyName(i)
				grant, err := m.Lock(b.Context(), lock.Caller{}, lock.LockRequest{Name: name, TTL: time.Hour + time.Duration(i)*time.Millisecond})
				if err != nil {
					b.Error(err)
				}
				requests[i] = lock.RenewRequest{Name: name, Token: grant.Lock.Token}
			})
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := m.Renew(b.Context(), lock.Caller{}, requests[i]); err != nil {
					b.Fatal(err)
				}
				i = (i + 7919) % leases // in an order that is not that of the ends
			}
		})
	}
}
