package manager

import (
	"context"
	"errors"

	"github.com/pylok/pylok/lease"
	"github.com/pylok/pylok/lock"
)

// expire ends a hold whose lease has run out, unless it was renewed meanwhile.
func (m *Manager) expire(ctx context.Context, ended *lease.Lease) error {
	q, err := m.enter(ctx, ended.Name)
	if err != nil {
		return err
	}
	defer m.leave(q.alone...)
	for {
		l, err := m.present(ctx, ended.Name)
		switch {
		case err != nil:
			return err
		case l.Token != ended.Token:
			m.leases.Drop(ended.Name, ended.Token)
			if !l.Held() && l.Name == q.name {
				m.grantNext(q)
			}
			return nil
		case !m.leases.Due(l):
			m.leases.Keep(ended, l)
			return nil
		}
		err = m.endLease(ctx, q, l)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, lock.ErrConflict):
			if why := err.Error(); why != ended.Failed {
				ended.Failed = why
				m.config.Logger.Error("a lease ran out and the hold could not be ended; trying again", "name", l.Name, "token", l.Token, "error", err)
			}
			return err
		}
	}
}

// endLease commits the end of a hold whose deadline has passed, and grants the lock to
// the next in line; or that it is stale, if it is to be kept. ErrConflict means that it has to be looked at again. The caller must
// hold the queue.
func (m *Manager) endLease(ctx context.Context, q *queue, l lock.Lock) error {
	if l.OnExpiry == lock.Keep {
		return m.keepStale(ctx, q, l)
	}
	_, _, err := m.release(ctx, q, l, lock.Change{Cause: lock.Expired, Reason: "the lease ran out"})
	if err == nil {
		m.config.Logger.Info("lease ran out", "name", l.Name, "holder", l.Holder, "token", l.Token)
	}
	return err
}

// keepStale commits that a hold whose deadline has passed is stale. The caller must hold the
// queue.
func (m *Manager) keepStale(ctx context.Context, q *queue, l lock.Lock) error {
	stale := l
	stale.StaleTime = now()
	_, err := m.commit(ctx, q.alone, nil, nil, lock.Change{
		Type:   lock.Updated,
		Cause:  lock.Expired,
		Reason: "the lease ran out, and the hold is kept for somebody to look",
		Prev:   l.Revision,
		Lock:   stale,
	})
	if err == nil {
		m.leases.Drop(l.Name, l.Token)
		m.config.Logger.Info("lease ran out; the hold is stale", "name", l.Name, "holder", l.Holder, "token", l.Token)
	}
	return err
}
