package access

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PeerCredentials returns who connected to a Unix socket, as the kernel noted it then.
func PeerCredentials(conn *net.UnixConn) (*Credentials, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var groups []uint32
	var peerErr, groupsErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		groups, groupsErr = peerGroups(fd)
	})
	if err := errors.Join(err, peerErr, groupsErr); err != nil {
		return nil, fmt.Errorf("who connected to the socket: %w", err)
	}
	return &Credentials{UID: peer.Uid, GID: peer.Gid, Groups: groups}, nil
}

// peerGroups asks for SO_PEERGROUPS, which says how much room it needs when there is too
// little.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == syscall.ERANGE && int(size) > len(groups)*4:
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil, os.NewSyscallError("getsockopt SO_PEERGROUPS", errno)
		default:
			return groups[:size/4], nil
		}
	}
}

// overflowUID is the user that the kernel shows for one that has no number here, as from
// another user namespace (user_namespaces(7)): it may be anybody. overflowGID is likewise a
// group that may be any.
var (
	overflowUID = sync.OnceValue(func() uint32 { return overflowID("/proc/sys/kernel/overflowuid") })
	overflowGID = sync.OnceValue(func() uint32 { return overflowID("/proc/sys/kernel/overflowgid") })
)

func overflowID(file string) uint32 {
	const usual = 65534
	text, err := os.ReadFile(file)
	if err != nil {
		return usual
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return usual
	}
	return uint32(id)
}
