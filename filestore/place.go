package filestore

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"syscall"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/pool"
	"github.com/pylok/pylok/lock"
)

// A lock file's place is its name below the root, where scripts come and go at any
// moment. So no change here acts on a name and believes it to be the file that was
// looked at before: what is replaced or removed is moved to a name in .pylok first,
// nobody else's, and looked at there. What turns out to be another file is put back.

// errChanged: what was in a lock file's place is not the file that was looked at.
var errChanged = errors.New("the lock file is another than the one that was looked at")

// errMisplaced: a file that was moved out of its place could not be put back. Its name
// in .pylok tells the next start.
var errMisplaced = errors.New("a lock file could not be put back")

// errOwnFile: a file in .pylok could not be written, which says nothing of a lock's file.
var errOwnFile = errors.New("a file of the server's own could not be written")

// movedFile returns a name in .pylok for what another file takes the place of. The number
// makes it unique; the hash tells a start after a crash whose it is.
func (s *Store) movedFile(name lock.Name) string { return s.asideOf(name, moveSuffix) }

// takenFile is movedFile for what leaves its place empty.
func (s *Store) takenFile(name lock.Name) string { return s.asideOf(name, takeSuffix) }

func (s *Store) asideOf(name lock.Name, suffix string) string {
	return s.pool.Name("-" + hashOf(name) + suffix)
}

// keptOf returns the name that a file of movedFile's or takenFile's gets to be kept.
func keptOf(moved string) string { return strings.TrimSuffix(moved, path.Ext(moved)) + keptSuffix }

// hashOf returns 16 digits that stand for a name.
func hashOf(name lock.Name) string {
	h := fnv.New64a()
	h.Write([]byte(name.String()))
	return fmt.Sprintf("%016x", h.Sum64())
}

// isMoved reports whether q, of another name, is of the file of p in the same state:
// giving it another name has changed its ctime.
func (p fingerprint) isMoved(q fingerprint) bool {
	q.ctime = 0
	return p.matches(q)
}

// take moves a lock's file, as it was when want was looked at, to a name in .pylok.
func (f *files) take(name lock.Name, want fingerprint, moved string) error {
	if err := f.Rename(fileOf(name), moved); err != nil {
		return err
	}
	if err := f.expect(moved, want); err != nil {
		return f.putBack(moved, name, err)
	}
	return nil
}

// expect looks whether a file in .pylok is the one that want is of.
func (f *files) expect(moved string, want fingerprint) error {
	stat, err := f.Lstat(moved)
	if err == nil && !want.isMoved(fingerprintOf(stat)) {
		err = errChanged
	}
	return err
}

// putBack gives a file that was moved out of a lock's place that place again, because
// of an error, which it returns. If somebody else has taken the place meanwhile, the
// error is a *displacedError.
func (f *files) putBack(moved string, name lock.Name, because error) error {
	err := f.placeAnything(moved, name)
	switch {
	case err == nil:
		return because
	case isByOthers(err), errors.Is(err, errBlocked):
		kept := keptOf(moved)
		if err := f.Rename(moved, kept); err != nil {
			return errors.Join(because, errMisplaced, err)
		}
		return &displacedError{name, kept, because}
	}
	return errors.Join(because, errMisplaced, err)
}

// placeAnything is place for what may not be a file of the server's. Where the file system
// cannot tell whether a name is taken, directories and, if it protects hard links, files of
// other users have no other way.
func (f *files) placeAnything(from string, name lock.Name) error {
	err := f.place(from, name)
	if errors.Is(err, syscall.EPERM) {
		err = f.inPlace(name, func() error { return f.Rename(from, fileOf(name)) })
	}
	return err
}

// displacedError: the place of a file that was to be put back has been taken. Nobody's
// file is destroyed, so it stays in .pylok.
type displacedError struct {
	name lock.Name
	kept string // where the file is
	err  error
}

func (e *displacedError) Error() string {
	return fmt.Sprintf("the place of a lock file of %s was taken while the file was looked at; it is kept as %s: %v", e.name, e.kept, e.err)
}

func (e *displacedError) Unwrap() error { return e.err }

// replace gives a new file in .pylok, with fingerprint p, the place of a lock's file, which
// has a fingerprint want and gets the name moved. There is no moment at which the place is
// empty. With an error the new file is gone.
func (f *files) replace(name lock.Name, fresh string, p, want fingerprint, moved string) error {
	// By its new name a start after a crash knows whose what it finds there is.
	if err := f.Rename(fresh, moved); err != nil {
		return errors.Join(errOwnFile, err, f.Remove(fresh))
	}
	err := f.Exchange(moved, fileOf(name))
	if errors.Is(err, errors.ErrUnsupported) {
		return f.replaceByName(name, p, want, moved)
	}
	if err != nil {
		return errors.Join(err, f.Remove(moved))
	}
	if err := f.expect(moved, want); err != nil {
		return f.exchangeBack(name, p, moved, err)
	}
	return nil
}

// exchangeBack undoes the exchange that gave a file of the server's, with fingerprint p,
// the place of the one that has the name moved now. What somebody else puts there
// meanwhile stays. It returns the error because of which it is done.
func (f *files) exchangeBack(name lock.Name, p fingerprint, moved string, because error) error {
	const tries = 100 // each means that somebody else was in between
	for range tries {
		switch err := f.Exchange(moved, fileOf(name)); {
		case disk.IsAbsent(err): // somebody removed what was there
			return errors.Join(because, f.Remove(moved))
		case err != nil:
			return errors.Join(because, errMisplaced, err)
		}
		stat, err := f.Lstat(moved)
		if err != nil {
			return errors.Join(because, errMisplaced, err)
		}
		if stat.Inode == p.inode && stat.Birth == p.birth {
			return errors.Join(because, f.Remove(moved))
		}
		// Somebody else's came out, which is newer than what went in: once more.
	}
	kept := keptOf(moved)
	if err := f.Rename(moved, kept); err != nil {
		return errors.Join(because, errMisplaced, err)
	}
	return &displacedError{name, kept, because}
}

// replaceByName is replace on a file system that cannot exchange two names. It has the
// new file under the name moved. What somebody puts into the place between its link and
// its renaming is lost, as README.md says.
func (f *files) replaceByName(name lock.Name, p, want fingerprint, moved string) error {
	fresh := strings.TrimSuffix(moved, moveSuffix) + "-2" + moveSuffix
	err := f.Rename(moved, fresh)
	if err == nil {
		err = f.Link(fileOf(name), moved)
	}
	if err == nil {
		if err = f.Rename(fresh, fileOf(name)); err != nil {
			err = errors.Join(err, f.Remove(moved))
		}
	}
	if err != nil {
		return errors.Join(err, f.Remove(fresh))
	}
	if err := f.expect(moved, want); err != nil {
		return f.renameBack(name, p, moved, err)
	}
	return nil
}

// renameBack is exchangeBack on a file system that cannot exchange two names. What
// somebody puts into the place between its look and its renaming is lost.
func (f *files) renameBack(name lock.Name, p fingerprint, moved string, because error) error {
	now, err := f.look(name)
	switch {
	case err != nil:
	case now.inode != p.inode || now.birth != p.birth: // somebody removed or replaced it
		return errors.Join(because, f.Remove(moved))
	default:
		err = f.Rename(moved, fileOf(name))
	}
	if err != nil {
		return errors.Join(because, errMisplaced, err)
	}
	return because
}

// restore undoes replace: a lock's place has the file again that was moved.
func (f *files) restore(name lock.Name, p fingerprint, moved string) error {
	err := f.exchangeBack(name, p, moved, nil)
	if errors.Is(err, errors.ErrUnsupported) {
		err = f.renameBack(name, p, moved, nil)
	}
	return err
}

// rewrite writes a lock's file anew, in place of the one with fingerprint want, or of
// none. It uses two names in .pylok.
func (f *files) rewrite(name lock.Name, want fingerprint, text []byte, fresh, moved string) (p fingerprint, err error) {
	if want.isDir {
		return fingerprint{}, &fs.PathError{Op: "replace", Path: fileOf(name), Err: syscall.EISDIR}
	}
	stat, err := pool.Make(f.FS, fresh, text)
	if err != nil {
		return fingerprint{}, errors.Join(errOwnFile, err)
	}
	p = newPrint(stat)
	if want == (fingerprint{}) {
		if err = f.place(fresh, name); err != nil {
			err = errors.Join(err, f.Remove(fresh))
		}
		return p, err
	}
	if err = f.replace(name, fresh, p, want, moved); err == nil {
		err = f.Remove(moved)
	}
	return p, err
}

// takeBack removes a lock's file that the server has just made, with fingerprint p. What
// somebody else has put there since stays.
func (f *files) takeBack(name lock.Name, p fingerprint, moved string) error {
	err := f.Rename(fileOf(name), moved)
	if disk.IsAbsent(err) {
		return nil // somebody removed it
	}
	if err != nil {
		return err
	}
	stat, err := f.Lstat(moved)
	if err != nil || stat.Inode != p.inode || stat.Birth != p.birth {
		return f.putBack(moved, name, err)
	}
	return f.Remove(moved)
}

// place gives a file in .pylok a lock's place, which must be empty: else the error is
// fs.ErrExist.
func (f *files) place(from string, name lock.Name) error {
	return f.inPlace(name, func() error {
		err := f.RenameNew(from, fileOf(name))
		if errors.Is(err, errors.ErrUnsupported) {
			if err = f.Link(from, fileOf(name)); err == nil {
				err = f.Remove(from)
			}
		}
		return err
	})
}

// inPlace calls do, which gives a file a lock's place. Missing directories are made, as
// often as they are removed, which the server does too with those that it made.
func (f *files) inPlace(name lock.Name, do func() error) error {
	const tries = 10_000 // each means that somebody removed the directory just then
	var err error
	for range tries {
		err = do()
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if mkdirErr := f.MkdirAll(path.Dir(fileOf(name)), dirPerm); mkdirErr != nil && !errors.Is(mkdirErr, fs.ErrNotExist) {
			err = mkdirErr
			break
		}
		runtime.Gosched()
	}
	switch {
	case errors.Is(err, syscall.ELOOP):
		return fmt.Errorf("%w but a symbolic link, which is not followed", errBlocked)
	case disk.IsBlocked(err):
		return errBlocked
	}
	return err
}

// isOfTheFile reports whether an error says that one lock's file, or a directory that it
// is in, cannot be changed, as opposed to all files of the root.
func isOfTheFile(err error) bool {
	if errors.Is(err, errMisplaced) || errors.Is(err, errOwnFile) {
		return false
	}
	for _, of := range []error{
		fs.ErrPermission, // EPERM: sticky, immutable or append-only; EACCES: a directory
		syscall.EXDEV,    // another file system is mounted above it
		syscall.EBUSY,    // it is a mount point
		syscall.EROFS,    // likewise: where the root is, the file was written before
		syscall.ENAMETOOLONG,
		syscall.EMLINK,
		syscall.ETXTBSY,
		syscall.EISDIR,
		syscall.ENOENT, // its directory is removed over and over again
	} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// whyOfTheFile puts an error that isOfTheFile into words.
func whyOfTheFile(err error) string {
	switch {
	case errors.Is(err, syscall.EXDEV):
		return "it is on another file system than the root"
	case errors.Is(err, syscall.EBUSY):
		return "a file system is mounted on it"
	case errors.Is(err, syscall.EPERM):
		return "the operating system does not permit it: the file is another user's in a sticky directory, or immutable"
	case errors.Is(err, fs.ErrNotExist):
		return "its directory is removed over and over again"
	}
	return disk.ReasonOf(err)
}
