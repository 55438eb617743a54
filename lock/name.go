package lock

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a Name.
const (
	MaxNameBytes    = 512 // bytes of the whole name
	MaxNameSegments = 16  // segments
	MaxSegmentBytes = 128 // bytes of one segment
)

// FileSuffix ends the name of every lock file. No segment of a Name may end in
// it, so that no lock's file can be another lock's directory.
const FileSuffix = ".lock"

// Name is the name of a lock: slash-separated segments such as
// lb/server-cluster3w1-2. The only way to make one is ParseName, so a Name is
// always safe to use as a relative path. The zero Name names no lock.
type Name struct{ text string }

// ParseName checks text against the rules for names: ASCII, 1 to 16 segments,
// 512 bytes in all; a segment is 1 to 128 bytes of A-Z a-z 0-9 . _ - @ + : =,
// starts with a letter, a digit or _, and does not end in .lock. The error is an
// *Error with ErrInvalidName and says which rule is broken.
func ParseName(text string) (Name, error) {
	if rule := brokenNameRule(text, false); rule != "" {
		return Name{}, &Error{
			Reason:  ErrInvalidName,
			Field:   "name",
			Message: fmt.Sprintf("%s is not a lock name: %s", QuoteShort(text), rule),
		}
	}
	return Name{text}, nil
}

// MustParseName is ParseName for names known to be good; it panics on others.
func MustParseName(text string) Name {
	n, err := ParseName(text)
	if err != nil {
		panic(err)
	}
	return n
}

// String returns the name as it was parsed.
func (n Name) String() string { return n.text }

// IsZero reports whether n names no lock.
func (n Name) IsZero() bool { return n.text == "" }

// AllName names the lock that, held as a tree, covers every name.
const AllName = "_all"

// Above yields the names whose locks, held as trees, cover n: _all, and those that n's
// segments begin with, the shortest first; not n itself.
func (n Name) Above() iter.Seq[Name] {
	return func(yield func(Name) bool) {
		if n.text != AllName && !strings.HasPrefix(n.text, AllName+"/") && !yield(Name{AllName}) {
			return
		}
		for i := range len(n.text) {
			if n.text[i] == '/' && !yield(Name{n.text[:i]}) {
				return
			}
		}
	}
}

// Covers reports whether n's lock, held as a tree, covers another name: n is above it.
func (n Name) Covers(other Name) bool {
	if n.text == AllName {
		return other.text != AllName
	}
	return len(other.text) > len(n.text) && other.text[len(n.text)] == '/' && other.text[:len(n.text)] == n.text
}

// Below returns a pattern that selects the names that n covers.
func (n Name) Below() Pattern {
	if n.text == AllName {
		return Pattern{}.Where(NewFilter(func(name string) bool { return name != AllName }))
	}
	text := n.text + "/**"
	return Pattern{text: text, prefix: n.text + "/", rest: newGlob(text, len(text)-2)}
}

// slotPrefix begins the last segment of a shared hold's name.
const slotPrefix = "_+"

// IsSlot reports whether n is the name of a shared hold: its last segment begins with _+.
func (n Name) IsSlot() bool {
	i := strings.LastIndexByte(n.text, '/')
	return i > 0 && strings.HasPrefix(n.text[i+1:], slotPrefix)
}

// Base returns the lock that a shared hold is of, and n itself for any other name.
func (n Name) Base() Name {
	if !n.IsSlot() {
		return n
	}
	return Name{n.text[:strings.LastIndexByte(n.text, '/')]}
}

// Slot returns the name of n's shared hold with a number, from 1. The error is that of
// ParseName: n has a segment or some bytes too many.
func (n Name) Slot(number int) (Name, error) {
	return ParseName(n.text + "/" + slotPrefix + strconv.Itoa(number))
}

// SlotNumber returns the number of the shared hold that n is the name of; 0: it has none.
func (n Name) SlotNumber() int {
	if !n.IsSlot() {
		return 0
	}
	number, err := strconv.Atoi(n.text[strings.LastIndexByte(n.text, '/')+1+len(slotPrefix):])
	if err != nil || number < 0 {
		return 0
	}
	return number
}

// Slots returns a pattern that selects n's shared holds.
func (n Name) Slots() Pattern {
	text := n.text + "/" + slotPrefix + "*"
	return Pattern{text: text, prefix: text[:len(text)-1], rest: newGlob(text, len(text)-1)}
}

// CheckWanted returns an *Error with ErrInvalidName if a request must not take the lock n
// as such: a segment of it begins with _+, which is for shared holds alone.
func (n Name) CheckWanted() error {
	if !strings.HasPrefix(n.text, slotPrefix) && !strings.Contains(n.text, "/"+slotPrefix) {
		return nil
	}
	return &Error{
		Reason:  ErrInvalidName,
		Field:   "name",
		Message: fmt.Sprintf("%s cannot be locked as such: segments that begin with %s are for shared holds; lock %s with shared", QuoteShort(n.text), slotPrefix, QuoteShort(n.Base().text)),
	}
}

// Compare orders names by their bytes.
func (n Name) Compare(other Name) int { return strings.Compare(n.text, other.text) }

// brokenNameRule returns the rule that text breaks, in words, or "". With
// wildcards, text is a pattern and a star may stand anywhere in a segment.
func brokenNameRule(text string, wildcards bool) string {
	switch {
	case text == "":
		return "it is empty; give at least one segment, such as server-1 or lb/server-1"
	case len(text) > MaxNameBytes:
		return fmt.Sprintf("it is %d bytes long; at most %d are allowed", len(text), MaxNameBytes)
	}
	segments := 0
	for segment := range strings.SplitSeq(text, "/") {
		segments++
		switch {
		case segment == "":
			return "it has an empty segment; write no slash at the start or the end and no two slashes together"
		case len(segment) > MaxSegmentBytes:
			return fmt.Sprintf("segment %d is %d bytes long; at most %d are allowed", segments, len(segment), MaxSegmentBytes)
		}
		for i := range len(segment) {
			c := segment[i]
			if !isNameByte(c) && !(wildcards && c == '*') {
				return fmt.Sprintf("segment %d has the %s; only A-Z a-z 0-9 . _ - @ + : = are allowed", segments, characterAt(segment, i))
			}
		}
		if c := segment[0]; !isAlphanumeric(c) && c != '_' && !(wildcards && c == '*') {
			return fmt.Sprintf("segment %d starts with %q; it must start with a letter, a digit or _", segments, c)
		}
		if strings.HasSuffix(segment, FileSuffix) {
			return fmt.Sprintf("segment %d ends in %s; leave the ending out, the server adds it to the file", segments, FileSuffix)
		}
	}
	if segments > MaxNameSegments {
		return fmt.Sprintf("it has %d segments; at most %d are allowed", segments, MaxNameSegments)
	}
	return ""
}

// characterAt names the character at a byte of text, or the byte where it is none.
func characterAt(text string, i int) string {
	if r, size := utf8.DecodeRuneInString(text[i:]); r != utf8.RuneError || size > 1 {
		return fmt.Sprintf("character %q", r)
	}
	return fmt.Sprintf("byte 0x%02x", text[i])
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isNameByte(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("._-@+:=", c) >= 0
}

// QuoteShort quotes text for a message and cuts what would flood it.
func QuoteShort(text string) string {
	const most = 64
	if len(text) > most {
		return fmt.Sprintf("%q... (%d bytes)", text[:most], len(text))
	}
	return fmt.Sprintf("%q", text)
}
