package service

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pylok/pylok/lock"
)

// Fields of pylok.v1.Lock, of google.protobuf.Struct, of the entries of its map, of
// Value and of ListValue.
const (
	lockData     protowire.Number = 4
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

// appendDataField appends the field data of a Lock, a google.protobuf.Struct, as it goes
// over the wire. By way of a map and a structpb.Struct it takes longer than all else
// that is done for an answer.
func appendDataField(b []byte, data lock.Data) []byte {
	r := documentReader{data.JSON()}
	return appendMessage(b, lockData, r.mapping)
}

// documentReader reads the canonical JSON of a document, which has no white space and
// no mistakes. Its methods append what they read in protobuf.
type documentReader struct{ rest string }

// take returns the next n bytes.
func (r *documentReader) take(n int) string {
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *documentReader) mapping(b []byte) []byte {
	for r.take(1); r.rest[0] != '}'; r.rest = strings.TrimPrefix(r.rest, ",") {
		b = appendMessage(b, structFields, func(b []byte) []byte {
			b = protowire.AppendTag(b, entryKey, protowire.BytesType)
			b = protowire.AppendString(b, r.string())
			r.take(len(":"))
			return appendMessage(b, entryValue, r.value)
		})
	}
	r.take(1)
	return b
}

func (r *documentReader) list(b []byte) []byte {
	for r.take(1); r.rest[0] != ']'; r.rest = strings.TrimPrefix(r.rest, ",") {
		b = appendMessage(b, listValues, r.value)
	}
	r.take(1)
	return b
}

func (r *documentReader) value(b []byte) []byte {
	switch r.rest[0] {
	case '{':
		return appendMessage(b, valueStruct, r.mapping)
	case '[':
		return appendMessage(b, valueList, r.list)
	case '"':
		b = protowire.AppendTag(b, valueString, protowire.BytesType)
		return protowire.AppendString(b, r.string())
	case 'n':
		r.take(len("null"))
		b = protowire.AppendTag(b, valueNull, protowire.VarintType)
		return protowire.AppendVarint(b, 0)
	case 't':
		r.take(len("true"))
		b = protowire.AppendTag(b, valueBool, protowire.VarintType)
		return protowire.AppendVarint(b, 1)
	case 'f':
		r.take(len("false"))
		b = protowire.AppendTag(b, valueBool, protowire.VarintType)
		return protowire.AppendVarint(b, 0)
	}
	b = protowire.AppendTag(b, valueNumber, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, math.Float64bits(r.number()))
}

func (r *documentReader) number() float64 {
	text := r.take(strings.IndexAny(r.rest, ",]}"))
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(fmt.Sprintf("service: %q in canonical JSON: %v", text, err))
	}
	return number
}

func (r *documentReader) string() string {
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
		panic(fmt.Sprintf("service: %q in canonical JSON: %v", text, err))
	}
	return unquoted
}

// appendMessage appends a field that is a message. Its length goes before it and is
// known after it: a byte is kept free, and where one is too few, the message moves.
func appendMessage(b []byte, field protowire.Number, message func(b []byte) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	at := len(b)
	b = message(append(b, 0))
	var length [4]byte
	return slices.Replace(b, at, at+1, protowire.AppendVarint(length[:0], uint64(len(b)-at-1))...)
}
