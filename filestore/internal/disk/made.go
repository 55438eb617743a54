package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNotMade: a directory was not made by MkdirAll, or somebody has changed its owner,
// mode or attributes since. It is to stay.
var ErrNotMade = errors.New("the directory is not the server's")

// madeAttribute marks a directory that MkdirAll made, or a file. The mark is in the directory
// itself, so that it is there after a crash, and goes with it. Its value says who might do
// what there; that of a file's, which file it is. Where a file system has no such
// attributes, as NFS before version 4.2, nothing is marked.
const madeAttribute = "user.pylok.made"

// markMade marks an open directory that has just been made. One that cannot be marked is
// like one that others made.
func markMade(fd int) {
	if access, err := accessOf(fd, 0); err == nil {
		_ = unix.Fsetxattr(fd, madeAttribute, []byte(access), unix.XATTR_CREATE)
	}
}

// checkMade returns ErrNotMade unless an open directory is as markMade left it.
func checkMade(fd int) error {
	var value [64]byte
	n, err := unix.Fgetxattr(fd, madeAttribute, value[:])
	switch err {
	case nil:
	case unix.ENODATA, unix.EOPNOTSUPP, unix.ERANGE:
		return ErrNotMade
	default:
		return err
	}
	access, err := accessOf(fd, len(madeAttribute)+1)
	if err == nil && access != string(value[:n]) {
		err = ErrNotMade
	}
	return err
}

// accessOf says who may do what with an open directory, as far as that can be seen at a
// glance: its mode and owner, and how many bytes the names of its attributes have, of which
// access control lists are some. So many bytes of them do not count.
func accessOf(fd, uncounted int) (string, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return "", err
	}
	names, err := unix.Flistxattr(fd, nil)
	return fmt.Sprintf("%o %d %d %d", stat.Mode&0o7777, stat.Uid, stat.Gid, names-uncounted), err
}

func (r *osRoot) RemoveDir(name string) error {
	return r.in("rmdir", name, func(dir int, base string) error {
		fd, err := openDirAt(dir, base, unix.O_RDONLY)
		if err != nil {
			return err
		}
		err = checkMade(fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
		// What others have just put in its place goes only if it is an empty directory too.
		return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
	})
}

func (f osFile) MarkMade(stat Stat) {
	_ = unix.Fsetxattr(f.fd, madeAttribute, []byte(idOf(stat)), unix.XATTR_CREATE)
}

func (f osFile) IsMade(stat Stat) bool {
	var value [64]byte
	n, err := unix.Fgetxattr(f.fd, madeAttribute, value[:])
	return err == nil && string(value[:n]) == idOf(stat)
}

func idOf(stat Stat) string { return fmt.Sprintf("%d %d", stat.Inode, stat.Birth) }
