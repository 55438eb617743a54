package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pylok/pylok/lock"
)

// Lock grants a lock. A free one is granted at once, unless others wait for it. A
// held one is granted again to the RequestID and the caller that it was granted to,
// replaced where Overwrite allows it, and else waited for, first come, first served.
//
// A caller whose ctx has ended is never granted the lock; a grant whose caller
// leaves while it is being made durable is undone. A waiter whose grant the store cannot
// make for now (ErrReadOnly, ErrTooManyLocks) keeps its place, and is told so when its
// wait ends. Behind a store that hangs a request is answered with ErrReadOnly within a
// minute, and with ErrOutcomeUnknown where it was being granted the lock; a grant that
// then still comes about is undone.
//
// The errors are *Error with ErrLockHeld, ErrInvalidArgument, ErrDataTooLarge,
// ErrTooManyLocks, ErrTooManyWaiters, ErrReadOnly, ErrOutcomeUnknown or
// ErrShuttingDown, ctx's, and whatever the store comes upon.
func (m *Manager) Lock(ctx context.Context, caller lock.Caller, request lock.LockRequest) (lock.Grant, error) {
	request, err := m.checkLock(request)
	if err != nil {
		return lock.Grant{}, err
	}
	q, err := m.enter(ctx, request.Name)
	if err != nil {
		return lock.Grant{}, err
	}
	defer m.forget(q)
	grant, inLine, err := m.grantOrQueue(ctx, q, caller, request)
	if inLine == nil {
		return grant, err
	}
	grant, err = m.await(q, inLine)
	if err == nil {
		err = m.tell(ctx, grant.Lock, caller.Actor(request.Holder), request.Confirm)
	}
	if err != nil {
		return lock.Grant{}, err
	}
	return grant, nil
}

// grantOrQueue is Lock up to where the request stands in line. The caller must hold the
// queue, which it passes on.
func (m *Manager) grantOrQueue(ctx context.Context, q *queue, caller lock.Caller, request lock.LockRequest) (lock.Grant, *call, error) {
	defer m.pass(q)
	for {
		l, err := m.present(ctx, request.Name)
		if err != nil {
			return lock.Grant{}, nil, err
		}
		var notNow error // why those in line cannot be granted the free lock
		if !l.Held() {
			held, err := m.grantNext(q)
			if held {
				continue // it was free for those in line
			}
			notNow = err
		}
		switch {
		case l.Held() && request.RequestID != "" && l.RequestID == request.RequestID && l.Caller == caller.Owner():
			m.adopt(l.Token)
			return lock.Grant{Lock: m.described(l)}, nil, nil

		case !l.Held() && notNow == nil, l.Held() && mayOverwrite(l, caller, &request):
			broke := l.Held() && !isOf(l, caller)
			l, err := m.grant(ctx, q, nil, caller, request, l)
			if errors.Is(err, lock.ErrConflict) {
				continue
			}
			if err == nil && ctx.Err() != nil {
				err = m.undo(ctx, q, l, caller.Actor(l.Holder))
				m.handOverSoon(q)
			}
			if err != nil {
				return lock.Grant{}, nil, err
			}
			return lock.Grant{Lock: m.described(l), Broke: broke}, nil, nil

		case request.Wait == 0 && notNow != nil:
			return lock.Grant{}, nil, notNow

		case request.Wait == 0:
			return lock.Grant{}, nil, heldError(m.described(l), 0)
		}
		c, err := m.standInLine(ctx, q, caller, request)
		if err != nil {
			return lock.Grant{}, nil, err
		}
		// The lock may have become free by other hands than a request's, and
		// follow may have found nobody in line.
		m.grantNext(q)
		return lock.Grant{}, c, nil
	}
}

// mayOverwrite reports whether a request to overwrite may replace the hold l: it is
// anonymous or of the same holder, and no other caller's, unless the right to break holds
// lets it.
func mayOverwrite(l lock.Lock, caller lock.Caller, request *lock.LockRequest) bool {
	return request.Overwrite && (l.Holder == "" || l.Holder == request.Holder) && (isOf(l, caller) || request.MayBreak)
}

// standInLine gives the request a place in the queue, unless it could not be granted the
// lock anyway or too many wait. The caller must hold the queue, and ends by leaveLine what
// has begun here.
func (m *Manager) standInLine(ctx context.Context, q *queue, caller lock.Caller, request lock.LockRequest) (*call, error) {
	if err := m.store.CheckSize(granting(caller, &request, lock.Lock{}).Lock); err != nil {
		return nil, err
	}
	c := &call{ctx: ctx, deadline: time.Now().Add(request.Wait), bytes: bytesOf(caller, &request), answer: make(chan answer, 1)}
	if err := m.count(q, c); err != nil {
		return nil, err
	}
	if !q.wait(caller, request, c) {
		m.leaveLine(q, c)
		return nil, tooManyWaiters(fmt.Sprintf("the request %s waits for %s already and was sent %d times", lock.QuoteShort(request.RequestID), q.name, maxCalls))
	}
	return c, nil
}

// count counts a call among those that wait, if there is room.
func (m *Manager) count(q *queue, c *call) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case q.waiting >= m.config.MaxWaiters:
		return tooManyWaiters(fmt.Sprintf("%s already has %d waiters, the most that may stand in line for one lock", q.name, q.waiting))
	case m.waiting >= m.config.MaxWaitersTotal:
		return tooManyWaiters(fmt.Sprintf("%d requests wait for locks, the most that the server lets wait in all", m.waiting))
	case m.waitingBytes+c.bytes > m.config.MaxWaitingBytes:
		return tooManyWaiters(fmt.Sprintf("the requests that wait for locks have %d bytes of data, and with this one's they would be over the %d that the server keeps in all", m.waitingBytes, m.config.MaxWaitingBytes))
	}
	q.waiting++
	m.waiting++
	m.waitingBytes += c.bytes
	return nil
}

// leaveLine ends what count has begun.
func (m *Manager) leaveLine(q *queue, c *call) {
	m.mu.Lock()
	q.waiting--
	m.waiting--
	m.waitingBytes -= c.bytes
	m.mu.Unlock()
}

// bytesOf is how many bytes a request keeps while it waits, about.
func bytesOf(caller lock.Caller, r *lock.LockRequest) int {
	return len(r.Name.String()) + r.Data.Size() + len(r.Holder) + len(r.RequestID) + len(caller.Name)
}

// await waits for the answer to a call that stands in line.
func (m *Manager) await(q *queue, c *call) (lock.Grant, error) {
	defer m.leaveLine(q, c)
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
	if !q.withdraw(c) {
		a, ok := q.lateAnswer(c)
		if !ok {
			return lock.Grant{}, &lock.Error{
				Reason:  lock.ErrOutcomeUnknown,
				Message: fmt.Sprintf("the wait ended while %s was being granted, and the grant has not ended for %v, maybe because the server's disk hangs; a grant that still comes about is undone. Ask again with the same request_id", q.name, answerLimit),
				Err:     err,
			}
		}
		if a.err != errPutBack {
			return a.grant, a.err
		}
	}
	if err != nil {
		return lock.Grant{}, err
	}
	l, err := m.present(c.ctx, q.name)
	switch {
	case err != nil:
		return lock.Grant{}, err
	case !l.Held():
		if cause := q.notNow(); cause != nil {
			return lock.Grant{}, cause
		}
	}
	return lock.Grant{}, heldError(m.described(l), time.Since(c.waiter.since))
}

// answerLimit is how long a call whose wait has ended stays for the answer, when it is
// being granted the lock. The store alone can take so long.
const answerLimit = 5 * time.Second

// lateAnswer returns the answer to a call that withdrew while it was being granted the
// lock, if it comes in time; else the call is not granted the lock any more.
func (q *queue) lateAnswer(c *call) (answer, bool) {
	timer := time.NewTimer(answerLimit)
	defer timer.Stop()
	select {
	case a := <-c.answer:
		return a, true
	case <-timer.C:
	}
	if q.abandon(c) {
		return answer{}, false
	}
	return <-c.answer, true
}

// granting is the change that grants the lock to the request, in place of the hold prev if
// there is one.
func granting(caller lock.Caller, r *lock.LockRequest, prev lock.Lock) lock.Change {
	cause := lock.Request
	if prev.Held() && !isOf(prev, caller) {
		cause = lock.Forced
	}
	return lock.Change{
		Type:  lock.Locked,
		Cause: cause,
		Actor: caller.Actor(r.Holder),
		Prev:  prev.Revision,
		Lock: lock.Lock{
			Name:       r.Name,
			Data:       r.Data,
			Holder:     r.Holder,
			Caller:     caller.Owner(),
			TTL:        r.TTL,
			ExpireTime: r.ExpireTime,
			RequestID:  r.RequestID,
		},
	}
}

// grant commits a new hold for the request, which may be a waiter's, in place of the hold
// prev if there is one. The caller must hold the queue.
func (m *Manager) grant(ctx context.Context, q *queue, w *waiter, caller lock.Caller, request lock.LockRequest, prev lock.Lock) (lock.Lock, error) {
	events, err := m.commit(ctx, q, w, granting(caller, &request, prev))
	if err != nil {
		return lock.Lock{}, err
	}
	m.leases.Observe(events[0].Lock)
	return events[0].Lock, nil
}

// grantNext grants a free lock to the first waiter who is still there, and reports
// whether the lock is held now, if anybody was in line. An error means that the store
// cannot make the grant for now: those in line keep their places, and it is tried again.
// The caller must hold the queue.
func (m *Manager) grantNext(q *queue) (held bool, notNow error) {
	for q.waiters() > 0 && m.running.Err() == nil && q.late == nil {
		l, err := m.present(context.Background(), q.name)
		if err == nil && l.Held() {
			return true, nil
		}
		w := q.next()
		if w == nil {
			break
		}
		if err == nil {
			l, err = m.grantTo(q, w)
		}
		switch {
		case q.late != nil:
			return false, stuck(q)
		case forNow(err):
			return false, err
		case staysInLine(err):
		case m.answer(q, w, l, err):
			return true, nil
		}
	}
	return false, nil
}

// grantTo grants the lock to a waiter who was taken out of the queue. If that comes to
// nothing for now, the waiter is put back, also when the store panics. The caller must hold
// the queue.
func (m *Manager) grantTo(q *queue, w *waiter) (_ lock.Lock, err error) {
	err = lock.ErrConflict
	defer func() {
		if !q.isLateFor(w) {
			m.keepPlace(q, w, err)
		}
	}()
	return m.grant(context.Background(), q, w, w.caller, w.request, lock.Lock{})
}

// keepPlace puts a waiter back who was taken out to be granted the lock, if the outcome of
// that says that it is to be tried again. The caller must hold the queue.
func (m *Manager) keepPlace(q *queue, w *waiter, outcome error) {
	if staysInLine(outcome) {
		q.putBack(w)
	}
	if forNow(outcome) {
		m.handOverLater(q, outcome)
	} else {
		q.canGrant()
	}
}

// staysInLine reports whether a waiter keeps the place after a grant that came to
// nothing: others were faster, or the store cannot make it for now.
func staysInLine(err error) bool { return errors.Is(err, lock.ErrConflict) || forNow(err) }

// answer tells a waiter's callers what became of it, and reports whether the lock
// is now theirs. The caller must hold the queue.
func (m *Manager) answer(q *queue, w *waiter, l lock.Lock, err error) bool {
	callers := q.decide(w)
	if callers == 0 && err == nil {
		err = m.undo(w.calls[0].ctx, q, l, w.caller.Actor(l.Holder))
	}
	a := answer{err: err}
	if err == nil {
		m.deliver(l.Token, callers)
		a.grant = lock.Grant{Lock: m.described(l), Queued: time.Since(w.since)}
	}
	for _, c := range w.calls {
		c.answer <- a
	}
	return err == nil
}

// handOverSoon grants the lock to the next waiter in the background, when the queue is
// free.
func (m *Manager) handOverSoon(q *queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handOverSoonLocked(q)
}

// handOverSoonLocked is handOverSoon. The caller must hold mu.
func (m *Manager) handOverSoonLocked(q *queue) {
	if q.handingOver || m.running.Err() != nil || q.waiters() == 0 {
		return
	}
	q.handingOver = true
	q.users++
	m.background.Go(func() {
		select {
		case <-q.sem:
		case <-m.running.Done():
			m.forget(q)
			return
		}
		m.mu.Lock()
		q.handingOver = false
		m.mu.Unlock()
		m.grantNext(q)
		m.leave(q)
	})
}
