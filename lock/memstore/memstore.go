// Package memstore is the reference Store: everything in memory, nothing clever. It
// is what the other stores are compared with, and what tests run on. Nothing
// survives the process.
package memstore

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/google/btree"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/feed"
)

// Config sets up a Store. The zero value of each field stands for its default.
type Config struct {
	// MaxLocks is how many locks may be held at a time. Default 2,000,000.
	MaxLocks int
	// Feed is how far back Events reaches.
	Feed feed.Config
}

// Store keeps locks in memory.
type Store struct {
	maxLocks int
	feed     *feed.Feed

	mu       sync.Mutex
	revision lock.Revision
	locks    *btree.BTreeG[lock.Lock] // the held ones, in name order
	closed   bool
}

var _ lock.Store = (*Store)(nil)

// New returns an empty Store.
func New(config Config) *Store {
	if config.MaxLocks == 0 {
		config.MaxLocks = 2_000_000
	}
	return &Store{
		maxLocks: config.MaxLocks,
		feed:     feed.New(0, config.Feed),
		locks:    btree.NewG(32, func(a, b lock.Lock) bool { return a.Name.Compare(b.Name) < 0 }),
	}
}

// Get implements lock.Store.
func (s *Store) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return lock.Lock{}, shuttingDown()
	}
	l, held := s.locks.Get(lock.Lock{Name: name})
	if !held {
		return lock.Lock{}, lock.ErrNotLocked
	}
	return l, nil
}

// List implements lock.Store. The present state is cloned, which copies nothing, so
// that who only asks for the revision pays for no more.
func (s *Store) List(ctx context.Context, p lock.Pattern, after lock.Name) (lock.Revision, iter.Seq2[lock.Lock, error]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.revision, func(yield func(lock.Lock, error) bool) { yield(lock.Lock{}, shuttingDown()) }
	}
	locks := s.locks.Clone()
	return s.revision, func(yield func(lock.Lock, error) bool) {
		passed := 0
		locks.AscendGreaterOrEqual(lock.Lock{Name: after}, func(l lock.Lock) bool {
			if passed++; passed%256 == 0 && ctx.Err() != nil {
				yield(lock.Lock{}, ctx.Err())
				return false
			}
			return l.Name == after || !p.Match(l.Name) || yield(l, nil)
		})
	}
}

// Commit implements lock.Store: it checks every change, and then makes them all.
func (s *Store) Commit(ctx context.Context, changes ...lock.Change) ([]lock.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, shuttingDown()
	}
	held := s.locks.Len()
	for i, change := range changes {
		sameLock := func(other lock.Change) bool { return other.Lock.Name == change.Lock.Name }
		if slices.ContainsFunc(changes[:i], sameLock) {
			return nil, lock.Invalid("name", fmt.Sprintf("%s is to be changed twice at the same time", change.Lock.Name))
		}
		more, err := s.check(change)
		if err != nil {
			return nil, err
		}
		held += more
	}
	if held > s.maxLocks && held > s.locks.Len() {
		return nil, &lock.Error{
			Reason:  lock.ErrTooManyLocks,
			Message: fmt.Sprintf("%d locks are held, the most that may be; unlock some", s.locks.Len()),
		}
	}
	events := make([]lock.Event, len(changes))
	var told []lock.Event
	for i, change := range changes {
		before, _ := s.locks.Get(change.Lock)
		if change.Type == lock.Locked && before.Held() {
			s.revision++ // for its end
		}
		events[i] = s.apply(change)
		switch {
		case change.Type == lock.Extended:
		case change.Type == lock.Locked && before.Held():
			told = append(told, events[i].EndOf(before), events[i])
		default:
			told = append(told, events[i])
		}
	}
	s.feed.Append(told...)
	return events, nil
}

// CommitEach implements lock.Store.
func (s *Store) CommitEach(ctx context.Context, changes ...lock.Change) []lock.Outcome {
	return lock.CommitInTurn(ctx, s, changes...)
}

// check returns how many more locks are held after a change, or why it cannot be.
func (s *Store) check(change lock.Change) (more int, err error) {
	present, held := s.locks.Get(change.Lock) // Revision 0 when free
	switch {
	case change.Lock.Name.IsZero():
		_, err := lock.ParseName("")
		return 0, err
	case change.Type != lock.Locked && change.Type != lock.Updated && change.Type != lock.Unlocked && change.Type != lock.Extended:
		return 0, lock.Invalid("type", fmt.Sprintf("a lock cannot be changed by %v", change.Type))
	case change.Prev != present.Revision, change.Type != lock.Locked && !held:
		return 0, lock.ErrConflict
	case change.Type == lock.Unlocked:
		return -1, nil
	case change.Type != lock.Extended:
		if err := s.CheckSize(change.Lock); err != nil {
			return 0, err
		}
	}
	if held {
		return 0, nil
	}
	return 1, nil
}

// apply makes a change that has been checked, and returns its event.
func (s *Store) apply(change lock.Change) lock.Event {
	l := change.Lock
	l.Warnings = ""
	if change.Type == lock.Extended {
		present, _ := s.locks.Get(l)
		present.TTL, present.ExpireTime = l.TTL, l.ExpireTime
		s.locks.ReplaceOrInsert(present)
		return lock.Event{}
	}
	s.revision++
	now := time.Now().UTC().Truncate(time.Millisecond)
	l.Revision = s.revision
	if change.Type == lock.Locked {
		l.Token = lock.Token(s.revision)
		if l.AcquireTime.IsZero() {
			l.AcquireTime = now
		}
	}
	if change.Type == lock.Unlocked {
		s.locks.Delete(l)
	} else {
		s.locks.ReplaceOrInsert(l)
	}
	return lock.Event{
		Revision: s.revision,
		Time:     now,
		Type:     change.Type,
		Cause:    change.Cause,
		Lock:     l,
		Actor:    change.Actor,
		Reason:   change.Reason,
	}
}

// CheckSize implements lock.Store: it holds a lock to what a lock file may hold, its
// size estimated by that of the same in JSON.
func (s *Store) CheckSize(l lock.Lock) error {
	text, err := json.Marshal(struct {
		Name, Holder, RequestID string
		Data                    lock.Data
	}{l.Name.String(), l.Holder, l.RequestID, l.Data})
	if err != nil {
		return fmt.Errorf("measuring %s: %w", l.Name, err)
	}
	if len(text) <= lock.MaxFileBytes {
		return nil
	}
	return &lock.Error{
		Reason:  lock.ErrDataTooLarge,
		Field:   "data",
		Message: fmt.Sprintf("the lock file would be %d bytes; at most %d are allowed: keep the bulk elsewhere and lock with a link to it", len(text), lock.MaxFileBytes),
	}
}

// Events implements lock.Store.
func (s *Store) Events(ctx context.Context, after lock.Revision) ([]lock.Event, error) {
	return s.feed.After(ctx, after)
}

// Breaks implements lock.Store: it keeps none longer than the rest.
func (s *Store) Breaks(context.Context, lock.Revision) ([]lock.Event, error) { return nil, nil }

// Close implements lock.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.feed.Close()
	return nil
}

func shuttingDown() error {
	return &lock.Error{
		Reason:  lock.ErrShuttingDown,
		Message: "the store is closed; nothing changed, ask again when the server is back",
	}
}
