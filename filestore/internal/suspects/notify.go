package suspects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

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
	log     *slog.Logger
	watcher *inotify.Watcher // nil: there are no notifications
	rescan  chan struct{}    // has an element when everything must be looked at
	moved   gathered[string] // directories that came or went
}

func newNotifier(config Config) *notifier {
	n := &notifier{log: config.Logger, rescan: make(chan struct{}, 1), moved: newGathered[string]()}
	if config.NoNotify {
		return n
	}
	watcher, err := inotify.New()
	if err != nil {
		n.log.Warn("no notifications of changed files; polling alone finds them", "error", limitError(err))
		return n
	}
	n.watcher = watcher
	return n
}

func (n *notifier) isOn() bool { return n.watcher != nil }

// limitError says of an error which of the limits of inotify is reached, if that is what it
// means.
func limitError(err error) error {
	var limit string
	switch {
	case errors.Is(err, syscall.ENOSPC):
		limit = "max_user_watches"
	case errors.Is(err, syscall.EMFILE):
		limit = "max_user_instances"
	default:
		return err
	}
	value, _ := os.ReadFile("/proc/sys/fs/inotify/" + limit) // else it has its name alone
	return fmt.Errorf("the user's limit fs.inotify.%s = %s is reached, which sysctl raises", limit, bytes.TrimSpace(value))
}

// watch asks for notifications of a directory that is open. The error is os.ErrClosed when
// there are no more, or says why there are none of this directory: mostly of one of many,
// as inotify is used up.
func (n *notifier) watch(dir string, open disk.Dir) (watch int32, err error) {
	// By no path, on which others may put a link, or another directory.
	watch, err = n.watcher.Add(fmt.Sprintf("/proc/self/fd/%d", open.Fd()), dir)
	return watch, limitError(err)
}

// watched returns how many directories are watched.
func (n *notifier) watched() int { return n.watcher.Len() }

// forget ends the watch of a directory that is gone, if it has one.
func (n *notifier) forget(watch int32, dir string) {
	if watch > 0 {
		n.watcher.Forget(watch, dir)
	}
}

// run calls inspect with what has been told until ctx ends.
func (n *notifier) run(ctx context.Context, inspect func(map[place]bool)) {
	if !n.isOn() {
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
			var written map[place]bool
			written, err = n.read()
			inspect(written)
		}
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			n.log.Warn("no more notifications of changed files; polling alone finds them", "error", err)
			return
		}
	}
}

func (n *notifier) close() {
	if err := n.watcher.Close(); err != nil {
		n.log.Warn("ending the notifications of changed files", "error", err)
	}
}

// place is where a file is: a directory in the root, and the file's name in it.
type place struct{ dir, base string }

func (at place) path() string { return path.Join(at.dir, at.base) }

// read reads what has been gathered: what came, went, or, if so it says, was written to.
func (n *notifier) read() (written map[place]bool, err error) {
	written = make(map[place]bool)
	everything, err := n.watcher.Read(func(e inotify.Event) {
		at := place{e.Dir, string(e.Name)}
		written[at] = written[at] || e.Written
		if e.IsDir && lockfile.MayBeIn(at.path()) {
			n.moved.add(at.path())
		}
	})
	if everything {
		select {
		case n.rescan <- struct{}{}:
		default:
		}
	}
	return written, err
}

// inspectNotified has those files inspected that others have changed: most notifications
// are of the server's own changes.
func (f *Finder) inspectNotified(written map[place]bool) {
	var changed, looks []lock.Name
	for at, isWritten := range written {
		switch name, isLock := lockfile.NameOf(at.path()); {
		case !isLock:
		case isWritten:
			// The server writes no file in its place: whoever did, it was
			// somebody else.
			changed = append(changed, name)
		default:
			looks = append(looks, name)
		}
	}
	for some := range slices.Chunk(looks, suspectBatch) {
		changed = append(changed, f.store.ChangedByOthers(some)...)
	}
	_ = f.store.Inspect(changed) // logged, and named again
}
