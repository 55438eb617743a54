package manager_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// BenchmarkLockUnlock takes and releases a free lock with a lease: what Manager adds to
// a store, here one that takes next to no time. It does so alone, and beside what others
// have and wait for, which is to make no difference.
func BenchmarkLockUnlock(b *testing.B) {
	b.Run("alone", func(b *testing.B) { cycles(b, newBenchManager(b)) })
	for _, others := range []struct {
		what  string
		begin func(o *others, m *manager.Manager, name lock.Name)
	}{
		{"holds", func(o *others, m *manager.Manager, name lock.Name) { o.hold(m, name, 0) }},
		{"leases", func(o *others, m *manager.Manager, name lock.Name) { o.hold(m, name, time.Hour) }},
		{"waiters", func(o *others, m *manager.Manager, name lock.Name) {
			o.hold(m, name, 0)
			o.running.Go(func() {
				m.Lock(o.ctx, lock.Caller{}, lock.LockRequest{Name: name, Wait: time.Hour})
			})
			for status := (lock.Lock{}); status.Waiters == 0; status, _ = m.Status(o.ctx, lock.Caller{}, name) {
				runtime.Gosched()
			}
		}},
		{"trees", func(o *others, m *manager.Manager, name lock.Name) {
			if _, err := m.Lock(o.ctx, lock.Caller{}, lock.LockRequest{Name: name, Tree: true}); err != nil {
				o.b.Fatal(err)
			}
		}},
		{"shared-holds", func(o *others, m *manager.Manager, name lock.Name) {
			if _, err := m.Lock(o.ctx, lock.Caller{}, lock.LockRequest{Name: name, Shared: true}); err != nil {
				o.b.Fatal(err)
			}
		}},
		{"watches", func(o *others, m *manager.Manager, name lock.Name) {
			o.watch(m, lock.MustParsePattern(name.String()))
		}},
		{"watches-of-prefixes", func(o *others, m *manager.Manager, name lock.Name) {
			o.watch(m, lock.MustParsePattern(name.String()+"/*"))
		}},
	} {
		for _, n := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("%s=%d", others.what, n), func(b *testing.B) {
				m := newBenchManager(b)
				o := newOthers(b)
				before := memory()
				for i := range n {
					others.begin(o, m, lock.MustParseName(fmt.Sprintf("other/%d", i)))
				}
				each := float64(memory()-before) / float64(n)
				cycles(b, m)
				b.ReportMetric(each, "B/other")
			})
		}
	}
}

// BenchmarkWatchers changes a lock that 1,000 watch, one change at a time; the time is that
// of one change reaching all of them.
func BenchmarkWatchers(b *testing.B) {
	const watchers = 1000
	m := newBenchManager(b)
	o := newOthers(b)
	var synced, told sync.WaitGroup
	for range watchers {
		synced.Add(1)
		o.running.Go(func() {
			for event := range m.Watch(o.ctx, lock.Caller{}, lock.WatchRequest{Pattern: lock.MustParsePattern(nameA.String())}) {
				switch {
				case event.Type == lock.Synced:
					synced.Done()
				case event.Cause != 0:
					told.Done()
				}
			}
		})
	}
	synced.Wait()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		told.Add(2 * watchers)
		grant, err := m.Lock(b.Context(), lock.Caller{}, lock.LockRequest{Name: nameA})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Unlock(b.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: grant.Lock.Token}); err != nil {
			b.Fatal(err)
		}
		told.Wait()
	}
	b.StopTimer()
}

func newBenchManager(b *testing.B) *manager.Manager {
	store := memstore.New(memstore.Config{})
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		m.Close()
		store.Close()
	})
	return m
}

func cycles(b *testing.B, m *manager.Manager) {
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

// others are those beside whom a benchmark runs.
type others struct {
	b       *testing.B
	ctx     context.Context
	running sync.WaitGroup
}

func newOthers(b *testing.B) *others {
	ctx, end := context.WithCancel(b.Context())
	o := &others{b: b, ctx: ctx}
	b.Cleanup(func() {
		end()
		o.running.Wait()
	})
	return o
}

func (o *others) hold(m *manager.Manager, name lock.Name, ttl time.Duration) {
	if _, err := m.Lock(o.ctx, lock.Caller{}, lock.LockRequest{Name: name, TTL: ttl}); err != nil {
		o.b.Fatal(err)
	}
}

// watch begins a watch, and returns when it has been told that it is synced.
func (o *others) watch(m *manager.Manager, p lock.Pattern) {
	synced := make(chan struct{})
	tell := sync.OnceFunc(func() { close(synced) })
	o.running.Go(func() {
		for event := range m.Watch(o.ctx, lock.Caller{}, lock.WatchRequest{Pattern: p}) {
			if event.Type == lock.Synced {
				tell()
			}
		}
	})
	<-synced
}

// memory is how many bytes are in use, stacks included.
func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
