package lease

import (
	"testing"
	"time"
)

// The clock says what the system call says, and asks it only when it has to.
func TestBootClock(t *testing.T) {
	tests := []struct {
		name   string
		happen func(c *Clock) // since the last reading
		reads  bool
	}{
		{"nothing has happened", func(*Clock) {}, false},
		{"the wall clock is being set right", func(c *Clock) { c.wall += int64(bootGrain / 4) }, false},
		{"the machine slept", func(c *Clock) { c.wall -= int64(time.Hour) }, true},
		{"the machine slept for a moment", func(c *Clock) { c.wall -= int64(2 * bootGrain) }, true},
		{"the wall clock was set back", func(c *Clock) { c.wall += int64(time.Hour) }, true},
		{"it is long ago", func(c *Clock) {
			c.at = c.at.Add(-2 * bootTrust)
			c.wall -= int64(2 * bootTrust)
		}, true},
	}
	const wrong = 1000 * time.Hour // by so much is the last reading, to be told from a new one
	for _, test := range tests {
		var c Clock
		wantBootTime(t, test.name+": first", &c, 0)
		c.boot += wrong
		test.happen(&c)
		if test.reads {
			wantBootTime(t, test.name, &c, 0)
		} else {
			wantBootTime(t, test.name, &c, wrong)
		}
	}
	var c Clock
	for range 10000 {
		wantBootTime(t, "again and again", &c, 0)
	}
}

// wantBootTime checks that a clock is so far ahead of the boot clock.
func wantBootTime(t *testing.T, what string, c *Clock, ahead time.Duration) {
	t.Helper()
	before := boottime()
	got := c.Now() - ahead
	after := boottime()
	if got < before-bootGrain || got > after+bootGrain {
		t.Fatalf("%s: the clock says %v, want %v to %v", what, got, before, after)
	}
}
