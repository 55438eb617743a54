package lock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// LockRequest asks for a lock.
type LockRequest struct {
	Name Name
	Data Data
	// Holder is who wants the lock, at most 256 bytes; empty means anonymous.
	Holder string
	// TTL makes the hold a lease of 100 ms to 366 days; zero: no lease.
	TTL time.Duration
	// ExpireTime ends the hold at a wall clock time to come; zero: no end.
	// At most one of TTL and ExpireTime is set.
	ExpireTime time.Time
	// Wait is how long to stand in line for a lock that is held; zero: not.
	Wait time.Duration
	// RequestID is the same for every sending of the same request, at most
	// 128 bytes; empty: the request is not sent again.
	RequestID string
	// Overwrite replaces a hold that is anonymous or has the same non-empty
	// Holder.
	Overwrite bool
	// Actor goes into the history: the authenticated caller, else Holder.
	Actor string
}

// Grant is the answer to a LockRequest.
type Grant struct {
	Lock Lock
	// Queued is how long the request stood in line.
	Queued time.Duration
}

// Lock grants a lock. A free one is granted at once, unless others wait for it. A
// held one is granted again to the RequestID that it was granted to, replaced
// where Overwrite allows it, and else waited for, first come, first served.
//
// A caller whose ctx has ended is never granted the lock; a grant whose caller
// leaves while it is being made durable is undone.
//
// The errors are *Error with ErrLockHeld, ErrInvalidArgument, ErrDataTooLarge,
// ErrTooManyLocks, ErrTooManyWaiters, ErrReadOnly, ErrOutcomeUnknown or
// ErrShuttingDown, ctx's, and whatever the store comes upon.
func (m *Manager) Lock(ctx context.Context, request LockRequest) (Grant, error) {
	request, err := m.checkLock(request)
	if err != nil {
		return Grant{}, err
	}
	t, err := m.enter(ctx, request.Name)
	if err != nil {
		return Grant{}, err
	}
	defer m.forget(t)
	grant, inLine, err := m.grantOrQueue(ctx, t, request)
	if inLine == nil {
		return grant, err
	}
	return m.await(t, inLine)
}

// grantOrQueue is Lock for who has the turn, up to where it stands in line. It passes
// the turn.
func (m *Manager) grantOrQueue(ctx context.Context, t *turn, request LockRequest) (Grant, *call, error) {
	defer t.pass()
	for {
		l, err := m.present(ctx, request.Name)
		if err != nil {
			return Grant{}, nil, err
		}
		replaceable := request.Overwrite && (l.Holder == "" || l.Holder == request.Holder)
		switch {
		case l.Held() && request.RequestID != "" && l.RequestID == request.RequestID:
			return Grant{Lock: m.described(l)}, nil, nil

		case !l.Held() && m.grantNext(t):
			continue // it was free for those in line

		case !l.Held(), replaceable:
			l, err := m.grant(ctx, request, l.Revision)
			if errors.Is(err, ErrConflict) {
				continue
			}
			if err == nil && ctx.Err() != nil {
				err = m.undo(ctx, l)
				m.handOverFree(t)
			}
			if err != nil {
				return Grant{}, nil, err
			}
			return Grant{Lock: m.described(l)}, nil, nil

		case request.Wait == 0:
			return Grant{}, nil, heldError(m.described(l), 0)
		}
		c := &call{ctx: ctx, deadline: time.Now().Add(request.Wait), answer: make(chan answer, 1)}
		if !t.wait(request, c, m.config.MaxWaiters) {
			return Grant{}, nil, &Error{
				Reason:  ErrTooManyWaiters,
				Message: fmt.Sprintf("%s already has %d waiters, the most that may stand in line; ask again later", request.Name, m.config.MaxWaiters),
			}
		}
		// The lock may have become free by other hands than a request's, and
		// follow may have found nobody in line.
		m.grantNext(t)
		return Grant{}, c, nil
	}
}

// await waits for the answer to a call that stands in line.
func (m *Manager) await(t *turn, c *call) (Grant, error) {
	timer := time.NewTimer(time.Until(c.deadline))
	defer timer.Stop()
	var err error
	select {
	case a := <-c.answer:
		return a.grant, a.err
	case <-timer.C:
	case <-c.ctx.Done():
		err = c.ctx.Err()
	case <-m.running.Done():
		err = shuttingDown()
	}
	if !t.withdraw(c) {
		if a := <-c.answer; a.err != errPutBack {
			return a.grant, a.err
		}
	}
	if err != nil {
		return Grant{}, err
	}
	l, err := m.present(c.ctx, t.name)
	if err != nil {
		return Grant{}, err
	}
	return Grant{}, heldError(m.described(l), time.Since(c.waiter.since))
}

// granting is the change that grants the lock to the request, over the lock's revision
// prev.
func (r *LockRequest) granting(prev Revision) Change {
	return Change{
		Type:  Locked,
		Cause: Request,
		Actor: r.Actor,
		Prev:  prev,
		Lock: Lock{
			Name:       r.Name,
			Data:       r.Data,
			Holder:     r.Holder,
			TTL:        r.TTL,
			ExpireTime: r.ExpireTime,
			RequestID:  r.RequestID,
		},
	}
}

// grant commits a new hold for the request, over the lock's revision prev.
func (m *Manager) grant(ctx context.Context, request LockRequest, prev Revision) (Lock, error) {
	event, err := m.commit(ctx, request.granting(prev))
	if err != nil {
		return Lock{}, err
	}
	m.leases.observe(event.Lock)
	return event.Lock, nil
}

// undo releases a hold whose caller left before it was told, also when others change
// its data meanwhile. It returns the error to answer with. The caller has the turn.
func (m *Manager) undo(ctx context.Context, l Lock) error {
	for granted := l.Token; l.Token == granted; {
		_, err := m.end(ctx, l, Change{
			Cause:  Request,
			Actor:  l.Holder,
			Reason: "the caller left before it was answered",
		})
		if errors.Is(err, ErrConflict) {
			l, err = m.present(context.WithoutCancel(ctx), l.Name)
		} else if err == nil {
			break
		}
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	return context.Cause(ctx)
}

// grantNext grants a free lock to the first waiter who is still there, and reports
// whether the lock is held now, if anybody was in line. The caller has the turn.
func (m *Manager) grantNext(t *turn) bool {
	for t.waiters() > 0 {
		l, err := m.present(context.Background(), t.name)
		if err == nil && l.Held() {
			return true
		}
		w := t.next()
		if w == nil {
			return false
		}
		if err == nil {
			l, err = m.grantTo(t, w)
		}
		if errors.Is(err, ErrConflict) {
			continue
		}
		if m.answer(w, l, err) {
			return true
		}
	}
	return false
}

// grantTo grants the lock to a waiter who was taken out of the queue. Whose request
// comes to nothing is put back: on ErrConflict, and when the store panics.
func (m *Manager) grantTo(t *turn, w *waiter) (_ Lock, err error) {
	err = ErrConflict
	defer func() {
		if errors.Is(err, ErrConflict) {
			t.putBack(w)
		}
	}()
	return m.grant(context.Background(), w.request, 0)
}

// answer tells a waiter's callers what became of it, and reports whether the lock
// is now theirs.
func (m *Manager) answer(w *waiter, l Lock, err error) bool {
	gone := true
	for _, c := range w.calls {
		gone = gone && c.ctx.Err() != nil
	}
	if err == nil && gone {
		err = m.undo(w.calls[0].ctx, l)
	}
	a := answer{err: err}
	if err == nil {
		a.grant = Grant{Lock: m.described(l), Queued: time.Since(w.since)}
	}
	for _, c := range w.calls {
		c.answer <- a
	}
	return err == nil
}

// handOverSoon grants the lock to the next waiter in the background, when the turn
// comes. The caller holds m.mu.
func (m *Manager) handOverSoon(t *turn) {
	if t.waiters() == 0 {
		return
	}
	t.users++
	go func() {
		<-t.baton
		m.grantNext(t)
		m.leave(t)
	}()
}

// handOverFree is handOverSoon for the caller who has made the lock free.
func (m *Manager) handOverFree(t *turn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handOverSoon(t)
}
