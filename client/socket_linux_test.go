package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// listenOn makes a Unix socket in a directory that may have any name.
func listenOn(t *testing.T, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// whoAsks answers Info with the authorization that came.
type whoAsks struct {
	pylokv1.UnimplementedLockServiceServer
}

func (whoAsks) Info(ctx context.Context, _ *pylokv1.InfoRequest) (*pylokv1.InfoResponse, error) {
	sent := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ", ")
	return &pylokv1.InfoResponse{Caller: sent}, nil
}

func serveOn(t *testing.T, listener net.Listener, options ...grpc.ServerOption) {
	t.Helper()
	server := grpc.NewServer(options...)
	pylokv1.RegisterLockServiceServer(server, whoAsks{})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
}

// TestSocket: an address can be a Unix socket, whatever its path has in it.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%20#?é", "pylok.sock")
	serveOn(t, listenOn(t, path))
	t.Chdir(filepath.Dir(path))
	for _, address := range []string{path, "unix://" + path, "unix:" + path, "unix:pylok.sock", "./pylok.sock"} {
		got, err := info(t, address, client.Options{})
		if err != nil || got.Caller != "" {
			t.Errorf("%s: Info = %v, %v", address, got, err)
		}
	}
	c, err := client.Dial("./pylok.sock", client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Address() != "unix://"+path {
		t.Errorf("Address() = %q, want unix://%s", c.Address(), path)
	}
}

// TestSocketListener: a bearer token goes to a socket of this user's or of root's, and to
// nobody else's.
func TestSocketListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.sock")
	serveOn(t, listenOn(t, path))
	if got, err := info(t, path, client.Options{Bearer: static("s3cret")}); err != nil || got.Caller != "Bearer s3cret" {
		t.Errorf("Info over a socket of one's own: %v, %v; want the bearer token", got, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can listen as somebody else")
	}
	path = filepath.Join(t.TempDir(), "other.sock")
	listener, err := listenAs(path, 12345)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, listener)
	if _, err := info(t, path, client.Options{}); err != nil {
		t.Errorf("Info without a bearer token over the socket of somebody else: %v", err)
	}
	_, err = info(t, path, client.Options{Bearer: static("s3cret")})
	if _, refused := errors.AsType[*client.CredentialError](err); !refused || !strings.Contains(err.Error(), "belongs to the user 12345") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("Info with a bearer token over the socket of somebody else: %v; want a CredentialError that names its owner", err)
	}
	c, err := client.Dial(path, client.Options{Bearer: static("s3cret")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, err := range c.Watch(t.Context(), "", 0) {
		if _, refused := errors.AsType[*client.CredentialError](err); !refused {
			t.Errorf("Watch: %v, want a CredentialError", err)
		}
	}
}

// listenAs listens on a socket as another user: SO_PEERCRED tells who listened.
func listenAs(path string, uid int) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	listened := make(chan error)
	go func() {
		listened <- asUser(uid, func() error { return unix.Listen(fd, 16) })
	}()
	if err := <-listened; err != nil {
		return nil, err
	}
	return net.FileListener(file)
}

// asUser has f run with the effective user of this thread alone, which is not used for
// anything else afterwards.
func asUser(uid int, f func() error) error {
	runtime.LockOSThread() // and not unlocked: the thread ends with its goroutine
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return errno
	}
	return f()
}
