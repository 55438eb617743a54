package manager

import (
	"fmt"

	"github.com/pylok/pylok/lock"
)

// How many of a lock's waiters are shown: by Status, and with others' answers.
const (
	mostWaitingInStatus = 100
	mostWaiting         = 10
)

// situated adds who waits for a lock and what stands around it.
func (m *Manager) situated(l lock.Lock, most int) lock.Lock {
	s, maybeShared, waiters := m.situation(l, most)
	if s == nil {
		return l
	}
	l.Waiters = waiters
	if maybeShared {
		s.SharedHolds = m.count(l.Name.Slots())
		if l.Held() && s.SharedHolds > 0 {
			s.Conflict = fmt.Sprintf("it is held beside %d shared holds", s.SharedHolds)
		}
	}
	if s.Waiting != nil || s.SharedHolds > 0 || s.BlockedBy != nil || s.Conflict != "" {
		l.Situation = s
	}
	return l
}

// withHeldBelow adds how many locks are held below a tree, which takes a look at each.
func (m *Manager) withHeldBelow(l lock.Lock) lock.Lock {
	if !l.Tree {
		return l
	}
	if n := m.count(l.Name.Below()); n > 0 {
		var s lock.Situation
		if l.Situation != nil {
			s = *l.Situation
		}
		s.HeldBelow = n
		l.Situation = &s
	}
	return l
}

// situation returns what a look at the lines tells of a lock, whether shared holds of it may
// stand, and how many wait for it; nil: there is nothing around it.
func (m *Manager) situation(l lock.Lock, most int) (s *lock.Situation, maybeShared bool, waiters int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queues[l.Name]
	if (q == nil || q.line.Len() == 0) && m.special.Load() == 0 {
		return nil, false, 0 // as a rule
	}
	s = new(lock.Situation)
	if q != nil {
		waiters = q.line.Len() - q.onces
		for e := q.line.Front(); e != nil && len(s.Waiting) < most; e = e.Next() {
			if w := e.Value.(*waiter); !w.once && !w.gone {
				s.Waiting = append(s.Waiting, describeWaiter(w))
			}
		}
	}
	_, maybeShared = m.shared[l.Name]
	switch {
	case l.Held():
		s.Conflict, s.ConflictWith = m.conflictLocked(l)
	case q == nil:
		s.BlockedBy = m.besideLocked(nil, &queue{name: l.Name})
	default:
		s.BlockedBy = m.besideLocked(nil, q)
	}
	return s, maybeShared, waiters
}

// count returns how many locks are held that a pattern selects.
func (m *Manager) count(p lock.Pattern) (n int) {
	_, locks := m.store.List(m.running, p, lock.Name{})
	for _, err := range locks {
		if err != nil {
			break
		}
		n++
	}
	return n
}

// conflictLocked returns what a hold is at odds with, in words, and which other lock that is.
// The caller must hold mu.
func (m *Manager) conflictLocked(l lock.Lock) (string, lock.Name) {
	if l.Shared() {
		if base := m.heldLocked(l.Name.Base()); base.Held() {
			return fmt.Sprintf("it is a shared hold, and %s is held by %s too", base.Name, holderOf(base)), base.Name
		}
	}
	for above := range l.Name.Above() {
		if s := m.scopes[above]; s != nil && s.tree {
			if tree := m.heldLocked(above); tree.Tree && tree.Token < l.Token {
				return fmt.Sprintf("it began while %s was frozen by %s", above, holderOf(tree)), above
			}
		}
	}
	return "", lock.Name{}
}
