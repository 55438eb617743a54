package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Open returns the tree below a directory of the operating system's.
func Open(dir string) (FS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return osRoot{root}, nil
}

type osRoot struct{ *os.Root }

func (r osRoot) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := r.Root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (r osRoot) Lstat(name string) (Stat, error) {
	d, err := r.OpenDir(path.Dir(name))
	if err != nil {
		return Stat{}, err
	}
	defer d.Close()
	return d.Lstat(path.Base(name))
}

// statx describes a file in an open directory, or with an empty name the open file
// itself.
func statx(f *os.File, name string) (Stat, error) {
	const want = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	var x unix.Statx_t
	for {
		err := unix.Statx(int(f.Fd()), name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, want, &x)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return Stat{}, &fs.PathError{Op: "statx", Path: path.Join(f.Name(), name), Err: err}
		}
	}
	s := Stat{
		Mode:  fs.FileMode(x.Mode & 0o777),
		Inode: x.Ino,
		Size:  int64(x.Size),
		Mtime: nanoseconds(x.Mtime),
		Ctime: nanoseconds(x.Ctime),
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

func (r osRoot) Mount() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	f, err := r.Root.Open(".")
	if err != nil {
		return ""
	}
	defer f.Close()
	var x unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID_UNIQUE, &x); err != nil || x.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return "" // Linux before 6.8
	}
	return fmt.Sprintf("mount %d of boot %s", x.Mnt_id, strings.TrimSpace(string(boot)))
}

func (r osRoot) OpenDir(name string) (Dir, error) {
	f, err := r.Root.Open(name)
	if err != nil {
		return nil, err
	}
	return osDir{f}, nil
}

type osDir struct{ *os.File }

func (d osDir) Lstat(name string) (Stat, error) { return statx(d.File, name) }

func (d osDir) List() ([]fs.DirEntry, error) { return d.ReadDir(-1) }

func (r osRoot) SyncDir(name string) error {
	f, err := r.Root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (r osRoot) Sync() error {
	f, err := r.Root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", r.Name(), err)
	}
	return nil
}

type osFile struct{ *os.File }

func (f osFile) Stat() (Stat, error) { return statx(f.File, "") }

func (f osFile) Datasync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
	}
}

func (f osFile) TryLock() error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func (f osFile) Allocate(size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return f.Truncate(size) // no room is kept, but the file works
	}
	if err != nil {
		return fmt.Errorf("fallocate %s: %w", f.Name(), err)
	}
	return nil
}
