package filestore

import (
	"context"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

const (
	// pollShare bounds what polling takes from those who have work to do: after
	// each stretch of work the poller rests at least so many times as long.
	pollShare = 40
	// pollStretch is how long it works until it rests: short enough not to hold
	// up a batch of changes, and long enough for some thousand files, since each
	// time it falls asleep and wakes up costs as much as a hundred.
	pollStretch = 5 * time.Millisecond
	// longestRest is after a stretch that took long because the disk or the
	// processors were busy elsewhere.
	longestRest = time.Second
	// pollSteps is how many files it looks at between two looks at the clock.
	pollSteps = 32
	// suspectBatch is how many files are looked at together.
	suspectBatch = 256
	// learntBatch is how many files it learns of between two batches, which
	// somebody has looked at for it.
	learntBatch = 2048
)

// poller finds the files that others have changed. It compares what a look at a
// file tells with what is known of it, and has the suspects inspected. It
// never lists a directory whose times say that its entries are the same. It reads a
// file itself only to find that it is still as the server wrote it, once for each new
// lock.
type poller struct {
	store    *Store
	notifier *notifier
	dirs     map[string]dirState // every directory that lock files may be in
	suspects []lock.Name
	unread   []*entry // of files that the server wrote and nobody has read since
	learnt   []learnt

	woke  time.Time // since when it works
	steps int       // since the last look at the clock
	// starved: something of this poll was not seen for want of descriptors.
	starved bool
	hurry   bool // it does not rest
}

// dirState is a directory as it was listed last.
type dirState struct {
	stat  disk.Stat
	fresh bool // the times do not yet tell it from every later state
}

// newPoller returns a poller that begins with directories as they were listed.
func newPoller(s *Store, n *notifier, dirs map[string]dirState) *poller {
	return &poller{store: s, notifier: n, dirs: dirs}
}

// run polls until ctx ends: at every interval, and at once and without a rest when
// notifications were lost.
func (p *poller) run(ctx context.Context) {
	// Each is listed again, if it has changed since, after its watch has begun.
	for dir := range p.dirs {
		if ctx.Err() == nil {
			p.notifier.watch(dir)
		}
	}
	for ctx.Err() == nil {
		began := time.Now()
		p.woke = began
		if p.poll(ctx) {
			pause := max(p.store.config.PollInterval-time.Since(began), p.pause())
			p.hurry = false
			p.wait(ctx, pause)
		}
	}
}

// poll looks at everything once. It reports whether it came to the end.
func (p *poller) poll(ctx context.Context) bool {
	if p.hurry {
		for dir := range p.dirs {
			p.dirs[dir] = dirState{fresh: true}
		}
	}
	p.starved = false
	p.notifier.watchAgain()
	for _, dir := range slices.Sorted(maps.Keys(p.dirs)) {
		if !p.step(ctx) || !p.list(ctx, dir) {
			return false
		}
	}
	for next, more := "", true; more; {
		if next, more = p.look(ctx, "", next); more && !p.rest(ctx) {
			return false
		}
	}
	p.read()
	p.learn()
	p.inspect()
	if !p.starved {
		p.store.complaints.Well(complaints.NoDescriptors, "")
	}
	return ctx.Err() == nil
}

// isTired reports, once for each file, whether it is time to rest, or to stop.
func (p *poller) isTired(ctx context.Context) bool {
	if p.steps++; p.steps < pollSteps {
		return false
	}
	p.steps = 0
	return ctx.Err() != nil || !p.hurry && time.Since(p.woke) >= pollStretch
}

// step rests if it is time, and reports whether the poll goes on.
func (p *poller) step(ctx context.Context) bool { return !p.isTired(ctx) || p.rest(ctx) }

// rest rests for what has been worked, and reports whether the poll goes on.
func (p *poller) rest(ctx context.Context) bool {
	p.read()
	p.inspect()
	return p.wait(ctx, p.pause())
}

// pause returns how long to rest for what has been worked.
func (p *poller) pause() time.Duration {
	pause := pollShare * time.Since(p.woke)
	if p.hurry { // all of a poll
		return pause
	}
	return min(pause, longestRest)
}

// wait waits, and lists the directories that come and go meanwhile. It reports false
// when the poll is to be given up: ctx has ended, or notifications were lost.
func (p *poller) wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-p.notifier.rescan:
			p.hurry = true
			return false
		case <-p.notifier.moves.told:
			p.hurry = true
			for dir := range p.notifier.moves.take() {
				p.list(ctx, dir)
				p.look(ctx, dir+"/", "") // it may be another than the one that was there
			}
			p.inspect()
			p.hurry = false
		case <-timer.C:
			p.woke = time.Now()
			return true
		}
	}
}

// list finds what is new in a directory that has changed since it was listed, and
// what is gone with one that was removed or replaced. It reports whether the poll
// goes on.
func (p *poller) list(ctx context.Context, dir string) bool {
	stat, err := p.store.files.Lstat(dir)
	if err == nil && !stat.Mode.IsDir() || disk.IsAbsent(err) {
		if dir != "." {
			p.miss(dir)
		}
		return true
	}
	if err != nil {
		p.unreadable(dir, err)
		return true
	}
	state, known := p.dirs[dir]
	if known && state.stat == stat && !state.fresh {
		return true
	}
	entries, err := p.watchAndList(dir)
	if disk.IsAbsent(err) {
		return true // removed meanwhile
	}
	if err != nil {
		p.unreadable(dir, err)
		return true
	}
	p.store.complaints.Well(complaints.UnreadableDirectory, dir)
	fresh := isFresh(stat)
	if before := state.stat; before.Inode != 0 && (before.Inode != stat.Inode || before.Birth != stat.Birth) {
		p.miss(dir) // what was in it is elsewhere
	}
	for _, entry := range entries {
		if !p.step(ctx) {
			return false
		}
		name := path.Join(dir, entry.Name())
		if n, ok := lockfile.NameOf(name); ok {
			// The newest view, taken after the watch has begun: what
			// changes from here on is told by that.
			if v := p.store.view.Load(); v != nil && find(v.locks, n) == nil {
				p.suspect(n)
			}
			continue
		}
		if _, known := p.dirs[name]; !known && entry.IsDir() && lockfile.MayBeIn(name) && !p.list(ctx, name) {
			return false
		}
	}
	p.dirs[dir] = dirState{stat: stat, fresh: fresh}
	return true
}

// watchAndList lists a directory, once it is watched.
func (p *poller) watchAndList(dir string) ([]fs.DirEntry, error) {
	d, err := p.store.files.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	p.notifier.watchOpen(dir, d)
	return d.List()
}

// unreadable notes that a directory cannot be read, and has the next poll list it.
func (p *poller) unreadable(dir string, err error) {
	p.starved = p.starved || disk.IsExhausted(err)
	p.store.complaints.Unreadable(dir, err)
	p.dirs[dir] = dirState{fresh: true}
}

// miss forgets a directory that is gone, with those below it, and suspects the locks
// in it.
func (p *poller) miss(dir string) {
	below := dir + "/"
	maps.DeleteFunc(p.dirs, func(other string, _ dirState) bool {
		if other != dir && !strings.HasPrefix(other, below) {
			return false
		}
		p.notifier.forget(other)
		p.store.complaints.Forget(complaints.UnreadableDirectory, other)
		return true
	})
	v := p.store.view.Load()
	if v == nil {
		return
	}
	v.locks.AscendGreaterOrEqual(&entry{key: below}, func(e *entry) bool {
		if !strings.HasPrefix(e.key, below) {
			return false
		}
		p.suspect(e.lock.Name)
		return true
	})
}

// look compares the files of the held locks whose names have a prefix with what is known
// of them, from a name on, until it is tired. It then returns where to go on.
func (p *poller) look(ctx context.Context, prefix, from string) (next string, more bool) {
	v := p.store.view.Load()
	if v == nil {
		return "", false
	}
	dir := "/" // of the last file, with a slash, unless it is the root; first none
	var open disk.Dir
	var err error // of opening it
	shut := func() {
		if open != nil {
			open.Close()
			open = nil
		}
	}
	defer shut()
	v.locks.AscendGreaterOrEqual(&entry{key: max(prefix, from)}, func(e *entry) bool {
		if !strings.HasPrefix(e.key, prefix) {
			return false
		}
		if p.isTired(ctx) {
			next, more = e.key, true
			return false
		}
		in, base := path.Split(e.key)
		if in != dir {
			shut()
			dir = in
			if open, err = p.store.files.OpenDir(path.Clean(dir)); err != nil && !disk.IsAbsent(err) {
				p.unreadable(path.Clean(dir), err)
			}
		}
		if err != nil {
			if disk.IsAbsent(err) {
				p.suspect(e.lock.Name)
			}
			return true
		}
		stat, err := open.Lstat(base + lock.FileSuffix)
		now := fingerprintOf(stat)
		switch {
		case err != nil || !e.print.matches(now):
			p.suspect(e.lock.Name)
		case !e.print.isKnown() && !now.fresh: // else soon
			if p.unread = append(p.unread, e); len(p.unread) == suspectBatch {
				p.read()
			}
		}
		return true
	})
	return next, more
}

// suspect has a lock's file looked at, soon.
func (p *poller) suspect(name lock.Name) {
	if p.suspects = append(p.suspects, name); len(p.suspects) == suspectBatch {
		p.inspect()
	}
}

// inspect has the suspects inspected. What that takes is not the poller's work: each
// change asks for it once, and so does each new lock.
func (p *poller) inspect() {
	began := time.Now()
	err := p.store.inspect(p.suspects) // logged, and tried again
	p.starved = p.starved || disk.IsExhausted(err)
	p.suspects = nil
	p.woke = p.woke.Add(time.Since(began))
}

// learnt is that a lock's file, which has been read, is as its entry says.
type learnt struct {
	entry *entry
	print fingerprint
}

// read reads the files that nobody has read since the server wrote them, beside the
// committer, and suspects those that are not as they were written.
func (p *poller) read() {
	woke, began := p.woke, time.Now()
	held := p.store.files.Hold()
	here := files{FS: held, root: p.store.files.root}
	for _, e := range p.unread {
		found, err := here.read(e.lock.Name, e)
		switch {
		case err != nil: // the next poll tries again
			p.starved = true
		case found.unread && found.Problem == e.lock.Problem: // still
		case found.Token != e.fileToken || found.Data != e.lock.Data || found.Problem != e.lock.Problem || !e.print.matches(found.print):
			p.suspect(e.lock.Name)
		case found.print.isKnown():
			if p.learnt = append(p.learnt, learnt{e, found.print}); len(p.learnt) == learntBatch {
				p.learn()
			}
		}
	}
	held.Drop()
	p.unread = nil
	p.woke = woke.Add(time.Since(began)) // as of inspect, which may have been called
}

// learn tells the committer of the files that have been read.
func (p *poller) learn() {
	if len(p.learnt) > 0 {
		files := p.learnt
		p.store.do(&commit{task: func(*commit) { p.store.learn(files) }})
		p.learnt = nil
	}
}

// moves is the directories that came or went, by notifications, and that the poller
// has not yet listed.
type moves struct {
	told chan struct{} // has an element when there are any

	mu   sync.Mutex
	dirs map[string]bool // by their paths in the root
}

func newMoves() moves {
	return moves{told: make(chan struct{}, 1), dirs: make(map[string]bool)}
}

// add adds a directory, if lock files may be in it.
func (m *moves) add(dir string) {
	if _, err := lock.ParseName(dir + "/x"); err != nil {
		return
	}
	m.mu.Lock()
	m.dirs[dir] = true
	m.mu.Unlock()
	select {
	case m.told <- struct{}{}:
	default:
	}
}

// take takes out all of them.
func (m *moves) take() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	dirs := m.dirs
	m.dirs = make(map[string]bool)
	return dirs
}
