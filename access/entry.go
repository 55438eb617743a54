package access

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pylok/pylok/lock"
)

// entry describes callers in the access file: those with this proof have this name and are
// in these groups. Exactly one of the four proofs is set.
type entry struct {
	line   int // of the access file
	name   template
	groups []string // sorted

	unix        *unixProof
	token       *tokenProof
	jwt         *jwtProof
	certificate *certificateProof
}

// unixProof is a process of this machine. All that is set must be so; nothing set:
// anybody. Facts for the name: user, uid.
type unixProof struct {
	user  string // name or number
	group string // name or number, the primary or a supplementary one
}

// tokenProof is who has a secret. There are no facts for the name.
type tokenProof struct {
	hash    [32]byte  // SHA-256 of the token
	expires time.Time // zero: does not
}

// jwtProof is who has a token of an OIDC issuer. Facts for the name: its claims.
type jwtProof struct {
	issuer   string
	audience string
	// algorithms are those that a signature may have; never empty.
	algorithms []string
	// claims must all be there; a * in a value stands for any text.
	claims map[string]string
}

// certificateProof is who has a certificate of the client CA. All that is set must be so; a
// * stands for any text. Facts for the name: uri, dns, cn, the first of each that the
// certificate has, and subject, the first of those.
type certificateProof struct {
	uri, dns, cn string
}

// Words that names begin with, by proof: what proves a name stands in it, so that nobody
// has another's name by another proof.
const (
	unixWord        = "unix"
	tokenWord       = "token"
	certificateWord = "cert"
	oidcWord        = "oidc" // where an entry has no word of its own, such as github
)

// reservedWords are those that an issuer's callers cannot have: other proofs have them, or
// who means something else by them.
var reservedWords = []string{unixWord, tokenWord, certificateWord, strings.TrimSuffix(groupPrefix, ":"), lock.Anonymous}

// defaultNames are the names of callers whose entry gives none, and of those that no entry
// describes.
var defaultNames = map[string]string{
	unixWord:        "unix:{user}",
	certificateWord: "cert:{subject}",
	oidcWord:        "oidc:{iss} {sub}",
}

// proofWord returns the word for the entry's proof.
func (e *entry) proofWord() string {
	switch {
	case e.unix != nil:
		return unixWord
	case e.token != nil:
		return tokenWord
	case e.jwt != nil:
		return oidcWord
	}
	return certificateWord
}

// template is a caller's name in which {fact} stands for what the proof says.
type template struct {
	text  string
	parts []string // literal texts and facts in turn, a literal text first
}

// maxFactBytes is how long a fact may be that stands in a name.
const maxFactBytes = 256

// parseTemplate reads a template of the name that a proof gives. Facts are those that may
// stand in it; nil: any.
func parseTemplate(text, proofWord string, facts []string) (template, error) {
	if text == "" {
		text = defaultNames[proofWord]
	}
	if text == "" {
		return template{}, fmt.Errorf("a name is missing")
	}
	word, _, hasWord := strings.Cut(text, ":")
	hasWord = hasWord && word != "" && !strings.ContainsAny(word, "{}* ")
	switch {
	case proofWord == oidcWord && hasWord && !slices.Contains(reservedWords, word):
	case hasWord && word == proofWord:
	default:
		text = proofWord + ":" + text
	}
	t := template{text: text}
	for rest := text; ; {
		literal, after, found := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") {
			return template{}, fmt.Errorf("%q has a } without a {", text)
		}
		if problem := badName(literal); problem != "" {
			return template{}, fmt.Errorf("the name %q has %s", text, problem)
		}
		if len(t.parts) > 0 && literal == "" && found {
			next, _, _ := strings.Cut(after, "}")
			return template{}, fmt.Errorf("%q has nothing between {%s} and {%s}, so that two callers could have one name", text, t.parts[len(t.parts)-1], next)
		}
		t.parts = append(t.parts, literal)
		if !found {
			return t, nil
		}
		fact, after, found := strings.Cut(after, "}")
		switch {
		case !found:
			return template{}, fmt.Errorf("%q has a { without a }", text)
		case facts != nil && !slices.Contains(facts, fact):
			return template{}, fmt.Errorf("{%s} is nothing that this proof says; it says %s", fact, listed(facts))
		}
		t.parts = append(t.parts, fact)
		rest = after
	}
}

func listed(facts []string) string {
	if len(facts) == 0 {
		return "nothing but who has it"
	}
	return "{" + strings.Join(facts, "}, {") + "}"
}

// badName says what a caller's name must not have; empty: it is fine.
func badName(text string) string {
	switch {
	case len(text) > maxFactBytes:
		return fmt.Sprintf("%d bytes; at most %d are allowed", len(text), maxFactBytes)
	case strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }):
		return "a control character, another that cannot be seen, or bytes that are not UTF-8"
	}
	return ""
}

// badFact says what a fact must not have that stands in a name before a text, which another
// fact follows: else two facts could be taken for two others. Empty: it is fine.
func badFact(fact, before string) string {
	if problem := badName(fact); problem != "" {
		return problem
	}
	switch {
	case strings.TrimSpace(fact) != fact:
		return "a space at its end"
	case before != "" && strings.Index(fact+before, before) != len(fact):
		return fmt.Sprintf("%q in it, by which it cannot be told from what follows", before)
	}
	return ""
}

// fill returns the name with the facts in it.
func (t template) fill(facts func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for i, part := range t.parts {
		if i%2 == 1 {
			value, ok := facts(part)
			if !ok || value == "" {
				return "", fmt.Errorf("the proof says no %s, which the name %q needs", part, t.text)
			}
			before := ""
			if i+2 < len(t.parts) {
				before = t.parts[i+1]
			}
			if problem := badFact(value, before); problem != "" {
				return "", fmt.Errorf("%s, which the name %q needs, has %s", part, t.text, problem)
			}
			part = value
		}
		b.WriteString(part)
	}
	return b.String(), nil
}

// word is what the names of the template begin with, up to the colon.
func (t template) word() string {
	word, _, _ := strings.Cut(t.text, ":")
	return word
}

// canBe reports whether the template can become a name.
func (t template) canBe(name string) bool {
	for i := 0; i < len(t.parts); i += 2 {
		literal := t.parts[i]
		switch {
		case i == 0:
			if !strings.HasPrefix(name, literal) {
				return false
			}
			name = name[len(literal):]
			if len(t.parts) == 1 {
				return name == ""
			}
		case i == len(t.parts)-1:
			return len(name) > len(literal) && strings.HasSuffix(name, literal)
		default:
			if name == "" {
				return false
			}
			at := strings.Index(name[1:], literal) // a fact is never empty
			if at < 0 {
				return false
			}
			name = name[1+at+len(literal):]
		}
	}
	return true
}

// like reports whether a text that is there, which is not empty, is like a pattern in which *
// stands for any text.
func like(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	first, last := parts[0], parts[len(parts)-1]
	if text == "" || len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return true
}
