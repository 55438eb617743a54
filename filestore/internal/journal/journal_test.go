package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

const dir = "journal"

// smallConfig has the proportions of the default.
var smallConfig = Config{SegmentBytes: 8 << 10, ChunkBytes: 1 << 10, ReserveBytes: 512}

// event is a record of the change with a revision; text makes it longer.
func event(revision int, text string) Record {
	at := time.Date(2026, 11, 22, 19, 0, 0, 0, time.UTC).Add(time.Duration(revision) * time.Second)
	l := lock.Lock{Name: lock.MustParseName(fmt.Sprintf("lb/server-%d", revision%5)), Token: lock.Token(revision), Revision: lock.Revision(revision), AcquireTime: at, Holder: text}
	return Record{Kind: KindEvent, Event: lock.Event{Revision: l.Revision, Time: at, Type: lock.Locked, Cause: lock.Request, Lock: l}}
}

// commitOf is the records of one commit.
func commitOf(records ...Record) []Record {
	for i := range records {
		records[i].More = i < len(records)-1
	}
	return records
}

// revisionsOf returns the revisions of the events among records.
func revisionsOf(records []Record) (revisions []lock.Revision) {
	for _, r := range records {
		if r.Kind == KindEvent {
			revisions = append(revisions, r.Event.Revision)
		}
	}
	return revisions
}

func mustOpen(t *testing.T, m *memory, config Config) (*Journal, []Record) {
	t.Helper()
	j, records, err := open(m, config)
	if err != nil {
		t.Fatal(err)
	}
	return j, records
}

func open(m *memory, config Config) (*Journal, []Record, error) {
	var records []Record
	j, err := Open(m, dir, config, func(r Record) error {
		records = append(records, r)
		return nil
	})
	return j, records, err
}

// mustCommit writes a batch of commits and makes it durable.
func mustCommit(t *testing.T, j *Journal, commits ...[]Record) {
	t.Helper()
	if err := j.Write(false, slices.Concat(commits...)...); err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(j.Written()); err != nil {
		t.Fatal(err)
	}
}

// tail is a journal whose last batch has been written and not made durable.
type tail struct {
	memory  *memory
	durable []lock.Revision   // of the batches before
	start   int               // of the last batch, in the last segment
	end     int               // likewise
	commits [][]lock.Revision // of the last batch
	ends    []int             // where each ends
}

// writeTail writes a few batches into one segment.
func writeTail(t *testing.T) tail {
	t.Helper()
	m := newMemory()
	j, _ := mustOpen(t, m, Config{SegmentBytes: 1 << 20, ChunkBytes: 4 << 10, ReserveBytes: 512})
	mustCommit(t, j, commitOf(event(1, "a")))
	mustCommit(t, j, commitOf(event(2, "b")), commitOf(event(3, "c"), event(4, "d"), event(6, "e")), commitOf(Record{Kind: KindExtended, Event: event(2, "b").Event}))
	mustCommit(t, j, commitOf(Record{Kind: KindCheckpoint, Revision: 6}))
	mustCommit(t, j, commitOf(event(7, "g"), event(8, "h")))
	tail := tail{memory: m, durable: []lock.Revision{1, 2, 3, 4, 6, 7, 8}, start: int(j.written)}
	commits := [][]Record{
		commitOf(event(9, "i")),
		commitOf(event(10, "j"), event(12, strings.Repeat("k", 300)), event(13, "l")),
		commitOf(event(14, strings.Repeat("m", 150))),
		commitOf(event(20, "n"), event(21, "o")),
	}
	for _, c := range commits {
		if err := j.Write(false, c...); err != nil {
			t.Fatal(err)
		}
		tail.commits, tail.ends = append(tail.commits, revisionsOf(c)), append(tail.ends, int(j.written))
	}
	tail.end = int(j.written)
	return tail
}

// wholeCommits checks that got is the durable batches and, of the last one, some
// first commits, each whole. It returns how many.
func (tl tail) wholeCommits(t *testing.T, what string, got []lock.Revision) int {
	t.Helper()
	want := slices.Clone(tl.durable)
	for i := 0; ; i++ {
		if slices.Equal(got, want) {
			return i
		}
		if i == len(tl.commits) {
			break
		}
		want = append(want, tl.commits[i]...)
	}
	t.Errorf("%s: got revisions %v, want %v and then whole commits of %v", what, got, tl.durable, tl.commits)
	return 0
}

// goOn checks that a journal can be written to and opened after recovery.
func goOn(t *testing.T, what string, m *memory, j *Journal, got []lock.Revision) {
	t.Helper()
	if last := got[len(got)-1]; j.Last() != last {
		t.Errorf("%s: Last is %d, want %d", what, j.Last(), last)
	}
	mustCommit(t, j, commitOf(event(100, "later"), event(101, "later")))
	_, records := mustOpen(t, m.afterPowerCut(), smallConfig)
	if again := revisionsOf(records); !slices.Equal(again, append(got, 100, 101)) {
		t.Errorf("%s: after another commit: got revisions %v, want %v and 100, 101", what, again, got)
	}
}

// TestTornTail cuts the last segment off at every byte, with and without the room
// that was allocated behind.
func TestTornTail(t *testing.T) {
	tl := writeTail(t)
	for cut := 0; cut <= tl.end; cut++ {
		for _, zeros := range []int{0, 300} {
			what := fmt.Sprintf("cut at byte %d of %d, %d zeros behind", cut, tl.end, zeros)
			m := tl.memory.clone()
			file := m.last(t)
			file.text = append(file.text[:cut:cut], make([]byte, zeros)...)
			j, records, err := open(m, smallConfig)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			got := revisionsOf(records)
			if cut >= tl.start {
				want := 0
				for want < len(tl.ends) && tl.ends[want] <= cut {
					want++
				}
				if n := tl.wholeCommits(t, what, got); n != want {
					t.Errorf("%s: %d commits of the last batch are there, want %d", what, n, want)
				}
				goOn(t, what, m, j, got)
			} else if all := slices.Concat(append([][]lock.Revision{tl.durable}, tl.commits...)...); len(got) > len(all) || !slices.Equal(got, all[:len(got)]) {
				t.Errorf("%s: got revisions %v, want the first of %v", what, got, all)
			}
		}
	}
}

// TestLostPages zeroes parts of the last batch, which had not all reached the disk.
func TestLostPages(t *testing.T) {
	tl := writeTail(t)
	lose := func(what string, ranges ...[2]int) {
		m := tl.memory.clone()
		file := m.last(t)
		for _, r := range ranges {
			clear(file.text[max(r[0], tl.start):min(r[1], tl.end)])
		}
		j, records, err := open(m, smallConfig)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		got := revisionsOf(records)
		tl.wholeCommits(t, what, got)
		goOn(t, what, m, j, got)
	}
	for at := tl.start; at < tl.end; at += 3 {
		lose(fmt.Sprintf("64 bytes at %d", at), [2]int{at, at + 64})
	}
	for at := tl.start; at < tl.end; at++ {
		lose(fmt.Sprintf("1 byte at %d", at), [2]int{at, at + 1})
	}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		var ranges [][2]int
		for at := tl.start / 64 * 64; at < tl.end; at += 64 {
			if random.IntN(2) == 0 {
				ranges = append(ranges, [2]int{at, at + 64})
			}
		}
		lose(fmt.Sprintf("blocks %v", ranges), ranges...)
	}
}

// damaged checks that a journal is refused for the line at offset of a file.
func damaged(t *testing.T, what string, m *memory, config Config, file string, offset int64) {
	t.Helper()
	_, records, err := open(m, config)
	var damage *DamageError
	if !errors.As(err, &damage) {
		t.Errorf("%s: got error %v and revisions %v, want a DamageError", what, err, revisionsOf(records))
		return
	}
	if damage.File != file || damage.Offset != offset {
		t.Errorf("%s: the damage is said to be in %s at %d, want %s at %d", what, damage.File, damage.Offset, file, offset)
	}
	for _, word := range []string{file, fmt.Sprint(offset), "backup"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: the message does not mention %s: %v", what, word, err)
		}
	}
}

// lineStart returns where the line with a byte begins.
func lineStart(text []byte, at int) int64 { return int64(bytes.LastIndexByte(text[:at], '\n') + 1) }

// TestDamage changes every byte that a later batch has proved durable.
func TestDamage(t *testing.T) {
	tl := writeTail(t)
	file := tl.memory.segments()[0]
	for at := range tl.start {
		for how, change := range map[string]func(byte) byte{
			"one bit":    func(b byte) byte { return b ^ 1<<(at%8) },
			"all bits":   func(b byte) byte { return ^b },
			"to zero":    func(byte) byte { return 0 },
			"to newline": func(byte) byte { return '\n' },
		} {
			m := tl.memory.clone()
			text := m.files[file].text
			was := text[at]
			if text[at] = change(was); text[at] == was {
				continue
			}
			damaged(t, fmt.Sprintf("byte %d of %d, %s", at, tl.start, how), m, smallConfig, file, lineStart(tl.memory.files[file].text, at))
		}
	}
}

// writeSegments writes commits into several segments and returns them.
func writeSegments(t *testing.T) (*memory, []Record) {
	t.Helper()
	m := newMemory()
	j, _ := mustOpen(t, m, Config{SegmentBytes: 1 << 10, ChunkBytes: 1 << 10, ReserveBytes: 256})
	var all []Record
	for revision := 1; len(m.segments()) < 4; revision += 3 { // with gaps
		batch := commitOf(event(revision, "a"), event(revision+1, "b"))
		mustCommit(t, j, batch)
		all = append(all, batch...)
	}
	return m, all
}

// TestDamageInEarlierSegment damages a segment that is not the last: nothing of it
// can be torn, and whether it is replayed makes no difference.
func TestDamageInEarlierSegment(t *testing.T) {
	for _, after := range []lock.Revision{0, 1 << 40} {
		t.Run(fmt.Sprintf("after %d", after), func(t *testing.T) {
			config := smallConfig
			config.After = after
			testDamageInEarlierSegment(t, config)
		})
	}
}

func testDamageInEarlierSegment(t *testing.T, config Config) {
	whole, _ := writeSegments(t)
	names := whole.segments()
	second := whole.files[names[1]].text
	end := len(bytes.TrimRight(second, "\x00"))
	refused := func(what string, m *memory) {
		t.Helper()
		if _, records, err := open(m, config); !isDamage(err) {
			t.Errorf("%s: got error %v and revisions %v, want a DamageError", what, err, revisionsOf(records))
		}
	}
	for at := range end {
		m := whole.clone()
		m.files[names[1]].text[at] ^= 1 << (at % 8)
		damaged(t, fmt.Sprintf("byte %d changed", at), m, config, names[1], lineStart(second, at))
		for _, zeros := range []int{0, 512} {
			m := whole.clone()
			m.files[names[1]].text = append(second[:at:at], make([]byte, zeros)...)
			refused(fmt.Sprintf("cut at byte %d, %d zeros behind", at, zeros), m)
		}
	}
	for i, name := range names[1 : len(names)-1] {
		m := whole.clone()
		delete(m.files, name)
		refused(fmt.Sprintf("segment %d is missing", i+1), m)
	}
	m := whole.clone()
	m.files[names[1]], m.files[names[2]] = m.files[names[2]], m.files[names[1]]
	refused("two segments have each other's name", m)
	m = whole.clone()
	delete(m.files, names[0])
	if j, _, err := open(m, config); err != nil {
		t.Errorf("without the oldest segment, as after pruning: %v", err)
	} else if j.Kept() == 0 {
		t.Error("without the oldest segment, all events seem to be kept")
	}
}

// TestVerifyLongSegment verifies a segment in more than one piece, with a line that is
// longer than a piece.
func TestVerifyLongSegment(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, Config{SegmentBytes: 3 * verifyBytes})
	revision := 0
	for len(m.segments()) < 2 {
		revision++
		e := event(revision, "a")
		e.Event.Reason = strings.Repeat("x", 50_000+revision*777)
		if revision == 10 {
			e.Event.Reason = strings.Repeat("x", verifyBytes*3/2)
		}
		mustCommit(t, j, commitOf(e))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	config := Config{After: lock.Revision(revision)}
	again, records := mustOpen(t, m, config)
	if again.Last() != j.Last() || len(records) != 1 {
		t.Errorf("got revision %d with revisions %v replayed, want %d, with the last one", again.Last(), revisionsOf(records), j.Last())
	}
	name := m.segments()[0]
	text := m.files[name].text
	for at := 1; at < len(text); at += 299_993 {
		m := m.clone()
		m.files[name].text[at] ^= 1
		damaged(t, fmt.Sprintf("byte %d changed", at), m, config, name, lineStart(text, at))
	}
}

func isDamage(err error) bool {
	var damage *DamageError
	return errors.As(err, &damage)
}

// TestUnknownFormat opens a journal of a program to come.
func TestUnknownFormat(t *testing.T) {
	for _, header := range []string{`{"journal":"pylok","format":2,"after":0`, `{"journal":"pylok","format":2,"after":0,"new":{"x":[1]}`} {
		m := newMemory()
		text := append(sealed(header), "\nwhatever it writes\n"...)
		m.files[dir+"/00000000000000000000.jsonl"] = &content{text: text}
		_, _, err := open(m, Config{})
		if err == nil {
			t.Fatal("a journal of format 2 is opened")
		}
		for _, word := range []string{"format 2", "format 1", "program"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the message does not mention %q: %v", word, err)
			}
		}
		if got := m.last(t).text; !bytes.Equal(got, text) {
			t.Errorf("the journal of format 2 was changed to %q", got)
		}
	}
}

// TestEvents reads after every revision: over segments, long lines and gaps.
func TestEvents(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, Config{SegmentBytes: 150 << 10, ChunkBytes: 64 << 10, ReserveBytes: 1 << 10})
	j.Advance(10)
	const seed = 2
	random := rand.New(rand.NewPCG(seed, 0))
	var all []lock.Revision
	revision := 11
	for len(m.segments()) < 4 {
		var batch []Record
		for range 1 + random.IntN(8) {
			size := random.IntN(60)
			if random.IntN(20) == 0 {
				size = random.IntN(40 << 10)
			}
			if random.IntN(10) == 0 {
				batch = append(batch, Record{Kind: KindExtended, Event: event(revision, "").Event})
			}
			batch = append(batch, event(revision, strings.Repeat("x", size)))
			revision += 1 + random.IntN(3)/2*random.IntN(5)
		}
		if random.IntN(5) == 0 {
			batch = append(batch, Record{Kind: KindCheckpoint, Revision: lock.Revision(revision)})
		}
		mustCommit(t, j, batch)
		all = append(all, revisionsOf(batch)...)
	}
	for pass, j := range []*Journal{j, reopened(t, m)} {
		for after := lock.Revision(10); after < j.Last(); after += lock.Revision(2 + 3*pass) {
			events, until, err := j.Events(t.Context(), lock.Pattern{}, after, j.Last())
			if err != nil || len(events) == 0 {
				t.Fatalf("pass %d: Events(%d): %d events, error %v", pass, after, len(events), err)
			}
			if last := events[len(events)-1].Revision; until != last && until != j.Last() {
				t.Errorf("pass %d: Events(%d): until %d, the last one is %d", pass, after, until, last)
			}
			i, _ := slices.BinarySearch(all, after+1)
			size := 0
			for n, e := range events {
				if e.Revision != all[i+n] {
					t.Fatalf("pass %d: Events(%d): event %d has revision %d, want %d", pass, after, n, e.Revision, all[i+n])
				}
				size += len(e.Lock.Holder)
			}
			if size > 2*mostEventBytes {
				t.Errorf("pass %d: Events(%d) returned %d bytes of text, want about %d at most", pass, after, size, mostEventBytes)
			}
		}
		if events, until, err := j.Events(t.Context(), lock.Pattern{}, j.Last(), j.Last()); len(events) > 0 || until != j.Last() || err != nil {
			t.Errorf("pass %d: Events(Last): %d events until %d, error %v", pass, len(events), until, err)
		}
		for _, after := range []lock.Revision{0, 9, j.Last() + 1} {
			var compacted *lock.CompactedError
			if _, _, err := j.Events(t.Context(), lock.Pattern{}, after, j.Last()); !errors.As(err, &compacted) || compacted.Kept != 10 {
				t.Errorf("pass %d: Events(%d): got error %v, want a CompactedError with 10", pass, after, err)
			}
		}
	}
}

func reopened(t *testing.T, m *memory) *Journal {
	t.Helper()
	j, _ := mustOpen(t, m.clone(), Config{})
	return j
}

// TestReadWhileWriting reads behind a writer that begins new segments.
func TestReadWhileWriting(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, smallConfig)
	const last = 600
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for after := lock.Revision(0); after < last; {
				events, _, err := j.Events(t.Context(), lock.Pattern{}, after, j.Last())
				if err != nil {
					t.Errorf("Events(%d): %v", after, err)
					return
				}
				for _, e := range events {
					if e.Revision != after+1 {
						t.Errorf("after revision %d comes %d", after, e.Revision)
						return
					}
					after = e.Revision
				}
			}
		})
	}
	for revision := 1; revision <= last; revision++ {
		mustCommit(t, j, commitOf(event(revision, strings.Repeat("x", revision%50))))
	}
	readers.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(m.segments()); n < 5 {
		t.Errorf("there are %d segments; the test wants some", n)
	}
}

// TestSegmentWithoutEvents fills more than a segment with records that have no
// revision of their own, for which a segment could be named.
func TestSegmentWithoutEvents(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, smallConfig)
	mustCommit(t, j, commitOf(event(1, "")))
	const renewals = 200
	for range renewals {
		mustCommit(t, j, commitOf(Record{Kind: KindExtended, Event: event(1, "").Event}))
	}
	mustCommit(t, j, commitOf(event(2, "")))
	mustCommit(t, j, commitOf(event(3, "")))
	if n := len(m.segments()); n < 2 {
		t.Errorf("there is %d segment after the events; want another", n)
	}
	_, records := mustOpen(t, m.afterPowerCut(), smallConfig)
	if got := revisionsOf(records); !slices.Equal(got, []lock.Revision{1, 2, 3}) || len(records) < renewals+3 {
		t.Errorf("revisions %v and %d records are there, want 1, 2, 3 and all renewals", got, len(records))
	}
}

// A power cut while a segment is begun takes none of what is carried into it: it is in
// the segment before, which a start then replays although its events are known.
func TestBeginningCutShort(t *testing.T) {
	m := newMemory()
	carried := commitOf(
		Record{Kind: KindExtended, Event: event(1, "the first hold").Event},
		Record{Kind: KindExtended, Event: event(2, "the second hold").Event},
	)
	config := smallConfig
	config.Carry = func() []Record { return carried }
	j, _ := mustOpen(t, m, config)
	mustCommit(t, j, commitOf(event(1, "")))
	mustCommit(t, j, slices.Clone(carried), commitOf(Record{Kind: KindExtended, Event: event(3, strings.Repeat("x", int(config.SegmentBytes))).Event}))
	mustCommit(t, j, commitOf(event(2, ""))) // begins a segment
	if n := len(m.segments()); n != 2 {
		t.Fatalf("there are %d segments, want 2", n)
	}
	whole := m.last(t).text
	size := bytes.Index(whole, []byte(`{"revision":2`)) // where what is carried ends
	for cut := range size + 1 {
		after := m.clone()
		after.last(t).text = append(bytes.Clone(whole[:cut]), make([]byte, 100)...)
		config.After = 1 // all events of the first segment
		j, records := mustOpen(t, after, config)
		holders := make(map[string]bool)
		for _, r := range records {
			if r.Kind == KindExtended {
				holders[r.Event.Lock.Holder] = true
			}
		}
		if !holders["the first hold"] || !holders["the second hold"] {
			t.Fatalf("with %d of %d bytes of the new segment the terms of %v are known, want those of both holds", cut, size, holders)
		}
		goOn(t, fmt.Sprintf("cut at %d", cut), after, j, []lock.Revision{1})
	}
}

// TestCleanStop leaves no room behind the lines, and another start goes on.
func TestCleanStop(t *testing.T) {
	m := newMemory()
	for round := range 5 {
		j, records := mustOpen(t, m, smallConfig)
		if got := revisionsOf(records); len(got) != round {
			t.Fatalf("round %d: %d revisions are there", round, len(got))
		}
		mustCommit(t, j, commitOf(event(round+1, "")))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		text := m.last(t).text
		if behind := len(text) - bytes.LastIndexByte(text, '\n') - 1; int64(behind) != smallConfig.ReserveBytes {
			t.Errorf("round %d: after Close there are %d bytes behind the last line, want the reserve of %d", round, behind, smallConfig.ReserveBytes)
		}
	}
}

// TestWriteFaults fails every operation of a few batches once, in several ways, and
// looks what a crash and a power cut then leave.
func TestWriteFaults(t *testing.T) {
	faults := map[string]error{
		"ENOSPC":                syscall.ENOSPC,
		"EIO":                   syscall.EIO,
		"EROFS":                 syscall.EROFS,
		"EMFILE":                syscall.EMFILE,
		"a short write":         &shortWrite{100, syscall.ENOSPC},
		"nearly a whole write":  &shortWrite{1 << 20, syscall.EIO},
		"a write of some lines": &shortWrite{600, syscall.EIO},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				if !runWithFault(t, n, fault, false) {
					break
				}
			}
		})
		t.Run(name+" from then on", func(t *testing.T) {
			for n := 1; ; n++ {
				if !runWithFault(t, n, fault, true) {
					break
				}
			}
		})
	}
}

// runWithFault writes batches while the n-th operation fails, or all from it on,
// and reports whether there was such an operation.
func runWithFault(t *testing.T, n int, fault error, onwards bool) (failed bool) {
	t.Helper()
	what := fmt.Sprintf("operation %d", n)
	m := newMemory()
	count, synced := 0, true
	m.before = func(op, name string) error {
		count++
		if !synced && (op == "write" || op == "datasync") && strings.HasPrefix(name, dir) {
			t.Errorf("%s: %s of %s after a sync that failed", what, op, name)
		}
		if count == n || onwards && count > n {
			failed = true
			what = fmt.Sprintf("operation %d, %s of %s", n, op, name)
			return fault
		}
		return nil
	}
	fate := make(map[lock.Revision]string)
	j, _, err := open(m, Config{SegmentBytes: 1 << 10, ChunkBytes: 1 << 10, ReserveBytes: 256})
	if err == nil {
		revision := 1
		for batch := range 8 {
			records := commitOf(event(revision, "a"), event(revision+1, strings.Repeat("b", 40*batch)), event(revision+2, "c"))
			err := j.Write(batch%3 == 0, records...)
			word := "refused"
			switch {
			case err == nil:
				word = "durable"
				if err := j.Sync(j.Written()); err != nil {
					word, synced = "unknown", false
				}
			case !errors.Is(err, ErrNoRoom):
				word, synced = "unknown", false
			}
			for _, r := range revisionsOf(records) {
				fate[r] = word
			}
			revision += 3
		}
		_ = j.Close()
	}
	m.before = nil
	for after, m := range map[string]*memory{"a crash": m.clone(), "a power cut": m.afterPowerCut()} {
		_, records, err := open(m, smallConfig)
		if err != nil {
			t.Errorf("%s: after %s: %v", what, after, err)
			continue
		}
		got := revisionsOf(records)
		for r, word := range fate {
			there := slices.Contains(got, r)
			if word == "durable" && !there || word == "refused" && there {
				t.Errorf("%s: after %s: revision %d was %s, and is there: %v (all: %v)", what, after, r, word, there, got)
			}
		}
		if len(got)%3 != 0 {
			t.Errorf("%s: after %s: a commit is torn: %v", what, after, got)
		}
	}
	return failed
}

// TestReserveOutlivesStop stops a journal on a full disk, cleanly or not, and opens it
// there: what the reserve is for still works.
func TestReserveOutlivesStop(t *testing.T) {
	for _, stop := range []string{"clean", "killed", "torn"} {
		t.Run(stop, func(t *testing.T) {
			m := newMemory()
			config := Config{SegmentBytes: 1 << 20, ChunkBytes: 4 << 10, ReserveBytes: 2 << 10}
			j, _ := mustOpen(t, m, config)
			mustCommit(t, j, commitOf(event(1, "")))
			full := func(op, _ string) error {
				if op == "allocate" || op == "create" {
					return syscall.ENOSPC
				}
				return nil
			}
			m.before = full
			last := 1
			for round := range 4 {
				if stop == "torn" {
					text := m.last(t).text
					copy(text[j.written:], "half a line")
				}
				if stop == "clean" {
					if err := j.Close(); err != nil {
						t.Fatal(err)
					}
				}
				var records []Record
				if j, records = mustOpen(t, m, config); len(revisionsOf(records)) != last {
					t.Fatalf("round %d: %d revisions are there, want %d", round, len(revisionsOf(records)), last)
				}
				last++
				if err := j.Write(true, commitOf(event(last, ""))...); err != nil {
					t.Fatalf("round %d: a release: %v", round, err)
				}
				if err := j.Sync(j.Written()); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.Write(false, commitOf(event(last+1, strings.Repeat("x", 4<<10)))...); !errors.Is(err, ErrNoRoom) {
				t.Errorf("a grant on a full disk: %v, want ErrNoRoom", err)
			}
		})
	}
}

// TestReserve fills the disk: what is reserved may still be written, and when
// there is room again all goes on.
func TestReserve(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, Config{SegmentBytes: 1 << 20, ChunkBytes: 4 << 10, ReserveBytes: 2 << 10})
	mustCommit(t, j, commitOf(event(1, "")))
	m.before = func(op, _ string) error {
		if op == "allocate" || op == "create" {
			return syscall.ENOSPC
		}
		return nil
	}
	revision := 2
	write := func(reserved bool) error {
		err := j.Write(reserved, commitOf(event(revision, strings.Repeat("x", 100)))...)
		if err == nil {
			err = j.Sync(j.Written())
			revision++
		}
		return err
	}
	fill := func(reserved bool) (n int) {
		for {
			err := write(reserved)
			if errors.Is(err, ErrNoRoom) && errors.Is(err, syscall.ENOSPC) {
				return n
			}
			if n++; err != nil || n > 1000 {
				t.Fatalf("write %d: got error %v, want ErrNoRoom in the end", n, err)
			}
		}
	}
	fill(false)
	if n := fill(true); n < 4 {
		t.Errorf("%d changes fit into the reserve of 2 KiB", n)
	}
	m.before = nil
	if err := write(false); err != nil {
		t.Errorf("with room again: %v", err)
	}
	_, records := mustOpen(t, m.afterPowerCut(), smallConfig)
	if got := revisionsOf(records); len(got) != revision-1 {
		t.Errorf("%d of %d changes are there", len(got), revision-1)
	}
}

// TestLostSync is the proof that these tests would notice: on a disk that only
// says that it has synced, a power cut costs a change.
func TestLostSync(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, smallConfig)
	mustCommit(t, j, commitOf(event(1, "")))
	m.lying = true
	mustCommit(t, j, commitOf(event(2, "")))
	_, records := mustOpen(t, m.afterPowerCut(), smallConfig)
	if got := revisionsOf(records); !slices.Equal(got, []lock.Revision{1}) {
		t.Errorf("after a power cut on a lying disk revisions %v are there, want 1 alone", got)
	}
}

// TestFailedSyncThenPowerCut restarts on a disk that failed one sync, as Linux
// does it: what was to be written counts as written, can be read, and is not there
// after a power cut unless it is written again. What a start has once believed must
// not vanish.
func TestFailedSyncThenPowerCut(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, smallConfig)
	mustCommit(t, j, commitOf(event(1, "")))
	if err := j.Write(false, commitOf(event(2, ""), event(3, ""))...); err != nil {
		t.Fatal(err)
	}
	m.before = func(op, _ string) error {
		if op == "datasync" {
			return syscall.EIO
		}
		return nil
	}
	if err := j.Sync(j.Written()); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync: got error %v, want EIO", err)
	}
	m.before = nil
	j, records := mustOpen(t, m, smallConfig)
	believed := revisionsOf(records)
	mustCommit(t, j, commitOf(event(4, "")))
	_, records = mustOpen(t, m.afterPowerCut(), smallConfig)
	if got, want := revisionsOf(records), append(believed, 4); !slices.Equal(got, want) {
		t.Errorf("after the power cut revisions %v are there, want %v", got, want)
	}
}

// TestReplayStops: an error of the caller's ends Open.
func TestReplayStops(t *testing.T) {
	tl := writeTail(t)
	_, err := Open(tl.memory, dir, Config{}, func(Record) error { return context.Canceled })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want the caller's", err)
	}
}
