package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
	"strings"

	"github.com/pylok/pylok/lock"
)

// A table tells of some events which are about which names: for each name, in their
// order, the places in the segment where the lines begin. It consists of blocks, and a
// list of them by the first name in each, so that a name, or those with a prefix, are
// found by reading little.
//
// A block is entries and their CRC-32C. An entry is a name, as the number of bytes that it
// has in common with the name before and the others; how many places there are; the first
// place; and what must be added to each to have the next. A name with many places has
// several entries, one behind the other. Numbers are unsigned varints.
type table struct {
	r      io.ReaderAt
	blocks []block // in the order of their first names
}

// block is a part of a table.
type block struct {
	first      string // name
	at, length int64  // in the file; the checksum included
}

const (
	// blockBytes is the size at which a block ends, about.
	blockBytes = 4 << 10
	// entryPlaces is how many places an entry may have.
	entryPlaces = 512
	// mostPlace is more than any place in a segment.
	mostPlace = 1 << 48
	// mostBlock is how large a block can be.
	mostBlock = blockBytes + lock.MaxNameBytes + (entryPlaces+3)*binary.MaxVarintLen64 + crc32.Size
)

// errIndex: what is read is not what was written.
var errIndex = errors.New("the index is damaged")

// find calls take with the places of each name that p selects, name by name, until it
// returns false. It returns how many bytes it has read.
func (t *table) find(p lock.Pattern, take func(places []int64) bool) (read int64, err error) {
	more := true
	for part := range p.Parts() {
		n, err := t.findPart(part, func(places []int64) bool {
			more = take(places)
			return more
		})
		if read += n; err != nil || !more {
			return read, err
		}
	}
	return read, nil
}

// findPart is find for names that are beside each other, by the prefix of p.
func (t *table) findPart(p lock.Pattern, take func(places []int64) bool) (read int64, err error) {
	prefix, isOne := p.Prefix(), p.IsOne()
	// Names with the prefix may begin in the block before the first that begins with one.
	i := sort.Search(len(t.blocks), func(i int) bool { return t.blocks[i].first >= prefix })
	for i = max(i-1, 0); i < len(t.blocks); i++ {
		b := t.blocks[i]
		if b.first > prefix && (isOne || !strings.HasPrefix(b.first, prefix)) {
			return read, nil
		}
		text, err := t.read(b)
		if read += b.length; err != nil {
			return read, err
		}
		c := cursor{rest: text}
		for c.next() {
			switch {
			case string(c.name) < prefix:
			case isOne && string(c.name) != prefix, !bytes.HasPrefix(c.name, []byte(prefix)):
				return read, nil
			default:
				if !p.MatchText(string(c.name)) {
					continue
				}
				places, err := c.places()
				if err != nil {
					return read, err
				}
				if !take(places) {
					return read, nil
				}
			}
		}
		if c.err != nil {
			return read, c.err
		}
	}
	return read, nil
}

// read returns the entries of a block.
func (t *table) read(b block) ([]byte, error) {
	text := make([]byte, b.length)
	if _, err := t.r.ReadAt(text, b.at); err != nil {
		return nil, fmt.Errorf("%w: %w", errIndex, err)
	}
	return checked(text)
}

// checked returns a text without the checksum that it ends with.
func checked(text []byte) ([]byte, error) {
	n := len(text) - crc32.Size
	if n < 0 || binary.LittleEndian.Uint32(text[n:]) != crc32.Checksum(text[:n], crcTable) {
		return nil, errIndex
	}
	return text[:n], nil
}

// appendChecked appends the checksum of all that is there from start on.
func appendChecked(b []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], crcTable))
}

// cursor reads the entries of a block, and knows the name of the one that it has come to.
type cursor struct {
	name  []byte
	ahead int    // how many places it has that have not been read
	rest  []byte // what has not been read
	err   error
	room  []int64
}

// next goes on to the next entry, and reports whether there is one.
func (c *cursor) next() bool {
	for ; c.ahead > 0; c.ahead-- {
		c.number()
	}
	if c.err != nil || len(c.rest) == 0 {
		return false
	}
	shared, length := c.number(), c.number()
	if c.err != nil || shared > uint64(len(c.name)) || length > uint64(len(c.rest)) {
		c.err = errIndex
		return false
	}
	c.name = append(c.name[:shared], c.rest[:length]...)
	c.rest = c.rest[length:]
	count := c.number()
	if count == 0 || count > entryPlaces {
		c.err = errIndex
	}
	c.ahead = int(min(count, entryPlaces))
	return c.err == nil
}

// places returns those of the entry. They are valid until the next call.
func (c *cursor) places() ([]int64, error) {
	c.room = c.room[:0]
	var place int64
	for ; c.ahead > 0; c.ahead-- {
		place += int64(c.number())
		c.room = append(c.room, place)
	}
	return c.room, c.err
}

func (c *cursor) number() uint64 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 || v > mostPlace {
		c.err, c.rest = errIndex, nil
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

// tableWriter writes the blocks of a table.
type tableWriter struct {
	w      io.Writer
	blocks []block
	first  string // name in the block that is being made
	name   []byte // of the last entry in it
	text   []byte // of it
	at     int64  // where it begins
}

// add adds a name, which comes behind those before, and its places.
func (w *tableWriter) add(name []byte, places []int64) error {
	for len(places) > 0 {
		n := min(len(places), entryPlaces)
		if len(w.text) >= blockBytes {
			if err := w.flush(); err != nil {
				return err
			}
		}
		if len(w.text) == 0 {
			w.first, w.name = string(name), w.name[:0]
		}
		shared := 0
		for shared < min(len(name), len(w.name)) && name[shared] == w.name[shared] {
			shared++
		}
		w.text = binary.AppendUvarint(w.text, uint64(shared))
		w.text = binary.AppendUvarint(w.text, uint64(len(name)-shared))
		w.text = append(w.text, name[shared:]...)
		w.text = binary.AppendUvarint(w.text, uint64(n))
		before := int64(0)
		for _, place := range places[:n] {
			w.text = binary.AppendUvarint(w.text, uint64(place-before))
			before = place
		}
		w.name, places = append(w.name[:0], name...), places[n:]
	}
	return nil
}

// flush writes the block that is being made.
func (w *tableWriter) flush() error {
	if len(w.text) == 0 {
		return nil
	}
	w.text = appendChecked(w.text, 0)
	n, err := w.w.Write(w.text)
	w.blocks = append(w.blocks, block{first: w.first, at: w.at, length: int64(len(w.text))})
	w.at += int64(n)
	w.text = w.text[:0]
	return err
}
