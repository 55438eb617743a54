package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Open returns the tree below a directory of the operating system's. Every directory in
// it is reached from that one, level by level, and a file from its directory: never
// through a symbolic link, so that no file has two names. The directories of keep stay
// open, to be reached without a way: they must not be moved.
func Open(dir string, keep ...string) (FS, error) {
	top, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	r := &osRoot{name: dir, kept: map[string]*openDir{".": {file: top, fd: int(top.Fd()), stays: true}}}
	for _, name := range keep {
		d, err := r.open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		d.stays = true
		r.kept[name] = d
	}
	return r, nil
}

type osRoot struct {
	name string              // of the directory that it is the tree of
	kept map[string]*openDir // "." is always one of them
	held map[string]*openDir // nil: no others are kept
	turn uint64              // how often they were released
}

// openDir is an open directory.
type openDir struct {
	file  *os.File
	fd    int  // to ask for it takes system calls
	stays bool // open, once it has been used
	// Of one that is held:
	place place
	turn  uint64 // in which it was known to be where it was
}

// place tells directories apart.
type place struct {
	devMajor, devMinor uint32
	inode              uint64
}

// placeOf tells which directory has a name in an open one, or, with an empty name,
// which one is open.
func placeOf(fd int, name string) (place, error) {
	return placeAt(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
}

func placeAt(fd int, name string, flags int) (place, error) {
	var x unix.Statx_t
	err := retry(func() error { return unix.Statx(fd, name, flags, unix.STATX_INO|unix.STATX_TYPE, &x) })
	if err == nil && x.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	return place{x.Dev_major, x.Dev_minor, x.Ino}, err
}

// isGone reports whether the directory has been removed.
func (d *openDir) isGone() bool {
	var stat unix.Stat_t
	return unix.Fstat(d.fd, &stat) != nil || stat.Nlink == 0
}

func (r *osRoot) open(dir string) (*openDir, error) {
	fd, err := r.descend(dir, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &openDir{file: os.NewFile(uintptr(fd), path.Join(r.name, dir)), fd: fd}, nil
}

// descend opens a directory for reading. If perm is not 0, it makes the directories that
// are missing.
func (r *osRoot) descend(dir string, perm fs.FileMode) (fd int, err error) {
	top := r.kept["."].fd
	fd = top
	for above := true; above; {
		var name string
		flags := unix.O_RDONLY
		if name, dir, above = strings.Cut(dir, "/"); above {
			flags = unix.O_PATH // which needs no permission to read it
		}
		below, err := openDirAt(fd, name, flags)
		if err == unix.ENOENT && perm != 0 {
			below, err = makeDirAt(fd, name, perm, flags)
		}
		if fd != top {
			unix.Close(fd)
		}
		if err != nil {
			return -1, err
		}
		fd = below
	}
	return fd, nil
}

// makeDirAt makes a directory in another, unless somebody has just done so, and opens it.
func makeDirAt(dir int, name string, perm fs.FileMode, flags int) (fd int, err error) {
	err = retry(func() error { return unix.Mkdirat(dir, name, uint32(perm.Perm())) })
	if err == unix.EEXIST {
		return openDirAt(dir, name, flags)
	}
	if err != nil {
		return -1, err
	}
	if fd, err = openDirAt(dir, name, unix.O_RDONLY); err == nil {
		markMade(fd)
	}
	return fd, err
}

// openDirAt opens a directory that is directly in another. The error is ELOOP for a
// symbolic link, and ENOTDIR for anything else that is none.
func openDirAt(dir int, name string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err == unix.ENOTDIR {
		if stat, statErr := statx(dir, name); statErr == nil && stat.Mode&fs.ModeSymlink != 0 {
			err = unix.ELOOP
		}
	}
	return fd, err
}

// A Held keeps at most mostHeld directories open, and mostAfter once it is released: 64
// and 32, or less where the process may have few descriptors, for there are several.
var mostHeld, mostAfter = mostHeldHere()

func mostHeldHere() (most, after int) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 2, 1
	}
	most = int(min(max(limit.Cur/32, 2), 64))
	return most, most / 2
}

// Hold implements FS.
func (r *osRoot) Hold() Held {
	return &osRoot{name: r.name, kept: r.kept, held: make(map[string]*openDir)}
}

// Release implements Held.
func (r *osRoot) Release() {
	for dir, d := range r.held {
		if len(r.held) > mostAfter && d.turn != r.turn {
			r.drop(dir, d)
		}
	}
	for dir, d := range r.held {
		if len(r.held) > mostAfter {
			r.drop(dir, d)
		}
	}
	r.turn++
}

// Drop implements Held.
func (r *osRoot) Drop() {
	for dir, d := range r.held {
		r.drop(dir, d)
	}
}

// Forget implements Held.
func (r *osRoot) Forget(dir string) {
	if d := r.held[dir]; d != nil {
		r.drop(dir, d)
	}
}

func (r *osRoot) drop(dir string, d *openDir) {
	d.file.Close() // nothing was written to it
	delete(r.held, dir)
}

// find returns a directory that is open and where it was, or nil. What was held
// before the last Release has to be looked for: level by level, so that no link is on
// the way.
func (r *osRoot) find(dir string) *openDir {
	if d := r.kept[dir]; d != nil {
		return d
	}
	d := r.held[dir]
	if d == nil || d.turn == r.turn {
		return d
	}
	if r.isThere(dir, d) {
		d.turn = r.turn
		return d
	}
	r.drop(dir, d)
	return nil
}

// isThere reports whether a directory that is held is where it was.
func (r *osRoot) isThere(dir string, d *openDir) bool {
	above, base := path.Split(dir)
	parent, err := r.reach(path.Clean(above))
	if err != nil {
		return false
	}
	defer r.done(parent)
	now, err := placeOf(parent.fd, base)
	return err == nil && now == d.place
}

// reach returns a directory, which done gives back.
func (r *osRoot) reach(dir string) (*openDir, error) {
	if d := r.find(dir); d != nil {
		return d, nil
	}
	d, err := r.open(dir)
	if err != nil || r.held == nil || len(r.held) >= mostHeld {
		return d, err
	}
	if d.place, err = placeOf(d.fd, ""); err != nil {
		d.file.Close()
		return nil, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	d.stays, d.turn = true, r.turn
	r.held[dir] = d
	return d, nil
}

// done closes a directory that is not to stay open.
func (r *osRoot) done(d *openDir) {
	if !d.stays {
		d.file.Close()
	}
}

// in calls do with the open directory of a file and the file's name in it.
func (r *osRoot) in(op, name string, do func(dir int, base string) error) error {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	d, err := r.reach(dir)
	if err != nil {
		return err
	}
	defer r.done(d)
	err = retry(func() error { return do(d.fd, base) })
	if err == unix.ENOENT && r.held[dir] == d && d.isGone() {
		r.drop(dir, d) // another may have its place
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// retry calls a system call until no signal interrupts it.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func (r *osRoot) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f := osFile{name: name}
	err := r.in("open", name, func(dir int, base string) (err error) {
		f.fd, err = unix.Openat(dir, base, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (r *osRoot) Lstat(name string) (s Stat, err error) {
	err = r.in("stat", name, func(dir int, base string) (err error) {
		s, err = statx(dir, base)
		return err
	})
	return s, err
}

// statx describes a file in an open directory, or with an empty name the open file
// itself.
func statx(fd int, name string) (Stat, error) {
	const want = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	var x unix.Statx_t
	if err := unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, want, &x); err != nil {
		return Stat{}, err
	}
	s := Stat{
		Mode:  fs.FileMode(x.Mode & 0o777),
		Inode: x.Ino,
		Size:  int64(x.Size),
		Mtime: nanoseconds(x.Mtime),
		Ctime: nanoseconds(x.Ctime),
		Links: x.Nlink,
		UID:   x.Uid,
		GID:   x.Gid,
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		s.Birth = nanoseconds(x.Btime)
	}
	switch x.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		s.Mode |= fs.ModeDir
	case unix.S_IFLNK:
		s.Mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		s.Mode |= fs.ModeNamedPipe
	default:
		s.Mode |= fs.ModeIrregular
	}
	return s, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func (r *osRoot) OpenDir(name string) (Dir, error) {
	d, err := r.open(name)
	if err != nil {
		return nil, err
	}
	return osDir{d.file, d.fd}, nil
}

func (r *osRoot) MkdirAll(name string, perm fs.FileMode) error {
	fd, err := r.descend(name, perm)
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return unix.Close(fd) // nothing was written to it
}

func (r *osRoot) Link(oldName, newName string) error {
	return r.in("link", oldName, func(oldDir int, oldBase string) error {
		return r.in("link", newName, func(newDir int, newBase string) error {
			return unix.Linkat(oldDir, oldBase, newDir, newBase, 0)
		})
	})
}

func (r *osRoot) Rename(oldName, newName string) error {
	return r.in("rename", oldName, func(oldDir int, oldBase string) error {
		return r.in("rename", newName, func(newDir int, newBase string) error {
			return unix.Renameat(oldDir, oldBase, newDir, newBase)
		})
	})
}

func (r *osRoot) RenameNew(oldName, newName string) error {
	return r.rename2("rename", oldName, newName, unix.RENAME_NOREPLACE)
}

func (r *osRoot) Exchange(a, b string) error {
	return r.rename2("exchange", a, b, unix.RENAME_EXCHANGE)
}

func (r *osRoot) rename2(op, oldName, newName string, flags uint) error {
	err := r.in(op, oldName, func(oldDir int, oldBase string) error {
		return r.in(op, newName, func(newDir int, newBase string) error {
			return unix.Renameat2(oldDir, oldBase, newDir, newBase, flags)
		})
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // rename(2): no support for the flag
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}

func (r *osRoot) Remove(name string) error {
	return r.in("remove", name, func(dir int, base string) error {
		return unix.Unlinkat(dir, base, 0)
	})
}

func (r *osRoot) SyncDir(name string) error {
	d, err := r.open(name)
	if err != nil {
		return err
	}
	defer d.file.Close()
	return d.file.Sync()
}

func (r *osRoot) Sync() error {
	if err := retry(func() error { return unix.Syncfs(r.kept["."].fd) }); err != nil {
		return fmt.Errorf("syncfs %s: %w", r.name, err)
	}
	return nil
}

func (r *osRoot) Mount() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	var x unix.Statx_t
	err = unix.Statx(r.kept["."].fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID_UNIQUE, &x)
	if err != nil || x.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return "" // Linux before 6.8
	}
	return fmt.Sprintf("mount %d of boot %s", x.Mnt_id, strings.TrimSpace(string(boot)))
}

func (r *osRoot) Whereabouts() error {
	for name, kept := range r.kept {
		want, err := placeOf(kept.fd, "")
		var now place
		if err == nil && name == "." {
			now, err = placeAt(unix.AT_FDCWD, r.name, 0) // links may lead to it
		} else if err == nil {
			now, err = placeOf(r.kept["."].fd, name)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s is not there any more", path.Join(r.name, name))
		case err != nil:
			return fmt.Errorf("%s cannot be looked at: %w", path.Join(r.name, name), err)
		case now != want:
			return fmt.Errorf("%s is another directory now", path.Join(r.name, name))
		}
	}
	return nil
}

func (r *osRoot) TryShare() error {
	err := retry(func() error { return unix.Flock(r.kept["."].fd, unix.LOCK_SH|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	if err != nil {
		return &fs.PathError{Op: "flock", Path: r.name, Err: err}
	}
	return nil
}

func (r *osRoot) Close() error {
	var errs []error
	for _, d := range r.kept {
		errs = append(errs, d.file.Close())
	}
	return errors.Join(errs...)
}

type osDir struct {
	file *os.File
	fd   int
}

func (d osDir) Lstat(name string) (s Stat, err error) {
	err = retry(func() (err error) {
		s, err = statx(d.fd, name)
		return err
	})
	if err != nil {
		return Stat{}, &fs.PathError{Op: "stat", Path: path.Join(d.file.Name(), name), Err: err}
	}
	return s, nil
}

func (d osDir) List() ([]fs.DirEntry, error) {
	// From its start, whoever has read it before.
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.file.Name(), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.file.Name())
	defer f.Close()
	return f.ReadDir(-1)
}

func (d osDir) Fd() int { return d.fd }

func (d osDir) Close() error { return d.file.Close() }

// osFile is a file descriptor. An os.File would ask the kernel, for each of the
// many short-lived files, what it can do.
type osFile struct {
	fd   int
	name string
}

func (f osFile) do(op string, call func() error) error {
	if err := retry(call); err != nil {
		return &fs.PathError{Op: op, Path: f.name, Err: err}
	}
	return nil
}

func (f osFile) Read(p []byte) (n int, err error) {
	err = f.do("read", func() (err error) {
		n, err = unix.Read(f.fd, p)
		return err
	})
	if err != nil {
		return 0, err
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f osFile) ReadAt(p []byte, offset int64) (int, error) {
	return f.whole("read", p, offset, unix.Pread, io.EOF)
}

func (f osFile) WriteAt(p []byte, offset int64) (int, error) {
	return f.whole("write", p, offset, unix.Pwrite, io.ErrShortWrite)
}

// whole calls pread or pwrite until all of p is done; none is what it means that
// nothing more is.
func (f osFile) whole(op string, p []byte, offset int64, call func(int, []byte, int64) (int, error), none error) (done int, err error) {
	for done < len(p) {
		var n int
		err := f.do(op, func() (err error) {
			n, err = call(f.fd, p[done:], offset+int64(done))
			return err
		})
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, none
		}
		done += n
	}
	return done, nil
}

func (f osFile) Stat() (s Stat, err error) {
	err = f.do("stat", func() (err error) {
		s, err = statx(f.fd, "")
		return err
	})
	return s, err
}

func (f osFile) Attributes() (bytes int, err error) {
	err = f.do("listxattr", func() (err error) {
		bytes, err = unix.Flistxattr(f.fd, nil)
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil
	}
	return bytes, err
}

// Lease takes a write lease (fcntl(2), "Leases"), which ends with the descriptor.
func (f osFile) Lease() error {
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return ErrLocked
	}
	return nil
}

func (f osFile) Truncate(size int64) error {
	return f.do("truncate", func() error { return unix.Ftruncate(f.fd, size) })
}

func (f osFile) Datasync() error {
	return f.do("fdatasync", func() error { return unix.Fdatasync(f.fd) })
}

func (f osFile) Allocate(size int64) error {
	err := f.do("fallocate", func() error { return unix.Fallocate(f.fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return f.Truncate(size) // no room is kept, but the file works
	}
	return err
}

func (f osFile) TryLock() error {
	err := f.do("flock", func() error { return unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func (f osFile) Close() error {
	// Not tried again: the descriptor is gone whatever close says (close(2)).
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR {
		return &fs.PathError{Op: "close", Path: f.name, Err: err}
	}
	return nil
}
