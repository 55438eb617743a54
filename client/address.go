package client

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// DefaultAddress is where a server listens unless it was told otherwise, beside its
// socket: LOCK on a keypad.
const DefaultAddress = "127.0.0.1:5625"

// systemSocket is the socket of a server that root runs.
const systemSocket = "/run/pylok/pylok.sock"

// longestSocketPath is how long the path of a Unix socket can be: sun_path of unix(7),
// without the zero at its end.
const longestSocketPath = 107

// FindAddress returns where this machine's own server is looked for when nobody says
// where: its Unix socket, if there is one, else DefaultAddress. The socket is
// $XDG_RUNTIME_DIR/pylok/pylok.sock or else /run/pylok/pylok.sock; for root only the
// latter.
//
// A socket that is there is the address whether a server answers on it or not: another
// one at DefaultAddress may serve other locks.
func FindAddress() string {
	return findAddress(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR"), systemSocket)
}

func findAddress(uid int, runtimeDir, systemSocket string) string {
	var sockets []string
	if uid != 0 && filepath.IsAbs(runtimeDir) { // of another user, where root comes from su
		sockets = append(sockets, filepath.Join(runtimeDir, "pylok", "pylok.sock"))
	}
	for _, socket := range append(sockets, systemSocket) {
		if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		return socketScheme + socket // also one that cannot be looked at: it may be there
	}
	return DefaultAddress
}

// socketScheme begins the address of a Unix socket; its absolute path follows.
const socketScheme = "unix://"

// target is what an address means.
type target struct {
	text   string // the address in the form that Client.Address has
	host   string // empty: it is a socket
	socket string // the absolute path of a Unix socket; empty: it is none
}

// parseAddress reads an address: HOST:PORT, unix:///PATH, or the path of a Unix socket
// that begins with / or a dot.
func parseAddress(address string) (target, error) {
	path, isSocket := strings.CutPrefix(address, "unix:")
	if isSocket {
		var hasHost bool
		if path, hasHost = strings.CutPrefix(path, "//"); hasHost && !strings.HasPrefix(path, "/") {
			return target{}, fmt.Errorf("the address %q has no absolute path after unix://, such as unix:///run/pylok/pylok.sock", address)
		}
	} else if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "./") || strings.HasPrefix(address, "../") {
		path, isSocket = address, true
	}
	if isSocket {
		return parseSocket(address, path)
	}
	host, port, err := net.SplitHostPort(address)
	if _, notNumber := strconv.ParseUint(port, 10, 16); err != nil || host == "" || notNumber != nil {
		return target{}, fmt.Errorf("the address %q is not HOST:PORT, such as %s, and not unix:///PATH of a socket", address, DefaultAddress)
	}
	return target{text: address, host: host}, nil
}

func parseSocket(address, path string) (target, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return target{}, fmt.Errorf("the address %q has no path of a socket, such as unix:///run/pylok/pylok.sock", address)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return target{}, fmt.Errorf("the address %q: %w", address, err)
	}
	if len(path) > longestSocketPath {
		return target{}, fmt.Errorf("the socket %s has a path of %d bytes; the system allows %d", path, len(path), longestSocketPath)
	}
	return target{text: socketScheme + path, socket: path}, nil
}

// forGRPC returns the target in gRPC's form.
func (t target) forGRPC() string {
	if t.socket != "" {
		return (&url.URL{Scheme: "unix", Path: t.socket}).String()
	}
	return "dns:///" + t.text
}

// isLoopback reports whether host is this machine under a name or an address that
// cannot mean another one.
func isLoopback(host string) bool {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	return net.ParseIP(host).IsLoopback()
}
