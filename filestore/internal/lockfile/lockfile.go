// Package lockfile is the format of a lock file: block YAML with the user's keys
// at top level beside the server's reserved keys, so written that PyYAML's
// safe_load and yaml.v3 read back the same values, and so read that whatever a
// person or a script left there counts for what it is.
package lockfile

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pylok/pylok/filestore/internal/timestamp"
	"github.com/pylok/pylok/internal/document"
	"github.com/pylok/pylok/internal/document/yamldoc"
	"github.com/pylok/pylok/lock"
)

// Append appends the text of the lock file of a hold, which lies at location. All keys,
// the user's and the reserved ones, are sorted.
func Append(b []byte, l lock.Lock, location string) []byte {
	b = slices.Grow(b, len(l.Data.JSON())+usualBytes)
	reserved := lock.ReservedKeys
	if !l.Data.IsEmpty() {
		r := document.NewReader(l.Data.JSON())
		for key := range r.Mapping() {
			for len(reserved) > 0 && reserved[0] < key {
				b = appendReserved(b, reserved[0], &l, location)
				reserved = reserved[1:]
			}
			b = yamldoc.AppendKey(b, key, 0)
			b = yamldoc.AppendValue(b, &r, 0)
		}
	}
	for _, key := range reserved {
		b = appendReserved(b, key, &l, location)
	}
	return b
}

// usualBytes is what the reserved keys take, and the quotes and indents of the data, if
// no text is long.
const usualBytes = 400

// appendReserved appends a reserved key and its value, if the hold has one.
func appendReserved(b []byte, key string, l *lock.Lock, location string) []byte {
	start := len(b)
	b = append(b, key...)
	b = append(b, ": "...)
	switch key {
	case "lock_acquired":
		return appendTime(b, l.AcquireTime)
	case "lock_action":
		return append(b, "lock\n"...)
	case "lock_caller":
		if l.Caller != "" {
			return yamldoc.AppendText(b, l.Caller, 2)
		}
	case "lock_expires":
		if !l.ExpireTime.IsZero() {
			return appendTime(b, l.ExpireTime)
		}
	case "lock_file_location":
		return yamldoc.AppendText(b, location, 2)
	case "lock_file_status":
		return append(b, "locked\n"...)
	case "lock_holder":
		if l.Holder != "" {
			return yamldoc.AppendText(b, l.Holder, 2)
		}
	case "lock_on_expiry":
		if l.OnExpiry == lock.Keep {
			return append(b, "keep\n"...)
		}
	case "lock_request_id":
		if l.RequestID != "" {
			return yamldoc.AppendText(b, l.RequestID, 2)
		}
	case "lock_scope":
		if l.Tree {
			return append(b, "tree\n"...)
		}
	case "lock_set":
		if l.Set != (lock.SetRef{}) {
			b = append(strconv.AppendUint(b, uint64(l.Set.ID), 10), '/')
			return append(strconv.AppendInt(b, int64(l.Set.Size), 10), '\n')
		}
	case "lock_stale":
		if l.Stale() {
			return appendTime(b, l.StaleTime)
		}
	case "lock_token":
		return append(strconv.AppendUint(b, uint64(l.Token), 10), '\n')
	case "lock_ttl":
		if l.TTL != 0 {
			return yamldoc.AppendText(b, formatTTL(l.TTL), 2)
		}
	}
	return b[:start]
}

// appendTime appends a time in quotes, without which YAML readers take it for more than
// text.
func appendTime(b []byte, t time.Time) []byte {
	return append(timestamp.Append(append(b, '"'), t), '"', '\n')
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
	Caller      string
	AcquireTime time.Time
	TTL         time.Duration
	ExpireTime  time.Time
	RequestID   string
	OnExpiry    lock.OnExpiry
	Set         lock.SetRef
	StaleTime   time.Time
	// Tree: lock_scope says tree. IsTree says whether that counts.
	Tree bool
	// Location is where the file was, by itself, when it was written.
	Location string
}

// IsTree reports whether a file at location stands for a tree. It is read from the file of
// hold; the zero Lock: of a new one. The key lock_scope counts, whoever wrote it, but not
// in a copy: that has another lock_file_location, and not the hold's token.
func (c Content) IsTree(hold lock.Lock, location string) bool {
	isCopy := c.Location != "" && c.Location != location && (c.Token == 0 || c.Token != hold.Token)
	if c.Problem != "" || c.Tree && isCopy { // nobody thaws by a slip
		return hold.Tree
	}
	return c.Tree
}

// ContentOf returns what Read makes of what Append writes for a hold.
func ContentOf(l lock.Lock, location string) Content {
	return Content{
		Data:        l.Data,
		Token:       l.Token,
		Holder:      l.Holder,
		Caller:      l.Caller,
		AcquireTime: l.AcquireTime,
		TTL:         l.TTL,
		ExpireTime:  l.ExpireTime,
		RequestID:   l.RequestID,
		OnExpiry:    l.OnExpiry,
		Set:         l.Set,
		StaleTime:   l.StaleTime,
		Tree:        l.Tree,
		Location:    location,
	}
}
