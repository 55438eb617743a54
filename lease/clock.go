// Package lease knows when holds end. [Table] has the deadlines of all of them, and
// [Clock] is what those of a time to live run on: it counts the time that a machine
// sleeps, and nobody can set it. The client runs its side of a lease on the same clock.
package lease

import (
	"math"
	"sync"
	"time"
)

// Clock tells the time since boot, suspend included, as boottime does, but mostly
// without the system call that takes, which is a good part of what a renewal costs: the
// clocks that time.Now reads need none. Between two suspends the boot clock goes as the
// monotonic one does, and a suspend shows at once: when the machine wakes up, the wall
// clock has gone ahead of the monotonic one by the time that it slept.
type Clock struct {
	mu   sync.Mutex
	boot time.Duration // as it was read last
	at   time.Time     // when that was, for the monotonic clock; zero: never
	wall int64         // and by the wall clock, ns since the Unix epoch
}

const (
	// bootGrain is how far the wall clock may have moved against the monotonic one
	// since the boot clock was read, and no suspend is suspected: it is set right by
	// 0.5 ms a second as a rule (adjtimex(2)). More costs a reading, and nothing else.
	bootGrain = time.Millisecond
	// bootTrust is how long a reading serves.
	bootTrust = time.Second
	// bootError is how long a reading of the clocks may take, or else the quickest of
	// bootTries counts: who knows when in that time each was read.
	bootError = 50 * time.Microsecond
	bootTries = 10
)

// Now returns the time since boot, right to a millisecond.
func (c *Clock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	passed := now.Sub(c.at)
	moved := time.Duration(now.UnixNano()-c.wall) - passed
	if c.at.IsZero() || passed > bootTrust || moved.Abs() > bootGrain {
		c.read()
		passed = 0
	}
	return c.boot + passed
}

// read reads the three clocks at the same time, or nearly so.
func (c *Clock) read() {
	quickest := time.Duration(math.MaxInt64)
	for try := 0; try < bootTries && quickest > bootError; try++ {
		before := time.Now()
		boot := boottime()
		at := time.Now()
		if took := at.Sub(before); took < quickest {
			quickest, c.boot, c.at = took, boot, at
		}
	}
	c.wall = c.at.UnixNano()
}
