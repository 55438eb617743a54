package lock

import (
	"fmt"
	"iter"
	"strings"
)

// Pattern selects names. A * matches any run of characters within a segment, **
// any run across segments; **/ at the start and /**/ inside also match no segment
// at all, so **/web selects web and lb/web. Without a star a pattern selects the
// one name that it is; the empty pattern, which the zero Pattern is, selects all.
type Pattern struct {
	text   string
	prefix string  // what every selected name starts with
	suffix string  // what every one ends with, if rest is not nil
	rest   *glob   // what comes after the prefix; nil: all names, or exactly text
	filter *Filter // what a name must pass besides; nil: nothing
	slots  bool    // of a single name: its shared holds too
}

// ParsePattern checks text: the rules are those of ParseName, with * allowed
// anywhere. The error is an *Error with ErrInvalidArgument.
func ParsePattern(text string) (Pattern, error) {
	if text == "" {
		return Pattern{}, nil
	}
	rule := brokenNameRule(text, true)
	if strings.Contains(text, "***") {
		rule = "it has three stars together; * matches within a segment, ** across segments"
	}
	if rule != "" {
		return Pattern{}, &Error{
			Reason:  ErrInvalidArgument,
			Field:   "pattern",
			Message: fmt.Sprintf("%s is not a pattern of lock names: %s", QuoteShort(text), rule),
		}
	}
	star := strings.IndexByte(text, '*')
	if star < 0 {
		return Pattern{text: text, prefix: text}, nil
	}
	// Of **/web the slash is not part of every name that it selects.
	suffix := strings.TrimPrefix(text[strings.LastIndexByte(text, '*')+1:], "/")
	return Pattern{text: text, prefix: text[:star], suffix: suffix, rest: newGlob(text, star)}, nil
}

// MustParsePattern is ParsePattern for patterns known to be good; it panics on
// others.
func MustParsePattern(text string) Pattern {
	p, err := ParsePattern(text)
	if err != nil {
		panic(err)
	}
	return p
}

// Filter narrows patterns to names that it passes. Where many are narrowed likewise they
// should have one Filter: who waits for names knows by it that they wait for the same.
type Filter struct{ pass func(name string) bool }

// NewFilter returns a filter for the names of which pass reports true. It must go on saying
// the same of each name, and is asked from many goroutines at once.
func NewFilter(pass func(name string) bool) *Filter { return &Filter{pass} }

// Pass reports whether a name passes the filter; the nil Filter passes all.
func (f *Filter) Pass(name string) bool { return f == nil || f.pass(name) }

// Where returns the pattern that selects those of p's names that pass a filter too; nil:
// all of them.
func (p Pattern) Where(f *Filter) Pattern {
	if f == nil {
		return p
	}
	if before := p.filter; before != nil {
		p.filter = NewFilter(func(name string) bool { return before.Pass(name) && f.Pass(name) })
		return p
	}
	if p.text == "" {
		p = everything // of which nobody takes the text for no condition
	}
	p.filter = f
	return p
}

var everything = MustParsePattern("**")

// Filter returns what names must pass besides matching the text; nil: nothing.
func (p Pattern) Filter() *Filter { return p.filter }

// String returns the pattern as it was parsed.
func (p Pattern) String() string { return p.text }

// Prefix returns what every selected name starts with; stores seek to it.
func (p Pattern) Prefix() string { return p.prefix }

// WithSlots returns the pattern that selects also the shared holds of the one name that p
// selects. A pattern with a star stays as it is.
func (p Pattern) WithSlots() Pattern {
	p.slots = p.text != "" && p.rest == nil
	return p
}

// HasSlots reports whether WithSlots has made the pattern select shared holds too.
func (p Pattern) HasSlots() bool { return p.slots }

// IsName reports whether p selects one name alone, which is its Prefix.
func (p Pattern) IsName() bool {
	return p.text != "" && p.rest == nil && p.filter == nil && !p.slots
}

// IsOne reports whether p selects no name but the one that is its Prefix, and that only if
// it passes the Filter.
func (p Pattern) IsOne() bool { return p.text != "" && p.rest == nil && !p.slots }

// Parts yields patterns that together select what p does, each what no other does, those
// of the first before those of the next in the order of names. Stores seek to the Prefix
// of each: of a name with its shared holds these are far apart where much is below it.
func (p Pattern) Parts() iter.Seq[Pattern] {
	return func(yield func(Pattern) bool) {
		if !p.slots {
			yield(p)
			return
		}
		name := p
		name.slots = false
		if yield(name) {
			yield(Name{p.text}.Slots().Where(p.filter))
		}
	}
}

// Match reports whether p selects n.
func (p Pattern) Match(n Name) bool { return p.MatchText(n.text) }

// MatchText is Match for the text of a name.
func (p Pattern) MatchText(name string) bool {
	return p.matchGlob(name) && p.filter.Pass(name)
}

func (p Pattern) matchGlob(name string) bool {
	switch {
	case p.text == "":
		return true
	case p.rest == nil:
		return p.text == name || p.slots && Name{name}.IsSlot() && Name{name}.Base().text == p.text
	}
	// A look at both ends spares most names the rest.
	return strings.HasPrefix(name, p.prefix) && strings.HasSuffix(name, p.suffix) && p.rest.match(name, len(p.prefix))
}
