package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

func TestDefaultSocket(t *testing.T) {
	for _, test := range []struct {
		runtimeDir string
		uid        int
		want       string
	}{
		{"", 0, "/run/pylok/pylok.sock"},
		{"/run/user/0", 0, "/run/pylok/pylok.sock"},
		{"/run/user/1000", 1000, "/run/user/1000/pylok/pylok.sock"},
		{"", 1000, ""},
		{"run", 1000, ""},
	} {
		environment := func(key string) string { return map[string]string{"XDG_RUNTIME_DIR": test.runtimeDir}[key] }
		if got := defaultSocket(environment, test.uid); got != test.want {
			t.Errorf("with XDG_RUNTIME_DIR %q, for user %d: %q, want %q", test.runtimeDir, test.uid, got, test.want)
		}
	}
}

// TestMakeSocketDir: the directory of the default socket is everybody's to pass, whatever
// the umask, and one that is there stays as it is.
func TestMakeSocketDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "pylok")
	defer unix.Umask(unix.Umask(0o077))
	for _, want := range []fs.FileMode{0o755, 0o711} {
		if err := makeSocketDir(dir); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("the directory is %v, %v; want mode %v", info.Mode(), err, want)
		}
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
}

// callerOver asks who the server takes for the caller on a socket. A uid that is not 0 is
// whose process connects.
func callerOver(t *testing.T, path string, uid uint32) (*pylokv1.InfoResponse, error) {
	t.Helper()
	dial := func(context.Context, string) (net.Conn, error) { return dialAs(path, uid) }
	conn, err := grpc.NewClient("passthrough:///socket", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	return pylokv1.NewLockServiceClient(conn).Info(ctx, &pylokv1.InfoRequest{})
}

// dialAs connects to a socket as another user, on a thread that has no other use.
func dialAs(path string, uid uint32) (conn net.Conn, err error) {
	if uid == 0 {
		return net.Dial("unix", path)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		// The kernel keeps users by thread; os/exec and syscall.Setuid change all of them.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		file := os.NewFile(uintptr(fd), path)
		defer file.Close()
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
			conn, err = net.FileConn(file)
		}
	}()
	<-done
	return conn, err
}

// TestSocket: who calls over the socket is known by the kernel's word. A socket that a
// killed server has left is replaced, one that is served is not, and a clean stop leaves
// none.
func TestSocket(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "pylok.sock")
	flags := func(more ...string) []string {
		return append([]string{"--root", t.TempDir(), "--listen", "127.0.0.1:0", "--socket", path}, more...)
	}
	p := start(t, nil, flags()...)
	want := func(caller string, uid uint32) {
		t.Helper()
		if got, err := callerOver(t, path, uid); err != nil || got.Caller != caller || got.Proof != "socket" {
			t.Errorf("the caller is %q by %q (%v), want %q by socket", got.GetCaller(), got.GetProof(), err, caller)
		}
	}
	want("unix:"+me.Username, 0)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket is %v, %v; want mode 0666", info, err)
	}
	says(t, fails(t, 1, flags()...), path, "another pylokd")
	want("unix:"+me.Username, 0)

	p.Process.Kill()
	<-p.ended
	p = start(t, nil, flags("--socket-mode", "0600", "--listen", "none")...)
	if p.address != path {
		t.Errorf("it serves on %s, want the socket alone", p.address)
	}
	want("unix:"+me.Username, 0)
	if os.Geteuid() == 0 {
		if _, err := callerOver(t, path, 4711); status.Code(err) != codes.Unavailable {
			t.Errorf("another user is let in by a socket of mode 0600: %v", err)
		}
	}
	p.stop(t)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a clean stop leaves the socket: %v", err)
	}

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, fails(t, 1, flags()...), path, "something else than a socket")
	if text, _ := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("the file in its place is %q", text)
	}
	long := filepath.Join(dir, strings.Repeat("x", 107))
	says(t, fails(t, 1, flags("--socket", long)...), "107")
	says(t, fails(t, 2, flags("--socket", "none", "--listen", "none")...), "nobody could call")
	says(t, fails(t, 2, flags("--socket-mode", "rw")...), "--socket-mode", "0660")
}

// TestSocketOfAnotherUser: two users of one machine are two callers, and neither ends the
// other's hold; the user that stands for those without a number is nobody.
func TestSocketOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "pylok.sock")
	file := accessFile(t, `
callers:
  - {unix: {user: "4711"}, groups: [ops]}
rules:
  - {who: ["group:ops"], may: [lock], locks: ["**"]}
`)
	start(t, nil, "--root", t.TempDir(), "--listen", "none", "--socket", path, "--access", file)
	for uid, want := range map[uint32]string{4711: "unix:4711", 4712: "unix:4712", 65534: "anonymous"} {
		got, err := callerOver(t, path, uid)
		if err != nil || got.Caller != want || fmt.Sprint(got.Groups) != map[bool]string{true: "[ops]", false: "[]"}[uid == 4711] {
			t.Errorf("user %d is %q in %q (%v), want %q", uid, got.GetCaller(), got.GetGroups(), err, want)
		}
	}
	locksOf := func(uid uint32) pylokv1.LockServiceClient {
		conn, err := grpc.NewClient("passthrough:///socket", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dialAs(path, uid) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return pylokv1.NewLockServiceClient(conn)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	held, err := locksOf(4711).Lock(ctx, &pylokv1.LockRequest{Name: "x", Holder: "job"})
	if err != nil || held.Lock.Caller != "unix:4711" {
		t.Fatalf("4711 is granted %v, %v", held, err)
	}
	for uid, code := range map[uint32]codes.Code{4712: codes.PermissionDenied, 65534: codes.PermissionDenied, 0: codes.PermissionDenied} {
		if _, err := locksOf(uid).Unlock(ctx, &pylokv1.UnlockRequest{Name: "x", Token: held.Lock.Token}); status.Code(err) != code {
			t.Errorf("user %d releases the hold of another: %v", uid, err)
		}
	}
	if _, err := locksOf(4711).Unlock(ctx, &pylokv1.UnlockRequest{Name: "x", Token: held.Lock.Token}); err != nil {
		t.Error(err)
	}
}

// TestSocketModeAtOnce: also before its mode is set a socket has no bit that it is not to
// have, whatever the umask.
func TestSocketModeAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	before := unix.Umask(0)
	listener, err := bindSocket(path, 0o600)
	unix.Umask(before)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm()&^0o600 != 0 {
		t.Errorf("the socket is %v, %v; want at most 0600", info.Mode(), err)
	}
}
