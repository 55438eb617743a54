package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// Breaks is a file of the events by which holds were broken on purpose, those with the
// cause lock.Forced, out of segments that were pruned: they are few, and asked for when
// all else is long forgotten. It has their lines as they were in the segments, in the
// order of their revisions, and is written whole, so that a crash leaves the old one or
// the new one. A line that is damaged is passed over: no other depends on it.
type Breaks struct {
	fs   disk.FS
	name string
}

// NewBreaks returns the file of a name, which need not be there.
func NewBreaks(fsys disk.FS, name string) *Breaks { return &Breaks{fsys, name} }

// forced is in the line of each event with the cause lock.Forced, and maybe in others:
// a document may have it too.
var forced = appendMember(nil, "cause", lock.Forced.String())

// Keep adds the breaks of segments that are to be pruned, and lets go of the oldest as
// far as the retention says. Only one goroutine at a time may call it.
func (b *Breaks) Keep(keep Retention, segments []string) error {
	var kept [][]byte // lines, with their newlines
	var total int64
	var last lock.Revision
	var added, tooOld int
	take := func(file string) error {
		return eachLine(b.fs, file, func(line []byte) {
			if !bytes.Contains(line, forced) {
				return
			}
			record, err := parseRecord(line[:len(line)-1])
			if err != nil || record.Kind != KindEvent || record.Event.Cause != lock.Forced || record.Event.Revision <= last {
				return
			}
			if time.Since(record.Event.Time) > keep.Age {
				tooOld++
				return
			}
			last = record.Event.Revision
			kept = append(kept, bytes.Clone(line))
			total += int64(len(line))
			added++
		})
	}
	if err := take(b.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	added = 0
	for _, segment := range segments {
		if err := take(segment); err != nil {
			return err
		}
	}
	for len(kept) > 0 && total > keep.Bytes {
		total -= int64(len(kept[0]))
		kept = kept[1:]
		tooOld++
	}
	if added == 0 && tooOld == 0 {
		return nil
	}
	return replaceFile(b.fs, b.name, func(f disk.File) error {
		_, err := f.WriteAt(slices.Concat(kept...), 0)
		return err
	})
}

// Read returns breaks after a revision, oldest first, with a bounded number of bytes:
// at least one, if there is one.
func (b *Breaks) Read(after lock.Revision) ([]lock.Event, error) {
	f, err := disk.OpenRegular(b.fs, b.name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r := io.NewSectionReader(f, 0, stat.Size)
	start, err := search(r, after)
	if err != nil {
		start = 0 // a damaged line is in the way
	}
	var events []lock.Event
	size := 0
	for line, err := range linesOf(io.NewSectionReader(f, start, stat.Size-start)) {
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", b.name, err)
		}
		record, err := parseRecord(line[:len(line)-1])
		if err != nil || record.Kind != KindEvent || record.Event.Revision <= after {
			continue
		}
		events = append(events, record.Event)
		if size += len(line); size >= readBytes {
			break
		}
	}
	return events, nil
}

// eachLine calls do with each whole line of a file, with its newline; it is valid during
// the call.
func eachLine(fsys disk.FS, name string, do func(line []byte)) error {
	f, err := disk.OpenRegular(fsys, name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for line, err := range linesOf(f) {
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		do(line)
	}
	return nil
}

// linesOf yields each whole line of r, with its newline; it is valid until the next. An
// error ends the sequence.
func linesOf(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		buffer := make([]byte, 0, readBytes)
		for {
			n, err := r.Read(buffer[len(buffer):cap(buffer)])
			buffer = buffer[:len(buffer)+n]
			rest := buffer
			for {
				end := bytes.IndexByte(rest, '\n') + 1
				if end == 0 {
					break
				}
				if !yield(rest[:end], nil) {
					return
				}
				rest = rest[end:]
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if buffer = buffer[:copy(buffer, rest)]; len(buffer) == cap(buffer) {
				buffer = slices.Grow(buffer, len(buffer))
			}
		}
	}
}
