package client

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// boottime reads CLOCK_BOOTTIME: time since boot, suspend included, which nobody
// can set. See clock_gettime(2).
func boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("clock_gettime(CLOCK_BOOTTIME): %v", err)) // Linux has had it since 2.6.39
	}
	return time.Duration(t.Nano())
}
