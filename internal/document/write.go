package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Append appends the canonical JSON of a value in which Check finds nothing. That is
// written for each request with data; encoding/json takes two to four times as long as what
// is here, which leaves to it the strings and the numbers that are not common.
func Append(b []byte, value any) []byte {
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
			b = Append(b, element)
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
			b = Append(b, v[key])
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
		panic(fmt.Sprintf("document: a checked value cannot be encoded: %v", err))
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}
