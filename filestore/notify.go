package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/inotify"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// notifyWindow is how long notifications are gathered, so that a burst of them on
// one file is looked at once, and a busy server reads them once in that time. They
// wait in the kernel, which keeps 16,384 of them (fs.inotify.max_queued_events).
const notifyWindow = 10 * time.Millisecond

// notifier makes polling fast where the operating system tells of changes. It only
// ever names suspects, so what it misses costs a poll interval and nothing else.
type notifier struct {
	store   *Store
	watcher *inotify.Watcher // nil: there are no notifications
	rescan  chan struct{}    // has an element when everything must be looked at
	moves   moves            // of directories

	unwatched map[string]bool // directories that could not be watched; the poller's
}

func newNotifier(s *Store, none bool) *notifier {
	n := &notifier{store: s, rescan: make(chan struct{}, 1), moves: newMoves(), unwatched: make(map[string]bool)}
	if none {
		return n
	}
	watcher, err := inotify.New()
	if err != nil {
		s.config.Logger.Warn("no notifications of changed files; polling alone finds them", "error", err)
		return n
	}
	n.watcher = watcher
	return n
}

// watch asks for notifications of a directory. One that cannot be opened the poller comes
// to by itself.
func (n *notifier) watch(dir string) {
	if n.watcher == nil {
		return
	}
	if d, err := n.store.files.OpenDir(dir); err == nil {
		n.watchOpen(dir, d)
		d.Close()
	}
}

// watchOpen is watch for a directory that is open.
func (n *notifier) watchOpen(dir string, d disk.Dir) {
	if n.watcher == nil {
		return
	}
	// By no path, on which others may put a link, or another directory.
	err := n.watcher.Add(fmt.Sprintf("/proc/self/fd/%d", d.Fd()), dir)
	switch {
	case errors.Is(err, os.ErrClosed):
	case err != nil:
		n.watchFailed(dir, err)
	default:
		n.forget(dir)
	}
}

// watchFailed notes that a directory cannot be watched: mostly one of many, as inotify is
// used up.
func (n *notifier) watchFailed(dir string, err error) {
	n.unwatched[dir] = true
	n.store.complaints.Bad(complaints.NoNotifications, "", err)
}

// forget notes that a directory is watched, or gone.
func (n *notifier) forget(dir string) {
	if delete(n.unwatched, dir); len(n.unwatched) == 0 {
		n.store.complaints.Well(complaints.NoNotifications, "")
	}
}

// watchAgain tries the directories again that could not be watched, as long as it works.
func (n *notifier) watchAgain() {
	for dir := range n.unwatched {
		before := len(n.unwatched)
		if n.watch(dir); len(n.unwatched) == before {
			return
		}
	}
}

// run names suspects until ctx ends.
func (n *notifier) run(ctx context.Context) {
	if n.watcher == nil {
		return
	}
	defer n.close()
	defer context.AfterFunc(ctx, n.close)()
	for {
		err := n.watcher.Wait()
		if err == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(notifyWindow):
			}
			err = n.readAndInspect()
		}
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			n.store.config.Logger.Warn("no more notifications of changed files; polling alone finds them", "error", err)
			return
		}
	}
}

func (n *notifier) close() {
	if err := n.watcher.Close(); err != nil {
		n.store.config.Logger.Warn("ending the notifications of changed files", "error", err)
	}
}

// place is where a file is: a directory in the root, and the file's name in it.
type place struct{ dir, base string }

// suspect is a lock whose file may have been changed by others.
type suspect struct {
	name    lock.Name // zero: no lock has its file there
	written bool      // the file was written to in its place
}

// readAndInspect reads what has been gathered, and has it looked at.
func (n *notifier) readAndInspect() error {
	suspects := make(map[place]*suspect)
	everything, err := n.watcher.Read(func(e inotify.Event) {
		at := suspects[place{e.Dir, string(e.Name)}]
		if at == nil {
			at = &suspect{}
			base := string(e.Name)
			at.name, _ = lockfile.NameOf(path.Join(e.Dir, base))
			suspects[place{e.Dir, base}] = at
		}
		at.written = at.written || e.Written
		if e.IsDir && at.name.IsZero() {
			n.moves.add(path.Join(e.Dir, string(e.Name))) // perhaps there are lock files in it, or were
		}
	})
	if everything {
		n.askRescan()
	}
	n.inspect(suspects)
	return err
}

func (n *notifier) askRescan() {
	select {
	case n.rescan <- struct{}{}:
	default:
	}
}

// inspect passes on those suspects that others have changed: most notifications are
// of the server's own changes.
func (n *notifier) inspect(suspects map[place]*suspect) {
	var changed, looks []lock.Name
	for _, at := range suspects {
		switch {
		case at.name.IsZero():
		case at.written:
			// The server writes no file in its place: whoever did, it was
			// somebody else.
			changed = append(changed, at.name)
		default:
			looks = append(looks, at.name)
		}
	}
	for some := range slices.Chunk(looks, suspectBatch) {
		changed = append(changed, n.store.changedByOthers(some)...)
	}
	_ = n.store.inspect(changed) // logged, and tried again
}
