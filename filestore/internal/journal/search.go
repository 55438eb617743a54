package journal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

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
	spent     bool          // it is used up
	bytes     int           // of the page
	page      lock.HistoryPage
}

// source is a file with events of a range of revisions, in their order.
type source struct {
	name   string
	after  lock.Revision // of the range, exclusive
	last   lock.Revision // of the range, inclusive
	breaks bool          // it is the file of breaks, in which damaged lines are passed over
	segment
	index *index // of the active segment
}

// round looks at what there is now.
func (s *search) round(breaks *Breaks) error {
	sources := s.journal.sources(breaks)
	if s.NewestFirst {
		slices.Reverse(sources)
	}
	for i := range sources {
		src := &sources[i]
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

// sources returns what there is to be read, oldest first.
func (j *Journal) sources(breaks *Breaks) []source {
	j.mu.Lock()
	defer j.mu.Unlock()
	var sources []source
	if breaks != nil {
		sources = append(sources, source{name: breaks.name, last: j.kept, breaks: true})
	}
	for i, s := range j.segments {
		src := source{name: j.path(s), after: s.after, last: j.last, segment: s}
		if i+1 < len(j.segments) {
			src.last = j.segments[i+1].after
		}
		if s.recent != nil {
			src.index = s.recent.index()
		}
		sources = append(sources, src)
	}
	return sources
}

// read looks at the events of a source.
func (s *search) read(src *source) error {
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
	if src.breaks {
		stat, err := f.Stat()
		if err != nil {
			return err
		}
		src.end = stat.Size
	}
	l := &lines{ctx: s.ctx, r: io.NewSectionReader(f, 0, src.end)}
	defer func() { s.budget -= l.read }()
	if s.selective() && !src.breaks {
		err := s.readIndexed(src, l)
		if !errors.Is(err, errNoIndex) {
			return err
		}
	}
	return s.readAll(src, l, nil)
}

// bounds returns offsets between which all lines begin that are between low and high.
func (s *search) bounds(src *source, l *lines) (from, to int64, err error) {
	to = src.end
	if s.low > src.after {
		from, _, err = bisect(l.r, s.low)
	}
	if err == nil && s.high < src.last {
		_, to, err = bisect(l.r, s.high)
		to = min(to+1, src.end) // the line that begins there may be one of them
	}
	if err != nil && src.breaks { // a damaged line is in the way
		return 0, src.end, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("searching %s: %w", src.name, err)
	}
	return from, to, nil
}

// readAll looks at the lines of a source, one after the other, but for strides of another
// time.
func (s *search) readAll(src *source, l *lines, strides []stride) error {
	from, to, err := s.bounds(src, l)
	if err != nil {
		return err
	}
	take := func(line []byte, offset int64) error {
		if s.budget-l.read <= 0 && s.moved {
			s.spent = true
		}
		err := s.take(line)
		switch {
		case err == nil || errors.Is(err, errPageFull):
			return err
		case src.breaks:
			return nil
		}
		return &DamageError{File: src.name, Offset: offset, Err: err}
	}
	parts := s.inTime(strides, from, to)
	if s.NewestFirst {
		for _, p := range slices.Backward(parts) {
			if err := l.backward(p.from, p.to, take); err != nil {
				return err
			}
		}
		return nil
	}
	for _, p := range parts {
		if err := l.forward(p.from, p.to, take); err != nil {
			return err
		}
	}
	return nil
}

// part is a part of a source, between two offsets.
type part struct{ from, to int64 }

// inTime returns the parts between two offsets that have events of the time that is asked
// for. Without strides all may be of that time.
func (s *search) inTime(strides []stride, from, to int64) (parts []part) {
	if len(strides) == 0 || s.AfterTime.IsZero() && s.BeforeTime.IsZero() {
		return []part{{from, to}}
	}
	for i, stride := range strides {
		end := to
		if i+1 < len(strides) {
			end = min(strides[i+1].at, to)
		}
		p := part{max(stride.at, from), end}
		switch {
		case p.from >= p.to,
			!s.AfterTime.IsZero() && !time.UnixMilli(stride.latest+1).After(s.AfterTime),
			!s.BeforeTime.IsZero() && !time.UnixMilli(stride.earliest).Before(s.BeforeTime):
		case len(parts) > 0 && parts[len(parts)-1].to == p.from:
			parts[len(parts)-1].to = p.to
		default:
			parts = append(parts, p)
		}
	}
	return parts
}

// selective reports whether an index may spare the reading of lines.
func (s *search) selective() bool {
	return s.Pattern.String() != "" || !s.AfterTime.IsZero() || !s.BeforeTime.IsZero()
}

// mostPlaces is how many events of a segment are read one by one. Where a pattern selects
// more, a page has soon been found by reading all lines.
const mostPlaces = 16 << 10

// errNoIndex: the segment must be read without an index.
var errNoIndex = errors.New("the segment has no index")

// readIndexed looks at the lines of a segment that its index points at. The error is
// errNoIndex if there is none or it turns out to be damaged; what is left is between low
// and high.
func (s *search) readIndexed(src *source, l *lines) error {
	x := src.index
	if x == nil {
		if src.indexBytes == noIndex {
			return errNoIndex
		}
		f, opened, err := s.journal.openIndex(src.segment, l.r)
		if err != nil {
			return s.journal.dropIndex(src.segment)
		}
		defer f.Close()
		x = opened
		l.read += x.read
	}
	if s.Pattern.String() == "" {
		return s.readAll(src, l, x.strides)
	}
	from, to, err := s.bounds(src, l)
	if err != nil {
		return err
	}
	var places []int64
	read, err := x.find(s.Pattern, func(some []int64) bool {
		for _, place := range some {
			if from <= place && place < to {
				places = append(places, place)
			}
		}
		return len(places) <= mostPlaces
	})
	if l.read += read; err != nil {
		return s.journal.dropIndex(src.segment)
	}
	if len(places) > mostPlaces {
		return s.readAll(src, l, x.strides)
	}
	slices.Sort(places)
	if s.NewestFirst {
		slices.Reverse(places)
	}
	for _, place := range places {
		s.spent = s.budget-l.read <= 0 && s.moved
		line, err := l.at(place)
		if err == nil {
			err = s.take(line)
		}
		switch {
		case errors.Is(err, errPageFull), s.ctx.Err() != nil:
			return err
		case err != nil:
			// The index or the segment: to read all of it tells.
			return s.journal.dropIndex(src.segment)
		}
	}
	return nil
}

// dropIndex has the index of a segment made again, and returns errNoIndex.
func (j *Journal) dropIndex(s segment) error {
	if s.recent == nil && j.setIndex(s, noIndex) {
		j.wakeIndexer()
	}
	return errNoIndex
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
	if isEvent && (len(s.page.Events) >= s.Limit || s.bytes >= cmp.Or(s.Bytes, lock.MaxPageBytes) || s.spent) {
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
