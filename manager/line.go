package manager

import (
	"container/list"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pylok/pylok/lock"
)

// waiter is a request that stands in line: in that of its lock, or, if it is for a set, in
// those of all its locks. A request that is sent again while it waits shares the place with
// its first sending. All of it is guarded by Manager.mu, but for what never changes.
type waiter struct {
	place   uint64 // in every line, those with lower ones stand before it; never changes
	caller  lock.Caller
	request lock.LockRequest // of a set: what it says of each hold, with the Name of none
	all     []*queue         // it wants all of these, in the order of their names
	choices []choice         // and some of each of these
	names   []lock.Name      // of a set, all of these in order, once somebody has asked; then it never changes
	once    bool             // it waits for no hold to end, only until it can be decided
	since   time.Time

	calls    []*call
	spots    []spot
	granting bool // who holds its queues is granting it the lock
	gone     bool // all calls have left or run out of time, whether they know or not
	decided  bool // was granted the lock, and its calls are about to be told
	again    retry

	barrier *barrier // of a request for a tree, once it keeps later requests below waiting
}

// choice is some of several locks.
type choice struct {
	queues []*queue // in the order of the request
	count  int
}

// spot is where a waiter stands in one line.
type spot struct {
	queue   *queue
	element *list.Element
}

// requestKey tells requests apart: two callers may have the same request id.
type requestKey struct{ owner, id string }

func (w *waiter) key() requestKey { return requestKey{w.caller.Owner(), w.request.RequestID} }

// isPlain reports whether the waiter wants one lock, exclusively, and nothing besides.
func (w *waiter) isPlain() bool {
	return len(w.all) == 1 && len(w.choices) == 0 && !w.request.Shared && !w.request.Tree
}

// isSet reports whether the request is for a set.
func (w *waiter) isSet() bool { return w.request.Name.IsZero() }

// alive reports whether a call is there that may still be granted the lock.
func (w *waiter) alive(now time.Time) bool {
	return slices.ContainsFunc(w.calls, func(c *call) bool { return c.alive(now) })
}

// queues returns all in whose lines the waiter stands.
func (w *waiter) queues() []*queue {
	queues := slices.Clone(w.all)
	for _, c := range w.choices {
		queues = append(queues, c.queues...)
	}
	return queues
}

// call is one caller at a waiter's place.
type call struct {
	waiter   *waiter // its place
	ctx      context.Context
	deadline time.Time   // end of the wait that it asked for; zero: none
	bytes    int         // that it keeps
	counted  []*queue    // where it counts as waiting; nil: nowhere; guarded by Manager.mu
	answer   chan answer // buffered: nobody waits for a caller to listen
	leaving  bool        // withdrew while it was being granted; guarded by Manager.mu
	left     bool        // and did not stay for the answer; guarded by Manager.mu
}

type answer struct {
	locks  []lock.Lock // that were granted, in name order
	queued time.Duration
	err    error
}

// errPutBack answers a call that withdrew while its waiter was being granted, when
// nothing came of that.
var errPutBack = errors.New("put back in line")

// alive reports whether the caller may still be granted the lock.
func (c *call) alive(now time.Time) bool {
	return c.ctx.Err() == nil && (c.deadline.IsZero() || now.Before(c.deadline))
}

// maxCalls is how often a request may be sent while it waits. The sendings whose
// connections were lost leave when the server notices, which may take half a minute.
const maxCalls = 64

// standLocked gives a waiter its place at the end of the lines. The caller must hold mu.
func (m *Manager) standLocked(w *waiter) {
	m.places++
	w.place, w.since = m.places, time.Now()
	for _, q := range w.queues() {
		w.spots = append(w.spots, spot{q, q.line.PushBack(w)})
		q.length.Add(1)
		if w.once {
			q.onces++
		}
		if w.request.RefuseManual {
			q.refusers++
			m.refusing.Add(1)
		}
		if w.request.ThroughFreeze {
			q.throughs++
		}
		if w.request.RequestID != "" && q.byRequest[w.key()] == nil {
			if q.byRequest == nil {
				q.byRequest = make(map[requestKey]*waiter)
			}
			q.byRequest[w.key()] = w
		}
	}
}

// removeLocked takes a waiter out of all its lines, for good. The caller must hold mu, and
// walk over its queues afterwards, for those behind it, unless a call does that which
// withdraws.
func (m *Manager) removeLocked(w *waiter) {
	for _, s := range w.spots {
		q := s.queue
		q.line.Remove(s.element)
		q.length.Add(-1)
		if w.once {
			q.onces--
		}
		if w.request.RefuseManual {
			q.refusers--
			m.refusing.Add(-1)
		}
		if w.request.ThroughFreeze {
			q.throughs--
		}
		if q.byRequest[w.key()] == w {
			delete(q.byRequest, w.key())
		}
	}
	w.spots = nil
	m.openLocked(w)
}

// withdraw takes a call out of line. It reports false when the waiter is being granted:
// then an answer comes, errPutBack if nothing comes of that.
func (m *Manager) withdraw(c *call) bool {
	m.mu.Lock()
	w := c.waiter
	if w.granting {
		c.leaving = true
		m.mu.Unlock()
		return false
	}
	if !w.gone {
		w.calls = slices.DeleteFunc(w.calls, func(other *call) bool { return other == c })
		if len(w.calls) == 0 {
			w.gone = true
			m.removeLocked(w)
		}
	}
	gone := w.gone // now, or found to be by who looked at one of its lines alone
	m.mu.Unlock()
	if gone {
		m.walk(w.queues()...)
	}
	return true
}

// abandon is for a call that does not stay for the answer; a lock that is granted to
// it alone is released again. It reports false when the answer is on its way.
func (m *Manager) abandon(c *call) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.left = !c.waiter.decided
	return c.left
}

// decide takes a waiter out of line who has been granted the lock, or refused it, and
// returns how many calls take the answer: none if nobody is there any more, else all that
// have not left, those too whose ctx has ended.
func (m *Manager) decide(w *waiter) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removeLocked(w)
	callers := 0
	for _, c := range w.calls {
		if !c.left {
			callers++
		}
		w.decided = w.decided || !c.left && c.ctx.Err() == nil
	}
	if !w.decided {
		return 0
	}
	return callers
}

// firstLocked returns the first waiter who is still there. Those before it, who have left
// or run out of time, lose their places. The caller must hold mu.
func (m *Manager) firstLocked(q *queue, now time.Time) *waiter {
	for q.line.Len() > 0 {
		w := q.line.Front().Value.(*waiter)
		if w.granting || w.alive(now) {
			return w
		}
		w.gone = true
		m.removeLocked(w)
	}
	return nil
}

// next returns the first waiter in line, who is granted the lock from then on, if it is one
// that wants this lock alone, exclusively, and nothing but the lock itself can be in the
// way; else nil, and a walk decides. The caller must hold the queue, which is of a lock that
// is free or about to be.
func (m *Manager) next(q *queue) *waiter {
	if q.length.Load() == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.firstLocked(q, time.Now())
	if w == nil || w.granting || !w.isPlain() || m.coverLocked(w, q.name) != nil || m.isDrainingLocked(w, q.name) || m.sharedLocked(q.name, 1) > 0 {
		return nil
	}
	w.granting = true
	return w
}

// putBack ends a grant that came to nothing: the waiter keeps the place. Calls that withdrew
// meanwhile are told so.
func (m *Manager) putBack(w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.granting = false
	w.calls = slices.DeleteFunc(w.calls, func(c *call) bool {
		if c.leaving {
			c.answer <- answer{err: errPutBack}
		}
		return c.leaving
	})
	if len(w.calls) == 0 {
		w.gone = true
		m.removeLocked(w)
	}
}

// retry is when to try again what the store could not do for now.
type retry struct {
	cause error         // why; nil: nothing stands in the way
	pause time.Duration // before the last try
	timer bool          // the next try will come
}

const (
	minRetryPause = 100 * time.Millisecond
	maxRetryPause = 5 * time.Second
)

// forNow reports whether what the store refused may succeed later although nobody does
// anything about the request.
func forNow(err error) bool {
	return errors.Is(err, lock.ErrReadOnly) || errors.Is(err, lock.ErrTooManyLocks)
}

// notNow returns why the store could not make a grant to one of those in line, nil: it
// could, as far as is known.
func (m *Manager) notNow(q *queue) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := q.line.Front(); e != nil; e = e.Next() {
		if cause := e.Value.(*waiter).again.cause; cause != nil {
			return cause
		}
	}
	return nil
}

// keepPlace has a waiter who was to be granted the lock keep the place, if the outcome of
// that says that it is to be tried again.
func (m *Manager) keepPlace(w *waiter, outcome error) {
	if forNow(outcome) && !w.once {
		m.tryLater(w, outcome)
	} else {
		m.mu.Lock()
		w.again.cause, w.again.pause = nil, 0
		m.mu.Unlock()
	}
	if staysInLine(w, outcome) {
		m.putBack(w)
	}
}

// staysInLine reports whether a waiter keeps the place after a grant that came to nothing:
// others were faster, or the store cannot make it for now, and the waiter has time.
func staysInLine(w *waiter, err error) bool {
	return errors.Is(err, lock.ErrConflict) || forNow(err) && !w.once
}

// tryLater has a grant tried again after a pause, which grows from try to try, because for
// now the store cannot make it.
func (m *Manager) tryLater(w *waiter, cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.again.cause = cause
	if w.again.timer {
		return
	}
	w.again.timer = true
	w.again.pause = min(max(2*w.again.pause, minRetryPause), maxRetryPause)
	time.AfterFunc(w.again.pause, func() {
		m.mu.Lock()
		w.again.timer = false
		m.mu.Unlock()
		m.walk(w.queues()...)
	})
}
