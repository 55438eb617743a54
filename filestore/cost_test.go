package filestore

import (
	"syscall"
	"testing"
	"time"
)

// Cost begins to measure the time and the processor time of something; the function
// that it returns says them.
func Cost(t *testing.T, what string) func() {
	processor := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began, before := time.Now(), processor()
	return func() {
		t.Logf("%s: %v, %v of the processors", what, time.Since(began).Round(time.Millisecond), (processor() - before).Round(time.Millisecond))
	}
}
