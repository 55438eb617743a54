package limits

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pylok/pylok/lock"
)

// key is who is one caller.
type key struct {
	name    string       // that is proved, or of a place that has no address
	proved  bool         // whether name is the one or the other
	address netip.Prefix // of who proves nothing
}

// keyOf returns the key of a caller, and whether the call comes from another machine.
func keyOf(c *lock.Caller) (k key, isRemote bool) {
	address, err := netip.ParseAddr(c.Peer)
	address = address.Unmap()
	isRemote = err == nil && !address.IsLoopback()
	switch {
	case c.Name != "" && c.Name != lock.Anonymous:
		return key{name: c.Name, proved: true}, isRemote
	case err != nil:
		return key{name: c.Peer}, false
	}
	bits := 32
	if address.Is6() {
		bits = 64
	}
	prefix, _ := address.Prefix(bits) // which takes a zone off
	return key{address: prefix}, isRemote
}

// String returns who it is, for messages.
func (k key) String() string {
	switch {
	case k.proved:
		return k.name
	case k.address.IsValid() && k.address.IsSingleIP():
		return "anonymous at " + k.address.Addr().String()
	case k.address.IsValid():
		return "anonymous at " + k.address.String()
	case k.name != "":
		return "anonymous at " + k.name
	}
	return lock.Anonymous
}

// lane is what a call is for: calls of one lane are never refused because of those of the
// other.
type lane int

const (
	asking  lane = iota // for something new
	keeping             // to renew or to end what the caller holds
	lanes
)

// caller is what one caller has open.
type caller struct {
	who   string // for messages
	shard *shard

	// Guarded by shard.mu.
	rates        [lanes]*rate.Limiter // nil: as new
	uses         int                  // open calls and holds: with none of either, and its rates as new, it may be forgotten
	calls        [lanes]int
	waits        int
	waitingBytes int
	watches      int
	scanning     chan struct{} // has an element for each scan that works; nil: there was none yet

	// Guarded by holds.mu.
	holds    int
	reserved int // calls that may be granted a lock at once
}

// isNew reports whether a rate is as if nothing had been asked yet.
func isNew(r *rate.Limiter, now time.Time) bool {
	return r == nil || r.TokensAt(now) >= float64(r.Burst())
}

// shardCount is into how many parts the callers are divided, so that few calls want the
// same mutex.
const shardCount = 32

// shard is a part of the callers.
type shard struct {
	mu      sync.Mutex
	callers map[key]*caller
	// lookAgain is when it may be looked again for callers to forget: a flood of
	// addresses must not have it done for each.
	lookAgain time.Time
}

// callers are those that are told apart, a bounded number. Of those that come when there
// is no room left, nor anybody to be forgotten, all together are one: so a flood of
// addresses takes nothing from those that are known already, and gets little itself.
type callers struct {
	perShard int
	seed     maphash.Seed
	shards   [shardCount]shard
	rest     caller
}

func newCallers(most int) *callers {
	c := &callers{perShard: max(most/shardCount, 1), seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].callers = make(map[key]*caller)
	}
	c.rest = caller{who: fmt.Sprintf("all beyond the %d callers that are told apart", c.perShard*shardCount), shard: new(shard)}
	return c
}

// locked returns the caller with a key, whose shard's mu is held: the caller must give it
// back. Who is not used then may be forgotten.
func (c *callers) locked(k key) *caller {
	s := &c.shards[maphash.Comparable(c.seed, k)%shardCount]
	s.mu.Lock()
	found := s.callers[k]
	if found == nil && (len(s.callers) < c.perShard || s.forget(time.Now())) {
		found = &caller{who: k.String(), shard: s}
		s.callers[k] = found
	}
	if found == nil {
		s.mu.Unlock()
		found = &c.rest
		found.shard.mu.Lock()
	}
	return found
}

// use returns the caller with a key, which stays until leave.
func (c *callers) use(k key) *caller {
	found := c.locked(k)
	found.uses++
	found.shard.mu.Unlock()
	return found
}

// leave ends a use.
func (c *caller) leave() {
	c.shard.mu.Lock()
	c.uses--
	c.shard.mu.Unlock()
}

// forgetEvery is how often callers are looked for that may be forgotten.
const forgetEvery = time.Second

// forget forgets the callers that have nothing open and whose rates are as new, if it was
// not done just now, and reports whether it forgot any. The caller must hold mu.
func (s *shard) forget(now time.Time) bool {
	if now.Before(s.lookAgain) {
		return false
	}
	s.lookAgain = now.Add(forgetEvery)
	before := len(s.callers)
	for k, c := range s.callers {
		if c.uses == 0 && isNew(c.rates[asking], now) && isNew(c.rates[keeping], now) {
			delete(s.callers, k)
		}
	}
	return len(s.callers) < before
}

// forget forgets callers in all shards.
func (c *callers) forget() {
	now := time.Now()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.forget(now)
		s.mu.Unlock()
	}
}

// count returns how many callers are told apart, and how many calls all have open.
func (c *callers) count() (known, calls int) {
	add := func(c *caller) { calls += c.calls[asking] + c.calls[keeping] }
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		known += len(s.callers)
		for _, c := range s.callers {
			add(c)
		}
		s.mu.Unlock()
	}
	c.rest.shard.mu.Lock()
	add(&c.rest)
	c.rest.shard.mu.Unlock()
	return known, calls
}
