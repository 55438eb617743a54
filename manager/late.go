package manager

import (
	"context"

	"github.com/pylok/pylok/lock"
)

// lateCommit is a commit that the store was still at when its caller was answered.
type lateCommit struct {
	pending *lock.PendingError
	changes []lock.Change
	waiter  *waiter // for whom the last change is; nil: nobody waits
}

// isLateFor reports whether the queue has a late commit that is for a waiter, who is
// answered when that is finished. The caller must hold the queue.
func (q *queue) isLateFor(w *waiter) bool { return q.late != nil && q.late.waiter == w }

// finishLater has a late commit finished in the background, which then holds the queue.
// It reports false after Close: then nobody finishes it. The caller must hold the queue.
func (m *Manager) finishLater(q *queue) bool {
	late := q.late
	q.late = nil
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running.Err() != nil {
		return false
	}
	q.users++
	m.background.Go(func() {
		m.finish(q, late)
		m.leave(q)
	})
	return true
}

// finish waits for the outcome of a late commit and does what is then to be done: a
// waiter has its answer, a grant of which nobody was told is undone, and a lock that is
// free is granted to the next. The caller must hold the queue.
func (m *Manager) finish(q *queue, late *lateCommit) {
	events, err := late.pending.Outcome()
	var last lock.Lock
	for i, event := range events {
		switch change := late.changes[i]; change.Type {
		case lock.Unlocked:
			m.leases.Drop(event.Lock.Name, event.Lock.Token)
		case lock.Extended:
			m.leases.Renew(change.Lock)
		case lock.Updated:
			m.leases.Renew(event.Lock)
		case lock.Locked:
			last = event.Lock
			m.leases.Observe(last)
		}
	}
	if w := late.waiter; w != nil {
		if len(late.changes) > 1 {
			err = inHandOver(err)
		}
		m.keepPlace(q, w, err)
		if !staysInLine(err) {
			m.answer(q, w, last, err)
		}
	} else if late.changes[0].Type == lock.Locked && err == nil {
		_ = m.undo(context.Background(), q, last, late.changes[0].Actor) // logged, and tried again
	}
	m.grantNext(q)
}
