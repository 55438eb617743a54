package lock

import (
	"fmt"
	"regexp"
	"strings"
)

// Pattern selects names. A * matches any run of characters within a segment, **
// any run across segments; **/ at the start and /**/ inside also match no segment
// at all, so **/web selects web and lb/web. Without a star a pattern selects the
// one name that it is; the empty pattern, which the zero Pattern is, selects all.
type Pattern struct {
	text   string
	prefix string         // what every selected name starts with
	re     *regexp.Regexp // nil: all names, or exactly text
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
			Message: fmt.Sprintf("%s is not a pattern of lock names: %s", quoteShort(text), rule),
		}
	}
	star := strings.IndexByte(text, '*')
	if star < 0 {
		return Pattern{text: text, prefix: text}, nil
	}
	p := Pattern{text: text, prefix: text[:star]}
	var re strings.Builder
	re.WriteString(`^`)
	for rest := text; rest != ""; {
		atSegmentStart := len(rest) == len(text) || text[len(text)-len(rest)-1] == '/'
		switch {
		case atSegmentStart && strings.HasPrefix(rest, "**/"):
			re.WriteString(`(?:.*/)?`)
			rest = rest[3:]
		case strings.HasPrefix(rest, "**"):
			re.WriteString(`.*`)
			rest = rest[2:]
		case rest[0] == '*':
			re.WriteString(`[^/]*`)
			rest = rest[1:]
		default:
			re.WriteString(regexp.QuoteMeta(rest[:1]))
			rest = rest[1:]
		}
	}
	re.WriteString(`$`)
	p.re = regexp.MustCompile(re.String())
	return p, nil
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

// String returns the pattern as it was parsed.
func (p Pattern) String() string { return p.text }

// Prefix returns what every selected name starts with; stores seek to it.
func (p Pattern) Prefix() string { return p.prefix }

// Match reports whether p selects n.
func (p Pattern) Match(n Name) bool {
	switch {
	case p.text == "":
		return true
	case p.re == nil:
		return p.text == n.text
	}
	return strings.HasPrefix(n.text, p.prefix) && p.re.MatchString(n.text)
}
