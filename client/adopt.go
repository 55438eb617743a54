package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/pylok/pylok/lock"
)

// Adopt makes a Hold for a hold that exists, for a job that goes on under a lock that
// whoever started it has: it finds out that the hold stands and is this caller's, begins
// its lease anew with the ttl that it has, and renews and watches it from then on. Two that
// renew one hold do no harm. Where the hold is over the error is a *LostError.
//
// Of the options WithMargin alone counts, and others are refused. Release ends the hold on
// the server; who leaves it to whoever has taken the lock does not call it, and Close with
// Options.ReleaseAll leaves it alone too. Then it goes on until its ttl runs out, or for as
// long as another renews it.
func (c *Client) Adopt(ctx context.Context, name string, token lock.Token, options ...AcquireOption) (*Hold, error) {
	parsed, err := lock.ParseName(name)
	if err != nil {
		return nil, err
	}
	if token == 0 {
		return nil, lock.Invalid("token", "it is needed, to say which hold to adopt")
	}
	var a acquisition
	for _, option := range options {
		option(&a)
	}
	if !a.isMargin() {
		return nil, lock.Invalid("options", "a hold that exists has its terms; of the options only WithMargin is for it")
	}
	ref := lock.HoldRef{Name: parsed, Token: token}
	begun := c.boottime()
	l, err := c.Status(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case !l.Held():
		return nil, lostBy(ref, &lock.Error{Reason: lock.ErrNotLocked, Message: fmt.Sprintf("%s is not locked: the hold with token %d is over", parsed, token)})
	case l.Token != token:
		return nil, lostBy(ref, &lock.Error{Reason: lock.ErrNotHolder, Message: fmt.Sprintf("the hold with token %d is over; %s is held with token %d", token, parsed, l.Token), Lock: &l})
	case l.Stale():
		return nil, lostBy(ref, &lock.Error{Reason: lock.ErrNotHolder, Message: fmt.Sprintf("the hold of %s with token %d is stale", parsed, token), Lock: &l})
	}
	margin, err := marginOf(l.TTL, a.margin)
	if err != nil {
		return nil, err
	}
	if l.TTL > 0 {
		begun = c.boottime()
		l, err = c.Renew(ctx, lock.RenewRequest{Name: parsed, Token: token})
	} else {
		err = c.checkOwner(ctx, l)
	}
	switch refusal, _ := errors.AsType[*lock.Error](err); {
	case isOver(err) && (refusal.Lock == nil || refusal.Lock.Token != token || refusal.Lock.Stale()):
		return nil, lostBy(ref, err)
	case err != nil: // such as that it goes on, and is another caller's
		return nil, err
	}
	return newHold(ctx, c, l, l.TTL, margin, begun, nil), nil
}

// checkOwner returns an error if a hold, which cannot be renewed to find out, is another
// caller's.
func (c *Client) checkOwner(ctx context.Context, l lock.Lock) error {
	if l.Caller == "" {
		return nil
	}
	info, err := c.Info(ctx)
	if err != nil || info.Caller == l.Caller {
		return err
	}
	return &lock.Error{
		Reason:  lock.ErrNotHolder,
		Message: fmt.Sprintf("the hold of %s with token %d is %s's, and you are %s", l.Name, l.Token, l.Caller, info.Caller),
		Lock:    &l,
	}
}

// isMargin reports whether an acquisition has nothing but a margin.
func (a *acquisition) isMargin() bool {
	r := a.LockRequest
	return a.holder == nil && len(a.choices) == 0 && r.Data.IsEmpty() && r.TTL == 0 && r.Wait == 0 && r.RequestID == "" &&
		!r.Shared && r.Limit == 0 && !r.Tree && !r.Drain && !r.ThroughFreeze && !r.ReplaceStale && r.OnExpiry == lock.End && !r.RefuseManual
}
