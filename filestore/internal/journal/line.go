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

	batch int64 // where in the segment the batch begins that the line is in
}

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

// timeLayout is RFC 3339 in UTC, to the millisecond.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

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
		b = appendTime(b, "time", r.Time)
	case KindCheckpoint:
		b = append(b, `"checkpoint":`...)
		b = strconv.AppendUint(b, uint64(r.Revision), 10)
		b = appendUint(b, "counter", uint64(r.Counter))
		b = appendTime(b, "time", r.Time)
	case KindExtended:
		b = append(b, `"type":"extended"`...)
		b = appendLock(b, r.Event.Lock)
	default:
		e := r.Event
		b = append(b, `"revision":`...)
		b = strconv.AppendUint(b, uint64(e.Revision), 10)
		b = appendTime(b, "time", e.Time)
		b = appendMember(b, "type", e.Type.String())
		b = appendMember(b, "cause", e.Cause.String())
		b = appendLock(b, e.Lock)
		b = appendMember(b, "actor", e.Actor)
		b = appendMember(b, "reason", e.Reason)
	}
	if r.More {
		b = append(b, `,"more":true`...)
	}
	b = appendUint(b, "batch", uint64(r.batch))
	return appendChecksum(b, start)
}

// appendChecksum ends the line that begins at start.
func appendChecksum(b []byte, start int) []byte {
	crc := crc32.Checksum(b[start:], crcTable)
	b = append(b, crcMember...)
	b = appendHex8(b, crc)
	return append(b, "\"}\n"...)
}

func appendLock(b []byte, l lock.Lock) []byte {
	b = appendMember(b, "name", l.Name.String())
	b = appendUint(b, "token", uint64(l.Token))
	b = appendTime(b, "acquired", l.AcquireTime)
	b = appendMember(b, "holder", l.Holder)
	if l.TTL != 0 {
		b = appendMember(b, "ttl", l.TTL.String())
	}
	b = appendTime(b, "expires", l.ExpireTime)
	b = appendMember(b, "request_id", l.RequestID)
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

func appendTime(b []byte, key string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(appendKey(b, key), '"')
	b = t.UTC().AppendFormat(b, timeLayout)
	return append(b, '"')
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
	want := appendHex8(nil, crc32.Checksum(text[:body], crcTable))
	if !bytes.Equal(text[body+len(crcMember):len(text)-2], want) {
		return errChecksum
	}
	return nil
}

// lineFields are the members that tell of a lock.
type lineFields struct {
	Revision  lock.Revision
	Name      string
	Token     lock.Token
	Acquired  time.Time
	Holder    string
	TTL       string
	Expires   time.Time
	RequestID string `json:"request_id"`
	Problem   string
	Data      lock.Data
}

func (f *lineFields) lock() (lock.Lock, error) {
	name, err := lock.ParseName(f.Name)
	if err != nil {
		return lock.Lock{}, err
	}
	var ttl time.Duration
	if f.TTL != "" {
		if ttl, err = time.ParseDuration(f.TTL); err != nil {
			return lock.Lock{}, err
		}
	}
	return lock.Lock{
		Name:        name,
		Data:        f.Data,
		Holder:      f.Holder,
		Token:       f.Token,
		Revision:    f.Revision,
		AcquireTime: f.Acquired,
		TTL:         ttl,
		ExpireTime:  f.Expires,
		RequestID:   f.RequestID,
		Problem:     f.Problem,
	}, nil
}

// parseRecord reads one line, without its newline.
func parseRecord(text []byte) (Record, error) {
	if err := verify(text); err != nil {
		return Record{}, err
	}
	var j struct {
		lineFields
		Journal    string
		Format     int
		After      lock.Revision
		Checkpoint *lock.Revision
		Counter    lock.Revision
		Time       time.Time
		Type       string
		Cause      string
		Actor      string
		Reason     string
		More       bool
		Batch      int64
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return Record{}, fmt.Errorf("the line's checksum is right but it does not read: %w", err)
	}
	r := Record{More: j.More, Time: j.Time, batch: j.Batch}
	switch {
	case j.Journal != "":
		if j.Journal != "pylok" || j.Format != Format {
			return Record{}, fmt.Errorf("the journal has format %d of %q; this program reads format %d of \"pylok\". Use a program that writes that format, or the one that wrote it last", j.Format, j.Journal, Format)
		}
		r.Kind, r.Revision = KindHeader, j.After
		return r, nil
	case j.Checkpoint != nil:
		r.Kind, r.Revision, r.Counter = KindCheckpoint, *j.Checkpoint, j.Counter
		return r, nil
	}
	l, err := j.lock()
	if err != nil {
		return Record{}, err
	}
	r.Event = lock.Event{Revision: j.Revision, Time: j.Time, Lock: l, Actor: j.Actor, Reason: j.Reason}
	if j.Type == lock.Extended.String() {
		r.Kind = KindExtended
		return r, nil
	}
	r.Kind = KindEvent
	for _, t := range []lock.EventType{lock.Locked, lock.Updated, lock.Unlocked} {
		if t.String() == j.Type {
			r.Event.Type = t
		}
	}
	for _, c := range []lock.Cause{lock.Request, lock.Forced, lock.Expired, lock.File} {
		if c.String() == j.Cause {
			r.Event.Cause = c
		}
	}
	if r.Event.Type == 0 || r.Event.Cause == 0 || r.Event.Revision == 0 {
		return Record{}, fmt.Errorf("no type %q with cause %q and revision %d is known", j.Type, j.Cause, j.Revision)
	}
	return r, nil
}
