// Package ownnet gives a test a network of its own, a network namespace: its default ports
// are nobody else's, and its links may go down.
package ownnet

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variable, in the environment, is set in a process that has a network of its own.
const variable = "PYLOK_TEST_OWN_NETWORK"

// Enter reports whether the process has a network of its own, in which only
// loopback is, and is up. Otherwise it runs the test in one that has.
func Enter(t testing.TB) bool {
	t.Helper()
	if os.Getenv(variable) != "" {
		SetLoopback(t, true)
		return true
	}
	test := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	test.Env = append(os.Environ(), variable+"=1")
	test.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		test.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		test.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		test.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := test.CombinedOutput()
	if errors.Is(err, syscall.EPERM) && os.Geteuid() != 0 {
		t.Skip("this machine lets no user have a network namespace; root has one")
	}
	if err != nil {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
	return false
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
