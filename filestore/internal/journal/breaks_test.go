package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// breakOf returns the event by which a hold was broken, some time ago.
func breakOf(revision int, ago time.Duration) Record {
	r := event(revision, "a break")
	r.Event.Type, r.Event.Cause, r.Event.Reason = lock.Unlocked, lock.Forced, fmt.Sprintf("reason %d", revision)
	r.Event.Time = time.Now().Add(-ago).UTC().Truncate(time.Millisecond)
	return r
}

func openOnDisk(t *testing.T, root string, config Config) (disk.FS, *Journal) {
	t.Helper()
	fsys, err := disk.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	j, err := Open(fsys, dir, config, func(Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(j.Close(), fsys.Close()); err != nil {
			t.Error(err)
		}
	})
	return fsys, j
}

// mustRead returns the revisions of the breaks in a file, by a journal that has nothing
// else and both ways round.
func mustRead(t *testing.T, b *Breaks, after lock.Revision) (revisions []lock.Revision) {
	t.Helper()
	j := &Journal{fs: b.fs, dir: "none", config: Config{HistoryBytes: 1 << 20}}
	j.Advance(1 << 40)
	events := allHistory(t, j, b, lock.HistoryQuery{After: after})
	for _, e := range events {
		if e.Cause != lock.Forced || e.Reason != fmt.Sprintf("reason %d", e.Revision) {
			t.Errorf("after %d: %+v is no break", after, e)
		}
		revisions = append(revisions, e.Revision)
	}
	back := allHistory(t, j, b, lock.HistoryQuery{After: after, NewestFirst: true})
	if slices.Reverse(back); !slices.Equal(back, events) {
		t.Errorf("after %d, newest first: %d events, want the same %d", after, len(back), len(events))
	}
	return revisions
}

func want(t *testing.T, what string, got []lock.Revision, want ...lock.Revision) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: breaks %v, want %v", what, got, want)
	}
}

// TestBreaks keeps the breaks of segments that are pruned, once each and no other
// event, as long as there is room for them and they are young enough.
func TestBreaks(t *testing.T) {
	root := t.TempDir()
	fsys, j := openOnDisk(t, root, Config{SegmentBytes: 1})
	alike := event(3, `"cause":"forced"`)
	alike.Event.Reason = `,"cause":"forced"`
	alike.Event.Lock.Data, _ = lock.ParseData([]byte(`{"a":1,"cause":"forced"}`))
	for _, r := range []Record{event(1, "x"), breakOf(2, time.Hour), alike, breakOf(4, 10*time.Hour), breakOf(5, time.Minute), event(6, "last")} {
		mustCommit(t, j, commitOf(r))
	}
	b := NewBreaks(fsys, "breaks")
	want(t, "before any", mustRead(t, b, 0))
	all := Retention{Age: 100 * time.Hour, Bytes: 1 << 20}
	segments := j.Prunable(Retention{Age: time.Hour, Bytes: 1}, 1000)
	if len(segments) != 5 {
		t.Fatalf("prunable: %v, want all but the active segment", segments)
	}
	keep := func(what string, keep Retention, segments ...string) {
		t.Helper()
		if err := b.Keep(keep, segments); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	keep("nothing", all, segments[0])
	want(t, "a segment without one", mustRead(t, b, 0))
	keep("three", all, segments[1:4]...)
	want(t, "three segments", mustRead(t, b, 0), 2, 4)
	keep("again, as after a crash", all, segments...)
	want(t, "all segments", mustRead(t, b, 0), 2, 4, 5)
	want(t, "after 2", mustRead(t, b, 2), 4, 5)
	want(t, "after 5", mustRead(t, b, 5))

	file := filepath.Join(root, "breaks")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte("reason 4"), []byte("reason X"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, "with a damaged line", mustRead(t, b, 0), 2, 5)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}

	keep("the old ones go", Retention{Age: 5 * time.Hour, Bytes: 1 << 20})
	want(t, "of five hours", mustRead(t, b, 0), 2, 5)
	keep("what does not fit goes", Retention{Age: 5 * time.Hour, Bytes: int64(len(text)) / 2})
	want(t, "with room for one", mustRead(t, b, 0), 5)
}

// TestManyBreaks reads more breaks than fit into one answer, from anywhere.
func TestManyBreaks(t *testing.T) {
	fsys, j := openOnDisk(t, t.TempDir(), Config{})
	const n = 5000
	var records []Record
	for i := range n {
		records = append(records, breakOf(1+i, 0))
	}
	mustCommit(t, j, records)
	b := NewBreaks(fsys, "breaks")
	if err := b.Keep(Retention{Age: time.Hour, Bytes: 1 << 30}, []string{j.path(j.segments[0])}); err != nil {
		t.Fatal(err)
	}
	if all := mustRead(t, b, 0); len(all) != n || all[0] != 1 || all[n-1] != n {
		t.Errorf("%d breaks, want 1 to %d", len(all), n)
	}
	if half := mustRead(t, b, n/2); len(half) != n-n/2 || half[0] != n/2+1 {
		t.Errorf("after %d: %d events, want the next one first", n/2, len(half))
	}
}
