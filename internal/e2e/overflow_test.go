package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNotificationOverflow changes more files than the kernel keeps notifications
// of while the daemon is stopped.
func TestNotificationOverflow(t *testing.T) {
	const (
		pollInterval = time.Second // the default
		changes      = 20_000
		names        = 4_000
	)
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skipf("NOT TESTED, an overflow of notifications: %v", err)
	}
	if kept, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || kept >= changes {
		t.Skipf("NOT TESTED, an overflow of notifications: fs.inotify.max_queued_events is %s, and %d files are changed", bytes.TrimSpace(text), changes)
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	root := t.TempDir()
	file := func(i int) string { return filepath.Join(root, fmt.Sprintf("dir%d/sub/lock-%d.lock", i%20, i)) }
	write := func(file string) {
		text := fmt.Appendf(nil, "n: %d\n", 10_000+random.IntN(90_000))
		err := os.WriteFile(file, text, 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(file), 0o755); err == nil {
				err = os.WriteFile(file, text, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range names / 2 {
		if i%20 < 18 { // some directories are new later
			write(file(i))
		}
	}
	d := start(t, delivered, root, "--poll-interval", pollInterval.String(), "--log-level", "error")
	settle(t, d)

	d.signal(t, syscall.SIGSTOP)
	if _, problem := within(t.Context(), patience, func() string {
		if stat := processStat(t, d.cmd.Process.Pid); stat[0] != "T" {
			return fmt.Sprintf("the state of the stopped daemon is %s, want T", stat[0])
		}
		return ""
	}); problem != "" {
		t.Fatal(problem)
	}
	began := time.Now()
	for done := 0; done < changes; {
		file := file(random.IntN(names))
		switch random.IntN(4) {
		case 0, 1:
			write(file)
		case 2: // as long and as old as it was
			stat, err := os.Stat(file)
			if err != nil {
				continue
			}
			write(file)
			if err := os.Chtimes(file, time.Time{}, stat.ModTime()); err != nil {
				t.Fatal(err)
			}
		case 3:
			if os.Remove(file) != nil {
				continue
			}
		}
		done++
	}
	if err := os.RemoveAll(filepath.Dir(file(7))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Dir(file(8)), filepath.Join(root, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	wrote := time.Since(began)
	before := cpuTime(t, d.cmd.Process.Pid)
	d.signal(t, syscall.SIGCONT)
	took := settle(t, d)
	t.Logf("%d changes, made in %v, were seen %v after the daemon went on (poll interval %v); it used %v of CPU time", changes, wrote.Round(time.Millisecond), took.Round(time.Millisecond), pollInterval, cpuTime(t, d.cmd.Process.Pid)-before)
	// How long the changes took to make says how busy the machine is.
	if limit := 2*pollInterval + max(slack, wrote); took > limit {
		t.Errorf("it took %v until List and the files agreed, want two poll intervals, on a busy machine %v", took, limit)
	}
	d.stop(t)
}

func (d *daemon) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// processStat returns the fields of /proc/PID/stat from the state on (proc(5)).
func processStat(t *testing.T, pid int) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)
}

// cpuTime returns how much CPU time a process has used, to 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat := processStat(t, pid)
	var ticks int
	for _, field := range stat[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on every Linux
}
