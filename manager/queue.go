package manager

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pylok/pylok/lock"
)

// queue makes the requests for one lock, its shared holds included, one after the other,
// and keeps those that wait for it. It is in Manager.queues as long as anybody uses it.
type queue struct {
	name    lock.Name
	alone   []*queue // itself, for what takes several
	users   int      // requests and grants that refer to it; guarded by Manager.mu
	waiting int      // calls that stand in line or are being granted; guarded by Manager.mu

	handingOver bool // a hand-over waits to hold the queue; guarded by Manager.mu

	// sem has one element. The goroutine that has received it holds the queue, and alone
	// decides about the lock, until it sends it back. Those that wait for it are served in
	// the order they came.
	sem    chan struct{}
	passes atomic.Uint64 // how often it was passed on
	late   *lateCommit   // to be finished before the next holds the queue; guarded by holding it

	// The line is guarded by Manager.mu; its length may be read without.
	line      list.List // of *waiter, in the order of their places
	length    atomic.Int32
	onces     int                    // of them that wait for no hold to end
	refusers  int                    // of them that wait for no person
	throughs  int                    // of them that go through freezes
	byRequest map[requestKey]*waiter // those that have a request id; of several with the same the first
	behind    []*scope               // whose ends it is told of; guarded by Manager.mu
}

// newQueue returns a queue that somebody holds.
func newQueue(name lock.Name) *queue {
	q := &queue{name: name, sem: make(chan struct{}, 1)}
	q.alone = []*queue{q}
	return q
}

// queueLocked returns the queue of a lock, which has one user more. The caller must hold mu.
func (m *Manager) queueLocked(name lock.Name) *queue {
	q := m.queues[name]
	if q == nil {
		q = newQueue(name)
		q.sem <- struct{}{}
		m.queues[name] = q
	}
	q.users++
	return q
}

// enter returns the queue of the lock that a name is of once the caller holds it, which
// ends with leave. It fails with an error of ctx, on Close, and after holdLimit.
func (m *Manager) enter(ctx context.Context, name lock.Name) (*queue, error) {
	m.mu.Lock()
	q := m.queueLocked(name.Base())
	m.mu.Unlock()
	select {
	case <-q.sem: // as a rule nobody else has it
	default:
		if err := m.hold(ctx, q); err != nil {
			m.forget(q.alone...)
			return nil, err
		}
	}
	// Both may have come at the same time.
	switch {
	case ctx.Err() != nil:
		m.leave(q.alone...)
		return nil, ctx.Err()
	case m.running.Err() != nil:
		m.leave(q.alone...)
		return nil, shuttingDown()
	}
	return q, nil
}

// enterAll is enter for the queues of several names. They are held one after the other in
// the order of their names, so that no two who do that can block each other.
func (m *Manager) enterAll(ctx context.Context, names []lock.Name) (queues []*queue, err error) {
	bases := make([]lock.Name, len(names))
	for i, name := range names {
		bases[i] = name.Base()
	}
	slices.SortFunc(bases, lock.Name.Compare)
	for _, name := range slices.Compact(bases) {
		q, err := m.enter(ctx, name)
		if err != nil {
			m.leave(queues...)
			return nil, err
		}
		queues = append(queues, q)
	}
	return queues, nil
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
				return stuck(q.name)
			}
			passed = now
			timer.Reset(holdLimit)
		}
	}
}

func stuck(name lock.Name) error {
	return &lock.Error{
		Reason:  lock.ErrReadOnly,
		Message: fmt.Sprintf("another change of %s has not ended for more than %v, maybe because the server's disk hangs; nothing changed, ask again later", name, holdLimit),
	}
}

// pass lets the next hold the queues, and has what that makes possible decided. The caller
// must hold them.
func (m *Manager) pass(queues ...*queue) {
	var kept []*queue
	for _, q := range queues {
		if late := q.late; late != nil && m.finishLater(q) {
			kept = append(kept, late.queues...)
		}
	}
	waiting := m.closing.Load() > 0
	for _, q := range queues {
		if slices.Contains(kept, q) {
			continue
		}
		q.passes.Add(1)
		q.sem <- struct{}{}
		waiting = waiting || q.length.Load() > 0
	}
	if waiting {
		m.walk(queues...)
	}
}

// leave ends uses of queues that hold them.
func (m *Manager) leave(queues ...*queue) {
	m.pass(queues...)
	m.forget(queues...)
}

// forget ends uses of queues that do not hold them.
func (m *Manager) forget(queues ...*queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, q := range queues {
		q.users--
		if q.users > 0 {
			continue
		}
		delete(m.queues, q.name)
		for _, s := range q.behind {
			delete(s.behind, q)
		}
		q.behind = nil
	}
}
