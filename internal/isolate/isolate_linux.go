// Package isolate gives a test namespaces of its own (namespaces(7)): a network whose ports
// are nobody else's and whose links may go down, mounts, limits of a user. And a directory
// on a file system that has what the test is about.
package isolate

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variable, in the environment, is set in a process that has namespaces of its own.
const variable = "PYLOK_TEST_ISOLATED"

// Enter reports whether the process has the namespaces of its own that flags, such as
// unix.CLONE_NEWNET, ask for. Otherwise it runs the test in one that has. Who is not root
// is root in a user namespace there.
func Enter(t testing.TB, flags uintptr) bool {
	t.Helper()
	if os.Getenv(variable) != "" {
		return true
	}
	test := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	test.Env = append(os.Environ(), variable+"=1")
	if os.Geteuid() != 0 {
		flags |= syscall.CLONE_NEWUSER
	}
	test.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&syscall.CLONE_NEWUSER != 0 {
		test.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		test.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := test.CombinedOutput()
	if isDenied := errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC); isDenied && flags&syscall.CLONE_NEWUSER != 0 {
		t.Skip("NOT TESTED: this machine lets no user have namespaces; root has them")
	}
	if err != nil {
		t.Errorf("in namespaces of its own: %v\n%s", err, out)
	}
	return false
}

// EnterNetwork is Enter for a network of its own, in which only loopback is, and is up.
func EnterNetwork(t testing.TB) bool {
	t.Helper()
	isOwn := Enter(t, syscall.CLONE_NEWNET)
	if isOwn {
		SetLoopback(t, true)
	}
	return isOwn
}

// SetLoopback sets the process's loopback interface up or down.
func SetLoopback(t testing.TB, up bool) {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if up {
		request.SetUint16(unix.IFF_UP)
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		t.Fatalf("setting the loopback interface of a test network: %v", err)
	}
}

// AttributesDir is t.TempDir on a file system that has extended attributes for users: where
// the directory for temporary files has none, in /var/tmp.
func AttributesDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if hasAttributes(t, dir) {
		return dir
	}
	dir, err := os.MkdirTemp("/var/tmp", "pylok-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if !hasAttributes(t, dir) {
		t.Fatalf("neither %s nor /var/tmp is on a file system with extended attributes, which the server marks what it makes with: set TMPDIR to a directory that is, as ext4, xfs, btrfs and, since Linux 6.6, tmpfs are", os.TempDir())
	}
	return dir
}

func hasAttributes(t testing.TB, dir string) bool {
	t.Helper()
	const name = "user.pylok.test"
	err := unix.Setxattr(dir, name, []byte("x"), 0)
	if err == nil {
		err = unix.Removexattr(dir, name)
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("marking %s: %v", dir, err)
	}
	return err == nil
}
