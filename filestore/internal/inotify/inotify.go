// Package inotify tells which entries of directories change, as Linux tells it
// (inotify(7)).
//
// It exists because its user is itself the one who changes most of the files: what
// counts is what an event costs that leads to nothing. Here that is a share of a
// read(2), and no wake: between two calls of Read the kernel gathers events, and
// nobody waits for them.
package inotify

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Event is a change of an entry of a directory.
type Event struct {
	Dir string // what Add was told to call the directory
	// Name is the entry's name in the directory. It is valid until the function
	// that is called with the event returns.
	Name  []byte
	IsDir bool // the entry is a directory itself
	// Written: somebody wrote to the file, or set its size. Else the entry came
	// or went.
	Written bool
}

// Watcher tells of changes in any number of directories. Add may be called at any
// time by anybody, and so may Close; Wait and Read are for one goroutine.
type Watcher struct {
	fd   int
	stop int // an eventfd(2) that can be read from once the Watcher is closed
	buf  []byte

	reading sync.Mutex // held while fd is waited for or read

	mu     sync.Mutex
	dirs   map[int32]string // by watch descriptor: what each is called
	most   int              // how many dirs had at most, since it was made
	closed bool
	close  func() error
}

// bufferBytes is how much is read at a time: more than a thousand events.
const bufferBytes = 64 << 10

// New returns a Watcher that watches nothing yet. The error says which of the limits
// in /proc/sys/fs/inotify is reached.
func New() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	w := &Watcher{fd: fd, stop: stop, buf: make([]byte, bufferBytes), dirs: make(map[int32]string)}
	w.close = sync.OnceValue(w.closeNow)
	return w, nil
}

// mask is what is asked of the kernel: whatever makes, removes, moves or writes an
// entry, and what ends the watch of a directory.
const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MODIFY |
	unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// Add begins to watch the directory at path, whose events shall call it dir. To add
// a directory again is harmless, and is how one is called otherwise from then on. It
// returns the number of the watch, above 0, which a directory has until it is moved or
// removed. The error is an *os.PathError, or os.ErrClosed.
func (w *Watcher) Add(path, dir string) (watch int32, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, os.ErrClosed
	}
	n, err := unix.InotifyAddWatch(w.fd, path, mask)
	if err != nil {
		return 0, &os.PathError{Op: "inotify_add_watch", Path: path, Err: err}
	}
	w.dirs[int32(n)] = dir
	w.most = max(w.most, len(w.dirs))
	return int32(n), nil
}

// Len returns how many directories are watched.
func (w *Watcher) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dirs)
}

// Wait waits until there is something to read. The error is os.ErrClosed once the
// Watcher is closed.
func (w *Watcher) Wait() error {
	w.reading.Lock()
	defer w.reading.Unlock()
	// Not in an epoll set, the Go scheduler's or another, from which each event
	// would wake a thread: this one is woken once, by the first.
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(w.stop), Events: unix.POLLIN}}
	for !w.isClosed() {
		if _, err := unix.Poll(fds, -1); err == nil {
			if fds[1].Revents == 0 {
				return nil
			}
		} else if err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
	return os.ErrClosed
}

// Read calls tell with every event that has come until now, in order, and does not
// wait for more. missed: some may not have come, since they were too many for the
// kernel, or because a directory is no longer watched, as it was moved, or its file system
// unmounted. That one was removed is told as an event of the directory that it was in.
// The error is os.ErrClosed once the Watcher is closed.
func (w *Watcher) Read(tell func(Event)) (missed bool, err error) {
	w.reading.Lock()
	defer w.reading.Unlock()
	for !w.isClosed() {
		n, err := unix.Read(w.fd, w.buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return missed, nil
		case err != nil:
			return missed, os.NewSyscallError("read", err)
		}
		missedNow, err := w.take(w.buf[:n], tell)
		missed = missed || missedNow
		if err != nil || n+maxRecord <= len(w.buf) {
			return missed, err // that was all
		}
	}
	return missed, os.ErrClosed
}

// take calls tell with the events of what has been read.
func (w *Watcher) take(records []byte, tell func(Event)) (missed bool, err error) {
	for len(records) > 0 {
		var r record
		if r, records, err = next(records); err != nil {
			return true, err
		}
		switch dir, watched := w.dir(r.watch); {
		case r.mask&unix.IN_Q_OVERFLOW != 0:
			missed = true
		case !watched:
		case r.mask&unix.IN_IGNORED != 0:
			w.ended(r.watch)
		case r.mask&unix.IN_UNMOUNT != 0:
			missed = true // IN_IGNORED follows
		case r.mask&unix.IN_MOVE_SELF != 0:
			// Who knows what it and those below are called now? IN_IGNORED follows.
			w.remove(r.watch)
			missed = true
		case len(r.name) > 0:
			tell(Event{Dir: dir, Name: r.name, IsDir: r.mask&unix.IN_ISDIR != 0, Written: r.mask&unix.IN_MODIFY != 0})
		}
	}
	return missed, nil
}

// dir returns what a directory is called, and whether it is watched.
func (w *Watcher) dir(watch int32) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dir, watched := w.dirs[watch]
	return dir, watched
}

// ended notes that the watch of a directory has ended.
func (w *Watcher) ended(watch int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(watch)
}

// Forget ends the watch of a directory, unless it has ended or the directory is called
// otherwise meanwhile.
func (w *Watcher) Forget(watch int32, dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirs[watch] == dir && !w.closed {
		w.remove(watch)
		w.drop(watch)
	}
}

// drop is ended for a caller that holds mu.
func (w *Watcher) drop(watch int32) {
	delete(w.dirs, watch)
	if w.most > 1024 && len(w.dirs) < w.most/4 { // a map keeps the room of all that was in it
		w.dirs = maps.Collect(maps.All(w.dirs))
		w.most = len(w.dirs)
	}
}

// remove ends the watch of a directory, if it has not ended by itself.
func (w *Watcher) remove(watch int32) {
	_, _ = unix.InotifyRmWatch(w.fd, uint32(watch))
}

func (w *Watcher) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// Close ends all watches, and Wait and Read wherever they are, before it returns.
func (w *Watcher) Close() error { return w.close() }

func (w *Watcher) closeNow() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	one := [8]byte{1} // not zero, in either byte order
	if _, err := unix.Write(w.stop, one[:]); err != nil {
		return fmt.Errorf("waking the reader: %w", err) // who would wait for ever
	}
	w.reading.Lock()
	defer w.reading.Unlock()
	return os.NewSyscallError("close", errors.Join(unix.Close(w.fd), unix.Close(w.stop)))
}
