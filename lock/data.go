package lock

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pylok/pylok/internal/document"
)

// Limits of the data.
const (
	MaxDataDepth = document.MaxDepth // levels of mappings and lists, the document itself being the first
	MaxFileBytes = 64 << 10          // bytes of the lock file that holds the data
	maxDataBytes = 256 << 10         // bytes of JSON looked at before the store measures the file
)

// ReservedKeys are the top-level keys of a lock file that the server alone
// writes, sorted. They are dropped from incoming data.
var ReservedKeys = []string{
	"lock_acquired",
	"lock_action",
	"lock_caller",
	"lock_expires",
	"lock_file_location",
	"lock_file_status",
	"lock_holder",
	"lock_on_expiry",
	"lock_request_id",
	"lock_scope",
	"lock_set",
	"lock_stale",
	"lock_token",
	"lock_ttl",
}

// Data is a user's own document: a mapping from strings to null, booleans,
// numbers, strings, lists and mappings. A Data never changes; it is kept as
// canonical JSON (keys sorted, no white space), so == compares documents. The
// zero Data is the empty document.
type Data struct{ text string }

// NewData makes a document from what encoding/json makes of one: nil, bool,
// float64, string, []any and map[string]any. Reserved keys are left out. The
// error is an *Error with ErrInvalidArgument, or ErrDataTooLarge for a document
// that no lock file can hold.
func NewData(mapping map[string]any) (Data, error) {
	kept := mapping
	for _, key := range ReservedKeys {
		if _, ok := mapping[key]; ok {
			kept = make(map[string]any, len(mapping))
			for k, v := range mapping {
				if !slices.Contains(ReservedKeys, k) {
					kept[k] = v
				}
			}
			break
		}
	}
	if len(kept) == 0 {
		return Data{}, nil
	}
	if path, problem := document.Check(kept); problem != "" {
		return Data{}, Invalid("data", QuoteShort("data"+path)+" "+problem)
	}
	text := document.Append(make([]byte, 0, 256), kept)
	if len(text) > maxDataBytes {
		return Data{}, DataTooLarge(fmt.Sprintf("the data is %d bytes of JSON", len(text)))
	}
	return Data{string(text)}, nil
}

// ParseData makes a document from a JSON object. It is fast where the object is
// canonical already, as a Data writes it.
func ParseData(text []byte) (Data, error) {
	if len(text) <= maxDataBytes && document.IsCanonical(text, ReservedKeys) {
		return Data{string(text)}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	var mapping map[string]any
	if err := decoder.Decode(&mapping); err != nil {
		return Data{}, Invalid("data", "not a JSON object: "+err.Error())
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Data{}, Invalid("data", "more text follows the JSON object")
	}
	return NewData(mapping)
}

// Size returns how many bytes the data take as JSON; 0 when they are empty.
func (d Data) Size() int { return len(d.text) }

// IsEmpty reports whether the document has no keys.
func (d Data) IsEmpty() bool { return d.text == "" }

// JSON returns the document as canonical JSON.
func (d Data) JSON() string {
	if d.text == "" {
		return "{}"
	}
	return d.text
}

// Map returns the document as a new map, which is the caller's.
func (d Data) Map() map[string]any {
	if d.text == "" {
		return map[string]any{}
	}
	r := document.NewReader(d.text)
	return r.Value().(map[string]any)
}

// String returns the top-level string under key, or "".
func (d Data) String(key string) string {
	if !strings.Contains(d.text, `"`+key+`"`) { // spares most documents the parsing
		return ""
	}
	text, _ := d.Map()[key].(string)
	return text
}

// MarshalJSON implements json.Marshaler.
func (d Data) MarshalJSON() ([]byte, error) { return []byte(d.JSON()), nil }

// UnmarshalJSON implements json.Unmarshaler; it is ParseData.
func (d *Data) UnmarshalJSON(text []byte) (err error) {
	*d, err = ParseData(text)
	return err
}

// expireLayouts are the forms of the data key expire: the original library's
// README writes the first, programs the second.
var expireLayouts = []string{"2006-01-02 15:04:05", time.RFC3339}

// ExpireTime reads the data key expire, which ends a hold that has neither a ttl
// nor an expire time of its own: '2019-12-20 00:00:00' in the local zone, or RFC
// 3339. It counts only when it lies after the hold began; one that was past
// already, and one that does not parse, is plain data, and the problem says so in
// words.
func (d Data) ExpireTime(acquired time.Time) (expire time.Time, problem string) {
	text, problem := d.expire()
	if text == "" {
		return time.Time{}, problem
	}
	for _, layout := range expireLayouts {
		t, err := time.ParseInLocation(layout, text, time.Local)
		if err != nil {
			continue
		}
		if !t.After(acquired) {
			return time.Time{}, fmt.Sprintf("the data key expire, %s, was past when the lock was taken; it is plain data", QuoteShort(text))
		}
		if t = CeilMillisecond(t); t.Year() > MaxYear {
			return time.Time{}, fmt.Sprintf("the data key expire, %s, is past the year %d; it is plain data", QuoteShort(text), MaxYear)
		}
		return t, ""
	}
	return time.Time{}, fmt.Sprintf("the data key expire, %s, is neither like 2019-12-20 00:00:00 nor RFC 3339; it is plain data", QuoteShort(text))
}

// expire returns the text of the data key expire, or says what is there instead. One
// that is empty or null is like none.
func (d Data) expire() (text, problem string) {
	if !strings.Contains(d.text, `"expire"`) { // spares most documents the parsing
		return "", ""
	}
	switch value := d.Map()["expire"].(type) {
	case nil:
		return "", ""
	case string:
		return value, ""
	default:
		return "", fmt.Sprintf("the data key expire, %s, is not text; it is plain data", QuoteShort(string(document.Append(nil, value))))
	}
}

// CeilMillisecond rounds a deadline to what is kept of it, never to earlier.
func CeilMillisecond(t time.Time) time.Time {
	return t.UTC().Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

// MaxYear is the last year, in UTC, of an expire time: RFC 3339 ends there.
const MaxYear = 9999
