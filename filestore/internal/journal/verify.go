package journal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// verifyBytes is how much of a segment is verified at a time; a longer line takes
// more.
const verifyBytes = 1 << 20

// verifyAll is load for the first n segments, of which nothing is replayed: it looks
// for damage, on all processors.
func (j *Journal) verifyAll(n int) error {
	last, headers, errs := make([]lock.Revision, n), make([]Record, n), make([]error, n)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			buffer := make([]byte, verifyBytes)
			for {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				last[i], headers[i], errs[i] = j.verify(&j.segments[i], &buffer)
			}
		})
	}
	workers.Wait()
	for i := range n {
		s := j.segments[i]
		if errs[i] != nil {
			return errs[i]
		}
		if s.after != j.last {
			return &DamageError{File: j.path(s), Err: errors.New("the segment's name does not match the segment before")}
		}
		if err := j.checkEnd(i-1, headers[i]); err != nil {
			return err
		}
		j.last = last[i]
	}
	return nil
}

// verify looks for damage in a segment, finds its end, and returns the revision of its
// last event and its header.
func (j *Journal) verify(s *segment, buffer *[]byte) (last lock.Revision, header Record, err error) {
	damage := func(err error) error { return &DamageError{File: j.path(*s), Offset: s.end, Err: err} }
	f, err := disk.OpenRegular(j.fs, j.path(*s), os.O_RDONLY, 0)
	if err != nil {
		return 0, header, err
	}
	defer f.Close()
	last = s.after
	for have, atEnd := 0, false; ; {
		for have < len(*buffer) && !atEnd {
			n, err := f.Read((*buffer)[have:])
			if have += n; err == io.EOF {
				atEnd = true
			} else if err != nil {
				return 0, header, err
			}
		}
		text := (*buffer)[:have]
		lines := text[:bytes.LastIndexByte(text, '\n')+1]
		for rest := lines; len(rest) > 0; {
			if rest[0] == 0 { // room that was not cut off, if there are zeros alone
				lines = lines[:len(lines)-len(rest)]
				break
			}
			line, after, _ := bytes.Cut(rest, []byte("\n"))
			if err := verify(line); err != nil {
				return 0, header, damage(err)
			}
			if err := checkPlace(Record{at: placeOf(line)}, s.end); err != nil {
				return 0, header, damage(err)
			}
			if s.end == 0 {
				first, err := parseRecord(line)
				if err != nil || first.Kind != KindHeader || first.Revision != s.after {
					return 0, header, damage(errors.Join(err, errors.New("the segment's header does not match its name")))
				}
				s.begun, header = first.Time, first
			}
			s.end += int64(len(rest) - len(after))
			rest = after
		}
		if last, err = lastEvent(lines, last); err != nil {
			return 0, header, damage(err)
		}
		have = copy(*buffer, text[len(lines):])
		switch {
		case atEnd && (s.end == 0 || !isZeros((*buffer)[:have])):
			return 0, header, damage(errChecksum)
		case atEnd:
			return last, header, nil
		case len(lines) == 0:
			*buffer = append(*buffer, make([]byte, len(*buffer))...)
		}
	}
}
