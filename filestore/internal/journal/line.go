package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/pylok/pylok/filestore/internal/timestamp"
	"github.com/pylok/pylok/lock"
)

// Format is the version of the journal that this package writes and reads.
const Format = 1

// A Record is one line of the journal.
type Record struct {
	Kind  Kind
	Event lock.Event // for KindEvent; for KindExtended its Lock alone
	// More says that the next line belongs to the same commit, which counts
	// only as a whole.
	More bool
	// Revision is, for KindCheckpoint, the last change whose file is known to
	// be durable, for KindHeader the last change before the segment, and for
	// KindExtended, when it is replayed, the last change before it.
	Revision lock.Revision
	// Counter is, for KindCheckpoint, the highest revision that was ever given
	// out or seen, whether or not it has an event.
	Counter lock.Revision
	Time    time.Time // for KindCheckpoint and KindHeader
	// File is, for KindEvent, the lock file after it, as far as is known.
	File FileID

	batch int64 // where in the segment the batch begins that the line is in
	at    int64 // where in the segment the line begins; noPlace: it does not say
	// before is, for KindHeader, the size of the segment before; 0: there was none, or
	// it does not say.
	before int64
}

// FileID tells a file from all others of its file system, now and before: an inode number
// alone is used again. The zero FileID is of no file, or of one that is not known.
type FileID struct {
	Inode uint64
	Birth int64 // nanoseconds since the Unix epoch; 0: the file system does not tell
}

// noPlace is the place of a line of a program that did not write it down yet.
const noPlace = -1

// Kind says what a Record tells.
type Kind uint8

// The kinds.
const (
	// KindHeader begins a segment.
	KindHeader Kind = iota + 1
	// KindEvent is a change.
	KindEvent
	// KindExtended is a change of a hold's terms, without a revision.
	KindExtended
	// KindCheckpoint says which lock files are durable.
	KindCheckpoint
)

// crcTable is that of CRC-32C (RFC 3720, appendix B.4).
var crcTable = crc32.MakeTable(crc32.Castagnoli)

// The checksum is the last member of a line's object and covers the bytes before
// its comma.
const crcMember = `,"crc32c":"`

const crcLength = len(crcMember) + 8 + len(`"}`)

// appendRecord appends r as one line with its newline.
func appendRecord(b []byte, r Record) []byte {
	start := len(b)
	b = append(b, '{')
	switch r.Kind {
	case KindHeader:
		b = append(b, `"journal":"pylok"`...)
		b = appendUint(b, "format", Format)
		b = appendUint(b, "after", uint64(r.Revision))
		if r.before > 0 {
			b = appendUint(b, "before", uint64(r.before))
		}
		b = appendTime(b, "time", r.Time)
	case KindCheckpoint:
		b = append(b, `"checkpoint":`...)
		b = strconv.AppendUint(b, uint64(r.Revision), 10)
		b = appendUint(b, "counter", uint64(r.Counter))
		b = appendTime(b, "time", r.Time)
	case KindExtended:
		b = append(b, `"type":"extended"`...)
		b = appendLock(b, &r.Event.Lock)
	default:
		e := &r.Event
		b = append(b, `"revision":`...)
		b = strconv.AppendUint(b, uint64(e.Revision), 10)
		b = appendTime(b, "time", e.Time)
		b = appendMember(b, "type", e.Type.String())
		b = appendMember(b, "cause", e.Cause.String())
		b = appendLock(b, &e.Lock)
		if e.Previous != 0 {
			b = appendUint(b, "previous", uint64(e.Previous))
		}
		b = appendMember(b, "actor", e.Actor)
		b = appendMember(b, "reason", e.Reason)
		b = appendFileID(b, r.File)
	}
	if r.More {
		b = append(b, `,"more":true`...)
	}
	b = appendUint(b, "batch", uint64(r.batch))
	b = appendUint(b, "at", uint64(r.at))
	return appendChecksum(b, start)
}

// placeOf returns where a line, which is whole, says that it begins. It is the last
// member before the checksum.
func placeOf(line []byte) int64 {
	body := line[:len(line)-crcLength]
	digits := bytes.TrimRight(body, "0123456789")
	if !bytes.HasSuffix(digits, []byte(`,"at":`)) {
		return noPlace
	}
	at, err := strconv.ParseInt(string(body[len(digits):]), 10, 64)
	if err != nil {
		return noPlace
	}
	return at
}

// checkPlace finds a line that is not where it was written: one before it has been taken
// out or put in, or the lines have changed places.
func checkPlace(r Record, offset int64) error {
	if r.at != noPlace && r.at != offset || r.batch > offset {
		return fmt.Errorf("the line was written at byte %d: lines before it have been taken out, put in or moved", max(r.at, r.batch))
	}
	return nil
}

// appendFileID appends a member that tells which file a lock has, unless that is unknown.
func appendFileID(b []byte, id FileID) []byte {
	if id == (FileID{}) {
		return b
	}
	b = append(b, `,"file":[`...)
	b = strconv.AppendUint(b, id.Inode, 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, id.Birth, 10)
	return append(b, ']')
}

func parseFileID(value []byte) (id FileID, err error) {
	inode, birth, _ := bytes.Cut(bytes.Trim(value, "[]"), []byte(","))
	if id.Inode, err = number[uint64](inode); err == nil {
		id.Birth, err = strconv.ParseInt(string(birth), 10, 64)
	}
	return id, err
}

func parseSet(value []byte) (set lock.SetRef, err error) {
	id, size, _ := bytes.Cut(bytes.Trim(value, "[]"), []byte(","))
	if set.ID, err = number[lock.Token](id); err == nil {
		set.Size, err = number[int](size)
	}
	return set, err
}

// appendChecksum ends the line that begins at start.
func appendChecksum(b []byte, start int) []byte {
	crc := crc32.Checksum(b[start:], crcTable)
	b = append(b, crcMember...)
	b = appendHex8(b, crc)
	return append(b, "\"}\n"...)
}

func appendLock(b []byte, l *lock.Lock) []byte {
	b = appendMember(b, "name", l.Name.String())
	b = appendUint(b, "token", uint64(l.Token))
	b = appendTime(b, "acquired", l.AcquireTime)
	b = appendMember(b, "holder", l.Holder)
	b = appendMember(b, "caller", l.Caller)
	if l.TTL != 0 {
		b = appendMember(b, "ttl", l.TTL.String())
	}
	b = appendTime(b, "expires", l.ExpireTime)
	b = appendMember(b, "request_id", l.RequestID)
	b = appendFlag(b, "tree", l.Tree)
	if l.OnExpiry != lock.End {
		b = appendMember(b, "on_expiry", l.OnExpiry.String())
	}
	if l.Set != (lock.SetRef{}) {
		b = append(b, `,"set":[`...)
		b = append(strconv.AppendUint(b, uint64(l.Set.ID), 10), ',')
		b = append(strconv.AppendInt(b, int64(l.Set.Size), 10), ']')
	}
	b = appendTime(b, "stale", l.StaleTime)
	b = appendMember(b, "problem", l.Problem)
	if !l.Data.IsEmpty() {
		b = append(b, `,"data":`...)
		b = append(b, l.Data.JSON()...)
	}
	return b
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendUint(b []byte, key string, v uint64) []byte {
	return strconv.AppendUint(appendKey(b, key), v, 10)
}

// appendTime appends a member that is a time, unless it is zero.
func appendTime(b []byte, key string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return append(timestamp.Append(append(appendKey(b, key), '"'), t), '"')
}

// appendMember appends a string member, unless it is empty.
func appendMember(b []byte, key, text string) []byte {
	if text == "" {
		return b
	}
	b = append(appendKey(b, key), '"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// appendFlag appends a boolean member, unless it is false.
func appendFlag(b []byte, key string, v bool) []byte {
	if !v {
		return b
	}
	return append(appendKey(b, key), "true"...)
}

func appendHex8(b []byte, v uint32) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

// errChecksum: a line is not what was written.
var errChecksum = errors.New("the line does not match its checksum")

// verify holds a line, without its newline, to its checksum.
func verify(text []byte) error {
	body := len(text) - crcLength
	if body < 1 || !bytes.HasPrefix(text[body:], []byte(crcMember)) || !bytes.HasSuffix(text, []byte(`"}`)) {
		return errChecksum
	}
	var digits [8]byte
	want := appendHex8(digits[:0], crc32.Checksum(text[:body], crcTable))
	if !bytes.Equal(text[body+len(crcMember):len(text)-2], want) {
		return errChecksum
	}
	return nil
}

// lineReader reads lines without reflection, as a start reads millions. What many
// say alike it keeps once; the zero lineReader does not.
type lineReader struct {
	texts map[string]string
	data  map[string]lock.Data
}

// mostAlike is how many different values of a kind a lineReader remembers.
const mostAlike = 1024

func newLineReader() *lineReader {
	return &lineReader{texts: make(map[string]string), data: make(map[string]lock.Data)}
}

var errSyntax = errors.New("it is not a JSON object")

// members calls take with the key and the JSON value of each member of a line.
func members(line []byte, take func(key, value []byte) error) error {
	rest, ok := bytes.CutPrefix(line, []byte("{"))
	for ok {
		key := rest[:valueEnd(rest)]
		if rest, ok = bytes.CutPrefix(rest[len(key):], []byte(":")); !ok || len(key) < 2 {
			break
		}
		value := rest[:valueEnd(rest)]
		if err := take(key[1:len(key)-1], value); err != nil {
			return err
		}
		if rest = rest[len(value):]; string(rest) == "}" {
			return nil
		}
		rest, ok = bytes.CutPrefix(rest, []byte(","))
	}
	return errSyntax
}

// valueEnd returns where the JSON value ends that text begins with.
func valueEnd(text []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if quoted = !quoted; !quoted && depth == 0 {
				return i + 1
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ':' || c == '}'):
			return i
		case c == '}' || c == ']':
			if depth--; depth <= 0 {
				return i + 1
			}
		}
	}
	return len(text)
}

// text reads a string.
func (r *lineReader) text(value []byte) (string, error) {
	if text, ok := r.texts[string(value)]; ok {
		return text, nil
	}
	text, err := plainText(value)
	if err == nil && r.texts != nil {
		if len(r.texts) == mostAlike {
			clear(r.texts)
		}
		r.texts[string(value)] = text
	}
	return text, err
}

// plainText reads a string that few lines have.
func plainText(value []byte) (text string, err error) {
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : n-1]), nil
	}
	err = json.Unmarshal(value, &text)
	return text, err
}

// document reads a lock's data.
func (r *lineReader) document(value []byte) (lock.Data, error) {
	if data, ok := r.data[string(value)]; ok {
		return data, nil
	}
	data, err := lock.ParseData(value)
	if err == nil && r.data != nil {
		if len(r.data) == mostAlike {
			clear(r.data)
		}
		r.data[string(value)] = data
	}
	return data, err
}

// number reads a number that is not negative.
func number[N ~uint64 | ~int64 | ~int](value []byte) (N, error) {
	n, err := strconv.ParseUint(string(value), 10, 64)
	return N(n), err
}

// lockMember takes in a member that tells of a lock; others it passes over.
func (r *lineReader) lockMember(l *lock.Lock, key, value []byte) (err error) {
	switch string(key) {
	case "revision":
		l.Revision, err = number[lock.Revision](value)
	case "name":
		var text string
		if text, err = plainText(value); err == nil {
			l.Name, err = lock.ParseName(text)
		}
	case "token":
		l.Token, err = number[lock.Token](value)
	case "acquired":
		err = l.AcquireTime.UnmarshalJSON(value)
	case "holder":
		l.Holder, err = r.text(value)
	case "caller":
		l.Caller, err = r.text(value)
	case "ttl":
		var text string
		if text, err = plainText(value); err == nil {
			l.TTL, err = time.ParseDuration(text)
		}
	case "expires":
		err = l.ExpireTime.UnmarshalJSON(value)
	case "request_id":
		l.RequestID, err = plainText(value)
	case "tree":
		l.Tree = string(value) == "true"
	case "on_expiry":
		var text string
		if text, err = plainText(value); err == nil && text == lock.Keep.String() {
			l.OnExpiry = lock.Keep
		}
	case "set":
		l.Set, err = parseSet(value)
	case "stale":
		err = l.StaleTime.UnmarshalJSON(value)
	case "problem":
		l.Problem, err = r.text(value)
	case "data":
		l.Data, err = r.document(value)
	}
	return err
}

// parseRecord reads one line, without its newline.
func parseRecord(text []byte) (Record, error) { return new(lineReader).record(text) }

// record reads one line, without its newline.
func (lr *lineReader) record(text []byte) (Record, error) {
	if err := verify(text); err != nil {
		return Record{}, err
	}
	r := Record{at: noPlace}
	var format int
	var header, kind, cause string
	l := &r.Event.Lock
	err := members(text, func(key, value []byte) (err error) {
		switch string(key) {
		case "journal":
			header, err = plainText(value)
		case "format":
			format, err = number[int](value)
		case "after":
			r.Revision, err = number[lock.Revision](value)
		case "before":
			r.before, err = number[int64](value)
		case "checkpoint":
			r.Kind = KindCheckpoint
			r.Revision, err = number[lock.Revision](value)
		case "counter":
			r.Counter, err = number[lock.Revision](value)
		case "time":
			err = r.Time.UnmarshalJSON(value)
		case "type":
			kind, err = lr.text(value)
		case "cause":
			cause, err = lr.text(value)
		case "actor":
			r.Event.Actor, err = lr.text(value)
		case "reason":
			r.Event.Reason, err = lr.text(value)
		case "previous":
			r.Event.Previous, err = number[lock.Token](value)
		case "more":
			r.More = string(value) == "true"
		case "batch":
			r.batch, err = number[int64](value)
		case "at":
			r.at, err = number[int64](value)
		case "file":
			r.File, err = parseFileID(value)
		default:
			err = lr.lockMember(l, key, value)
		}
		if err != nil {
			err = fmt.Errorf("its %s: %w", key, err)
		}
		return err
	})
	switch {
	case err != nil:
		return Record{}, fmt.Errorf("the line's checksum is right but it does not read: %w", err)
	case header != "":
		if header != "pylok" || format != Format {
			return Record{}, fmt.Errorf("the journal has format %d of %q; this program reads format %d of \"pylok\". Use a program that writes that format, or the one that wrote it last", format, header, Format)
		}
		r.Kind = KindHeader
		return r, nil
	case r.Kind == KindCheckpoint:
		return r, nil
	case l.Name.IsZero():
		return Record{}, errors.New("the line names no lock")
	}
	if kind == lock.Extended.String() {
		r.Kind = KindExtended
		return r, nil
	}
	r.Kind = KindEvent
	r.Event.Revision, r.Event.Time = l.Revision, r.Time
	for _, t := range []lock.EventType{lock.Locked, lock.Updated, lock.Unlocked} {
		if t.String() == kind {
			r.Event.Type = t
		}
	}
	for _, c := range []lock.Cause{lock.Request, lock.Forced, lock.Expired, lock.File} {
		if c.String() == cause {
			r.Event.Cause = c
		}
	}
	if r.Event.Type == 0 || r.Event.Cause == 0 || r.Event.Revision == 0 {
		return Record{}, fmt.Errorf("no type %q with cause %q and revision %d is known", kind, cause, r.Event.Revision)
	}
	return r, nil
}
