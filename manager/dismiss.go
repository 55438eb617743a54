package manager

import (
	"context"
	"fmt"

	"github.com/pylok/pylok/lock"
)

// Dismiss puts a waiter out of the line: it is refused with ErrLockHeld, and told who did it
// and why.
//
// The errors are *Error with ErrNotLocked, if nobody waits for the lock at that place or the
// waiter is being granted it, or ErrInvalidArgument.
func (m *Manager) Dismiss(ctx context.Context, caller lock.Caller, request lock.DismissRequest) (lock.Waiter, error) {
	if err := checkText("holder", request.Holder, maxHolderBytes); err != nil {
		return lock.Waiter{}, err
	}
	if request.Place == 0 {
		return lock.Waiter{}, lock.Invalid("place", "give the waiter's; Status shows who waits and where")
	}
	if err := checkMessage("reason", request.Reason, "say why, for who waits"); err != nil {
		return lock.Waiter{}, err
	}
	w, waiter, calls := m.takeOut(request.Name, request.Place)
	if w == nil {
		return lock.Waiter{}, &lock.Error{
			Reason:  lock.ErrNotLocked,
			Message: fmt.Sprintf("nobody waits for %s at place %d; Status shows who waits and where", request.Name, request.Place),
		}
	}
	l := m.described(m.lookedAt(request.Name))
	by := lock.Waiter{Holder: request.Holder, Caller: caller.Owner()}.Who()
	err := &lock.Error{
		Reason:  lock.ErrLockHeld,
		Message: fmt.Sprintf("%s put this request out of the line for %s: %s", by, request.Name, request.Reason),
		Lock:    &l,
	}
	for _, c := range calls {
		c.answer <- answer{err: err}
	}
	m.walk(w.queues()...)
	return waiter, nil
}

// takeOut takes the waiter at a place in a line out of all its lines, and returns it, or nil.
func (m *Manager) takeOut(name lock.Name, place uint64) (*waiter, lock.Waiter, []*call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queues[name.Base()]
	if q == nil {
		return nil, lock.Waiter{}, nil
	}
	for e := q.line.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		if w.place != place || w.granting || w.once {
			continue
		}
		waiter := describeWaiter(w)
		m.removeLocked(w)
		w.gone = true
		return w, waiter, w.calls
	}
	return nil, lock.Waiter{}, nil
}

// lookedAt returns a lock as it stands, as far as that can be known.
func (m *Manager) lookedAt(name lock.Name) lock.Lock {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heldLocked(name)
}
