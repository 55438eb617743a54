// Package lockfile is the format of a lock file: block YAML with the user's keys
// at top level beside the server's reserved keys, so written that PyYAML's
// safe_load and yaml.v3 read back the same values, and so read that whatever a
// person or a script left there counts for what it is.
package lockfile

import (
	"strconv"
	"strings"
	"time"

	"github.com/pylok/pylok/lock"
)

// timeLayout is how times are written: RFC 3339 in UTC, to the millisecond.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Append appends the text of the lock file of a hold, which lies at location.
func Append(b []byte, l lock.Lock, location string) []byte {
	keys := l.Data.Map()
	keys["lock_acquired"] = l.AcquireTime.UTC().Format(timeLayout)
	keys["lock_action"] = "lock"
	keys["lock_file_location"] = location
	keys["lock_file_status"] = "locked"
	keys["lock_token"] = uint64(l.Token)
	if l.Holder != "" {
		keys["lock_holder"] = l.Holder
	}
	if l.TTL != 0 {
		keys["lock_ttl"] = formatTTL(l.TTL)
	}
	if !l.ExpireTime.IsZero() {
		keys["lock_expires"] = l.ExpireTime.UTC().Format(timeLayout)
	}
	if l.RequestID != "" {
		keys["lock_request_id"] = l.RequestID
	}
	return appendMapping(b, keys, 0)
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
