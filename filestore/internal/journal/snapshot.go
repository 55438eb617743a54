package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strconv"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// A snapshot is the held locks as of a revision, with what was known of their files.
// It spares a start the reading of every file and of the past before it, and it
// knows what the files do not say, when the journal no longer reaches back. It is
// JSON lines with checksums like the journal: a header, a line for each hold, and a
// last line with their number.

// Hold is one held lock in a snapshot.
type Hold struct {
	Lock lock.Lock
	// ByFile: somebody else made the hold's file.
	ByFile bool
	// Extended: the hold's terms are not those in its file.
	Extended bool
	// FileToken is the lock_token in the file.
	FileToken lock.Token
	// File is what was known of the file; the zero Stat: nothing.
	File disk.Stat
}

// WriteSnapshot writes a snapshot to a file, in place of the one before. A crash
// leaves either.
func WriteSnapshot(fsys disk.FS, name string, revision lock.Revision, holds iter.Seq[Hold]) error {
	temporary := name + ".writing"
	f, err := fsys.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = writeSnapshot(f, revision, holds)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, fsys.Remove(temporary))
	}
	return fsys.SyncDir(path.Dir(name))
}

func writeSnapshot(f disk.File, revision lock.Revision, holds iter.Seq[Hold]) error {
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 1<<20)
	line := []byte(`{"snapshot":"pylok"`)
	line = appendUint(line, "format", Format)
	line = appendUint(line, "revision", uint64(revision))
	line = appendTime(line, "time", time.Now())
	if _, err := w.Write(appendChecksum(line, 0)); err != nil {
		return err
	}
	count := 0
	for h := range holds {
		count++
		line = append(line[:0], `{"revision":`...)
		line = strconv.AppendUint(line, uint64(h.Lock.Revision), 10)
		line = appendLock(line, h.Lock)
		line = appendFlag(line, "by_file", h.ByFile)
		line = appendFlag(line, "extended", h.Extended)
		line = appendUint(line, "file_token", uint64(h.FileToken))
		line = append(line, `,"file":[`...)
		line = strconv.AppendUint(line, h.File.Inode, 10)
		for _, v := range []int64{h.File.Size, h.File.Mtime, h.File.Ctime, h.File.Birth} {
			line = append(line, ',')
			line = strconv.AppendInt(line, v, 10)
		}
		line = append(line, ']')
		if _, err := w.Write(appendChecksum(line, 0)); err != nil {
			return err
		}
	}
	line = append(line[:0], `{"end":`...)
	line = strconv.AppendInt(line, int64(count), 10)
	if _, err := w.Write(appendChecksum(line, 0)); err != nil {
		return err
	}
	return w.Flush()
}

// appendFlag appends a boolean member, unless it is false.
func appendFlag(b []byte, key string, v bool) []byte {
	if !v {
		return b
	}
	return append(appendKey(b, key), "true"...)
}

// ReadSnapshot calls take with every hold of a snapshot, in name order, and returns
// its revision. An error means that what was taken must not be used; os.ErrNotExist
// that there is no snapshot.
func ReadSnapshot(fsys disk.FS, name string, take func(Hold)) (lock.Revision, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	var header struct {
		Snapshot string
		Format   int
		Revision lock.Revision
	}
	text, err := r.ReadBytes('\n')
	if err == nil {
		err = parseChecked(text, &header)
	}
	if err == nil && (header.Snapshot != "pylok" || header.Format != Format) {
		err = fmt.Errorf("it has format %d of %q, which this program does not know", header.Format, header.Snapshot)
	}
	if err != nil {
		return 0, fmt.Errorf("the snapshot %s: %w", name, err)
	}
	for count := 0; ; count++ {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return 0, fmt.Errorf("the snapshot %s ends too early: %w", name, err)
		}
		var line struct {
			lineFields
			End       *int
			ByFile    bool       `json:"by_file"`
			Extended  bool       `json:"extended"`
			FileToken lock.Token `json:"file_token"`
			File      [5]int64
		}
		if err := parseChecked(text, &line); err != nil {
			return 0, fmt.Errorf("the snapshot %s: line %d: %w", name, count+2, err)
		}
		if line.End != nil {
			if *line.End != count {
				return 0, fmt.Errorf("the snapshot %s has %d holds and should have %d", name, count, *line.End)
			}
			return header.Revision, nil
		}
		l, err := line.lock()
		if err != nil {
			return 0, fmt.Errorf("the snapshot %s: line %d: %w", name, count+2, err)
		}
		take(Hold{
			Lock:      l,
			ByFile:    line.ByFile,
			Extended:  line.Extended,
			FileToken: line.FileToken,
			File: disk.Stat{
				Inode: uint64(line.File[0]),
				Size:  line.File[1],
				Mtime: line.File[2],
				Ctime: line.File[3],
				Birth: line.File[4],
			},
		})
	}
}

// parseChecked reads a line with its newline into v, if its checksum is right.
func parseChecked(text []byte, v any) error {
	text = bytes.TrimSuffix(text, []byte("\n"))
	if err := verify(text); err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}
