package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pylok/pylok/lock"
)

// Renew begins the lease anew, by its ttl or by the terms given, and replaces the
// data if there is some. A renewal that succeeds keeps the hold for the whole ttl
// from then. New data make an event and a revision; an expiry alone makes none,
// and if it is the one that stands, nothing is written at all.
//
// After the hold has ended, by its deadline too, the error is an *Error with
// ErrNotHolder, or ErrNotLocked where the lock is free and the hold, as far as the
// history tells, did not expire. Others are as for Lock.
func (m *Manager) Renew(ctx context.Context, caller lock.Caller, request lock.RenewRequest) (lock.Lock, error) {
	if request.Token == 0 {
		return lock.Lock{}, lock.Invalid("token", "give the token of the hold to renew; Lock and Status return it")
	}
	if err := checkText("holder", request.Holder, maxHolderBytes); err != nil {
		return lock.Lock{}, err
	}
	if err := checkExpiry(request.TTL, &request.ExpireTime); err != nil {
		return lock.Lock{}, err
	}
	q, err := m.enter(ctx, request.Name)
	if err != nil {
		return lock.Lock{}, err
	}
	l, err := m.renewHeld(ctx, q, caller, request)
	switch {
	case err != nil:
		return lock.Lock{}, err
	case !l.Held(): // what is left to say takes time and decides nothing
		return lock.Lock{}, m.overError(ctx, request.Name, request.Token)
	}
	return m.described(l), nil
}

// renewHeld is Renew up to where there is nothing to renew: it returns the lock if that is
// free. The caller must hold the queue, which it leaves.
func (m *Manager) renewHeld(ctx context.Context, q *queue, caller lock.Caller, request lock.RenewRequest) (lock.Lock, error) {
	defer m.leave(q.alone...)
	for {
		l, err := m.renewable(ctx, q, caller, request)
		if err != nil || !l.Held() {
			return l, err
		}
		m.adopt(l.Token)
		next := l
		if request.Data != nil {
			next = next.WithData(*request.Data)
		}
		next, isNew := withTerms(next, request.TTL, request.ExpireTime)
		if !isNew && l.TTL == 0 && request.Data == nil {
			return lock.Lock{}, nothingToRenew(l)
		}
		change := lock.Change{Cause: lock.Request, Actor: actorOf(caller, request.Holder, l), Prev: l.Revision, Lock: next}
		switch {
		case request.Data != nil:
			change.Type = lock.Updated
		case haveOtherTerms(next, l):
			change.Type = lock.Extended
		}
		if change.Type != 0 {
			events, err := m.commit(ctx, q.alone, nil, nil, change)
			if errors.Is(err, lock.ErrConflict) {
				continue
			}
			if err != nil {
				return lock.Lock{}, err
			}
			if change.Type == lock.Updated {
				next = events[0].Lock
			}
		}
		m.leases.Renew(next)
		return next, nil
	}
}

// withTerms returns a hold with new terms, and whether there are any.
func withTerms(l lock.Lock, ttl time.Duration, expireTime time.Time) (lock.Lock, bool) {
	if ttl == 0 && expireTime.IsZero() {
		return l, false
	}
	l.TTL, l.ExpireTime = ttl, expireTime
	return l, true
}

// haveOtherTerms reports whether two states of a hold end at different times.
func haveOtherTerms(a, b lock.Lock) bool {
	return a.TTL != b.TTL || !a.ExpireTime.Equal(b.ExpireTime)
}

// nothingToRenew refuses a renewal that would change nothing.
func nothingToRenew(l lock.Lock) error {
	return lock.Invalid("ttl", fmt.Sprintf("the hold of %s has none to begin anew; say for how long it goes on, or until when", l.Name))
}

// actorOf returns who changes a hold that is theirs: the caller, or the holder that the request
// names, or the hold's, for who has the token is the holder.
func actorOf(caller lock.Caller, holder string, l lock.Lock) string {
	return cmp.Or(caller.Actor(holder), lock.Claimed(l.Holder))
}

// renewable returns the hold if the request may renew it, or the lock if it is free.
// The caller must hold the queue.
func (m *Manager) renewable(ctx context.Context, q *queue, caller lock.Caller, request lock.RenewRequest) (lock.Lock, error) {
	l, err := m.present(ctx, request.Name)
	for err == nil && l.Held() && !l.Stale() && m.leases.Due(l) {
		// The deadline has passed and this request came before the
		// goroutine that expires: it is the deadline that counts.
		if err = m.endLease(ctx, q, l); err == nil || errors.Is(err, lock.ErrConflict) {
			if request.Name == q.name {
				m.grantNext(q)
			}
			l, err = m.present(ctx, request.Name)
		}
	}
	switch {
	case err != nil:
		return lock.Lock{}, err
	case l.Held() && l.Token != request.Token:
		return lock.Lock{}, m.staleToken(l, request.Token)
	case l.Stale():
		return lock.Lock{}, m.isStale(l)
	case l.Held() && !isOf(l, caller):
		return lock.Lock{}, m.anothers(l, caller)
	}
	return l, nil
}

// overError refuses a token whose hold is over, while nobody has the lock.
func (m *Manager) overError(ctx context.Context, name lock.Name, token lock.Token) error {
	expired, err := m.hasExpired(ctx, name, token)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, lock.ErrShuttingDown):
		return err
	case err != nil:
		// The hold is over, and that its holder must be told.
		m.config.Logger.Error("the history of a hold cannot be read", "name", name, "token", token, "error", err)
	case expired:
		return &lock.Error{
			Reason:  lock.ErrNotHolder,
			Message: fmt.Sprintf("the hold with token %d has expired and %s is free; lock it again, and look at what it protects first", token, name),
			Lock:    &lock.Lock{Name: name},
		}
	}
	return notLocked(name)
}

// expiredLimit is how long Renew looks for what to say of a hold that is over.
const expiredLimit = 2 * time.Second

// hasExpired reports whether a hold of a lock that is free now has expired, as far as the
// history tells at once.
func (m *Manager) hasExpired(ctx context.Context, name lock.Name, token lock.Token) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, expiredLimit)
	defer cancel()
	page, err := m.History(ctx, lock.Caller{}, lock.HistoryQuery{
		Pattern: lock.MustParsePattern(name.String()),
		After:   lock.Revision(token),
		Cause:   lock.Expired,
	}, 0, 1)
	if err != nil || len(page.Events) == 0 {
		return false, err
	}
	return page.Events[0].Lock.Token == token, nil // the first after its grant, if it did
}
