// Package history tests pylok as its clients see it, against daemons that are killed:
// every history of calls and answers must be one that locks can have.
package history

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	durationFlag = flag.Duration("duration", time.Minute, "how long the history check of the daemon goes on")
	clientsFlag  = flag.Int("clients", 24, "how many clients it has, 8 to 32")
	locksFlag    = flag.Int("locks", 8, "how many locks these use")
	seedFlag     = flag.Uint64("seed", 0, "seed of what the clients do; 0: another each time")
)

// checkTimeout is how long porcupine may take for one lock and one daemon.
const checkTimeout = 30 * time.Second

// TestHistory: clients do all that clients do, good and bad, and lose connections,
// while the daemon is killed and started again; what they are told must be a history
// of locks.
func TestHistory(t *testing.T) {
	build(t)
	s := settings{
		seed:     *seedFlag,
		duration: *durationFlag,
		clients:  *clientsFlag,
		locks:    *locksFlag,
		disturb:  8,
		life:     2500 * time.Millisecond,
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano())
	}
	directory, err := os.MkdirTemp("", "pylok-history-")
	if err != nil {
		t.Fatal(err)
	}
	e := observe(t, s, &daemon{root: filepath.Join(directory, "root")})
	for _, problem := range e.problems {
		t.Error(problem)
	}
	if t.Failed() {
		t.Logf("seed %d; the root is in %s", s.seed, directory)
		return
	}
	os.RemoveAll(directory)
}

// observe runs a workload and checks its history.
func observe(t *testing.T, s settings, on server) *evidence {
	t.Helper()
	r, err := newRun(t.Context(), s, on)
	if err != nil {
		t.Fatalf("seed %d: %v", s.seed, err)
	}
	began := time.Now()
	e := examine(r)
	var directory string
	compared := e.checkAll(checkTimeout, func(name string) string {
		if directory == "" {
			if directory, err = os.MkdirTemp("", "pylok-violation-"); err != nil {
				t.Fatal(err)
			}
		}
		return filepath.Join(directory, strings.ReplaceAll(name, "/", "-")+".html")
	})
	counts := make(map[kind]int)
	expired := 0
	for _, o := range r.operations {
		if o.outcome == done {
			counts[o.kind]++
		}
	}
	for _, event := range r.history {
		if event.GetReason() == "the lease ran out" {
			expired++
		}
	}
	t.Logf("%d calls of %d clients in %v, %d daemons; done: %v; of %d with an unknown outcome %d took effect, %d of these were undone; %d holds expired; %d handed over; order of arrival known for %d pairs; checked in %v",
		len(r.operations), s.clients, s.duration, len(r.generations), counts, e.unknown, e.took, e.undone, expired, e.handed, compared, time.Since(began).Round(time.Millisecond))
	return e
}
