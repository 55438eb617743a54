package access

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/pylok/pylok/access/bearer"
	"github.com/pylok/pylok/lock"
)

// MaxFileBytes is how large an access file may be.
const MaxFileBytes = 1 << 20

// Limits of an access file.
const (
	maxEntries = 10_000
	maxRules   = 20_000
)

// maxTokensOfOneName is how many tokens may have one name: a new one beside the one that it
// replaces.
const maxTokensOfOneName = 2

// ParsePolicy reads an access file; name is the file's for errors, which are all that were
// found, a line each: NAME:LINE:COLUMN: what is wrong. The form is that of
// docs/access.yaml.
func ParsePolicy(text []byte, name string) (*Policy, error) {
	p := &parser{file: name}
	entries, rules := p.parse(text)
	if p.more > 0 {
		p.problems = append(p.problems, fmt.Errorf("%s: %d problems more", name, p.more))
	}
	if len(p.problems) > 0 {
		return nil, problems(p.problems)
	}
	return newPolicy(entries, rules), nil
}

// problems are the errors of an access file's text.
type problems []error

// Error returns the problems, a line each.
func (p problems) Error() string { return errors.Join(p...).Error() }

// Problems returns what ParsePolicy has found wrong with the text of a file, in its order;
// of another error, nothing.
func Problems(err error) []error {
	found, _ := errors.AsType[problems](err)
	return found
}

// parser gathers what is wrong with an access file.
type parser struct {
	file     string
	problems []error
	more     int // problems beyond maxProblems
}

// maxProblems is how many problems of one file are told.
const maxProblems = 20

func (p *parser) fail(n *yaml.Node, format string, args ...any) {
	if len(p.problems) == maxProblems {
		p.more++
		return
	}
	p.problems = append(p.problems, fmt.Errorf("%s:%d:%d: %s", p.file, n.Line, n.Column, fmt.Sprintf(format, args...)))
}

// failWhole is fail for what has no place in the file.
func (p *parser) failWhole(format string, args ...any) {
	p.problems = append(p.problems, fmt.Errorf("%s: %s", p.file, fmt.Sprintf(format, args...)))
}

func (p *parser) parse(text []byte) ([]*entry, []rule) {
	document := p.document(text)
	if document == nil {
		return nil, nil
	}
	if p.plain(document); len(p.problems) > 0 {
		return nil, nil // what follows could say a secret again
	}
	top := p.mapping(document, "the file", "callers", "rules")
	if _, hasRules := top["rules"]; !hasRules && len(p.problems) == 0 {
		p.fail(document, "there are no rules, which would allow nothing to anybody; write `rules: []` if that is meant")
	}
	var entries []*entry
	var entryNodes []*yaml.Node
	callers, ruleNodes := p.list(top["callers"], "callers"), p.list(top["rules"], "rules")
	if len(callers) > maxEntries || len(ruleNodes) > maxRules {
		p.failWhole("it has %d callers and %d rules; at most %d and %d are allowed", len(callers), len(ruleNodes), maxEntries, maxRules)
		return nil, nil
	}
	for _, n := range callers {
		if e := p.entry(n); e != nil {
			entries, entryNodes = append(entries, e), append(entryNodes, n)
		}
	}
	p.checkEntries(entries, entryNodes)
	var rules []rule
	everybody := newPeople(entries)
	everybody.unknown = len(p.problems) > 0
	for _, n := range ruleNodes {
		rules = append(rules, p.rule(n, everybody))
	}
	return entries, rules
}

// document returns the value of the one document that the text has; nil: it has not.
func (p *parser) document(text []byte) *yaml.Node {
	if len(text) > MaxFileBytes {
		p.failWhole("it has more than the %d bytes that are allowed", MaxFileBytes)
		return nil
	}
	var document, another yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		p.failWhole("it is empty, which would allow nothing to anybody; write `rules: []` if that is meant")
		return nil
	case err != nil:
		p.syntax(err)
		return nil
	}
	if err := decoder.Decode(&another); err == nil {
		p.fail(&another, "another document begins; an access file has one")
		return nil
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
		return nil
	}
	return document.Content[0]
}

// syntax tells of text that is no YAML: of yaml's errors, those of one line name it.
func (p *parser) syntax(err error) {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	if line, what, found := strings.Cut(problem, ": "); found && strings.HasPrefix(line, "line ") {
		p.problems = append(p.problems, fmt.Errorf("%s:%s: %s", p.file, strings.TrimPrefix(line, "line "), what))
		return
	}
	p.failWhole("%s", problem)
}

// plain finds what an access file must not have anywhere: text that stands for other text,
// tags, and secrets, which it does not repeat.
func (p *parser) plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		p.fail(n, "an access file has no anchors (&) and no aliases (*): write it out; quote a text that begins with a *")
	case n.Style&yaml.TaggedStyle != 0:
		p.fail(n, "an access file has no tags (!)")
	case n.Kind == yaml.ScalarNode && strings.HasPrefix(n.Value, bearer.Prefix) && len(n.Value) > len(bearer.Prefix):
		p.fail(n, "this is a token itself, which must not be in the file: take it back, make a new one with pylok token new, and put the line here that it prints")
	}
	for _, child := range n.Content {
		p.plain(child)
	}
}

// mapping returns the values of a mapping by their keys, of which only those named may
// be there.
func (p *parser) mapping(n *yaml.Node, what string, keys ...string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		p.fail(n, "%s must be a mapping with the keys %s", what, strings.Join(keys, ", "))
		return nil
	}
	values := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Value == "":
			p.fail(key, "a key of %s must be a text", what)
		case keys != nil && !slices.Contains(keys, key.Value):
			p.fail(key, "%q is no key of %s; there are %s", key.Value, what, strings.Join(keys, ", "))
		case values[key.Value] != nil:
			p.fail(key, "%q is there twice", key.Value)
		default:
			values[key.Value] = value
		}
	}
	return values
}

// list returns the elements of a list; of a value that is not there, none.
func (p *parser) list(n *yaml.Node, what string) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.SequenceNode:
		p.fail(n, "%s must be a list", what)
		return nil
	}
	return n.Content
}

// seen are the texts of a list so far.
type seen map[string]bool

// again reports whether a text has been there, and is from then on.
func (s seen) again(text string) bool {
	before := s[text]
	s[text] = true
	return before
}

// text returns a value that is a text, and whether there is one.
func (p *parser) text(n *yaml.Node, what string) (string, bool) {
	switch {
	case n == nil:
		return "", false
	case n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null":
		p.fail(n, "%s must be a text", what)
		return "", false
	case n.Value == "":
		p.fail(n, "%s is empty", what)
		return "", false
	}
	return n.Value, true
}

func (p *parser) entry(n *yaml.Node) *entry {
	before := len(p.problems)
	values := p.mapping(n, "a caller", "name", "groups", "unix", "token", "expires", "jwt", "certificate")
	e := entry{line: n.Line}
	var proofs int
	for _, key := range []string{"unix", "token", "jwt", "certificate"} {
		if values[key] != nil {
			proofs++
		}
	}
	if proofs != 1 {
		p.fail(n, "a caller has exactly one of unix, token, jwt and certificate; this one has %d", proofs)
		return nil
	}
	if v := values["expires"]; v != nil && values["token"] == nil {
		p.fail(v, "expires is for a token")
	}
	var facts []string
	switch {
	case values["unix"] != nil:
		e.unix, facts = p.unix(values["unix"]), []string{"user", "uid"}
	case values["token"] != nil:
		e.token, facts = p.token(values["token"], values["expires"]), []string{}
	case values["jwt"] != nil:
		e.jwt = p.jwt(values["jwt"])
	default:
		e.certificate, facts = p.certificate(values["certificate"]), []string{"uri", "dns", "cn", "subject"}
	}
	name, _ := p.text(values["name"], "name")
	var err error
	if e.name, err = parseTemplate(name, e.proofWord(), facts); err != nil {
		at := n
		if values["name"] != nil {
			at = values["name"]
		}
		p.fail(at, "%v", err)
	}
	groups := make(seen)
	for _, g := range p.list(values["groups"], "groups") {
		if group, ok := p.text(g, "a group"); ok {
			switch {
			case strings.HasPrefix(group, groupPrefix):
				p.fail(g, "%s goes before a group in who alone; here it is %q", groupPrefix, strings.TrimPrefix(group, groupPrefix))
			case strings.ContainsAny(group, " *,:") || badName(group) != "":
				p.fail(g, "%q cannot be a group: it has a space, a comma, a colon, a * or a control character", group)
			case groups.again(group):
				p.fail(g, "%q is there twice", group)
			}
			e.groups = append(e.groups, group)
		}
	}
	slices.Sort(e.groups)
	if len(p.problems) > before {
		return nil
	}
	return &e
}

func (p *parser) unix(n *yaml.Node) *unixProof {
	values := p.mapping(n, "unix", "user", "group")
	var proof unixProof
	proof.user, _ = p.text(values["user"], "user")
	proof.group, _ = p.text(values["group"], "group")
	return &proof
}

func (p *parser) token(n, expires *yaml.Node) *tokenProof {
	const form = "sha256:"
	text, ok := p.text(n, "token")
	if !ok {
		return nil
	}
	digits, isHash := strings.CutPrefix(text, form)
	hash, err := hex.DecodeString(digits)
	var proof tokenProof
	switch {
	case !isHash || err != nil || copy(proof.hash[:], hash) != len(proof.hash) || len(hash) != len(proof.hash):
		p.fail(n, "a token is given as sha256: and 64 hexadecimal digits; pylok token new prints the line")
		return nil
	}
	if text, ok := p.text(expires, "expires"); ok {
		if proof.expires, err = time.Parse(time.RFC3339, text); err != nil {
			if proof.expires, err = time.Parse(time.DateOnly, text); err != nil {
				p.fail(expires, "expires must be a time such as 2027-01-31T18:00:00Z, or a day such as 2027-01-31, which is over when it begins in UTC")
			}
		}
	}
	return &proof
}

// signatures are the algorithms that a token of an issuer may be signed with: those with a
// public key (RFC 7518, section 3.1; RFC 8037 for EdDSA).
var signatures = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"}

func (p *parser) jwt(n *yaml.Node) *jwtProof {
	values := p.mapping(n, "jwt", "issuer", "audience", "algorithms", "claims")
	proof := jwtProof{claims: make(map[string]string)}
	var ok bool
	if proof.issuer, ok = p.text(values["issuer"], "issuer"); !ok && values["issuer"] == nil {
		p.fail(n, "jwt needs an issuer, the URL of who signs the tokens")
	} else if ok {
		if problem := badIssuer(proof.issuer); problem != "" {
			p.fail(values["issuer"], "%s", problem)
		}
	}
	if proof.audience, ok = p.text(values["audience"], "audience"); !ok && values["audience"] == nil {
		p.fail(n, "jwt needs an audience: whom the tokens are for, such as this server's host name; without one, a token made for another service would do here")
	}
	for _, a := range p.list(values["algorithms"], "algorithms") {
		algorithm, ok := p.text(a, "an algorithm")
		if ok && !slices.Contains(signatures, algorithm) {
			p.fail(a, "%q is not taken; there are %s", algorithm, strings.Join(signatures, ", "))
		}
		proof.algorithms = append(proof.algorithms, algorithm)
	}
	if len(proof.algorithms) == 0 && values["algorithms"] != nil {
		p.fail(values["algorithms"], "there is no algorithm; leave algorithms out for RS256 and ES256")
	} else if len(proof.algorithms) == 0 {
		proof.algorithms = []string{"RS256", "ES256"}
	}
	if values["claims"] != nil {
		claims := p.mapping(values["claims"], "claims")
		for _, key := range slices.Sorted(maps.Keys(claims)) {
			if text, ok := p.text(claims[key], key); ok {
				proof.claims[key] = text
			}
		}
	}
	p.checkClaims(n, values["claims"], &proof)
	return &proof
}

// badIssuer says what is wrong with an issuer; empty: nothing.
func badIssuer(issuer string) string {
	u, err := url.Parse(issuer)
	switch {
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Sprintf("%q is not the URL of an issuer, such as https://token.actions.githubusercontent.com", issuer)
	case u.Scheme == "https":
		return ""
	case u.Scheme == "http" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()):
		return ""
	}
	return "an issuer must be https, for its keys decide who is let in; http is for this machine alone"
}

func (p *parser) certificate(n *yaml.Node) *certificateProof {
	values := p.mapping(n, "certificate", "uri", "dns", "cn")
	var proof certificateProof
	proof.uri, _ = p.text(values["uri"], "uri")
	proof.dns, _ = p.text(values["dns"], "dns")
	proof.cn, _ = p.text(values["cn"], "cn")
	return &proof
}

// checkEntries finds callers that cannot be told apart.
func (p *parser) checkEntries(entries []*entry, nodes []*yaml.Node) {
	tokens := make(map[[32]byte]bool)
	named := make(map[string][]*entry)
	issuers := make(map[string]*entry) // the first, by the word of its names
	for i, e := range entries {
		switch {
		case e.token != nil:
			if tokens[e.token.hash] {
				p.fail(nodes[i], "another caller has the same token")
			}
			tokens[e.token.hash] = true
			p.checkRotation(nodes[i], e, named[e.name.text])
			named[e.name.text] = append(named[e.name.text], e)
		case e.jwt != nil:
			word := e.name.word()
			other, there := issuers[word]
			switch {
			case !there:
				issuers[word] = e
			case other.jwt.issuer == e.jwt.issuer:
			case e.name.text == defaultNames[oidcWord] && other.name.text == e.name.text: // has the issuer in it
			default:
				p.fail(nodes[i], "names that begin with %s: are those of %s, by the caller on line %d; two issuers need two words, such as name: \"ci:{sub}\", or one could give the names of the other", word, other.jwt.issuer, other.line)
			}
		}
	}
}

// checkRotation finds tokens of one name that do not take each other's place.
func (p *parser) checkRotation(n *yaml.Node, e *entry, others []*entry) {
	switch {
	case len(others) == 0:
	case len(others) >= maxTokensOfOneName:
		p.fail(n, "%s has more than %d tokens; take old ones out", e.name.text, maxTokensOfOneName)
	case e.token.expires.IsZero() && others[0].token.expires.IsZero():
		p.fail(n, "%s has another token on line %d; two are for changing from one to the other: give the old one an end with expires", e.name.text, others[0].line)
	case !slices.Equal(e.groups, others[0].groups):
		p.fail(n, "%s is in other groups by its token on line %d; both are one caller", e.name.text, others[0].line)
	}
}

func (p *parser) rule(n *yaml.Node, everybody people) rule {
	values := p.mapping(n, "a rule", "who", "may", "locks")
	r := rule{line: n.Line}
	before := len(p.problems) + p.more
	if values == nil {
		return r
	}
	if values["who"] == nil || values["may"] == nil {
		p.fail(n, "a rule needs who and may, and locks: whom it allows what, and for which locks")
		return r
	}
	words, verbs, patterns := make(seen), make(seen), make(seen)
	for _, w := range p.list(values["who"], "who") {
		who, ok := p.text(w, "a word of who")
		if !ok {
			continue
		}
		if problem := everybody.nobody(who); problem != "" && !everybody.unknown {
			p.fail(w, "%s", problem)
		} else if words.again(who) {
			p.fail(w, "%q is there twice", who)
		}
		r.who = append(r.who, who)
	}
	concernsLocks := false
	for _, m := range p.list(values["may"], "may") {
		word, ok := p.text(m, "a verb")
		if !ok {
			continue
		}
		verb, err := ParseVerb(word)
		if err != nil {
			p.fail(m, "%v", err)
			continue
		}
		if verbs.again(word) {
			p.fail(m, "%q is there twice", word)
		}
		concernsLocks = concernsLocks || verb != Admin
		r.may = append(r.may, verb)
	}
	for _, l := range p.list(values["locks"], "locks") {
		text, ok := p.text(l, "a pattern")
		if !ok {
			continue
		}
		pattern, err := lock.ParsePattern(text)
		if err != nil {
			p.fail(l, "%v", err)
			continue
		}
		if patterns.again(text) {
			p.fail(l, "%q is there twice", text)
		}
		r.locks = append(r.locks, pattern)
	}
	switch {
	case len(p.problems)+p.more > before: // of what was meant, parts are missing
	case len(r.who) == 0:
		p.fail(values["who"], "the rule is for nobody")
	case len(r.may) == 0:
		p.fail(values["may"], "the rule allows nothing")
	case concernsLocks && len(r.locks) == 0:
		p.fail(n, "the rule is for no locks; \"**\" is for all")
	case !concernsLocks && len(r.locks) > 0:
		p.fail(values["locks"], "admin concerns the server and no lock; leave locks out")
	}
	return r
}

// people are those whom a word of who can mean.
type people struct {
	entries   []*entry
	groups    map[string]bool
	templates map[string][]template // of the entries, each once, by the word of its names
	unknown   bool                  // not all entries could be read
}

func newPeople(entries []*entry) people {
	p := people{entries: entries, groups: make(map[string]bool), templates: make(map[string][]template)}
	texts := make(seen)
	for _, e := range entries {
		for _, group := range e.groups {
			p.groups[group] = true
		}
		if word := e.name.word(); !texts.again(e.name.text) {
			p.templates[word] = append(p.templates[word], e.name)
		}
	}
	return p
}

// nobody says why a word of who means nobody; empty: it means somebody.
func (p people) nobody(who string) string {
	if who == lock.Anonymous {
		return ""
	}
	if who == everyListed {
		if len(p.entries) == 0 {
			return "* means every caller that callers describes, and there is none"
		}
		return ""
	}
	if group, isGroup := strings.CutPrefix(who, groupPrefix); isGroup {
		if p.groups[group] {
			return ""
		}
		return fmt.Sprintf("no caller is in the group %q", group)
	}
	word, rest, _ := strings.Cut(who, ":")
	if rest != "" && (word == unixWord || word == certificateWord) {
		return "" // also without an entry
	}
	if slices.ContainsFunc(p.templates[word], func(t template) bool { return t.canBe(who) }) {
		return ""
	}
	if p.groups[who] {
		return fmt.Sprintf("nobody can be %q; %q is meant?", who, groupPrefix+who)
	}
	for _, e := range p.entries {
		if _, name, _ := strings.Cut(e.name.text, ":"); name == who {
			return fmt.Sprintf("nobody can be %q; %q is meant?", who, e.name.text)
		}
	}
	return fmt.Sprintf("nobody can be %q; give group:NAME, a caller's whole name such as unix:alice or token:ci, anonymous, or * for every caller of this file", who)
}
