package manager_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/pylok/pylok/lock"
)

// BenchmarkCrowdedSets has 1,000 callers take sets of 32 names and 5 of 32 more, of 256 in
// all, and give them back: per set.
func BenchmarkCrowdedSets(b *testing.B) {
	m := newBenchManager(b)
	names := make([]lock.Name, 256)
	for i := range names {
		names[i] = lock.MustParseName(fmt.Sprintf("crowd/%d/%d", i%16, i))
	}
	rounds := make(chan int, b.N)
	for round := range b.N {
		rounds <- round
	}
	close(rounds)
	var callers sync.WaitGroup
	for caller := range min(1000, b.N) {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(caller)))
			for round := range rounds {
				picked := make([]lock.Name, 64)
				for i, n := range random.Perm(len(names))[:64] {
					picked[i] = names[n]
				}
				grant, err := m.LockSet(b.Context(), lock.Caller{}, lock.SetRequest{
					Names:     picked[:32],
					Choices:   []lock.Choice{{Names: picked[32:], Count: 5}},
					RequestID: fmt.Sprint(round),
					Wait:      lock.WaitForever,
				})
				if err != nil {
					b.Error(err)
					return
				}
				var holds []lock.HoldRef
				for _, l := range grant.Locks {
					holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
				}
				if _, err := m.UnlockSet(b.Context(), lock.Caller{}, lock.UnlockSetRequest{Holds: holds}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	callers.Wait()
}
