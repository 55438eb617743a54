package access

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// A public issuer signs tokens for whoever has an account there, for any audience that is
// asked for. So an entry must say whose tokens it means, by claims that the issuer fills
// and that stay the same.

// publicIssuer is what is known of one.
type publicIssuer struct {
	is func(host string) bool
	// owners are the claims of which one must be matched: whose job it is.
	owners []string
	// noSubject says why sub is not to be matched; empty: it may be.
	noSubject string
}

var publicIssuers = []publicIssuer{
	{
		is: func(host string) bool {
			return host == "token.actions.githubusercontent.com" || strings.HasPrefix(host, "token.actions.") && strings.HasSuffix(host, ".ghe.com")
		},
		owners:    []string{"repository_id", "repository_owner_id", "repository", "repository_owner", "enterprise_id", "enterprise"},
		noSubject: "the form of sub differs between repositories of GitHub, by when they were made or renamed; match repository_id, repository_owner_id, environment, ref or job_workflow_ref",
	},
	{
		is:     func(host string) bool { return host == "gitlab.com" },
		owners: []string{"project_id", "namespace_id", "project_path", "namespace_path"},
	},
}

// checkClaims finds claims that let in others than those who are meant.
func (p *parser) checkClaims(n, claims *yaml.Node, proof *jwtProof) {
	for _, key := range slices.Sorted(maps.Keys(proof.claims)) {
		if strings.HasSuffix(key, "_id") && strings.Contains(proof.claims[key], "*") {
			p.fail(claims, "%s has a *; a part of a number says nothing of whose it is", key)
		}
	}
	u, err := url.Parse(proof.issuer)
	if err != nil {
		return // said before
	}
	i := slices.IndexFunc(publicIssuers, func(known publicIssuer) bool { return known.is(strings.ToLower(u.Hostname())) })
	if i < 0 {
		return
	}
	known := publicIssuers[i]
	if _, matched := proof.claims["sub"]; matched && known.noSubject != "" {
		p.fail(claims, "%s", known.noSubject)
	}
	if !slices.ContainsFunc(known.owners, func(claim string) bool { return isWhose(proof.claims[claim]) }) {
		p.fail(n, "%s signs tokens for whoever has an account there: match one of the claims %s, without a * before its first slash", proof.issuer, strings.Join(known.owners, ", "))
	}
}

// isWhose reports whether the value of a claim says whose the job is: the owner, before
// the first slash, is without a star.
func isWhose(value string) bool {
	owner, _, _ := strings.Cut(value, "/")
	return owner != "" && !strings.Contains(owner, "*")
}
