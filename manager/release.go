package manager

import (
	"context"
	"errors"
	"fmt"

	"github.com/pylok/pylok/lock"
)

// Unlock ends a hold of the caller, or one that no caller is known of; a stale one, which is
// nobody's any more, with Stale. With a token it
// ends exactly that hold. Without one it ends a hold that is anonymous or has the request's
// non-empty holder. With Force it ends any hold, or with Force and a token just that one,
// whoever holds it.
//
// The errors are *Error with ErrNotLocked, ErrNotHolder, ErrInvalidArgument,
// ErrReadOnly, ErrOutcomeUnknown or ErrShuttingDown, ctx's, and whatever the
// store comes upon.
func (m *Manager) Unlock(ctx context.Context, caller lock.Caller, request lock.UnlockRequest) (lock.Release, error) {
	if err := checkText("holder", request.Holder, maxHolderBytes); err != nil {
		return lock.Release{}, err
	}
	if err := checkReason(request.Reason, request.Force || request.Stale, "ending somebody else's hold (force, stale)"); err != nil {
		return lock.Release{}, err
	}
	q, err := m.enter(ctx, request.Name)
	if err != nil {
		return lock.Release{}, err
	}
	defer m.leave(q.alone...)
	for {
		l, err := m.present(ctx, request.Name)
		if err == nil {
			err = m.mayUnlock(l, caller, request)
		}
		if err != nil {
			return lock.Release{}, err
		}
		change := m.endOf(l, caller, &request)
		was := m.described(l)
		event, next, err := m.release(ctx, q, l, change)
		if errors.Is(err, lock.ErrConflict) {
			continue
		}
		if err != nil {
			return lock.Release{}, err
		}
		return lock.Release{Lock: was, Revision: event.Revision, Next: next}, nil
	}
}

// mayUnlock returns nil if the request may end the hold.
func (m *Manager) mayUnlock(l lock.Lock, caller lock.Caller, request lock.UnlockRequest) error {
	switch {
	case !l.Held():
		return notLocked(l.Name)
	case request.Token != 0 && request.Token != l.Token:
		return m.staleToken(l, request.Token)
	case request.Force:
		return nil
	case request.Stale && !l.Stale():
		return m.notStale(l)
	case request.Stale:
		return nil
	case l.Stale():
		return m.isStale(l)
	case !isOf(l, caller):
		return m.anothers(l, caller)
	case request.Token != 0, l.Holder == "", l.Holder == request.Holder:
		return nil
	}
	held := m.described(l)
	asked := "anonymous"
	if request.Holder != "" {
		asked = lock.QuoteShort(request.Holder)
	}
	return &lock.Error{
		Reason:  lock.ErrNotHolder,
		Message: fmt.Sprintf("%s; the request is %s. Send the hold's token, or break the hold with force and a reason", describeHold(held), asked),
		Lock:    &held,
	}
}

// isOf reports whether the caller may have a hold: one that no caller is known of may be
// anybody's, as far as the token or the holder says so.
func isOf(l lock.Lock, caller lock.Caller) bool {
	return l.Caller == "" || l.Caller == caller.Owner()
}

// anothers refuses what only the caller may do to whom a hold was granted, whatever token
// or holder the request has.
func (m *Manager) anothers(l lock.Lock, caller lock.Caller) error {
	l = m.described(l)
	asks := caller.Name
	if asks == "" {
		asks = "a caller without a proof"
	}
	return &lock.Error{
		Reason:  lock.ErrNotHolder,
		Message: fmt.Sprintf("%s; it was granted to %s, and the request comes from %s, for whom no token or holder counts. Ask as %s, or break the hold with force and a reason", describeHold(l), l.Caller, asks, l.Caller),
		Lock:    &l,
	}
}

// isStale refuses what only the holder of a hold that goes on may do.
func (m *Manager) isStale(l lock.Lock) error {
	l = m.described(l)
	return &lock.Error{
		Reason:  lock.ErrNotHolder,
		Message: fmt.Sprintf("the time of the hold with token %d is over, and it is kept for somebody to look: %s. Who has looked may end it (Unlock with stale and a reason) or take its place (Lock with replace_stale and a reason)", l.Token, describeHold(l)),
		Lock:    &l,
	}
}

// notStale refuses to end a hold as a stale one that is none.
func (m *Manager) notStale(l lock.Lock) error {
	l = m.described(l)
	return &lock.Error{
		Reason:  lock.ErrNotHolder,
		Message: fmt.Sprintf("%s is not stale: %s. Wait for its end, or break the hold with force and a reason", l.Name, describeHold(l)),
		Lock:    &l,
	}
}

// staleToken refuses a token that is not the hold's.
func (m *Manager) staleToken(l lock.Lock, token lock.Token) error {
	l = m.described(l)
	return &lock.Error{
		Reason:  lock.ErrNotHolder,
		Message: fmt.Sprintf("the hold with token %d is over; %s with token %d. What token %d protected may have been changed by others since", token, describeHold(l), l.Token, token),
		Lock:    &l,
	}
}

// end commits the end of the hold l, as change has it. The caller must hold the queue.
func (m *Manager) end(ctx context.Context, q *queue, l lock.Lock, change lock.Change) (lock.Event, error) {
	events, err := m.commit(ctx, q.alone, nil, nil, ending(l, change))
	if err != nil {
		return lock.Event{}, err
	}
	m.leases.Drop(l.Name, l.Token)
	m.over(l.Name)
	return events[0], nil
}

// ending makes change the end of the hold l; its Lock may be set, to l with a closing
// message.
func ending(l lock.Lock, change lock.Change) lock.Change {
	change.Type, change.Prev = lock.Unlocked, l.Revision
	if change.Lock.Name.IsZero() {
		change.Lock = l
	}
	return change
}

// release is end for a lock that others may wait for: the next in line is granted it
// along with the end. It returns the new hold, if there is one. The caller must hold the
// queue.
func (m *Manager) release(ctx context.Context, q *queue, l lock.Lock, change lock.Change) (_ lock.Event, next lock.Lock, err error) {
	var w *waiter
	if l.Name == q.name && !l.Tree {
		w = m.next(q)
	}
	if w == nil {
		event, err := m.end(ctx, q, l, change)
		return event, lock.Lock{}, err
	}
	event, next, err := m.handOver(ctx, q, w, l, change)
	if err == nil && !next.Held() {
		m.handOverSoon(q) // to who is next now
	}
	return event, next, err
}

// handOver ends the hold l and grants the lock to a waiter, who is granting, in one commit.
// Where that is refused the hold is ended alone. It tells the waiter
// what became of it, or puts the waiter back if the grant came to nothing for now, as
// grantTo does. It returns the new hold, if there is one. The caller must hold the queue.
func (m *Manager) handOver(ctx context.Context, q *queue, w *waiter, l lock.Lock, change lock.Change) (_ lock.Event, next lock.Lock, err error) {
	outcome := error(lock.ErrConflict) // of the grant
	defer func() {
		if !q.isLateFor(w) {
			m.keepPlace(w, outcome)
		}
	}()
	queues := q.alone
	grants, guards, err := m.grantsOf(queues, w)
	if err != nil {
		return lock.Event{}, lock.Lock{}, err
	}
	events, err := m.commit(ctx, queues, w, guards, ending(l, change), grants[0])
	switch {
	case err == nil:
		m.leases.Drop(l.Name, l.Token)
		m.observe(events[1].Lock)
	case errors.Is(err, lock.ErrConflict), q.isLateFor(w):
		return lock.Event{}, lock.Lock{}, err
	case isRefused(err): // it may have been for the grant's sake
		outcome = inHandOver(w, err)
		event, err := m.end(ctx, q, l, change)
		return event, lock.Lock{}, err
	default:
		outcome = err
		m.answer(queues, w, nil, err)
		return lock.Event{}, lock.Lock{}, err
	}
	outcome = nil
	if m.answer(queues, w, []lock.Lock{events[1].Lock}, nil) {
		next = m.described(events[1].Lock)
	}
	return events[0], next, nil
}

// inHandOver returns what the outcome of a hand-over means for the grant in it to a waiter: a
// refusal may have been for the sake of the end, so that the grant is to be tried again.
func inHandOver(w *waiter, err error) error {
	if isRefused(err) && (w.once || !forNow(err)) {
		return lock.ErrConflict
	}
	return err
}

// isRefused reports whether err says that a commit changed nothing, and that a smaller one
// may succeed.
func isRefused(err error) bool {
	for _, reason := range []lock.Reason{lock.ErrReadOnly, lock.ErrTooManyLocks, lock.ErrLockFile, lock.ErrDataTooLarge, lock.ErrInvalidName, lock.ErrInvalidArgument} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}
