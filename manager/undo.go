package manager

import (
	"context"
	"errors"
	"time"

	"github.com/pylok/pylok/lock"
)

// undo releases a hold whose caller left before it was told, in the name of its grant's
// actor. Where the store cannot do it for now, it is tried again. It returns the error to
// answer with. The caller must hold the queue.
func (m *Manager) undo(ctx context.Context, q *queue, l lock.Lock, actor string) error {
	err := m.endUntold(context.WithoutCancel(ctx), q, l, actor)
	if err != nil && mayPass(err) {
		m.mu.Lock()
		m.untold[l.Token] = actor
		m.mu.Unlock()
		m.undoLater(l, err)
	}
	return errors.Join(context.Cause(ctx), err)
}

// endUntold ends a hold that nobody was told of, also when others change its data
// meanwhile. The caller must hold the queue.
func (m *Manager) endUntold(ctx context.Context, q *queue, l lock.Lock, actor string) error {
	for granted := l.Token; l.Token == granted; {
		_, err := m.end(ctx, q, l, lock.Change{
			Cause:  lock.Request,
			Actor:  actor,
			Reason: "the caller left before it was answered",
		})
		if !errors.Is(err, lock.ErrConflict) {
			return err
		}
		if l, err = m.present(ctx, l.Name); err != nil {
			return err
		}
	}
	return nil
}

// undoLater tries again to end a hold that is in untold, until it is over or somebody has
// it after all.
func (m *Manager) undoLater(l lock.Lock, cause error) {
	m.config.Logger.Error("the caller of a grant left before it was answered, and the hold could not be ended; trying again", "name", l.Name, "token", l.Token, "error", cause)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.undoAfterLocked(l, minRetryPause)
}

// mayPass reports whether the end of a hold that came to nothing may succeed later, or may
// have succeeded after all.
func mayPass(err error) bool {
	return forNow(err) || errors.Is(err, lock.ErrLockFile) || errors.Is(err, lock.ErrOutcomeUnknown)
}

// undoAfterLocked is one try after a pause. The caller must hold mu.
func (m *Manager) undoAfterLocked(l lock.Lock, pause time.Duration) {
	if m.running.Err() != nil {
		return
	}
	m.background.Go(func() {
		select {
		case <-m.running.Done():
			return
		case <-time.After(pause):
		}
		if m.undoAgain(l) == nil {
			m.adopt(l.Token)
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.undoAfterLocked(l, min(2*pause, maxRetryPause))
	})
}

// undoAgain ends a hold, unless somebody has it after all, and hands the lock on. With an
// error it is still to be undone.
func (m *Manager) undoAgain(l lock.Lock) error {
	q, err := m.enter(m.running, l.Name)
	if err != nil {
		return err
	}
	defer m.leave(q.alone...)
	m.mu.Lock()
	actor, untold := m.untold[l.Token]
	m.mu.Unlock()
	if !untold {
		return nil
	}
	present, err := m.present(m.running, l.Name)
	if err == nil && present.Token == l.Token {
		err = m.endUntold(context.WithoutCancel(m.running), q, present, actor)
	}
	if err == nil && present.Name == q.name {
		m.grantNext(q)
	}
	return err
}

// adopt notes that somebody has the hold, or that it is over. Who holds the queue knows that
// it is not undone from then on.
func (m *Manager) adopt(token lock.Token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.untold, token)
	if d := m.deliveries[token]; d != nil {
		d.told = true
	}
}
