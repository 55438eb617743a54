package filestore_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
)

// BenchmarkCommit takes and releases locks on distinct names, durably, on the
// disk of the working directory. One operation is one Commit.
func BenchmarkCommit(b *testing.B) { benchmark(b, cycle) }

// BenchmarkHandOver hands over locks on distinct names likewise. One operation ends one
// hold and begins another.
func BenchmarkHandOver(b *testing.B) { benchmark(b, handOver) }

// benchmark calls work for each of several callers with a lock of its own, which does
// operations until none are left.
func benchmark(b *testing.B, work func(b *testing.B, s lock.Store, name lock.Name, data lock.Data, left *atomic.Int64)) {
	data, err := lock.NewData(map[string]any{
		"contact_email": "billyjenkins@example.com",
		"data":          map[string]any{"backend": "App1", "server": "server-cluster3w1-2", "status": "MAINT"},
		"msg":           "Locking App1 on server-cluster3w1-2 for canary deployment",
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			root, err := os.MkdirTemp(".", "bench-root-") // not /tmp, which may be memory
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(root)
			s, err := filestore.Open(b.Context(), filestore.Config{Root: root})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var callersDone sync.WaitGroup
			for i := range callers {
				name := lock.MustParseName(fmt.Sprintf("lb/server-%d", i))
				callersDone.Go(func() { work(b, s, name, data, &left) })
			}
			callersDone.Wait()
		})
	}
}

// cycle takes and releases a lock until no operations are left.
func cycle(b *testing.B, s lock.Store, name lock.Name, data lock.Data, left *atomic.Int64) {
	ctx := context.Background()
	var held lock.Lock
	for left.Add(-1) >= 0 {
		change := lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: name, Data: data, Holder: "bench"}}
		if held.Held() {
			change.Type, change.Prev, change.Lock = lock.Unlocked, held.Revision, held
		}
		events, err := s.Commit(ctx, []lock.Change{change})
		if err != nil {
			b.Error(err)
			return
		}
		if held = (lock.Lock{}); change.Type == lock.Locked {
			held = events[0].Lock
		}
	}
}

// handOver takes a lock and hands it over until no operations are left.
func handOver(b *testing.B, s lock.Store, name lock.Name, data lock.Data, left *atomic.Int64) {
	ctx := context.Background()
	grant := lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: name, Data: data, Holder: "bench"}}
	events, err := s.Commit(ctx, []lock.Change{grant})
	for left.Add(-1) >= 0 && err == nil {
		held := events[len(events)-1].Lock
		end := lock.Change{Type: lock.Unlocked, Cause: lock.Request, Prev: held.Revision, Lock: held}
		events, err = s.Commit(ctx, []lock.Change{end, grant})
	}
	if err != nil {
		b.Error(err)
	}
}
