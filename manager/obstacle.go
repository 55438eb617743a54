package manager

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pylok/pylok/lock"
)

// obstacle is what keeps a request from one of its locks.
type obstacle struct {
	lock.Obstacle
	name lock.Name // of the lock that is wanted
	held bool      // Lock is that lock itself
	// below: Lock or Waiter is of a lock below the tree that is to be drained.
	below bool
}

// obstaclesLocked returns what keeps a waiter, or one who has just left the line, from its
// locks, in the order of their names: at most one for each. Nothing is in the way if there
// are none: what was is over. The caller must hold mu.
func (m *Manager) obstaclesLocked(w *waiter) (obstacles []obstacle) {
	inTheWay := func(q *queue) bool {
		o := m.obstacleLocked(w, q)
		if o != nil {
			obstacles = append(obstacles, *o)
		}
		return o != nil
	}
	for _, q := range w.all {
		inTheWay(q)
	}
	for _, c := range w.choices {
		before := len(obstacles)
		blocked := 0
		for _, q := range c.queues {
			if inTheWay(q) {
				blocked++
			}
		}
		if len(c.queues)-blocked >= c.count { // there is enough for this choice
			obstacles = obstacles[:before]
		}
	}
	if w.request.Drain && len(obstacles) == 0 {
		obstacles = m.obstaclesBelowLocked(w)
	}
	slices.SortStableFunc(obstacles, func(a, b obstacle) int {
		return cmp.Or(rankOf(a)-rankOf(b), a.name.Compare(b.name))
	})
	return obstacles
}

// obstaclesBelowLocked returns what of the locks below keeps a tree from being granted that
// is to be drained: the first that is held, or the request that came before. The caller must
// hold mu.
func (m *Manager) obstaclesBelowLocked(w *waiter) []obstacle {
	_, locks := m.store.List(m.running, w.request.Name.Below(), lock.Name{})
	for l, err := range locks {
		if err == nil {
			return []obstacle{{name: w.request.Name, below: true, Obstacle: lock.Obstacle{Lock: l}}}
		}
	}
	now := time.Now()
	for name, q := range m.queues {
		if q.length.Load() == 0 || !w.request.Name.Covers(name) {
			continue
		}
		if first := m.firstLocked(q, now); first != nil && first.place < w.place {
			waiter := describeWaiter(first)
			if len(waiter.Names) == 0 {
				waiter.Names = []lock.Name{name}
			}
			return []obstacle{{name: w.request.Name, below: true, Obstacle: lock.Obstacle{Kind: lock.ByWaiter, Waiter: waiter}}}
		}
	}
	return nil
}

// rankOf puts what is held before what is only waited for.
func rankOf(o obstacle) int {
	if o.Kind == lock.ByWaiter {
		return 1
	}
	return 0
}

// obstacleLocked returns what keeps a waiter from the lock of a queue, nil: nothing does. The
// caller must hold mu.
func (m *Manager) obstacleLocked(w *waiter, q *queue) *obstacle {
	if l := m.heldLocked(q.name); l.Held() {
		return &obstacle{name: q.name, held: true, Obstacle: lock.Obstacle{Lock: l}}
	}
	if o := m.besideLocked(w, q); o != nil {
		return &obstacle{name: q.name, Obstacle: *o}
	}
	return nil
}

// besideLocked returns what keeps a waiter from a free lock; w is nil for a request that
// comes after all others. The caller must hold mu.
func (m *Manager) besideLocked(w *waiter, q *queue) *lock.Obstacle {
	if cover := m.coverLocked(w, q.name); cover != nil {
		return cover
	}
	room := 1
	if w != nil && w.request.Shared {
		room = w.request.Limit
	}
	if room > 0 && m.sharedLocked(q.name, room) >= room {
		_, locks := m.store.List(m.running, q.name.Slots(), lock.Name{})
		for l, err := range locks {
			if err == nil {
				return &lock.Obstacle{Kind: lock.ByShared, Lock: l}
			}
		}
	}
	now := time.Now()
	for e := q.line.Front(); e != nil; e = e.Next() {
		other := e.Value.(*waiter)
		if w != nil && other.place >= w.place {
			break
		}
		if other != w && !other.once && !other.gone && other.alive(now) {
			return &lock.Obstacle{Kind: lock.ByWaiter, Waiter: describeWaiter(other)}
		}
	}
	return nil
}

// mostMessage is how many bytes of a waiter's message are shown.
const mostMessage = 256

// describeWaiter describes a waiter for others. The caller must hold mu.
func describeWaiter(w *waiter) lock.Waiter {
	d := lock.Waiter{
		Place:   w.place,
		Holder:  w.request.Holder,
		Caller:  w.caller.Owner(),
		Since:   w.since.UTC().Truncate(time.Millisecond),
		Shared:  w.request.Shared,
		Tree:    w.request.Tree,
		Message: w.request.Data.String("msg"),
	}
	if len(d.Message) > mostMessage {
		d.Message = strings.ToValidUTF8(d.Message[:mostMessage], "")
	}
	for i, c := range w.calls {
		if c.deadline.IsZero() {
			d.Until = time.Time{}
			break
		}
		if i == 0 || c.deadline.After(d.Until) {
			d.Until = c.deadline.UTC().Truncate(time.Millisecond)
		}
	}
	if w.isSet() && w.names == nil {
		for _, q := range w.queues() {
			w.names = append(w.names, q.name)
		}
		slices.SortFunc(w.names, lock.Name.Compare)
	}
	d.Names = slices.Clip(w.names)
	return d
}

// refusal refuses a request because of obstacles.
func (m *Manager) refusal(w *waiter, obstacles []obstacle) error {
	var waited time.Duration
	if !w.once {
		waited = time.Since(w.since)
	}
	if len(obstacles) == 0 {
		name := w.request.Name
		if w.isSet() {
			name = w.queues()[0].name
		}
		return heldError(lock.Lock{Name: name}, waited)
	}
	first := obstacles[0]
	var err error
	if first.below {
		return m.notDrained(w.request.Name, &first.Obstacle, waited)
	}
	if first.held {
		err = heldError(m.described(first.Lock), waited)
	} else {
		err = m.refusalOf(first.name, &first.Obstacle, waited)
	}
	if refused, ok := err.(*lock.Error); ok && len(obstacles) > 1 {
		refused.Message += "; also in the way: " + listObstacles(obstacles[1:])
		for _, o := range obstacles[1:] {
			refused.Names = append(refused.Names, o.names()...)
		}
	}
	return err
}

// names returns the locks that a message about an obstacle names.
func (o *obstacle) names() []lock.Name {
	names := append([]lock.Name{o.name}, otherThan(o.name, o.Waiter)...)
	if o.Lock.Held() {
		names = append(names, o.Lock.Name)
	}
	return names
}

// otherThan returns the locks that a waiter in the way of one waits for, unless it waits for
// that one too: then who may view that one may know of the waiter.
func otherThan(name lock.Name, w lock.Waiter) []lock.Name {
	if slices.Contains(w.Names, name) {
		return nil
	}
	return w.Names
}

// notDrained refuses a request to drain a tree because of what is below.
func (m *Manager) notDrained(name lock.Name, o *lock.Obstacle, waited time.Duration) error {
	refused := &lock.Error{Reason: lock.ErrLockHeld, Names: append([]lock.Name{name}, o.Waiter.Names...)}
	what := ""
	if o.Lock.Held() {
		l := m.described(o.Lock)
		refused.Lock, what = &l, describeHold(l)
	} else {
		free := m.described(lock.Lock{Name: o.Waiter.Names[0]})
		refused.Lock, what = &free, fmt.Sprintf("%s waits for %s and came before", o.Waiter.Who(), o.Waiter.Names[0])
	}
	refused.Message = fmt.Sprintf("%s is not drained after waiting %v: %s. Wait longer (wait), or freeze without drain, and what is held below goes on to its end", name, waited.Round(time.Millisecond), what)
	return refused
}

// listObstacles names obstacles, as many as fit in a line or two.
func listObstacles(obstacles []obstacle) string {
	const most = 1024 // bytes
	var b strings.Builder
	for i, o := range obstacles {
		if b.Len() > most {
			fmt.Fprintf(&b, " and %d more", len(obstacles)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		switch {
		case o.held:
			fmt.Fprintf(&b, "%s (held by %s)", o.name, holderOf(o.Lock))
		case o.Kind == lock.ByWaiter:
			fmt.Fprintf(&b, "%s (%s waits for it)", o.name, o.Waiter.Who())
		default:
			fmt.Fprintf(&b, "%s (%s is held by %s)", o.name, o.Lock.Name, holderOf(o.Lock))
		}
	}
	return b.String()
}

// refusalOf refuses a request for a free lock because of what stands before it.
func (m *Manager) refusalOf(name lock.Name, o *lock.Obstacle, waited time.Duration) error {
	after := ""
	if waited > 0 {
		after = fmt.Sprintf(" after waiting %v", waited.Round(time.Millisecond))
	}
	refused := &lock.Error{Reason: lock.ErrLockHeld, Names: []lock.Name{name}}
	if o.Lock.Held() {
		l := m.described(o.Lock)
		refused.Lock = &l
	}
	switch o.Kind {
	case lock.ByTree:
		refused.Message = fmt.Sprintf("%s is frozen%s: %s as a tree, which covers it. Wait for its end (wait), or go through it on purpose (through_freeze and a reason)", name, after, describeHold(*refused.Lock))
	case lock.ByShared:
		refused.Message = fmt.Sprintf("%s is held shared%s: %s. Wait for the end of its shared holds (wait)", name, after, describeHold(*refused.Lock))
	default:
		free := m.described(lock.Lock{Name: name})
		refused.Lock = &free
		refused.Names = append(refused.Names, otherThan(name, o.Waiter)...)
		refused.Message = fmt.Sprintf("%s is free and was not granted%s: %s came before and waits for it. Wait too (wait)", name, after, o.Waiter.Who())
	}
	return refused
}
