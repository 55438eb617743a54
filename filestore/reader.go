package filestore

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// reader is what reads need: what they see, and the files that they may still use.
type reader struct {
	view atomic.Pointer[view] // nil: closed

	reading      sync.RWMutex // held for reading by who reads files beside the committer
	readingEnded bool         // guarded by reading

	pastReads chan struct{} // has an element for each call of Events that reads the journal
}

// mostPastReads is how many calls of Events read the journal at a time.
const mostPastReads = 8

// view is the state as of one revision. It is never changed.
type view struct {
	revision lock.Revision
	locks    *btree.BTreeG[*entry]
}

// entry is a held lock and what is known of its file. It is never changed.
type entry struct {
	key    string // the name's text
	lock   lock.Lock
	byFile bool // somebody else made the hold's file
	// extended: the hold's terms are not those in its file.
	extended bool
	// fileToken is the lock_token that the file has: the hold's, or, in a file
	// of somebody else's making, whatever stands there.
	fileToken lock.Token
	print     fingerprint
	warnings  string // what in the file does not count; lock.Warnings has them only for readers
}

// seen returns the lock as readers see it.
func (e *entry) seen() lock.Lock {
	l := e.lock
	l.Warnings = e.warnings
	return l
}

func newTree() *btree.BTreeG[*entry] {
	return btree.NewG(32, func(a, b *entry) bool { return a.key < b.key })
}

func find(locks *btree.BTreeG[*entry], name lock.Name) *entry {
	wanted := sought.Get().(*entry)
	defer sought.Put(wanted)
	wanted.key = name.String()
	e, _ := locks.Get(wanted)
	return e
}

// sought has entries to ask a tree for, which has no other way and does not keep them.
var sought = sync.Pool{New: func() any { return new(entry) }}

// Get implements lock.Store.
func (s *Store) Get(_ context.Context, name lock.Name) (lock.Lock, error) {
	v := s.view.Load()
	if v == nil {
		return lock.Lock{}, lock.ErrShuttingDown
	}
	if e := find(v.locks, name); e != nil {
		return e.seen(), nil
	}
	return lock.Lock{}, lock.ErrNotLocked
}

// List implements lock.Store.
func (s *Store) List(ctx context.Context, p lock.Pattern, after lock.Name) (lock.Revision, iter.Seq2[lock.Lock, error]) {
	v := s.view.Load()
	if v == nil {
		return 0, func(yield func(lock.Lock, error) bool) { yield(lock.Lock{}, lock.ErrShuttingDown) }
	}
	return v.revision, func(yield func(lock.Lock, error) bool) {
		passed := 0
		for part := range p.Parts() {
			from, goOn := &entry{key: max(part.Prefix(), after.String())}, true
			v.locks.AscendGreaterOrEqual(from, func(e *entry) bool {
				if passed++; passed%256 == 0 && ctx.Err() != nil {
					yield(lock.Lock{}, ctx.Err())
					goOn = false
					return false
				}
				switch {
				case !strings.HasPrefix(e.key, part.Prefix()), part.IsOne() && e.key != part.Prefix():
					return false
				case e.key == after.String() || !part.Match(e.lock.Name):
					return true
				}
				goOn = yield(e.seen(), nil)
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
	v := s.view.Load()
	if v == nil {
		return 0, lock.ErrShuttingDown
	}
	return v.revision, nil
}

// Events implements lock.Store. What the feed no longer has is read from the journal.
func (s *Store) Events(ctx context.Context, p lock.Pattern, after lock.Revision, wait time.Duration) ([]lock.Event, lock.Revision, error) {
	deadline := time.Now().Add(wait)
	for {
		events, until, err := s.feed.Events(ctx, p, after, time.Until(deadline))
		compacted, ok := errors.AsType[*lock.CompactedError](err)
		if !ok || until >= compacted.Kept {
			return events, until, err
		}
		events, after, err = s.pastEvents(ctx, p, until, compacted.Kept)
		if err != nil || len(events) > 0 {
			return events, after, err
		}
	}
}

// pastEvents returns events after a revision and up to another from the journal, and up to
// which revision they are all. At most mostPastReads calls read at a time: a great many
// watches are resumed at the same time when a server is back.
func (s *Store) pastEvents(ctx context.Context, p lock.Pattern, after, until lock.Revision) ([]lock.Event, lock.Revision, error) {
	select {
	case s.pastReads <- struct{}{}:
		defer func() { <-s.pastReads }()
	case <-ctx.Done():
		return nil, after, ctx.Err()
	}
	if !s.beginRead() {
		return nil, after, lock.ErrShuttingDown
	}
	defer s.endRead()
	return s.journal.Events(ctx, p, after, until)
}

// History implements lock.Store.
func (s *Store) History(ctx context.Context, q lock.HistoryQuery, from lock.Revision, limit int) (lock.HistoryPage, error) {
	v := s.view.Load()
	if v == nil || !s.beginRead() {
		return lock.HistoryPage{}, lock.ErrShuttingDown
	}
	defer s.endRead()
	return s.journal.History(ctx, s.breaks, journal.Query{HistoryQuery: q, From: from, Until: v.revision, Limit: limit})
}

// beginRead reports whether files may be read outside the committer: until endRead Close
// keeps the descriptors through which they are reached, whose numbers would else be those
// of other files.
func (s *Store) beginRead() bool {
	s.reading.RLock()
	if s.readingEnded {
		s.reading.RUnlock()
		return false
	}
	return true
}

func (s *Store) endRead() { s.reading.RUnlock() }

// endReads waits for the reads that have begun, and lets no more begin.
func (s *Store) endReads() {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.readingEnded = true
}
