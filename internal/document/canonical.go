package document

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// IsCanonical reports whether text is the canonical JSON of a mapping that is not empty,
// within the limits, and has none of some keys at its top. It knows no escapes and passes
// over none: of a text that has some it says no.
func IsCanonical(text []byte, without []string) bool {
	c := canonicalCheck{text, without}
	return len(text) > len("{}") && utf8.Valid(text) && c.mapping(1) && len(c.rest) == 0
}

// canonicalCheck goes through a text; its methods pass over what they are named for, or
// report false.
type canonicalCheck struct {
	rest    []byte
	without []string
}

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
		return depth <= MaxDepth && c.mapping(depth)
	case '[':
		return depth <= MaxDepth && c.list(depth)
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
		if !ok || last != nil && bytes.Compare(last, key) >= 0 || depth == 1 && slices.Contains(c.without, string(key)) {
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
