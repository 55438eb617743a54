package filestore

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pylok/pylok/lock"
)

// notifyWindow is how long notifications are gathered, so that a burst of them on
// one file is looked at once.
const notifyWindow = 10 * time.Millisecond

// notifier makes polling fast where the operating system tells of changes. It only
// ever names suspects, so what it misses costs a poll interval and nothing else.
type notifier struct {
	store   *Store
	watcher *fsnotify.Watcher // nil: there are no notifications
	rescan  chan struct{}     // has an element when everything must be looked at

	mu   sync.Mutex
	dirs map[string]bool // paths of the directories that are watched
}

func newNotifier(s *Store, none bool) *notifier {
	n := &notifier{store: s, rescan: make(chan struct{}, 1), dirs: make(map[string]bool)}
	if none {
		return n
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		s.config.Logger.Warn("no notifications of changed files; polling alone finds them", "error", err)
		return n
	}
	n.watcher = watcher
	return n
}

// watch asks for notifications of a directory.
func (n *notifier) watch(dir string) {
	if n.watcher == nil {
		return
	}
	file := filepath.Join(n.store.files.root, dir)
	n.mu.Lock()
	n.dirs[file] = true
	n.mu.Unlock()
	if err := n.watcher.Add(file); err != nil && !isAbsent(err) {
		n.store.config.Logger.Warn("no notifications of a directory; polling alone finds changes in it", "directory", dir, "error", err)
	}
}

// run names suspects until ctx ends.
func (n *notifier) run(ctx context.Context) {
	if n.watcher == nil {
		return
	}
	defer n.watcher.Close()
	suspects := make(map[lock.Name]bool) // to whether it was written to
	var window <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case event, ok := <-n.watcher.Events:
			if !ok {
				return
			}
			name, isLock := n.nameOf(event.Name)
			switch {
			case isLock && event.Op != fsnotify.Chmod:
				// The server writes no file in its place: whoever did,
				// it was somebody else.
				suspects[name] = suspects[name] || event.Has(fsnotify.Write)
				if window == nil {
					window = time.After(notifyWindow)
				}
			case !isLock && n.isDir(event):
				n.askRescan() // perhaps there are lock files in it, or were
			}
		case err, ok := <-n.watcher.Errors:
			if !ok {
				return
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				n.store.config.Logger.Warn("notifications of changed files", "error", err)
			}
			n.askRescan()
		case <-window:
			window = nil
			n.inspect(suspects)
			clear(suspects)
		}
	}
}

// nameOf returns the lock whose file has a path.
func (n *notifier) nameOf(file string) (lock.Name, bool) {
	relative, err := filepath.Rel(n.store.files.root, file)
	if err != nil {
		return lock.Name{}, false
	}
	return nameOf(filepath.ToSlash(relative))
}

// isDir reports whether an event is about a directory that came or went.
func (n *notifier) isDir(event fsnotify.Event) bool {
	if event.Has(fsnotify.Create) {
		relative, err := filepath.Rel(n.store.files.root, event.Name)
		if err != nil {
			return false
		}
		stat, err := n.store.files.Lstat(filepath.ToSlash(relative))
		return err == nil && stat.Mode.IsDir()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	gone := event.Has(fsnotify.Rename|fsnotify.Remove) && n.dirs[event.Name]
	if gone {
		delete(n.dirs, event.Name)
	}
	return gone
}

func (n *notifier) askRescan() {
	select {
	case n.rescan <- struct{}{}:
	default:
	}
}

// inspect passes on those suspects whose files are not as they are known to be:
// most notifications are of the server's own changes.
func (n *notifier) inspect(suspects map[lock.Name]bool) {
	held := n.store.files.Hold()
	defer held.Drop()
	here := &files{FS: held, root: n.store.files.root}
	list := &suspectList{store: n.store}
	for name, written := range suspects {
		if written || !n.isAsKnown(here, name) {
			list.add(name)
		}
	}
	list.flush()
}

// isAsKnown reports whether a file is as the store knows it. While the server itself
// changes it, that takes more than a look.
func (n *notifier) isAsKnown(here *files, name lock.Name) bool {
	const tries = 3
	for range tries {
		v := n.store.view.Load()
		if v == nil {
			return true // the store is closed
		}
		p, err := here.look(name)
		if err != nil {
			return false
		}
		e := find(v.locks, name)
		if e == nil && p.inode == 0 || e != nil && e.print.matches(p) {
			return true
		}
		if now := n.store.view.Load(); now == nil || find(now.locks, name) == e {
			return false
		}
	}
	return false
}
