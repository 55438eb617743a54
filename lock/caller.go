package lock

import (
	"slices"
	"strings"
	"time"
)

// Anonymous is the name of a caller who proved nothing, where callers are told apart by an
// access file.
const Anonymous = "anonymous"

// Caller is who asks, as far as the door that the request came through knows. The zero
// Caller is nobody known: no rules tell callers apart, and what a request says of its
// holder counts.
type Caller struct {
	// Name is the authenticated name, such as unix:alice: it carries its proof, and equal
	// names are the same caller. Anonymous: proved nothing, and rules say what such a
	// one may do. Empty: likewise, without rules.
	Name string
	// Proof is how the name was proved, in a word for people: socket, token, oidc,
	// certificate; empty: not at all.
	Proof string
	// Groups are those that the access file puts the caller in, sorted.
	Groups []string
	// Listed reports whether an entry of the access file describes the caller; the * of
	// its rules means those.
	Listed bool
	// Peer is where the call comes from, for logs and for counting the anonymous by
	// address: an IP address, or the path of a socket; empty: not known.
	Peer string
	// ExpireTime is when the proof ends; zero: it does not end while its connection
	// stands.
	ExpireTime time.Time
}

// Owner is whose the holds are that the caller takes: its name, or empty for who is not
// told apart from others. A hold with an owner is that caller's alone.
func (c Caller) Owner() string {
	if c.Name == Anonymous {
		return ""
	}
	return c.Name
}

// Actor returns who made a change, for its event: the caller, else the holder that the
// request names, as Claimed has it.
func (c Caller) Actor(holder string) string {
	if c.Name != "" {
		return c.Name
	}
	return Claimed(holder)
}

// proofs begin the names of callers that are proved, whatever an access file says.
var proofs = []string{"unix:", "cert:", "token:", "oidc:"}

// Claimed returns what an event calls somebody of whom only a holder is known, which anybody
// may have written: the holder, or Anonymous where that would pass for a proved name.
func Claimed(holder string) string {
	for _, proof := range proofs {
		if len(holder) > len(proof) && strings.EqualFold(holder[:len(proof)], proof) {
			return Anonymous
		}
	}
	return holder
}

// In reports whether the caller is in a group.
func (c Caller) In(group string) bool {
	_, found := slices.BinarySearch(c.Groups, group)
	return found
}
