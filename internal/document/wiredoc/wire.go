package wiredoc

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/pylok/pylok/internal/document"
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of google.protobuf.Struct, of the entries of its map, of Value and of ListValue.
const (
	structFields protowire.Number = 1
	entryKey     protowire.Number = 1
	entryValue   protowire.Number = 2
	valueNull    protowire.Number = 1
	valueNumber  protowire.Number = 2
	valueString  protowire.Number = 3
	valueBool    protowire.Number = 4
	valueStruct  protowire.Number = 5
	valueList    protowire.Number = 6
	listValues   protowire.Number = 1
)

// AppendJSON appends the JSON of a google.protobuf.Struct that came over the wire:
// canonical, but that it does not escape U+2028 and U+2029. It reports false for one that
// is not as clients usually send it: what is odd about it is for package proto to say, and
// FromStruct. With a structpb.Struct in between it would take ten times as long, a third of
// all that is done for a request.
func AppendJSON(b, wire []byte) (_ []byte, usual bool) { return structJSON(b, wire, 1) }

// structJSON is AppendJSON for a Struct at a depth.
func structJSON(b, wire []byte, depth int) (_ []byte, usual bool) {
	if depth > document.MaxDepth {
		return nil, false
	}
	type entry struct{ key, value []byte }
	var room [16]entry // most documents have no more keys
	entries := room[:0]
	for len(wire) > 0 {
		var pair []byte
		var e entry
		if pair, wire, usual = CutField(wire, structFields); !usual {
			return nil, false
		}
		if e.key, pair, usual = CutField(pair, entryKey); !usual {
			return nil, false
		}
		if e.value, pair, usual = CutField(pair, entryValue); !usual || len(pair) > 0 {
			return nil, false
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	b = append(b, '{')
	for i, e := range entries {
		if i > 0 {
			if bytes.Equal(e.key, entries[i-1].key) {
				return nil, false
			}
			b = append(b, ',')
		}
		if b, usual = stringJSON(b, e.key); !usual {
			return nil, false
		}
		if b, usual = valueJSON(append(b, ':'), e.value, depth); !usual {
			return nil, false
		}
	}
	return append(b, '}'), true
}

// valueJSON is structJSON for a google.protobuf.Value in a mapping or list at a depth.
func valueJSON(b, wire []byte, depth int) (_ []byte, usual bool) {
	field, kind, n := protowire.ConsumeTag(wire)
	if n < 0 {
		return nil, false
	}
	if kind != protowire.BytesType {
		return scalarJSON(b, field, kind, wire[n:])
	}
	content, rest, usual := CutField(wire, field)
	if !usual || len(rest) > 0 {
		return nil, false
	}
	switch field {
	case valueString:
		return stringJSON(b, content)
	case valueStruct:
		return structJSON(b, content, depth+1)
	case valueList:
		return listJSON(b, content, depth+1)
	}
	return nil, false
}

func listJSON(b, wire []byte, depth int) (_ []byte, usual bool) {
	if depth > document.MaxDepth {
		return nil, false
	}
	b = append(b, '[')
	for first := true; len(wire) > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		var element []byte
		if element, wire, usual = CutField(wire, listValues); !usual {
			return nil, false
		}
		if b, usual = valueJSON(b, element, depth); !usual {
			return nil, false
		}
	}
	return append(b, ']'), true
}

func scalarJSON(b []byte, field protowire.Number, kind protowire.Type, content []byte) (_ []byte, usual bool) {
	switch {
	case field == valueNull && kind == protowire.VarintType && string(content) == "\x00":
		return append(b, "null"...), true
	case field == valueBool && kind == protowire.VarintType && string(content) == "\x00":
		return append(b, "false"...), true
	case field == valueBool && kind == protowire.VarintType && string(content) == "\x01":
		return append(b, "true"...), true
	case field == valueNumber && kind == protowire.Fixed64Type && len(content) == 8:
		bits, _ := protowire.ConsumeFixed64(content)
		v := math.Float64frombits(bits)
		if abs := math.Abs(v); bits == 0 || abs >= 1e-6 && abs < 1e21 { // else JSON has an exponent or a sign
			return strconv.AppendFloat(b, v, 'f', -1, 64), true
		}
	}
	return nil, false
}

// stringJSON appends a string that has nothing to escape.
func stringJSON(b, text []byte) (_ []byte, usual bool) {
	for _, c := range text {
		if c < ' ' || c == '"' || c == '\\' {
			return nil, false
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"'), utf8.Valid(text)
}

// CutField takes a field off that a message begins with.
func CutField(wire []byte, field protowire.Number) (content, rest []byte, ok bool) {
	number, kind, n := protowire.ConsumeTag(wire)
	if n < 0 || number != field || kind != protowire.BytesType {
		return nil, nil, false
	}
	content, m := protowire.ConsumeBytes(wire[n:])
	if m < 0 {
		return nil, nil, false
	}
	return content, wire[n+m:], true
}
