package access

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// TestNamesAreOnes: callers with different facts have different names, whatever is in the
// facts, and no name has what cannot be seen.
func TestNamesAreOnes(t *testing.T) {
	fill := func(text, a, b string) (string, error) {
		name, err := parseTemplate(text, oidcWord, nil)
		if err != nil {
			t.Fatal(err)
		}
		return name.fill(func(fact string) (string, bool) { return map[string]string{"a": a, "b": b}[fact], true })
	}
	for _, text := range []string{"ci:{a} {b}", "ci:{a}aa{b}", "ci:{a}@{b} run", "{a}:{b}", "ci:{a} run {b} run {a}"} {
		whose := make(map[string][2]string)
		facts := []string{"x", "a", "aa", "aaa", "xa", "ax", "x x", "x ", " x", "x@x", "x@", "x:x", ":", "x run x", "x run", " run ", "@"}
		for _, a := range facts {
			for _, b := range facts {
				name, err := fill(text, a, b)
				if err != nil {
					continue
				}
				if other, there := whose[name]; there {
					t.Errorf("%q: %q and %q are both %q", text, other, [2]string{a, b}, name)
				}
				whose[name] = [2]string{a, b}
			}
		}
		if len(whose) < len(facts) {
			t.Errorf("%q: only %d names", text, len(whose))
		}
	}
	if _, err := parseTemplate("ci:{a}{b}", oidcWord, nil); err == nil || !strings.Contains(err.Error(), "between {a} and {b}") {
		t.Errorf("two facts with nothing between them: %v", err)
	}
	for _, fact := range []string{"a\u200bb", "a\u202eb", "\ufeffa", "a\u00adb", "a\tb", "a\u2028b", "a\u0085b", "a\xffb", "a\u00a0b", " a", "a ", "a\ue000b", ""} {
		if name, err := fill("ci:{a}", fact, ""); err == nil {
			t.Errorf("the fact %q makes the name %q", fact, name)
		}
	}
	for _, fact := range []string{"Zoë", "李", "a b", "a*b", "repo:x/y:ref:z", "{b}"} {
		if name, err := fill("ci:{a}", fact, ""); err != nil || name != "ci:"+fact {
			t.Errorf("the fact %q: %q, %v", fact, name, err)
		}
	}
}

// TestCertificateNames: the default name of a certificate is its first URI, else its first
// DNS name, else its common name, and no common name passes for a URI.
func TestCertificateNames(t *testing.T) {
	const spiffe = "spiffe://corp/deploy/web"
	uri, err := url.Parse(spiffe)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		cn   string
		dns  []string
		uris []*url.URL
		want string // empty: refused
	}{
		{"web", []string{"web.corp"}, []*url.URL{uri}, "cert:" + spiffe},
		{"web", []string{"web.corp", "db.corp"}, nil, "cert:web.corp"},
		{"web", nil, nil, "cert:web"},
		{spiffe, nil, nil, ""},
		{spiffe, []string{"web.corp"}, nil, "cert:web.corp"},
		{"", nil, nil, ""},
		{"web\nadmin", nil, nil, ""},
	} {
		leaf := &x509.Certificate{Subject: pkix.Name{CommonName: test.cn}, DNSNames: test.dns, URIs: test.uris, NotAfter: time.Now().Add(time.Hour)}
		caller, err := (*Policy)(nil).identifyCertificate(&Evidence{Certificates: []*x509.Certificate{leaf}})
		if caller.Name != test.want || (err == nil) != (test.want != "") || err != nil && !errors.Is(err, lock.ErrUnauthenticated) {
			t.Errorf("CN %q, DNS %q, URIs %v: %q, %v; want %q", test.cn, test.dns, test.uris, caller.Name, err, test.want)
		}
	}
}

// TestStarNeedsSomething: a * stands for any text of a fact, and for none that is not there.
func TestStarNeedsSomething(t *testing.T) {
	text := `
callers:
  - {certificate: {uri: "*"}, groups: [uri]}
  - {certificate: {dns: "*"}, groups: [dns]}
  - {certificate: {cn: "*"}, groups: [cn]}
rules: []
`
	p, err := ParsePolicy([]byte(text), "access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse("spiffe://corp/web")
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(cn string, dns []string, uris ...*url.URL) *Evidence {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: cn}, DNSNames: dns, URIs: uris, NotAfter: time.Now().Add(time.Hour)}
		return &Evidence{Certificates: []*x509.Certificate{c}}
	}
	for _, test := range []struct {
		evidence *Evidence
		want     string
	}{
		{leaf("web", nil), "[cn]"},
		{leaf("", []string{"web"}), "[dns]"},
		{leaf("", nil, uri), "[uri]"},
		{leaf("web", []string{"web"}, uri), "[cn dns uri]"},
	} {
		if caller, err := p.identifyCertificate(test.evidence); err != nil || fmt.Sprint(caller.Groups) != test.want {
			t.Errorf("%s: in %v, %v; want %s", caller.Name, caller.Groups, err, test.want)
		}
	}
	for claim, want := range map[string]bool{`"prod"`: true, `""`: false, `[]`: false, `[""]`: false, `null`: false, `{}`: false, `0`: true} {
		payload := base64.RawURLEncoding.EncodeToString([]byte(`{"aud": "a", "environment": ` + claim + `}`))
		token, err := parseJWT("eyJhbGciOiJSUzI1NiJ9." + payload + ".x")
		if err != nil {
			t.Fatal(err)
		}
		if got := token.fitsOne(&jwtProof{audience: "a", algorithms: []string{"RS256"}, claims: map[string]string{"environment": "*"}}); got != want {
			t.Errorf("an environment of %s fits *: %t, want %t", claim, got, want)
		}
	}
}

// TestGroupOfAnotherNamespace: a group that has no number here is no group of an entry,
// though the kernel shows it by one that has a name.
func TestGroupOfAnotherNamespace(t *testing.T) {
	const nogroup = 65534
	text := "callers:\n  - {unix: {group: \"65534\"}, groups: [none]}\n  - {unix: {group: \"4242\"}, groups: [real]}\nrules: []\n"
	p, err := ParsePolicy([]byte(text), "access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	caller, err := p.identifySocket(&Evidence{Socket: &Credentials{UID: 4711, GID: nogroup, Groups: []uint32{nogroup, 4242}}})
	if err != nil || fmt.Sprint(caller.Groups) != "[real]" {
		t.Errorf("in %v, %v; want [real]", caller.Groups, err)
	}
}
