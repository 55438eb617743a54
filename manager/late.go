package manager

import (
	"context"

	"github.com/pylok/pylok/lock"
)

// lateCommit is a commit that the store was still at when its caller was answered.
type lateCommit struct {
	pending *lock.PendingError
	changes []lock.Change
	waiter  *waiter  // for whom the grants are; nil: nobody waits
	untold  bool     // it grants a lock to somebody who does not wait, and so is not told of it
	queues  []*queue // that are held until it is finished
}

// isLateFor reports whether the queue has a late commit that is for a waiter, who is
// answered when that is finished. The caller must hold the queue.
func (q *queue) isLateFor(w *waiter) bool { return q.late != nil && q.late.waiter == w }

// finishLater has a late commit finished in the background, which then holds its queues.
// It reports false after Close: then nobody finishes it. The caller must hold the queues.
func (m *Manager) finishLater(q *queue) bool {
	late := q.late
	q.late = nil
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running.Err() != nil {
		return false
	}
	for _, q := range late.queues {
		q.users++
	}
	m.background.Go(func() {
		m.finish(late)
		m.leave(late.queues...)
	})
	return true
}

// finish waits for the outcome of a late commit and does what is then to be done: a
// waiter has its answer, a grant of which nobody was told is undone, and a lock that is
// free is granted to the next. The caller must hold its queues.
func (m *Manager) finish(late *lateCommit) {
	events, err := late.pending.Outcome()
	var granted []lock.Lock
	for i, event := range events {
		switch change := late.changes[i]; change.Type {
		case lock.Unlocked:
			m.leases.Drop(event.Lock.Name, event.Lock.Token)
			m.over(event.Lock.Name)
		case lock.Extended:
			m.leases.Renew(change.Lock)
		case lock.Updated:
			m.leases.Renew(event.Lock)
		case lock.Locked:
			granted = append(granted, event.Lock)
			m.observe(event.Lock)
		}
	}
	if w := late.waiter; w != nil {
		if late.changes[0].Type == lock.Unlocked {
			err = inHandOver(w, err)
		}
		m.keepPlace(w, err)
		if !staysInLine(w, err) {
			m.answer(late.queues, w, granted, err)
		}
	} else if late.untold && err == nil {
		_ = m.undo(context.Background(), late.queues, granted, late.changes[0].Actor) // logged, and tried again
	}
	for _, q := range late.queues {
		m.grantNext(q)
	}
}
