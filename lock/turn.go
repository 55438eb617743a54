package lock

import (
	"container/list"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// turn makes the requests for one lock take turns, and keeps those that wait. It
// lives in Manager.turns as long as anybody uses it.
type turn struct {
	name  Name
	users int // requests and waiters that refer to it; guarded by Manager.mu

	// baton has one element; who has taken it has the turn. Goroutines that
	// wait for it are served in the order they came.
	baton chan struct{}

	mu    sync.Mutex
	queue list.List // of *waiter, the next to be granted first
}

// waiter is a place in the queue. A request that is sent again while it waits
// shares the place with its first sending.
type waiter struct {
	request LockRequest
	calls   []*call
	since   time.Time
	place   *list.Element // nil: taken out to be granted, or gone
}

// call is one caller at a waiter's place.
type call struct {
	waiter   *waiter // its place
	ctx      context.Context
	deadline time.Time   // end of the wait that it asked for
	answer   chan answer // buffered: nobody waits for a caller to listen
	leaving  bool        // withdrew while it was being granted; guarded by turn.mu
}

type answer struct {
	grant Grant
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
func (m *Manager) enter(ctx context.Context, name Name) (*turn, error) {
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
		select {
		case <-t.baton:
		case <-ctx.Done():
			m.forget(t)
			return nil, ctx.Err()
		case <-m.running.Done():
			m.forget(t)
			return nil, shuttingDown()
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

// pass gives the turn to the next.
func (t *turn) pass() { t.baton <- struct{}{} }

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

// wait joins the queue: the place of an earlier sending of the same request, else
// a new one at the end. It reports false when max waiters stand there.
func (t *turn) wait(request LockRequest, c *call, max int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if request.RequestID != "" {
		for place := t.queue.Front(); place != nil; place = place.Next() {
			if w := place.Value.(*waiter); w.request.RequestID == request.RequestID {
				c.waiter = w
				w.calls = append(w.calls, c)
				return true
			}
		}
	}
	if t.queue.Len() >= max {
		return false
	}
	c.waiter = &waiter{request: request, calls: []*call{c}, since: time.Now()}
	c.waiter.place = t.queue.PushBack(c.waiter)
	return true
}

// withdraw takes a call out of the queue. It reports false when the waiter is
// being granted: then an answer comes, errPutBack if that fails.
func (t *turn) withdraw(c *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := c.waiter
	if w.place == nil {
		c.leaving = true
		return false
	}
	w.calls = slices.DeleteFunc(w.calls, func(other *call) bool { return other == c })
	if len(w.calls) == 0 {
		t.queue.Remove(w.place)
		w.place = nil
	}
	return true
}

// next takes the first waiter who is still there out of the queue, or returns
// nil. Those before it have left or run out of time and withdraw by themselves.
func (t *turn) next() *waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for place := t.queue.Front(); place != nil; place = place.Next() {
		w := place.Value.(*waiter)
		for _, c := range w.calls {
			if c.alive(now) {
				t.queue.Remove(place)
				w.place = nil
				return w
			}
		}
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
	if len(w.calls) > 0 {
		w.place = t.queue.PushFront(w)
	}
}
