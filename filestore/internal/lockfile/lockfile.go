// Package lockfile is the format of a lock file: block YAML with the user's keys
// at top level beside the server's reserved keys, so written that PyYAML's
// safe_load and yaml.v3 read back the same values, and so read that whatever a
// person or a script left there counts for what it is.
package lockfile

import (
	"strconv"
	"strings"
	"time"

	"github.com/pylok/pylok/internal/canonical"
	"github.com/pylok/pylok/lock"
)

// timeLayout is how times are written: RFC 3339 in UTC, to the millisecond.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Append appends the text of the lock file of a hold, which lies at location. All keys,
// the user's and the reserved ones, are sorted.
func Append(b []byte, l lock.Lock, location string) []byte {
	reserved := reservedKeys(l, location)
	if !l.Data.IsEmpty() {
		r := canonical.NewReader(l.Data.JSON())
		for key := range r.Mapping() {
			for len(reserved) > 0 && reserved[0].key < key {
				b = reserved[0].append(b)
				reserved = reserved[1:]
			}
			b = appendPair(b, key, 0, func(b []byte) []byte { return appendValue(b, &r, 0) })
		}
	}
	for _, pair := range reserved {
		b = pair.append(b)
	}
	return b
}

// pair is a reserved key and its value.
type pair struct {
	key, text string
	isNumber  bool // the text is a number
}

func (p pair) append(b []byte) []byte {
	return appendPair(b, p.key, 0, func(b []byte) []byte {
		b = append(b, ' ')
		if p.isNumber {
			b = append(b, p.text...)
			return append(b, '\n')
		}
		return appendText(b, p.text, 2)
	})
}

// reservedKeys returns the reserved keys of a hold's file, sorted.
func reservedKeys(l lock.Lock, location string) []pair {
	keys := make([]pair, 0, len(lock.ReservedKeys))
	add := func(key, text string) { keys = append(keys, pair{key: key, text: text}) }
	add("lock_acquired", l.AcquireTime.UTC().Format(timeLayout))
	add("lock_action", "lock")
	if !l.ExpireTime.IsZero() {
		add("lock_expires", l.ExpireTime.UTC().Format(timeLayout))
	}
	add("lock_file_location", location)
	add("lock_file_status", "locked")
	if l.Holder != "" {
		add("lock_holder", l.Holder)
	}
	if l.RequestID != "" {
		add("lock_request_id", l.RequestID)
	}
	keys = append(keys, pair{"lock_token", strconv.FormatUint(uint64(l.Token), 10), true})
	if l.TTL != 0 {
		add("lock_ttl", formatTTL(l.TTL))
	}
	return keys
}

// formatTTL writes 30m0s as 30m, and a fraction of a second exactly.
func formatTTL(ttl time.Duration) string {
	text := ttl.String()
	if ttl < time.Second {
		// Its units would be ms or µs, and µ is not ASCII.
		return strings.TrimRight(strconv.FormatFloat(ttl.Seconds(), 'f', 9, 64), "0") + "s"
	}
	if strings.HasSuffix(text, "m0s") {
		text = text[:len(text)-2]
	}
	if strings.HasSuffix(text, "h0m") {
		text = text[:len(text)-2]
	}
	return text
}

// Content is what a lock file says.
type Content struct {
	// Data is the user's document.
	Data lock.Data
	// Problem says why the file could not be read; empty when it could. Then
	// nothing else is set.
	Problem string

	// The rest are the reserved keys; zero where one is missing or is not what
	// the server writes.

	Token       lock.Token
	Holder      string
	AcquireTime time.Time
	TTL         time.Duration
	ExpireTime  time.Time
	RequestID   string
}

// ContentOf returns what Read makes of what Append writes for a hold.
func ContentOf(l lock.Lock) Content {
	return Content{
		Data:        l.Data,
		Token:       l.Token,
		Holder:      l.Holder,
		AcquireTime: l.AcquireTime,
		TTL:         l.TTL,
		ExpireTime:  l.ExpireTime,
		RequestID:   l.RequestID,
	}
}
