package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pylok/pylok/lock"
)

// Question is what one asks of the rules.
type Question struct {
	// Verb is what is to be done; Freeze means to freeze the lock and all below it.
	Verb Verb
	// Name is the lock. For Admin it does not count.
	Name lock.Name
	// As is whom it concerns: a caller's name, or group:NAME for somebody who is in that
	// group alone. Empty: who asks.
	As string
}

// Answer is what the rules say to a Question.
type Answer struct {
	// Allowed reports whether the rules allow it.
	Allowed bool
	// Caller is whom it concerns, by name.
	Caller string
	// Groups are those of that caller, as far as the access file tells, sorted.
	Groups []string
	// Why is a sentence that says which rule allows it, or who would be allowed.
	Why string
}

// May answers a question that asker asks. Questions about others are for admins
// (lock.ErrPermissionDenied), and about those that somebody can be
// (lock.ErrInvalidArgument).
func (p *Policy) May(asker lock.Caller, q Question) (Answer, error) {
	if p == nil {
		return Answer{Allowed: true, Caller: asker.Name, Groups: asker.Groups, Why: "the server has no access file: whoever gets in may do everything"}, nil
	}
	if q.As == "" || q.As == nameOf(asker) {
		return p.answer(asker, q), nil
	}
	if !p.AllowsAdmin(asker) {
		err := p.Denied(asker, Admin, lock.Name{}).(*lock.Error)
		err.Message = "to ask what another caller may do needs the right admin: " + err.Message
		return Answer{}, err
	}
	if q.As == everyListed {
		return Answer{}, lock.Invalid("as", "* is not one caller; give a caller's name or group:NAME")
	}
	if problem := newPeople(p.entries).nobody(q.As); problem != "" {
		return Answer{}, lock.Invalid("as", problem)
	}
	answer, _ := p.answerFor(q)
	return answer, nil
}

// answerFor answers for a caller who does not ask and of whom only the name is known. Where
// it depends on which entry describes that caller, the answer is no, and says so.
func (p *Policy) answerFor(q Question) (answer Answer, depends bool) {
	if group, isGroup := strings.CutPrefix(q.As, groupPrefix); isGroup {
		return p.answer(lock.Caller{Name: q.As, Groups: []string{group}, Listed: true}, q), false
	}
	var answers []Answer
	var yes, groups []string
	described := q.As == lock.Anonymous
	for _, e := range p.entries {
		if !e.couldDescribe(q.As) {
			continue
		}
		described = described || e.describes(q.As)
		answer := p.answer(lock.Caller{Name: q.As, Groups: e.groups, Listed: true}, q)
		answers, groups = append(answers, answer), append(groups, e.groups...)
		if answer.Allowed {
			yes = append(yes, fmt.Sprintf("if its proof is as the caller on line %d says, %s", e.line, answer.Why))
		}
	}
	if !described || q.As == lock.Anonymous {
		answers = append([]Answer{p.answer(lock.Caller{Name: q.As}, q)}, answers...)
	}
	slices.Sort(groups)
	answer = answers[0]
	answer.Groups = slices.Compact(groups)
	depends = slices.ContainsFunc(answers, func(a Answer) bool { return a.Allowed != answer.Allowed })
	if depends {
		answer.Allowed = false
		answer.Why = "it depends: " + yes[0]
	}
	return answer, depends
}

// couldDescribe reports whether a caller of a name can be one whom the entry describes.
func (e *entry) couldDescribe(name string) bool {
	if e.unix != nil && e.unix.user != "" && e.name.text == defaultNames[unixWord] && !isNumber(e.unix.user) {
		return name == unixWord+":"+e.unix.user
	}
	return e.name.canBe(name)
}

// describes reports whether whoever has a name is described by an entry that can give it:
// tokens of issuers and of the file have no names without one, and some users are meant
// by their names.
func (e *entry) describes(name string) bool {
	switch {
	case e.unix != nil:
		return e.unix.group == "" && (e.unix.user == "" || name == unixWord+":"+e.unix.user)
	case e.certificate != nil:
		return *e.certificate == certificateProof{}
	}
	return true
}

// answer says what the rules allow to a caller.
func (p *Policy) answer(c lock.Caller, q Question) Answer {
	a := Answer{Caller: nameOf(c), Groups: c.Groups}
	rules := p.rules
	if !p.allows(c, q) {
		rules = nil // anybody may ask, and there may be thousands
	}
	for _, r := range rules {
		for _, who := range r.who {
			if !means(who, c) || !r.allows(q) {
				continue
			}
			a.Allowed, a.Why = true, fmt.Sprintf("the rule on line %d of the access file allows it to %s", r.line, who)
			if who == everyListed {
				a.Why = fmt.Sprintf("the rule on line %d of the access file allows it to every caller that the file describes", r.line)
			}
			return a
		}
	}
	a.Why = "no rule of the access file allows it"
	if others := p.whoElse(q.Verb, q.Name); others != "" {
		a.Why += "; " + others
	}
	return a
}

// means reports whether a word of who means the caller.
func means(who string, c lock.Caller) bool {
	if group, isGroup := strings.CutPrefix(who, groupPrefix); isGroup {
		return c.In(group)
	}
	return who == c.Name || who == everyListed && c.Listed
}

// allows reports whether the rule allows what is asked to those whom it is for.
func (r rule) allows(q Question) bool {
	gives := func(v Verb) bool { return v == q.Verb || q.Verb == View && v != Admin } // every other verb implies it
	if !slices.ContainsFunc(r.may, gives) {
		return false
	}
	name := judged(q.Name.String())
	return q.Verb == Admin || slices.ContainsFunc(r.locks, func(p lock.Pattern) bool {
		switch {
		case q.Verb == Freeze:
			return isTreeOf(p, name)
		case q.Verb == View && slices.Contains(r.may, Freeze) && treeOf(p) == name:
			return true
		}
		return p.MatchText(name)
	})
}

// isTreeOf reports whether a pattern selects all that is in a name, as matchTree has it.
func isTreeOf(p lock.Pattern, name string) bool {
	if tree := treeOf(p); tree != "" && name != lock.AllName {
		return name == tree || strings.HasPrefix(name, tree+"/")
	}
	return p.String() == "**"
}

// allows reports whether the rules allow a caller what is asked.
func (p *Policy) allows(c lock.Caller, q Question) bool {
	if q.Verb == Freeze {
		return p.AllowsFreeze(c, q.Name)
	}
	return p.Allows(c, q.Verb, q.Name)
}

// May answers a question by the present policy.
func (c *Control) May(ctx context.Context, asker lock.Caller, q Question) (Answer, error) {
	p, asker, err := c.present(ctx, asker)
	if err != nil {
		return Answer{}, err
	}
	return p.May(asker, q)
}
