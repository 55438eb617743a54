package lock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Config sets up a Manager. The zero value of each field stands for its default.
type Config struct {
	// MaxWait is the longest wait that a request may ask for. Default 24 h.
	MaxWait time.Duration
	// MaxWaiters is how many requests may wait for one lock. Default 16,384.
	MaxWaiters int
	// Logger is told of what nobody asked for: leases that ran out, data that
	// looks like an expiry and is none. Default: nothing is logged.
	Logger *slog.Logger

	// boottime replaces the clock that leases run on, in tests.
	boottime func() time.Duration
}

// Manager grants, queues, renews, expires and breaks locks over a Store. All of a
// lock's requests are decided one after the other. Every method may be called
// from many goroutines at once.
type Manager struct {
	store  Store
	config Config
	leases *leaseTable

	mu    sync.Mutex
	turns map[Name]*turn

	running    context.Context // until Close
	stop       context.CancelFunc
	background sync.WaitGroup
}

// NewManager starts a Manager on a store, which stays the caller's to close, after
// the Manager. Every lease begins anew: how far it had been renewed before a
// restart is not known, and no hold may end early.
func NewManager(store Store, config Config) (*Manager, error) {
	if config.MaxWait == 0 {
		config.MaxWait = 24 * time.Hour
	}
	if config.MaxWaiters == 0 {
		config.MaxWaiters = 16384
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.boottime == nil {
		config.boottime = new(bootClock).now
	}
	m := &Manager{
		store:  store,
		config: config,
		leases: newLeaseTable(config.boottime),
		turns:  make(map[Name]*turn),
	}
	m.running, m.stop = context.WithCancel(context.Background())
	revision, locks := store.List(m.running, Pattern{}, Name{})
	for l, err := range locks {
		if err != nil {
			m.stop()
			return nil, fmt.Errorf("listing the held locks: %w", err)
		}
		m.leases.observe(l)
	}
	m.background.Go(func() { m.follow(m.running, revision) })
	m.background.Go(func() { m.leases.run(m.running, m.expire) })
	return m, nil
}

// Close ends every wait and every watch with ErrShuttingDown and stops expiring
// leases. Holds stay as they are.
func (m *Manager) Close() {
	m.stop()
	m.background.Wait()
}

// follow keeps leases and queues in step with changes that come from elsewhere:
// from the hands of people in the files, from other servers on the same store.
func (m *Manager) follow(ctx context.Context, after Revision) {
	for {
		events, err := m.store.Events(ctx, after)
		switch {
		case errors.Is(err, ErrCompacted):
			// The changes in between are lost to us; what stands is not.
			var locks iter.Seq2[Lock, error]
			after, locks = m.store.List(ctx, Pattern{}, Name{})
			for l, err := range locks {
				if err == nil {
					m.leases.observe(l)
				}
			}
			m.mu.Lock()
			for _, t := range m.turns {
				m.handOverSoon(t)
			}
			m.mu.Unlock()
			continue
		case err != nil:
			if ctx.Err() == nil && !errors.Is(err, ErrShuttingDown) {
				m.config.Logger.Error("following the store's changes stopped; waiters and leases no longer see outside changes", "error", err)
			}
			return
		}
		m.leases.follow(events)
		for _, event := range events {
			if event.Type != Unlocked {
				if event.Cause == File {
					if _, problem := event.Lock.Data.ExpireTime(event.Lock.AcquireTime); problem != "" {
						m.config.Logger.Warn("expire is not acted upon", "name", event.Lock.Name, "problem", problem)
					}
				}
				continue
			}
			m.mu.Lock()
			if t := m.turns[event.Lock.Name]; t != nil {
				m.handOverSoon(t)
			}
			m.mu.Unlock()
		}
		after = events[len(events)-1].Revision
	}
}

// commit commits one change, which goes on although the caller leaves.
func (m *Manager) commit(ctx context.Context, change Change) (Event, error) {
	events, err := m.store.Commit(context.WithoutCancel(ctx), change)
	if err != nil {
		return Event{}, err
	}
	if change.Type == Extended {
		return Event{Lock: change.Lock}, nil
	}
	return events[0], nil
}

// present returns the lock as it stands; a free one has only its name.
func (m *Manager) present(ctx context.Context, name Name) (Lock, error) {
	l, err := m.store.Get(ctx, name)
	if errors.Is(err, ErrNotLocked) {
		return Lock{Name: name}, nil
	}
	return l, err
}

// described adds what only the Manager knows of a lock.
func (m *Manager) described(l Lock) Lock {
	l.Deadline = m.leases.deadline(l)
	if warning := l.expireWarning(); warning != "" {
		l.Warnings = strings.TrimPrefix(l.Warnings+"\n"+warning, "\n")
	}
	m.mu.Lock()
	if t := m.turns[l.Name]; t != nil {
		l.Waiters = t.waiters()
	}
	m.mu.Unlock()
	return l
}
