package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pylok/pylok/lock"
)

// HandOver has a hold of the caller's, or one that no caller is known of, go on under another
// holder: in one step the new hold, with a new token, takes its place. Tree, set, lease and
// OnExpiry stay, but for the terms of the request. Those who wait go on waiting.
//
// The errors are those of Renew.
func (m *Manager) HandOver(ctx context.Context, caller lock.Caller, request lock.HandOverRequest) (lock.HandOverAnswer, error) {
	if err := checkHandOver(&request); err != nil {
		return lock.HandOverAnswer{}, err
	}
	q, err := m.enter(ctx, request.Name)
	if err != nil {
		return lock.HandOverAnswer{}, err
	}
	l, err := m.handOverHeld(ctx, q, caller, request)
	switch {
	case err != nil:
		return lock.HandOverAnswer{}, err
	case !l.Held(): // what is left to say takes time and decides nothing
		return lock.HandOverAnswer{}, m.overError(ctx, request.Name, request.Token)
	}
	return lock.HandOverAnswer{Lock: m.described(l)}, nil
}

// checkHandOver holds a request to its limits.
func checkHandOver(r *lock.HandOverRequest) error {
	if r.Token == 0 {
		return lock.Invalid("token", "give the token of the hold to hand over; Lock and Status return it")
	}
	if err := checkText("holder", r.Holder, maxHolderBytes); err != nil {
		return err
	}
	if err := checkText("caller", r.Caller, maxCallerBytes); err != nil {
		return err
	}
	if err := checkText("from", r.From, maxHolderBytes); err != nil {
		return err
	}
	if err := checkText("request_id", r.RequestID, maxRequestIDBytes); err != nil {
		return err
	}
	if err := checkReason(r.Reason, false, ""); err != nil {
		return err
	}
	if r.Never && (r.TTL != 0 || !r.ExpireTime.IsZero()) {
		return lock.Invalid("never", "give never, ttl or expire_time, not two of them")
	}
	return checkExpiry(r.TTL, &r.ExpireTime)
}

// handOverHeld is HandOver up to where there is nothing to hand over: it returns the lock if
// that is free. The caller must hold the queue, which it leaves.
func (m *Manager) handOverHeld(ctx context.Context, q *queue, caller lock.Caller, request lock.HandOverRequest) (lock.Lock, error) {
	defer m.leave(q.alone...)
	for {
		present, err := m.present(ctx, request.Name)
		if err == nil && isHandedOver(present, &request) {
			return present, nil
		}
		l, err := m.renewable(ctx, q, caller, lock.RenewRequest{Name: request.Name, Token: request.Token})
		if err != nil || !l.Held() {
			return l, err
		}
		if l.Tree && request.NoTree {
			return lock.Lock{}, &lock.Error{
				Reason:  lock.ErrPermissionDenied,
				Message: fmt.Sprintf("%s is held as a tree, and %s may not freeze it; hand it over to somebody who may", l.Name, request.Caller),
			}
		}
		m.adopt(l.Token)
		event, err := m.commit(ctx, q.alone, nil, nil, handingOver(l, caller, &request))
		if errors.Is(err, lock.ErrConflict) {
			continue
		}
		if err != nil {
			return lock.Lock{}, err
		}
		next := event[0].Lock
		m.observe(next)
		return next, nil
	}
}

// isHandedOver reports whether a hold is what came of the request, which was sent again.
func isHandedOver(l lock.Lock, r *lock.HandOverRequest) bool {
	return r.RequestID != "" && l.RequestID == r.RequestID && l.Holder == r.Holder && l.Caller == r.Caller && l.Token > r.Token
}

// handingOver is the change that puts the request's hold in the place of l.
func handingOver(l lock.Lock, caller lock.Caller, r *lock.HandOverRequest) lock.Change {
	next := lock.Lock{
		Name:       l.Name,
		Data:       l.Data,
		Holder:     r.Holder,
		Caller:     r.Caller,
		TTL:        l.TTL,
		ExpireTime: l.ExpireTime,
		RequestID:  r.RequestID,
		Tree:       l.Tree,
		Set:        l.Set,
		OnExpiry:   l.OnExpiry,
	}
	if r.Data != nil {
		next = next.WithData(*r.Data)
	}
	if next, _ = withTerms(next, r.TTL, r.ExpireTime); r.Never {
		next.TTL, next.ExpireTime = 0, time.Time{}
	}
	change := lock.Change{
		Type:   lock.Locked,
		Cause:  lock.Request,
		Actor:  actorOf(caller, r.From, l),
		Reason: fmt.Sprintf("handed over to %s", holderOf(next)),
		Prev:   l.Revision,
		Lock:   next,
	}
	if r.Reason != "" {
		change.Reason += ": " + r.Reason
	}
	return change
}
