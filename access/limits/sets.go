package limits

import (
	"context"
	"slices"

	"github.com/pylok/pylok/lock"
)

// LockSet implements lock.Locks. A set is one call and one wait, and as many holds as it is
// to have: all of them within the limit, or none.
func (l *Limits) LockSet(ctx context.Context, from lock.Caller, request lock.SetRequest) (lock.SetGrant, error) {
	c, err := l.enter(&from)
	if err != nil {
		return lock.SetGrant{}, err
	}
	defer c.end(asking)
	if request.Wait > 0 {
		bytes := request.Data.Size() + len(request.Holder) + len(request.RequestID)
		for _, n := range namesOf(&request) {
			bytes += len(n.String())
		}
		if err := l.beginWait(c, bytes); err != nil {
			return lock.SetGrant{}, err
		}
		defer l.endWait(c, bytes)
	}
	reserved, err := l.mayHoldSet(ctx, c, from, &request)
	if err != nil {
		return lock.SetGrant{}, err
	}
	grant, err := l.inner.LockSet(ctx, from, request)
	if err != nil {
		grant.Locks = nil
	}
	l.holds.askedSet(c, reserved, grant.Locks)
	return grant, err
}

// mayHoldSet says whether a caller may be granted a set, as mayHold does for one lock. A set
// that is sent again goes always.
func (l *Limits) mayHoldSet(ctx context.Context, c *caller, from lock.Caller, request *lock.SetRequest) (reserved int, err error) {
	names := namesOf(request)
	if len(names) > lock.MaxSetNames {
		return 0, nil // the rules refuse it
	}
	more := len(request.Names)
	for _, choice := range request.Choices {
		more += min(max(choice.Count, 1), len(choice.Names))
	}
	reserved, err = l.reserve(c, more, request.Wait > 0)
	if err == nil || request.RequestID == "" {
		return reserved, l.refuseHolds(err)
	}
	for _, n := range names {
		present, statusErr := l.inner.Status(ctx, from, n)
		if statusErr == nil && l.isAgain(c, present, request.RequestID) {
			return 0, nil
		}
	}
	return 0, l.refuseHolds(err)
}

// namesOf returns all names of a request.
func namesOf(request *lock.SetRequest) []lock.Name {
	names := slices.Clone(request.Names)
	for _, choice := range request.Choices {
		names = append(names, choice.Names...)
	}
	return names
}

// UnlockSet implements lock.Locks.
func (l *Limits) UnlockSet(ctx context.Context, from lock.Caller, request lock.UnlockSetRequest) ([]lock.SetAnswer, error) {
	holds := tokensOf(request.Holds)
	if request.Set != 0 {
		holds = []lock.Token{request.Set} // which is that of one of its holds
	}
	answers, err := keep(ctx, l, from, holds, request, lock.Locks.UnlockSet)
	for _, a := range answers {
		if a.Err == nil {
			l.holds.ended(a.Token)
		}
	}
	return answers, err
}

// RenewSet implements lock.Locks.
func (l *Limits) RenewSet(ctx context.Context, from lock.Caller, request lock.RenewSetRequest) ([]lock.SetAnswer, error) {
	return keep(ctx, l, from, tokensOf(request.Holds), request, lock.Locks.RenewSet)
}

func tokensOf(holds []lock.HoldRef) []lock.Token {
	tokens := make([]lock.Token, len(holds))
	for i, h := range holds {
		tokens[i] = h.Token
	}
	return tokens
}
