package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// historyBytes is how much one History reads, about, so that it is bounded although its
// query selects few events.
const historyBytes = 32 << 20

// Query is what History is asked for.
type Query struct {
	lock.HistoryQuery
	// From is where to go on: the Next of the page before, 0 for the first page.
	From lock.Revision
	// Until leaves out events whose revision is higher.
	Until lock.Revision
	// Limit is how many events a page may have.
	Limit int
}

// History returns a page of the past: durable events, and those of breaks from before the
// oldest segment. See lock.Store for what a page is.
func (j *Journal) History(ctx context.Context, breaks *Breaks, q Query) (lock.HistoryPage, error) {
	s := &search{ctx: ctx, Query: q, journal: j, budget: historyBytes, needles: needlesOf(q.HistoryQuery)}
	s.low, s.high = q.After, q.Until
	switch {
	case q.NewestFirst && q.From > 0:
		s.high = min(s.high, q.From-1)
	case !q.NewestFirst:
		s.low = max(s.low, q.From)
	}
	for s.low < s.high {
		err := s.round(breaks)
		switch {
		case errors.Is(err, errPageFull):
			s.page.Next = s.low
			if q.NewestFirst {
				s.page.Next = s.high + 1
			}
			return s.page, nil
		case errors.Is(err, errPruned): // what there is has to be found anew
		case err != nil:
			return lock.HistoryPage{}, err
		default:
			return s.page, nil
		}
	}
	return s.page, nil
}

var (
	errPageFull = errors.New("the page is full")
	errPruned   = errors.New("the segment has been pruned meanwhile")
)

// search is a History at work. It looks at events one after the other, in the order that
// is asked for; those between low and high are left.
type search struct {
	Query
	ctx     context.Context
	journal *Journal
	needles [][]byte // what a line that is asked for has in it

	low, high lock.Revision // exclusive and inclusive
	moved     bool          // low or high has
	budget    int64         // bytes that may still be read
	bytes     int           // of the page
	page      lock.HistoryPage
}

// source is a file with events of a range of revisions, in their order.
type source struct {
	name   string
	after  lock.Revision // of the range, exclusive
	last   lock.Revision // of the range, inclusive
	end    int64         // of the lines that count; -1: all do
	breaks bool          // it is the file of breaks, in which damaged lines are passed over
}

// round looks at what there is now.
func (s *search) round(breaks *Breaks) error {
	j := s.journal
	j.mu.Lock()
	segments, kept, last := slices.Clone(j.segments), j.kept, j.last
	j.mu.Unlock()
	sources := []source{{name: breaks.name, last: kept, end: -1, breaks: true}}
	for i, segment := range segments {
		to := last
		if i+1 < len(segments) {
			to = segments[i+1].after
		}
		sources = append(sources, source{name: j.path(segment), after: segment.after, last: to, end: segment.end})
	}
	if s.NewestFirst {
		slices.Reverse(sources)
	}
	for _, src := range sources {
		if src.last <= s.low || src.after >= s.high {
			continue
		}
		if err := s.read(src); err != nil {
			return err
		}
		// All of it has been looked at.
		if s.NewestFirst {
			s.high = min(s.high, src.after)
		} else {
			s.low = max(s.low, src.last)
		}
		if s.moved = true; s.budget <= 0 && s.low < s.high {
			return errPageFull
		}
	}
	return nil
}

// read looks at the events of a source.
func (s *search) read(src source) error {
	f, err := disk.OpenRegular(s.journal.fs, src.name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		switch {
		case src.breaks:
			return nil
		case s.journal.Kept() > src.after:
			return errPruned
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if src.end < 0 {
		stat, err := f.Stat()
		if err != nil {
			return err
		}
		src.end = stat.Size
	}
	r := io.NewSectionReader(f, 0, src.end)
	from, to := int64(0), src.end
	if s.low > src.after {
		from, _, err = bisect(r, s.low)
	}
	if err == nil && s.high < src.last {
		_, to, err = bisect(r, s.high)
		to = min(to+1, src.end) // the line that begins there may be one of them
	}
	if err != nil && src.breaks {
		from, to, err = 0, src.end, nil // a damaged line is in the way
	}
	if err != nil {
		return fmt.Errorf("searching %s: %w", src.name, err)
	}
	take := func(line []byte, offset int64) error {
		err := s.take(line)
		if err != nil && !errors.Is(err, errPageFull) {
			if src.breaks {
				return nil
			}
			return &DamageError{File: src.name, Offset: offset, Err: err}
		}
		return err
	}
	if s.NewestFirst {
		err = s.backward(r, from, to, take)
	} else {
		err = s.forward(r, from, to, take)
	}
	return err
}

// forward calls take with the lines that begin at the offset from, which is the beginning
// of one, and before to.
func (s *search) forward(r *io.SectionReader, from, to int64, take func(line []byte, offset int64) error) error {
	for size := int64(readBytes); from < to; {
		text, err := s.text(r, from, min(from+size, r.Size()))
		if err != nil {
			return err
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1]
		if len(whole) == 0 {
			if from+size >= r.Size() {
				return nil
			}
			size *= 2 // a long line
			continue
		}
		for line := range bytes.Lines(whole) {
			if err := take(line, from); err != nil || from >= to {
				return err
			}
			from += int64(len(line))
		}
	}
	return nil
}

// backward is forward, the last line first.
func (s *search) backward(r *io.SectionReader, from, to int64, take func(line []byte, offset int64) error) error {
	// The last line may end behind to.
	for size := int64(readBytes); to < r.Size(); size *= 2 {
		text, err := s.text(r, to, min(to+size, r.Size()))
		if err != nil {
			return err
		}
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			to += int64(end) + 1
			break
		}
		if to+size >= r.Size() {
			break
		}
	}
	for size := int64(readBytes); from < to; {
		begin := max(from, to-size)
		text, err := s.text(r, begin, to)
		if err != nil {
			return err
		}
		if begin > from {
			// The first line is cut off, unless it happens to begin there.
			cut := bytes.IndexByte(text, '\n') + 1
			if cut == 0 || cut == len(text) {
				size *= 2 // a long line
				continue
			}
			begin, text = begin+int64(cut), text[cut:]
		}
		to = begin
		text = text[:bytes.LastIndexByte(text, '\n')+1]
		for len(text) > 0 {
			start := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
			if err := take(text[start:], begin+int64(start)); err != nil {
				return err
			}
			text = text[:start]
		}
	}
	return nil
}

// text reads what is between two offsets.
func (s *search) text(r io.ReaderAt, from, to int64) ([]byte, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	text := make([]byte, to-from)
	s.budget -= to - from
	_, err := r.ReadAt(text, from)
	return text, err
}

// take looks at a line, with its newline. The error is errPageFull if it is of an event
// that is left for the next page.
func (s *search) take(line []byte) error {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if err := verify(line); err != nil {
		return err
	}
	revision, isEvent := eventRevision(line)
	if isEvent && (revision <= s.low || revision > s.high) {
		return nil
	}
	if isEvent && (len(s.page.Events) >= s.Limit || s.bytes >= lock.MaxPageBytes || s.budget <= 0 && s.moved) {
		return errPageFull
	}
	for _, needle := range s.needles {
		if isEvent && !bytes.Contains(line, needle) {
			s.pass(revision)
			return nil
		}
	}
	record, err := parseRecord(line)
	if err != nil || record.Kind != KindEvent {
		return err
	}
	s.pass(record.Event.Revision)
	if s.Match(&record.Event) {
		s.page.Events = append(s.page.Events, record.Event)
		s.bytes += record.Event.Size()
	}
	return nil
}

// pass says that an event has been looked at.
func (s *search) pass(revision lock.Revision) {
	s.moved = true
	if s.NewestFirst {
		s.high = revision - 1
	} else {
		s.low = revision
	}
}

// eventRevision returns the revision of the event that a line is about, without more than
// a look at its beginning.
func eventRevision(line []byte) (lock.Revision, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"revision":`))
	if !ok {
		return 0, false
	}
	revision, err := number[lock.Revision](rest[:max(bytes.IndexByte(rest, ','), 0)])
	return revision, err == nil
}

// needlesOf returns texts that the line of every event has that q selects. A line without
// one of them need not be read, only verified.
func needlesOf(q lock.HistoryQuery) (needles [][]byte) {
	add := func(key, text, end string) {
		isPlain := func(r rune) bool {
			return '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || bytes.ContainsRune([]byte(" /-._@:"), r)
		}
		for _, r := range text {
			if !isPlain(r) {
				return // there is more than one way to write it
			}
		}
		if text != "" {
			needles = append(needles, []byte(`,"`+key+`":"`+text+end))
		}
	}
	add("name", q.Pattern.Prefix(), "")
	add("actor", q.Actor, `"`)
	if q.Cause != 0 {
		add("cause", q.Cause.String(), `"`)
	}
	return needles
}
