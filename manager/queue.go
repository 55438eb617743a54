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

// queue makes the requests for one lock one after the other, and keeps those that wait
// for it. It is in Manager.queues as long as anybody uses it.
type queue struct {
	name        lock.Name
	users       int  // requests and waiters that refer to it; guarded by Manager.mu
	waiting     int  // calls that stand in line or are being granted; guarded by Manager.mu
	handingOver bool // a hand-over waits to hold the queue; guarded by Manager.mu

	// sem has one element. The goroutine that has received it holds the queue, and alone
	// decides about the lock, until it sends it back. Those that wait for it are served in
	// the order they came.
	sem    chan struct{}
	passes atomic.Uint64 // how often it was passed on
	late   *lateCommit   // to be finished before the next holds the queue; guarded by holding it

	mu        sync.Mutex
	line      list.List              // of *waiter, the next to be granted first
	byRequest map[requestKey]*waiter // those in the queue that have a request id
	again     retry                  // of a grant that the store could not make for now
}

// waiter is a place in the queue. A request that is sent again while it waits
// shares the place with its first sending.
type waiter struct {
	caller  lock.Caller
	request lock.LockRequest
	calls   []*call
	since   time.Time
	place   *list.Element // nil: taken out to be granted, or gone
	gone    bool          // all calls have left or run out of time, whether they know or not
	decided bool          // was granted the lock, and its calls are about to be told
}

// requestKey tells requests apart: two callers may have the same request id.
type requestKey struct{ owner, id string }

func (w *waiter) key() requestKey { return requestKey{w.caller.Owner(), w.request.RequestID} }

// call is one caller at a waiter's place.
type call struct {
	waiter   *waiter // its place
	ctx      context.Context
	deadline time.Time   // end of the wait that it asked for
	bytes    int         // that it keeps
	answer   chan answer // buffered: nobody waits for a caller to listen
	leaving  bool        // withdrew while it was being granted; guarded by queue.mu
	left     bool        // and did not stay for the answer; guarded by queue.mu
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

// enter returns the name's queue once the caller holds it, which ends with leave. It
// fails with an error of ctx, on Close, and after holdLimit.
func (m *Manager) enter(ctx context.Context, name lock.Name) (*queue, error) {
	m.mu.Lock()
	q := m.queues[name]
	if q == nil {
		q = &queue{name: name, sem: make(chan struct{}, 1)}
		q.sem <- struct{}{}
		m.queues[name] = q
	}
	q.users++
	m.mu.Unlock()
	select {
	case <-q.sem: // as a rule nobody else has it
	default:
		if err := m.hold(ctx, q); err != nil {
			m.forget(q)
			return nil, err
		}
	}
	// Both may have come at the same time.
	switch {
	case ctx.Err() != nil:
		m.leave(q)
		return nil, ctx.Err()
	case m.running.Err() != nil:
		m.leave(q)
		return nil, shuttingDown()
	}
	return q, nil
}

// holdLimit is how long one request may hold the queue before those behind it are sent
// away. The store alone can take so long: a disk that hangs. The queue is held until the
// store is done, for what becomes of it decides what the next may do.
const holdLimit = 30 * time.Second

// hold waits until the caller holds the queue. On an error it does not.
func (m *Manager) hold(ctx context.Context, q *queue) error {
	passed := q.passes.Load()
	timer := time.NewTimer(holdLimit)
	defer timer.Stop()
	for {
		select {
		case <-q.sem:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-m.running.Done():
			return shuttingDown()
		case <-timer.C:
			now := q.passes.Load()
			if now == passed {
				return stuck(q)
			}
			passed = now
			timer.Reset(holdLimit)
		}
	}
}

func stuck(q *queue) error {
	return &lock.Error{
		Reason:  lock.ErrReadOnly,
		Message: fmt.Sprintf("another change of %s has not ended for more than %v, maybe because the server's disk hangs; nothing changed, ask again later", q.name, holdLimit),
	}
}

// pass lets the next hold the queue. The caller must hold it.
func (m *Manager) pass(q *queue) {
	if q.late != nil && m.finishLater(q) {
		return
	}
	q.passes.Add(1)
	q.sem <- struct{}{}
}

// leave ends a use of q that holds it.
func (m *Manager) leave(q *queue) {
	m.pass(q)
	m.forget(q)
}

// forget ends a use of q that does not hold it.
func (m *Manager) forget(q *queue) {
	m.mu.Lock()
	q.users--
	if q.users == 0 {
		delete(m.queues, q.name)
	}
	m.mu.Unlock()
}

func (q *queue) waiters() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line.Len()
}

// maxCalls is how often a request may be sent while it waits. The sendings whose
// connections were lost leave when the server notices, which may take half a minute.
const maxCalls = 64

// wait joins the queue: the place of an earlier sending of the same request, else
// a new one at the end. It reports false when that place is full.
func (q *queue) wait(caller lock.Caller, request lock.LockRequest, c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := q.byRequest[requestKey{caller.Owner(), request.RequestID}]; w != nil {
		if len(w.calls) >= maxCalls {
			return false
		}
		c.waiter = w
		w.calls = append(w.calls, c)
		return true
	}
	c.waiter = &waiter{caller: caller, request: request, calls: []*call{c}, since: time.Now()}
	q.stand(c.waiter, q.line.PushBack(c.waiter))
	return true
}

// stand takes note of a waiter's place in the queue. The caller must hold q.mu.
func (q *queue) stand(w *waiter, place *list.Element) {
	w.place = place
	if w.request.RequestID != "" {
		if q.byRequest == nil {
			q.byRequest = make(map[requestKey]*waiter)
		}
		q.byRequest[w.key()] = w
	}
}

// take takes a waiter out of the queue. The caller must hold q.mu.
func (q *queue) take(w *waiter) {
	q.line.Remove(w.place)
	w.place = nil
	if w.request.RequestID != "" {
		delete(q.byRequest, w.key())
	}
}

// withdraw takes a call out of the queue. It reports false when the waiter is
// being granted: then an answer comes, errPutBack if that fails.
func (q *queue) withdraw(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
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
		q.take(w)
		w.gone = true
	}
	return true
}

// abandon is for a call that does not stay for the answer; a lock that is granted to
// it alone is released again. It reports false when the answer is on its way.
func (q *queue) abandon(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.left = !c.waiter.decided
	return c.left
}

// decide returns how many calls take the answer when the waiter is granted the lock: none
// if nobody is there any more, else all that have not left, those too whose ctx has ended.
func (q *queue) decide(w *waiter) int {
	q.mu.Lock()
	defer q.mu.Unlock()
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
func (q *queue) next() *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for q.line.Len() > 0 {
		w := q.line.Front().Value.(*waiter)
		q.take(w)
		if slices.ContainsFunc(w.calls, func(c *call) bool { return c.alive(now) }) {
			return w
		}
		w.gone = true
	}
	return nil
}

// putBack undoes next. Calls that withdrew meanwhile are told so.
func (q *queue) putBack(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
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
	q.stand(w, q.line.PushFront(w))
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
func (q *queue) canGrant() {
	q.mu.Lock()
	q.again.cause, q.again.pause = nil, 0
	q.mu.Unlock()
}

// notNow returns why the store could not make the last grant, nil: it could.
func (q *queue) notNow() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.again.cause
}

// handOverLater hands over after a pause, which grows from try to try, because for now
// the store cannot make the grant.
func (m *Manager) handOverLater(q *queue, cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.again.cause = cause
	if q.again.timer {
		return
	}
	q.again.timer = true
	q.again.pause = min(max(2*q.again.pause, minRetryPause), maxRetryPause)
	time.AfterFunc(q.again.pause, func() {
		q.mu.Lock()
		q.again.timer = false
		q.mu.Unlock()
		m.handOverSoon(q)
	})
}
