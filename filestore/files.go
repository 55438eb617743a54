package filestore

import (
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
	newSuffix  = ".new"

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

// newFileOf is where the file of the lock's state as of a revision is written.
func newFileOf(revision lock.Revision) string {
	return fmt.Sprintf("%s/%d%s", ownDir, revision, newSuffix)
}

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
	// written to: file systems use inode numbers again. 0: not known.
	birth int64
	isDir bool // a directory has the place of the file
}

func fingerprintOf(info fs.FileInfo) fingerprint {
	p := fingerprint{size: info.Size(), mtime: info.ModTime().UnixNano(), isDir: info.IsDir()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		p.inode = stat.Ino
		p.ctime = stat.Ctim.Nano()
	}
	return p
}

// matches reports whether q is of the same file in the same state as far as both
// know.
func (p fingerprint) matches(q fingerprint) bool {
	if p.ctime == 0 || q.ctime == 0 {
		p.ctime, q.ctime = 0, 0
	}
	if p.birth == 0 || q.birth == 0 {
		p.birth, q.birth = 0, 0
	}
	return p == q
}

// sameFile reports whether q is certainly of the same file, whatever its state.
func (p fingerprint) sameFile(q fingerprint) bool {
	return p.inode == q.inode && p.birth == q.birth && p.birth != 0
}

// writeNew writes a complete file under its .new name.
func (f *files) writeNew(revision lock.Revision, text []byte) (fingerprint, error) {
	name := newFileOf(revision)
	file, err := f.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if errors.Is(err, fs.ErrExist) {
		// Of a commit that failed and could not be cleaned up.
		if err = f.Remove(name); err == nil {
			file, err = f.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
		}
	}
	if err != nil {
		return fingerprint{}, err
	}
	_, err = file.WriteAt(text, 0)
	var info fs.FileInfo
	if err == nil {
		info, err = file.Stat()
	}
	var birth int64
	if err == nil {
		birth, err = file.Birth()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fingerprint{}, errors.Join(err, f.Remove(name))
	}
	p := fingerprintOf(info)
	p.ctime, p.birth = 0, birth
	return p, nil
}

// errBlocked: something that is no directory is on the way to a lock file's place.
var errBlocked = errors.New("something above it in the root is not a directory")

// link gives a .new file its place, which must be empty: else the error is
// fs.ErrExist. Missing directories are made.
func (f *files) link(revision lock.Revision, name lock.Name) error {
	err := f.Link(newFileOf(revision), fileOf(name))
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.MkdirAll(path.Dir(fileOf(name)), dirPerm); errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: %w", errBlocked, syscall.ENOTDIR)
		}
		if err == nil {
			err = f.Link(newFileOf(revision), fileOf(name))
		}
	}
	// Package os has no name for the error of a link that leads out of a Root.
	if err != nil && (errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || strings.Contains(err.Error(), "escapes")) {
		return fmt.Errorf("%w: %s", errBlocked, reasonOf(err))
	}
	return err
}

// look describes the lock file; the zero fingerprint means that there is none.
func (f *files) look(name lock.Name) (fingerprint, error) {
	info, err := f.Lstat(fileOf(name))
	if isAbsent(err) {
		return fingerprint{}, nil
	}
	if err != nil {
		return fingerprint{}, err
	}
	return fingerprintOf(info), nil
}

// isAbsent reports whether err means that there is no such file: the name is
// missing, or something on the way to it is not a directory.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// lockFile is a lock file as it was found.
type lockFile struct {
	lockfile.Content
	print fingerprint // zero: there is no file
	mtime time.Time
}

func (f lockFile) exists() bool { return f.print != fingerprint{} }

// read reads a lock file. What is there but cannot be read has a Problem; the
// error is for a file of which not even that is known.
func (f *files) read(name lock.Name) (lockFile, error) {
	const tries = 3
	var found lockFile
	for range tries {
		info, err := f.Lstat(fileOf(name))
		if isAbsent(err) {
			return lockFile{}, nil
		}
		if err != nil {
			return lockFile{}, err
		}
		found = lockFile{print: fingerprintOf(info), mtime: info.ModTime()}
		if kind := notRegular(info.Mode()); kind != "" {
			found.Problem = "the lock file is " + kind
			return found, nil
		}
		text, birth, stable, err := f.readText(fileOf(name), info)
		found.print.birth = birth
		switch {
		case isAbsent(err):
			continue
		case err != nil:
			found.Problem = "the file cannot be read: " + reasonOf(err)
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

// readText reads a regular file that info describes, and reports whether it stayed
// the same meanwhile.
func (f *files) readText(name string, info fs.FileInfo) (text []byte, birth int64, stable bool, err error) {
	// O_NONBLOCK: if it has become a named pipe, opening must not wait.
	file, err := f.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, false, err
	}
	defer file.Close()
	opened, err := file.Stat()
	if err != nil || !os.SameFile(info, opened) {
		return nil, 0, false, err
	}
	text, err = io.ReadAll(io.LimitReader(file, lock.MaxFileBytes+1))
	if err != nil {
		return nil, 0, false, err
	}
	if birth, err = file.Birth(); err != nil {
		return nil, 0, false, err
	}
	after, err := file.Stat()
	if err != nil {
		return nil, 0, false, err
	}
	return text, birth, fingerprintOf(after) == fingerprintOf(info), nil
}

// reasonOf leaves out the file's name, which the reader of a message knows.
func reasonOf(err error) string {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err.Error()
	}
	var linkError *os.LinkError
	if errors.As(err, &linkError) {
		return linkError.Err.Error()
	}
	return err.Error()
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

// walk calls visit with the name of every lock file below the root, and returns
// how many other files it left alone. A directory that cannot be read is reported
// to unreadable, with its path, and passed over.
func (f *files) walk(visit func(lock.Name) error, unreadable func(dir string, err error)) (strays int, err error) {
	var walkDir func(dir string, depth int) error
	walkDir = func(dir string, depth int) error {
		entries, err := f.ReadDir(dir)
		if isAbsent(err) {
			return nil // removed meanwhile
		}
		if err != nil {
			unreadable(dir, err)
			return nil
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if text, isLock := strings.CutSuffix(name, lock.FileSuffix); isLock {
				if n, err := lock.ParseName(text); err == nil {
					if err := visit(n); err != nil {
						return err
					}
					continue
				}
			}
			switch {
			case dir == "." && entry.Name() == ownDir:
			case entry.IsDir() && depth < lock.MaxNameSegments && isSegment(entry.Name()):
				if err := walkDir(name, depth+1); err != nil {
					return err
				}
			default:
				strays++
			}
		}
		return nil
	}
	err = walkDir(".", 1)
	return strays, err
}

// isSegment reports whether a directory's name may stand in a lock's name.
func isSegment(text string) bool {
	_, err := lock.ParseName(text)
	return err == nil
}
