package lock

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The canonical JSON of a document is what encoding/json writes without escapes for
// HTML. It is written for each request with data and read for each answer and each lock
// file; encoding/json takes two to four times as long as what is here, which leaves to
// it the strings and the numbers that are not common.

// appendCanonical appends a value in which findBadValue finds nothing.
func appendCanonical(b []byte, value any) []byte {
	switch v := value.(type) {
	case bool:
		return strconv.AppendBool(b, v)
	case float64:
		return appendNumber(b, v)
	case string:
		return appendString(b, v)
	case []any:
		b = append(b, '[')
		for i, element := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendCanonical(b, element)
		}
		return append(b, ']')
	case map[string]any:
		var room [16]string // most mappings have no more keys
		keys := room[:0]
		for key := range v {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		b = append(b, '{')
		for i, key := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, key), ':')
			b = appendCanonical(b, v[key])
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

func appendNumber(b []byte, v float64) []byte {
	if whole := int64(v); float64(whole) == v && whole != 0 && -1e15 < v && v < 1e15 { // 0 may be -0
		return strconv.AppendInt(b, whole, 10)
	}
	return appendEncoded(b, v)
}

func appendString(b []byte, v string) []byte {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return appendEncoded(b, v)
		}
	}
	b = append(b, '"')
	b = append(b, v...)
	return append(b, '"')
}

func appendEncoded(b []byte, value any) []byte {
	text := bytes.NewBuffer(b)
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(fmt.Sprintf("lock: checked data cannot be encoded: %v", err))
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}

// canonicalReader reads what appendCanonical wrote.
type canonicalReader struct{ rest string }

// take returns the next n bytes.
func (r *canonicalReader) take(n int) string {
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *canonicalReader) value() any {
	switch r.rest[0] {
	case '{':
		return r.mapping()
	case '[':
		list := []any{}
		for r.take(1); r.rest[0] != ']'; r.rest = strings.TrimPrefix(r.rest, ",") {
			list = append(list, r.value())
		}
		r.take(1)
		return list
	case '"':
		return r.string()
	case 'n':
		r.take(len("null"))
		return nil
	case 't':
		r.take(len("true"))
		return true
	case 'f':
		r.take(len("false"))
		return false
	}
	text := r.take(strings.IndexAny(r.rest, ",]}"))
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(fmt.Sprintf("lock: Data holds the bad number %q: %v", text, err))
	}
	return number
}

func (r *canonicalReader) mapping() map[string]any {
	mapping := map[string]any{}
	for r.take(1); r.rest[0] != '}'; r.rest = strings.TrimPrefix(r.rest, ",") {
		key := r.string()
		r.take(len(":"))
		mapping[key] = r.value()
	}
	r.take(1)
	return mapping
}

func (r *canonicalReader) string() string {
	end := 1
	for r.rest[end] != '"' {
		if r.rest[end] == '\\' {
			end++
		}
		end++
	}
	text := r.take(end + 1)
	if !strings.Contains(text, `\`) {
		return text[1:end]
	}
	var unquoted string
	if err := json.Unmarshal([]byte(text), &unquoted); err != nil {
		panic(fmt.Sprintf("lock: Data holds the bad string %s: %v", text, err))
	}
	return unquoted
}

// isCanonical reports whether text is the canonical JSON of a document within the limits
// and without reserved keys. It knows no escapes and passes over none: of a text that has
// some it says no.
func isCanonical(text []byte) bool {
	c := canonicalCheck{rest: text}
	return len(text) > len("{}") && len(text) <= maxDataBytes && utf8.Valid(text) && c.mapping(1) && len(c.rest) == 0
}

// canonicalCheck goes through a text; its methods pass over what they are named for, or
// report false.
type canonicalCheck struct{ rest []byte }

func (c *canonicalCheck) token(token string) (ok bool) {
	if ok = len(c.rest) >= len(token) && string(c.rest[:len(token)]) == token; ok {
		c.rest = c.rest[len(token):]
	}
	return ok
}

func (c *canonicalCheck) value(depth int) bool {
	if len(c.rest) == 0 {
		return false
	}
	switch c.rest[0] {
	case '{':
		return depth <= MaxDataDepth && c.mapping(depth)
	case '[':
		return depth <= MaxDataDepth && c.list(depth)
	case '"':
		_, ok := c.string()
		return ok
	case 'n':
		return c.token("null")
	case 't':
		return c.token("true")
	case 'f':
		return c.token("false")
	}
	return c.number()
}

func (c *canonicalCheck) mapping(depth int) bool {
	if !c.token("{") {
		return false
	}
	if c.token("}") {
		return true
	}
	for last := []byte(nil); ; {
		key, ok := c.string()
		if !ok || last != nil && bytes.Compare(last, key) >= 0 || depth == 1 && slices.Contains(ReservedKeys, string(key)) {
			return false
		}
		last = key
		if !c.token(":") || !c.value(depth+1) {
			return false
		}
		if !c.token(",") {
			return c.token("}")
		}
	}
}

func (c *canonicalCheck) list(depth int) bool {
	if !c.token("[") {
		return false
	}
	if c.token("]") {
		return true
	}
	for c.value(depth + 1) {
		if !c.token(",") {
			return c.token("]")
		}
	}
	return false
}

func (c *canonicalCheck) string() (text []byte, ok bool) {
	if !c.token(`"`) {
		return nil, false
	}
	end := bytes.IndexByte(c.rest, '"')
	if end < 0 {
		return nil, false
	}
	text = c.rest[:end]
	for _, b := range text {
		if b < ' ' || b == '\\' {
			return nil, false
		}
	}
	if bytes.Contains(text, lineSeparators) {
		return nil, false
	}
	c.rest = c.rest[end+1:]
	return text, true
}

// lineSeparators begins U+2028 and U+2029 in UTF-8, which encoding/json escapes.
var lineSeparators = []byte("\u2028")[:2]

func (c *canonicalCheck) number() bool {
	end := bytes.IndexAny(c.rest, ",]}")
	if end < 0 {
		return false
	}
	var room [32]byte
	number, err := strconv.ParseFloat(string(c.rest[:end]), 64)
	if err != nil || math.IsInf(number, 0) || math.IsNaN(number) || !bytes.Equal(appendNumber(room[:0], number), c.rest[:end]) {
		return false
	}
	c.rest = c.rest[end:]
	return true
}
