package access

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/pylok/pylok/lock"
)

// Policy is an access file: who callers are, and what they may do. It never changes. The
// nil Policy is that there is no access file: everybody may do everything.
type Policy struct {
	entries []*entry
	rules   []rule
	tokens  map[[sha256.Size]byte]*entry
	rights  map[string]*rights // by a word of who
	digest  [sha256.Size]byte
}

// rule allows something.
type rule struct {
	who   []string
	may   []Verb
	locks []lock.Pattern
}

// everyListed is the word of who for every caller that an entry describes.
const everyListed = "*"

// groupPrefix is what a word of who begins with that is a group.
const groupPrefix = "group:"

// rights is what the rules allow to one word of who.
type rights struct {
	// locks are the patterns of what each verb is allowed for, implied ones included.
	locks [Admin + 1][]lock.Pattern
	admin bool
}

// implies returns the verbs that a verb allows, itself the first.
func (v Verb) implies() []Verb {
	if v == View || v == Admin {
		return []Verb{v}
	}
	return []Verb{v, View}
}

// newPolicy works out what the rules allow.
func newPolicy(entries []*entry, rules []rule) *Policy {
	p := &Policy{entries: entries, rules: rules, tokens: make(map[[sha256.Size]byte]*entry), rights: make(map[string]*rights)}
	for _, e := range entries {
		if e.token != nil {
			p.tokens[e.token.hash] = e
		}
	}
	for _, r := range rules {
		for _, who := range r.who {
			granted := p.rights[who]
			if granted == nil {
				granted = &rights{}
				p.rights[who] = granted
			}
			for _, verb := range r.may {
				granted.admin = granted.admin || verb == Admin
				for _, v := range verb.implies() {
					for _, pattern := range r.locks {
						granted.add(v, pattern)
					}
				}
			}
		}
	}
	p.digest = p.sum()
	return p
}

func (r *rights) add(v Verb, pattern lock.Pattern) {
	is := func(other lock.Pattern) bool { return other.String() == pattern.String() }
	if !slices.ContainsFunc(r.locks[v], is) {
		r.locks[v] = append(r.locks[v], pattern)
	}
}

// sum returns the digest of all that decides.
func (p *Policy) sum() (digest [sha256.Size]byte) {
	h := sha256.New()
	for _, e := range p.entries {
		fmt.Fprintf(h, "%q %q", e.name.text, e.groups)
		switch {
		case e.unix != nil:
			fmt.Fprintf(h, " unix %q\n", *e.unix)
		case e.token != nil:
			fmt.Fprintf(h, " token %x %d\n", e.token.hash, e.token.expires.UnixNano())
		case e.jwt != nil:
			fmt.Fprintf(h, " jwt %q\n", *e.jwt) // fmt sorts maps
		case e.certificate != nil:
			fmt.Fprintf(h, " certificate %q\n", *e.certificate)
		}
	}
	for _, r := range p.rules {
		fmt.Fprintf(h, "%q %d", r.who, r.may)
		for _, pattern := range r.locks {
			fmt.Fprintf(h, " %q", pattern.String())
		}
		fmt.Fprintln(h)
	}
	h.Sum(digest[:0])
	return digest
}

// Digest tells policies apart that do not say the same; that of the nil Policy is zero.
func (p *Policy) Digest() [sha256.Size]byte {
	if p == nil {
		return [sha256.Size]byte{}
	}
	return p.digest
}

// rightsOf calls f with the rights of each word of who that means the caller, until f
// reports true; it reports whether one did.
func (p *Policy) rightsOf(c lock.Caller, f func(*rights) bool) bool {
	if r := p.rights[c.Name]; r != nil && c.Name != "" && f(r) {
		return true
	}
	if c.Listed {
		if r := p.rights[everyListed]; r != nil && f(r) {
			return true
		}
	}
	for _, group := range c.Groups {
		if r := p.rights[groupPrefix+group]; r != nil && f(r) {
			return true
		}
	}
	return false
}

// Allows reports whether the rules allow the caller to do this to a lock.
func (p *Policy) Allows(c lock.Caller, v Verb, n lock.Name) bool {
	return p == nil || p.rightsOf(c, func(r *rights) bool { return r.allows(v, n) })
}

func (r *rights) allows(v Verb, n lock.Name) bool {
	for _, pattern := range r.locks[v] {
		if pattern.Match(n) {
			return true
		}
	}
	return false
}

// AllowsFreeze reports whether the rules allow the caller to freeze a lock and all below
// it: a rule that allows Freeze for **, or for P/** where P is the lock or what it is in.
func (p *Policy) AllowsFreeze(c lock.Caller, n lock.Name) bool {
	return p == nil || p.rightsOf(c, func(r *rights) bool {
		return slices.ContainsFunc(r.locks[Freeze], func(pattern lock.Pattern) bool {
			above, isTree := strings.CutSuffix(pattern.String(), "**")
			return isTree && !strings.Contains(above, "*") && strings.HasPrefix(n.String()+"/", above)
		})
	})
}

// AllowsAdmin reports whether the rules allow the caller what concerns the server.
func (p *Policy) AllowsAdmin(c lock.Caller) bool {
	return p == nil || p.rightsOf(c, func(r *rights) bool { return r.admin })
}

// Sees returns whether the caller may view a lock, by its name; nil: it may view all.
func (p *Policy) Sees(c lock.Caller) func(name string) bool {
	patterns, all := p.views(c)
	switch {
	case all:
		return nil
	case len(patterns) == 1:
		return patterns[0].MatchText
	}
	return func(name string) bool {
		for i := range patterns {
			if patterns[i].MatchText(name) {
				return true
			}
		}
		return false
	}
}

// views returns the patterns of what the caller may view, in order, without repeats, or
// that it may view all.
func (p *Policy) views(c lock.Caller) (patterns []lock.Pattern, all bool) {
	if p == nil {
		return nil, true
	}
	p.rightsOf(c, func(r *rights) bool {
		patterns = append(patterns, r.locks[View]...)
		return false
	})
	if slices.ContainsFunc(patterns, func(p lock.Pattern) bool { return p.String() == "**" || p.String() == "" }) {
		return nil, true
	}
	compare := func(a, b lock.Pattern) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(patterns, compare)
	return slices.CompactFunc(patterns, func(a, b lock.Pattern) bool { return compare(a, b) == 0 }), false
}

// SeesSame reports whether the caller c may view by p what the caller then may by other, as
// far as their rules say so in the same words.
func (p *Policy) SeesSame(c lock.Caller, other *Policy, then lock.Caller) bool {
	mine, all := p.views(c)
	theirs, allThen := other.views(then)
	return all == allThen && slices.EqualFunc(mine, theirs, func(a, b lock.Pattern) bool { return a.String() == b.String() })
}

// maxNamedGroups is how many groups a refusal names.
const maxNamedGroups = 8

// Denied returns the refusal of what the rules do not allow: an *lock.Error with
// ErrPermissionDenied that says who may, and nothing of the lock.
func (p *Policy) Denied(c lock.Caller, v Verb, n lock.Name) error {
	message := fmt.Sprintf("the access file does not let %s %s %s", describe(c), v, n)
	if v == Admin {
		message = fmt.Sprintf("the access file does not make %s an admin", describe(c))
	}
	if groups := p.groupsWith(v, n); len(groups) > 0 {
		message += "; who is in " + strings.Join(groups, ", ") + " may"
	}
	if c.Proof == "" {
		message += "; the call came without a proof of who asks, such as a token or the server's socket"
	}
	return &lock.Error{Reason: lock.ErrPermissionDenied, Message: message}
}

func describe(c lock.Caller) string {
	if c.Name == "" {
		return lock.Anonymous
	}
	return c.Name
}

// groupsWith returns the groups to which the rules allow this, sorted.
func (p *Policy) groupsWith(v Verb, n lock.Name) []string {
	if p == nil {
		return nil
	}
	var groups []string
	for who, r := range p.rights {
		group, isGroup := strings.CutPrefix(who, groupPrefix)
		if isGroup && (v == Admin && r.admin || v != Admin && r.allows(v, n)) {
			groups = append(groups, group)
		}
	}
	slices.Sort(groups)
	if more := len(groups) - maxNamedGroups; more > 0 {
		groups = append(groups[:maxNamedGroups], fmt.Sprintf("%d other groups", more))
	}
	return groups
}
