// Package memstore is the reference Store: everything in memory, nothing clever. It
// is what the other stores are compared with, and what tests run on. Nothing
// survives the process.
package memstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
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
	locks    *btree.BTreeG[held] // in name order
	closed   bool
}

// held is a held lock, by the text of its name.
type held struct {
	key  string
	lock lock.Lock
}

// get returns a lock as it stands, without a token if it is free. The caller must hold mu.
func (s *Store) get(name lock.Name) lock.Lock {
	h, _ := s.locks.Get(held{key: name.String()})
	return h.lock
}

// put makes a lock stand. The caller must hold mu.
func (s *Store) put(l lock.Lock) { s.locks.ReplaceOrInsert(held{l.Name.String(), l}) }

var _ lock.Store = (*Store)(nil)

// New returns an empty Store.
func New(config Config) *Store {
	if config.MaxLocks == 0 {
		config.MaxLocks = 2_000_000
	}
	return &Store{
		maxLocks: config.MaxLocks,
		feed:     feed.New(0, config.Feed),
		locks:    btree.NewG(32, func(a, b held) bool { return a.key < b.key }),
	}
}

// Get implements lock.Store.
func (s *Store) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return lock.Lock{}, shuttingDown()
	}
	l := s.get(name)
	if !l.Held() {
		return lock.Lock{}, lock.ErrNotLocked
	}
	return l, nil
}

// List implements lock.Store.
func (s *Store) List(ctx context.Context, p lock.Pattern, after lock.Name) (lock.Revision, iter.Seq2[lock.Lock, error]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.revision, func(yield func(lock.Lock, error) bool) { yield(lock.Lock{}, shuttingDown()) }
	}
	locks := s.locks.Clone()
	return s.revision, func(yield func(lock.Lock, error) bool) {
		passed := 0
		for part := range p.Parts() {
			goOn := true
			locks.AscendGreaterOrEqual(held{key: max(part.Prefix(), after.String())}, func(h held) bool {
				if passed++; passed%256 == 0 && ctx.Err() != nil {
					yield(lock.Lock{}, ctx.Err())
					goOn = false
					return false
				}
				switch {
				case !strings.HasPrefix(h.key, part.Prefix()), part.IsOne() && h.key != part.Prefix():
					return false
				case h.lock.Name == after || !part.Match(h.lock.Name):
					return true
				}
				goOn = yield(h.lock, nil)
				return goOn
			})
			if !goOn {
				return
			}
		}
	}
}

// Revision implements lock.Store.
func (s *Store) Revision(context.Context) (lock.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, shuttingDown()
	}
	return s.revision, nil
}

// Commit implements lock.Store: it checks every change, and then makes them all.
func (s *Store) Commit(_ context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	if err := lock.CheckCommit(changes, guards); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, shuttingDown()
	}
	if err := s.check(changes, guards); err != nil {
		return nil, err
	}
	events := make([]lock.Event, 0, len(changes)) // one for each change
	told := make([]lock.Event, 0, len(changes))   // those that count, and the ends of holds that were replaced
	var set lock.Token
	for _, change := range changes {
		if change.Type == lock.Extended {
			present := s.get(change.Lock.Name)
			present.TTL, present.ExpireTime = change.Lock.TTL, change.Lock.ExpireTime
			s.put(present)
			events = append(events, lock.Event{})
			continue
		}
		replaced, event := s.apply(change, &set)
		if event.Previous != 0 {
			told = append(told, event.EndOf(replaced))
		}
		events, told = append(events, event), append(told, event)
	}
	s.feed.Append(nil, told...)
	return events, nil
}

// check returns why a commit cannot be made, or nil.
func (s *Store) check(changes []lock.Change, guards []lock.Guard) error {
	for _, guard := range guards {
		if s.get(guard.Name).Revision != guard.Revision {
			return lock.ErrConflict
		}
	}
	more := 0 // locks are held afterwards
	for i, change := range changes {
		present := s.get(change.Lock.Name)
		if slices.ContainsFunc(changes[:i], func(c lock.Change) bool { return c.Lock.Name == change.Lock.Name }) {
			present = lock.Lock{} // its hold ends before
		}
		switch {
		case change.Prev != present.Revision, change.Type != lock.Locked && !present.Held():
			return lock.ErrConflict
		case change.Type == lock.Unlocked:
			more--
			continue
		case change.Type == lock.Extended:
			continue
		case !present.Held():
			more++
		}
		if err := s.CheckSize(change.Lock); err != nil {
			return err
		}
	}
	if n := s.locks.Len(); more > 0 && n+more > s.maxLocks {
		return &lock.Error{
			Reason:  lock.ErrTooManyLocks,
			Message: fmt.Sprintf("%d locks are held, the most that may be is %d; unlock some", n, s.maxLocks),
		}
	}
	return nil
}

// apply makes a change that has been checked and that is not Extended. It returns the
// lock as it was, and the event. set is the id of the set that the commit grants; 0: not
// yet known.
func (s *Store) apply(change lock.Change, set *lock.Token) (before lock.Lock, event lock.Event) {
	before = s.get(change.Lock.Name)
	if change.Type == lock.Locked && before.Held() {
		s.revision++ // for its end
	}
	s.revision++
	event = lock.Event{
		Revision: s.revision,
		Time:     time.Now().UTC().Truncate(time.Millisecond),
		Type:     change.Type,
		Cause:    change.Cause,
		Lock:     change.Lock,
		Actor:    change.Actor,
		Reason:   change.Reason,
	}
	l := &event.Lock
	l.Revision, l.Warnings = s.revision, ""
	if change.Type == lock.Locked {
		event.Previous = before.Token
		l.Token = lock.Token(s.revision)
		if l.Set.Size > 0 && l.Set.ID == 0 {
			*set = cmp.Or(*set, l.Token)
			l.Set.ID = *set
		}
		if l.AcquireTime.IsZero() {
			l.AcquireTime = event.Time
		}
	}
	if change.Type == lock.Unlocked {
		s.locks.Delete(held{key: l.Name.String()})
	} else {
		s.put(*l)
	}
	return before, event
}

// CheckSize implements lock.Store: it holds a lock to what a lock file may hold, its
// size estimated by that of the same in JSON.
func (s *Store) CheckSize(l lock.Lock) error {
	text, err := json.Marshal(struct {
		Name, Holder, Caller, RequestID string
		Data                            lock.Data
	}{l.Name.String(), l.Holder, l.Caller, l.RequestID, l.Data})
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
func (s *Store) Events(ctx context.Context, p lock.Pattern, after lock.Revision, wait time.Duration) ([]lock.Event, lock.Revision, error) {
	return s.feed.Events(ctx, p, after, wait)
}

// History implements lock.Store. It keeps no event longer than Events does, and reads them
// all each time.
func (s *Store) History(ctx context.Context, q lock.HistoryQuery, from lock.Revision, limit int) (page lock.HistoryPage, err error) {
	last, err := s.Revision(ctx)
	if err != nil {
		return page, err
	}
	var selected []lock.Event
	for after := q.After; after < last; {
		events, until, err := s.feed.Events(ctx, q.Pattern, after, 0)
		var compacted *lock.CompactedError
		if errors.As(err, &compacted) && compacted.Kept > after {
			after = compacted.Kept
			continue
		}
		if err != nil {
			return page, err
		}
		for _, e := range events {
			if e.Revision <= last && q.Match(&e) {
				selected = append(selected, e)
			}
		}
		after = until
	}
	if q.NewestFirst {
		slices.Reverse(selected)
	}
	size := 0
	for _, e := range selected {
		isBehind := e.Revision > from
		if q.NewestFirst {
			isBehind = from == 0 || e.Revision < from
		}
		if !isBehind {
			continue
		}
		if n := len(page.Events); n == limit || size >= lock.MaxPageBytes {
			page.Next = page.Events[n-1].Revision
			return page, nil
		}
		page.Events = append(page.Events, e)
		size += e.Size()
	}
	return page, nil
}

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
