// Package timestamp writes times as lock files and the journal have them.
package timestamp

import "time"

// Append appends a time: RFC 3339 (section 5.6) in UTC, to the millisecond, what is
// smaller cut off. Package time has a fast way for whole seconds alone.
func Append(b []byte, t time.Time) []byte {
	b = t.UTC().AppendFormat(b, time.RFC3339)
	milli := t.Nanosecond() / 1e6
	return append(b[:len(b)-len("Z")], '.', byte('0'+milli/100), byte('0'+milli/10%10), byte('0'+milli%10), 'Z')
}
