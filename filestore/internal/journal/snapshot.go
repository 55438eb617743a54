package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"runtime"
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
	return replaceFile(fsys, name, func(f disk.File) error { return writeSnapshot(f, revision, holds) })
}

// replaceFile writes a file in place of the one before. A crash leaves either.
func replaceFile(fsys disk.FS, name string, write func(disk.File) error) error {
	temporary := name + ".writing"
	f, err := disk.OpenRegular(fsys, temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
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
		line = appendLock(line, &h.Lock)
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

// pieceBytes is how much of a snapshot a processor decodes at a time.
const pieceBytes = 256 << 10

// piece is some lines of a snapshot. Its room is used again for another.
type piece struct {
	text  []byte
	lines *lineReader
	holds []Hold
	last  bool // the snapshot's last line is here
	end   int  // the number of holds that it gives
	err   error
	done  chan struct{} // closed when the piece is decoded
}

// ReadSnapshot calls take with every hold of a snapshot, in name order, and returns
// its revision. The hold is the caller's until take returns. An error means that what was taken must not be used; os.ErrNotExist
// that there is no snapshot.
func ReadSnapshot(fsys disk.FS, name string, take func(*Hold)) (lock.Revision, error) {
	f, err := disk.OpenRegular(fsys, name, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	revision, err := readSnapshot(bufio.NewReaderSize(f, pieceBytes), take)
	if err != nil {
		return 0, fmt.Errorf("the snapshot %s: %w", name, err)
	}
	return revision, nil
}

func readSnapshot(r *bufio.Reader, take func(*Hold)) (lock.Revision, error) {
	revision, err := readSnapshotHeader(r)
	if err != nil {
		return 0, err
	}
	var decoding, free []*piece // the first in order
	for count := 0; ; {
		for len(decoding) <= runtime.GOMAXPROCS(0) {
			p := &piece{text: make([]byte, 0, pieceBytes+4<<10), lines: newLineReader()}
			if n := len(free); n > 0 {
				p, free = free[n-1], free[:n-1]
			}
			p.holds, p.done = p.holds[:0], make(chan struct{})
			var err error
			if p.text, err = readLines(r, p.text); err != nil {
				p.err = fmt.Errorf("it ends too early: %w", err)
				close(p.done)
			} else {
				go p.decode()
			}
			decoding = append(decoding, p)
		}
		p := decoding[0]
		decoding = decoding[1:]
		<-p.done
		count += len(p.holds)
		switch {
		case p.err != nil:
			return 0, p.err
		case p.last && p.end != count:
			return 0, fmt.Errorf("it has %d holds and should have %d", count, p.end)
		}
		for i := range p.holds {
			take(&p.holds[i])
		}
		if p.last {
			return revision, nil
		}
		free = append(free, p)
	}
}

// readSnapshotHeader returns the revision that the first line gives.
func readSnapshotHeader(r *bufio.Reader) (revision lock.Revision, err error) {
	text, err := r.ReadBytes('\n')
	if err != nil {
		return 0, err
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	if err := verify(text); err != nil {
		return 0, err
	}
	var format int
	var snapshot string
	err = members(text, func(key, value []byte) (err error) {
		switch string(key) {
		case "snapshot":
			snapshot, err = plainText(value)
		case "format":
			format, err = number[int](value)
		case "revision":
			revision, err = number[lock.Revision](value)
		}
		return err
	})
	if err == nil && (snapshot != "pylok" || format != Format) {
		err = fmt.Errorf("it has format %d of %q, which this program does not know", format, snapshot)
	}
	return revision, err
}

// readLines reads about pieceBytes of whole lines into the room of text; io.EOF: there
// are no more.
func readLines(r *bufio.Reader, text []byte) ([]byte, error) {
	text = text[:pieceBytes]
	n, err := io.ReadFull(r, text)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return text[:n], nil
	}
	if err != nil {
		return nil, err
	}
	for err = bufio.ErrBufferFull; errors.Is(err, bufio.ErrBufferFull); {
		var rest []byte
		rest, err = r.ReadSlice('\n')
		text = append(text, rest...)
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	return text, nil
}

// decode reads the lines of a piece.
func (p *piece) decode() {
	defer close(p.done)
	for line := range bytes.Lines(p.text) {
		h, end, err := p.lines.hold(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			p.err = fmt.Errorf("the line %.80q: %w", line, err)
			return
		}
		if end != nil {
			p.last, p.end = true, *end
			return
		}
		p.holds = append(p.holds, h)
	}
}

// hold reads a line, without its newline: a hold, or how many there are.
func (r *lineReader) hold(text []byte) (h Hold, end *int, err error) {
	if err := verify(text); err != nil {
		return Hold{}, nil, err
	}
	err = members(text, func(key, value []byte) (err error) {
		switch string(key) {
		case "end":
			n, err := number[int](value)
			end = &n
			return err
		case "by_file":
			h.ByFile = string(value) == "true"
		case "extended":
			h.Extended = string(value) == "true"
		case "file_token":
			h.FileToken, err = number[lock.Token](value)
		case "file":
			h.File, err = fileStat(value)
		default:
			err = r.lockMember(&h.Lock, key, value)
		}
		return err
	})
	if err == nil && end == nil && h.Lock.Name.IsZero() {
		err = errors.New("it names no lock")
	}
	return h, end, err
}

// fileStat reads what a line tells of a file.
func fileStat(value []byte) (s disk.Stat, err error) {
	rest, _ := bytes.CutPrefix(value, []byte("["))
	rest, _ = bytes.CutSuffix(rest, []byte("]"))
	inode, rest, _ := bytes.Cut(rest, []byte(","))
	if s.Inode, err = number[uint64](inode); err != nil {
		return s, err
	}
	for _, to := range []*int64{&s.Size, &s.Mtime, &s.Ctime, &s.Birth} {
		var digits []byte
		digits, rest, _ = bytes.Cut(rest, []byte(","))
		if *to, err = strconv.ParseInt(string(digits), 10, 64); err != nil {
			return s, err
		}
	}
	return s, nil
}
