package filestore_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
)

var scale = flag.Int("scale", 0, "measure a store that holds this many locks")

// TestScale prints what many held locks cost: memory, and the time from start to
// ready. Run it as go test -run TestScale -scale 1000000 -v ./filestore
func TestScale(t *testing.T) {
	locks := *scale
	if locks == 0 {
		locks = 1000
	}
	root, err := os.MkdirTemp(".", "scale-root-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	open := func() *filestore.Store {
		began := time.Now()
		s, err := filestore.Open(t.Context(), filestore.Config{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		ready := time.Since(began)
		revision, held := s.List(t.Context(), lock.Pattern{}, lock.Name{})
		count := 0
		for _, err := range held {
			if err != nil {
				t.Fatal(err)
			}
			count++
		}
		t.Logf("ready after %v with %d locks at revision %d, heap %d MiB, %d bytes a lock", ready.Round(time.Millisecond), count, revision, m.HeapAlloc>>20, m.HeapAlloc/uint64(max(count, 1)))
		return s
	}
	s := open()
	data, err := lock.NewData(map[string]any{"msg": "Locking App1 for canary deployment", "data": map[string]any{"backend": "App1", "status": "MAINT"}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var callers sync.WaitGroup
	const concurrent = 256
	for c := range concurrent {
		callers.Go(func() {
			for i := c; i < locks; i += concurrent {
				name := lock.MustParseName(fmt.Sprintf("lb/pool-%d/server-%d", i%100, i))
				if _, err := s.Commit(t.Context(), lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: name, Data: data, Holder: "bench@host"}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	t.Logf("%d locks granted in %v", locks, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed in %v", time.Since(began).Round(time.Millisecond))
	s = open()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
