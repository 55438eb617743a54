//go:build !linux

package lease

import "time"

var started = time.Now()

// boottime is Go's monotonic clock. Whether that counts suspend is up to the
// operating system.
func boottime() time.Duration { return time.Since(started) }
