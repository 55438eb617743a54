package lock

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of the data.
const (
	MaxDataDepth = 32        // levels of mappings and lists, the document itself being the first
	MaxFileBytes = 64 << 10  // bytes of the lock file that holds the data
	maxDataBytes = 256 << 10 // bytes of JSON looked at before the store measures the file
)

// ReservedKeys are the top-level keys of a lock file that the server alone
// writes, sorted. They are dropped from incoming data.
var ReservedKeys = []string{
	"lock_acquired",
	"lock_action",
	"lock_expires",
	"lock_file_location",
	"lock_file_status",
	"lock_holder",
	"lock_request_id",
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
func NewData(document map[string]any) (Data, error) {
	kept := document
	for _, key := range ReservedKeys {
		if _, ok := document[key]; ok {
			kept = make(map[string]any, len(document))
			for k, v := range document {
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
	if path, problem := findBadValue(kept, 1); problem != "" {
		return Data{}, Invalid("data", QuoteShort("data"+path)+" "+problem)
	}
	text := appendCanonical(make([]byte, 0, 256), kept)
	if len(text) > maxDataBytes {
		return Data{}, DataTooLarge(fmt.Sprintf("the data is %d bytes of JSON", len(text)))
	}
	return Data{string(text)}, nil
}

// ParseData makes a document from a JSON object. It is fast where the object is
// canonical already, as a Data writes it.
func ParseData(text []byte) (Data, error) {
	if isCanonical(text) {
		return Data{string(text)}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	var document map[string]any
	if err := decoder.Decode(&document); err != nil {
		return Data{}, Invalid("data", "not a JSON object: "+err.Error())
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Data{}, Invalid("data", "more text follows the JSON object")
	}
	return NewData(document)
}

// findBadValue looks for a value that breaks a limit, and returns the path that
// leads to it and what is wrong with it, or two empty strings.
func findBadValue(value any, depth int) (path, problem string) {
	switch value.(type) {
	case []any, map[string]any:
		if depth > MaxDataDepth {
			return "", fmt.Sprintf("is nested deeper than %d levels", MaxDataDepth)
		}
	}
	switch v := value.(type) {
	case nil, bool:
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", fmt.Sprintf("is %v; numbers must be finite", v)
		}
	case string:
		if !utf8.ValidString(v) {
			return "", "is not valid UTF-8"
		}
	case []any:
		for i, element := range v {
			if path, problem := findBadValue(element, depth+1); problem != "" {
				return fmt.Sprintf("[%d]", i) + path, problem
			}
		}
	case map[string]any:
		for key, element := range v {
			if !utf8.ValidString(key) {
				return "", "has a key that is not valid UTF-8"
			}
			if path, problem := findBadValue(element, depth+1); problem != "" {
				return "." + key + path, problem
			}
		}
	default:
		return "", fmt.Sprintf("is a %T, which a document cannot hold", value)
	}
	return "", ""
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
	return (&canonicalReader{d.text}).mapping()
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
		return "", fmt.Sprintf("the data key expire, %s, is not text; it is plain data", QuoteShort(string(appendCanonical(nil, value))))
	}
}

// CeilMillisecond rounds a deadline to what is kept of it, never to earlier.
func CeilMillisecond(t time.Time) time.Time {
	return t.UTC().Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

// MaxYear is the last year, in UTC, of an expire time: RFC 3339 ends there.
const MaxYear = 9999
