// Package manager has the rules of who gets which lock when: taking, queueing, releasing,
// renewing, expiring, breaking, watching. [Manager] decides, and commits to a lock.Store
// by compare-and-swap, so that every store behaves the same. It keeps nothing but what
// may be lost in a crash: who waits, and how far a lease has been renewed.
package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pylok/pylok/lease"
	"github.com/pylok/pylok/lock"
)

// Config sets up a Manager. The zero value of each field stands for its default.
type Config struct {
	// MaxWait is the longest wait that a request may ask for. Default 24 h.
	MaxWait time.Duration
	// MaxWaiters is how many calls may wait for one lock, those that send a request
	// again included. Default 16,384.
	MaxWaiters int
	// MaxWaitersTotal is how many calls may wait for all locks together. Default
	// 65,536.
	MaxWaitersTotal int
	// MaxWaitingBytes is how many bytes of data, names and other texts the calls that
	// wait may have in all. Default 128 MiB.
	MaxWaitingBytes int
	// MaxHistories is how many calls of History read the past at a time. Default 8.
	MaxHistories int
	// Logger is told of what nobody asked for: leases that ran out, data that
	// looks like an expiry and is none. Default: nothing is logged.
	Logger *slog.Logger
	// Health is told, one call after the other, with an error when the store's changes
	// can no longer be followed, so that what others do to locks goes unseen, and with
	// nil when they can again. Default: nobody is told.
	Health func(error)

	// boottime replaces the clock that leases run on, in tests.
	boottime func() time.Duration
}

// Manager grants, queues, renews, expires and breaks locks over a Store. All of a
// lock's requests are decided one after the other. Every method may be called
// from many goroutines at once.
type Manager struct {
	store  lock.Store
	config Config
	leases *lease.Table

	histories chan struct{} // has an element for each call that reads the past

	mu           sync.Mutex
	queues       map[lock.Name]*queue
	places       uint64               // the last place that a waiter was given
	scopes       map[lock.Name]*scope // names that cover others, as trees that are held or about to be
	shared       map[lock.Name]int    // locks of which shared holds may stand, and a number from 1 below which all are held
	awake        []*queue             // to be walked over next: what stood before those in their lines is over
	special      atomic.Int32         // how many there are of both; may be read without mu
	closing      atomic.Int32         // how many requests for a tree keep later ones below waiting; likewise
	refusing     atomic.Int32         // how many requests wait for no person; likewise
	asked        map[lock.Name]*asked // what was asked of holders
	waiting      int                  // calls that wait, for any lock
	waitingBytes int                  // that they keep
	deliveries   map[lock.Token]*delivery
	untold       map[lock.Token]string // holds that nobody was told of and that are still to be ended, and the actors of their grants

	running    context.Context // until Close; ended with mu held
	stop       context.CancelFunc
	background sync.WaitGroup
}

// New starts a Manager on a store, which stays the caller's to close, after
// the Manager. Every lease begins anew: how far it had been renewed before a
// restart is not known, and no hold may end early.
func New(store lock.Store, config Config) (*Manager, error) {
	if config.MaxWait == 0 {
		config.MaxWait = 24 * time.Hour
	}
	if config.MaxWaiters == 0 {
		config.MaxWaiters = 16384
	}
	if config.MaxWaitersTotal == 0 {
		config.MaxWaitersTotal = 65536
	}
	if config.MaxWaitingBytes == 0 {
		config.MaxWaitingBytes = 128 << 20
	}
	if config.MaxHistories == 0 {
		config.MaxHistories = 8
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Health == nil {
		config.Health = func(error) {}
	}
	if config.boottime == nil {
		config.boottime = new(lease.Clock).Now
	}
	m := &Manager{
		store:  store,
		config: config,
		leases: lease.NewTable(config.boottime),
		queues: make(map[lock.Name]*queue),
		scopes: make(map[lock.Name]*scope),
		shared: make(map[lock.Name]int),
		asked:  make(map[lock.Name]*asked),
		untold: make(map[lock.Token]string),

		deliveries: make(map[lock.Token]*delivery),

		histories: make(chan struct{}, config.MaxHistories),
	}
	m.running, m.stop = context.WithCancel(context.Background())
	revision, locks := store.List(m.running, lock.Pattern{}, lock.Name{})
	for l, err := range locks {
		if err != nil {
			m.stop()
			return nil, fmt.Errorf("listing the held locks: %w", err)
		}
		m.observe(l)
	}
	m.background.Go(func() { m.follow(m.running, revision) })
	m.background.Go(func() { m.leases.Run(m.running, m.expire) })
	return m, nil
}

// closeLimit is how long Close waits for a store that does not answer.
const closeLimit = 3 * time.Second

// Close ends every wait and every watch with ErrShuttingDown, stops expiring leases and
// handing over, and waits until that has stopped, for at most 3 s. Holds stay as they
// are.
func (m *Manager) Close() {
	m.mu.Lock()
	m.stop()
	m.mu.Unlock()
	stopped := make(chan struct{})
	go func() {
		m.background.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(closeLimit):
		m.config.Logger.Error("the store did not answer while the work in the background was to stop; it is left to itself", "limit", closeLimit)
	}
}

// follow keeps leases and queues in step with changes that come from elsewhere: from
// the hands of people in the files, from other servers on the same store. Where the
// store fails it goes on, after a pause, from the state that it finds then.
func (m *Manager) follow(ctx context.Context, after lock.Revision) {
	missed := false      // changes after that revision may have been
	var failed error     // what the last look at the store came upon
	pause := followPause // before the next look, if this one fails
	for {
		events, err := m.followed(ctx, &after, missed)
		switch {
		case ctx.Err() != nil || errors.Is(err, lock.ErrShuttingDown):
			return
		case errors.Is(err, lock.ErrCompacted) && !missed:
			missed = true // the changes in between are lost to us; what stands is not
			continue
		case err != nil:
			if failed == nil || failed.Error() != err.Error() {
				m.config.Logger.Error("the store's changes cannot be followed, and what others do to locks goes unseen; trying again", "error", err)
				m.config.Health(fmt.Errorf("following the store's changes: %w", err))
			}
			missed, failed = true, err
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, maxFollowPause)
			continue
		case failed != nil:
			m.config.Logger.Info("the store's changes are followed again")
			m.config.Health(nil)
		}
		missed, failed, pause = false, nil, followPause
		m.heard(events)
	}
}

const (
	// followPause and maxFollowPause are how long follow waits before it tries again
	// what failed: at first, and at most.
	followPause    = 100 * time.Millisecond
	maxFollowPause = 5 * time.Second
	// followQuiet is how long a store that failed has to be quiet until it is taken to
	// be well again.
	followQuiet = time.Second
	// followWait is how long one that did not fail is waited for at a time.
	followWait = time.Hour
)

// followed returns the next events, or none when it has been quiet, and moves after to
// where they end. If some were missed it begins with the present state.
func (m *Manager) followed(ctx context.Context, after *lock.Revision, missed bool) ([]lock.Event, error) {
	wait := followWait
	if missed {
		revision, err := m.catchUp(ctx)
		if err != nil {
			return nil, err
		}
		*after, wait = revision, followQuiet
	}
	events, until, err := m.store.Events(ctx, lock.Pattern{}, *after, wait)
	if err == nil {
		*after = until
	}
	return events, err
}

// catchUp brings leases and queues in step with the store's present state, whose
// revision it returns.
func (m *Manager) catchUp(ctx context.Context) (lock.Revision, error) {
	revision, locks := m.store.List(ctx, lock.Pattern{}, lock.Name{})
	for l, err := range locks {
		if err != nil {
			return 0, err
		}
		m.observe(l)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, q := range m.queues {
		m.handOverSoonLocked(q)
	}
	for _, s := range m.scopes { // trees may be over
		m.overLocked(s.name)
	}
	for base := range m.shared {
		if m.shared[base] = 1; m.sharedLocked(base, 1) == 0 {
			delete(m.shared, base)
		}
	}
	for name, a := range m.asked {
		if m.heldLocked(name).Token != a.token {
			delete(m.asked, name)
		}
	}
	m.countSpecialLocked()
	return revision, nil
}

// heard brings leases and queues in step with events.
func (m *Manager) heard(events []lock.Event) {
	m.leases.Follow(events)
	for _, event := range events {
		l := event.Lock
		if event.Type != lock.Unlocked {
			if l.Tree || l.Shared() {
				m.mu.Lock()
				m.observeLocked(l)
				m.mu.Unlock()
			}
			if event.Type == lock.Updated {
				m.over(l.Name) // it may be a tree no more
			}
			if event.Cause == lock.File {
				if l.Shared() {
					m.mu.Lock()
					if q := m.queues[l.Name.Base()]; q != nil { // what a set keeps may be another now
						m.awake = append(m.awake, q)
						m.wakeLocked()
					}
					m.mu.Unlock()
				}
				if _, problem := l.Data.ExpireTime(l.AcquireTime); problem != "" {
					m.config.Logger.Warn("expire is not acted upon", "name", l.Name, "problem", problem)
				}
			}
			continue
		}
		m.over(l.Name)
		m.mu.Lock()
		if a := m.asked[l.Name]; a != nil && a.token <= l.Token {
			delete(m.asked, l.Name)
		}
		if q := m.queues[l.Name.Base()]; q != nil && q.line.Len() > 0 {
			m.awake = append(m.awake, q)
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	m.wakeLocked() // once for all: the holds of a set end together
	m.mu.Unlock()
	m.stir(events)
}

// stir has it decided anew what may be decided otherwise after events: for those who wait for
// a tree above, and those who wait for no person.
func (m *Manager) stir(events []lock.Event) {
	if m.closing.Load() == 0 && m.refusing.Load() == 0 {
		return // as a rule
	}
	var queues []*queue
	m.mu.Lock()
	for _, event := range events {
		base := event.Lock.Name.Base()
		if q := m.queues[base]; q != nil {
			queues = append(queues, q)
		}
		if s := m.scopes[base]; s != nil && m.refusing.Load() > 0 {
			for q := range s.behind { // a person may have the tree now
				queues = append(queues, q)
			}
		}
		if m.closing.Load() == 0 {
			continue
		}
		for above := range base.Above() {
			if s := m.scopes[above]; s != nil && len(s.closing) > 0 {
				queues = append(queues, s.closing[0].all[0])
			}
		}
	}
	m.mu.Unlock()
	slices.SortFunc(queues, func(a, b *queue) int { return a.name.Compare(b.name) })
	m.walk(slices.Compact(queues)...)
}

// commitLimit is how long a commit may take until its caller is told that the outcome is
// unknown. The store alone can take so long: a disk that hangs.
const commitLimit = 30 * time.Second

var errCommitLimit = fmt.Errorf("it took longer than %v", commitLimit)

// commit commits changes, which goes on although the caller leaves; those that grant a lock
// are for a waiter, if there is one. Where the store is still at it after commitLimit, the
// first queue gets a late commit, and until they have been passed on no other is made for
// any of them. The caller must hold the queues.
func (m *Manager) commit(ctx context.Context, queues []*queue, w *waiter, guards []lock.Guard, changes ...lock.Change) ([]lock.Event, error) {
	for _, q := range queues {
		if q.late != nil {
			return nil, stuck(q.name)
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), commitLimit, errCommitLimit)
	defer cancel()
	events, err := m.store.Commit(ctx, changes, guards...)
	if pending, ok := errors.AsType[*lock.PendingError](err); ok {
		queues[0].late = &lateCommit{pending: pending, changes: changes, waiter: w, queues: queues}
	}
	return events, err
}

// present returns the lock as it stands; a free one has only its name.
func (m *Manager) present(ctx context.Context, name lock.Name) (lock.Lock, error) {
	l, err := m.store.Get(ctx, name)
	if errors.Is(err, lock.ErrNotLocked) {
		return lock.Lock{Name: name}, nil
	}
	return l, err
}

// described adds what only the Manager knows of a lock.
func (m *Manager) described(l lock.Lock) lock.Lock { return m.describedFor(l, mostWaiting) }

// describedFor is described with so many of the lock's waiters.
func (m *Manager) describedFor(l lock.Lock, mostWaiting int) lock.Lock {
	l.Deadline = m.leases.Deadline(l)
	if warning := l.ExpireWarning(); warning != "" {
		l.Warnings = strings.TrimPrefix(l.Warnings+"\n"+warning, "\n")
	}
	return m.situated(l, mostWaiting)
}
