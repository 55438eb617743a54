package manager

import (
	"container/heap"
	"container/list"
	"slices"
	"time"

	"github.com/pylok/pylok/lock"
)

// walk decides which of those in line can be granted what they wait for, in the order of
// their places: who cannot be granted keeps its names from those behind it, and of each
// choice only as many as it wants, those that are free. Later requests may have the rest.
//
// It begins with the lines of some queues, those where something has changed, and goes on to
// the other free locks that those in these lines want, for whoever waits for one of them may
// be decided differently too. Of a line it looks no further than to the first who keeps the
// lock, so that it looks at about as many waiters as there are free locks in it, however
// many wait.
//
// While it works it holds the queues of the free locks; one that somebody else holds counts
// as taken, and who holds it walks over it in the end (pass).
type walk struct {
	m       *Manager
	now     time.Time
	lanes   map[*queue]*lane
	order   []*lane
	due     dueWaiters // those to be looked at, and those looked at already, lowest place first
	visited map[*waiter]bool
	grants  []granted
	refused []*waiter
	above   map[lock.Name]lock.Lock // names above that were looked at, as they stood
	left    []*waiter               // those that covered others, and have been found to be gone
}

// granted is a waiter and the queues of what it is granted, which the walk holds for it.
type granted struct {
	waiters []*waiter // more than one: shared holds of the same lock
	queues  []*queue
}

// lane is a queue as a walk finds it.
type lane struct {
	queue   *queue
	open    bool          // its lock is free, and the walk holds the queue
	busy    bool          // somebody else holds the queue
	manual  bool          // the lock is held without an end
	shared  int           // how many shared holds stand, as far as that matters
	claimed bool          // a waiter keeps the lock from those behind it
	grant   int           // index of what the queue goes to, plus 1
	next    *list.Element // of the line, the next to be looked at
}

// walk walks over the lines of queues, and over those that a walk is due over.
func (m *Manager) walk(queues ...*queue) {
	k := walk{m: m, now: time.Now()}
	m.mu.Lock()
	defer func() {
		// The store may have panicked: what is held is given back all the same.
		k.end()
		m.mu.Unlock()
		for _, w := range k.refused {
			m.refuse(w)
		}
	}()
	if m.running.Err() != nil {
		return
	}
	queues = append(m.awake, queues...)
	m.awake = nil
	for _, q := range queues {
		if q.line.Len() > 0 {
			k.include(q)
		}
		if m.closing.Load() > 0 {
			for above := range q.name.Above() {
				if s := m.scopes[above]; s != nil && len(s.closing) > 0 {
					k.include(s.closing[0].all[0]) // it may have waited for what is below
				}
			}
		}
	}
	for k.due.Len() > 0 {
		w := k.due[0]
		if !k.visited[w] && k.includeAll(w) {
			continue // somebody with a lower place may have come in
		}
		heap.Pop(&k.due)
		if !k.visited[w] {
			k.visit(w)
		}
	}
}

// include looks at a queue, and has the first in its line looked at. It reports whether it
// was not included before.
func (k *walk) include(q *queue) bool {
	if k.lanes[q] != nil {
		return false
	}
	if k.lanes == nil {
		k.lanes, k.visited = make(map[*queue]*lane), make(map[*waiter]bool)
	}
	l := &lane{queue: q, next: q.line.Front()}
	k.lanes[q] = l
	k.order = append(k.order, l)
	select {
	case <-q.sem:
		l.open = true
	default:
		l.busy = true
		return true
	}
	if held, err := k.m.present(k.m.running, q.name); err != nil || held.Held() {
		l.manual = held.Manual()
		k.release(l)
		k.m.reopenLocked(q.name)
	}
	switch {
	case l.open:
		l.shared = k.m.sharedLocked(q.name, 1)
		k.push(l)
	default:
		k.pushHasty(l)
	}
	return true
}

// pushHasty has those in a line looked at who are told at once that their lock cannot be
// had, or that it is a person's.
func (k *walk) pushHasty(l *lane) {
	if l.queue.onces == 0 && l.queue.refusers == 0 {
		return
	}
	for e := l.queue.line.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*waiter); w.once || w.request.RefuseManual {
			heap.Push(&k.due, w)
		}
	}
}

// includeAll includes all that a waiter wants, and reports whether something is new.
func (k *walk) includeAll(w *waiter) (isNew bool) {
	for _, s := range w.spots {
		isNew = k.include(s.queue) || isNew
	}
	return isNew
}

// push has the next in a line looked at.
func (k *walk) push(l *lane) {
	if l.open && !l.claimed && l.next != nil {
		heap.Push(&k.due, l.next.Value.(*waiter))
	}
}

// release gives back the queue of a lane.
func (k *walk) release(l *lane) {
	l.open = false
	l.queue.sem <- struct{}{}
}

// visit decides about a waiter: all who stand before it where it matters have been decided.
func (k *walk) visit(w *waiter) {
	k.visited[w] = true
	isThere := w.granting || w.alive(k.now)
	if isThere && !w.granting {
		k.grantOrClaim(w)
	}
	for _, s := range w.spots {
		if l := k.lanes[s.queue]; l.next == s.element {
			l.next = l.next.Next()
			k.push(l)
		}
	}
	if !isThere {
		w.gone = true
		if w.barrier != nil {
			k.left = append(k.left, w)
		}
		k.m.removeLocked(w)
	}
}

// grantOrClaim grants a waiter what it wants, or has it keep that from those behind it.
func (k *walk) grantOrClaim(w *waiter) {
	var take, claim []*lane // what it is granted if all is there; what it keeps if not
	missing, refused := false, false
	for _, q := range w.all {
		l := k.lanes[q]
		switch {
		case k.cover(w, q.name) != nil: // it keeps nothing: nobody else can have it either, but through the freeze
			k.m.standBehindLocked(w, q)
			missing, refused = true, true
			continue
		case w.request.ThroughFreeze && k.m.isBeingDrainedLocked(q.name):
			k.m.standBehindLocked(w, q)
			missing = true
			continue
		case l.busy || l.grant > 0 && l.claimed: // it will be seen what becomes of it
			missing = true
			continue
		case !l.open || l.claimed || !k.fits(w, l):
			missing, refused = true, true
		}
		take, claim = append(take, l), append(claim, l)
	}
	for _, c := range w.choices {
		free, busy := 0, 0
		sure := 0 // of the free ones, those that no tree takes which passes this request
		for _, q := range c.queues {
			l := k.lanes[q]
			switch {
			case sure == c.count:
			case l.busy || l.grant > 0 && l.claimed:
				busy++
			case w.request.ThroughFreeze && k.m.isBeingDrainedLocked(q.name):
				k.m.standBehindLocked(w, q)
				busy++
			case !l.open || l.claimed || l.shared > 0:
			case k.cover(w, q.name) != nil:
				k.m.standBehindLocked(w, q)
				if free < c.count && k.isPassed(w, q.name) { // for now it keeps this one, for the tree may come to nothing
					missing = true
					free++
					claim = append(claim, l)
				}
			case k.m.isAboutToCloseLocked(w, q.name): // the tree has it
			case free < c.count:
				free++
				sure++
				take, claim = append(take, l), append(claim, l)
			default: // it keeps this one too, for the tree may be granted
				sure++
				claim = append(claim, l)
			}
		}
		for _, q := range c.queues { // what has shared holds it keeps too, or readers would come for ever
			l := k.lanes[q]
			if sure < c.count && l.open && !l.claimed && l.shared > 0 && k.cover(w, q.name) == nil {
				sure++
				claim = append(claim, l)
			}
		}
		missing = missing || free < c.count
		refused = refused || free+busy < c.count
	}
	switch {
	case w.again.timer: // the store could not, a moment ago
		missing = true
	case !missing && w.request.Tree:
		missing = !k.isTreeReady(w)
	}
	if !missing {
		k.grant(w, take)
		return
	}
	if refused && (w.once || w.request.RefuseManual && k.waitsForPerson(w)) {
		k.refused = append(k.refused, w)
		w.granting = true // nobody else decides about it
		return
	}
	for _, l := range claim {
		if l.open && !l.claimed {
			l.claimed = true
			k.pushHasty(l)
		}
	}
}

// fits reports whether the shared holds of a free lock leave room for the waiter.
func (k *walk) fits(w *waiter, l *lane) bool {
	switch {
	case !w.request.Shared:
		return l.shared == 0
	case w.request.Limit == 0:
		return true
	}
	return k.m.sharedLocked(l.queue.name, w.request.Limit)+k.sharedGrants(l) < w.request.Limit
}

// sharedGrants returns how many shared holds of a lane's lock the walk grants.
func (k *walk) sharedGrants(l *lane) int {
	if l.grant == 0 {
		return 0
	}
	return len(k.grants[l.grant-1].waiters)
}

// grant has a waiter granted what it takes.
func (k *walk) grant(w *waiter, take []*lane) {
	w.granting = true
	if l := take[0]; w.request.Shared && l.grant > 0 {
		g := &k.grants[l.grant-1]
		g.waiters = append(g.waiters, w)
		return
	}
	g := granted{waiters: []*waiter{w}}
	for _, l := range take {
		l.grant = len(k.grants) + 1
		l.claimed = !w.request.Shared
		if w.request.Shared {
			l.shared++
		}
		g.queues = append(g.queues, l.queue)
	}
	k.grants = append(k.grants, g)
}

// waitsForPerson reports whether a waiter that refuses to would wait for a hold without an
// end.
func (k *walk) waitsForPerson(w *waiter) bool {
	isManual := func(q *queue) bool {
		if k.lanes[q].manual || !w.request.Shared && k.m.isSharedByPersonLocked(q.name) {
			return true
		}
		return !w.request.ThroughFreeze && k.m.isFrozenByPersonLocked(q.name)
	}
	for _, q := range w.all {
		if isManual(q) {
			return true
		}
	}
	for _, c := range w.choices {
		others := 0
		for _, q := range c.queues {
			if !isManual(q) {
				others++
			}
		}
		if others < c.count {
			return true
		}
	}
	return false
}

// end gives back what the walk holds, and starts the grants. The caller must hold mu.
func (k *walk) end() {
	for _, g := range k.grants {
		for _, q := range g.queues {
			q.users++
		}
		k.m.background.Go(func() { k.m.makeGrants(g) })
	}
	for _, l := range k.order {
		if l.open && l.grant == 0 {
			k.release(l)
		}
		isBelow := func(t *waiter) bool { return t.request.Name.Covers(l.queue.name) }
		if slices.ContainsFunc(k.left, isBelow) { // those in its line stood behind what is gone
			k.m.awake = append(k.m.awake, l.queue)
		}
	}
	k.m.wakeLocked()
}

// makeGrants grants waiters what a walk has found for them. The caller must hold the queues,
// which it leaves.
func (m *Manager) makeGrants(g granted) {
	defer func() {
		m.leave(g.queues...)
		for _, w := range g.waiters {
			if len(w.choices) > 0 { // it keeps the others no more from those behind it
				m.walk(w.queues()...)
			}
		}
	}()
	var err error
	for i, w := range g.waiters {
		if i > 0 && staysInLine(g.waiters[i-1], err) || g.queues[0].late != nil || m.running.Err() != nil {
			for _, w := range g.waiters[i:] { // none goes before one who stays in line
				m.putBack(w)
			}
			return
		}
		var locks []lock.Lock
		locks, err = m.grantAll(g.queues, w)
		if !staysInLine(w, err) && !g.queues[0].isLateFor(w) {
			m.answer(g.queues, w, locks, err)
		}
	}
}

// refuse tells a waiter what is in its way.
func (m *Manager) refuse(w *waiter) {
	m.mu.Lock()
	obstacles := m.obstaclesLocked(w)
	m.removeLocked(w)
	calls := w.calls
	w.gone = true
	m.mu.Unlock()
	err := m.whyNot(w, obstacles)
	for _, c := range calls {
		c.answer <- answer{err: err}
	}
	m.walk(w.queues()...)
}

// dueWaiters is a heap of waiters, the lowest place first.
type dueWaiters []*waiter

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (d dueWaiters) Len() int           { return len(d) }
func (d dueWaiters) Less(i, j int) bool { return d[i].place < d[j].place }
func (d dueWaiters) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dueWaiters) Push(w any)        { *d = append(*d, w.(*waiter)) }
func (d *dueWaiters) Pop() any {
	last := len(*d) - 1
	w := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return w
}

var _ heap.Interface = (*dueWaiters)(nil)

// heldLocked returns the lock as it stands. One that cannot be read counts as free here: the
// guards of the commit that is decided so refuse it if it is not. The caller must hold mu.
func (m *Manager) heldLocked(name lock.Name) lock.Lock {
	l, err := m.present(m.running, name)
	if err != nil {
		return lock.Lock{Name: name}
	}
	return l
}
