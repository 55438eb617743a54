package suspects

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var costOf = flag.String("suspects-cost", "", "numbers of directories, such as 10,10000,100000, to measure what they cost while nothing happens, for some polls each")

// TestCost measures memory and processor time for directories that one lock is in each, with
// inotify and without.
func TestCost(t *testing.T) {
	if *costOf == "" {
		t.Skip("measured with -suspects-cost")
	}
	for text := range strings.SplitSeq(*costOf, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("-suspects-cost: %v", err)
		}
		for _, noNotify := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d directories, without inotify %v", n, noNotify), func(t *testing.T) { cost(t, n, noNotify) })
		}
	}
}

func cost(t *testing.T, n int, noNotify bool) {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("job-%d", i))
	}
	before := heapBytes()
	f, store, root, _ := newFinder(t, func(c *Config) {
		c.NoNotify, c.PollInterval, c.EmptyFor = noNotify, time.Second, 5*time.Second
	}, names...)
	for _, dir := range names {
		write(t, root, dir+"/x.lock", "")
		store.held = append(store.held, dir+"/x")
	}
	slices.Sort(store.held)
	run(t, f)
	write(t, root, "job-0/a.lock", "")
	soon(t, "it works", func() bool { return store.inspections("job-0/a") > 0 })
	time.Sleep(3 * time.Second) // what has just been made is looked at more often
	window := max(10*time.Second, time.Duration(n)*time.Millisecond)
	used, began := processorTime(t), time.Now()
	time.Sleep(window)
	share := float64(processorTime(t)-used) / float64(time.Since(began))
	watched := 0
	if f.notifier.isOn() {
		watched = f.notifier.watched()
	}
	heap := heapBytes() - before // the test's own names are part of it
	began = time.Now()
	write(t, root, names[n-1]+"/b.lock", "")
	for store.inspections(names[n-1]+"/b") == 0 {
		time.Sleep(time.Millisecond)
	}
	t.Logf("%.2f %% of a processor over %v; heap %d KiB, %d bytes a directory; %d watched; a new file was named after %v", 100*share, window, heap>>10, heap/int64(n), watched, time.Since(began).Round(time.Millisecond))
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
