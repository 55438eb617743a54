package journal

import (
	"bytes"
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

// eachLine calls do with each whole line of a file, with its newline; it is valid during
// the call.
func eachLine(fsys disk.FS, name string, do func(line []byte)) error {
	f, err := disk.OpenRegular(fsys, name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := make([]byte, 0, readBytes)
	for {
		n, err := f.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		rest := buffer
		for {
			end := bytes.IndexByte(rest, '\n') + 1
			if end == 0 {
				break
			}
			do(rest[:end])
			rest = rest[end:]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if buffer = buffer[:copy(buffer, rest)]; len(buffer) == cap(buffer) {
			buffer = slices.Grow(buffer, len(buffer))
		}
	}
}
