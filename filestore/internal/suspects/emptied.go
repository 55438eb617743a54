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
	// removeStretch is how long directories are removed at a time; the pause after it is
	// removeShare times as long. So they go faster than locks can come in directories of
	// their own, and never at the cost of these.
	removeStretch = 2 * time.Millisecond
	removeShare   = 4
)

// emptied is the directories that may be empty, by their paths in the root: a lock in them
// was released, or a listing showed it. They are gathered for Config.EmptyFor and rest
// again as long, so that where locks come and go the directory stays.
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

// removal is what the poller knows of the directories that it removes.
type removal struct {
	turned time.Time           // when they were taken from emptied
	rested map[string]struct{} // to be removed
	above  map[string]struct{} // those that they were in, which are next
}

// removeSome goes on removing directories, for a moment, and returns when it is to be
// called again.
func (p *poller) removeSome() (pause time.Duration) {
	r := &p.removal
	began := time.Now()
	if len(r.rested) == 0 {
		r.rested, r.above = r.above, nil
	}
	if len(r.rested) == 0 && began.Sub(r.turned) >= p.config.EmptyFor {
		r.rested, r.turned = p.emptied.turn(), began
	}
	var removed []string
	for dir := range r.rested {
		if time.Since(began) >= removeStretch {
			break
		}
		delete(r.rested, dir)
		if p.emptied.isResting(dir) || p.hasLocks(dir) || !p.removeDir(dir) {
			continue
		}
		removed = append(removed, dir)
		if above := dirOf(dir); above != "" {
			if r.above == nil {
				r.above = make(map[string]struct{})
			}
			r.above[above] = struct{}{}
		}
	}
	if len(removed) > 0 {
		p.store.Removed(removed)
	}
	if len(r.rested)+len(r.above) > 0 {
		return removeShare * time.Since(began)
	}
	return p.config.EmptyFor - time.Since(r.turned)
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
func (p *poller) removeDir(dir string) bool {
	switch err := p.config.FS.RemoveDir(dir); {
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
