package document

import (
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Reader reads canonical JSON from its beginning to its end. It allocates nothing but
// strings with escapes in them, so that a document can be turned into what goes into a
// file or over the wire without a tree of it in between. Each method reads what is next;
// it panics on text that is not what the method reads.
type Reader struct{ rest string }

// NewReader returns a reader of a document or a value.
func NewReader(text string) Reader { return Reader{text} }

// Kind is what a value is.
type Kind byte

// The kinds, each by the byte that it begins with.
const (
	Null    Kind = 'n'
	True    Kind = 't'
	False   Kind = 'f'
	Number  Kind = '0'
	String  Kind = '"'
	List    Kind = '['
	Mapping Kind = '{'
)

// Kind returns the kind of the value that is next.
func (r *Reader) Kind() Kind {
	switch c := r.rest[0]; c {
	case 'n', 't', 'f', '"', '[', '{':
		return Kind(c)
	}
	return Number
}

// IsEmpty reports whether the mapping or list that is next has nothing in it, and
// passes it over if so.
func (r *Reader) IsEmpty() bool {
	empty := r.rest[1] == '}' || r.rest[1] == ']'
	if empty {
		r.skip(2)
	}
	return empty
}

// Mapping yields the keys of a mapping, in order. The caller reads the value of each.
func (r *Reader) Mapping() iter.Seq[string] {
	return func(yield func(string) bool) {
		for r.open('{'); r.rest[0] != '}'; r.comma() {
			key := r.String()
			r.skip(len(":"))
			if !yield(key) {
				return
			}
		}
		r.skip(1)
	}
}

// List yields the positions in a list. The caller reads the element at each.
func (r *Reader) List() iter.Seq[int] {
	return func(yield func(int) bool) {
		i := 0
		for r.open('['); r.rest[0] != ']'; r.comma() {
			if !yield(i) {
				return
			}
			i++
		}
		r.skip(1)
	}
}

// Value reads what is next, as encoding/json would.
func (r *Reader) Value() any {
	switch r.Kind() {
	case Mapping:
		mapping := map[string]any{}
		for key := range r.Mapping() {
			mapping[key] = r.Value()
		}
		return mapping
	case List:
		list := []any{}
		for range r.List() {
			list = append(list, r.Value())
		}
		return list
	case String:
		return r.String()
	case Number:
		return r.Number()
	}
	switch r.Literal() {
	case True:
		return true
	case False:
		return false
	}
	return nil
}

// Literal reads null, true or false.
func (r *Reader) Literal() Kind {
	kind := r.Kind()
	switch kind {
	case Null, True:
		r.skip(len("null"))
	case False:
		r.skip(len("false"))
	default:
		panic(fmt.Sprintf("document: %.20q is no literal", r.rest))
	}
	return kind
}

// Number reads a number.
func (r *Reader) Number() float64 {
	end := strings.IndexAny(r.rest, ",]}")
	if end < 0 {
		end = len(r.rest)
	}
	number, err := strconv.ParseFloat(r.skip(end), 64)
	if err != nil {
		panic("document: " + err.Error())
	}
	return number
}

// String reads a string.
func (r *Reader) String() string {
	end := 1
	escaped := false
	for r.rest[end] != '"' {
		if r.rest[end] == '\\' {
			escaped = true
			end++
		}
		end++
	}
	text := r.skip(end + 1)
	if !escaped {
		return text[1:end]
	}
	var unquoted string
	if err := json.Unmarshal([]byte(text), &unquoted); err != nil {
		panic("document: " + err.Error())
	}
	return unquoted
}

// skip passes over the next n bytes and returns them.
func (r *Reader) skip(n int) string {
	passed := r.rest[:n]
	r.rest = r.rest[n:]
	return passed
}

func (r *Reader) open(bracket byte) {
	if r.rest[0] != bracket {
		panic(fmt.Sprintf("document: %.20q does not begin with %c", r.rest, bracket))
	}
	r.skip(1)
}

func (r *Reader) comma() {
	if r.rest[0] == ',' {
		r.skip(1)
	}
}
