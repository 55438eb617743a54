package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

const (
	// ownDir is the server's own directory in the root. No name maps into it:
	// names do not start with a dot.
	ownDir     = ".pylok"
	journalDir = ownDir + "/journal"
	newSuffix  = ".new"  // a file that the server wrote; see written
	moveSuffix = ".move" // another name of it, on the way to its place

	filePerm = 0o644 // lock files are for everybody to read
	dirPerm  = 0o755
	ownPerm  = 0o700
)

// files is the lock files of a root.
type files struct {
	disk.FS
	root string // absolute, for lock_file_location
}

func fileOf(name lock.Name) string { return name.String() + lock.FileSuffix }

func (f *files) location(name lock.Name) string { return f.root + "/" + fileOf(name) }

// fingerprint tells whether a file is still the one that was read or written. The
// zero fingerprint is of no file.
type fingerprint struct {
	inode uint64
	size  int64
	mtime int64 // ns since the Unix epoch
	// ctime is 0 for a file that we wrote and have not looked at since: linking
	// it changes its ctime, and only a look afterwards tells to what.
	ctime int64
	// birth tells a file that was removed and made anew from one that was
	// written to: file systems use inode numbers again. 0: the file system does
	// not tell.
	birth int64
	isDir bool // a directory has the place of the file
	// fresh: when it was looked at, the file had been changed so shortly before
	// that a change after the look could have left the same times.
	fresh bool
}

func fingerprintOf(stat disk.Stat) fingerprint {
	return fingerprint{
		inode: stat.Inode,
		size:  stat.Size,
		mtime: stat.Mtime,
		ctime: stat.Ctime,
		birth: stat.Birth,
		isDir: stat.Mode.IsDir(),
		fresh: isFresh(stat),
	}
}

// isFresh reports whether a file has been changed so shortly before now that its
// times do not tell it from every later state.
func isFresh(stat disk.Stat) bool {
	return time.Now().UnixNano()-max(stat.Mtime, stat.Ctime) < int64(trustAge)
}

// trustAge is the age from which on a file's times tell it from every later state:
// the coarsest time stamps of a file system, those of FAT, are 2 s apart.
const trustAge = 2 * time.Second

// isKnown reports whether a look at the file's times tells if it has changed.
func (p fingerprint) isKnown() bool { return p.ctime != 0 && !p.fresh }

// matches reports whether q is of the same file in the same state as far as both
// know.
func (p fingerprint) matches(q fingerprint) bool {
	if p.ctime == 0 || q.ctime == 0 {
		p.ctime, q.ctime = 0, 0
	}
	p.fresh, q.fresh = false, false
	return p == q
}

// sameFile reports whether q is certainly of the same file, whatever its state.
func (p fingerprint) sameFile(q fingerprint) bool {
	return p.inode == q.inode && p.birth == q.birth && p.birth != 0
}

// errBlocked: something that is no directory is on the way to a lock file's place.
var errBlocked = errors.New("something above it in the root is not a directory")

// look describes the lock file; the zero fingerprint means that there is none.
func (f *files) look(name lock.Name) (fingerprint, error) {
	stat, err := f.Lstat(fileOf(name))
	if isAbsent(err) {
		return fingerprint{}, nil
	}
	if err != nil {
		return fingerprint{}, err
	}
	return fingerprintOf(stat), nil
}

// isAbsent reports whether err means that there is no such file in the root: the
// name is missing, or something on the way to it is not a directory, or is a link.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || isBlocked(err)
}

// isBlocked reports whether err means that something on the way to a file is not a
// directory.
func isBlocked(err error) bool {
	// Package os has no name for the error of a link that leads out of a Root.
	return err != nil && (errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || strings.Contains(err.Error(), "escapes"))
}

// isByOthers reports whether a lock file could not be replaced or removed because
// of what others have done to its place meanwhile: the disk is well.
func isByOthers(err error) bool {
	return isAbsent(err) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist)
}

// lockFile is a lock file as it was found.
type lockFile struct {
	lockfile.Content
	print fingerprint // zero: there is no file
	mtime time.Time
}

func (f lockFile) exists() bool { return f.print != fingerprint{} }

// read reads a lock file. What is there but cannot be read has a Problem; the
// error is for a file of which not even that is known. A file that is as the server
// writes that of known, which may be nil, is not parsed.
func (f *files) read(name lock.Name, known *entry) (lockFile, error) {
	const tries = 3
	var found lockFile
	for range tries {
		stat, err := f.Lstat(fileOf(name))
		if isAbsent(err) {
			return lockFile{}, nil
		}
		if err != nil {
			return lockFile{}, err
		}
		found = lockFile{print: fingerprintOf(stat), mtime: time.Unix(0, stat.Mtime)}
		if kind := notRegular(stat.Mode); kind != "" {
			found.Problem = "the lock file is " + kind
			return found, nil
		}
		text, stable, err := f.readText(fileOf(name), stat)
		switch {
		case isAbsent(err), errors.Is(err, syscall.ELOOP):
			continue // it has become something else
		case errors.Is(err, fs.ErrPermission):
			found.Problem = "the file cannot be read: " + reasonOf(err)
			return found, nil
		case err != nil:
			return lockFile{}, err // ours, not the file's
		case stable && known != nil && bytes.Equal(text, lockfile.Append(nil, known.lock, f.location(name))):
			found.Content = lockfile.ContentOf(known.lock)
			return found, nil
		case stable:
			found.Content = lockfile.Read(text)
			return found, nil
		}
	}
	found.Problem = "the file changes while it is read"
	// Whatever it will be, it will not be this.
	found.print.ctime = -1
	return found, nil
}

// readText reads a regular file that stat describes, and reports whether it stayed
// the same meanwhile.
func (f *files) readText(name string, stat disk.Stat) (text []byte, stable bool, err error) {
	// O_NONBLOCK: if it has become a named pipe, opening must not wait.
	file, err := f.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil || before != stat {
		return nil, false, err
	}
	if text, err = io.ReadAll(io.LimitReader(file, lock.MaxFileBytes+1)); err != nil {
		return nil, false, err
	}
	after, err := file.Stat()
	return text, after == stat, err
}

// reasonOf leaves out the file's name, which the reader of a message knows.
func reasonOf(err error) string {
	for {
		pathError, ok := errors.AsType[*fs.PathError](err)
		if !ok {
			return err.Error()
		}
		err = pathError.Err
	}
}

func notRegular(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return ""
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	}
	return "not a regular file"
}

// walk calls visit with the name of every lock file below the root, and what looks
// at the file, and returns how many other files it left alone. A directory that it
// may not read is reported to unreadable and passed over.
func (f *files) walk(visit func(lock.Name, func() (disk.Stat, error)) error, unreadable func(dir string, err error)) (strays int, err error) {
	var walkDir func(dir string) error
	walkDir = func(dir string) error {
		d, err := f.OpenDir(dir)
		if isAbsent(err) {
			return nil // removed meanwhile
		}
		var entries []fs.DirEntry
		if err == nil {
			defer d.Close()
			entries, err = d.List()
		}
		if errors.Is(err, fs.ErrPermission) && dir != "." {
			unreadable(dir, err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing the directory %s: %w", dir, err)
		}
		for _, entry := range entries {
			file := path.Join(dir, entry.Name())
			if name, isLock := nameOf(file); isLock {
				err = visit(name, func() (disk.Stat, error) { return d.Lstat(entry.Name()) })
			} else if canHoldLocks(file, entry) {
				err = walkDir(file)
			} else if file != ownDir {
				strays++
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	err = walkDir(".")
	return strays, err
}

// nameOf returns the lock whose file a path in the root is.
func nameOf(file string) (lock.Name, bool) {
	text, isLock := strings.CutSuffix(file, lock.FileSuffix)
	if !isLock {
		return lock.Name{}, false
	}
	name, err := lock.ParseName(text)
	return name, err == nil
}

// canHoldLocks reports whether an entry is a directory that may lead to lock files.
func canHoldLocks(file string, entry fs.DirEntry) bool {
	_, err := lock.ParseName(file + "/x")
	return err == nil && entry.IsDir()
}
