package access

import (
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text), "access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const example = `
callers:
  - {unix: {group: ops}, groups: [ops]}
  - {name: alice, token: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", groups: [ops]}
  - {name: "{uri}", certificate: {uri: "spiffe://corp/deploy/*"}, groups: [deployers]}
  - name: "github:{repository}@{ref} run {run_id}"
    jwt: {issuer: https://token.actions.githubusercontent.com, audience: pylok.corp,
          claims: {repository_owner_id: "1234", environment: production}}
    groups: [deployers]
rules:
  - {who: ["*"], may: [view], locks: ["public/**"]}
  - {who: ["group:deployers", anonymous], may: [lock], locks: ["prod/**"]}
  - {who: ["group:ops"], may: [lock, break, freeze], locks: ["**"]}
  - {who: ["token:alice"], may: [admin]}
  - {who: ["unix:bob"], may: [freeze], locks: ["dev/**", "x*/**", "y/z"]}
`

func TestAllows(t *testing.T) {
	p := mustParse(t, example)
	ops := lock.Caller{Name: "token:alice", Listed: true, Groups: []string{"ops"}}
	deployer := lock.Caller{Name: "github:o/r@main run 1", Listed: true, Groups: []string{"deployers"}}
	bob := lock.Caller{Name: "unix:bob"}
	anonymous := lock.Caller{Name: lock.Anonymous}
	for _, test := range []struct {
		caller lock.Caller
		verb   Verb
		name   string
		want   bool
	}{
		{ops, Break, "any/thing", true},
		{ops, View, "any/thing", true}, // implied
		{deployer, Lock, "prod/a/b", true},
		{deployer, View, "prod/a/b", true},
		{deployer, Break, "prod/a/b", false},
		{deployer, View, "public/x", true},
		{deployer, Lock, "public/x", false},
		{deployer, Lock, "prod", false},
		{bob, View, "public/x", false}, // no entry describes bob
		{bob, Freeze, "dev/a", true},
		{bob, View, "dev/a", true},
		{anonymous, Lock, "prod/a", true},
		{anonymous, View, "public/x", false},
		{lock.Caller{}, Lock, "prod/a", false},
	} {
		name := lock.MustParseName(test.name)
		if got := p.Allows(test.caller, test.verb, name); got != test.want {
			t.Errorf("%s may %v %s: %t, want %t", test.caller.Name, test.verb, name, got, test.want)
		}
		if !(*Policy)(nil).Allows(test.caller, test.verb, name) {
			t.Errorf("without an access file %s may not %v %s", test.caller.Name, test.verb, name)
		}
		if got, want := p.Sees(test.caller).Pass(test.name), p.Allows(test.caller, View, name); got != want {
			t.Errorf("%s sees %s: %t, and may view it: %t", test.caller.Name, name, got, want)
		}
	}
	for name, want := range map[string]bool{"dev": true, "dev/a": true, "deva": false, "x1": false, "y/z": false, "y": false} {
		if got := p.AllowsFreeze(bob, lock.MustParseName(name)); got != want {
			t.Errorf("bob may freeze %s: %t, want %t", name, got, want)
		}
	}
	if !p.AllowsAdmin(ops) || p.AllowsAdmin(deployer) || p.AllowsAdmin(anonymous) {
		t.Error("alice alone is an admin")
	}
	known := p.Denied(lock.Caller{Name: "unix:bob", Proof: "socket"}, Break, lock.MustParseName("prod/x")).Error()
	if !strings.HasSuffix(known, "no entry of the access file describes unix:bob") {
		t.Errorf("the refusal of one whom no entry describes is %q", known)
	}
	denied := p.Denied(bob, Break, lock.MustParseName("prod/x")).Error()
	if !strings.Contains(denied, "unix:bob") || !strings.Contains(denied, "break prod/x") || !strings.Contains(denied, "ops") {
		t.Errorf("the refusal is %q", denied)
	}
}
