package access

import (
	"context"
	"crypto/x509"
	"strings"
	"sync/atomic"

	"github.com/pylok/pylok/lock"
)

// Evidence is what a door knows of who calls: one for all calls of a connection that have
// no bearer token, and one of its own for each that has. It is not changed once it is in
// use. What it says of the transport has been checked by the kernel or by TLS; the bearer
// token has not.
type Evidence struct {
	// Socket is who connected to a Unix socket, as the kernel says; nil: another kind of
	// connection.
	Socket *Credentials
	// Certificates are the client's, the leaf first, verified against the client CA;
	// empty: it showed none.
	Certificates []*x509.Certificate
	// Bearer is the token of the call's authorization; empty: none was sent.
	Bearer string
	// Problem is what is wrong with the call's authorization; empty: nothing. Who has sent
	// one that cannot be read is refused, and is not whom the connection shows.
	Problem string
	// Peer is the client's address: an IP address without a port, or the socket's path.
	Peer string

	identified atomic.Pointer[identified] // what was made of it last
}

// Authorized returns the Evidence of a call on a connection, which e is of: e itself if the
// call has no authorization, else another one that has its token, or why there is none.
// Values are all of the call's values of authorization.
func (e *Evidence) Authorized(values []string) *Evidence {
	if len(values) == 0 {
		return e
	}
	call := &Evidence{Peer: e.Peer}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	switch {
	case len(values) > 1:
		call.Problem = "the call has more than one authorization; send one"
	case !strings.EqualFold(scheme, "bearer"):
		call.Problem = "the authorization of the call is no bearer token; send that, or none"
	case token == "":
		call.Problem = "the bearer token is empty"
	default:
		call.Bearer = token
	}
	return call
}

// identified is the caller that a policy made of an Evidence.
type identified struct {
	policy *Policy
	caller lock.Caller
}

// Credentials are those of a process at the other end of a Unix socket (SO_PEERCRED and
// SO_PEERGROUPS, unix(7)), as of the moment it connected. The process itself is left
// out: its number may be another's by now.
type Credentials struct {
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
}

type evidenceKey struct{}

// WithEvidence returns a context that carries what a door knows of who calls.
func WithEvidence(ctx context.Context, e *Evidence) context.Context {
	return context.WithValue(ctx, evidenceKey{}, e)
}

// EvidenceOf returns the Evidence that a context carries; of another context, an empty
// one.
func EvidenceOf(ctx context.Context) *Evidence {
	if e, ok := ctx.Value(evidenceKey{}).(*Evidence); ok {
		return e
	}
	return &Evidence{}
}
