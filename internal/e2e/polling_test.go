package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

var polledLocks = flag.String("polled-locks", "10000", "numbers of held locks to measure the cost of polling with, such as 10000,100000,1000000")

// TestPollingCost measures what polling costs while nothing changes, at the default
// interval.
func TestPollingCost(t *testing.T) {
	const (
		pollInterval = time.Second // the default
		// share is what the design allows of one core with 10,000 locks.
		// The test allows three times as much: shared machines differ.
		share, leeway = 0.02, 3
	)
	for number := range strings.SplitSeq(*polledLocks, ",") {
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("-polled-locks: %v", err)
		}
		t.Run(fmt.Sprintf("locks-%d", n), func(t *testing.T) {
			root := t.TempDir()
			const inDirectory = 1000
			for i := range n {
				dir := filepath.Join(root, fmt.Sprintf("dir%d", i/inDirectory))
				if i%inDirectory == 0 {
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("lock-%d.lock", i%inDirectory)), fmt.Appendf(nil, "n: %d\n", i), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			// The first start adopts the files, the second finds them as it
			// left them.
			var d *daemon
			var starts [2]time.Duration
			for i := range starts {
				began := time.Now()
				if d, err = tryStartWithin(t, 10*patience, measured, root, "--poll-interval", pollInterval.String(), "--log-level", "error"); err != nil {
					t.Fatal(err)
				}
				starts[i] = time.Since(began).Round(10 * time.Millisecond)
				if i == 0 {
					d.stop(t)
				}
			}
			idle := start(t, measured, t.TempDir(), "--poll-interval", pollInterval.String())
			// Files that have just been written are looked at more closely,
			// and what else the machine does makes a poll dearer: the middle
			// one of some windows is what polling costs. A long poll is
			// followed by a longer pause, so that many locks need a long
			// window.
			windows, window := 3, 5*pollInterval
			if n > 10_000 {
				<-time.After(window)
				windows, window = 1, time.Duration(n)*300*time.Microsecond
			}
			pid, idlePID := d.cmd.Process.Pid, idle.cmd.Process.Pid
			var shares []float64
			idleBefore, idleBegan := cpuTime(t, idlePID), time.Now()
			for range windows {
				before, began := cpuTime(t, pid), time.Now()
				<-time.After(window)
				shares = append(shares, (cpuTime(t, pid)-before).Seconds()/time.Since(began).Seconds())
			}
			idleGot := (cpuTime(t, idlePID) - idleBefore).Seconds() / time.Since(idleBegan).Seconds()
			slices.Sort(shares)
			got := shares[len(shares)/2]
			t.Logf("| %9d locks | %6.2f %% of one core | idle daemon %.2f %% | first start %v | next start %v | memory %s |",
				n, 100*got, 100*idleGot, starts[0], starts[1], memory(t, pid))
			if n <= 10_000 && got > leeway*share {
				t.Errorf("polling %d locks took %.2f %% of one core, want %v %%, with leeway %v %%", n, 100*got, 100*share, 100*leeway*share)
			}
			if _, err := d.client.Status(t.Context(), &pylokv1.StatusRequest{Name: "dir0/lock-0"}); err != nil {
				t.Error(err)
			}
			d.stop(t)
		})
	}
}

// memory returns the resident memory of a process, as Linux writes it.
func memory(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
