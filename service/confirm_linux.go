package service

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// isAcknowledged reports whether the other machine has acknowledged all that was sent on
// a connection, as tcp(7) tells with TCP_INFO. What stays on this machine needs no
// acknowledgement.
func isAcknowledged(c net.Conn) (bool, error) {
	if _, isTCP := c.(*net.TCPConn); !isTCP {
		return true, nil
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return false, err
	}
	var info *unix.TCPInfo
	var infoErr error
	err = raw.Control(func(fd uintptr) { info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err = errors.Join(err, infoErr); err != nil {
		return false, err
	}
	return info.Unacked == 0 && info.Notsent_bytes == 0, nil
}
