package access

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/internal/testissuer"
	"github.com/pylok/pylok/lock"
)

// controlOf reads an access file with these lines of callers.
func controlOf(t *testing.T, callers string) *Control {
	t.Helper()
	file := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(file, []byte("callers:\n"+callers+"rules:\n  - {who: [\"*\"], may: [view], locks: [\"**\"]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := NewControl(Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func identify(t *testing.T, c *Control, token string) (lock.Caller, error) {
	t.Helper()
	return c.Identify(WithEvidence(t.Context(), &Evidence{Bearer: token, Peer: "192.0.2.7"}))
}

// TestJWT: a token counts if its issuer has signed it, for this server, until its end, and
// if its claims fit an entry.
func TestJWT(t *testing.T) {
	ours, other := testissuer.New(t), testissuer.New(t)
	c := controlOf(t, fmt.Sprintf(`
  - name: "github:{repository}@{ref} run {run_id}"
    jwt: {issuer: %q, audience: pylok.corp, claims: {repository_owner_id: "1234", environment: "prod*"}}
    groups: [deployers]
  - name: "github:{repository}@{ref} run {run_id}"
    jwt: {issuer: %[1]q, audience: pylok.corp, claims: {ref_protected: "true"}}
    groups: [protected]
`, ours.URL))
	claims := func(change map[string]any) map[string]any {
		all := map[string]any{
			"aud": "pylok.corp", "repository": "owner/repo", "ref": "refs/heads/main", "run_id": 4711,
			"repository_owner_id": "1234", "environment": "production", "ref_protected": true,
		}
		for key, value := range change {
			all[key] = value
		}
		return all
	}
	good := ours.Token(claims(nil))
	got, err := identify(t, c, good)
	if err != nil || got.Name != "github:owner/repo@refs/heads/main run 4711" || got.Proof != "oidc" || !got.Listed ||
		fmt.Sprint(got.Groups) != "[deployers protected]" || got.Peer != "192.0.2.7" || time.Until(got.ExpireTime).Round(time.Minute) != 5*time.Minute {
		t.Errorf("got %+v, %v", got, err)
	}
	if one, err := identify(t, c, ours.Token(claims(map[string]any{"environment": "staging", "aud": []string{"x", "pylok.corp"}}))); err != nil || fmt.Sprint(one.Groups) != "[protected]" {
		t.Errorf("a token that fits one of the entries: %+v, %v", one, err)
	}
	parts := strings.Split(good, ".")
	strange := strings.Split(ours.Token(claims(map[string]any{"repository": "owner/other"})), ".")
	for _, test := range []struct{ name, token, want string }{
		{"ended", ours.Token(claims(map[string]any{"exp": time.Now().Add(-time.Second).Unix()})), "was valid until"},
		{"without an end", ours.Token(claims(map[string]any{"exp": nil})), "its signature or its times are wrong"},
		{"of later", ours.Token(claims(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()})), "its signature or its times are wrong"},
		{"for another audience", ours.Token(claims(map[string]any{"aud": "another.corp"})), "is for another audience"},
		{"for no audience", ours.Token(claims(map[string]any{"aud": nil})), "is for another audience"},
		{"with other claims", ours.Token(claims(map[string]any{"repository_owner_id": "1235", "ref_protected": "false"})), "no entry of its access file fits"},
		{"of another issuer", other.Token(claims(nil)), "nor of an issuer that its access file names"},
		{"of another issuer who says that it is ours", other.Token(claims(map[string]any{"iss": ours.URL})), "its signature or its times are wrong"},
		{"with another's claims", parts[0] + "." + strange[1] + "." + parts[2], "its signature or its times are wrong"},
		{"unsigned", "eyJhbGciOiJub25lIn0." + parts[1] + ".", "no entry of its access file fits"},
		{"signed with the public key for a secret", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + parts[1] + "." + parts[2], "no entry of its access file fits"},
		{"a name with a line in it", ours.Token(claims(map[string]any{"run_id": "1\nadmin"})), ""},
		{"a name that is too long", ours.Token(claims(map[string]any{"run_id": strings.Repeat("1", 257)})), ""},
		{"a name without its claim", ours.Token(claims(map[string]any{"run_id": nil})), ""},
		{"no JWT", "s3cret.s3cret.s3cret", "is not one of this server's"},
		{"long", good + strings.Repeat("x", maxJWTBytes), "is not one of this server's"},
	} {
		caller, err := identify(t, c, test.token)
		if !errors.Is(err, lock.ErrUnauthenticated) || !strings.Contains(err.Error(), test.want) || caller.Name != "" {
			t.Errorf("%s: %+v, %v; want UNAUTHENTICATED with %q", test.name, caller, err, test.want)
			continue
		}
		for _, secret := range []string{test.token, parts[2], "1234"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %q has %q", test.name, err, secret)
			}
		}
	}
}

// TestJWTByAnotherPolicy: a token that was found good has the groups that the present
// access file gives, and nobody has them whom that does not know.
func TestJWTByAnotherPolicy(t *testing.T) {
	issuer := testissuer.New(t)
	policy := func(group, audience string) *Policy {
		return mustParse(t, fmt.Sprintf("callers:\n  - {name: \"ci:{sub}\", jwt: {issuer: %q, audience: %s}, groups: [%s]}\nrules: []\n", issuer.URL, audience, group))
	}
	c, err := NewControl(Config{})
	if err != nil {
		t.Fatal(err)
	}
	token := issuer.Token(map[string]any{"aud": "a", "sub": "x"})
	for _, group := range []string{"before", "after"} {
		c.policy.Store(policy(group, "a"))
		if caller, err := identify(t, c, token); err != nil || fmt.Sprint(caller.Groups) != "["+group+"]" {
			t.Errorf("%s: %+v, %v", group, caller, err)
		}
	}
	c.policy.Store(policy("others", "b"))
	if caller, err := identify(t, c, token); !errors.Is(err, lock.ErrUnauthenticated) {
		t.Errorf("whom the access file does not know any more is %+v, %v", caller, err)
	}
}

// TestJWTKeys: keys are fetched when they are needed, and a key that is not known has them
// fetched again, but not as often as somebody likes; an issuer that does not answer is no
// reason to let anybody in.
func TestJWTKeys(t *testing.T) {
	issuer := testissuer.New(t)
	c := controlOf(t, fmt.Sprintf("  - {name: \"ci:{sub}\", jwt: {issuer: %q, audience: a}}\n", issuer.URL))
	token := func() string { return issuer.Token(map[string]any{"aud": "a"}) }
	if n := issuer.KeyFetches(); n != 0 {
		t.Errorf("the keys were fetched %d times before anybody came", n)
	}
	want := func(what, token string, fetches int) {
		t.Helper()
		if _, err := identify(t, c, token); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if n := issuer.KeyFetches(); n != fetches {
			t.Errorf("%s: the keys were fetched %d times, want %d", what, n, fetches)
		}
	}
	first := token()
	want("the first token", first, 1)
	want("the same one", first, 1)
	want("another one", issuer.Token(map[string]any{"aud": "a", "sub": "b"}), 1)
	issuer.Rotate()
	want("one with a new key", token(), 2)
	fetched := issuer.KeyFetches()
	for range 20 {
		forger := testissuer.New(t)
		for range 2 {
			forger.Rotate()
		}
		if _, err := identify(t, c, forger.Token(map[string]any{"iss": issuer.URL, "aud": "a"})); !errors.Is(err, lock.ErrUnauthenticated) {
			t.Errorf("a forged token: %v", err)
		}
	}
	if n := issuer.KeyFetches() - fetched; n > fetchBurst {
		t.Errorf("20 forged tokens had the keys fetched %d times, want %d at most", n, fetchBurst)
	}

	away := controlOf(t, "  - {name: \"ci:{sub}\", jwt: {issuer: \"http://127.0.0.1:1\", audience: a}}\n")
	_, err := identify(t, away, issuer.Token(map[string]any{"iss": "http://127.0.0.1:1", "aud": "a"}))
	if !errors.Is(err, lock.ErrUnauthenticated) || !strings.Contains(err.Error(), "does not give its keys now") {
		t.Errorf("of an issuer that is away: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	away.jwts.issuer("http://127.0.0.1:1").turn <- struct{}{} // somebody waits for it
	_, err = away.Identify(WithEvidence(ctx, &Evidence{Bearer: issuer.Token(map[string]any{"iss": "http://127.0.0.1:1", "aud": "a"})}))
	if !errors.Is(err, lock.ErrUnauthenticated) {
		t.Errorf("of who does not wait for an issuer: %v", err)
	}
}

// TestJWTOfWhoLeaves: callers who do not wait for the answer take from nobody the chance to
// have the issuer asked, which is limited.
func TestJWTOfWhoLeaves(t *testing.T) {
	issuer := testissuer.New(t)
	c := controlOf(t, fmt.Sprintf("  - {jwt: {issuer: %q, audience: a}}\n", issuer.URL))
	token := func(n int) string { return issuer.Token(map[string]any{"aud": "a", "sub": fmt.Sprint(n)}) }
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 4 * fetchBurst {
		c.Identify(WithEvidence(gone, &Evidence{Bearer: token(n)})) // nobody waits for it
	}
	if caller, err := identify(t, c, token(100)); err != nil {
		t.Errorf("after those who left: %+v, %v", caller, err)
	}
}
