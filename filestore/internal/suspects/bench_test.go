package suspects

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// BenchmarkResting measures what directories cost, with one lock in each, while nothing
// happens: for each second, with inotify and without. Then how long a new file in the last
// of them waits to be named.
func BenchmarkResting(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		for _, noNotify := range []bool{false, true} {
			if noNotify && n > 10_000 {
				continue // a look at all of them takes minutes
			}
			b.Run(fmt.Sprintf("directories=%d/inotify=%v", n, !noNotify), func(b *testing.B) {
				before := heapBytes()
				dirs := make([]string, n)
				for i := range dirs {
					dirs[i] = fmt.Sprintf("job-%d", i)
				}
				f, store, root, _ := newFinder(b, func(c *Config) {
					c.NoNotify, c.PollInterval, c.EmptyFor = noNotify, time.Second, 5*time.Second
				}, dirs...)
				for _, dir := range dirs {
					write(b, root, dir+"/x.lock", "")
					store.held = append(store.held, dir+"/x")
				}
				slices.Sort(store.held)
				run(b, f)
				write(b, root, dirs[0]+"/y.lock", "")
				soon(b, "it works", func() bool { return store.inspections(dirs[0]+"/y") > 0 })
				b.ResetTimer()
				used := processorTime(b)
				for range b.N {
					time.Sleep(time.Second) // the unit of what is measured
				}
				share := float64(processorTime(b)-used) / float64(b.Elapsed())
				b.StopTimer()
				heap := heapBytes() - before // the test's own names are part of it
				written := time.Now()
				write(b, root, dirs[n-1]+"/new.lock", "")
				soon(b, "the new file is named", func() bool { return store.inspections(dirs[n-1]+"/new") > 0 })
				b.ReportMetric(100*share, "%CPU")
				b.ReportMetric(float64(heap)/float64(n), "B/directory")
				b.ReportMetric(time.Since(written).Seconds()*1000, "ms-until-named")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
