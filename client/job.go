package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// What the environment of a CI job has for who wants an OIDC token of the job.
const (
	idTokenVariable      = "PYLOK_ID_TOKEN" // GitLab: id_tokens in .gitlab-ci.yml sets it
	requestURLVariable   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	requestTokenVariable = "ACTIONS_ID_TOKEN_REQUEST_TOKEN" // GitHub: of jobs with permissions: id-token: write
)

// JobToken is the OIDC token of the CI job that this process runs in, and false where
// there is none to be had. In a GitHub job, which has ACTIONS_ID_TOKEN_REQUEST_URL, it is
// fetched for an audience, and anew before it ends. PYLOK_ID_TOKEN, as id_tokens of GitLab
// set it, has its audience already and goes first. The audience should be one that no
// other service takes, such as the server's host: a server that gets the token can show it
// to all who take that audience.
func JobToken(audience string) (BearerSource, bool) {
	if token := strings.TrimSpace(os.Getenv(idTokenVariable)); token != "" {
		return func(context.Context) (Bearer, error) {
			if err := checkBearer(token); err != nil {
				return Bearer{}, fmt.Errorf("%s: %w", idTokenVariable, err)
			}
			return Bearer{Token: token}, nil
		}, true
	}
	g := &githubJob{
		url:      os.Getenv(requestURLVariable),
		token:    os.Getenv(requestTokenVariable),
		audience: audience,
	}
	return g.bearer, g.url != "" && g.token != ""
}

// githubJob asks GitHub for the OIDC tokens of a job.
type githubJob struct {
	url      string
	token    string // a secret, too: it lets its bearer ask for the tokens of this job
	audience string
}

const (
	fetchAttempts = 3
	fetchTimeout  = 5 * time.Second // of one attempt
	fetchPause    = 500 * time.Millisecond
)

// bearer implements BearerSource.
func (g *githubJob) bearer(ctx context.Context) (Bearer, error) {
	for attempt := 1; ; attempt++ {
		fetched, again, err := g.fetch(ctx)
		if err == nil {
			return fetched, nil
		}
		if !again || attempt == fetchAttempts || !sleep(ctx, fetchPause) {
			return Bearer{}, fmt.Errorf("no OIDC token of this GitHub job for the audience %q: %w", g.audience, err)
		}
	}
}

// fetch asks once, and says whether it may help to ask again.
func (g *githubJob) fetch(ctx context.Context) (fetched Bearer, again bool, err error) {
	address, err := url.Parse(g.url)
	if err != nil || address.Host == "" || address.Scheme != "https" && !(address.Scheme == "http" && isLoopback(address.Hostname())) {
		return Bearer{}, false, fmt.Errorf("%s is not the address of an HTTPS server", requestURLVariable)
	}
	query := address.Query()
	query.Set("audience", g.audience)
	address.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return Bearer{}, false, fmt.Errorf("%s cannot be asked", requestURLVariable)
	}
	request.Header.Set("Authorization", "Bearer "+g.token)
	request.Header.Set("Accept", "application/json")
	requested := time.Now()
	response, err := jobClient.Do(request)
	if failure, ok := errors.AsType[*url.Error](err); ok {
		err = failure.Err // the rest is the address in full
	}
	if err != nil {
		return Bearer{}, true, fmt.Errorf("asking %s: %w", address.Host, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Bearer{}, response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests,
			fmt.Errorf("%s answers %s", address.Host, response.Status)
	}
	var answer struct {
		Value string `json:"value"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&answer); err != nil || answer.Value == "" {
		return Bearer{}, true, fmt.Errorf("%s answers without a token", address.Host)
	}
	life, err := lifeOf(answer.Value)
	if err != nil {
		return Bearer{}, false, fmt.Errorf("%s answers with a token that is none: %w", address.Host, err)
	}
	return Bearer{Token: answer.Value, ExpireTime: requested.Add(life)}, false, nil
}

// jobClient follows no redirections: the request has a secret.
var jobClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// lifeOf returns how long a JWT that was issued just now counts, which is right also where
// the clocks here and there differ. Its signature is for the server to check.
func lifeOf(token string) (time.Duration, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0, errors.New("it has not three parts")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0, errors.New("its claims are not in base64")
	}
	var claims struct {
		ExpireTime float64 `json:"exp"`
		IssueTime  float64 `json:"iat"`
	}
	if json.Unmarshal(text, &claims) != nil {
		return 0, errors.New("its claims are not JSON")
	}
	life := claims.ExpireTime - claims.IssueTime
	if claims.IssueTime == 0 { // it need not be there
		life = claims.ExpireTime - float64(time.Now().Unix())
	}
	if life <= 0 || life > 366*24*3600 {
		return 0, errors.New("its claims say nothing usable of its end")
	}
	return time.Duration(life * float64(time.Second)), nil
}
