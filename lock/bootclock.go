package lock

import (
	"sync"
	"time"
)

// bootClock tells the time since boot, suspend included, as boottime does, but mostly
// without the system call that takes, which is a good part of what a renewal costs: the
// clocks that time.Now reads need none. Between two suspends the boot clock goes as the
// monotonic one does, and a suspend shows at once: when the machine wakes up, the wall
// clock has gone ahead of the monotonic one by the time that it slept.
type bootClock struct {
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
	// bootError is by how much a reading may be late, if one in bootTries is not.
	bootError = 50 * time.Microsecond
	bootTries = 10
)

// now returns the time since boot, right to a millisecond.
func (c *bootClock) now() time.Duration {
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
func (c *bootClock) read() {
	for range bootTries {
		before := time.Now()
		c.boot = boottime()
		c.at = time.Now()
		if c.at.Sub(before) <= bootError {
			break // else who knows when between the two it was read
		}
	}
	c.wall = c.at.UnixNano()
}
