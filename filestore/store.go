package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/feed"
)

// Config sets up a Store. The zero value of each field but Root stands for its
// default.
type Config struct {
	// Root is the directory of the lock files. It is made if it is missing.
	Root string
	// MaxLocks is how many locks may be held at a time. Default 2,000,000.
	MaxLocks int
	// Logger is told of what nobody asked for: changes made to the files from
	// outside, what recovery did, a disk that fails. Default: nothing is logged.
	Logger *slog.Logger
	// RootMustExist: a root that is missing, or that no server has served before,
	// is not made but an error. It may be on a volume that is not mounted.
	RootMustExist bool
	// Health is called with an error when the store can no longer write, and
	// with nil when it can again. Default: nobody is told.
	Health func(error)

	// PollInterval is how often the files are looked at for changes that
	// others made. Where the operating system tells of changes they are found
	// within 50 ms; polling finds them on network file systems too. It rests
	// twenty times as long as it works, every few milliseconds: to look at a
	// million files takes it a minute. Default 1 s.
	PollInterval time.Duration
	// NoNotify leaves the operating system's notifications aside: polling alone
	// finds changes.
	NoNotify bool

	// History is how much of the past is kept. Default 90 days and 1 GiB,
	// whichever ends first. Breaks are kept four times as long, in a sixteenth of
	// the bytes beside the rest.
	History Retention

	// StateDir is a directory outside the root, where the store writes down how far
	// the root has come. It tells an older copy of the root, as a backup is, which Open
	// then refuses. It is made if it is missing; roots may share it. Default: none, and
	// an older copy is served like any root: tokens may then be given out twice.
	StateDir string
	// AcceptRestore has Open serve a root that is an older copy, or whose journal is
	// not complete, as it is. New tokens are far above all that are known of.
	AcceptRestore bool

	journal journal.Config
	written int // files; default mostWritten

	checkpointEvery time.Duration // default checkpointEvery
}

func (c Config) withDefaults() Config {
	c.MaxLocks = cmp.Or(c.MaxLocks, 2_000_000)
	c.PollInterval = cmp.Or(c.PollInterval, time.Second)
	c.History.Age = cmp.Or(c.History.Age, 90*24*time.Hour)
	c.History.Bytes = cmp.Or(c.History.Bytes, 1<<30)
	if c.journal.SegmentBytes == 0 { // it is pruned by segments
		c.journal.SegmentBytes = min(max(c.History.Bytes/16, 1<<20), 64<<20)
	}
	c.checkpointEvery = cmp.Or(c.checkpointEvery, checkpointEvery)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Health == nil {
		c.Health = func(error) {}
	}
	return c
}

// Retention says how much of the past is kept.
type Retention = journal.Retention

// Store is a lock.Store on the files of one root, which it alone serves.
type Store struct {
	config  Config
	files   files
	journal *journal.Journal
	breaks  *journal.Breaks
	feed    *feed.Feed
	claim   *claim

	floor floor

	view atomic.Pointer[view] // what readers see; nil: closed

	revisits   revisits // lock files to be looked at again
	complaints *complaints.Log

	reading      sync.RWMutex // held for reading by who reads files beside the committer
	readingEnded bool         // guarded by reading

	health
	committer
	settler
	checkpointer

	stop       context.CancelFunc // of the background work
	background sync.WaitGroup     // what looks at files and makes checkpoints
}

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

// Open opens the store of a root, adopts the lock files that it finds there and
// mends what a crash left. The error says what is in the way: another server on
// the root, a format that it does not know, a damaged journal, a disk that cannot
// be written.
func Open(ctx context.Context, config Config) (*Store, error) {
	config = config.withDefaults()
	if config.RootMustExist {
		if err := mustBeRoot(config.Root); err != nil {
			return nil, err
		}
	}
	if config.StateDir != "" {
		var err error
		if config.StateDir, err = filepath.Abs(config.StateDir); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(config.StateDir, ownPerm); err != nil {
			return nil, fmt.Errorf("the state directory cannot be made: %w", err)
		}
	}
	root, fsys, err := openRoot(config.Root)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, config, root, fsys)
	if err != nil {
		return nil, errors.Join(err, fsys.Close())
	}
	return s, nil
}

func open(ctx context.Context, config Config, root string, fsys disk.FS) (_ *Store, err error) {
	s := &Store{
		config:     config,
		files:      files{FS: fsys, root: root},
		revisits:   newRevisits(),
		complaints: complaints.New(config.Logger),
		breaks:     journal.NewBreaks(fsys, breaksFile),
		committer: committer{
			locks:    newTree(),
			extended: make(map[lock.Name]struct{}),
			touched:  make(map[lock.Name]bool),
			written:  written{most: cmp.Or(config.written, mostWritten), mostOpen: mostOpenHere()},
		},
		settler:      settler{batches: make(chan *batch, mostUnsettled), done: make(chan struct{})},
		checkpointer: checkpointer{rotated: make(chan struct{}, 1)},
		health:       health{logger: config.Logger, tell: config.Health},
	}
	s.config.journal.Carry = s.carry
	s.queue.more.L = &s.queue.mu
	s.floor.low = make(chan struct{}, 1)
	if s.claim, err = claimRoot(root, fsys); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if s.journal != nil {
				err = errors.Join(err, s.journal.Close())
			}
			err = errors.Join(err, s.claim.release())
		}
	}()
	found, err := s.recover(ctx)
	if err != nil {
		return nil, err
	}
	s.held = fsys.Hold()
	s.work = files{FS: s.held, root: root}
	opened := &view{revision: s.journal.Last(), locks: s.locks.Clone()}
	s.view.Store(opened)
	if found.read >= snapshotChanges {
		s.unsaved = opened // to read them took long, and would again after a crash
	}
	s.feed = feed.New(s.journal.Last(), feed.Config{})
	go s.run()
	go s.runSettler()
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	n := newNotifier(s, config.NoNotify)
	p := newPoller(s, n, found.dirs)
	s.background.Go(func() { n.run(background) })
	s.background.Go(func() { p.run(background) })
	s.background.Go(func() { s.revisit(background) })
	s.background.Go(func() { s.stay(background) })
	s.background.Go(func() { s.checkpoints(background, opened.revision) })
	s.background.Go(func() { s.probes(background) })
	s.background.Go(func() { s.reserveAhead(background) })
	return s, nil
}

// Root returns the absolute path of the root.
func (s *Store) Root() string { return s.files.root }

// carry returns what a new segment of the journal begins with: the last checkpoint,
// and the terms of holds that are neither in their files nor in an event.
func (s *Store) carry() (records []journal.Record) {
	if s.marked > 0 {
		records = append(records, s.checkpointAt(s.marked))
	}
	for name := range s.extended {
		if e := find(s.locks, name); e != nil {
			records = append(records, journal.Record{Kind: journal.KindExtended, Event: lock.Event{Lock: e.lock}})
		}
	}
	return records
}

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
		from := &entry{key: max(p.Prefix(), after.String())}
		passed := 0
		v.locks.AscendGreaterOrEqual(from, func(e *entry) bool {
			if passed++; passed%256 == 0 && ctx.Err() != nil {
				yield(lock.Lock{}, ctx.Err())
				return false
			}
			switch {
			case !strings.HasPrefix(e.key, p.Prefix()):
				return e.key < p.Prefix()
			case e.key == after.String() || !p.Match(e.lock.Name):
				return true
			}
			return yield(e.seen(), nil)
		})
	}
}

// Events implements lock.Store. What the feed no longer has is read from the journal.
func (s *Store) Events(ctx context.Context, p lock.Pattern, after lock.Revision, wait time.Duration) ([]lock.Event, lock.Revision, error) {
	deadline := time.Now().Add(wait)
	for {
		events, until, err := s.feed.Events(ctx, p, after, time.Until(deadline))
		var compacted *lock.CompactedError
		if !errors.As(err, &compacted) || until >= compacted.Kept {
			return events, until, err
		}
		if !s.beginRead() {
			return nil, until, lock.ErrShuttingDown
		}
		events, err = s.journal.Read(until)
		s.endRead()
		if err != nil {
			return nil, until, err
		}
		if len(events) > 0 {
			after = events[len(events)-1].Revision
			events = slices.DeleteFunc(events, func(e lock.Event) bool { return !p.Match(e.Lock.Name) })
		}
		if err := ctx.Err(); err != nil || len(events) > 0 {
			return events, after, err
		}
	}
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

// Revision implements lock.Store.
func (s *Store) Revision(context.Context) (lock.Revision, error) {
	v := s.view.Load()
	if v == nil {
		return 0, lock.ErrShuttingDown
	}
	return v.revision, nil
}

// Close implements lock.Store.
func (s *Store) Close() error {
	if !s.queue.close() {
		return nil
	}
	s.stop()
	<-s.done
	s.background.Wait()
	s.view.Store(nil)
	s.feed.Close()
	s.endReads()
	if s.batch != nil {
		s.complain(s.batch.Close())
	}
	defer s.held.Drop()
	err := s.checkpointNow()
	if err == nil && s.failure() == nil { // else they tell the next start
		s.forgetAll()
	}
	if err == nil && s.failure() == nil {
		// Without them the next start takes longer and knows less, no more.
		if s.journal.Last() != s.snapshot {
			s.saveSnapshot(&view{revision: s.journal.Last(), locks: s.locks})
		}
		s.complain(s.noteProgress())
	}
	return errors.Join(err, s.journal.Close(), s.claim.release(), s.files.Close())
}
