package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// past is a journal of several segments whose events are of many names, actors and causes,
// by a clock that is set back and forth.
type past struct {
	memory  *memory
	journal *Journal
	events  []lock.Event
	queries []lock.HistoryQuery
}

func noBreaks(j *Journal) *Breaks { return NewBreaks(j.fs, "breaks") }

func writePast(t testing.TB, events int, config Config) *past {
	t.Helper()
	p := &past{memory: newMemory()}
	var err error
	p.journal, err = Open(p.memory, dir, config, func(Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(7, 7))
	clock := time.Date(2026, 11, 22, 19, 0, 0, 0, time.UTC)
	for i := range events {
		r := event(2*i+1, "x") // with gaps
		e := &r.Event
		switch clock = clock.Add(time.Second); {
		case random.IntN(50) == 0:
			clock = clock.Add(-time.Minute)
		case random.IntN(50) == 0:
			clock = clock.Add(time.Hour)
		}
		name := "often"
		if random.IntN(3) > 0 {
			name = fmt.Sprintf("%s/%d", []string{"a", "a/b", "lb", "lb/c"}[random.IntN(4)], random.IntN(40))
		}
		if random.IntN(12) == 0 {
			name = fmt.Sprintf("a/1%d/%s", random.IntN(10), []string{"_+1", "_+10", "_+x", "_x", "x"}[random.IntN(5)])
		}
		e.Lock.Name = lock.MustParseName(name)
		e.Time = clock
		e.Actor = []string{"alice", "bob", `"carol" & co`, ""}[random.IntN(4)]
		if random.IntN(10) == 0 {
			e.Cause = lock.Forced
		}
		p.events = append(p.events, *e)
		records := []Record{r}
		if i%7 == 0 {
			records = append(records, Record{Kind: KindExtended, Event: lock.Event{Lock: e.Lock}}, Record{Kind: KindCheckpoint, Revision: e.Revision})
		}
		err := p.journal.Write(false, records...)
		if i%100 == 99 || i == events-1 {
			err = errors.Join(err, p.journal.Sync(p.journal.Written()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	middle := p.events[events/2]
	for _, q := range []lock.HistoryQuery{
		{},
		{Pattern: lock.MustParsePattern("often")},
		{Pattern: lock.MustParsePattern("a/17")},
		{Pattern: lock.MustParsePattern("a/17").WithSlots()},
		{Pattern: lock.MustParsePattern("a/17").WithSlots().Where(lock.NewFilter(func(name string) bool { return name != "a/17/_+1" }))},
		{Pattern: lock.MustParseName("a/17").Slots()},
		{Pattern: lock.MustParseName("a/17").Below()},
		{Pattern: lock.MustParsePattern("a/1*")},
		{Pattern: lock.MustParsePattern("a/**")},
		{Pattern: lock.MustParsePattern("**/3")},
		{Pattern: lock.MustParsePattern("lb/c/7"), Actor: "bob"},
		{Pattern: lock.MustParsePattern("none")},
		{Pattern: lock.MustParsePattern("a")},
		{Actor: `"carol" & co`},
		{Cause: lock.Forced},
		{AfterTime: middle.Time},
		{BeforeTime: middle.Time},
		{AfterTime: middle.Time.Add(-time.Minute), BeforeTime: middle.Time.Add(time.Minute)},
		{Pattern: lock.MustParsePattern("lb/*"), AfterTime: middle.Time},
	} {
		for _, q.After = range []lock.Revision{0, middle.Revision} {
			for _, q.NewestFirst = range []bool{false, true} {
				p.queries = append(p.queries, q)
			}
		}
	}
	return p
}

// check holds what a journal tells to what was written.
func (p *past) check(t *testing.T, what string, j *Journal) {
	t.Helper()
	for i, q := range p.queries {
		var want []lock.Event
		for _, e := range p.events {
			if q.Match(&e) {
				want = append(want, e)
			}
		}
		if q.NewestFirst {
			slices.Reverse(want)
		}
		var got []lock.Event
		for from := lock.Revision(0); ; {
			page, err := j.History(t.Context(), noBreaks(j), Query{HistoryQuery: q, From: from, Until: j.Last(), Limit: 7 + i%5*100})
			if err != nil {
				t.Fatalf("%s: %+v: %v", what, q, err)
			}
			got = append(got, page.Events...)
			if from = page.Next; from == 0 {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %+v: got %d events, want %d", what, q, len(got), len(want))
		}
	}
}

// indexes returns the index files.
func (p *past) indexes() map[string][]byte {
	files := make(map[string][]byte)
	for name, c := range p.memory.files {
		if strings.HasSuffix(name, indexSuffix) {
			files[name] = bytes.Clone(c.text)
		}
	}
	return files
}

func mustIndex(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.BuildIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// reopen opens the journal as a start does.
func (p *past) reopen(t testing.TB, config Config) *Journal {
	t.Helper()
	j, err := Open(p.memory, dir, config, func(Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestIndexes: the history is the same by indexes in memory, by files made of those, by
// files made of the segments, and without any.
func TestIndexes(t *testing.T) {
	p := writePast(t, 1200, Config{SegmentBytes: 64 << 10, ChunkBytes: 4 << 10, ReserveBytes: 512})
	segments := len(p.journal.segments)
	if segments < 4 {
		t.Fatalf("%d segments are too few", segments)
	}
	p.check(t, "in memory", p.journal)
	mustIndex(t, p.journal)
	made := p.indexes()
	if len(made) != segments-1 {
		t.Fatalf("%d indexes of %d segments, want all but the active one", len(made), segments)
	}
	p.check(t, "in files", p.journal)
	for i, s := range p.journal.segments {
		if isActive := i == segments-1; (s.recent != nil) != isActive || (s.indexBytes > 0) == isActive {
			t.Errorf("segment %d of %d: in memory %v, in a file %d bytes", i, segments, s.recent != nil, s.indexBytes)
		}
	}

	j := p.reopen(t, smallConfig)
	p.check(t, "after a start", j)
	clear := func(names ...string) {
		for _, name := range names {
			delete(p.memory.files, name)
		}
	}
	clear(slices.Collect(maps.Keys(made))...)
	p.check(t, "without files", j)
	select {
	case <-j.Unindexed():
	default:
		t.Error("nobody is told that files are missing")
	}
	mustIndex(t, j)
	p.check(t, "made again", j)
	for name, text := range p.indexes() {
		if !bytes.Equal(text, made[name]) {
			t.Errorf("%s made of the segment is not what was made of memory", name)
		}
	}

	// Each page reads so little that most are empty.
	few := smallConfig
	few.HistoryBytes = 2 << 10
	p.check(t, "in small steps", p.reopen(t, few))
	clear(slices.Collect(maps.Keys(made))...)
	p.check(t, "in small steps, without files", p.reopen(t, few))
	mustIndex(t, p.reopen(t, few))

	stray := dir + "/00000000000000000077" + indexSuffix
	p.memory.files[stray] = &content{}
	if p.reopen(t, smallConfig); p.memory.files[stray] != nil {
		t.Error("an index of no segment is still there after a start")
	}
}

var everyByte = flag.Bool("every-byte", false, "TestDamagedIndexes damages each byte of an index, and not only some")

// TestDamagedIndexes damages bytes of an index, all over it, or has that of another segment or of
// another format: the history is right all the same, and the index made again.
func TestDamagedIndexes(t *testing.T) {
	p := writePast(t, 500, Config{SegmentBytes: 64 << 10, ChunkBytes: 4 << 10, ReserveBytes: 512})
	mustIndex(t, p.journal)
	made := p.indexes()
	names := slices.Sorted(maps.Keys(made))
	name := names[0]
	text := made[name]
	other := writePast(t, 450, Config{SegmentBytes: 63 << 10, ChunkBytes: 4 << 10, ReserveBytes: 512})
	mustIndex(t, other.journal)
	damaged := map[string][]byte{
		"empty":              {},
		"of another journal": other.indexes()[name],
		"zeros":              make([]byte, len(text)),
	}
	for i := 0; i < len(text); i++ {
		if isEnd := i >= len(text)-indexEnd; !*everyByte && i%101 > 0 && (!isEnd || i%7 > 0) {
			continue
		}
		flipped := bytes.Clone(text)
		flipped[i] ^= 1 << (i % 8)
		damaged[fmt.Sprintf("a bit of byte %d", i)] = flipped
		damaged[fmt.Sprintf("%d bytes", i)] = text[:i]
	}
	later := bytes.Clone(text[:len(text)-4])
	later[len(later)+4-indexEnd+len(indexText)]++
	damaged["another format"] = appendChecked(later, len(later)+4-indexEnd)
	// Few queries, but such that all blocks are read.
	var queries []lock.HistoryQuery
	for _, q := range p.queries {
		if pattern := q.Pattern.String(); q.After == 0 && (pattern == "**/3" || pattern == "a/17" || pattern == "" && !q.AfterTime.IsZero()) {
			queries = append(queries, q)
		}
	}
	p.queries = queries
	for what, damage := range damaged {
		for _, looksFirst := range []bool{false, true} {
			p.memory.files[name] = &content{text: bytes.Clone(damage)}
			j := p.reopen(t, smallConfig)
			if looksFirst {
				// Before anybody has asked: what begins and ends well is believed.
				mustIndex(t, j)
			}
			p.check(t, what, j)
			mustIndex(t, j)
			if !bytes.Equal(p.memory.files[name].text, text) {
				t.Fatalf("%s: the index has not been made again", what)
			}
			p.check(t, what+", made again", j)
		}
	}
}

// TestIndexSpares: to find few events takes few reads of few bytes.
func TestIndexSpares(t *testing.T) {
	p := writePast(t, 4000, Config{SegmentBytes: 256 << 10, ChunkBytes: 4 << 10, ReserveBytes: 512})
	mustIndex(t, p.journal)
	first := p.events[0].Time.Add(-time.Hour) // the clock is set back
	for _, q := range []lock.HistoryQuery{
		{Pattern: lock.MustParsePattern("none")},
		{Pattern: lock.MustParsePattern("none/*")},
		{Pattern: lock.MustParsePattern("a/17"), BeforeTime: first},
		{BeforeTime: first},
		{AfterTime: time.Now().Add(24 * 365 * time.Hour), NewestFirst: true},
	} {
		s := &search{ctx: t.Context(), journal: p.journal, Query: Query{HistoryQuery: q, Limit: 10}, high: p.journal.Last(), budget: p.journal.config.HistoryBytes}
		if err := s.round(noBreaks(p.journal)); err != nil {
			t.Fatal(err)
		}
		read := p.journal.config.HistoryBytes - s.budget
		if most := int64(64 << 10); read > most || len(s.page.Events) > 0 {
			t.Errorf("%+v: %d bytes are read for %d events; want at most %d, for none", q, read, len(s.page.Events), most)
		}
	}
}

// TestIndexPointsAtDamage: a line that the index names and that is damaged is told of, like
// one that is read by the way.
func TestIndexPointsAtDamage(t *testing.T) {
	p := writePast(t, 500, Config{SegmentBytes: 64 << 10, ChunkBytes: 4 << 10, ReserveBytes: 512})
	mustIndex(t, p.journal)
	text := p.memory.files[p.memory.segments()[0]].text
	at := bytes.Index(text[probeBytes:], []byte(`"name":"often"`)) + probeBytes
	text[at+9]++
	for _, newest := range []bool{false, true} {
		_, err := p.journal.History(t.Context(), noBreaks(p.journal), Query{HistoryQuery: lock.HistoryQuery{Pattern: lock.MustParsePattern("often"), NewestFirst: newest}, Until: p.journal.Last(), Limit: 1000})
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Errorf("newest first %v: %v, want a DamageError", newest, err)
		}
	}
}

// TestIndexCannotBeMade: a disk that is full costs no event, and leaves no half an index.
func TestIndexCannotBeMade(t *testing.T) {
	p := writePast(t, 500, Config{SegmentBytes: 64 << 10, ChunkBytes: 4 << 10, ReserveBytes: 512})
	full := errors.New("the disk is full")
	p.memory.before = func(op, name string) error {
		if op == "write" && strings.HasSuffix(name, indexSuffix) {
			return &shortWrite{100, full}
		}
		return nil
	}
	for range 2 {
		if err := p.journal.BuildIndexes(t.Context()); !errors.Is(err, full) {
			t.Fatalf("BuildIndexes: %v", err)
		}
		p.check(t, "on a full disk", p.journal)
		if n := len(p.indexes()); n != 0 {
			t.Errorf("%d indexes are there", n)
		}
	}
	p.memory.before = nil
	mustIndex(t, p.journal)
	p.check(t, "when there is room again", p.journal)
}

// TestHistoryBesideWriting asks for the past while it is being made, indexed and pruned:
// of what is still there at the end nothing is left out.
func TestHistoryBesideWriting(t *testing.T) {
	m := newMemory()
	j, _ := mustOpen(t, m, smallConfig)
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() {
		for ctx.Err() == nil {
			if err := j.BuildIndexes(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			select {
			case <-j.Unindexed():
			case <-ctx.Done():
			}
		}
	})
	for _, newest := range []bool{false, true} {
		working.Go(func() {
			for ctx.Err() == nil {
				last := j.Last()
				q := lock.HistoryQuery{Pattern: lock.MustParsePattern("lb/server-3"), NewestFirst: newest}
				var got []lock.Revision
				for from := lock.Revision(0); ; {
					page, err := j.History(t.Context(), noBreaks(j), Query{HistoryQuery: q, From: from, Until: last, Limit: 7})
					if err != nil {
						t.Error(err)
						return
					}
					for _, e := range page.Events {
						got = append(got, e.Revision)
					}
					if from = page.Next; from == 0 {
						break
					}
				}
				if newest {
					slices.Reverse(got)
				}
				kept := j.Kept() // what is older may have gone while it was read
				got = slices.DeleteFunc(got, func(r lock.Revision) bool { return r <= kept })
				var want []lock.Revision
				for revision := kept + 1; revision <= last; revision++ {
					if revision%5 == 3 {
						want = append(want, revision)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("newest first %v, from %d up to %d: got %v, want %v", newest, kept, last, got, want)
					return
				}
			}
		})
	}
	for revision := 1; revision <= 3000; revision++ {
		mustCommit(t, j, commitOf(event(revision, "x")))
		if files := j.Prunable(Retention{Age: time.Hour, Bytes: 40 << 10}, lock.Revision(revision)); len(files) > 0 {
			j.Prune(len(files))
			for _, file := range files {
				if err := m.Remove(file); err != nil {
					t.Error(err)
				}
				_ = m.Remove(IndexFile(file)) // there may be none
			}
		}
	}
	stop()
	working.Wait()
}

// FuzzIndex reads what may be anything as an index and asks it for names.
func FuzzIndex(f *testing.F) {
	p := writePast(f, 300, Config{SegmentBytes: 64 << 10, ChunkBytes: 4 << 10, ReserveBytes: 512})
	mustIndex(f, p.journal)
	s := p.journal.segments[0]
	segment := p.memory.files[p.memory.segments()[0]].text
	sum, err := seal(bytes.NewReader(segment), s)
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range p.indexes() {
		f.Add(text, "a/*", true)
		f.Add(text, "often", false)
		f.Add(text[:len(text)-1], "", true)
	}
	f.Fuzz(func(t *testing.T, text []byte, pattern string, mends bool) {
		if mends && len(text) > indexEnd {
			// So that what is behind the checksums is reached.
			text = bytes.Clone(text)
			end := len(text) - indexEnd
			copy(text[end:], indexText)
			if x, err := readIndex(bytes.NewReader(text), int64(len(text)), s, sum); err == nil {
				for _, b := range x.table.blocks {
					body := text[b.at : b.at+b.length]
					copy(body, appendChecked(bytes.Clone(body[:max(len(body)-4, 0)]), 0))
				}
			}
		}
		x, err := readIndex(bytes.NewReader(text), int64(len(text)), s, sum)
		if err == nil {
			q, err := lock.ParsePattern(pattern)
			if err != nil {
				return
			}
			_, _ = x.find(q, func(places []int64) bool {
				if len(places) == 0 || !slices.IsSorted(places) {
					t.Errorf("places %v", places)
				}
				return true
			})
		}
		// The list and a block alone, as if they had been written so.
		_, _ = parseList(bytes.NewReader(text), text, 0)
		for c := (cursor{rest: text}); c.next(); {
			if _, err := c.places(); err != nil {
				break
			}
		}
	})
}
