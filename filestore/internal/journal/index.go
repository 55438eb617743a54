package journal

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// An index tells where in a segment the events of a name are, and between which times all
// events of a part of it. The active segment has its index in memory. That of one that is
// sealed is a file beside it, which is written in the background:
//
//	<dir>/00000000000000000041.index    of 00000000000000000041.jsonl
//
// Nothing depends on the file. It is not made durable; one that is missing, damaged, of
// another format or of another segment is made again, and until then the segment is read
// from end to end. It has a few hundredths of the segment's size, which count to what may
// be kept.
//
// The file is a table's blocks, the list of blocks and strides, and an end of fixed size:
// eight bytes of a text, and little-endian the format (4 bytes), what tells the segment
// from others (4, 8 and 8), where the list begins (8) and its length (8). List and end have
// checksums like a block.
const (
	indexSuffix = ".index"
	indexText   = "pylokidx"
	indexFormat = 1
	indexEnd    = len(indexText) + 2*4 + 4*8 + crc32.Size
)

// IndexFile returns the name of the index that a segment's file has, or may have.
func IndexFile(segment string) string { return strings.TrimSuffix(segment, suffix) + indexSuffix }

// index is what has been read of an index, or one in memory.
type index struct {
	table   table // of a sealed segment
	recent  recent
	strides []stride
	read    int64 // bytes, to have it
}

// find calls take with the places of each name that p selects, until it returns false. The
// places are in their order for each name, and the names in any. It returns how many bytes
// it has read.
func (x *index) find(p lock.Pattern, take func(places []int64) bool) (read int64, err error) {
	if x.table.r != nil {
		return x.table.find(p, take)
	}
	for _, chunk := range x.recent.chunks {
		for i := range chunk {
			if p.MatchText(chunk[i].name) && !take([]int64{chunk[i].at}) {
				return 0, nil
			}
		}
	}
	return 0, nil
}

// stride is a run of events, one line after the other: where the first begins, and
// between which times they all are. It ends where the next begins.
type stride struct {
	at               int64
	earliest, latest int64 // milliseconds since the Unix epoch
}

// strideEvents is how many events a stride has, unless it is the last of a segment.
const strideEvents = 1024

// recent is what an index in memory is made of. What it has is not changed, and more is
// only appended.
type recent struct {
	chunks  [][]entry // each with room for chunkEntries
	strides []stride
	events  int
}

// entry is an event: the name of its lock and where its line begins.
type entry struct {
	name string
	at   int64
}

const chunkEntries = 4096

// add adds an event, which comes behind those before.
func (r *recent) add(name string, at int64, milliseconds int64) {
	if r.events%chunkEntries == 0 {
		r.chunks = append(r.chunks, make([]entry, 0, chunkEntries))
	}
	last := &r.chunks[len(r.chunks)-1]
	*last = append(*last, entry{name, at})
	if r.events%strideEvents == 0 {
		r.strides = append(r.strides, stride{at, milliseconds, milliseconds})
	}
	s := &r.strides[len(r.strides)-1]
	s.earliest, s.latest = min(s.earliest, milliseconds), max(s.latest, milliseconds)
	r.events++
}

// index returns the index of what there is now.
func (r *recent) index() *index {
	return &index{recent: recent{chunks: slices.Clone(r.chunks)}, strides: slices.Clone(r.strides)}
}

// Unindexed has an element when there may be something for BuildIndexes to do.
func (j *Journal) Unindexed() <-chan struct{} { return j.unindexed }

func (j *Journal) wakeIndexer() {
	select {
	case j.unindexed <- struct{}{}:
	default:
	}
}

// BuildIndexes makes the indexes that sealed segments lack. It may run beside everything
// else, but once at a time.
func (j *Journal) BuildIndexes(ctx context.Context) error {
	j.mu.Lock()
	segments := slices.Clone(j.segments)
	j.mu.Unlock()
	for _, s := range segments[:max(len(segments)-1, 0)] {
		if s.indexBytes > 0 {
			continue
		}
		size, err := int64(0), errIndex
		if s.indexBytes == mayHaveIndex {
			size, err = j.checkIndex(s)
		}
		if err != nil {
			j.setIndex(s, noIndex)
			size, err = j.buildIndex(ctx, s)
		}
		isThere := j.setIndex(s, size)
		if err != nil || !isThere {
			// A file that is not whole, or of a segment that is no more.
			_ = j.fs.Remove(IndexFile(j.path(s)))
		}
		if err != nil && isThere {
			return fmt.Errorf("the index of %s could not be made, and its events are found by reading all of it: %w", j.path(s), err)
		}
	}
	return nil
}

// What a segment's indexBytes can be besides the size of a good file.
const (
	mayHaveIndex = 0  // nobody has looked
	noIndex      = -1 // and it is not yet to be read
)

// setIndex notes what is known of a segment's index, and reports whether the segment is
// still there.
func (j *Journal) setIndex(s segment, size int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, found := slices.BinarySearchFunc(j.segments, s, func(a, b segment) int { return cmp.Compare(a.after, b.after) })
	if !found {
		return false
	}
	j.segments[i].indexBytes = size
	if size > 0 {
		j.segments[i].recent = nil
	}
	return true
}

// checkIndex returns the size of a sealed segment's index, and an error if it is not good.
func (j *Journal) checkIndex(s segment) (int64, error) {
	text, err := disk.OpenRegular(j.fs, j.path(s), os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer text.Close()
	f, _, err := j.openIndex(s, text)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	stat, err := f.Stat()
	return stat.Size, err
}

// seal returns what tells a segment from others with as many bytes and events: a checksum
// over its beginning and its end.
func seal(text io.ReaderAt, s segment) (uint32, error) {
	ends := make([]byte, 2*min(s.end, probeBytes))
	half := len(ends) / 2
	if _, err := text.ReadAt(ends[:half], 0); err != nil {
		return 0, err
	}
	if _, err := text.ReadAt(ends[half:], s.end-int64(half)); err != nil {
		return 0, err
	}
	return crc32.Checksum(ends, crcTable), nil
}

// openIndex opens the index file of a sealed segment, which has a text.
func (j *Journal) openIndex(s segment, text io.ReaderAt) (_ disk.File, _ *index, err error) {
	want, err := seal(text, s)
	if err != nil {
		return nil, nil, err
	}
	f, err := disk.OpenRegular(j.fs, IndexFile(j.path(s)), os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	stat, err := f.Stat()
	var x *index
	if err == nil {
		x, err = readIndex(f, stat.Size, s, want)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, x, nil
}

// readIndex reads the end and the list of an index file. Its blocks are read when they are
// asked for.
func readIndex(r io.ReaderAt, size int64, s segment, seal uint32) (*index, error) {
	end := make([]byte, indexEnd)
	if size < int64(len(end)) {
		return nil, errIndex
	}
	if _, err := r.ReadAt(end, size-int64(len(end))); err != nil {
		return nil, err
	}
	end, err := checked(end)
	if err != nil {
		return nil, err
	}
	end, isIndex := bytes.CutPrefix(end, []byte(indexText))
	at, length := binary.LittleEndian.Uint64(end[24:]), binary.LittleEndian.Uint64(end[32:])
	switch {
	case !isIndex || binary.LittleEndian.Uint32(end) != indexFormat:
		return nil, fmt.Errorf("%w: it has another format", errIndex)
	case binary.LittleEndian.Uint32(end[4:]) != seal || binary.LittleEndian.Uint64(end[8:]) != uint64(s.after) || binary.LittleEndian.Uint64(end[16:]) != uint64(s.end):
		return nil, fmt.Errorf("%w: it is of another segment", errIndex)
	case at > uint64(size) || length != uint64(size)-uint64(indexEnd)-at:
		return nil, errIndex
	}
	list := make([]byte, length)
	if _, err := r.ReadAt(list, int64(at)); err != nil {
		return nil, err
	}
	if list, err = checked(list); err != nil {
		return nil, err
	}
	x, err := parseList(r, list, int64(at))
	if err == nil {
		x.read = int64(length) + 2*probeBytes // the seal is of as much
	}
	return x, err
}

// parseList reads the list of an index file whose blocks end at an offset.
func parseList(r io.ReaderAt, list []byte, end int64) (*index, error) {
	x := &index{table: table{r: r}}
	c := cursor{rest: list}
	next := int64(0)
	for range c.number() {
		length := c.number()
		if c.err != nil || length > uint64(len(c.rest)) || length > lock.MaxNameBytes {
			return nil, errIndex
		}
		b := block{first: string(c.rest[:length]), at: next}
		c.rest = c.rest[length:]
		if b.length = int64(c.number()); b.length > mostBlock || c.err != nil {
			return nil, errIndex
		}
		next += b.length
		x.table.blocks = append(x.table.blocks, b)
	}
	place, before := int64(0), int64(0)
	for range c.number() {
		place += int64(c.number())
		// Zigzag: a clock may have been set back.
		step := c.number()
		before += int64(step>>1) ^ -int64(step&1)
		s := stride{at: place, earliest: before, latest: before + int64(c.number())}
		if c.err != nil {
			return nil, errIndex
		}
		x.strides = append(x.strides, s)
	}
	if c.err != nil || len(c.rest) > 0 || next != end || len(x.table.blocks) == 0 {
		return nil, errIndex
	}
	return x, nil
}

// buildIndex writes the index file of a sealed segment, and returns its size.
func (j *Journal) buildIndex(ctx context.Context, s segment) (int64, error) {
	text, err := disk.OpenRegular(j.fs, j.path(s), os.O_RDONLY, 0)
	if err != nil {
		return noIndex, err
	}
	defer text.Close()
	from := s.recent
	if from == nil {
		if from, err = indexLines(ctx, io.NewSectionReader(text, 0, s.end)); err != nil {
			return noIndex, err
		}
	}
	seal, err := seal(text, s)
	if err != nil {
		return noIndex, err
	}
	f, err := disk.OpenRegular(j.fs, IndexFile(j.path(s)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return noIndex, err
	}
	size, err := writeIndex(f, from, s, seal)
	if err = errors.Join(err, f.Close()); err != nil {
		return noIndex, err
	}
	return size, nil
}

// writeIndex writes an index file and returns its size.
func writeIndex(f io.WriterAt, from *recent, s segment, seal uint32) (int64, error) {
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 256<<10)
	table := tableWriter{w: w}
	entries := slices.Concat(from.chunks...)
	slices.SortFunc(entries, func(a, b entry) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return cmp.Compare(a.at, b.at)
	})
	var name []byte
	var places []int64
	for i, e := range entries {
		places = append(places, e.at)
		if i == len(entries)-1 || entries[i+1].name != e.name {
			name = append(name[:0], e.name...)
			if err := table.add(name, places); err != nil {
				return 0, err
			}
			places = places[:0]
		}
	}
	if err := table.flush(); err != nil {
		return 0, err
	}
	list := binary.AppendUvarint(nil, uint64(len(table.blocks)))
	for _, b := range table.blocks {
		list = binary.AppendUvarint(list, uint64(len(b.first)))
		list = append(list, b.first...)
		list = binary.AppendUvarint(list, uint64(b.length))
	}
	list = binary.AppendUvarint(list, uint64(len(from.strides)))
	place, before := int64(0), int64(0)
	for _, s := range from.strides {
		list = binary.AppendUvarint(list, uint64(s.at-place))
		step := s.earliest - before
		list = binary.AppendUvarint(list, uint64(step<<1)^uint64(step>>63))
		list = binary.AppendUvarint(list, uint64(s.latest-s.earliest))
		place, before = s.at, s.earliest
	}
	list = appendChecked(list, 0)
	start := len(list)
	end := append(list, indexText...)
	end = binary.LittleEndian.AppendUint32(end, indexFormat)
	end = binary.LittleEndian.AppendUint32(end, seal)
	end = binary.LittleEndian.AppendUint64(end, uint64(s.after))
	end = binary.LittleEndian.AppendUint64(end, uint64(s.end))
	end = binary.LittleEndian.AppendUint64(end, uint64(table.at))
	end = binary.LittleEndian.AppendUint64(end, uint64(start))
	end = appendChecked(end, start)
	if _, err := w.Write(end); err != nil {
		return 0, err
	}
	return table.at + int64(len(end)), w.Flush()
}

// indexLines makes an index in memory of the lines of a segment.
func indexLines(ctx context.Context, r *io.SectionReader) (*recent, error) {
	made := &recent{}
	at := int64(0)
	lines := lines{ctx: ctx, r: r}
	err := lines.forward(0, r.Size(), func(line []byte, offset int64) error {
		at = offset
		line = bytes.TrimSuffix(line, []byte("\n"))
		if err := verify(line); err != nil {
			return err
		}
		record, err := parseRecord(line)
		if err == nil && record.Kind == KindEvent {
			made.add(record.Event.Lock.Name.String(), offset, record.Event.Time.UnixMilli())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("at byte %d: %w", at, err)
	}
	return made, nil
}
