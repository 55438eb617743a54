package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/filestore/internal/pool"
	"github.com/pylok/pylok/filestore/internal/suspects"
	"github.com/pylok/pylok/lock"
)

const (
	// ownDir is the server's own directory in the root. No name maps into it:
	// names do not start with a dot.
	ownDir     = ".pylok"
	journalDir = ownDir + "/journal"
	newSuffix  = pool.Suffix // a file on the way into the place of a lock file
	moveSuffix = ".move"     // likewise, or the one whose place it has taken
	takeSuffix = ".take"     // a file that was moved out of the place of a lock file, which is empty then
	keptSuffix = ".kept"     // somebody's file whose place somebody else took

	// Directories are for whom the umask, or the default ACL, lets have them.
	dirPerm = 0o777
	ownPerm = 0o700
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
	// ctime is 0 for a file that we wrote and have not looked at since: moving it
	// changes its ctime, and only a look afterwards tells to what.
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
		fresh: stat.IsFresh(),
	}
}

// newPrint is the fingerprint of a file that the server has just written and is about to
// move.
func newPrint(stat disk.Stat) fingerprint {
	p := fingerprintOf(stat)
	p.ctime, p.fresh = 0, true
	return p
}

// unseen is the fingerprint of a file that is there and cannot be looked at.
var unseen = fingerprint{ctime: -1, fresh: true}

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

// id tells which file it is, whatever its state.
func (p fingerprint) id() journal.FileID { return journal.FileID{Inode: p.inode, Birth: p.birth} }

// sameFile reports whether q is certainly of the same file, whatever its state.
func (p fingerprint) sameFile(q fingerprint) bool {
	return p.inode == q.inode && p.birth == q.birth && p.birth != 0
}

// errBlocked: something that is no directory is on the way to a lock file's place.
var errBlocked = errors.New("something above it in the root is not a directory")

// look describes the lock file; the zero fingerprint means that there is none.
func (f *files) look(name lock.Name) (fingerprint, error) {
	stat, err := f.Lstat(fileOf(name))
	if disk.IsAbsent(err) {
		return fingerprint{}, nil
	}
	if err != nil {
		return fingerprint{}, err
	}
	return fingerprintOf(stat), nil
}

// isByOthers reports whether a lock file could not be replaced or removed because
// of what others have done to its place meanwhile: the disk is well.
func isByOthers(err error) bool {
	return disk.IsAbsent(err) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist)
}

// lockFile is a lock file as it was found.
type lockFile struct {
	lockfile.Content
	// unread: what the file says is not known, as the Problem says.
	unread   bool
	reserved lockfile.Reserved // nil too where they are as the server wrote them
	print    fingerprint       // zero: there is no file
	mtime    time.Time
	text     []byte // nil: it was not read
}

func (f lockFile) exists() bool { return f.print != fingerprint{} }

// unreadable makes of an error in reading a file the file's Problem. The file is read
// again with each look at it: its times may never tell that it can be read.
func (f *lockFile) unreadable(err error) lockFile {
	f.Problem, f.unread = "the file cannot be read: "+disk.ReasonOf(err), true
	f.print.fresh = true
	return *f
}

// read reads a lock's file; known, which may be nil, is what is known of it.
func (f *files) read(name lock.Name, known *entry) (lockFile, error) {
	return f.readAt(fileOf(name), known)
}

// readAt reads a file as a lock file. What is there but cannot be read has a Problem; the
// error is one of those of disk.IsExhausted. A file that is as the server writes that of
// known, which may be nil, is not parsed.
func (f *files) readAt(file string, known *entry) (lockFile, error) {
	const tries = 3
	var found lockFile
	for range tries {
		stat, err := f.Lstat(file)
		if disk.IsAbsent(err) {
			return lockFile{}, nil
		}
		if disk.IsExhausted(err) {
			return lockFile{}, err
		}
		if err != nil { // which file is it?
			found = lockFile{print: unseen, mtime: time.Now()}
			if known != nil {
				found.print = known.print
			}
			return found.unreadable(err), nil
		}
		found = lockFile{print: fingerprintOf(stat), mtime: time.Unix(0, stat.Mtime)}
		if kind := notRegular(stat.Mode); kind != "" {
			found.Problem = "the lock file is " + kind
			return found, nil
		}
		text, stable, err := f.readText(file, stat)
		switch {
		case disk.IsAbsent(err), errors.Is(err, syscall.ELOOP):
			continue // it has become something else
		case disk.IsExhausted(err):
			return lockFile{}, err
		case err != nil:
			return found.unreadable(err), nil
		case stable:
			found.text = text
			if known != nil && bytes.Equal(text, lockfile.Append(nil, known.lock, f.location(known.lock.Name))) {
				found.Content = lockfile.ContentOf(known.lock, f.location(known.lock.Name))
			} else {
				found.Content, found.reserved = lockfile.ReadAll(text)
			}
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

// listing is what walk finds in a directory.
type listing struct {
	dir string // its path in the root
	suspects.Directory
	locks []listed
	at    disk.Dir
}

// listed is the lock file of a name, by its own name in its directory.
type listed struct {
	name lock.Name
	base string
}

// walk calls visit with the root and each directory below it that may have lock
// files, in no order and with as many at a time as there are processors. It returns
// how many files that are no lock files it left alone. A directory below the root that
// cannot be read is reported to unreadable, one at a time, and passed over.
func (f *files) walk(visit func(listing) error, unreadable func(dir string, err error)) (strays int, err error) {
	var (
		mu      sync.Mutex // guards what follows, and unreadable
		pending = []string{"."}
		busy    int // directories that are being listed
		changed = sync.NewCond(&mu)
		workers sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for {
				for len(pending) == 0 && busy > 0 {
					changed.Wait()
				}
				if len(pending) == 0 || err != nil {
					return
				}
				dir := pending[len(pending)-1]
				pending = pending[:len(pending)-1]
				busy++
				mu.Unlock()
				var unlisted *listError
				below, others, failure := f.visit(dir, visit)
				mu.Lock()
				busy--
				strays += others
				pending = append(pending, below...)
				switch {
				case failure == nil:
				case errors.As(failure, &unlisted) && dir != "." && !disk.IsExhausted(failure):
					unreadable(dir, unlisted.err)
				case err == nil:
					err = failure
				}
				changed.Broadcast()
			}
		})
	}
	workers.Wait()
	return strays, err
}

// listError is that a directory could not be listed.
type listError struct {
	dir string
	err error
}

func (e *listError) Error() string { return fmt.Sprintf("listing the directory %s: %v", e.dir, e.err) }

func (e *listError) Unwrap() error { return e.err }

// visit calls visit with a directory, and returns the directories below it.
func (f *files) visit(dir string, visit func(listing) error) (below []string, strays int, err error) {
	d, err := f.OpenDir(dir)
	if disk.IsAbsent(err) {
		return nil, 0, nil // removed meanwhile
	}
	l := listing{dir: dir, at: d}
	var entries []fs.DirEntry
	if err == nil {
		defer d.Close()
		l.Stat, err = d.Lstat(".")
		l.Fresh = l.Stat.IsFresh()
	}
	if err == nil {
		entries, err = d.List()
	}
	if err != nil {
		return nil, 0, &listError{dir, err}
	}
	l.Empty = len(entries) == 0
	l.locks = make([]listed, 0, len(entries))
	for _, entry := range entries {
		file := path.Join(dir, entry.Name())
		if name, isLock := lockfile.NameOf(file); isLock {
			l.locks = append(l.locks, listed{name, entry.Name()})
		} else if entry.IsDir() && lockfile.MayBeIn(file) {
			below = append(below, file)
		} else if file != ownDir {
			strays++
		}
	}
	return below, strays, visit(l)
}
