package access

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pylok/pylok/lock"
)

// Describe says for people what the access file says: its callers, then who may do what,
// then what is odd about it now. No secret is in it.
func (p *Policy) Describe(now time.Time) string {
	if p == nil {
		return "no access file: everybody may do everything\n"
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LINE\tCALLER\tPROOF\tGROUPS")
	for _, e := range p.entries {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", e.line, e.name.text, e.proof(now), cmp.Or(strings.Join(e.groups, ", "), "-"))
	}
	table.Flush()
	b.WriteByte('\n')
	fmt.Fprintln(table, "LINE\tWHO\tMAY\tLOCKS")
	for _, r := range p.rules {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", r.line, strings.Join(r.who, ", "), words(r.may), cmp.Or(words(r.locks), "-"))
	}
	table.Flush()
	if oddities := p.oddities(now); len(oddities) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(oddities, "\n"))
	}
	return b.String()
}

// proof says what proves an entry's callers.
func (e *entry) proof(now time.Time) string {
	var conditions []string
	is := func(fact, value string) {
		if value != "" {
			conditions = append(conditions, fact+" "+value)
		}
	}
	switch {
	case e.unix != nil:
		is("user", e.unix.user)
		is("group", e.unix.group)
		return "socket: " + cmp.Or(strings.Join(conditions, ", "), "any user")
	case e.token != nil:
		text := fmt.Sprintf("token sha256:%x...", e.token.hash[:4])
		switch {
		case e.token.expires.IsZero():
			return text
		case e.over(now):
			return text + ", over"
		}
		return text + ", until " + e.token.expires.UTC().Format(time.RFC3339)
	case e.jwt != nil:
		is("for", e.jwt.audience)
		for _, claim := range slices.Sorted(maps.Keys(e.jwt.claims)) {
			is(claim, e.jwt.claims[claim])
		}
		return "oidc: " + e.jwt.issuer + " " + strings.Join(conditions, ", ")
	}
	is("uri", e.certificate.uri)
	is("dns", e.certificate.dns)
	is("cn", e.certificate.cn)
	return "certificate: " + cmp.Or(strings.Join(conditions, ", "), "any of the client CA")
}

// over reports whether the entry is a token that is over.
func (e *entry) over(now time.Time) bool {
	return e.token != nil && !e.token.expires.IsZero() && !now.Before(e.token.expires)
}

func words[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}

// oddities are sentences on what may not be meant.
func (p *Policy) oddities(now time.Time) (odd []string) {
	if len(p.rules) == 0 {
		odd = append(odd, "note: there are no rules, so nobody may do anything")
	}
	idle := make(map[string]int)
	for _, e := range p.entries {
		if e.over(now) {
			odd = append(odd, fmt.Sprintf("note: the token of %s on line %d is over; take it out", e.name.text, e.line))
		}
		for _, group := range e.groups {
			if p.groups[group] == nil && idle[group] == 0 {
				idle[group] = e.line
			}
		}
	}
	for _, group := range slices.Sorted(maps.Keys(idle)) {
		odd = append(odd, fmt.Sprintf("note: no rule is for the group %s of line %d", group, idle[group]))
	}
	for _, r := range p.rules {
		for _, pattern := range r.locks {
			if text := pattern.String(); pattern.IsName() && judged(text) != text {
				odd = append(odd, fmt.Sprintf("note: the rule on line %d has %s, which is for no lock: a shared hold is judged as %s", r.line, text, judged(text)))
			}
		}
	}
	if r := p.named[lock.Anonymous]; r != nil && (r.admin || len(r.locks[Break].texts) > 0) {
		odd = append(odd, "note: callers who prove nothing may break holds or are admins")
	}
	return odd
}
