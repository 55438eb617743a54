package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

const (
	// readBytes is how much of a segment one Read looks at.
	readBytes = 256 << 10
	// probeBytes is how much the search for a revision reads at a time: a line
	// is rarely longer.
	probeBytes = 4 << 10
)

// Read returns the durable events after a revision, oldest first: at least one, if
// there is one, and not more than a bounded number of bytes hold. The error is a
// *lock.CompactedError when the events after the revision are not kept.
func (j *Journal) Read(after lock.Revision) ([]lock.Event, error) {
	j.mu.Lock()
	segments, kept, last := slices.Clone(j.segments), j.kept, j.last
	j.mu.Unlock()
	if after < kept || after > last {
		return nil, &lock.CompactedError{Kept: kept}
	}
	i, found := slices.BinarySearchFunc(segments, after, func(s segment, after lock.Revision) int {
		return compareRevisions(s.after, after)
	})
	if !found {
		i--
	}
	for ; i >= 0 && i < len(segments); i++ {
		events, err := j.readAfter(segments[i], after)
		if err != nil || len(events) > 0 {
			return events, err
		}
	}
	return nil, nil
}

// readAfter is Read within a segment.
func (j *Journal) readAfter(s segment, after lock.Revision) ([]lock.Event, error) {
	f, err := disk.OpenRegular(j.fs, j.path(s), os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) { // pruned meanwhile
		j.mu.Lock()
		defer j.mu.Unlock()
		return nil, &lock.CompactedError{Kept: j.kept}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := io.NewSectionReader(f, 0, s.end)
	start, _, err := bisect(r, after)
	if err != nil {
		return nil, fmt.Errorf("searching %s: %w", j.path(s), err)
	}
	var events []lock.Event
	size := int64(readBytes)
	for offset := start; offset < s.end && len(events) == 0; {
		text := make([]byte, min(size, s.end-offset))
		if _, err := r.ReadAt(text, offset); err != nil {
			return nil, fmt.Errorf("reading %s at %d: %w", j.path(s), offset, err)
		}
		end := bytes.LastIndexByte(text, '\n')
		if end < 0 {
			size *= 2 // a long line
			continue
		}
		for line := range bytes.SplitSeq(text[:end], []byte("\n")) {
			record, err := parseRecord(line)
			if err != nil {
				return nil, &DamageError{File: j.path(s), Offset: offset, Err: err}
			}
			offset += int64(len(line)) + 1
			if record.Kind == KindEvent && record.Event.Revision > after {
				events = append(events, record.Event)
			}
		}
	}
	return events, nil
}

// bisect returns two offsets, of which low is the beginning of a line: no event before
// low comes after the revision, none that begins behind high comes before it or at it,
// and few are between them.
func bisect(r *io.SectionReader, after lock.Revision) (low, high int64, err error) {
	for high = r.Size(); high-low > readBytes/4; {
		middle := low + (high-low)/2
		offset, revision, err := nextEvent(r, middle, high)
		if err != nil {
			return 0, 0, err
		}
		if offset < 0 || revision > after {
			high = middle
		} else {
			low = offset
		}
	}
	return low, high, nil
}

// nextEvent finds the first event whose line begins behind offset and before
// limit; -1: there is none.
func nextEvent(r *io.SectionReader, offset, limit int64) (int64, lock.Revision, error) {
	size := int64(probeBytes)
	for {
		text := make([]byte, min(size, r.Size()-offset))
		if _, err := r.ReadAt(text, offset); err != nil {
			return 0, 0, err
		}
		at := offset
		for i, line := range bytes.SplitAfter(text, []byte("\n")) {
			whole := bytes.HasSuffix(line, []byte("\n"))
			if i > 0 && whole {
				if at >= limit {
					return -1, 0, nil
				}
				record, err := parseRecord(line[:len(line)-1])
				if err != nil {
					return 0, 0, err
				}
				if record.Kind == KindEvent {
					return at, record.Event.Revision, nil
				}
			}
			at += int64(len(line))
		}
		if offset+int64(len(text)) >= r.Size() {
			return -1, 0, nil
		}
		size *= 2
	}
}

func compareRevisions(a, b lock.Revision) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
