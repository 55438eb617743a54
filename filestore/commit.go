package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pylok/pylok/lock"
)

// commit is a call of Commit on its way through the committer, or what was done between
// two batches.
type commit struct {
	changes []lock.Change
	guards  []lock.Guard
	steps   []step     // one for each change, once it is staged
	first   [1]step    // room for a commit of one change
	set     lock.Token // the first of those that it grants in a set; 0: none yet
	events  []lock.Event
	err     error
	done    chan struct{} // closed when events and err are final
}

// names returns the locks that a commit changes, each once.
func (c *commit) names() []lock.Name {
	names := make([]lock.Name, 0, len(c.changes))
	for i := range c.changes {
		if name := c.changes[i].Lock.Name; !c.isEnded(name, i) {
			names = append(names, name)
		}
	}
	return names
}

// adds returns how many more locks are held after a commit.
func (c *commit) adds() (n int) {
	for i := range c.changes {
		switch change := &c.changes[i]; {
		case change.Type == lock.Unlocked:
			n--
		case change.Type == lock.Locked && change.Prev == 0:
			n++
		}
	}
	return n
}

// isEnded reports whether the commit ends a hold of the lock with one of the first n
// changes.
func (c *commit) isEnded(name lock.Name, n int) bool {
	for i := range c.changes[:n] {
		if c.changes[i].Type == lock.Unlocked && c.changes[i].Lock.Name == name {
			return true
		}
	}
	return false
}

// isGranted reports whether the commit grants the lock with one of the changes from n on.
func (c *commit) isGranted(name lock.Name, n int) bool {
	for i := n; i < len(c.changes); i++ {
		if c.changes[i].Type == lock.Locked && c.changes[i].Lock.Name == name {
			return true
		}
	}
	return false
}

// onlyReleases reports whether a commit adds nothing to the disk but its journal
// lines. What others did to the files is one of these: they have done it.
func (c *commit) onlyReleases() bool {
	for i := range c.changes {
		if c.changes[i].Type != lock.Unlocked {
			return false
		}
	}
	return true
}

// Commit implements lock.Store.
func (s *Store) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	if err := lock.CheckCommit(changes, guards); err != nil {
		return nil, err
	}
	c := &commit{changes: changes, guards: guards, done: make(chan struct{})}
	if !s.queue.add(c) {
		return nil, lock.ErrShuttingDown
	}
	select {
	case <-c.done:
		return s.outcome(ctx, c)
	case <-ctx.Done():
	}
	because := context.Cause(ctx)
	if s.queue.withdraw(c) {
		return nil, givenUp(because)
	}
	return nil, &lock.PendingError{
		Outcome: func() ([]lock.Event, error) {
			<-c.done
			return s.outcome(context.Background(), c)
		},
		Err: &lock.Error{
			Reason:  lock.ErrOutcomeUnknown,
			Message: fmt.Sprintf("the change was given up before it was durable (%v), maybe because the store's disk hangs; it may still come about: ask again later, with the same request_id", because),
			Err:     because,
		},
	}
}

// outcome returns what became of a commit. After a conflict, readers see what stood in the
// way by then.
func (s *Store) outcome(ctx context.Context, c *commit) ([]lock.Event, error) {
	if !errors.Is(c.err, lock.ErrConflict) {
		return c.events, c.err
	}
	inspected := make(chan error, 1)
	go func() { inspected <- s.inspect(c.names()) }()
	select {
	case err := <-inspected:
		return nil, cmp.Or(err, c.err)
	case <-ctx.Done():
		return nil, givenUp(context.Cause(ctx))
	}
}

func givenUp(because error) error {
	return &lock.Error{
		Reason:  lock.ErrReadOnly,
		Message: fmt.Sprintf("the change was given up before the store came to it (%v), maybe because its disk hangs; nothing changed, ask again later", because),
		Err:     because,
	}
}

// maxBatch is how many commits share a batch at most: the first of them wait for the last.
const maxBatch = 1024

// queue is the commits that the committer has not begun with, oldest first.
type queue struct {
	mu      sync.Mutex
	more    sync.Cond // there is a commit, or the queue is closed
	commits []*commit
	closed  bool
}

// add adds a commit, and reports whether the queue is open.
func (q *queue) add(c *commit) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.commits = append(q.commits, c)
	q.more.Signal()
	return true
}

// withdraw takes out a commit, and reports whether it was there still.
func (q *queue) withdraw(c *commit) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.commits, c)
	if i < 0 {
		return false
	}
	q.commits = slices.Delete(q.commits, i, i+1)
	return true
}

// wait waits for a commit. It reports false when no more will come.
func (q *queue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.commits) == 0 && !q.closed {
		q.more.Wait()
	}
	return len(q.commits) > 0
}

// take takes out the commits that are to share a batch.
func (q *queue) take() []*commit {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.commits), maxBatch)
	commits := q.commits[:n:n]
	q.commits = q.commits[n:]
	if len(q.commits) == 0 {
		q.commits = nil // so that those taken are not kept
	}
	return commits
}

// close ends the queue, and reports whether that was its first time. What is in it is
// still taken out.
func (q *queue) close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.closed = true
	q.more.Signal()
	return true
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}
