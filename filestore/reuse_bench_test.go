package filestore

import (
	"flag"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

var reuseDir = flag.String("reuse-dir", ".", "where BenchmarkReuse has its root")

// BenchmarkReuse takes and releases locks by 16 callers, with files that are written again
// and with a new file each time, and tells the CPU time of a cycle, the kernel's for the
// process included. docs/performance.md says how it is run.
func BenchmarkReuse(b *testing.B) {
	for _, c := range []struct {
		name string
		rest int
	}{{"again", 0}, {"new", math.MaxInt}} {
		b.Run(c.name, func(b *testing.B) {
			root, err := os.MkdirTemp(*reuseDir, "reuse-")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(root)
			s, err := Open(b.Context(), Config{Root: root, NoNotify: true, rest: c.rest})
			if err != nil {
				b.Fatal(err)
			}
			data := mustData(b, `{"contact_email":"billyjenkins@example.com","data":{"backend":"App1","server":"server-cluster3w1-2","status":"MAINT"},"msg":"Locking App1 on server-cluster3w1-2 for canary deployment"}`)
			cycles := func(n int) {
				var left atomic.Int64
				left.Store(int64(n))
				var callers sync.WaitGroup
				for i := range 16 {
					l := lock.Lock{Name: lock.MustParseName(fmt.Sprintf("lb/server-%d", i)), Holder: "bench", Data: data}
					callers.Go(func() {
						for left.Add(-1) >= 0 {
							events, err := s.Commit(b.Context(), []lock.Change{{Type: lock.Locked, Cause: lock.Request, Lock: l}})
							if err == nil {
								_, err = s.Commit(b.Context(), []lock.Change{unlocked(events[0].Lock)})
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				callers.Wait()
			}
			cycles(2048) // until the pool is as full as it becomes
			b.ResetTimer()
			began := cpuTime(b)
			cycles(b.N)
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// cpuTime is what the process has used so far, in its own code and in the kernel.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
