package journal

import (
	"bytes"
	"io"

	"github.com/pylok/pylok/lock"
)

const (
	// readBytes is how much of a file is read at a time.
	readBytes = 256 << 10
	// probeBytes is how much the search for a revision reads at a time: a line
	// is rarely longer.
	probeBytes = 4 << 10
)

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
