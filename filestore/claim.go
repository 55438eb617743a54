package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// daemonFile names the process that serves the root, or served it last, and the
// mount that it saw the root on.
const daemonFile = ownDir + "/daemon"

// openRoot makes the root, if it is missing, and its own directory, and opens it.
func openRoot(dir string) (root string, fsys disk.FS, err error) {
	if dir == "" {
		return "", nil, errors.New("the root is not set")
	}
	if root, err = absolute(dir); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(root, dirPerm); err != nil {
		return "", nil, fmt.Errorf("the root %s cannot be made: %w", root, rootCause(err))
	}
	if err := os.Mkdir(filepath.Join(root, ownDir), ownPerm); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", nil, fmt.Errorf("the root %s cannot be written: %w", root, rootCause(err))
	}
	if fsys, err = disk.Open(root, ownDir); err != nil {
		return "", nil, fmt.Errorf("the root %s cannot be opened: %w", root, rootCause(err))
	}
	return root, fsys, nil
}

// rootCause puts what a user can mend into words.
func rootCause(err error) error {
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return errors.New("it is a file, or there is one on the way to it; give a directory")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; give a directory that this user may write", err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; make room, the journal needs about 1 MiB ahead", err)
	}
	return err
}

// claim is the right to serve a root: an flock on .pylok. The kernel lets go of it
// when the process ends, however it ends.
type claim struct {
	dir    disk.File
	format format // of the root
	// before is what the server before this one said in .pylok/daemon.
	before []byte
}

// openOwn opens the server's own directory, whose files the server believes: nobody else
// may have made it, or write it.
func openOwn(root string, fsys disk.FS) (disk.File, error) {
	dir, err := fsys.OpenFile(ownDir, os.O_RDONLY, 0)
	if errors.Is(err, syscall.ELOOP) {
		err = errors.New("it is a symbolic link")
	}
	if err != nil {
		return nil, fmt.Errorf("the directory %s/%s cannot be opened: %w", root, ownDir, rootCause(err))
	}
	stat, err := dir.Stat()
	switch uid := os.Geteuid(); {
	case err != nil:
	case !stat.Mode.IsDir():
		err = rootCause(syscall.ENOTDIR)
	case int(stat.UID) != uid:
		err = fmt.Errorf("it belongs to user %d, and this is user %d: serve the root as the user who served it before; if that other user has no business there, remove the directory, and the lock files are adopted as anonymous holds", stat.UID, uid)
	case stat.Mode&0o022 != 0:
		err = fmt.Errorf("others than its owner may write it (mode %#o): look at what is in it, and then let nobody else (chmod go-w)", stat.Mode.Perm())
	default:
		return dir, nil
	}
	return nil, errors.Join(fmt.Errorf("the directory %s/%s cannot be trusted: %w", root, ownDir, err), dir.Close())
}

// claimRoot claims the root, says in .pylok/daemon who has it, and checks the
// root's format.
func claimRoot(root string, fsys disk.FS) (*claim, error) {
	dir, err := openOwn(root, fsys)
	if err != nil {
		return nil, err
	}
	c := &claim{dir: dir}
	before, readErr := readWhole(fsys, daemonFile)
	if err := dir.TryLock(); err != nil {
		defer dir.Close() // a failure to close says less than err
		if errors.Is(err, disk.ErrLocked) {
			who := "another process"
			if readErr == nil && len(before) > 0 {
				who, _, _ = strings.Cut(string(before), "\n")
			}
			return nil, fmt.Errorf("the root %s is served by %s already; a root has one server: use that one, or stop it first", root, who)
		}
		return nil, fmt.Errorf("claiming the root %s: %w", root, err)
	}
	c.before = before
	// The mount stays the one of the last server that had all in order, until
	// this one has.
	err = c.sign(fsys, mountOf(before))
	if err == nil {
		err = c.haveFormat(fsys)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the root %s cannot be served: %w", root, rootCause(err)), c.release())
	}
	return c, nil
}

// sign writes .pylok/daemon.
func (c *claim) sign(fsys disk.FS, mount string) error {
	host, _ := os.Hostname()
	return writeWhole(fsys, daemonFile, fmt.Appendf(nil, "process %d on %s\n%s\n", os.Getpid(), host, mount))
}

// syncFailed stands in .pylok/daemon in place of a mount when the lock files could not be
// made durable. The operating system may take them for written all the same, and a later
// sync for done (see PostgreSQL's fsync wiki page), so the next start writes them again.
const syncFailed = "sync failed"

// mountOf returns the mount that .pylok/daemon names.
func mountOf(daemon []byte) string {
	_, mount, _ := strings.Cut(strings.TrimSpace(string(daemon)), "\n")
	return mount
}

func (c *claim) release() error { return c.dir.Close() }

// haveFormat refuses a root of a format that is not known, and marks a new one.
func (c *claim) haveFormat(fsys disk.FS) (err error) {
	c.format, err = readFormat(fsys)
	if err == nil && c.format == "" {
		c.format = firstFormat
		err = writeFormat(fsys, c.format)
	}
	return err
}

// readWhole reads a small file.
func readWhole(fsys disk.FS, name string) ([]byte, error) {
	f, err := disk.OpenRegular(fsys, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, lock.MaxFileBytes))
}

// writeWhole writes a file of which a crash leaves all or nothing. On a full disk it
// writes over the one that is there, which needs no room: a crash then leaves, as far as
// a disk writes a sector as a whole, the same.
func writeWhole(fsys disk.FS, name string, text []byte) error {
	err := writeAnew(fsys, name, text)
	if errors.Is(err, syscall.ENOSPC) && writeOver(fsys, name, text) == nil {
		return nil
	}
	return err
}

func writeAnew(fsys disk.FS, name string, text []byte) error {
	temporary := name + newSuffix
	f, err := disk.OpenRegular(fsys, temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(temporary))
	}
	return fsys.Rename(temporary, name)
}

// writeOver writes over a file. Where it was longer, newlines follow.
func writeOver(fsys disk.FS, name string, text []byte) error {
	f, err := disk.OpenRegular(fsys, name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	stat, err := f.Stat()
	if err == nil {
		padding := max(int(stat.Size)-len(text), 0)
		_, err = f.WriteAt(slices.Concat(text, bytes.Repeat([]byte("\n"), padding)), 0)
	}
	if err == nil {
		err = f.Datasync()
	}
	return errors.Join(err, f.Close())
}
