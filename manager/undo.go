package manager

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/pylok/pylok/lock"
)

// errLeft: all callers of a grant have left.
var errLeft = errors.New("the caller left before it was answered")

// undo releases holds of one grant whose callers left before they were told, in the name of
// its actor. Where the store cannot do it for now, it is tried again. It returns the error to
// answer with. The caller must hold the queues.
func (m *Manager) undo(ctx context.Context, queues []*queue, locks []lock.Lock, actor string) error {
	err := m.endUntold(context.WithoutCancel(ctx), queues, locks, actor)
	if err != nil && mayPass(err) {
		m.mu.Lock()
		for _, l := range locks {
			m.untold[l.Token] = actor
		}
		m.mu.Unlock()
		m.undoLater(locks, err)
	}
	return errors.Join(cmp.Or(context.Cause(ctx), errLeft), err)
}

// endUntold ends holds that nobody was told of, as far as they stand, in one commit, also
// when others change their data meanwhile. The caller must hold the queues.
func (m *Manager) endUntold(ctx context.Context, queues []*queue, locks []lock.Lock, actor string) error {
	for {
		var changes []lock.Change
		for _, l := range locks {
			present, err := m.present(ctx, l.Name)
			if err != nil {
				return err
			}
			if present.Token == l.Token {
				changes = append(changes, ending(present, lock.Change{Cause: lock.Request, Actor: actor, Reason: errLeft.Error()}))
			}
		}
		if len(changes) == 0 {
			return nil
		}
		events, err := m.commit(ctx, queues, nil, nil, changes...)
		if errors.Is(err, lock.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		for _, event := range events {
			m.leases.Drop(event.Lock.Name, event.Lock.Token)
			m.over(event.Lock.Name)
		}
		return nil
	}
}

// undoLater tries again to end holds that are in untold, each by itself, until it is over or
// somebody has it after all.
func (m *Manager) undoLater(locks []lock.Lock, cause error) {
	for _, l := range locks {
		m.config.Logger.Error("the caller of a grant left before it was answered, and the hold could not be ended; trying again", "name", l.Name, "token", l.Token, "error", cause)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range locks {
		m.undoAfterLocked(l, minRetryPause)
	}
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

// undoAgain ends the holds of one grant that nobody has after all, and hands the locks on.
// With an error they are still to be undone.
func (m *Manager) undoAgain(locks ...lock.Lock) error {
	names := make([]lock.Name, len(locks))
	for i, l := range locks {
		names[i] = l.Name
	}
	queues, err := m.enterAll(m.running, names)
	if err != nil {
		return err
	}
	defer m.leave(queues...)
	var untold []lock.Lock
	var actor string
	m.mu.Lock()
	for _, l := range locks {
		if by, ok := m.untold[l.Token]; ok {
			untold, actor = append(untold, l), by
		}
	}
	m.mu.Unlock()
	return m.endUntold(context.WithoutCancel(m.running), queues, untold, actor)
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
