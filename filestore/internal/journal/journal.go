// Package journal is the past of a root: an append-only log of all its changes,
// JSON lines with a checksum each, in segments. It is the history, what a watch
// resumes from, where revisions come from, and what makes a change durable.
//
//	<dir>/00000000000000000000.jsonl    events 1 to 41
//	<dir>/00000000000000000000.index    which of them are about which lock
//	<dir>/00000000000000000041.jsonl    events 42 to the present
//
// A segment is named for the last revision before it. Its first line is a header
// with the format's version. A line is an event, a hold's new terms, or a
// checkpoint: the word that the lock files are durable up to a revision.
//
// Each line says where it was written, so that one that is taken out, put in twice or
// moved shows. Lines are written in batches, and one fdatasync makes those durable that have been
// written by then. Each line says up to where all bytes were durable when it was
// written. So at the end of the last segment what a crash tore can be told from
// damage: bad bytes that a later line has proved durable are damage.
//
// The active segment is longer than its lines: room is allocated ahead and filled
// with zeros. A clean stop leaves the reserve of it, so that a start on a full disk still
// has that.
package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

const suffix = ".jsonl"

// Config sets up a Journal. The zero value of a field stands for its default.
type Config struct {
	// SegmentBytes is the size at which a new segment begins. Default 64 MiB.
	SegmentBytes int64
	// ChunkBytes is how much room is allocated at a time. Default 1 MiB.
	ChunkBytes int64
	// ReserveBytes is room that only a Write with reserved may use. Default
	// 256 KiB.
	ReserveBytes int64
	// After lets Open skip the replay of segments that end at or before this revision:
	// they are only checked for damage. Default: all is replayed.
	After lock.Revision
	// HistoryBytes is how much one History reads, about, so that it is bounded although
	// its query selects few events. Default 32 MiB.
	HistoryBytes int64
	// Carry returns the records that each new segment begins with: what must
	// not be lost when the segments before it are pruned. Default: none.
	Carry func() []Record
}

// Journal is an open journal. One goroutine at a time writes, and one syncs, which may
// be another; any number reads.
type Journal struct {
	fs     disk.FS
	dir    string
	config Config

	// active is the last segment's file. It changes only where nothing waits for a
	// sync.
	active disk.File

	// Only the writer uses these.
	written   int64 // end of the lines written
	allocated int64
	zeroed    int64 // up to where zeros have been written over what was allocated
	buffer    []byte
	unsynced  lock.Revision // of the last event written

	torn struct { // what a crash left behind the last whole commit
		file  string
		bytes int64
	}
	emptyLast string // at Open, the segment that skipEmptyLast left out, if it did
	whole     int64  // at Open, what of the segment before that was durable

	places    []int64       // where the lines begin of what is being written
	unindexed chan struct{} // see Unindexed
	strays    []string      // at Open, indexes of no segment

	mu       sync.Mutex
	failed   error         // why nothing is written any more
	segments []segment     // oldest first; the last is the active one
	last     lock.Revision // of the last synced event
	kept     lock.Revision // every event after it is kept
}

// segment is one file of the journal.
type segment struct {
	after lock.Revision // the last revision before it
	begun time.Time
	first int64 // end of what it begins with: the header and what was carried into it
	batch int64 // at Open, up to where it was durable when its last line was written
	end   int64 // of its synced lines

	recent     *recent // its index, while that is in memory
	indexBytes int64   // the size of its index file, or what else is known of that
}

func (j *Journal) path(s segment) string { return path.Join(j.dir, File(s.after)) }

// File returns the name of the segment that begins after a revision.
func File(after lock.Revision) string { return fmt.Sprintf("%020d%s", after, suffix) }

// DamageError is damage that a crash cannot have done.
type DamageError struct {
	// File is the segment, relative to the root.
	File string
	// Offset is where the bad line begins, in bytes.
	Offset int64
	// Err says what is wrong with it.
	Err error
}

// Error names the file and the offset and the way out.
func (e *DamageError) Error() string {
	return fmt.Sprintf("the journal is damaged: %s at byte %d: %v. Restore the file from a backup; or, to give up the history and keep the locks, move the journal directory away: the lock files are then adopted as anonymous holds", e.File, e.Offset, e.Err)
}

// Unwrap returns Err.
func (e *DamageError) Unwrap() error { return e.Err }

// Open opens the journal in dir, which it makes if need be, and calls replay with
// every record in order, headers left out. A tail that a crash tore is cut off. A
// *DamageError means that it cannot be trusted.
func Open(fsys disk.FS, dir string, config Config, replay func(Record) error) (*Journal, error) {
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j, err := Load(fsys, dir, config.After, replay)
	if err != nil {
		return nil, err
	}
	config.SegmentBytes = cmp.Or(config.SegmentBytes, 64<<20)
	config.ChunkBytes = cmp.Or(config.ChunkBytes, 1<<20)
	config.ReserveBytes = cmp.Or(config.ReserveBytes, 256<<10)
	config.HistoryBytes = cmp.Or(config.HistoryBytes, 32<<20)
	j.config = config
	if j.emptyLast != "" {
		if err := fsys.Remove(j.emptyLast); err != nil {
			return nil, err
		}
	}
	for _, stray := range j.strays {
		_ = fsys.Remove(stray) // it costs room, no more
	}
	j.wakeIndexer()
	if len(j.segments) == 0 {
		return j, nil // the first write begins a segment
	}
	return j, j.reopen()
}

// Load is Open for reading alone, with Config.After: it changes nothing on the disk.
func Load(fsys disk.FS, dir string, after lock.Revision, replay func(Record) error) (*Journal, error) {
	j := &Journal{fs: fsys, dir: dir, unindexed: make(chan struct{}, 1)}
	entries, err := disk.List(fsys, dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, entry := range entries {
		names[entry.Name()] = true
		digits, isSegment := strings.CutSuffix(entry.Name(), suffix)
		after, err := strconv.ParseUint(digits, 10, 64)
		if isSegment && err == nil {
			j.segments = append(j.segments, segment{after: lock.Revision(after)})
		}
	}
	for name := range names {
		if segment, isIndex := strings.CutSuffix(name, indexSuffix); isIndex && !names[segment+suffix] {
			j.strays = append(j.strays, path.Join(dir, name))
		}
	}
	slices.SortFunc(j.segments, func(a, b segment) int { return cmp.Compare(a.after, b.after) })
	lastText, err := j.skipEmptyLast()
	if err != nil {
		return nil, err
	}
	if len(j.segments) > 0 {
		j.kept, j.last = j.segments[0].after, j.segments[0].after
	}
	begin := 0
	for begin+1 < len(j.segments) && j.segments[begin+1].after <= after {
		begin++
	}
	if err := j.verifyAll(begin); err != nil {
		return nil, err
	}
	for i := begin; i < len(j.segments); i++ {
		text := lastText
		if i < len(j.segments)-1 || text == nil {
			if text, err = j.readSegment(j.segments[i]); err != nil {
				return nil, err
			}
		}
		if err := j.load(i, text, replay); err != nil {
			return nil, err
		}
	}
	j.unsynced = j.last
	return j, nil
}

// skipEmptyLast leaves out the last segment if nothing was written after what it begins
// with, the header and what was carried into it: a crash may have kept some of
// that from the disk, and the segment before it may have been written to since, if
// beginning this one failed. The segment before it is the last one then, with all that
// was to be carried. Else it returns what is in the last one.
func (j *Journal) skipEmptyLast() (text []byte, err error) {
	n := len(j.segments)
	if n == 0 {
		return nil, nil
	}
	if text, err = j.readSegment(j.segments[n-1]); err != nil {
		return nil, err
	}
	var before int64 // what of the segment before was durable
	skip := func() ([]byte, error) {
		j.whole, j.emptyLast, j.segments = before, j.path(j.segments[n-1]), j.segments[:n-1]
		return nil, nil
	}
	for rest := text; ; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		record, err := parseRecord(line)
		if err == nil && !ended {
			err = errChecksum // what should follow is missing too
		}
		before = max(before, record.before)
		switch {
		case isZeros(rest), errors.Is(err, errChecksum) && !provedDurable(0, after):
			return skip()
		case err != nil:
			return text, nil // damage, which load tells of
		case !record.More && n > 1 && isZeros(after):
			return skip()
		case !record.More:
			return text, nil
		}
		rest = after
	}
}

// Torn returns the active segment and how many bytes at its end a crash tore, 0:
// none.
func (j *Journal) Torn() (file string, bytes int64) { return j.torn.file, j.torn.bytes }

// load replays segment i, which has a text, and finds its end.
func (j *Journal) load(i int, text []byte, replay func(Record) error) error {
	s := &j.segments[i]
	isLast := i == len(j.segments)-1
	if i > 0 && s.after != j.last {
		return &DamageError{File: j.path(*s), Err: fmt.Errorf("it begins after revision %d and the segment before it ends at revision %d", s.after, j.last)}
	}
	last := j.last
	if isLast {
		s.recent = new(recent)
	}
	lines := newLineReader()
	var group []Record // a commit, as far as it has been read
	for offset := int64(0); !isZeros(text[offset:]); {
		line, rest, ended := bytes.Cut(text[offset:], []byte("\n"))
		record, err := lines.record(line)
		switch {
		case err == nil && !ended:
			err = errChecksum // what should follow is missing too
		case err == nil && offset == 0 && (record.Kind != KindHeader || record.Revision != s.after):
			err = errors.New("the segment's header does not match its name")
		case err == nil && record.Kind == KindEvent && record.Event.Revision <= last:
			err = fmt.Errorf("revision %d follows revision %d", record.Event.Revision, last)
		case err == nil:
			err = checkPlace(record, offset)
		}
		if isLast && offset >= j.whole && errors.Is(err, errChecksum) && !provedDurable(offset, rest) {
			break
		}
		if err != nil {
			return &DamageError{File: j.path(*s), Offset: offset, Err: err}
		}
		record.at = offset
		offset += int64(len(line)) + 1
		if record.Kind == KindExtended {
			record.Revision = last
		}
		if record.Kind == KindEvent {
			last = record.Event.Revision
		}
		if group = append(group, record); record.More {
			continue
		}
		for _, r := range group {
			if r.Kind == KindHeader {
				s.begun = r.Time
				if err := j.checkEnd(i-1, r); err != nil {
					return err
				}
				continue
			}
			if isLast && r.Kind == KindEvent {
				s.recent.add(r.Event.Lock.Name.String(), r.at, r.Event.Time.UnixMilli())
			}
			if err := replay(r); err != nil {
				return err
			}
		}
		group = group[:0]
		if s.first == 0 {
			s.first = offset
		}
		s.batch, s.end, j.last = record.batch, offset, last
	}
	if tail := bytes.TrimRight(text[s.end:], "\x00"); isLast && len(tail) > 0 {
		j.torn.file, j.torn.bytes = j.path(*s), int64(len(tail))
	}
	if !isLast && (s.end == 0 || len(group) > 0) {
		return &DamageError{File: j.path(*s), Offset: s.end, Err: errors.New("the segment ends too early")}
	}
	return nil
}

// checkEnd holds segment i, which has been looked through, to what the header of the next
// one says of it.
func (j *Journal) checkEnd(i int, next Record) error {
	if i < 0 || next.before == 0 || next.before == j.segments[i].end {
		return nil
	}
	s := j.segments[i]
	return &DamageError{File: j.path(s), Offset: s.end, Err: fmt.Errorf("it ends here, and ended at byte %d when the next segment was begun", next.before)}
}

// lastEvent returns the revision of the last event in a segment, or after if it has
// none.
func lastEvent(text []byte, after lock.Revision) (lock.Revision, error) {
	for text = bytes.TrimSuffix(text, []byte("\n")); len(text) > 0; {
		start := bytes.LastIndexByte(text, '\n') + 1
		record, err := parseRecord(text[start:])
		if err != nil {
			return 0, err
		}
		if record.Kind == KindEvent {
			return record.Event.Revision, nil
		}
		text = text[:max(start-1, 0)]
	}
	return after, nil
}

func isZeros(text []byte) bool { return len(bytes.TrimLeft(text, "\x00")) == 0 }

// provedDurable reports whether a good line in rest, which follows the bad one at
// offset, was written when the bytes at offset were durable already.
func provedDurable(offset int64, rest []byte) bool {
	for line := range bytes.SplitSeq(rest, []byte("\n")) {
		// Zeros are pages that were never written; a line may begin behind.
		if i := bytes.LastIndexByte(line, 0); i >= 0 {
			line = line[i+1:]
		}
		if record, err := parseRecord(line); err == nil && record.batch > offset {
			return true
		}
	}
	return false
}

func (j *Journal) readSegment(s segment) ([]byte, error) {
	f, err := disk.OpenRegular(j.fs, j.path(s), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text := make([]byte, stat.Size)
	_, err = io.ReadFull(f, text)
	return text, err
}

// reopen makes the last segment the active one, clears what a crash tore and makes
// room.
func (j *Journal) reopen() error {
	s := j.segments[len(j.segments)-1]
	f, err := disk.OpenRegular(j.fs, j.path(s), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	stat, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.active, j.written, j.allocated = f, s.end, stat.Size
	// What was torn is overwritten: to cut it off would give the room back.
	for at, end := s.end, s.end+j.torn.bytes; at < end; {
		n := min(end-at, int64(len(zeros)))
		if _, err := f.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		at += n
	}
	// After a sync that failed, the last batch may be in memory only, where
	// the kernel takes it for written: write it again before it is believed.
	lines := make([]byte, s.end-s.batch)
	if _, err := f.ReadAt(lines, s.batch); err != nil {
		return err
	}
	if _, err := f.WriteAt(lines, s.batch); err != nil {
		return err
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	if err := j.makeRoom(0); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil // on a full disk with the room that was kept
}

// zeros is what is written ahead at a time.
var zeros [128 << 10]byte

// makeRoom allocates ahead until n bytes and the reserve fit, and writes zeros where
// the n bytes go: the first write to what was only allocated makes file systems change
// their own records, and the sync that follows takes half as long again.
func (j *Journal) makeRoom(n int64) error {
	if need := j.written + n + j.config.ReserveBytes; need > j.allocated {
		size := need/j.config.ChunkBytes*j.config.ChunkBytes + j.config.ChunkBytes
		if err := j.active.Allocate(size); err != nil {
			return err
		}
		j.allocated = size
	}
	for j.zeroed = max(j.zeroed, j.written); j.zeroed < j.written+n; {
		ahead := min(int64(len(zeros)), j.allocated-j.zeroed)
		if _, err := j.active.WriteAt(zeros[:ahead], j.zeroed); err != nil {
			return err
		}
		j.zeroed += ahead
	}
	return nil
}

// MakeRoom allocates room for a change, beside the reserve.
func (j *Journal) MakeRoom() error { return j.makeRoom(j.config.ReserveBytes) }

// begin makes a new active segment. The one before must be synced.
func (j *Journal) begin() error {
	s := segment{after: j.last, begun: time.Now(), recent: new(recent)}
	f, err := j.fs.OpenFile(j.path(s), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	old, oldWritten, oldAllocated, oldZeroed := j.active, j.written, j.allocated, j.zeroed
	j.active, j.written, j.allocated, j.zeroed = f, 0, 0, 0
	first := []Record{{Kind: KindHeader, Revision: s.after, Time: s.begun, before: oldWritten}}
	if j.config.Carry != nil {
		first = append(first, j.config.Carry()...)
	}
	var text []byte
	for i, r := range first {
		r.More = i < len(first)-1 // so that a crash leaves all of it or nothing
		r.at = int64(len(text))
		text = appendRecord(text, r)
	}
	err = j.makeRoom(int64(len(text)))
	if err == nil {
		_, err = f.WriteAt(text, 0)
	}
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = j.fs.SyncDir(j.dir)
	}
	if err != nil {
		j.active, j.written, j.allocated, j.zeroed = old, oldWritten, oldAllocated, oldZeroed
		return errors.Join(err, f.Close(), j.fs.Remove(j.path(s)))
	}
	j.written = int64(len(text))
	s.first, s.end = j.written, j.written
	j.mu.Lock()
	j.segments = append(j.segments, s)
	j.mu.Unlock()
	if old != nil {
		// The old one has no more use for its room. A failure costs room,
		// which pruning gives back.
		_ = old.Truncate(oldWritten)
		_ = old.Close()
		j.wakeIndexer()
	}
	return nil
}

// ErrNoRoom: the journal cannot grow; nothing was written.
var ErrNoRoom = errors.New("no room for the journal")

// Write writes records behind those written before, in one go, but does not make
// them durable: Sync does. With reserved it may use the room that is kept for what
// must still work on a full disk. On ErrNoRoom nothing was written; on any other error
// that is not known, and the journal takes no more.
func (j *Journal) Write(reserved bool, records ...Record) error {
	durable, err := j.durable()
	if err != nil {
		return err
	}
	if j.active == nil || j.IsFull() && j.written == durable {
		if err := j.begin(); err != nil && (j.active == nil || !reserved) {
			return fmt.Errorf("%w: beginning a segment: %w", ErrNoRoom, err)
		}
		durable, _ = j.durable()
	}
	j.buffer, j.places = j.buffer[:0], j.places[:0]
	for _, r := range records {
		r.batch, r.at = durable, j.written+int64(len(j.buffer))
		j.places = append(j.places, r.at)
		j.buffer = appendRecord(j.buffer, r)
	}
	n := int64(len(j.buffer))
	if err := j.makeRoom(n); err != nil && (!reserved || j.written+n > j.allocated) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	if _, err := j.active.WriteAt(j.buffer, j.written); err != nil {
		// Whole lines may be there, and must not be found by the next start.
		if truncateErr := j.active.Truncate(j.written); truncateErr != nil {
			return j.fail(errors.Join(err, truncateErr))
		}
		j.allocated, j.zeroed = j.written, j.written
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	j.written += n
	j.mu.Lock()
	defer j.mu.Unlock()
	recent := j.segments[len(j.segments)-1].recent
	for i := range records {
		if e := &records[i].Event; records[i].Kind == KindEvent {
			j.unsynced = e.Revision
			recent.add(e.Lock.Name.String(), j.places[i], e.Time.UnixMilli())
		}
	}
	return nil
}

// IsFull reports whether the next Write is to begin a segment, which it does where all
// is durable that was written before. Only the writer may ask.
func (j *Journal) IsFull() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	// It has events, so that the next one has another name.
	return j.active != nil && j.written >= j.config.SegmentBytes && j.unsynced > j.segments[len(j.segments)-1].after
}

// durable returns the end of the durable lines, or why nothing is written any more.
func (j *Journal) durable() (int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil || j.active == nil {
		return 0, j.failed
	}
	return j.segments[len(j.segments)-1].end, nil
}

// fail ends the writing.
func (j *Journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed = err
	return err
}

// Mark is how far the writing has come.
type Mark struct {
	end int64
	// Last is the revision of the last event written.
	Last lock.Revision
}

// Written returns how far the writing has come. Only the writer may ask.
func (j *Journal) Written() Mark { return Mark{j.written, j.unsynced} }

// Sync makes all records durable that have been written up to a mark, while others may
// be written. After it has failed once the journal takes no more: what the disk has is
// unknown until it is read again.
func (j *Journal) Sync(to Mark) error {
	if _, err := j.durable(); err != nil {
		return err
	}
	if err := j.active.Datasync(); err != nil {
		return j.fail(fmt.Errorf("the journal could not be made durable; restart the server when the disk is well: %w", err))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments[len(j.segments)-1].end = to.end
	j.last = to.Last
	return nil
}

// Last returns the revision of the last durable event.
func (j *Journal) Last() lock.Revision {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// Position is how far a journal has come. The zero Position is of one without segments.
type Position struct {
	// Last is the revision of the last durable event.
	Last lock.Revision `json:"last"`
	// Segment is the revision that the last segment is named for.
	Segment lock.Revision `json:"segment"`
	// Bytes is where the durable lines of that segment end.
	Bytes int64 `json:"bytes"`
}

// Reaches reports whether a journal that has come to p has all that it had at q.
func (p Position) Reaches(q Position) bool {
	return p.Last >= q.Last && (p.Segment > q.Segment || p.Segment == q.Segment && p.Bytes >= q.Bytes)
}

// Position returns how far the journal has come, as far as it is durable.
func (j *Journal) Position() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.segments) == 0 {
		return Position{}
	}
	n := len(j.segments) - 1
	if n > 0 && j.segments[n].end == j.segments[n].first {
		n-- // the next Open passes over a segment in which nothing was written
	}
	s := j.segments[n]
	return Position{Last: j.last, Segment: s.after, Bytes: s.end}
}

// Kept returns the lowest revision after which every event is kept.
func (j *Journal) Kept() lock.Revision {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.kept
}

// Advance lets a journal that is still empty begin behind a revision, so that none
// up to there is ever used again.
func (j *Journal) Advance(to lock.Revision) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.segments) == 0 {
		j.kept, j.last, j.unsynced = to, to, to
	}
}

// Close cuts off the room ahead, but for the reserve, and closes the active segment.
func (j *Journal) Close() error {
	if j.active == nil {
		return nil
	}
	var err error
	if _, failed := j.durable(); failed == nil { // else who wrote has been told
		err = j.active.Truncate(min(j.allocated, j.written+j.config.ReserveBytes))
	}
	return errors.Join(err, j.active.Close())
}
