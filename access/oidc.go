package access

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/time/rate"

	"github.com/pylok/pylok/lock"
)

const (
	// maxJWTBytes is how long a token may be.
	maxJWTBytes = 16 << 10
	// issuerTimeout is how long an issuer may take to answer.
	issuerTimeout = 5 * time.Second
	// fetchInterval and fetchBurst limit how often an issuer is asked for what it is and
	// for its keys: whoever makes up a token with an unknown key has them asked for.
	fetchInterval = 5 * time.Second
	fetchBurst    = 4
	// verifiedFor is how long a token that was found good is so without another look, and
	// so how long one counts whose key its issuer has withdrawn.
	verifiedFor = 5 * time.Minute
	// maxVerified is how many tokens are remembered.
	maxVerified = 4096
)

// jwts verifies the tokens of OIDC issuers, and remembers those that were good. Its zero
// value is ready to use.
type jwts struct {
	mu       sync.Mutex
	issuers  map[string]*issuer
	verified map[[sha256.Size]byte]verifiedJWT // by the SHA-256 of the token
}

// verifiedJWT is what came of a token.
type verifiedJWT struct {
	policy *Policy
	caller lock.Caller // without its Peer
	until  time.Time
}

// issuer fetches the keys of an issuer, when they are first needed, and again when a token
// has a key that is not among them.
type issuer struct {
	client *http.Client
	turn   chan struct{} // has an element while the provider is looked up

	provider *oidc.Provider // nil: not yet known; whoever has the turn may use it
}

// identifyJWT returns who has a token of an OIDC issuer. What does not fit an entry of the
// access file by what it says itself is refused before anybody is asked for a key.
func (c *Control) identifyJWT(ctx context.Context, p *Policy, e *Evidence) (lock.Caller, error) {
	refused := func(message string, cause error) (lock.Caller, error) {
		return lock.Caller{}, p.unauthenticated(message, cause)
	}
	hash := sha256.Sum256([]byte(e.Bearer))
	if caller, ok := c.jwts.look(hash, p); ok {
		caller.Peer = e.Peer
		return caller, nil
	}
	token, err := parseJWT(e.Bearer)
	if err != nil || p == nil {
		return refused("the bearer token is not one of this server's", err)
	}
	ofIssuer, fits := token.fits(p)
	if len(fits) == 0 {
		return refused(token.misfit(ofIssuer), nil)
	}
	var algorithms []string
	for _, entry := range fits {
		algorithms = append(algorithms, entry.jwt.algorithms...)
	}
	verified, err := c.jwts.issuer(token.issuer).verify(ctx, token.issuer, e.Bearer, &oidc.Config{
		SkipClientIDCheck:    true, // fits has looked, for each entry
		SupportedSigningAlgs: algorithms,
	})
	expired, isExpired := errors.AsType[*oidc.TokenExpiredError](err)
	switch {
	case isExpired:
		return refused(fmt.Sprintf("the bearer token was valid until %s; get a new one", expired.Expiry.UTC().Format(time.RFC3339)), err)
	case errors.Is(err, errKeys):
		return refused(fmt.Sprintf("the bearer token cannot be checked, for %s does not give its keys now; try again in a moment", token.issuer), err)
	case err != nil:
		return refused("the bearer token is not good: its signature or its times are wrong", err)
	}
	caller, err := p.caller(e, oidcWord, "oidc", func(entry *entry) bool { return slices.Contains(fits, entry) }, token.fact)
	if err != nil {
		return lock.Caller{}, err
	}
	caller.ExpireTime = verified.Expiry
	c.jwts.remember(hash, p, caller)
	return caller, nil
}

// look returns the caller of a token that was good for the same policy a moment ago.
func (j *jwts) look(hash [sha256.Size]byte, p *Policy) (lock.Caller, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	v, ok := j.verified[hash]
	if !ok || v.policy != p || isOver(v.until) || isOver(v.caller.ExpireTime) {
		return lock.Caller{}, false
	}
	return v.caller, true
}

func (j *jwts) remember(hash [sha256.Size]byte, p *Policy, caller lock.Caller) {
	caller.Peer = ""
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.verified == nil {
		j.verified = make(map[[sha256.Size]byte]verifiedJWT)
	}
	if len(j.verified) >= maxVerified {
		for hash, v := range j.verified {
			if v.policy != p || isOver(v.until) || isOver(v.caller.ExpireTime) {
				delete(j.verified, hash)
			}
		}
	}
	if len(j.verified) >= maxVerified {
		for hash := range j.verified { // any: it is looked at again when it comes
			delete(j.verified, hash)
			break
		}
	}
	j.verified[hash] = verifiedJWT{p, caller, time.Now().Add(verifiedFor)}
}

// issuer returns the issuer with a URL, which is one of the access file's.
func (j *jwts) issuer(url string) *issuer {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.issuers == nil {
		j.issuers = make(map[string]*issuer)
	}
	if j.issuers[url] == nil {
		j.issuers[url] = &issuer{
			turn: make(chan struct{}, 1),
			client: &http.Client{
				Timeout:   issuerTimeout,
				Transport: &limitedTransport{rate.NewLimiter(rate.Every(fetchInterval), fetchBurst)},
			},
		}
	}
	return j.issuers[url]
}

// errKeys: the keys of an issuer could not be had.
var errKeys = errors.New("the issuer does not answer")

// limitedTransport asks no more often than its limit allows.
type limitedTransport struct{ limit *rate.Limiter }

// RoundTrip implements http.RoundTripper.
func (t *limitedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if badIssuer(request.URL.Scheme+"://"+request.URL.Host) != "" {
		return nil, fmt.Errorf("%w by https: it names %s", errKeys, request.URL.Host)
	}
	if !t.limit.Allow() {
		return nil, fmt.Errorf("%w so often", errKeys)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKeys, err)
	}
	if response.StatusCode >= 500 {
		response.Body.Close()
		return nil, fmt.Errorf("%w but with %s", errKeys, response.Status)
	}
	return response, nil
}

// verify checks a token's signature, issuer and times.
func (i *issuer) verify(ctx context.Context, url, token string, config *oidc.Config) (*oidc.IDToken, error) {
	provider, err := i.find(ctx, url)
	if err != nil {
		return nil, err
	}
	return provider.Verifier(config).Verify(ctx, token)
}

// find returns the provider, which it asks for what it is the first time.
func (i *issuer) find(ctx context.Context, url string) (*oidc.Provider, error) {
	select {
	case i.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w in time: %w", errKeys, ctx.Err())
	}
	defer func() { <-i.turn }()
	if i.provider != nil {
		return i.provider, nil
	}
	// Who leaves must not take from the others what was asked for: it ends by the timeout
	// of client.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), i.client), url)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKeys, err)
	}
	i.provider = provider
	return provider, nil
}

// jwt is what a token says of itself.
type jwt struct {
	issuer    string
	audience  []string
	algorithm string
	claims    map[string]any // as JSON, numbers as json.Number
}

// parseJWT reads a token without a look at its signature.
func parseJWT(text string) (*jwt, error) {
	parts := strings.Split(text, ".")
	if len(text) > maxJWTBytes || len(parts) != 3 {
		return nil, errors.New("it is no JWT")
	}
	read := func(part string, into any) error {
		plain, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return err
		}
		decoder := json.NewDecoder(strings.NewReader(string(plain)))
		decoder.UseNumber()
		return decoder.Decode(into)
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	t := &jwt{}
	if err := errors.Join(read(parts[0], &header), read(parts[1], &t.claims)); err != nil {
		return nil, err
	}
	t.algorithm = header.Algorithm
	t.issuer, _ = t.claims["iss"].(string)
	t.audience = texts(t.claims["aud"])
	return t, nil
}

// texts returns the texts that a claim stands for: its own, or those of its elements.
func texts(claim any) []string {
	switch claim := claim.(type) {
	case string:
		return []string{claim}
	case json.Number:
		return []string{claim.String()}
	case bool:
		return []string{strconv.FormatBool(claim)}
	case []any:
		var all []string
		for _, element := range claim {
			if _, nested := element.([]any); !nested {
				all = append(all, texts(element)...)
			}
		}
		return all
	}
	return nil
}

// fits returns the entries of the token's issuer, and those of them that it fits, if it is
// genuine.
func (t *jwt) fits(p *Policy) (ofIssuer, fits []*entry) {
	for _, entry := range p.entries {
		if entry.jwt == nil || entry.jwt.issuer != t.issuer {
			continue
		}
		ofIssuer = append(ofIssuer, entry)
		if t.fitsOne(entry.jwt) {
			fits = append(fits, entry)
		}
	}
	return ofIssuer, fits
}

func (t *jwt) fitsOne(proof *jwtProof) bool {
	if !slices.Contains(t.audience, proof.audience) || !slices.Contains(proof.algorithms, t.algorithm) {
		return false
	}
	for key, pattern := range proof.claims {
		if !slices.ContainsFunc(texts(t.claims[key]), func(text string) bool { return like(pattern, text) }) {
			return false
		}
	}
	return true
}

// misfit says why no entry fits, as far as it is the caller's business: what claims an
// entry asks for is not.
func (t *jwt) misfit(ofIssuer []*entry) string {
	if len(ofIssuer) == 0 {
		return "the bearer token is not one of this server's, nor of an issuer that its access file names"
	}
	if !slices.ContainsFunc(ofIssuer, func(e *entry) bool { return slices.Contains(t.audience, e.jwt.audience) }) {
		return "the bearer token is for another audience"
	}
	return "the bearer token is for this server, but no entry of its access file fits its claims and how it is signed"
}

// fact returns a claim for the caller's name.
func (t *jwt) fact(claim string) (string, bool) {
	if all, isList := t.claims[claim].([]any); isList && len(all) != 1 {
		return "", false
	}
	values := texts(t.claims[claim])
	if len(values) != 1 {
		return "", false
	}
	return values[0], true
}
