package access

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pylok/pylok/access/bearer"
	"github.com/pylok/pylok/lock"
)

// Identify returns who makes a call, from the Evidence in its context, by the present
// policy. A bearer token outranks what the connection says. Of the entries of the access
// file that fit, the first gives the name, and all of them give groups. A proof that is
// wrong or over is an *lock.Error with ErrUnauthenticated, never an anonymous caller.
func (c *Control) Identify(ctx context.Context) (lock.Caller, error) {
	return c.identifyBy(ctx, c.Policy())
}

// identifyBy is Identify by a policy.
func (c *Control) identifyBy(ctx context.Context, p *Policy) (lock.Caller, error) {
	e := EvidenceOf(ctx)
	if last := e.identified.Load(); last != nil && last.policy == p && !isOver(last.caller.ExpireTime) {
		return last.caller, nil
	}
	var caller lock.Caller
	var err error
	switch {
	case e.Problem != "":
		err = p.unauthenticated(e.Problem, nil)
	case e.Bearer != "":
		caller, err = c.identifyBearer(ctx, p, e)
	default:
		caller, err = p.identifyConnection(e)
	}
	if err != nil {
		return lock.Caller{}, err
	}
	e.identified.Store(&identified{p, caller})
	c.heard.note(caller.Name)
	return caller, nil
}

// present returns the present policy, and the caller of a call as that policy knows it:
// the groups that a policy gives say nothing under the rules of another, and the file may
// have been read again since the call began. A caller whom Identify has not made is
// returned as it is.
func (c *Control) present(ctx context.Context, caller lock.Caller) (*Policy, lock.Caller, error) {
	p := c.Policy()
	switch last := EvidenceOf(ctx).identified.Load(); {
	case last == nil:
		return p, caller, nil
	case last.policy == p:
		return p, last.caller, nil
	}
	caller, err := c.identifyBy(ctx, p)
	return p, caller, err
}

func isOver(end time.Time) bool { return !end.IsZero() && !time.Now().Before(end) }

// identifyConnection returns who is at the other end of a connection.
func (p *Policy) identifyConnection(e *Evidence) (lock.Caller, error) {
	switch {
	case e.Socket != nil && e.Socket.UID != overflowUID():
		return p.identifySocket(e)
	case len(e.Certificates) > 0:
		return p.identifyCertificate(e)
	}
	caller := lock.Caller{Peer: e.Peer}
	if p != nil {
		caller.Name = lock.Anonymous
	}
	return caller, nil
}

// caller makes the caller of a proof.
func (p *Policy) caller(e *Evidence, word, proof string, fits func(*entry) bool, facts func(string) (string, bool)) (lock.Caller, error) {
	caller := lock.Caller{Proof: proof, Peer: e.Peer}
	var name template
	if p != nil {
		for _, entry := range p.entries {
			if entry.proofWord() != word || !fits(entry) {
				continue
			}
			if !caller.Listed {
				name, caller.Listed = entry.name, true
			}
			caller.Groups = append(caller.Groups, entry.groups...)
		}
	}
	slices.Sort(caller.Groups)
	caller.Groups = slices.Compact(caller.Groups)
	if !caller.Listed {
		var err error
		if name, err = parseTemplate("", word, nil); err != nil {
			return lock.Caller{}, err
		}
	}
	var err error
	if caller.Name, err = name.fill(facts); err != nil {
		return lock.Caller{}, p.unauthenticated(err.Error(), err)
	}
	return caller, nil
}

// identifySocket returns who connected to a Unix socket.
func (p *Policy) identifySocket(e *Evidence) (lock.Caller, error) {
	uid := strconv.FormatUint(uint64(e.Socket.UID), 10)
	name := uid
	if u, err := user.LookupId(uid); err == nil && !isNumber(u.Username) {
		name = u.Username
	}
	var groups []string // names and numbers; looked up when an entry asks
	groupsOf := func() []string {
		if groups == nil {
			groups = []string{}
			for _, gid := range append([]uint32{e.Socket.GID}, e.Socket.Groups...) {
				if gid == overflowGID() {
					continue // it may be any group
				}
				number := strconv.FormatUint(uint64(gid), 10)
				groups = append(groups, number)
				if g, err := user.LookupGroupId(number); err == nil && !isNumber(g.Name) {
					groups = append(groups, g.Name)
				}
			}
		}
		return groups
	}
	fits := func(entry *entry) bool {
		u := entry.unix
		return (u.user == "" || u.user == name || u.user == uid) && (u.group == "" || slices.Contains(groupsOf(), u.group))
	}
	return p.caller(e, unixWord, "socket", fits, func(fact string) (string, bool) {
		value, ok := map[string]string{"user": name, "uid": uid}[fact]
		return value, ok
	})
}

// isNumber reports whether a name looks like a number, which stands for itself.
func isNumber(name string) bool {
	return strings.Trim(name, "0123456789") == ""
}

// identifyCertificate returns whom a client certificate names: by its first URI, such as a
// SPIFFE ID, else by its first DNS name, else by its common name.
func (p *Policy) identifyCertificate(e *Evidence) (lock.Caller, error) {
	leaf := e.Certificates[0]
	end := leaf.NotAfter
	for _, certificate := range e.Certificates {
		if certificate.NotAfter.Before(end) {
			end = certificate.NotAfter
		}
	}
	if isOver(end) {
		return lock.Caller{}, p.unauthenticated(fmt.Sprintf("the client certificate was valid until %s; connect with a new one", end.UTC().Format(time.RFC3339)), nil)
	}
	facts := certificateFacts(leaf)
	fits := func(entry *entry) bool {
		c := entry.certificate
		return (c.uri == "" || like(c.uri, facts["uri"])) && (c.dns == "" || like(c.dns, facts["dns"])) && (c.cn == "" || like(c.cn, facts["cn"]))
	}
	caller, err := p.caller(e, certificateWord, "certificate", fits, func(fact string) (string, bool) {
		value, ok := facts[fact]
		return value, ok
	})
	caller.ExpireTime = end
	return caller, err
}

// certificateFacts are what a certificate says of whose it is.
func certificateFacts(leaf *x509.Certificate) map[string]string {
	facts := map[string]string{"cn": leaf.Subject.CommonName}
	if !strings.Contains(leaf.Subject.CommonName, "://") { // else it would pass for a URI, which a CA looks at more closely
		facts["subject"] = leaf.Subject.CommonName
	}
	if len(leaf.DNSNames) > 0 {
		facts["dns"], facts["subject"] = leaf.DNSNames[0], leaf.DNSNames[0]
	}
	if len(leaf.URIs) > 0 {
		facts["uri"], facts["subject"] = leaf.URIs[0].String(), leaf.URIs[0].String()
	}
	return facts
}

// identifyBearer returns who has a bearer token.
func (c *Control) identifyBearer(ctx context.Context, p *Policy, e *Evidence) (lock.Caller, error) {
	if !strings.HasPrefix(e.Bearer, bearer.Prefix) {
		return c.identifyJWT(ctx, p, e)
	}
	var found *entry
	if p != nil {
		found = p.tokens[sha256.Sum256([]byte(e.Bearer))] // who can time this learns of hashes
	}
	switch {
	case found == nil:
		return lock.Caller{}, p.unauthenticated("the bearer token is not one of this server's", nil)
	case isOver(found.token.expires):
		return lock.Caller{}, p.unauthenticated(fmt.Sprintf("the bearer token of %s was valid until %s; get a new one", found.name.text, found.token.expires.UTC().Format(time.RFC3339)), nil)
	}
	return lock.Caller{
		Name:       found.name.text,
		Proof:      "token",
		Groups:     found.groups,
		Listed:     true,
		Peer:       e.Peer,
		ExpireTime: found.token.expires,
	}, nil
}

// unauthenticated refuses a proof, and says which there are.
func (p *Policy) unauthenticated(message string, cause error) error {
	return &lock.Error{
		Reason:  lock.ErrUnauthenticated,
		Message: message + ". This server takes " + p.proofs(),
		Err:     cause,
	}
}

// proofs says which proofs callers may have.
func (p *Policy) proofs() string {
	proofs := []string{"a connection to its socket"}
	if p == nil {
		return proofs[0] + ", or a certificate of its client CA; it has no access file with tokens"
	}
	add := func(proof string) {
		if !slices.Contains(proofs, proof) {
			proofs = append(proofs, proof)
		}
	}
	for _, e := range p.entries {
		switch {
		case e.token != nil:
			add("a token of its access file")
		case e.jwt != nil:
			add("a token of " + e.jwt.issuer + " for " + e.jwt.audience)
		case e.certificate != nil:
			add("a certificate of its client CA")
		}
	}
	return strings.Join(proofs, ", ")
}
