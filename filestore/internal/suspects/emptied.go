package suspects

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
)

const (
	// removeEvery is how often it is looked whether there are directories to remove.
	removeEvery = time.Second
	// removeStretch is how long directories are removed at a time. The pause after it is
	// as long as it took, but no longer than longestPause: so they go about as fast as
	// locks come in directories of their own.
	removeStretch = 5 * time.Millisecond
	longestPause  = 20 * time.Millisecond
)

// emptied is the directories that a lock was released in, by their paths in the root. They
// are gathered for Config.EmptyFor and rest again as long, so that where locks come and go
// the directory stays.
type emptied struct {
	mu          sync.Mutex
	now, before map[string]struct{}
}

// add adds a directory, which must not be the root.
func (e *emptied) add(dir string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now == nil {
		e.now = make(map[string]struct{})
	}
	e.now[dir] = struct{}{}
}

// turn begins to gather anew, and returns those that have rested.
func (e *emptied) turn() (rested map[string]struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	rested, e.before, e.now = e.before, e.now, nil
	return rested
}

// isResting reports whether a directory has been added since the last turn but one.
func (e *emptied) isResting(dir string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, now := e.now[dir]
	_, before := e.before[dir]
	return now || before
}

// dirOf returns the directory of a file or directory by their paths in the root; empty: it
// is the root.
func dirOf(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

// removal is the directories that are to be removed, if they are empty and do not rest.
type removal struct {
	turned time.Time           // when some were taken from emptied
	now    map[string]struct{} // to be removed
	// next are those after them: what others were in that have been removed, and what a
	// listing showed to be empty.
	next map[string]struct{}
}

// add adds a directory, which must not be the root.
func (r *removal) add(dir string) {
	if r.next == nil {
		r.next = make(map[string]struct{})
	}
	r.next[dir] = struct{}{}
}

// removeSome goes on removing directories, for a moment, and returns when it is to be
// called again.
func (p *poller) removeSome() (pause time.Duration) {
	r := &p.removal
	began := time.Now()
	if began.Sub(r.turned) >= p.config.EmptyFor {
		r.turned = began
		for dir := range p.emptied.turn() {
			r.add(dir)
		}
	}
	if len(r.now) == 0 {
		r.now, r.next = r.next, nil
	}
	held := p.config.FS.Hold()
	defer held.Drop()
	var removed []string
	for dir := range r.now {
		if time.Since(began) >= removeStretch {
			break
		}
		delete(r.now, dir)
		if p.emptied.isResting(dir) || p.hasLocks(dir) || !p.removeDir(held, dir) {
			continue
		}
		removed = append(removed, dir)
		if above := dirOf(dir); above != "" {
			r.add(above)
		}
	}
	if len(removed) > 0 {
		p.store.Removed(removed)
	}
	if len(r.now)+len(r.next) > 0 {
		return min(time.Since(began), longestPause)
	}
	return min(removeEvery, p.config.EmptyFor)
}

// hasLocks reports whether locks are held in a directory or below it.
func (p *poller) hasLocks(dir string) (has bool) {
	p.store.Held(dir+"/", func(file File) bool {
		has = strings.HasPrefix(file.Name().String(), dir+"/")
		return false
	})
	return has
}

// removeDir removes a directory, if the server made it and it is empty. Who is about to use
// it makes it again, or has been faster.
func (p *poller) removeDir(fsys disk.FS, dir string) bool {
	switch err := fsys.RemoveDir(dir); {
	case err == nil:
		p.miss(dir)
		return true
	case disk.IsExhausted(err):
		p.emptied.add(dir)
	case disk.IsAbsent(err), errors.Is(err, disk.ErrNotMade), errors.Is(err, syscall.ENOTEMPTY):
	default:
		p.config.Logger.Debug("an empty directory cannot be removed", "directory", dir, "error", err)
	}
	return false
}
