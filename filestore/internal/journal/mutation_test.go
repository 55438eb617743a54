package journal

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

// writeThreeSegments writes a journal of three segments, and returns the revisions in it.
func writeThreeSegments(t *testing.T) (*memory, []lock.Revision) {
	t.Helper()
	m := newMemory()
	config := Config{SegmentBytes: 1 << 10, ChunkBytes: 512, ReserveBytes: 256}
	j, _ := mustOpen(t, m, config)
	revision := 0
	next := func() Record { revision++; return event(revision, "x") }
	for len(m.segments()) < 3 || len(j.segments) < 3 || j.written < 700 {
		mustCommit(t, j, commitOf(next()))
		mustCommit(t, j, commitOf(next(), next()), commitOf(Record{Kind: KindExtended, Event: event(revision, "y").Event}))
		mustCommit(t, j, commitOf(Record{Kind: KindCheckpoint, Revision: lock.Revision(revision)}))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	m.last(t).text = bytes.TrimRight(m.last(t).text, "\x00") // the reserve
	var want []lock.Revision
	for r := range revision {
		want = append(want, lock.Revision(r+1))
	}
	return m, want
}

// linesOfFile splits a file into its lines, with their newlines, and what is behind them.
func linesOfFile(text []byte) [][]byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// TestMutations takes out, repeats, swaps and cuts off lines and segments of a journal that
// stopped cleanly. What is opened all the same has the beginning of what was there, and its
// Position tells that it has not all of it.
func TestMutations(t *testing.T) {
	m, want := writeThreeSegments(t)
	whole, _ := mustOpen(t, m.clone(), Config{})
	names := m.segments()
	try := func(what string, change func(*memory), mustRefuse bool) {
		t.Helper()
		for _, after := range []lock.Revision{0, want[len(want)-1]} { // replayed, and only verified
			changed := m.clone()
			change(changed)
			var records []Record
			j, err := Open(changed, dir, Config{After: after}, func(r Record) error {
				records = append(records, r)
				return nil
			})
			var damage *DamageError
			if err != nil {
				if !errors.As(err, &damage) || !strings.HasPrefix(damage.File, dir+"/") {
					t.Errorf("%s, after %d: %v, want a DamageError with a file", what, after, err)
				}
				continue
			}
			if mustRefuse {
				t.Errorf("%s, after %d: it is opened", what, after)
			}
			got := revisionsOf(records)
			if after == 0 && !slices.Equal(got, want[:min(len(got), len(want))]) && j.Kept() == 0 {
				t.Errorf("%s: got revisions %v, want the first of %v", what, got, want)
			}
			if j.Kept() == 0 && j.Position().Reaches(whole.Position()) {
				t.Errorf("%s, after %d: it has come to %+v, and seems to have all to %+v", what, after, j.Position(), whole.Position())
			}
		}
	}
	edit := func(name string, text []byte) func(*memory) {
		return func(m *memory) { m.files[name].text = text }
	}
	for i, name := range names {
		isLast := i == len(names)-1
		text := m.files[name].text
		lines := linesOfFile(text)
		for n := range lines {
			lastLine := isLast && n == len(lines)-1
			without := slices.Concat(slices.Concat(lines[:n]...), slices.Concat(lines[n+1:]...))
			try(fmt.Sprintf("line %d of %s taken out", n, name), edit(name, without), !isLast || !lastLine && n > 0)
			twice := slices.Concat(slices.Concat(lines[:n+1]...), slices.Concat(lines[n:]...))
			try(fmt.Sprintf("line %d of %s twice", n, name), edit(name, twice), true)
			for k := n + 1; k < len(lines); k++ {
				swapped := slices.Clone(lines)
				swapped[n], swapped[k] = swapped[k], swapped[n]
				try(fmt.Sprintf("lines %d and %d of %s swapped", n, k, name), edit(name, slices.Concat(swapped...)), true)
			}
		}
		for size := range len(text) {
			if size%7 == 0 || text[size] == '\n' || size > 0 && text[size-1] == '\n' {
				try(fmt.Sprintf("%s cut off at %d", name, size), edit(name, text[:size:size]), !isLast)
			}
		}
		try(name+" deleted", func(m *memory) { delete(m.files, name) }, 0 < i && !isLast)
	}
}

// TestLinesWithoutPlace reads a journal of a program that did not write down where its
// lines are.
func TestLinesWithoutPlace(t *testing.T) {
	m, want := writeThreeSegments(t)
	member := regexp.MustCompile(`,"at":[0-9]+,"crc32c":"[0-9a-f]{8}"}\n$`)
	batch := regexp.MustCompile(`"batch":[0-9]+`)
	before := regexp.MustCompile(`,"before":[0-9]+`)
	for _, name := range m.segments() {
		var text []byte
		for _, line := range linesOfFile(m.files[name].text) {
			line = before.ReplaceAll(line, nil)
			bare := batch.ReplaceAll(member.ReplaceAll(line, nil), []byte(`"batch":0`))
			text = append(text, appendChecksum(bare, 0)...)
		}
		m.files[name].text = text
	}
	for _, after := range []lock.Revision{0, want[len(want)-1]} {
		var records []Record
		if _, err := Open(m.clone(), dir, Config{After: after}, func(r Record) error {
			records = append(records, r)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := revisionsOf(records); after == 0 && !slices.Equal(got, want) {
			t.Errorf("got revisions %v, want %v", got, want)
		}
	}
}
