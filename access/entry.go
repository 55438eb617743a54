package access

import "time"

// entry describes callers in the access file: those with this proof have this name and are
// in these groups. Exactly one of the four proofs is set.
type entry struct {
	// name is a template: {key} stands for a fact of the proof. Empty: the default of
	// the proof.
	name   string
	groups []string

	unix        *unixProof
	token       *tokenProof
	jwt         *jwtProof
	certificate *certificateProof
}

// unixProof is a process of this machine. All that is set must be so; nothing set:
// anybody but the overflow user. Facts for the template: user, uid.
type unixProof struct {
	user  string // name or number
	group string // name or number, the primary or a supplementary one
}

// tokenProof is who has a secret. Facts: none.
type tokenProof struct {
	hash    [32]byte  // SHA-256 of the token
	expires time.Time // zero: does not
}

// jwtProof is who has a token of an OIDC issuer. Facts: its claims.
type jwtProof struct {
	issuer   string
	audience string
	// algorithms are those that a signature may have; never empty.
	algorithms []string
	// claims must all be there; a * in a value stands for any text.
	claims map[string]string
}

// certificateProof is who has a certificate of the client CA. At most one is set; a * stands
// for any text. Facts: uri, dns, cn, and subject, which is the first of those that the
// certificate has.
type certificateProof struct {
	uri, dns, cn string
}
