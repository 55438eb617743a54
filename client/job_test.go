package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// TestJobToken: a GitHub job asks with its own secret for the audience, and keeps the
// token for as long as it counts from its issue.
func TestJobToken(t *testing.T) {
	const secret = "the-request-s3cret"
	answers := func(handler http.HandlerFunc) string {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		return server.URL + "/token?api-version=2.0"
	}
	token := jwt(`{"iat": 1000, "exp": 1300}`)
	good := answers(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret || r.URL.Query().Get("audience") != "a b&c" || r.URL.Query().Get("api-version") != "2.0" {
			w.WriteHeader(http.StatusForbidden)
		}
		fmt.Fprintf(w, `{"count": 1, "value": %q}`, token)
	})
	failures := 0
	for _, test := range []struct {
		name, url string
		want      string // in the error; empty: there is none
	}{
		{"the token", good, ""},
		{"a failure that passes", answers(func(w http.ResponseWriter, _ *http.Request) {
			if failures++; failures == 1 {
				w.WriteHeader(http.StatusBadGateway)
			}
			fmt.Fprintf(w, `{"value": %q}`, token)
		}), ""},
		{"a refusal", answers(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusForbidden) }), "answers 403 Forbidden"},
		{"a redirection", answers(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, good, http.StatusFound) }), "answers 302 Found"},
		{"no token", answers(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }), "answers without a token"},
		{"not a JWT", answers(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"value": %q}`, secret) }), "it has not three parts"},
		{"no end", answers(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"value": %q}`, jwt(`{}`)) }), "nothing usable of its end"},
		{"plaintext to elsewhere", "http://192.0.2.1/" + secret, "ACTIONS_ID_TOKEN_REQUEST_URL is not the address of an HTTPS server"},
		{"nobody there", "http://127.0.0.1:1/" + secret, "asking 127.0.0.1:1: dial tcp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(idTokenVariable, "")
			t.Setenv(requestURLVariable, test.url)
			t.Setenv(requestTokenVariable, secret)
			source, ok := JobToken("a b&c")
			if !ok {
				t.Fatal("it is no CI job")
			}
			begun := time.Now()
			got, err := source(context.Background())
			switch {
			case test.want != "":
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), `audience "a b&c"`) || strings.Contains(err.Error(), secret) {
					t.Errorf("got the error %v, want one with %q and the audience, and without the secret", err, test.want)
				}
			case err != nil || got.Token != token:
				t.Errorf("got %v, want the token", err)
			default:
				if end := got.ExpireTime; end.Before(begun.Add(300*time.Second)) || end.After(time.Now().Add(300*time.Second)) {
					t.Errorf("it ends %v after the request, want 300s", end.Sub(begun))
				}
			}
		})
	}
	t.Setenv(requestURLVariable, good)
	t.Setenv(requestTokenVariable, "")
	if _, ok := JobToken("x"); ok {
		t.Error("a job that may not ask for tokens has one")
	}
	t.Setenv(idTokenVariable, " "+token+"\n")
	source, ok := JobToken("x")
	if got, err := source(context.Background()); !ok || err != nil || got.Token != token {
		t.Errorf("with PYLOK_ID_TOKEN: %v, %v; want its token", ok, err)
	}
}

// TestTokenFile: a file that is replaced or written is read again.
func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	source := TokenFile(path)
	want := func(token, problem string) {
		t.Helper()
		got, err := source(context.Background())
		if problem == "" && (err != nil || got.Token != token) {
			t.Errorf("got %q, %v; want %q", got.Token, err, token)
		}
		if problem != "" && (err == nil || !strings.Contains(err.Error(), problem) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("got the error %v, want one with %q and without the token", err, problem)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	want("", "no such file")
	write("pylok_s3cret\n")
	want("pylok_s3cret", "")
	want("pylok_s3cret", "")
	write("pylok_s3cre2")
	want("pylok_s3cre2", "")
	write("\n")
	want("", "is empty")
	write("s3cret s3cret")
	want("", "at byte 7")
	write(strings.Repeat("s3cret", largestTokenFile))
	want("", "has more than 65536 bytes")
	write("pylok_s3cre3")
	want("pylok_s3cre3", "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want("", "no such file")
}
