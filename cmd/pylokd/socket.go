package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is how long the path of a Unix socket may be (unix(7)).
const maxSocketPath = 107

// defaultSocket is where pylok and the clients look for a server of this machine; empty:
// there is no such place.
func defaultSocket(environment func(string) string, uid int) string {
	if uid == 0 {
		return "/run/pylok/pylok.sock"
	}
	if dir := environment("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "pylok", "pylok.sock")
	}
	return ""
}

// socketMode is the mode of the socket: who may connect. It is a pflag.Value.
type socketMode fs.FileMode

// String implements pflag.Value.
func (m *socketMode) String() string { return fmt.Sprintf("%04o", uint32(*m)) }

// Type implements pflag.Value.
func (m *socketMode) Type() string { return "MODE" }

// Set implements pflag.Value.
func (m *socketMode) Set(text string) error {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o777 {
		return fmt.Errorf("%q is no mode such as 0666 or 0660", text)
	}
	*m = socketMode(mode)
	return nil
}

// socketListener listens on a Unix socket, and has its path to itself.
type socketListener struct {
	*net.UnixListener
	lock *os.File // locked as long as the socket is served
}

// Close implements net.Listener. It removes the socket.
func (l *socketListener) Close() error {
	return errors.Join(l.UnixListener.Close(), l.lock.Close())
}

// listenSocket opens the socket that the flags ask for; nil: none. A default one that
// cannot be opened is done without.
func (c *config) listenSocket(log *slog.Logger) (net.Listener, error) {
	if c.socket == "" && c.socketIsDefault {
		log.Info("there is no socket, for XDG_RUNTIME_DIR is not set; --socket says where one may be")
	}
	if c.socket == "" || c.socket == none {
		return nil, nil
	}
	if c.socketIsDefault {
		if err := makeSocketDir(filepath.Dir(c.socket)); err != nil {
			log.Warn("there is no socket, and callers of this machine have to give the address; --socket none says so too", "error", err)
			return nil, nil
		}
	}
	listener, err := openSocket(c.socket, fs.FileMode(c.socketMode))
	switch {
	case err == nil:
		log.Info("serving on a socket", "path", c.socket)
		return listener, nil
	case c.socketIsDefault:
		log.Warn("there is no socket, and callers of this machine have to give the address; --socket none says so too", "error", err)
		return nil, nil
	}
	return nil, err
}

// makeSocketDir makes the directory of the default socket, which everybody may pass
// whatever the umask is: the socket's own mode says who may connect.
func makeSocketDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// openSocket listens on a Unix socket. One that a server has left is replaced, one that is
// served is not: a lock on a file beside it says which.
func openSocket(path string, mode fs.FileMode) (_ net.Listener, err error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("--socket %s: the path has %d bytes, and that of a socket may have %d", path, len(path), maxSocketPath)
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--socket %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("--socket %s: another pylokd serves on it; choose another path for this one, or none", path)
	} else if err != nil {
		return nil, fmt.Errorf("--socket %s: locking the file beside it: %w", path, err)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("--socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("--socket %s: something else than a socket is there", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("--socket: a server that is gone has left one: %w", err)
		}
	}
	listener, err := bindSocket(path, mode)
	if err != nil {
		return nil, fmt.Errorf("--socket: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask has taken bits away
		return nil, errors.Join(fmt.Errorf("--socket: %w", err), listener.Close())
	}
	return &socketListener{listener, lock}, nil
}

// bindSocket listens on a socket that nobody can connect to, at any moment, who may not by
// its mode: a socket gets its mode, less the umask, when it gets its path.
func bindSocket(path string, mode fs.FileMode) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, socket syscall.RawConn) error {
		var failed error
		err := socket.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), uint32(mode.Perm())) })
		return errors.Join(err, failed)
	}}
	listener, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return listener.(*net.UnixListener), nil
}
