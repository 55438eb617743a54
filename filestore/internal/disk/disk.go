// Package disk is what filestore asks of a file system. Nothing else in the
// project touches the files below a root.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"
)

// Stat describes a file.
type Stat struct {
	Mode     fs.FileMode
	Inode    uint64
	Size     int64  // bytes
	Mtime    int64  // of the content; nanoseconds since the Unix epoch
	Ctime    int64  // of anything; likewise
	Birth    int64  // when it was created; likewise; 0: the file system does not tell
	Links    uint32 // how many names it has
	UID, GID uint32 // of its owner
}

// trustAge is the age from which on a file's times tell it from every later state:
// the coarsest time stamps of a file system, those of FAT, are 2 s apart.
const trustAge = 2 * time.Second

// IsFresh reports whether a file has been changed so shortly before now that its
// times do not tell it from every later state.
func (s Stat) IsFresh() bool { return time.Now().UnixNano()-max(s.Mtime, s.Ctime) < int64(trustAge) }

// FS is a directory tree. Names are relative to its root, slash-separated and clean.
// Nothing is reached through a symbolic link: where one is in place of a directory, the
// error is ELOOP. Errors are those of package os.
type FS interface {
	// OpenFile opens a file with the flags of package os. It does not wait for what is
	// no regular file, such as a named pipe.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Lstat describes a file without following a symbolic link.
	Lstat(name string) (Stat, error)
	// OpenDir opens a directory, to look at many of its files.
	OpenDir(name string) (Dir, error)
	// MkdirAll makes a directory and those above it that are missing, and marks those
	// that it makes.
	MkdirAll(name string, perm fs.FileMode) error
	// RemoveDir removes a directory that is empty and that MkdirAll made, also on behalf
	// of another process. The error is ErrNotMade, which changes nothing, if it did not,
	// or if somebody has changed the directory's mode, owner or attributes since.
	RemoveDir(name string) error
	// Link gives a file a second name, which must not exist.
	Link(oldName, newName string) error
	// Rename gives a file another name, in place of what has that name.
	Rename(oldName, newName string) error
	// RenameNew is Rename, but the error is fs.ErrExist if something has that name,
	// and errors.ErrUnsupported where the file system cannot tell.
	RenameNew(oldName, newName string) error
	// Exchange exchanges what two names stand for, at once. The error is
	// errors.ErrUnsupported where the file system cannot.
	Exchange(a, b string) error
	// Remove removes a file that is no directory.
	Remove(name string) error
	// SyncDir makes a directory's own entries durable.
	SyncDir(name string) error
	// Sync makes everything written so far to the file system durable.
	Sync() error
	// Mount tells mounts of file systems apart, this boot's and those before:
	// as long as it is the same, no file has lost what was written to it. Empty:
	// the operating system does not tell.
	Mount() string
	// Whereabouts returns nil if the path that the tree was opened by still leads to
	// it, and the directories that it keeps open have their places in it. Else the
	// error says, after the name of a directory, what is wrong.
	Whereabouts() error
	// TryShare takes the shared flock(2) of the tree's own directory, or fails at once
	// with ErrLocked.
	TryShare() error
	// Hold returns the same tree for the use of one goroutine, which is quick
	// to come again to a directory that it has come to before.
	Hold() Held
	// Close gives the tree back.
	Close() error
}

// Held is a tree that keeps directories open through which it reaches files.
type Held interface {
	FS
	// Release ends a piece of work. Until then a directory that others move away
	// is still the one that was there; after it each is looked for before it is
	// used again.
	Release()
	// Forget closes a directory, which has been removed: as long as it is open, the
	// operating system keeps it, and its watches.
	Forget(dir string)
	// Drop closes the directories.
	Drop()
}

// Dir is an open directory. Names are of files directly in it.
type Dir interface {
	io.Closer
	// Lstat describes a file without following a symbolic link.
	Lstat(name string) (Stat, error)
	// List lists the directory in no particular order.
	List() ([]fs.DirEntry, error)
	// Fd returns the descriptor, which is the directory's until Close.
	Fd() int
}

// ErrLocked: another process has the lock.
var ErrLocked = errors.New("locked by another process")

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Stat describes the open file.
	Stat() (Stat, error)
	// Attributes returns the size of the names of its extended attributes, of
	// which access control lists are some.
	Attributes() (bytes int, err error)
	// MarkMade marks the file, of which stat is, as one that this program made. A copy
	// of it is not marked. Where the file system has no extended attributes, as NFS
	// before version 4.2, no file is.
	MarkMade(stat Stat)
	// IsMade reports whether the file, of which stat is, is marked.
	IsMade(stat Stat) bool
	// Lease fails with ErrLocked if anybody else has the file open or mapped, and keeps
	// all from opening it until it is closed. Where the file system does not tell,
	// somebody might.
	Lease() error
	// TryLock takes the file's exclusive flock(2), or fails at once with
	// ErrLocked.
	TryLock() error
	// Truncate sets the size.
	Truncate(size int64) error
	// Allocate makes room for size bytes from offset 0 and extends the file
	// with zeros to that size if it is smaller.
	Allocate(size int64) error
	// Datasync makes the content durable, as fdatasync(2). After an error
	// nothing is known about what was written since the last success, and
	// trying again proves nothing (see PostgreSQL's fsync wiki page).
	Datasync() error
}

// OpenRegular opens a file that is to be a regular one.
func OpenRegular(fsys FS, name string, flag int, perm fs.FileMode) (File, error) {
	f, err := fsys.OpenFile(name, flag, perm)
	switch {
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("%s is a symbolic link, and a link is not followed there: %w", name, err)
	case errors.Is(err, syscall.ENXIO):
		return nil, notRegular(name, err)
	case err != nil:
		return nil, err
	}
	stat, err := f.Stat()
	if err == nil && !stat.Mode.IsRegular() {
		err = notRegular(name, nil)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func notRegular(name string, err error) error {
	return errors.Join(fmt.Errorf("%s is not a regular file: somebody else made it", name), err)
}

// List lists a directory in no particular order.
func List(fsys FS, name string) ([]fs.DirEntry, error) {
	d, err := fsys.OpenDir(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.List()
}
