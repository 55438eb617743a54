package lock_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

func TestPattern(t *testing.T) {
	tests := []struct {
		pattern string
		selects []string
		not     []string
	}{
		{"", []string{"a", "a/b", "lb/web-1"}, nil},
		{"**", []string{"a", "a/b", "lb/web-1"}, nil},
		{"a", []string{"a"}, []string{"b", "aa", "a/a", "a/b"}},
		{"*", []string{"a", "lb"}, []string{"a/b"}},
		{"a*", []string{"a", "ab", "a.b"}, []string{"a/b", "ba"}},
		{"*a", []string{"a", "ba"}, []string{"b/a", "ab"}},
		{"a*c", []string{"ac", "abc", "abbc"}, []string{"a/c", "acb"}},
		{"*/*", []string{"a/b"}, []string{"a", "a/b/c"}},
		{"lb/*", []string{"lb/a", "lb/web-1"}, []string{"lb", "lb/a/b", "lbx/a"}},
		{"lb/**", []string{"lb/a", "lb/a/b"}, []string{"lb", "lbx", "x/lb/a"}},
		{"lb**", []string{"lb", "lbx", "lb/a", "lbx/a"}, []string{"a/lb"}},
		{"**/web", []string{"web", "lb/web", "a/b/web"}, []string{"aweb", "lb/aweb", "web/a"}},
		{"**web", []string{"web", "lb/web", "aweb", "lb/aweb"}, []string{"web/a"}},
		{"a/**/b", []string{"a/b", "a/x/b", "a/x/y/b"}, []string{"ab", "a/xb", "a", "a/x"}},
		{"a/**b", []string{"a/b", "a/xb", "a/x/b"}, []string{"ab", "a/x"}},
		{"a/b**/c", []string{"a/b/c", "a/bx/c", "a/b/x/c"}, []string{"a/c"}},
		{"**/a/**", []string{"a/b", "x/a/b", "x/a/b/c"}, []string{"a", "x/a"}},
		{"a.b", []string{"a.b"}, []string{"axb"}},
		{"a+*", []string{"a+", "a+b"}, []string{"aa", "aab"}},
	}
	for _, test := range tests {
		p, err := lock.ParsePattern(test.pattern)
		if err != nil || p.String() != test.pattern {
			t.Errorf("ParsePattern(%q) = %q, %v", test.pattern, p, err)
			continue
		}
		for _, name := range test.selects {
			if !p.Match(lock.MustParseName(name)) || !strings.HasPrefix(name, p.Prefix()) {
				t.Errorf("%q, prefix %q, does not select %q", p, p.Prefix(), name)
			}
		}
		for _, name := range test.not {
			if p.Match(lock.MustParseName(name)) {
				t.Errorf("%q selects %q", p, name)
			}
		}
	}
}

func TestPatternRefused(t *testing.T) {
	for _, text := range []string{"/", "/a", "a/", "a//b", "**/", "***", "a/***/b", "a?", "[a]", "a b", "-*", ".*", "../*", "*.lock", "ü*", strings.Repeat("*/", 16) + "*", strings.Repeat("a*", 257)} {
		p, err := lock.ParsePattern(text)
		var refusal *lock.Error
		if !errors.As(err, &refusal) || refusal.Reason != lock.ErrInvalidArgument || refusal.Field != "pattern" {
			t.Errorf("ParsePattern(%q) = %q, %v; want %v", text, p, err, lock.ErrInvalidArgument)
		}
	}
}

// naiveMatch says whether a pattern selects a name, the slow and obvious way.
func naiveMatch(pattern, name string, atSegmentStart bool) bool {
	switch {
	case pattern == "":
		return name == ""
	case atSegmentStart && strings.HasPrefix(pattern, "**/"):
		if naiveMatch(pattern[3:], name, true) {
			return true
		}
		_, rest, more := strings.Cut(name, "/")
		return more && naiveMatch(pattern, rest, true)
	case strings.HasPrefix(pattern, "**"):
		return naiveMatch(pattern[2:], name, false) ||
			name != "" && naiveMatch(pattern, name[1:], false)
	case pattern[0] == '*':
		return naiveMatch(pattern[1:], name, false) ||
			name != "" && name[0] != '/' && naiveMatch(pattern, name[1:], false)
	}
	return name != "" && name[0] == pattern[0] && naiveMatch(pattern[1:], name[1:], pattern[0] == '/')
}

// TestPatternsAtRandom compares with the naive matcher what fuzzing rarely comes to:
// patterns and names of the same few pieces, some of them longer than a word has bits.
func TestPatternsAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "b", "/", "*", "**", "/**/", "**/", strings.Repeat("ab", 30)}
	join := func(most int) string {
		var text strings.Builder
		for range 1 + random.IntN(most) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		return text.String()
	}
	compared, selected := 0, 0
	for compared < 20_000 {
		text := join(9)
		p, err := lock.ParsePattern(text)
		if err != nil || strings.Count(text, "*") > 7 {
			continue
		}
		for range 10 {
			name, err := lock.ParseName(strings.ReplaceAll(join(9), "*", "a"))
			if err != nil {
				continue
			}
			want := naiveMatch(text, name.String(), true)
			if got := p.Match(name); got != want {
				t.Fatalf("%q selects %q: got %v, want %v", text, name, got, want)
			}
			compared++
			if want {
				selected++
			}
		}
	}
	if selected < compared/100 {
		t.Errorf("only %d of %d were selected", selected, compared)
	}
}

// TestParts: the parts of a pattern select what it does, each something else, in the order
// of names.
func TestParts(t *testing.T) {
	names := []string{
		"a", "a-b", "a.b", "a/_+", "a/_+1", "a/_+1/_+1", "a/_+1/x", "a/_+12", "a/_+x", "a/_x", "a/b", "a/b/_+1", "ab", "b", "b/_+1",
	}
	odd := lock.NewFilter(func(name string) bool { return len(name)%2 == 1 })
	for _, p := range []lock.Pattern{
		{}, lock.MustParsePattern("a"), lock.MustParsePattern("a/*"), lock.MustParsePattern("a").WithSlots(), lock.MustParsePattern("a/_+1").WithSlots(),
		lock.MustParsePattern("a*").WithSlots(), lock.MustParsePattern("").WithSlots(), lock.MustParsePattern("a").Where(odd), lock.MustParsePattern("a").WithSlots().Where(odd),
	} {
		var want, got []string
		for _, name := range names {
			if p.MatchText(name) {
				want = append(want, name)
			}
		}
		for part := range p.Parts() {
			if part.HasSlots() {
				t.Errorf("%+v: the part %+v has shared holds", p, part)
			}
			for _, name := range names {
				if part.MatchText(name) {
					got = append(got, name)
				}
				if part.MatchText(name) && (!strings.HasPrefix(name, part.Prefix()) || part.IsOne() && name != part.Prefix()) {
					t.Errorf("%+v: the part %+v selects %q, which its prefix does not say", p, part, name)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: the parts select %q, want %q", p, got, want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"", "a"}, {"**", "a/b"}, {"*", "a/b"}, {"lb/**", "lb/a"}, {"**/web", "web"}, {"a/**/b", "a/b"},
		{"a/**/b", "a/x/y/b"}, {"a**b*", "a/b"}, {"**/a**/b", "a/a/b"}, {"*/**/*", "a/b"}, {"a.b", "axb"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		p, err := lock.ParsePattern(pattern)
		if err != nil {
			if !errors.Is(err, lock.ErrInvalidArgument) {
				t.Errorf("ParsePattern(%q): %v", pattern, err)
			}
			return
		}
		name, err := lock.ParseName(text)
		if err != nil || strings.Count(pattern, "*") > 6 || len(text) > 60 { // the naive matcher takes long
			return
		}
		want := pattern == "" || naiveMatch(pattern, text, true)
		if got := p.Match(name); got != want {
			t.Errorf("%q selects %q: got %v, want %v", pattern, text, got, want)
		}
		if want && !strings.HasPrefix(text, p.Prefix()) {
			t.Errorf("%q selects %q, which does not start with its prefix %q", pattern, text, p.Prefix())
		}
	})
}

// hostilePatterns are as laborious as patterns can be.
var hostilePatterns = []string{
	strings.Repeat("*a", 60) + "c*",
	strings.Repeat("**/a*a*/", 7) + "c*",
	strings.Repeat("**a", 40) + "c*",
	strings.Repeat(strings.Repeat("*a", 20)+"/", 5) + "c*",
}

// longName is a name that such patterns match again and again, and not in the end.
var longName = lock.MustParseName(strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 125)+"/", 4), "/"))

// TestHostilePatterns: no pattern takes much longer to match than one with a star does.
// The quickest of many tries counts.
func TestHostilePatterns(t *testing.T) {
	quickest := func(p lock.Pattern) time.Duration {
		least := time.Hour
		for range 200 {
			began := time.Now()
			if p.Match(longName) {
				t.Fatalf("%s matches", p)
			}
			least = min(least, time.Since(began))
		}
		return least
	}
	plain := quickest(lock.MustParsePattern("**c*"))
	for _, text := range hostilePatterns {
		if took := quickest(lock.MustParsePattern(text)); took > 20*plain {
			t.Errorf("%s: %v, while **c* takes %v", text, took, plain)
		}
	}
}

func BenchmarkPattern(b *testing.B) {
	for _, text := range append([]string{"**c", "**c*", "a*"}, hostilePatterns...) {
		p := lock.MustParsePattern(text)
		b.Run(text[:min(len(text), 12)], func(b *testing.B) {
			for b.Loop() {
				p.Match(longName)
			}
		})
	}
}
