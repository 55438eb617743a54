package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/pool"
	"github.com/pylok/pylok/filestore/internal/suspects"
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
	rest    int // of pool.Config

	checkpointEvery time.Duration // default checkpointEvery
	emptyFor        time.Duration // default emptyFor
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
	c.emptyFor = cmp.Or(c.emptyFor, emptyFor)
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

// Store is a lock.Store on the files of one root, which it alone serves. Each of its parts
// says what guards it.
type Store struct {
	config  Config
	files   files
	journal *journal.Journal
	breaks  *journal.Breaks
	feed    *feed.Feed
	claim   *claim

	floor floor

	suspects   *suspects.Finder // names the files that others may have changed
	complaints *complaints.Log

	health
	reader
	committer
	settler
	checkpointer

	stop       context.CancelFunc // of the background work
	background sync.WaitGroup     // what looks at files and makes checkpoints
}

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
		reader:     reader{pastReads: make(chan struct{}, mostPastReads)},
		complaints: complaints.New(config.Logger),
		breaks:     journal.NewBreaks(fsys, breaksFile),
		committer: committer{
			locks:    newTree(),
			extended: make(map[lock.Name]struct{}),
			touched:  make(map[lock.Name]bool),
			pool:     pool.New(fsys, pool.Config{Dir: ownDir, Rest: config.rest}),
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
	s.format = s.claim.format
	found, err := s.recover(ctx)
	if err != nil {
		return nil, err
	}
	s.held = fsys.Hold()
	s.work = files{FS: s.held, root: root}
	opened := &view{revision: s.journal.Last(), locks: s.locks.Clone()}
	s.view.Store(opened)
	if found.read >= snapshotChanges || len(found.mended) > 0 {
		// To read them took long, and would again after a crash; and no line of the
		// journal names the files that the start has written.
		s.unsaved = opened
	}
	s.feed = feed.New(s.journal.Last(), feed.Config{})
	s.suspects = suspects.New(suspects.Config{
		FS:           fsys,
		Logger:       config.Logger,
		Complaints:   s.complaints,
		PollInterval: config.PollInterval,
		NoNotify:     config.NoNotify,
		EmptyFor:     config.emptyFor,
	}, inspector{s}, found.dirs)
	go s.run()
	go s.runSettler()
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.background.Go(func() { s.suspects.Run(background) })
	s.background.Go(func() { s.stay(background) })
	s.background.Go(func() { s.checkpoints(background, opened.revision) })
	s.background.Go(func() { s.probes(background) })
	s.background.Go(func() { s.reserveAhead(background) })
	s.background.Go(func() { s.indexes(background) })
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
		for _, file := range s.doomed {
			s.complain(s.work.Remove(file.name))
		}
		s.complain(s.pool.Clear())
		// Without them the next start takes longer and knows less, no more.
		if s.journal.Last() != s.snapshot {
			s.saveSnapshot(&view{revision: s.journal.Last(), locks: s.locks})
		}
		noteErr := s.noteProgress()
		if noteErr == nil {
			noteErr = s.work.Remove(batchFile)
		}
		s.complain(noteErr)
	}
	return errors.Join(err, s.journal.Close(), s.claim.release(), s.files.Close())
}
