package manager

import (
	"context"
	"fmt"
	"slices"

	"github.com/pylok/pylok/lock"
)

// scope is what is known of a name above others: that it may be held as a tree, and who is
// about to have it so. It is guarded by Manager.mu. That a tree is held is a hint: what
// counts is the store, which is asked where there is one.
type scope struct {
	name    lock.Name
	tree    bool                // it may be held as a tree
	closing []*waiter           // for a tree, in the order of their places, that keep later requests below waiting
	behind  map[*queue]struct{} // below, that are to be walked over when this changes
}

// barrier is how far a request for a tree has come with seeing that no grant below is under
// way that was decided before it stood in the way of others there.
type barrier struct{ done bool }

// countSpecialLocked counts what makes more to be looked at than the lock itself. The caller
// must hold mu.
func (m *Manager) countSpecialLocked() {
	m.special.Store(int32(len(m.scopes) + len(m.shared)))
}

// scopeLocked returns the scope of a name, which is made if need be. The caller must hold mu.
func (m *Manager) scopeLocked(name lock.Name) *scope {
	s := m.scopes[name]
	if s == nil {
		s = &scope{name: name, behind: make(map[*queue]struct{})}
		m.scopes[name] = s
		m.countSpecialLocked()
	}
	return s
}

// dropScopeLocked forgets a scope that says nothing any more, and has those walked over who
// stood behind it. The caller must hold mu.
func (m *Manager) dropScopeLocked(s *scope) {
	for q := range s.behind {
		m.awake = append(m.awake, q)
		q.behind = slices.DeleteFunc(q.behind, func(other *scope) bool { return other == s })
	}
	clear(s.behind)
	s.tree = s.tree || m.heldLocked(s.name).Tree // maybe one that was made by hand just now
	if !s.tree && len(s.closing) == 0 {
		delete(m.scopes, s.name)
		m.countSpecialLocked()
	}
	m.wakeLocked()
}

// wakeLocked has those in awake walked over in the background, if nobody comes before. The
// caller must hold mu.
func (m *Manager) wakeLocked() {
	if len(m.awake) > 0 && m.running.Err() == nil {
		m.background.Go(func() { m.walk() })
	}
}

// standBehindLocked has a queue walked over when what covers its lock changes, because a
// waiter in it stands behind that. The caller must hold mu.
func (m *Manager) standBehindLocked(w *waiter, q *queue) {
	for above := range q.name.Above() {
		if s := m.scopes[above]; s != nil {
			if _, stands := s.behind[q]; !stands {
				s.behind[q] = struct{}{}
				q.behind = append(q.behind, s)
			}
		}
	}
}

// coverLocked returns what is above a lock and keeps it from a request: a tree that is held,
// or one that is about to be; nil: nothing does. A request that has no place yet comes
// after all others; w is nil then, or its place 0. The caller must hold mu.
func (m *Manager) coverLocked(w *waiter, name lock.Name) *lock.Obstacle {
	return m.coverByLocked(w, name, m.heldLocked)
}

// coverByLocked is coverLocked where held returns the locks above as they stand. The caller
// must hold mu.
func (m *Manager) coverByLocked(w *waiter, name lock.Name, held func(lock.Name) lock.Lock) *lock.Obstacle {
	if len(m.scopes) == 0 || w != nil && w.request.ThroughFreeze {
		return nil
	}
	for above := range name.Above() {
		s := m.scopes[above]
		if s == nil {
			continue
		}
		if l := held(above); l.Tree {
			return &lock.Obstacle{Kind: lock.ByTree, Lock: l}
		}
		for _, t := range s.closing {
			if t != w && !t.gone && (w == nil || w.place == 0 || t.place < w.place || t.passes(w)) {
				return aboutToCover(t)
			}
		}
	}
	return nil
}

// aboutToCover is the obstacle that a request for a tree is for those below. The caller must
// hold mu.
func aboutToCover(t *waiter) *lock.Obstacle {
	d := describeWaiter(t)
	d.Names = []lock.Name{t.request.Name} // it waits for another lock than they do
	return &lock.Obstacle{Kind: lock.ByWaiter, Waiter: d}
}

// cover is coverLocked for a waiter of the walk. What covers does so for all whom the walk
// looks at: if it ended for the younger ones among them alone, they would overtake the older.
func (k *walk) cover(w *waiter, name lock.Name) *lock.Obstacle {
	if w.request.ThroughFreeze {
		return nil
	}
	for _, t := range k.left {
		if t.request.Name.Covers(name) && (t.place < w.place || t.passes(w)) {
			return aboutToCover(t)
		}
	}
	return k.m.coverByLocked(w, name, func(above lock.Name) lock.Lock {
		l, known := k.above[above]
		if !known {
			l = k.m.heldLocked(above)
			if k.above == nil {
				k.above = make(map[lock.Name]lock.Lock)
			}
			k.above[above] = l
		}
		return l
	})
}

// isDrainingLocked reports whether somebody with a lower place than a waiter waits for a lock
// to be free, so as to have a tree above it. The caller must hold mu.
func (m *Manager) isDrainingLocked(w *waiter, name lock.Name) bool {
	if len(m.scopes) == 0 {
		return false
	}
	for above := range name.Above() {
		if s := m.scopes[above]; s != nil && len(s.closing) > 0 && s.closing[0].place < w.place {
			return true
		}
	}
	return false
}

// passes reports whether a request for a tree, which is about to be granted, passes a waiter
// below with a lower place: one that drains comes after such, one that does not passes them,
// but for another that is about to be granted.
func (t *waiter) passes(w *waiter) bool {
	return !t.request.Drain && !(w.closes() && w.barrier != nil)
}

// isPassed reports whether a lock is covered by nothing but trees that are about to be
// granted and pass a waiter.
func (k *walk) isPassed(w *waiter, name lock.Name) bool {
	cover := k.cover(w, name)
	return cover != nil && cover.Kind == lock.ByWaiter && cover.Waiter.Place > w.place
}

// isAboutToCloseLocked reports whether a lock is about to be granted as a tree to somebody
// who passes a waiter. The caller must hold mu.
func (m *Manager) isAboutToCloseLocked(w *waiter, name lock.Name) bool {
	s := m.scopes[name]
	return s != nil && slices.ContainsFunc(s.closing, func(t *waiter) bool { return t.place > w.place && t.passes(w) })
}

// closes reports whether a waiter wants a tree that does not drain.
func (w *waiter) closes() bool { return w.request.Tree && !w.request.Drain }

// sharedLocked returns how many shared holds of a lock stand, or most if there are more. The
// caller must hold mu.
func (m *Manager) sharedLocked(name lock.Name, most int) (n int) {
	if _, maybe := m.shared[name]; !maybe {
		return 0
	}
	_, locks := m.store.List(m.running, name.Slots(), lock.Name{})
	for _, err := range locks {
		if err != nil || n == most {
			break
		}
		n++
	}
	return n
}

// isSharedByPersonLocked reports whether a shared hold of a lock has no end of its own. The
// caller must hold mu.
func (m *Manager) isSharedByPersonLocked(name lock.Name) bool {
	if _, maybe := m.shared[name]; !maybe {
		return false
	}
	_, locks := m.store.List(m.running, name.Slots(), lock.Name{})
	for l, err := range locks {
		if err == nil && l.Manual() {
			return true
		}
	}
	return false
}

// freeSlotLocked returns the name of a new shared hold: that with the lowest number that is
// free. The caller must hold mu and the queue of the lock.
func (m *Manager) freeSlotLocked(name lock.Name) (lock.Name, error) {
	for number := max(m.shared[name], 1); ; number++ {
		slot, err := name.Slot(number)
		if err != nil {
			return lock.Name{}, err
		}
		l, err := m.present(m.running, slot)
		if err != nil {
			return lock.Name{}, err
		}
		if !l.Held() {
			if _, known := m.shared[name]; known {
				m.shared[name] = number
			}
			return slot, nil
		}
	}
}

// observe takes note of a hold as it was committed: of its lease, and of what it means for
// other locks.
func (m *Manager) observe(l lock.Lock) {
	m.leases.Observe(l)
	if !l.Tree && !l.Shared() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observeLocked(l)
}

// observeLocked takes note of a tree or a shared hold. The caller must hold mu.
func (m *Manager) observeLocked(l lock.Lock) {
	if s := m.scopes[l.Name]; l.Tree && (s == nil || !s.tree) {
		m.scopeLocked(l.Name).tree = true
		for name, q := range m.queues {
			if (q.throughs > 0 || q.refusers > 0) && l.Name.Covers(name) { // those that it covers keep nothing from the one, and a person may be in the way of the other
				m.awake = append(m.awake, q)
			}
		}
		m.wakeLocked()
	}
	if l.Shared() {
		base := l.Name.Base()
		m.shared[base] = max(m.shared[base], 1)
		m.countSpecialLocked()
	}
}

// overLocked takes note that a hold may be over, or be no tree any more. The caller must hold
// mu.
func (m *Manager) overLocked(name lock.Name) {
	if s := m.scopes[name]; s != nil && s.tree && !m.heldLocked(name).Tree {
		s.tree = false
		m.dropScopeLocked(s)
	}
	if !name.IsSlot() {
		return
	}
	base := name.Base()
	lowest, known := m.shared[base]
	if !known {
		return
	}
	if m.sharedLocked(base, 1) == 0 {
		delete(m.shared, base)
		m.countSpecialLocked()
	} else if number := name.SlotNumber(); number > 0 && !m.heldLocked(name).Held() {
		m.shared[base] = min(lowest, number)
	}
}

// over is overLocked, where there is anything to take note of.
func (m *Manager) over(name lock.Name) {
	if m.special.Load() == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overLocked(name)
}

// closeLocked has a request for a tree keep later requests below waiting, and begins to wait
// for what is under way there. The caller must hold mu.
func (m *Manager) closeLocked(w *waiter) {
	if w.barrier != nil || m.running.Err() != nil {
		return
	}
	b := new(barrier)
	w.barrier = b
	s := m.scopeLocked(w.request.Name)
	i, _ := slices.BinarySearchFunc(s.closing, w.place, func(t *waiter, place uint64) int { return int(int64(t.place - place)) })
	s.closing = slices.Insert(s.closing, i, w)
	m.closing.Add(1)
	var busy []*queue
	for name, q := range m.queues {
		if w.request.Name.Covers(name) && len(q.sem) == 0 {
			q.users++
			busy = append(busy, q)
		}
	}
	m.background.Go(func() { m.awaitBarrier(w, b, busy) })
}

// awaitBarrier waits until queues have been passed on once, and then has the request for a
// tree looked at again.
func (m *Manager) awaitBarrier(w *waiter, b *barrier, busy []*queue) {
	defer m.forget(busy...)
	for _, q := range busy {
		select {
		case <-q.sem:
			m.pass(q.alone...)
		case <-m.running.Done():
			return
		}
	}
	m.mu.Lock()
	b.done = true
	m.mu.Unlock()
	m.walk(w.all...)
}

// openLocked ends what closeLocked has begun, when the request is out of line. The caller
// must hold mu.
func (m *Manager) openLocked(w *waiter) {
	if w.barrier == nil {
		return
	}
	w.barrier = nil
	m.closing.Add(-1)
	s := m.scopes[w.request.Name]
	s.closing = slices.DeleteFunc(s.closing, func(t *waiter) bool { return t == w })
	m.dropScopeLocked(s)
}

// reopenLocked has requests for a tree that do not drain keep nobody waiting, because
// somebody else has got the lock itself. The caller must hold mu.
func (m *Manager) reopenLocked(name lock.Name) {
	s := m.scopes[name]
	if s == nil {
		return
	}
	for _, w := range slices.Clone(s.closing) {
		if !w.request.Drain && !w.granting {
			m.openLocked(w)
		}
	}
}

// isTreeReady reports whether a request for a tree, whose lock it could be granted, need not
// wait for anything below.
func (k *walk) isTreeReady(w *waiter) bool {
	k.m.closeLocked(w)
	switch {
	case w.barrier == nil || !w.barrier.done:
		return false
	case w.request.Drain:
		return k.isDrained(w)
	}
	return !k.m.isBehindTreeLocked(w)
}

// isBehindTreeLocked reports whether a tree below is about to be granted to somebody with a
// lower place. The caller must hold mu.
func (m *Manager) isBehindTreeLocked(w *waiter) bool {
	for name, s := range m.scopes {
		for _, t := range s.closing {
			if t.closes() && t.place < w.place && w.request.Name.Covers(name) {
				return true
			}
		}
	}
	return false
}

// isDrained reports whether nothing below a tree is held, or wanted by somebody with a lower
// place, or being granted to somebody who goes through freezes.
func (k *walk) isDrained(w *waiter) bool {
	_, locks := k.m.store.List(k.m.running, w.request.Name.Below(), lock.Name{})
	for range locks {
		return false
	}
	for name, q := range k.m.queues {
		if !w.request.Name.Covers(name) {
			continue
		}
		if l := k.lanes[q]; len(q.sem) == 0 && (l == nil || !l.open || l.grant > 0) {
			return false // who holds it walks over it in the end
		}
		if first := k.m.firstLocked(q, k.now); first != nil && first.place < w.place {
			return false
		}
	}
	return true
}

// isBeingDrainedLocked reports whether a tree above a lock, with nothing held below, is being
// granted: not even who goes through freezes has the lock before that is done. The caller
// must hold mu.
func (m *Manager) isBeingDrainedLocked(name lock.Name) bool {
	if m.closing.Load() == 0 {
		return false
	}
	for above := range name.Above() {
		if s := m.scopes[above]; s != nil && slices.ContainsFunc(s.closing, func(t *waiter) bool { return t.granting && t.request.Drain }) {
			return true
		}
	}
	return false
}

// isFrozenByPersonLocked reports whether a tree above a lock has no end of its own. The caller
// must hold mu.
func (m *Manager) isFrozenByPersonLocked(name lock.Name) bool {
	if len(m.scopes) == 0 {
		return false
	}
	for above := range name.Above() {
		if m.scopes[above] == nil {
			continue
		}
		if l := m.heldLocked(above); l.Tree && l.Manual() {
			return true
		}
	}
	return false
}

// guardsLocked returns what has to stand as it does for names to be granted: the locks above
// them, as far as they are or may become trees. ErrConflict means that one has become a tree
// since that was decided. The caller must hold mu.
func (m *Manager) guardsLocked(w *lock.LockRequest, names ...lock.Name) (guards []lock.Guard, err error) {
	if len(m.scopes) == 0 || w.ThroughFreeze {
		return nil, nil
	}
	for _, name := range names {
		for above := range name.Above() {
			isGuarded := func(g lock.Guard) bool { return g.Name == above }
			if m.scopes[above] == nil || slices.Contains(names, above) || slices.ContainsFunc(guards, isGuarded) {
				continue
			}
			l := m.heldLocked(above)
			if l.Tree {
				return nil, lock.ErrConflict
			}
			guards = append(guards, lock.Guard{Name: above, Revision: l.Revision})
		}
	}
	return guards, nil
}

// checkDrain refuses a request to drain that would wait for its caller's own hold.
func (m *Manager) checkDrain(ctx context.Context, caller lock.Caller, request *lock.LockRequest) error {
	owner := caller.Owner()
	if owner == "" && request.Holder == "" {
		return nil // who asks is told apart from nobody
	}
	_, locks := m.store.List(ctx, request.Name.Below(), lock.Name{})
	for l, err := range locks {
		switch {
		case err != nil:
			return err
		case l.Caller == owner && (owner != "" || l.Holder == request.Holder):
			l = m.described(l)
			return &lock.Error{
				Reason:  lock.ErrLockHeld,
				Message: fmt.Sprintf("%s cannot be drained for its own holder: %s; release that first", request.Name, describeHold(l)),
				Lock:    &l,
			}
		}
	}
	return nil
}
