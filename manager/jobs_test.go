package manager_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// contest has contenders take locks again and again, each as soon as it may, and checks
// that none is passed by others that come later.
type contest struct {
	t       *testing.T
	manager *manager.Manager

	mu     sync.Mutex
	grants map[string]int // of each kind
}

// count counts a grant of some kinds, and returns how many there have been of each.
func (c *contest) count(by int, kinds ...string) (counts []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kind := range kinds {
		c.grants[kind] += by
		counts = append(counts, c.grants[kind])
	}
	return counts
}

// turn is a turn of a contender.
type turn struct {
	holder string
	ask    func(ctx context.Context) ([]lock.Lock, error)
	kinds  []string // of its grant
	before []string // kinds of grants that it must not wait for too long
	most   int      // how many grants of each of those there may be while it waits
}

// take has a contender ask for locks, have them for a while, and give them back.
func (c *contest) take(turn turn, meanwhile func(held []lock.Lock)) {
	asked := c.count(0, turn.before...)
	locks, err := turn.ask(c.t.Context())
	if err != nil {
		c.t.Errorf("%s: %v", turn.holder, err)
		return
	}
	for i, count := range c.count(0, turn.before...) {
		if passed := count - asked[i]; passed > turn.most {
			c.t.Errorf("%s: %d grants of %s between asking and being granted, want at most %d", turn.holder, passed, turn.before[i], turn.most)
		}
	}
	c.count(1, turn.kinds...)
	meanwhile(locks)
	var holds []lock.HoldRef
	for _, l := range locks {
		holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
	}
	answers, err := c.manager.UnlockSet(c.t.Context(), lock.Caller{}, lock.UnlockSetRequest{Holds: holds})
	if err != nil {
		c.t.Errorf("%s: %v", turn.holder, err)
	}
	for _, answer := range answers {
		if answer.Err != nil {
			c.t.Errorf("%s: %s: %v", turn.holder, answer.Name, answer.Err)
		}
	}
}

// set asks for a set.
func (c *contest) set(request lock.SetRequest) func(context.Context) ([]lock.Lock, error) {
	request.Wait = time.Hour
	return func(ctx context.Context) ([]lock.Lock, error) {
		grant, err := c.manager.LockSet(ctx, lock.Caller{}, request)
		return grant.Locks, err
	}
}

// one asks for one lock.
func (c *contest) one(request lock.LockRequest) func(context.Context) ([]lock.Lock, error) {
	request.Wait = time.Hour
	return func(ctx context.Context) ([]lock.Lock, error) {
		grant, err := c.manager.Lock(ctx, lock.Caller{}, request)
		return []lock.Lock{grant.Lock}, err
	}
}

// work takes some time, at random.
func work(random *rand.Rand) { time.Sleep(time.Duration(1+random.IntN(20)) * time.Millisecond) }

// inTurn is how often each of the others may be granted one of several slots while one
// contender waits: once because it came earlier, and once together with it.
const inTurn = 2

// TestRollingPatch has 20 servers patched 200 times, three at a time.
func TestRollingPatch(t *testing.T) {
	const servers, slots, rounds = 20, 3, 200
	synctest.Test(t, func(t *testing.T) {
		c := &contest{t: t, manager: manage(t, open(t)), grants: map[string]int{}}
		var pool []lock.Name
		for n := range slots {
			pool = append(pool, lock.MustParseName(fmt.Sprintf("patch/slot-%d", n+1)))
		}
		var active atomic.Int64
		var running sync.WaitGroup
		for n := range servers {
			running.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(n)))
				for range rounds {
					c.take(turn{
						holder: fmt.Sprintf("web-%d", n),
						ask:    c.set(lock.SetRequest{Choices: []lock.Choice{{Names: pool, Count: 1}}}),
						kinds:  []string{"slot"}, before: []string{"slot"}, most: inTurn * (servers - 1),
					}, func(held []lock.Lock) {
						if len(held) != 1 {
							t.Errorf("%d slots are granted, want 1", len(held))
						}
						if now := active.Add(1); now > slots {
							t.Errorf("%d servers are patched at once, want at most %d", now, slots)
						}
						work(random)
						active.Add(-1)
					})
				}
			})
		}
		running.Wait()
	})
}

// TestThreeDeployments has three deployments run 500 times that need the same locks: one all
// three, two two of them each; and beside them what needs one alone.
func TestThreeDeployments(t *testing.T) {
	const rounds = 500
	web, db, cache := lock.MustParseName("shop/web"), lock.MustParseName("shop/db"), lock.MustParseName("shop/cache")
	synctest.Test(t, func(t *testing.T) {
		c := &contest{t: t, manager: manage(t, open(t)), grants: map[string]int{}}
		// The last three could go on for ever, one after the other, past the first.
		deployments := [][]lock.Name{{web, db, cache}, {db, web}, {cache, db}, {web}, {db}, {cache}}
		var mu sync.Mutex
		holders := map[lock.Name]int{}
		var running sync.WaitGroup
		for n, names := range deployments {
			running.Go(func() {
				random := rand.New(rand.NewPCG(2, uint64(n)))
				for range rounds {
					var kinds []string
					for _, name := range names {
						kinds = append(kinds, name.String())
					}
					c.take(turn{
						holder: fmt.Sprint(n),
						ask:    c.set(lock.SetRequest{Names: names}),
						kinds:  kinds, before: kinds, most: len(deployments) - 1,
					}, func(held []lock.Lock) {
						if len(held) != len(names) {
							t.Errorf("%d locks are granted, want %d", len(held), len(names))
						}
						mu.Lock()
						for _, l := range held {
							if holders[l.Name]++; holders[l.Name] > 1 {
								t.Errorf("%s is held by two", l.Name)
							}
						}
						mu.Unlock()
						work(random)
						mu.Lock()
						for _, l := range held {
							holders[l.Name]--
						}
						mu.Unlock()
					})
				}
			})
		}
		running.Wait()
	})
}

// TestReadersAndWriters has 200 readers and 20 writers use one lock again and again; every
// other reader is content only if fewer than 50 read.
func TestReadersAndWriters(t *testing.T) {
	const readers, writers, limit, rounds = 200, 20, 50, 10
	synctest.Test(t, func(t *testing.T) {
		c := &contest{t: t, manager: manage(t, open(t)), grants: map[string]int{}}
		conf := lock.MustParseName("conf/app")
		var reading, writing atomic.Int64
		var running sync.WaitGroup
		for n := range readers + writers {
			running.Go(func() {
				random := rand.New(rand.NewPCG(3, uint64(n)))
				for range rounds {
					work(random)
					if n < writers {
						c.take(turn{
							holder: fmt.Sprintf("writer-%d", n),
							ask:    c.one(lock.LockRequest{Name: conf}),
							kinds:  []string{"use", "write"}, before: []string{"use"}, most: readers + writers - 1,
						}, func([]lock.Lock) {
							if w, r := writing.Add(1), reading.Load(); w > 1 || r > 0 {
								t.Errorf("%d write and %d read at once", w, r)
							}
							work(random)
							writing.Add(-1)
						})
						continue
					}
					c.take(turn{
						holder: fmt.Sprintf("reader-%d", n),
						ask:    c.one(lock.LockRequest{Name: conf, Shared: true, Limit: n % 2 * limit}),
						kinds:  []string{"use"}, before: []string{"write"}, most: writers,
					}, func([]lock.Lock) {
						r, w := reading.Add(1), writing.Load()
						if w > 0 {
							t.Errorf("%d write and %d read at once", w, r)
						}
						work(random)
						reading.Add(-1)
					})
				}
			})
		}
		running.Wait()
	})
}

// TestAtMostThree has 20 jobs run 100 times, at most three at a time.
func TestAtMostThree(t *testing.T) {
	const jobs, limit, rounds = 20, 3, 100
	synctest.Test(t, func(t *testing.T) {
		c := &contest{t: t, manager: manage(t, open(t)), grants: map[string]int{}}
		ask := c.one(lock.LockRequest{Name: lock.MustParseName("export"), Shared: true, Limit: limit})
		var active atomic.Int64
		var running sync.WaitGroup
		for n := range jobs {
			running.Go(func() {
				random := rand.New(rand.NewPCG(4, uint64(n)))
				for range rounds {
					c.take(turn{
						holder: fmt.Sprintf("job-%d", n),
						ask:    ask,
						kinds:  []string{"export"}, before: []string{"export"}, most: inTurn * (jobs - 1),
					}, func([]lock.Lock) {
						if now := active.Add(1); now > limit {
							t.Errorf("%d jobs run at once, want at most %d", now, limit)
						}
						work(random)
						active.Add(-1)
					})
				}
			})
		}
		running.Wait()
	})
}
