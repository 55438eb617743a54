package access

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

const (
	hashA = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	hashB = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
	hashC = "sha256:fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13"
)

// refused are access files with something wrong: each part is put into a file that is
// good, and the error begins with the place.
var refused = []struct {
	callers, rules string // elements of the lists
	place          string // LINE:COLUMN; callers are on line 2 from column 4, rules on line 4
	want           string
}{
	// Keys and words.
	{"", "{who: [anonymous], may: [veiw], locks: [a]}", "4:29", `"veiw" is no verb`},
	{"", "{who: [anonymous], may: [view], lock: [a]}", "4:36", `"lock" is no key of a rule; there are who, may, locks`},
	{"", "{who: [anonymous], who: [anonymous], may: [view], locks: [a]}", "4:23", `"who" is there twice`},
	{"", "[]", "4:4", "a rule must be a mapping"},
	{"", "{who: anonymous, may: [view], locks: [a]}", "4:10", "who must be a list"},
	{"", "{who: [[]], may: [view], locks: [a]}", "4:11", "must be a text"},
	{"", "{who: [null], may: [view], locks: [a]}", "4:11", "must be a text"},
	{"", "{who: [''], may: [view], locks: [a]}", "4:11", "is empty"},
	{"", "{[a]: b, who: [anonymous], may: [view], locks: [a]}", "4:5", "a key of a rule must be a text"},
	{"", "{who: [anonymous, &x anonymous], may: [view], locks: [a]}", "4:22", "no anchors"},
	{"", "{who: [anonymous], may: [!!str view], locks: [a]}", "4:29", "no tags"},
	// Rules that can never match, or say a thing twice.
	{"", "{who: [bob], may: [view], locks: [a]}", "4:11", `nobody can be "bob"`},
	{"", "{who: [\"group:x\"], may: [view], locks: [a]}", "4:11", `no caller is in the group "x"`},
	{"", "{who: [\"*\"], may: [view], locks: [a]}", "4:11", "every caller that callers describes, and there is none"},
	{"{unix: {}, groups: [ops]}", "{who: [ops], may: [view], locks: [a]}", "4:11", `"group:ops" is meant?`},
	{"{name: ci, token: " + hashA + "}", "{who: [ci], may: [view], locks: [a]}", "4:11", `"token:ci" is meant?`},
	{"", "{who: [\"unix:\"], may: [view], locks: [a]}", "4:11", "nobody can be"},
	{"", "{who: [], may: [view], locks: [a]}", "4:10", "for nobody"},
	{"", "{who: [anonymous], may: [], locks: [a]}", "4:28", "allows nothing"},
	{"", "{may: [view], locks: [a]}", "4:4", "needs who and may"},
	{"", "{who: [anonymous], may: [view]}", "4:4", "for no locks"},
	{"", "{who: [anonymous], may: [view], locks: []}", "4:4", "for no locks"},
	{"", "{who: [anonymous], may: [admin], locks: [a]}", "4:44", "admin concerns the server and no lock"},
	{"", "{who: [anonymous], may: [view], locks: [a//b]}", "4:44", "not a pattern"},
	{"", "{who: [anonymous, anonymous], may: [view], locks: [a]}", "4:22", `"anonymous" is there twice`},
	{"", "{who: [anonymous], may: [view, view], locks: [a]}", "4:35", `"view" is there twice`},
	{"", "{who: [anonymous], may: [view], locks: [a, a]}", "4:47", `"a" is there twice`},
	// Callers.
	{"{name: x}", "", "2:4", "exactly one of unix, token, jwt and certificate; this one has 0"},
	{"{name: x, unix: {}, certificate: {}}", "", "2:4", "this one has 2"},
	{"{unix: {}, expires: 2030-01-01}", "", "2:24", "expires is for a token"},
	{"{unix: {}, groups: [a b]}", "", "2:24", "cannot be a group"},
	{"{unix: {}, groups: [\"group:a\"]}", "", "2:24", `here it is "a"`},
	{"{unix: {}, groups: [a, a]}", "", "2:27", "twice"},
	{"{unix: {uid: 1}}", "", "2:12", `"uid" is no key of unix`},
	{"{unix: alice}", "", "2:11", "unix must be a mapping"},
	{"{name: \"{mail}\", unix: {}}", "", "2:11", "{mail} is nothing that this proof says; it says {user}, {uid}"},
	{"{name: \"{user\", unix: {}}", "", "2:11", "a { without a }"},
	{"{name: \"user}\", unix: {}}", "", "2:11", "a } without a {"},
	{"{name: \"a\\tb\", unix: {}}", "", "2:11", "a control character"},
	{"{name: \"{uri} {mail}\", certificate: {}}", "", "2:11", "it says {uri}, {dns}, {cn}, {subject}"},
	{"{name: \"{uri}{cn}\", certificate: {}}", "", "2:11", "nothing between {uri} and {cn}"},
	// Tokens.
	{"{name: x, token: \"sha256:12\"}", "", "2:21", "64 hexadecimal digits"},
	{"{name: x, token: md5:9f86d081884c7d659a2feaa0c55ad015}", "", "2:21", "64 hexadecimal digits"},
	{"{name: x, token: \"" + hashA + "00\"}", "", "2:21", "64 hexadecimal digits"},
	{"{name: x, token: pylok_abcdef}", "", "2:21", "pylok token new"},
	{"{name: pylok_abcdef, token: " + hashA + "}", "", "2:11", "pylok token new"},
	{"{token: " + hashA + "}", "", "2:4", "name is missing"},
	{"{name: \"{user}\", token: " + hashA + "}", "", "2:11", "nothing but who has it"},
	{"{name: x, token: " + hashA + ", expires: tomorrow}", "", "2:103", "2027-01-31"},
	{"{name: x, token: " + hashA + "}, {name: y, token: " + hashA + "}", "", "2:95", "the same token"},
	{"{name: x, token: " + hashA + "}, {name: x, token: " + hashB + "}", "", "2:95", "give the old one an end"},
	{"{name: x, token: " + hashA + ", expires: 2030-01-01}, {name: x, token: " + hashB + ", groups: [a]}", "", "2:116", "both are one caller"},
	{"{name: x, token: " + hashA + ", expires: 2030-01-01}, {name: x, token: " + hashB + "}, {name: x, token: " + hashC + "}", "", "2:207", "more than 2 tokens"},
	// Issuers.
	{"{jwt: {audience: a}}", "", "2:10", "needs an issuer"},
	{"{jwt: {issuer: \"https://corp\"}}", "", "2:10", "needs an audience"},
	{"{jwt: {issuer: \"http://corp\", audience: a}}", "", "2:19", "must be https"},
	{"{jwt: {issuer: corp, audience: a}}", "", "2:19", "not the URL of an issuer"},
	{"{jwt: {issuer: \"https://u:p@corp\", audience: a}}", "", "2:19", "not the URL of an issuer"},
	{"{jwt: {issuer: \"https://corp\", audience: a, algorithms: [HS256]}}", "", "2:61", `"HS256" is not taken`},
	{"{jwt: {issuer: \"https://corp\", audience: a, algorithms: [none]}}", "", "2:61", `"none" is not taken`},
	{"{jwt: {issuer: \"https://corp\", audience: a, algorithms: []}}", "", "2:60", "there is no algorithm"},
	{"{jwt: {issuer: \"https://corp\", audience: a, claims: {x: [a]}}}", "", "2:60", "must be a text"},
	{"{jwt: {issuer: \"https://corp\", audience: a, claims: {owner_id: \"12*\"}}}", "", "2:56", "a part of a number"},
	{"{jwt: {issuer: \"https://token.actions.githubusercontent.com\", audience: a}}", "", "2:10", "for whoever has an account there"},
	{"{jwt: {issuer: \"https://token.actions.githubusercontent.com/corp\", audience: a, claims: {environment: prod}}}", "", "2:10", "for whoever has an account there"},
	{"{jwt: {issuer: \"https://token.actions.corp.ghe.com\", audience: a, claims: {repository: \"corp*/x\"}}}", "", "2:10", "before its first slash"},
	{"{jwt: {issuer: \"https://gitlab.com\", audience: a, claims: {ref: main}}}", "", "2:10", "project_id"},
	{"{jwt: {issuer: \"https://token.actions.githubusercontent.com\", audience: a, claims: {repository_id: 1, sub: x}}}", "", "2:87", "the form of sub differs"},
	{"{name: \"g:{a}\", jwt: {issuer: \"https://a\", audience: a}}, {name: \"g:{a}\", jwt: {issuer: \"https://b\", audience: a}}", "", "2:62", "two issuers need two words"},
	{"{jwt: {issuer: \"https://a\", audience: a}}, {name: \"{a}\", jwt: {issuer: \"https://b\", audience: a}}", "", "2:47", "two issuers need two words"},
}

func TestParsePolicyRefuses(t *testing.T) {
	for _, test := range refused {
		text := "callers:\n - " + test.callers + "\nrules:\n - " + test.rules + "\n"
		text = strings.ReplaceAll(text, "\n - \n", " []\n")
		if test.callers == "" {
			text = strings.Replace(text, "callers: []\n", "callers:\n  []\n", 1) // so that the lines stay
		}
		if strings.Contains(test.callers, "}, {") { // several elements on one line
			text = strings.Replace(text, "\n - "+test.callers, "\n  ["+test.callers+"]", 1)
		}
		_, err := ParsePolicy([]byte(text), "access.yaml")
		found := Problems(err)
		if len(found) == 0 {
			t.Errorf("%s: no error", text)
			continue
		}
		if first := found[0].Error(); !strings.HasPrefix(first, "access.yaml:"+test.place+": ") || !strings.Contains(first, test.want) {
			t.Errorf("%s: got %q, want %q at %s", text, first, test.want, test.place)
		}
		if strings.Contains(err.Error(), "abcdef") {
			t.Errorf("the error %q has a secret", err)
		}
	}
	for _, test := range []struct{ text, want string }{
		{"", "access.yaml: it is empty"},
		{"# nothing\n", "access.yaml: it is empty"},
		{"callers: []", "access.yaml:1:1: there are no rules"},
		{"rules: []\nrule: []", `access.yaml:2:1: "rule" is no key`},
		{"rules: []\nrules: []", `access.yaml:2:1: "rules" is there twice`},
		{"rules: []\n---\nrules: []", "access.yaml:2:1: another document begins"},
		{"[]", "access.yaml:1:1: the file must be a mapping"},
		{"rules: {", "access.yaml:"},
		{"rules:\n  - [\n", "access.yaml:"},
		{"\x00", "access.yaml: control characters"},
		{"rules: *x", "access.yaml: unknown anchor"},
		{"rules: &x []\ncallers: *x", "access.yaml:1:8: an access file has no anchors"},
		{strings.Repeat("#", MaxFileBytes+1), "access.yaml: it has more than the 1048576 bytes"},
		{"rules:\n" + strings.Repeat(" - \n", maxRules+1), "access.yaml: it has 0 callers and 20001 rules"},
	} {
		_, err := ParsePolicy([]byte(test.text), "access.yaml")
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%.40q: got %v, want an error with %q", test.text, err, test.want)
		}
	}
}

// TestParsePolicyTellsAll: all problems are told, in their order, up to a number.
func TestParsePolicyTellsAll(t *testing.T) {
	_, err := ParsePolicy([]byte("rules:\n"+strings.Repeat("  - {who: [bob], may: [look], locks: [\"//\"]}\n", 10)), "f")
	found := Problems(err)
	if len(found) != maxProblems+1 || found[maxProblems].Error() != "f: 10 problems more" || found[0].Error()[:6] != "f:2:12" || found[1].Error()[:6] != "f:2:24" {
		t.Errorf("got %d problems: %v", len(found), err)
	}
	if strings.Count(err.Error(), "\n") != maxProblems {
		t.Errorf("got %q, want a line each", err)
	}
	// Of callers that could not be read it is not known which groups they are in.
	_, err = ParsePolicy([]byte("callers: [{unix: x, groups: [ops]}]\nrules: [{who: [\"group:ops\"], may: [view], locks: [a]}]"), "f")
	if n := len(Problems(err)); n != 1 {
		t.Errorf("got %d problems, want 1: %v", n, err)
	}
}

// TestExample: the file of the documentation is one.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../docs/access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePolicy(text, "docs/access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		caller lock.Caller
		verb   Verb
		name   string
		want   bool
	}{
		{lock.Caller{Name: "unix:alice", Groups: []string{"ops"}, Listed: true}, Break, "prod/web", true},
		{lock.Caller{Name: "github:corp/web@refs/heads/main run 4711", Groups: []string{"deployers"}, Listed: true}, Lock, "prod/web", true},
		{lock.Caller{Name: "github:corp/web@refs/heads/main run 4711", Groups: []string{"deployers"}, Listed: true}, Break, "prod/web", false},
		{lock.Caller{Name: "unix:bob", Listed: true}, View, "prod/web", true},
		{lock.Caller{Name: lock.Anonymous}, View, "prod/web", false},
	} {
		if got := p.Allows(test.caller, test.verb, lock.MustParseName(test.name)); got != test.want {
			t.Errorf("%s may %v %s: got %t, want %t", test.caller.Name, test.verb, test.name, got, test.want)
		}
	}
	said := p.Describe(time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC))
	if strings.Contains(said, "note: ") {
		t.Errorf("the example is odd:\n%s", said)
	}
	// Every key and every verb is in it.
	for _, word := range []string{"name:", "groups:", "unix:", "user:", "group:", "token:", "expires:", "jwt:", "issuer:", "audience:", "algorithms:", "claims:", "certificate:", "uri:", "dns:", "cn:", "anonymous", "view", "lock", "break", "freeze", "admin"} {
		if !bytes.Contains(text, []byte(word)) {
			t.Errorf("the example has no %s", word)
		}
	}
}

func TestDescribe(t *testing.T) {
	p := mustParse(t, `
callers:
  - {unix: {user: alice, group: ops}, groups: [ops, idle]}
  - {name: ci, token: "`+hashA+`", expires: 2026-01-01}
  - {name: "{cn}", certificate: {cn: "*.corp"}}
  - {name: "kc:{mail}", jwt: {issuer: "https://corp/realm", audience: pylok, claims: {b: "2", a: "1"}}}
rules:
  - {who: ["*", anonymous], may: [view, break], locks: ["a/**", b/_+1]}
  - {who: ["group:ops"], may: [admin]}
`)
	want := `LINE  CALLER      PROOF                                                   GROUPS
3     unix:{user}  socket: user alice, group ops                          idle, ops
4     token:ci     token sha256:9f86d081..., over                         -
5     cert:{cn}    certificate: cn *.corp                                 -
6     kc:{mail}    oidc: https://corp/realm for pylok, a 1, b 2           -

LINE  WHO           MAY          LOCKS
8     *, anonymous  view, break  a/**, b/_+1
9     group:ops     admin        -

note: the token of token:ci on line 4 is over; take it out
note: no rule is for the group idle of line 3
note: the rule on line 8 has b/_+1, which is for no lock: a shared hold is judged as b
note: callers who prove nothing may break holds or are admins
`
	space := regexp.MustCompile(" +")
	got := p.Describe(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))
	if space.ReplaceAllString(got, " ") != space.ReplaceAllString(want, " ") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := mustParse(t, "rules: []").Describe(time.Now()); !strings.Contains(got, "nobody may do anything") {
		t.Errorf("no rules: got %q", got)
	}
}

// TestDigest: it is another one for all that decides, and the same for the rest.
func TestDigest(t *testing.T) {
	const text = `
callers:
  - {unix: {group: ops}, groups: [ops]}
  - {name: ci, token: "` + hashA + `", expires: 2030-01-01}
  - {name: "g:{a}", jwt: {issuer: "https://a", audience: a, claims: {x: "1", y: "2"}}}
rules:
  - {who: ["*", anonymous], may: [view, lock], locks: ["a/**", b]}
  - {who: ["group:ops"], may: [break], locks: ["a/**"]}
`
	is := mustParse(t, text).Digest()
	for _, same := range [][2]string{
		{"\ncallers", "\n# callers\n\ncallers"}, {`["*", anonymous]`, `[anonymous, "*"]`}, {"[view, lock]", "[lock, view]"}, {`["a/**", b]`, `["b", a/**]`},
		{`{x: "1", y: "2"}`, "{y: 2, x: 1}"},
	} {
		if changed := strings.Replace(text, same[0], same[1], 1); changed == text || mustParse(t, changed).Digest() != is {
			t.Errorf("%s instead of %s: another digest", same[1], same[0])
		}
	}
	for _, other := range [][2]string{
		{"{group: ops}", "{user: ops}"}, {"groups: [ops]", "groups: [ops, x]"}, {"name: ci", "name: cj"}, {hashA, hashB}, {"2030", "2031"},
		{"https://a", "https://b"}, {"audience: a", "audience: b"}, {`x: "1"`, `x: "3"`}, {"[view, lock]", "[view]"}, {"a/**", "a/*"}, {", anonymous", ""},
	} {
		if changed := strings.Replace(text, other[0], other[1], 1); changed == text || mustParse(t, changed).Digest() == is {
			t.Errorf("%s instead of %s: the same digest", other[1], other[0])
		}
	}
	if (*Policy)(nil).Digest() == is {
		t.Error("no access file has the digest of one")
	}
}

// FuzzParsePolicy: whatever the text, it is a policy whose questions have consistent
// answers, or it has problems that name the file.
func FuzzParsePolicy(f *testing.F) {
	f.Add(example)
	f.Add(mayExample)
	for _, test := range refused {
		f.Add(fmt.Sprintf("callers: [%s]\nrules: [%s]", test.callers, test.rules))
	}
	name := lock.MustParseName("prod/web")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy([]byte(text), "f.yaml")
		if err != nil {
			if p != nil || len(Problems(err)) == 0 {
				t.Fatalf("got %v and the error %v", p, err)
			}
			for _, problem := range Problems(err) {
				if !strings.HasPrefix(problem.Error(), "f.yaml:") {
					t.Fatalf("the problem %q names no file", problem)
				}
			}
			return
		}
		again, err := ParsePolicy([]byte(text), "f.yaml")
		if err != nil || again.Digest() != p.Digest() {
			t.Fatalf("read again it is another one: %v", err)
		}
		p.Describe(time.Now())
		for _, r := range p.rules {
			for _, who := range r.who {
				c := lock.Caller{Name: who}
				if group, isGroup := strings.CutPrefix(who, groupPrefix); isGroup {
					c = lock.Caller{Name: "x:y", Groups: []string{group}}
				} else if who == everyListed {
					c = lock.Caller{Name: "x:y", Listed: true}
				}
				for _, v := range r.may {
					for _, pattern := range r.locks {
						if v != Admin && pattern.Match(name) && (!p.Allows(c, v, name) || !p.Allows(c, View, name)) {
							t.Fatalf("the rule on line %d does not allow %s to %v %s", r.line, who, v, name)
						}
					}
				}
			}
		}
		for _, c := range []lock.Caller{{}, {Name: "no:body"}} {
			if p.named[c.Name] == nil && (p.Allows(c, View, name) || p.AllowsAdmin(c)) {
				t.Fatalf("%q may what no rule allows", c.Name)
			}
		}
	})
}

// TestLargeFile: as much as a file may have is read in a time that grows with it.
func TestLargeFile(t *testing.T) {
	list := func(element string) string {
		var b strings.Builder
		for i := 0; b.Len() < MaxFileBytes-2000; i++ {
			fmt.Fprintf(&b, element, i)
		}
		return b.String()
	}
	for what, text := range map[string]string{
		"locks":  "rules: [{who: [anonymous], may: [view], locks: [" + list("a%d,") + "]}]",
		"who":    "rules: [{may: [view], locks: [a], who: [" + list("\"unix:%d\",") + "]}]",
		"groups": "rules: []\ncallers: [{unix: {}, groups: [" + list("a%d,") + "]}]",
	} {
		if _, err := ParsePolicy([]byte(text), "f"); err != nil {
			t.Errorf("%s: %.200v", what, err)
		}
	}
}
