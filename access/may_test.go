package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

const mayExample = `
callers:
  - {unix: {group: wheel}, groups: [ops]}
  - {name: ci, token: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", groups: [deployers]}
  - {unix: {user: dora}, groups: [deployers]}
  - {name: "gh:{repository}", jwt: {issuer: https://issuer, audience: a, claims: {environment: prod}}, groups: [deployers]}
  - {name: "gh:{repository}", jwt: {issuer: https://issuer, audience: a, claims: {environment: dev}}, groups: [testers]}
rules:
  - {who: ["*"], may: [view], locks: ["public/**"]}
  - {who: ["group:deployers"], may: [lock], locks: ["prod/**"]}
  - {who: ["group:deployers", "group:testers"], may: [lock], locks: ["dev/**"]}
  - {who: ["group:ops"], may: [lock, break, freeze, admin], locks: ["**"]}
  - {who: ["unix:eve"], may: [break], locks: ["eve/**"]}
  - {who: [anonymous], may: [lock], locks: ["scratch/*"]}
  - {who: ["token:ci"], may: [freeze], locks: ["prod/web/**", "prod/*/x"]}
`

// TestMay: what the rules say to those who ask for themselves and for others.
func TestMay(t *testing.T) {
	p := mustParse(t, mayExample)
	admin := lock.Caller{Name: "unix:root", Groups: []string{"ops"}, Listed: true, Proof: "socket"}
	for _, test := range []struct {
		as, verb, name string
		allowed        bool
		groups, why    string
	}{
		{"", "break", "prod/a", true, "ops", "the rule on line 12 of the access file allows it to group:ops"},
		{"unix:root", "admin", "", true, "ops", "line 12"},
		{"token:ci", "lock", "prod/a", true, "deployers", "line 10 of the access file allows it to group:deployers"},
		{"token:ci", "view", "prod/a", true, "deployers", "line 10"},
		{"token:ci", "break", "prod/a", false, "deployers", "no rule of the access file allows it; who is in the group ops may"},
		{"token:ci", "view", "public/a", true, "deployers", "line 9 of the access file allows it to every caller that the file describes"},
		{"token:ci", "freeze", "prod/web", true, "deployers", "line 15 of the access file allows it to token:ci"},
		{"token:ci", "freeze", "prod/web/x", true, "deployers", "line 15"},
		{"token:ci", "freeze", "prod/b/x", false, "deployers", "who is in the group ops may"},
		{"token:ci", "freeze", "prod", false, "deployers", "ops"},
		{"group:testers", "lock", "dev/a", true, "testers", "group:testers"},
		{"group:testers", "lock", "prod/a", false, "testers", "one of the groups deployers, ops may"},
		{"gh:o/r", "lock", "dev/a", true, "deployers,testers", "line 11"},
		{"gh:o/r", "lock", "prod/a", false, "deployers,testers", "it depends: if its proof is as the caller on line 6 says, the rule on line 10"},
		{"gh:o/r", "admin", "", false, "deployers,testers", "ops may"},
		{"unix:dora", "lock", "prod/a", true, "deployers,ops", "allows it"},
		{"unix:dora", "break", "prod/a", false, "deployers,ops", "it depends: if its proof is as the caller on line 3 says, the rule on line 12"},
		{"unix:eve", "break", "eve/a", true, "ops", "unix:eve"},
		{"unix:eve", "view", "public/a", false, "ops", "it depends: if its proof is as the caller on line 3 says, the rule on line 9"},
		{"cert:eve", "view", "public/a", false, "", "no rule"},
		{"anonymous", "lock", "scratch/a", true, "", "allows it to anonymous"},
		{"anonymous", "view", "public/a", false, "", "no rule"},
	} {
		verb, err := ParseVerb(test.verb)
		if err != nil {
			t.Fatal(err)
		}
		q := Question{Verb: verb, As: test.as}
		if test.name != "" {
			q.Name = lock.MustParseName(test.name)
		}
		got, err := p.May(admin, q)
		if err != nil || got.Allowed != test.allowed || strings.Join(got.Groups, ",") != test.groups || !strings.Contains(got.Why, test.why) {
			t.Errorf("%q may %s %s: got %+v, %v", test.as, test.verb, test.name, got, err)
		}
		if want := map[bool]string{true: admin.Name, false: test.as}[test.as == ""]; got.Caller != want {
			t.Errorf("%q: got the caller %q", test.as, got.Caller)
		}
	}
	for _, as := range []string{"*", "group:nobody", "token:x", "gh:", "bob"} {
		if _, err := p.May(admin, Question{Verb: View, Name: lock.MustParseName("a"), As: as}); !errors.Is(err, lock.ErrInvalidArgument) {
			t.Errorf("as %q: got %v", as, err)
		}
	}
	ci := lock.Caller{Name: "token:ci", Groups: []string{"deployers"}, Listed: true, Proof: "token"}
	if _, err := p.May(ci, Question{Verb: View, Name: lock.MustParseName("a"), As: "unix:eve"}); !errors.Is(err, lock.ErrPermissionDenied) || !strings.Contains(err.Error(), "needs the right admin") {
		t.Errorf("of another without admin: got %v", err)
	}
	for _, as := range []string{"", "token:ci"} {
		if got, err := p.May(ci, Question{Verb: Lock, Name: lock.MustParseName("prod/a"), As: as}); err != nil || !got.Allowed {
			t.Errorf("of oneself: got %+v, %v", got, err)
		}
	}
	if got, err := (*Policy)(nil).May(lock.Caller{}, Question{Verb: Admin, As: "bob"}); err != nil || !got.Allowed {
		t.Errorf("without an access file: got %+v, %v", got, err)
	}
}

// TestMayIsAllows: May says of the caller who asks what the guard does.
func TestMayIsAllows(t *testing.T) {
	p := mustParse(t, mayExample)
	for _, c := range []lock.Caller{
		{Name: "unix:root", Groups: []string{"ops"}, Listed: true},
		{Name: "token:ci", Groups: []string{"deployers"}, Listed: true},
		{Name: "gh:o/r", Groups: []string{"deployers", "testers"}, Listed: true},
		{Name: "unix:eve"}, {Name: lock.Anonymous}, {},
	} {
		for _, name := range []string{"a", "public/a", "prod/a", "prod/web/b", "prod/b/x", "dev", "dev/a/b", "eve/a", "scratch/a", "scratch/a/b", "scratch/a/_+1", "prod/_+2", "eve/_+1/_+2", "_all"} {
			n := lock.MustParseName(name)
			for v := View; v <= Admin; v++ {
				want := p.Allows(c, v, n)
				if v == Freeze {
					want = p.AllowsFreeze(c, n)
				}
				answer, err := p.May(c, Question{Verb: v, Name: n})
				if err != nil || answer.Allowed != want {
					t.Errorf("%q %v %s: May says %+v, %v; the rules %t", c.Name, v, name, answer, err, want)
				}
				if refused, ok := p.Denied(c, v, n).(*lock.Error); !ok || refused.Reason != lock.ErrPermissionDenied || refused.Lock != nil {
					t.Errorf("%q %v %s: Denied is %v", c.Name, v, name, refused)
				}
			}
		}
	}
}

// TestNamesAreNoWords: a caller's name never counts as another word of who.
func TestNamesAreNoWords(t *testing.T) {
	p := mustParse(t, mayExample)
	for _, name := range []string{"group:ops", "*", "ops", ""} {
		c := lock.Caller{Name: name}
		if p.Allows(c, View, lock.MustParseName("prod/a")) || p.Allows(c, View, lock.MustParseName("public/a")) || p.AllowsAdmin(c) {
			t.Errorf("a caller with the name %q has rights", name)
		}
	}
	for _, word := range reservedWords {
		text := `
callers: [{name: "` + word + `:{mail}", jwt: {issuer: https://issuer, audience: a}, groups: [x]}]
rules: []`
		e := mustParse(t, text).entries[0]
		if name, err := e.name.fill(func(string) (string, bool) { return "ops", true }); err != nil || name != "oidc:"+word+":ops" {
			t.Errorf("an issuer gives the name %q, %v", name, err)
		}
	}
}

// TestPatterns: the sets say what their patterns say one by one.
func TestPatterns(t *testing.T) {
	texts := []string{"a", "a/b", "a/**", "a/b/**", "*", "**/web", "a/*/c", "x*/**", "a/**/d", "b*", "pro*d/**", "**/*/z", "a/b*"}
	names := []string{"a", "b", "a/b", "a/b/c", "a/x/c", "ab", "web", "a/web", "x/1", "x", "xy/2/3", "a/d", "a/q/r/d", "bcd", "prod/a", "proxd/a/b", "q/z", "z", "a/bb", "a/b/c/d/e"}
	for i := range 1 << len(texts) {
		if i%37 != 0 && i > 64 { // a good part of all sets
			continue
		}
		var set patterns
		var each []lock.Pattern
		for j, text := range texts {
			if i&(1<<j) != 0 {
				each = append(each, lock.MustParsePattern(text))
				set.add(each[len(each)-1])
			}
		}
		for _, name := range names {
			want := slices.ContainsFunc(each, func(p lock.Pattern) bool { return p.MatchText(name) })
			if got := set.match(name); got != want {
				t.Fatalf("%v match %s: got %t, want %t", each, name, got, want)
			}
		}
	}
	all := lock.MustParsePattern("**")
	var set patterns
	set.add(all)
	if !set.match("any/thing") || !set.matchTree("a") {
		t.Error("** does not match")
	}
}

// TestMayAgrees: what May answers is what the rules allow, for each verb and form of a
// pattern, and where it is yes it names a rule.
func TestMayAgrees(t *testing.T) {
	anonymous := lock.Caller{Name: lock.Anonymous}
	patterns := []string{"**", "a", "a/**", "a/b/**", "*/**", "a/*", "a*", "**/b", "a/*/**", "_all/**", "_all", "a/_+1", "a/_+1/**"}
	names := []string{"a", "ab", "a/b", "a/b/c", "b", "b/a", "_all", "_all/a", "a/_+1", "a/b/_+17", "a/_+1/_+2", "a/_+1/b"}
	for _, may := range []string{"view", "lock", "break", "freeze"} {
		for _, pattern := range patterns {
			p, err := ParsePolicy([]byte(fmt.Sprintf("callers: []\nrules:\n  - {who: [anonymous], may: [%s], locks: [%q]}\n", may, pattern)), "x")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				n := lock.MustParseName(name)
				for _, verb := range []Verb{View, Lock, Break, Freeze, Admin} {
					want := p.Allows(anonymous, verb, n)
					if verb == Freeze {
						want = p.AllowsFreeze(anonymous, n)
					}
					if judged, ofLock := p.Allows(anonymous, verb, n.Base()), p.Allows(anonymous, verb, n); judged != ofLock {
						t.Errorf("with %s of %s, %v of %s is %t, and of its lock %t", may, pattern, verb, name, ofLock, judged)
					}
					if sees := p.Sees(anonymous).Pass(name); verb == View && sees != want {
						t.Errorf("with %s of %s, %s is in lists: %t, want %t", may, pattern, name, sees, want)
					}
					q := Question{Verb: verb, Name: n}
					got, err := p.May(anonymous, q)
					if err != nil || got.Allowed != want || p.rules[0].allows(q) != want || want != strings.Contains(got.Why, "line 3") {
						t.Errorf("with %s of %s, %v of %s: %+v, %v, and by the rule %t; want %t", may, pattern, verb, name, got, err, p.rules[0].allows(q), want)
					}
				}
			}
		}
	}
}

// TestFreezeRights: what who may freeze can freeze, and view.
func TestFreezeRights(t *testing.T) {
	anonymous := lock.Caller{Name: lock.Anonymous}
	for pattern, want := range map[string]struct{ freeze, view string }{
		"prod/**": {"prod prod/a prod/a/b", "prod prod/a prod/a/b"},
		"**":      {"_all prod prod/a prod/a/b prod2", "_all prod prod/a prod/a/b prod2"},
		"_all/**": {"", "_all"},
	} {
		p, err := ParsePolicy([]byte(fmt.Sprintf("callers: []\nrules:\n  - {who: [anonymous], may: [freeze], locks: [%q]}\n", pattern)), "x")
		if err != nil {
			t.Fatal(err)
		}
		var freeze, view []string
		for _, name := range []string{"_all", "prod", "prod/a", "prod/a/b", "prod2"} {
			if p.AllowsFreeze(anonymous, lock.MustParseName(name)) {
				freeze = append(freeze, name)
			}
			if p.Allows(anonymous, View, lock.MustParseName(name)) {
				view = append(view, name)
			}
			if p.Allows(anonymous, Lock, lock.MustParseName(name)) {
				t.Errorf("who may freeze %s may lock %s", pattern, name)
			}
		}
		if strings.Join(freeze, " ") != want.freeze || strings.Join(view, " ") != want.view {
			t.Errorf("who may freeze %s may freeze %q and view %q, want %q and %q", pattern, freeze, view, want.freeze, want.view)
		}
	}
}
