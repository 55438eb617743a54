package access

import (
	"context"
	"fmt"
	"strings"

	"github.com/pylok/pylok/lock"
)

// HandOver implements lock.Locks: it asks for Lock of who hands over, or for Freeze where
// the hold is a tree. With an access file it also wants to know who is to have the hold: a
// caller that can be one with that right.
func (g *Guard) HandOver(ctx context.Context, caller lock.Caller, request lock.HandOverRequest) (lock.HandOverAnswer, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.mayKeep(ctx, p, caller, request.Name)
	}
	var warnings []string
	if err == nil {
		warnings, err = g.receive(ctx, p, caller, &request)
	}
	if err != nil {
		return lock.HandOverAnswer{}, err
	}
	s := sight{p, caller}
	answer, err := g.inner.HandOver(ctx, caller, request)
	if err != nil {
		return lock.HandOverAnswer{}, s.refusal(err)
	}
	g.recordHandOver(caller, answer.Lock, request.Reason)
	answer.Lock = s.lock(answer.Lock)
	answer.Warnings = append(answer.Warnings, warnings...)
	return answer, nil
}

// receive checks who is to have a hold, as far as a name tells, and returns what may be a
// mistake. Of a caller whose rights depend on its proof it is enough that it may have them:
// what it asks for later is decided by its proof.
func (g *Guard) receive(ctx context.Context, p *Policy, caller lock.Caller, r *lock.HandOverRequest) (warnings []string, err error) {
	who := r.Caller
	if p == nil && who == "" {
		return nil, nil
	}
	if p != nil {
		if problem := p.noReceiver(who); problem != "" {
			return nil, lock.Invalid("caller", problem)
		}
		depends := make(map[Verb]bool)
		may := func(v Verb) bool {
			answer, dependsOnProof := p.answerFor(Question{Verb: v, Name: r.Name, As: who})
			depends[v] = dependsOnProof
			return answer.Allowed || dependsOnProof
		}
		r.NoTree = !may(Freeze)
		ok, err := g.mayHold(ctx, caller, r.Name, may)
		if err != nil {
			return nil, err
		}
		if !ok {
			err := p.Denied(lock.Caller{Name: who, Proof: "name", Listed: true}, Lock, r.Name)
			g.record(caller, Lock, r.Name.String(), err.Error())
			return nil, err
		}
		if depends[Lock] {
			warnings = append(warnings, fmt.Sprintf("whether %s may lock %s depends on its proof", who, r.Name))
		}
	}
	if !g.control.heard.has(who) {
		warnings = append(warnings, fmt.Sprintf("the server has not heard of %s since it was started: is the name right?", who))
	}
	return warnings, nil
}

// noReceiver says why nobody with a name can be given a hold; empty: somebody can.
func (p *Policy) noReceiver(who string) string {
	switch {
	case who == "":
		return "the server has an access file, by which a hold is a caller's: say whose it is from now on, by the name that `pylok info` shows to that one"
	case who == lock.Anonymous || who == everyListed || strings.HasPrefix(who, groupPrefix):
		return lock.QuoteShort(who) + " is not one caller, whose a hold can be; give the name that `pylok info` shows to that one"
	}
	return newPeople(p.entries).nobody(who)
}
