// Package suspects names the files of a root that others may have changed. Polling finds
// them by looking at everything again and again; inotify(7) makes that fast, where it tells
// of changes; and what the store could not take in yet it is to look at once more. Whether
// a file has changed, and what comes of that, the store alone decides.
//
// The package also knows the directories, and removes those that the server made and that
// no lock is in any more.
package suspects

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// Store is the lock files as they are known, and who looks at those that are named. Its
// methods may be called at any time by anybody.
type Store interface {
	// Held calls yield with the file of each held lock, in the order of the names, from
	// the first one on that is not before from, until yield returns false.
	Held(from string, yield func(File) bool)
	// IsHeld reports whether a lock is held.
	IsHeld(name lock.Name) bool
	// Inspect reads the files of locks and takes in what others did to them. The error
	// says why it could not; then they are named again by Finder.AgainLater.
	Inspect(names []lock.Name) error
	// Confirm reads files that are Unconfirmed. The error says why it could not.
	Confirm(unconfirmed []File) error
	// ChangedByOthers returns those of the locks whose files are not as the store knows
	// them, where the server itself is not just changing them.
	ChangedByOthers(names []lock.Name) []lock.Name
	// Removed lets go of directories, by their paths in the root, that have been removed.
	Removed(dirs []string)
}

// File is what is known of a held lock's file.
type File interface {
	Name() lock.Name
	// Compare compares what a look at the file tells with what is known of it.
	Compare(found disk.Stat) Comparison
}

// Comparison is what comes of comparing a file with what is known of it.
type Comparison uint8

const (
	// AsKnown: nobody has changed it.
	AsKnown Comparison = iota
	// Changed: it is to be inspected.
	Changed
	// Unconfirmed: the server wrote it, nobody has read it since, and its times tell it
	// from every later state: once it has been read, a look at it is enough.
	Unconfirmed
)

// Config sets up a Finder.
type Config struct {
	FS         disk.FS
	Logger     *slog.Logger
	Complaints *complaints.Log
	// PollInterval is how often everything is looked at, at most.
	PollInterval time.Duration
	// NoNotify leaves inotify aside.
	NoNotify bool
	// EmptyFor is how long, at least, a directory that the server made stays after a
	// lock in it was released. It goes within twice that time, where few do.
	EmptyFor time.Duration
}

// Finder names the suspects of a root. Its methods may be called at any time by anybody.
type Finder struct {
	config   Config
	store    Store
	notifier *notifier
	poller   *poller
	again    gathered[lock.Name] // whose files are to be inspected again
	emptied  emptied
}

// Directory is a directory as it was listed last.
type Directory struct {
	Stat  disk.Stat // from before it was listed
	Fresh bool      // its times do not yet tell it from every later state
	Empty bool      // nothing was in it
}

// New returns a Finder for the directories of a root as they were listed, by their paths
// in the root.
func New(config Config, store Store, dirs map[string]Directory) *Finder {
	f := &Finder{config: config, store: store, again: newGathered[lock.Name]()}
	f.notifier = newNotifier(config)
	f.poller = newPoller(f, dirs)
	return f
}

// Run names suspects until ctx ends.
func (f *Finder) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { f.poller.run(ctx) })
	running.Go(func() { f.notifier.run(ctx, f.inspectNotified) })
	running.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-f.again.told:
				_ = f.store.Inspect(f.again.take()) // logged, and named again
			}
		}
	})
	running.Wait()
}

// againAfter is how long a file rests that could not be inspected.
const againAfter = time.Second

// Again has files inspected soon.
func (f *Finder) Again(names []lock.Name) { f.again.add(names...) }

// AgainLater has files inspected after a pause.
func (f *Finder) AgainLater(names []lock.Name) {
	if len(names) > 0 {
		time.AfterFunc(againAfter, func() { f.Again(names) })
	}
}

// Emptied notes that a lock's file has left its directory, which may be empty now.
func (f *Finder) Emptied(name lock.Name) {
	if dir := dirOf(name.String()); dir != "" {
		f.emptied.add(dir)
	}
}
