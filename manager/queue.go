package manager

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pylok/pylok/lock"
)

// turn makes the requests for one lock take turns, and keeps those that wait. It
// lives in Manager.turns as long as anybody uses it.
type turn struct {
	name        lock.Name
	users       int  // requests and waiters that refer to it; guarded by Manager.mu
	waiting     int  // calls that stand in line or are being granted; guarded by Manager.mu
	handingOver bool // a hand-over waits for the baton; guarded by Manager.mu

	// baton has one element; who has taken it has the turn. Goroutines that
	// wait for it are served in the order they came.
	baton  chan struct{}
	passed atomic.Uint64 // how often the baton was

	mu     sync.Mutex
	queue  list.List          // of *waiter, the next to be granted first
	places map[string]*waiter // those in the queue that have a request id, by that
	again  retry              // of a grant that the store could not make for now
}

// waiter is a place in the queue. A request that is sent again while it waits
// shares the place with its first sending.
type waiter struct {
	request lock.LockRequest
	calls   []*call
	since   time.Time
	place   *list.Element // nil: taken out to be granted, or gone
	gone    bool          // all calls have left or run out of time, whether they know or not
	decided bool          // was granted the lock, and its calls are about to be told
}

// call is one caller at a waiter's place.
type call struct {
	waiter   *waiter // its place
	ctx      context.Context
	deadline time.Time   // end of the wait that it asked for
	bytes    int         // that it keeps
	answer   chan answer // buffered: nobody waits for a caller to listen
	leaving  bool        // withdrew while it was being granted; guarded by turn.mu
	left     bool        // and did not stay for the answer; guarded by turn.mu
}

type answer struct {
	grant lock.Grant
	err   error
}

// errPutBack answers a call that withdrew while its waiter was being granted, when
// nothing came of that.
var errPutBack = errors.New("put back in line")

// alive reports whether the caller may still be granted the lock.
func (c *call) alive(now time.Time) bool {
	return c.ctx.Err() == nil && now.Before(c.deadline)
}

// enter returns the name's turn once it is the caller's. On an error of ctx, or
// on Close, the caller has no turn.
func (m *Manager) enter(ctx context.Context, name lock.Name) (*turn, error) {
	m.mu.Lock()
	t := m.turns[name]
	if t == nil {
		t = &turn{name: name, baton: make(chan struct{}, 1)}
		t.baton <- struct{}{}
		m.turns[name] = t
	}
	t.users++
	m.mu.Unlock()
	select {
	case <-t.baton: // as a rule nobody else has it
	default:
		if err := m.queueForBaton(ctx, t); err != nil {
			m.forget(t)
			return nil, err
		}
	}
	// Both may have come at the same time.
	switch {
	case ctx.Err() != nil:
		m.leave(t)
		return nil, ctx.Err()
	case m.running.Err() != nil:
		m.leave(t)
		return nil, shuttingDown()
	}
	return t, nil
}

// turnLimit is how long one request may have the turn before those behind it are sent
// away. The store alone can take so long: a disk that hangs. The request itself has the
// turn until the store is done, for what becomes of it decides what the next may do.
const turnLimit = 30 * time.Second

// queueForBaton waits for the turn. An error means that the caller does not have it.
func (m *Manager) queueForBaton(ctx context.Context, t *turn) error {
	passed := t.passed.Load()
	timer := time.NewTimer(turnLimit)
	defer timer.Stop()
	for {
		select {
		case <-t.baton:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-m.running.Done():
			return shuttingDown()
		case <-timer.C:
			now := t.passed.Load()
			if now == passed {
				return &lock.Error{
					Reason:  lock.ErrReadOnly,
					Message: fmt.Sprintf("another change of %s has not ended for more than %v, maybe because the server's disk hangs; nothing changed, ask again later", t.name, turnLimit),
				}
			}
			passed = now
			timer.Reset(turnLimit)
		}
	}
}

// pass gives the turn to the next.
func (t *turn) pass() {
	t.passed.Add(1)
	t.baton <- struct{}{}
}

// leave ends a use of t that has the turn.
func (m *Manager) leave(t *turn) {
	t.pass()
	m.forget(t)
}

// forget ends one use of t.
func (m *Manager) forget(t *turn) {
	m.mu.Lock()
	t.users--
	if t.users == 0 {
		delete(m.turns, t.name)
	}
	m.mu.Unlock()
}

func (t *turn) waiters() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.queue.Len()
}

// maxCalls is how often a request may be sent while it waits. The sendings whose
// connections were lost leave when the server notices, which may take half a minute.
const maxCalls = 64

// wait joins the queue: the place of an earlier sending of the same request, else
// a new one at the end. It reports false when that place is full.
func (t *turn) wait(request lock.LockRequest, c *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.places[request.RequestID]; w != nil {
		if len(w.calls) >= maxCalls {
			return false
		}
		c.waiter = w
		w.calls = append(w.calls, c)
		return true
	}
	c.waiter = &waiter{request: request, calls: []*call{c}, since: time.Now()}
	t.stand(c.waiter, t.queue.PushBack(c.waiter))
	return true
}

// stand takes note of a waiter's place in the queue. The caller holds t.mu.
func (t *turn) stand(w *waiter, place *list.Element) {
	w.place = place
	if id := w.request.RequestID; id != "" {
		if t.places == nil {
			t.places = make(map[string]*waiter)
		}
		t.places[id] = w
	}
}

// take takes a waiter out of the queue. The caller holds t.mu.
func (t *turn) take(w *waiter) {
	t.queue.Remove(w.place)
	w.place = nil
	if id := w.request.RequestID; id != "" {
		delete(t.places, id)
	}
}

// withdraw takes a call out of the queue. It reports false when the waiter is
// being granted: then an answer comes, errPutBack if that fails.
func (t *turn) withdraw(c *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := c.waiter
	if w.gone {
		return true
	}
	if w.place == nil {
		c.leaving = true
		return false
	}
	w.calls = slices.DeleteFunc(w.calls, func(other *call) bool { return other == c })
	if len(w.calls) == 0 {
		t.take(w)
		w.gone = true
	}
	return true
}

// abandon is for a call that does not stay for the answer; a lock that is granted to
// it alone is released again. It reports false when the answer is on its way.
func (t *turn) abandon(c *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.left = !c.waiter.decided
	return c.left
}

// decide returns how many calls take the answer when the waiter is granted the lock: none
// if nobody is there any more, else all that have not left, those too whose ctx has ended.
func (t *turn) decide(w *waiter) int {
	t.mu.Lock()
	defer t.mu.Unlock()
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

// next takes the first waiter who is still there out of the queue, or returns
// nil. Those before it, who have left or run out of time, lose their places.
func (t *turn) next() *waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for t.queue.Len() > 0 {
		w := t.queue.Front().Value.(*waiter)
		t.take(w)
		if slices.ContainsFunc(w.calls, func(c *call) bool { return c.alive(now) }) {
			return w
		}
		w.gone = true
	}
	return nil
}

// putBack undoes next. Calls that withdrew meanwhile are told so.
func (t *turn) putBack(w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.calls = slices.DeleteFunc(w.calls, func(c *call) bool {
		if c.leaving {
			c.answer <- answer{err: errPutBack}
		}
		return c.leaving
	})
	if len(w.calls) == 0 {
		w.gone = true
		return
	}
	t.stand(w, t.queue.PushFront(w))
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

// canGrant takes note that the store can make grants.
func (t *turn) canGrant() {
	t.mu.Lock()
	t.again.cause, t.again.pause = nil, 0
	t.mu.Unlock()
}

// notNow returns why the store could not make the last grant, nil: it could.
func (t *turn) notNow() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.again.cause
}

// handOverLater hands over after a pause, which grows from try to try, because for now
// the store cannot make the grant.
func (m *Manager) handOverLater(t *turn, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.again.cause = cause
	if t.again.timer {
		return
	}
	t.again.timer = true
	t.again.pause = min(max(2*t.again.pause, minRetryPause), maxRetryPause)
	time.AfterFunc(t.again.pause, func() {
		t.mu.Lock()
		t.again.timer = false
		t.mu.Unlock()
		m.handOverFree(t)
	})
}
