package filestore

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// journalBytes is how large the journal of a root is.
func journalBytes(t *testing.T, root string) (total int64) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, journalDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			total += info.Size()
		} else if !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return total
}

// flood writes about so many bytes into the journal.
func flood(t *testing.T, s *Store, bytes int) {
	t.Helper()
	data := fmt.Sprintf(`{"bulk":%q}`, strings.Repeat("x", 30_000))
	for written := 0; written < bytes; written += len(data) {
		name := lock.MustParseName(fmt.Sprintf("bulk-%d", rand.IntN(20)))
		l := present(t.Context(), t, s, name)
		l.Name = name
		change := locked(l, "flood", data)
		if _, err := s.Commit(t.Context(), []lock.Change{change}); err != nil {
			t.Fatal(err)
		}
	}
}

// allHistory returns all pages of a history.
func allHistory(t *testing.T, s *Store, q lock.HistoryQuery) (events []lock.Event) {
	t.Helper()
	for from := lock.Revision(0); ; {
		page, err := s.History(t.Context(), q, from, 100)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, page.Events...)
		if from = page.Next; from == 0 {
			return events
		}
	}
}

// TestHistoryKeepsItsSize floods a journal: it is pruned while it grows, without
// waiting for the time of the next checkpoint, and again at rest. A break from before
// the flood is still known, also after a restart, and no other event that is as old.
func TestHistoryKeepsItsSize(t *testing.T) {
	const size = 4 << 20
	for _, test := range []struct {
		name string
		idle time.Duration // between two checkpoints
		most int64
	}{
		{"growing", time.Hour, size*5/4 + 4<<20}, // and segments: one that is written, and one that is begun ahead
		{"at rest", 20 * time.Millisecond, size + 2<<20},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			config := Config{Root: root, History: Retention{Bytes: size}, checkpointEvery: test.idle}
			s, err := Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			name := lock.MustParseName("broken")
			if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "alice", `{}`)}); err != nil {
				t.Fatal(err)
			}
			broken := unlocked(present(t.Context(), t, s, name))
			broken.Cause, broken.Actor, broken.Reason = lock.Forced, "bob", "alice went home"
			events, err := s.Commit(t.Context(), []lock.Change{broken})
			if err != nil {
				t.Fatal(err)
			}
			flood(t, s, 8*size)
			for deadline := time.Now().Add(time.Minute); journalBytes(t, root) > test.most; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the journal has %d bytes; at most %d are to be kept", journalBytes(t, root), test.most)
				}
			}
			check := func() {
				t.Helper()
				for _, q := range []lock.HistoryQuery{
					{Cause: lock.Forced},
					{Cause: lock.Forced, NewestFirst: true},
					{Pattern: lock.MustParsePattern("broken")},
					{Pattern: lock.MustParsePattern("broken"), NewestFirst: true, Actor: "bob"},
					{BeforeTime: events[0].Time.Add(time.Millisecond)},
				} {
					if history := allHistory(t, s, q); len(history) != 1 || history[0] != events[0] {
						t.Errorf("the history of %+v is %+v; want the break alone", q, history)
					}
				}
				if breaks := allHistory(t, s, lock.HistoryQuery{Cause: lock.Forced, After: events[0].Revision}); len(breaks) != 0 {
					t.Errorf("breaks after the last: %+v", breaks)
				}
			}
			check()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			indexes, err := filepath.Glob(filepath.Join(root, journalDir, "*.index"))
			if err != nil || len(indexes) == 0 {
				t.Errorf("indexes: %v, error %v", indexes, err)
			}
			for _, index := range indexes {
				if _, err := os.Stat(strings.TrimSuffix(index, ".index") + ".jsonl"); err != nil {
					t.Errorf("an index has outlived its segment: %v", err)
				}
			}
			if s, err = Open(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			check()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBreaksOutliveSegments cannot write the file of breaks, for a while: the segments
// that have them stay until it can.
func TestBreaksOutliveSegments(t *testing.T) {
	root := t.TempDir()
	d := openDisk(t, root)
	d.history = Retention{Age: time.Hour, Bytes: 64 << 10}
	s, err := openOn(t, d)
	if err != nil {
		t.Fatal(err)
	}
	name := lock.MustParseName("broken")
	if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "alice", `{}`)}); err != nil {
		t.Fatal(err)
	}
	broken := unlocked(present(t.Context(), t, s, name))
	broken.Cause = lock.Forced
	if _, err := s.Commit(t.Context(), []lock.Change{broken}); err != nil {
		t.Fatal(err)
	}
	d.arm(func(_ int, _, name string) error {
		if strings.Contains(name, "breaks") {
			return fs.ErrPermission
		}
		return nil
	})
	flood(t, s, 4<<20)
	prune := func(what string, want bool) {
		t.Helper()
		if _, err := s.makeCheckpoint(true); err != nil {
			t.Fatal(err)
		}
		// Before, the journal itself has the break.
		breaks := allHistory(t, s, lock.HistoryQuery{Cause: lock.Forced})
		if got := s.journal.Kept() > 0; got != want || len(breaks) != 1 {
			t.Errorf("%s: pruned is %v, want %v; breaks are %v, want one", what, got, want, breaks)
		}
	}
	prune("while it fails", false)
	d.arm(nil)
	prune("when it works", true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpointOfClosedStore has the store end while a checkpoint prunes its journal: the
// next start finds what it is to find.
func TestCheckpointOfClosedStore(t *testing.T) {
	d := openDisk(t, t.TempDir())
	d.history = Retention{Age: 1, Bytes: 1}
	s := mustOpenOn(t, d)
	name := lock.MustParseName("x")
	for range 50 {
		mustCommit(t, s, locked(lock.Lock{Name: name}, "alice", `{"msg":"some text that fills a segment"}`))
		mustCommit(t, s, unlocked(present(t.Context(), t, s, name)))
	}
	d.arm(func(_ int, op, of string) error {
		if op == "datasync" && strings.HasPrefix(of, journalDir) { // that of the mark
			s.ended = true
		}
		return nil
	})
	if _, err := s.makeCheckpoint(true); err != nil || !s.ended {
		t.Fatalf("a checkpoint: %v, and the store has ended: %v", err, s.ended)
	}
	d.kill()
	_ = s.Close()
	s = mustOpenOn(t, openDisk(t, d.root))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
