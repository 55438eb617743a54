package filestore_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
)

var (
	scale     = flag.Int("scale", 0, "measure a store that holds this many locks")
	scaleRoot = flag.String("scale-root", "", "measure with the locks that this root has, or make them there, and keep it")
)

// TestScale prints what many held locks cost: memory, and the time from start to
// ready. Run it as go test -run TestScale -scale 1000000 -v ./filestore
func TestScale(t *testing.T) {
	locks := *scale
	if locks == 0 {
		locks = 1000
	}
	root := *scaleRoot
	if root == "" {
		var err error
		if root, err = os.MkdirTemp(".", ".scale-root-"); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(root)
	}
	var s *filestore.Store
	open := func() (held int) {
		done := filestore.Cost(t, "start")
		var err error
		if s, err = filestore.Open(t.Context(), filestore.Config{Root: root}); err != nil {
			t.Fatal(err)
		}
		done()
		rss := residentBytes(t)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		revision, list := s.List(t.Context(), lock.Pattern{}, lock.Name{})
		for _, err := range list {
			if err != nil {
				t.Fatal(err)
			}
			held++
		}
		t.Logf("%d locks at revision %d; heap %d MiB, %d bytes a lock; RSS %d MiB", held, revision, m.HeapAlloc>>20, m.HeapAlloc/uint64(max(held, 1)), rss>>20)
		return held
	}
	shut := func() {
		done := filestore.Cost(t, "stop")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		done()
	}
	if open() < locks {
		done := filestore.Cost(t, "grants")
		fill(t, s, locks)
		done()
		shut()
		open()
	}
	shut()
}

// fill locks that many locks, but for those that are locked.
func fill(t *testing.T, s *filestore.Store, locks int) {
	data, err := lock.NewData(map[string]any{"msg": "Locking App1 for canary deployment", "data": map[string]any{"backend": "App1", "status": "MAINT"}})
	if err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	const concurrent = 256
	for c := range concurrent {
		callers.Go(func() {
			for i := c; i < locks; i += concurrent {
				name := lock.MustParseName(fmt.Sprintf("lb/pool-%d/server-%d", i%100, i))
				if _, err := s.Get(t.Context(), name); err == nil {
					continue
				}
				if _, err := s.Commit(t.Context(), []lock.Change{{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: name, Data: data, Holder: "bench@host"}}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// residentBytes returns the memory that the process has.
func residentBytes(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("VmRSS:"))
	var kib int
	if _, err := fmt.Fscan(bytes.NewReader(rest), &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
