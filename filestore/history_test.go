package filestore_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
)

var (
	historyEvents = flag.Int("history-events", 50_000, "how many events the past has in which BenchmarkHistory looks")
	historyRoot   = flag.String("history-root", "", "look in the past that this root has, or make it there, and keep it")
)

// perName is how many events each name has in the past of BenchmarkHistory.
const perName = 4

// BenchmarkHistory looks for events in a long past. For one of a million run it as
//
//	go test ./filestore -run '^$' -bench History -history-events 1000000
func BenchmarkHistory(b *testing.B) {
	root := *historyRoot
	if root == "" {
		root = b.TempDir()
	}
	names := *historyEvents / perName
	if _, err := os.Stat(filepath.Join(root, ".pylok")); err != nil {
		fillHistory(b, root, names)
	}
	began := time.Now()
	s, err := filestore.Open(b.Context(), filestore.Config{Root: root})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.Logf("start %v", time.Since(began).Round(time.Millisecond))
	last, err := s.Revision(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	one := lock.MustParsePattern(jobName(names / 2).String())
	few := lock.MustParsePattern(jobName(names/2).String() + "*")
	for _, bench := range []struct {
		name  string
		q     lock.HistoryQuery
		limit int
		want  int
	}{
		{"one name", lock.HistoryQuery{Pattern: one}, 100, perName},
		{"one name, newest first", lock.HistoryQuery{Pattern: one, NewestFirst: true}, 100, perName},
		{"literal prefix", lock.HistoryQuery{Pattern: few}, 100, perName},
		{"suffix", lock.HistoryQuery{Pattern: lock.MustParsePattern("**/" + jobName(names / 2).String()[len("job/"):])}, 100, perName},
		{"first page", lock.HistoryQuery{}, 100, 100},
		{"first page, newest first", lock.HistoryQuery{NewestFirst: true}, 100, 100},
		{"first page of a prefix of all", lock.HistoryQuery{Pattern: lock.MustParsePattern("job/**")}, 100, 100},
		{"page from the middle", lock.HistoryQuery{After: last / 2}, 100, 100},
		{"since an hour ahead", lock.HistoryQuery{AfterTime: time.Now().Add(time.Hour)}, 100, 0},
		{"forced", lock.HistoryQuery{Cause: lock.Forced}, 100, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				got := 0
				for from := lock.Revision(0); ; {
					page, err := s.History(b.Context(), bench.q, from, bench.limit)
					if err != nil {
						b.Fatal(err)
					}
					if got += len(page.Events); got >= bench.limit || page.Next == 0 {
						break
					}
					from = page.Next
				}
				if got != bench.want {
					b.Fatalf("%d events, want %d", got, bench.want)
				}
			}
		})
	}
	for _, p := range []lock.Pattern{one, few, {}} {
		b.Run(fmt.Sprintf("resumed watch of %q", p), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for after := lock.Revision(1); after < last; {
					_, until, err := s.Events(b.Context(), p, after, 0)
					if err != nil {
						b.Fatal(err)
					}
					after = until
				}
			}
		})
	}
}

func jobName(i int) lock.Name { return lock.MustParseName(fmt.Sprintf("job/%07d", i)) }

// fillHistory makes a root in whose past each name is locked and unlocked, and later again.
func fillHistory(b *testing.B, root string, names int) {
	s, err := filestore.Open(b.Context(), filestore.Config{Root: root, NoNotify: true, PollInterval: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	data, err := lock.NewData(map[string]any{"msg": "Locking App1 for canary deployment", "contact_email": "billyjenkins@example.com"})
	if err != nil {
		b.Fatal(err)
	}
	const batch = 500
	for range perName / 2 {
		for first := 0; first < names; first += batch {
			var changes []lock.Change
			for i := first; i < min(first+batch, names); i++ {
				l := lock.Lock{Name: jobName(i), Data: data, Holder: "alice@ci-7"}
				changes = append(changes, lock.Change{Type: lock.Locked, Cause: lock.Request, Actor: "alice@ci-7", Lock: l})
			}
			events, err := s.Commit(b.Context(), changes)
			if err != nil {
				b.Fatal(err)
			}
			for i, e := range events {
				changes[i].Type, changes[i].Lock, changes[i].Prev = lock.Unlocked, e.Lock, e.Revision
			}
			if _, err := s.Commit(b.Context(), changes); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
