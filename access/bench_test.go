package access

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

// policyOf returns a policy of n rules for one group in which a caller is: most for trees
// of teams, some for names, some with a star in the middle, and one in a hundred, at most
// 20, with one at the start, which every name is held against.
func policyOf(t testing.TB, n int) (*Policy, lock.Caller) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "callers: [{unix: {}, groups: [g, h]}]\nrules:\n")
	stars := 0
	for i := range n {
		pattern := fmt.Sprintf("team-%d/**", i)
		switch {
		case i%100 == 99 && stars < 20:
			pattern = fmt.Sprintf("**/x%d", i)
			stars++
		case i%10 == 8:
			pattern = fmt.Sprintf("team-%d/*/web", i)
		case i%10 == 7:
			pattern = fmt.Sprintf("lb/server-%d", i)
		}
		fmt.Fprintf(&b, "  - {who: [\"group:g\"], may: [lock], locks: [\"%s\"]}\n", pattern)
	}
	return mustParse(t, b.String()), lock.Caller{Name: "unix:alice", Groups: []string{"g", "h"}, Listed: true}
}

// TestAllowsAllocates: it does not.
func TestAllowsAllocates(t *testing.T) {
	p, c := policyOf(t, 1000)
	yes, no := lock.MustParseName("team-3/a/b"), lock.MustParseName("other/a/b")
	if n := testing.AllocsPerRun(100, func() {
		if !p.Allows(c, Lock, yes) || p.Allows(c, Lock, no) || p.AllowsFreeze(c, yes) {
			t.Error("wrong answers")
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
	sees := p.Sees(c)
	if n := testing.AllocsPerRun(100, func() { sees.Pass("team-3/a/b") }); n != 0 {
		t.Errorf("Sees: got %v allocations, want none", n)
	}
}

// BenchmarkAllows asks for a lock that a rule allows, and for one that none does, so that
// all of them count.
func BenchmarkAllows(b *testing.B) {
	for _, n := range []int{10, 100, 10_000} {
		p, c := policyOf(b, n)
		for _, name := range []string{"team-3/a/b", "other/a/b"} {
			b.Run(fmt.Sprintf("rules=%d/allowed=%t", n, name[0] == 't'), func(b *testing.B) {
				name := lock.MustParseName(name)
				for b.Loop() {
					p.Allows(c, Lock, name)
				}
			})
		}
	}
}

func BenchmarkParsePolicy(b *testing.B) {
	var text strings.Builder
	text.WriteString("callers:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  - {name: c%[1]d, token: \"sha256:%064[1]d\", groups: [g%[1]d]}\n", i)
	}
	text.WriteString("rules:\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "  - {who: [\"group:g%d\"], may: [lock], locks: [\"t%d/**\"]}\n", i%1000, i)
	}
	for b.Loop() {
		if _, err := ParsePolicy([]byte(text.String()), "f"); err != nil {
			b.Fatal(err)
		}
	}
}
