package filestore

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

const (
	// pollShare bounds the time that polling takes: between two polls there
	// is a pause of at least so many times the poll before.
	pollShare = 10
	// suspectBatch is how many files the committer looks at between two
	// batches of changes.
	suspectBatch = 256
)

// poller finds the files that others have changed. It compares what a look at a
// file tells with what is known of it; the committer then reads the suspects. It
// never lists a directory whose times say that its entries are the same, and never
// reads a file itself.
type poller struct {
	store *Store
	dirs  map[string]dirState // every directory that lock files may be in
	// watch is told of every directory as it becomes known, before it is
	// listed, so that no change falls between.
	watch func(dir string)
}

// dirState is a directory as it was listed last.
type dirState struct {
	stat  disk.Stat
	fresh bool // the times do not yet tell it from every later state
}

func newPoller(s *Store, watch func(string)) *poller {
	return &poller{store: s, dirs: map[string]dirState{".": {}}, watch: watch}
}

// run polls until ctx ends, at every interval and at each element of now, before
// which everything is listed again.
func (p *poller) run(ctx context.Context, now <-chan struct{}) {
	for {
		began := time.Now()
		p.poll(ctx)
		pause := max(p.store.config.PollInterval, pollShare*time.Since(began))
		select {
		case <-ctx.Done():
			return
		case <-now:
			for dir := range p.dirs {
				p.dirs[dir] = dirState{fresh: true}
			}
		case <-time.After(pause):
		}
	}
}

// poll looks at everything once.
func (p *poller) poll(ctx context.Context) {
	suspects := &suspectList{store: p.store, ctx: ctx}
	for _, dir := range slices.Sorted(maps.Keys(p.dirs)) {
		p.list(dir, suspects)
	}
	p.look(suspects)
	suspects.flush()
}

// list finds what is new in a directory that has changed since it was listed.
func (p *poller) list(dir string, suspects *suspectList) {
	if suspects.ctx.Err() != nil {
		return // a stop must not wait for all the directories
	}
	stat, err := p.store.files.Lstat(dir)
	if err != nil || !stat.Mode.IsDir() {
		if dir != "." && (err == nil || isAbsent(err)) {
			delete(p.dirs, dir) // its lock files are missed one by one
		}
		return
	}
	state, known := p.dirs[dir]
	if known && state.stat == stat && !state.fresh {
		return
	}
	if state.stat.Inode != stat.Inode {
		p.watch(dir)
	}
	entries, err := disk.List(p.store.files, dir)
	if isAbsent(err) {
		return // removed meanwhile
	}
	if err != nil {
		p.store.config.Logger.Warn("a directory cannot be read; what is new in it stays unseen", "directory", dir, "error", err)
		return
	}
	p.dirs[dir] = dirState{stat: stat, fresh: isFresh(stat)}
	// The view is taken after the watch has begun: what changes from here on
	// is told by that.
	v := p.store.view.Load()
	if v == nil {
		return
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if n, ok := nameOf(name); ok {
			if find(v.locks, n) == nil {
				suspects.add(n)
			}
			continue
		}
		if _, known := p.dirs[name]; !known && canHoldLocks(name, entry) {
			p.list(name, suspects)
		}
	}
}

// look compares the file of every held lock with what is known of it.
func (p *poller) look(suspects *suspectList) {
	v := p.store.view.Load()
	if v == nil {
		return
	}
	open := make(map[string]disk.Dir) // nil: the directory cannot be opened
	defer func() {
		for _, d := range open {
			if d != nil {
				d.Close()
			}
		}
	}()
	const maxOpen = 64
	v.locks.Ascend(func(e *entry) bool {
		dir, base := path.Split(e.key)
		dir = path.Clean(dir)
		d, isOpen := open[dir]
		if !isOpen {
			if len(open) == maxOpen {
				for other, d := range open {
					if d != nil {
						d.Close()
					}
					delete(open, other)
				}
			}
			var err error
			if d, err = p.store.files.OpenDir(dir); err != nil {
				if !isAbsent(err) {
					p.store.config.Logger.Warn("a directory cannot be opened; its lock files stay unseen", "directory", dir, "error", err)
					open[dir] = nil
					return true
				}
				d = nil
			}
			open[dir] = d
			if d == nil {
				suspects.add(e.lock.Name)
				delete(open, dir)
				return suspects.ctx.Err() == nil
			}
		}
		if d == nil {
			return true
		}
		stat, err := d.Lstat(base + lock.FileSuffix)
		if err != nil || !e.print.isKnown() || !e.print.matches(fingerprintOf(stat)) {
			suspects.add(e.lock.Name)
		}
		return suspects.ctx.Err() == nil
	})
}

// suspectList hands suspects to the committer in batches.
type suspectList struct {
	store *Store
	ctx   context.Context
	names []lock.Name
}

func (l *suspectList) add(name lock.Name) {
	if l.names = append(l.names, name); len(l.names) == suspectBatch {
		l.flush()
	}
}

func (l *suspectList) flush() {
	if len(l.names) == 0 {
		return
	}
	l.store.inspect(l.names)
	l.names = nil
}

// inspect has the committer compare locks with their files, and waits until what
// others did is committed.
func (s *Store) inspect(names []lock.Name) {
	c := &commit{suspect: names, done: make(chan struct{})}
	if !s.enqueue(c) {
		return
	}
	<-c.done
	if c.err != nil && !errors.Is(c.err, lock.ErrReadOnly) {
		s.config.Logger.Warn("looking at changed files", "error", c.err)
	}
}
