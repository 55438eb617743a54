package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

var historyEvents = flag.Int("history-events", 50_000, "how many events the history has whose pages are timed")

// TestHistoryPages times pages of a long history.
func TestHistoryPages(t *testing.T) {
	// A page from anywhere may take so many times as long as the first.
	const leeway = 5
	root := memoryDir(t)
	began := time.Now()
	fillHistory(t, root, *historyEvents)
	filled := time.Since(began)
	began = time.Now()
	d := start(t, measured, root, "--log-level", "error")
	t.Logf("%d events written in %v; start %v", *historyEvents, filled.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	last := revision(t, d.client)
	for _, test := range []struct {
		pattern string
		size    int32
	}{{"", 100}, {"", 1000}, {"dir3/*", 100}, {"dir3/lock-23", 1}} {
		page := func(at float64) (typical, worst time.Duration) {
			const tries = 15
			var times []time.Duration
			for i := range tries {
				after := uint64(at*float64(last)) + uint64(i)
				request := &pylokv1.HistoryRequest{Pattern: test.pattern, AfterRevision: after, PageSize: test.size}
				began := time.Now()
				page, err := d.client.History(t.Context(), request)
				times = append(times, time.Since(began))
				if err != nil {
					t.Fatal(err)
				}
				if len(page.Events) != int(test.size) {
					t.Fatalf("after %d: got %d events, want %d", after, len(page.Events), test.size)
				}
				if got := page.Events[0].Revision; test.pattern == "" && got != after+1 {
					t.Fatalf("after %d: got revision %d first", after, got)
				}
			}
			slices.Sort(times)
			return times[tries/2], times[tries-1]
		}
		for _, at := range []float64{0, 0.25, 0.5, 0.75, 0.9} {
			// What is slow by itself is so each time; what else the machine does
			// may slow one of the two.
			var first, typical, worst, limit time.Duration
			for range 3 {
				first, _ = page(0)
				typical, worst = page(at)
				if limit = leeway*first + 20*time.Millisecond; typical <= limit {
					break
				}
			}
			t.Logf("| pattern %-6q | %4d a page | from %3.0f %% | median %8v | slowest %8v |", test.pattern, test.size, 100*at, typical.Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
			if typical > limit {
				t.Errorf("pattern %q: a page of %d from %.0f %% of the history takes %v, the first takes %v; want at most %d times that", test.pattern, test.size, 100*at, typical, first, leeway)
			}
		}
	}
	d.stop(t)
}

// memoryDir returns a directory in memory, where there is one: what a test writes only
// to have it takes less time there.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pylok-e2e-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// fillHistory makes a root with a past: locks taken, changed and released in turn.
func fillHistory(t *testing.T, root string, events int) {
	t.Helper()
	store, err := filestore.Open(t.Context(), filestore.Config{Root: root, NoNotify: true, PollInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	const batch = 500
	data, err := lock.NewData(map[string]any{"msg": "Locking App1 for canary deployment", "contact_email": "billyjenkins@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	held := make(map[int]lock.Lock)
	for done := 0; done < events; {
		for _, kind := range []lock.EventType{lock.Locked, lock.Unlocked} {
			changes := make([]lock.Change, batch)
			for i := range changes {
				l := lock.Lock{Name: lock.MustParseName(fmt.Sprintf("dir%d/lock-%d", i%20, i)), Data: data, Holder: "alice@ci-7"}
				if kind == lock.Unlocked {
					l = held[i]
				}
				changes[i] = lock.Change{Type: kind, Cause: lock.Request, Actor: "alice@ci-7", Lock: l, Prev: held[i].Revision}
			}
			committed, err := store.Commit(t.Context(), changes)
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range committed {
				held[i] = e.Lock
				if kind == lock.Unlocked {
					held[i] = lock.Lock{}
				}
			}
			done += batch
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}
