package access

import (
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/pylok/pylok/lock"
)

// Policy is an access file: who callers are, and what they may do. It never changes. The
// nil Policy is that there is no access file: everybody may do everything.
type Policy struct {
	entries []*entry
	rules   []rule
	tokens  map[[sha256.Size]byte]*entry
	digest  [sha256.Size]byte

	// What the rules allow, by their words of who: callers' names, groups, and *.
	named  map[string]*rights
	groups map[string]*rights
	listed *rights

	filters sync.Map // of *lock.Filter, by the rights that they are of
}

// newPolicy works out what the rules allow.
func newPolicy(entries []*entry, rules []rule) *Policy {
	p := &Policy{
		entries: entries,
		rules:   rules,
		tokens:  make(map[[sha256.Size]byte]*entry),
		named:   make(map[string]*rights),
		groups:  make(map[string]*rights),
		listed:  &rights{},
	}
	for _, e := range entries {
		if e.token != nil {
			p.tokens[e.token.hash] = e
		}
	}
	for _, r := range rules {
		for _, who := range r.who {
			p.rightsFor(who).add(r)
		}
	}
	p.digest = p.sum()
	return p
}

// rightsFor returns the rights of a word of who, which it makes if there are none.
func (p *Policy) rightsFor(who string) *rights {
	if who == everyListed {
		return p.listed
	}
	by, key := p.named, who
	if group, isGroup := strings.CutPrefix(who, groupPrefix); isGroup {
		by, key = p.groups, group
	}
	if by[key] == nil {
		by[key] = &rights{}
	}
	return by[key]
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
	lines := make([]string, len(p.rules)) // their order means nothing
	for i, r := range p.rules {
		who, may, locks := slices.Sorted(slices.Values(r.who)), slices.Sorted(slices.Values(r.may)), sortedTexts(r.locks)
		lines[i] = fmt.Sprintf("%q %d %q\n", who, may, locks)
	}
	slices.Sort(lines)
	for _, line := range lines {
		io.WriteString(h, line)
	}
	h.Sum(digest[:0])
	return digest
}

func sortedTexts(patterns []lock.Pattern) []string {
	texts := make([]string, len(patterns))
	for i, p := range patterns {
		texts[i] = p.String()
	}
	slices.Sort(texts)
	return texts
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
	if r := p.named[c.Name]; r != nil && f(r) {
		return true
	}
	if c.Listed && f(p.listed) {
		return true
	}
	for _, group := range c.Groups {
		if r := p.groups[group]; r != nil && f(r) {
			return true
		}
	}
	return false
}

// Allows reports whether the rules allow the caller to do this to a lock. For Admin the
// name does not count.
func (p *Policy) Allows(c lock.Caller, v Verb, n lock.Name) bool {
	if p == nil {
		return true
	}
	name := judged(n.String())
	return p.rightsOf(c, func(r *rights) bool { return r.allow(v, name) })
}

// AllowsFreeze reports whether the rules allow the caller to freeze a lock and all below
// it: a rule that allows Freeze for **, or for P/** where P is the lock or what it is in.
func (p *Policy) AllowsFreeze(c lock.Caller, n lock.Name) bool {
	if p == nil {
		return true
	}
	name := judged(n.String())
	return p.rightsOf(c, func(r *rights) bool { return r.locks[Freeze].matchTree(name) })
}

// AllowsAdmin reports whether the rules allow the caller what concerns the server.
func (p *Policy) AllowsAdmin(c lock.Caller) bool {
	return p.Allows(c, Admin, lock.Name{})
}

// Sees returns the filter for the names of locks that the caller may view; nil: it may view
// all. Callers with the same rights have the same filter.
func (p *Policy) Sees(c lock.Caller) *lock.Filter {
	views, all := p.views(c)
	if all {
		return nil
	}
	var key strings.Builder
	for _, patterns := range views {
		fmt.Fprintf(&key, "%p ", patterns)
	}
	if filter, ok := p.filters.Load(key.String()); ok {
		return filter.(*lock.Filter)
	}
	filter := lock.NewFilter(func(name string) bool {
		name = judged(name)
		for _, patterns := range views {
			if patterns.match(name) {
				return true
			}
		}
		return false
	})
	kept, _ := p.filters.LoadOrStore(key.String(), filter)
	return kept.(*lock.Filter)
}

// views returns what the caller may view, or that it may view all.
func (p *Policy) views(c lock.Caller) (views []*patterns, all bool) {
	if p == nil {
		return nil, true
	}
	all = p.rightsOf(c, func(r *rights) bool {
		views = append(views, &r.locks[View])
		return r.locks[View].all
	})
	return views, all
}

// SeesSame reports whether the caller c may view by p what the caller then may by other, as
// far as their rules say so in the same words.
func (p *Policy) SeesSame(c lock.Caller, other *Policy, then lock.Caller) bool {
	mine, all := p.views(c)
	theirs, allThen := other.views(then)
	if all || allThen {
		return all == allThen
	}
	return slices.Equal(sorted(mine), sorted(theirs))
}

// maxNamedGroups is how many groups a refusal names.
const maxNamedGroups = 8

// Denied returns the refusal of what the rules do not allow: an *lock.Error with
// ErrPermissionDenied that says who may, and nothing of the lock.
func (p *Policy) Denied(c lock.Caller, v Verb, n lock.Name) error {
	message := fmt.Sprintf("the access file does not let %s %s %s", nameOf(c), v, n)
	if v == Admin {
		message = fmt.Sprintf("the access file does not make %s an admin", nameOf(c))
	}
	if others := p.whoElse(v, n); others != "" {
		message += "; " + others
	}
	switch {
	case c.Proof == "":
		message += "; the call came without a proof of who asks, such as a token or the server's socket"
	case !c.Listed:
		message += "; no entry of the access file describes " + nameOf(c)
	}
	return &lock.Error{Reason: lock.ErrPermissionDenied, Message: message}
}

func nameOf(c lock.Caller) string {
	if c.Name == "" {
		return lock.Anonymous
	}
	return c.Name
}

// whoElse says who may do something; empty: no group.
func (p *Policy) whoElse(v Verb, n lock.Name) string {
	groups := p.groupsWith(v, n)
	switch more := len(groups) - maxNamedGroups; {
	case len(groups) == 0:
		return ""
	case len(groups) == 1:
		return "who is in the group " + groups[0] + " may"
	case more > 0:
		groups = append(groups[:maxNamedGroups], fmt.Sprintf("%d more", more))
	}
	return "who is in one of the groups " + strings.Join(groups, ", ") + " may"
}

// groupsWith returns the groups to which the rules allow this, sorted; of Freeze, those
// that may freeze the lock and all below it.
func (p *Policy) groupsWith(v Verb, n lock.Name) []string {
	if p == nil {
		return nil
	}
	var groups []string
	name := judged(n.String())
	for group, r := range p.groups {
		if v == Freeze && r.locks[Freeze].matchTree(name) || v != Freeze && r.allow(v, name) {
			groups = append(groups, group)
		}
	}
	slices.Sort(groups)
	return groups
}
