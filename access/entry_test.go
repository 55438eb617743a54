package access

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
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
