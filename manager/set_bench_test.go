package manager_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// BenchmarkWaitingSets has many sets of 8 of 100 names wait. The time is that from the
// release of one until another has been granted, the rest of them waiting.
func BenchmarkWaitingSets(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := newBenchManager(b)
			r := rand.New(rand.NewPCG(1, 2))
			ctx, cancel := context.WithCancel(b.Context())
			granted := make(chan []lock.Lock, 128)
			wait := func() {
				var names []lock.Name
				for _, i := range r.Perm(100)[:8] {
					names = append(names, lock.MustParseName(fmt.Sprintf("set/%d", i)))
				}
				go func() {
					if grant, err := m.LockSet(ctx, lock.Caller{}, lock.SetRequest{Names: names, Wait: 24 * time.Hour}); err == nil {
						granted <- grant.Locks
					}
				}()
			}
			for range n {
				wait()
			}
			for waiting := 0; waiting < n/20 || len(granted) == 0; { // so many wait for one of 100 locks at least
				l, err := m.Status(ctx, lock.Caller{}, lock.MustParseName("set/1"))
				if err != nil {
					b.Fatal(err)
				}
				waiting = l.Waiters
			}
			var took []time.Duration
			var held [][]lock.Lock
			for b.Loop() {
				for len(granted) > 0 {
					held = append(held, <-granted)
				}
				var holds []lock.HoldRef
				for _, l := range held[0] {
					holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
				}
				held = held[1:]
				wait() // as many wait as before
				began := time.Now()
				if _, err := m.UnlockSet(ctx, lock.Caller{}, lock.UnlockSetRequest{Holds: holds}); err != nil {
					b.Fatal(err)
				}
				select {
				case next := <-granted:
					took = append(took, time.Since(began))
					held = append(held, next)
				case <-time.After(50 * time.Millisecond): // those who want these want others too, which are held
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(len(took))/float64(b.N), "grants/release")
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "ns/median")
			cancel()
		})
	}
}

// BenchmarkSet takes and releases 8 locks as a set, and 3 one by one.
func BenchmarkSet(b *testing.B) {
	var names []lock.Name
	for i := range 8 {
		names = append(names, lock.MustParseName(fmt.Sprintf("set/%d", i)))
	}
	b.Run("8 names", func(b *testing.B) {
		m := newBenchManager(b)
		for b.Loop() {
			grant, err := m.LockSet(b.Context(), lock.Caller{}, lock.SetRequest{Names: names, TTL: time.Hour})
			if err != nil {
				b.Fatal(err)
			}
			var holds []lock.HoldRef
			for _, l := range grant.Locks {
				holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
			}
			if _, err := m.UnlockSet(b.Context(), lock.Caller{}, lock.UnlockSetRequest{Holds: holds}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("3 locks", func(b *testing.B) {
		m := newBenchManager(b)
		for b.Loop() {
			var locks []lock.Lock
			for _, name := range names[:3] {
				grant, err := m.Lock(b.Context(), lock.Caller{}, lock.LockRequest{Name: name, TTL: time.Hour})
				if err != nil {
					b.Fatal(err)
				}
				locks = append(locks, grant.Lock)
			}
			for _, l := range locks {
				if _, err := m.Unlock(b.Context(), lock.Caller{}, lock.UnlockRequest{Name: l.Name, Token: l.Token}); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
