package suspects

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
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
	// suspectBatch is how many files are inspected together.
	suspectBatch = 256
	// confirmBatch is how many files are confirmed together.
	confirmBatch = 2048
)

// poller finds the files that others have changed. It compares what a look at a
// file tells with what is known of it, and has the suspects inspected. It
// never lists a directory whose times say that its entries are the same.
type poller struct {
	*Finder
	dirs        directories
	suspects    []lock.Name
	unconfirmed []File

	removal  removal
	removing *time.Timer // until removeSome is to be called

	woke  time.Time // since when it works
	steps int       // since the last look at the clock
	// starved: something of this poll was not seen for want of descriptors.
	starved bool
	// unwatchable: there was no watch for a directory of this poll.
	unwatchable bool
	hurry       bool // it does not rest
}

// newPoller returns a poller that begins with directories as they were listed.
func newPoller(f *Finder, dirs map[string]Directory) *poller {
	p := &poller{Finder: f, dirs: newDirectories()}
	for path, d := range dirs {
		p.dirs.set(&directory{path: path, Directory: d})
		if d.Empty && path != "." {
			p.removal.add(path)
		}
	}
	return p
}

// run polls until ctx ends: at every interval, and at once and without a rest when
// notifications were lost.
func (p *poller) run(ctx context.Context) {
	p.removing = time.NewTimer(0)
	// Each is listed again, if it has changed since, after its watch has begun.
	for d := range p.all {
		if ctx.Err() == nil {
			p.watch(d)
		}
	}
	for ctx.Err() == nil {
		began := time.Now()
		p.woke = began
		if p.poll(ctx) {
			pause := max(p.config.PollInterval-time.Since(began), p.pause())
			p.hurry = false
			p.wait(ctx, pause)
		}
	}
}

// all calls yield with every directory, in order. They may come and go meanwhile.
func (p *poller) all(yield func(*directory) bool) {
	const batch = 256
	for some := p.dirs.after("", batch); len(some) > 0; some = p.dirs.after(some[len(some)-1].path, batch) {
		for _, d := range some {
			if !yield(d) {
				return
			}
		}
	}
}

// poll looks at everything once. It reports whether it came to the end.
func (p *poller) poll(ctx context.Context) bool {
	p.starved, p.unwatchable = false, false
	for d := range p.all {
		d.Fresh = d.Fresh || p.hurry
		if !p.step(ctx) || !p.list(ctx, d.path) {
			return false
		}
	}
	for next, more := "", true; more; {
		if next, more = p.look(ctx, "", next); more && !p.rest(ctx) {
			return false
		}
	}
	p.confirm()
	p.inspect()
	if !p.starved {
		p.config.Complaints.Well(complaints.NoDescriptors, "")
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
	p.confirm()
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
		case <-p.notifier.moved.told:
			p.hurry = true
			for _, dir := range p.notifier.moved.take() {
				p.list(ctx, dir)
				p.look(ctx, dir+"/", "") // it may be another than the one that was there
			}
			p.inspect()
			p.hurry = false
		case <-p.removing.C:
			p.removing.Reset(p.removeSome())
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
	stat, err := p.config.FS.Lstat(dir)
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
	known := p.dirs.get(dir)
	if known != nil && known.Stat == stat && !known.Fresh {
		p.watch(known)
		return true
	}
	isSame := known != nil && known.Stat.Inode == stat.Inode && known.Stat.Birth == stat.Birth
	d := &directory{path: dir, Directory: Directory{Stat: stat, Fresh: stat.IsFresh()}}
	if isSame {
		d.watch = known.watch
	}
	entries, err := p.watchAndList(d)
	if disk.IsAbsent(err) {
		return true // removed meanwhile
	}
	if err != nil {
		p.unreadable(dir, err)
		return true
	}
	p.config.Complaints.Well(complaints.UnreadableDirectory, dir)
	if known != nil && known.Stat.Inode != 0 && !isSame {
		p.miss(dir) // what was in it is elsewhere
	}
	for _, entry := range entries {
		if !p.step(ctx) {
			return false
		}
		below := path.Join(dir, entry.Name())
		if name, ok := lockfile.NameOf(below); ok {
			// As it is known now, after the watch has begun: what changes from
			// here on is told by that.
			if !p.store.IsHeld(name) {
				p.suspect(name)
			}
			continue
		}
		if entry.IsDir() && lockfile.MayBeIn(below) && p.dirs.get(below) == nil && !p.list(ctx, below) {
			return false
		}
	}
	p.dirs.set(d)
	p.noteWatches()
	if len(entries) == 0 && dir != "." {
		p.removal.add(dir)
	}
	return true
}

// watch has a directory watched that is not, as far as there are watches. One that cannot
// be opened the poller comes to by itself.
func (p *poller) watch(d *directory) {
	if d.watch > 0 || p.unwatchable || !p.notifier.isOn() {
		return
	}
	if open, err := p.config.FS.OpenDir(d.path); err == nil {
		same := *d
		p.watchOpen(&same, open)
		open.Close()
		p.dirs.set(&same)
		p.noteWatches()
	}
}

// watchOpen has an open directory watched.
func (p *poller) watchOpen(d *directory, open disk.Dir) {
	if !p.notifier.isOn() {
		return
	}
	if d.watch <= 0 && p.unwatchable {
		d.watch = refused
		return
	}
	before := d.watch
	watch, err := p.notifier.watch(d.path, open)
	switch {
	case errors.Is(err, os.ErrClosed):
	case err != nil:
		d.watch, p.unwatchable = refused, true
		p.config.Complaints.Bad(complaints.NoNotifications, "", err, "watched", p.notifier.watched())
	default:
		d.watch = watch
	}
	if before != d.watch {
		p.notifier.forget(before, d.path)
	}
}

// noteWatches notes whether all directories are watched.
func (p *poller) noteWatches() {
	if p.dirs.refused == 0 {
		p.config.Complaints.Well(complaints.NoNotifications, "")
	}
}

// watchAndList lists a directory, once it is watched.
func (p *poller) watchAndList(d *directory) ([]fs.DirEntry, error) {
	open, err := p.config.FS.OpenDir(d.path)
	if err != nil {
		return nil, err
	}
	defer open.Close()
	p.watchOpen(d, open)
	return open.List()
}

// unreadable notes that a directory cannot be read, and has the next poll list it.
func (p *poller) unreadable(dir string, err error) {
	p.starved = p.starved || disk.IsExhausted(err)
	p.config.Complaints.Unreadable(dir, err)
	p.dirs.set(&directory{path: dir, Directory: Directory{Fresh: true}})
}

// miss forgets a directory that is gone, with those below it, and suspects the locks
// in it.
func (p *poller) miss(dir string) {
	for _, gone := range p.dirs.remove(dir) {
		p.notifier.forget(gone.watch, gone.path)
		p.config.Complaints.Forget(complaints.UnreadableDirectory, gone.path)
	}
	p.noteWatches()
	below := dir + "/"
	p.store.Held(below, func(file File) bool {
		if !strings.HasPrefix(file.Name().String(), below) {
			return false
		}
		p.suspect(file.Name())
		return true
	})
}

// look compares the files of the held locks whose names have a prefix with what is known
// of them, from a name on, until it is tired. It then returns where to go on.
func (p *poller) look(ctx context.Context, prefix, from string) (next string, more bool) {
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
	p.store.Held(max(prefix, from), func(file File) bool {
		name := file.Name()
		if !strings.HasPrefix(name.String(), prefix) {
			return false
		}
		if p.isTired(ctx) {
			next, more = name.String(), true
			return false
		}
		in, base := path.Split(name.String())
		if in != dir {
			shut()
			dir = in
			if open, err = p.config.FS.OpenDir(path.Clean(dir)); err != nil && !disk.IsAbsent(err) {
				p.unreadable(path.Clean(dir), err)
			}
		}
		if err != nil {
			if disk.IsAbsent(err) {
				p.suspect(name)
			}
			return true
		}
		switch stat, err := open.Lstat(base + lock.FileSuffix); {
		case err != nil:
			p.suspect(name)
		default:
			p.compare(file, stat)
		}
		return true
	})
	return next, more
}

// compare compares a file with what a look at it tells.
func (p *poller) compare(file File, found disk.Stat) {
	switch file.Compare(found) {
	case Changed:
		p.suspect(file.Name())
	case Unconfirmed:
		if p.unconfirmed = append(p.unconfirmed, file); len(p.unconfirmed) == confirmBatch {
			p.confirm()
		}
	}
}

// suspect has a lock's file inspected, soon.
func (p *poller) suspect(name lock.Name) {
	if p.suspects = append(p.suspects, name); len(p.suspects) == suspectBatch {
		p.inspect()
	}
}

// inspect has the suspects inspected.
func (p *poller) inspect() {
	if len(p.suspects) > 0 {
		p.have(func() error { return p.store.Inspect(p.suspects) })
		p.suspects = nil
	}
}

// confirm has files confirmed.
func (p *poller) confirm() {
	if len(p.unconfirmed) > 0 {
		p.have(func() error { return p.store.Confirm(p.unconfirmed) })
		p.unconfirmed = nil
	}
}

// have has the store do something. What that takes is not the poller's work: each change
// asks for it once, and so does each new lock. An error is logged; it is tried again.
func (p *poller) have(done func() error) {
	began := time.Now()
	p.starved = disk.IsExhausted(done()) || p.starved
	p.woke = p.woke.Add(time.Since(began))
}
