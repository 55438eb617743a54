// Package testissuer is a real OIDC issuer for tests: discovery, keys that can be
// replaced, and signed tokens with the claims that a test chooses. It also answers as
// GitHub does in a job.
package testissuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Issuer signs tokens until the end of its test.
type Issuer struct {
	// URL is the issuer of its tokens, on this machine and without TLS.
	URL string
	// Life is how long its tokens count unless their claims say otherwise: 5 minutes.
	Life time.Duration

	t testing.TB

	mu         sync.Mutex
	key        *ecdsa.PrivateKey
	generation int // of key
	published  []map[string]string
	keyFetches int

	job       map[string]any // the claims of GitHub's tokens; nil: no job
	jobTokens int
}

// New returns a new issuer.
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{Life: 5 * time.Minute, t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.discover)
	mux.HandleFunc("GET /keys", i.keys)
	mux.HandleFunc("GET /job/token", i.jobToken)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.URL = server.URL
	i.Rotate()
	return i
}

// Rotate signs with a new key from now on, and publishes no other.
func (i *Issuer) Rotate() {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatalf("making a key: %v", err)
	}
	public, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		i.t.Fatalf("making a key: %v", err)
	}
	i.key = key
	i.generation++
	i.published = []map[string]string{{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": i.kid(),
		"x": encode(public[1:33]), "y": encode(public[33:]),
	}}
}

func (i *Issuer) kid() string { return fmt.Sprint("key-", i.generation) }

// KeyFetches returns how often the keys have been asked for.
func (i *Issuer) KeyFetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keyFetches
}

// Token returns a token with these claims, and with iss, iat and exp where they are not
// among them.
func (i *Issuer) Token(claims map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sign(claims)
}

// sign makes a token. The caller must hold mu.
func (i *Issuer) sign(claims map[string]any) string {
	now := time.Now()
	all := map[string]any{"iss": i.URL, "sub": "test", "iat": now.Unix(), "exp": now.Add(i.Life).Unix()}
	maps.Copy(all, claims)
	header, err := json.Marshal(map[string]string{"alg": "ES256", "typ": "JWT", "kid": i.kid()})
	if err != nil {
		i.t.Errorf("signing a token: %v", err)
	}
	payload, err := json.Marshal(all)
	if err != nil {
		i.t.Errorf("signing a token: %v", err)
	}
	text := encode(header) + "." + encode(payload)
	hash := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, hash[:])
	if err != nil {
		i.t.Errorf("signing a token: %v", err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature)
}

// Job has the issuer answer the tokens of a GitHub job with these claims, and returns the
// variables of such a job. The audience is what is asked for.
func (i *Issuer) Job(claims map[string]any) map[string]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.job = claims
	return map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_URL":   i.URL + "/job/token?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": requestToken,
	}
}

// JobTokens returns how many tokens the job has asked for.
func (i *Issuer) JobTokens() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.jobTokens
}

const requestToken = "the-secret-of-the-job"

func (i *Issuer) discover(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"issuer":                                i.URL,
		"jwks_uri":                              i.URL + "/keys",
		"authorization_endpoint":                i.URL + "/authorize",
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	})
}

func (i *Issuer) keys(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keyFetches++
	answer(w, map[string]any{"keys": i.published})
}

func (i *Issuer) jobToken(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	audience := r.URL.Query().Get("audience")
	if i.job == nil || audience == "" || r.Header.Get("Authorization") != "Bearer "+requestToken {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	i.jobTokens++
	claims := maps.Clone(i.job)
	claims["aud"] = audience
	answer(w, map[string]any{"value": i.sign(claims)})
}

func answer(w http.ResponseWriter, document map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(document)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
