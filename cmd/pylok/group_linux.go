package main

import (
	"fmt"
	"syscall"
	"unsafe"
)

// endWithParent has the command told to end when this process is killed: nobody
// renews its lock any more.
func endWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGTERM }

// stopJob stops this process's group, as control-Z does. The processes of a group that
// no shell looks after cannot be stopped so, for nobody would let them go on; SIGSTOP
// makes no such difference. The function that it returns is to be called when this
// process goes on.
//
// The kernel has to see that this process does nothing about SIGTSTP; package
// os/signal, once it has been told to catch a signal, does not go back to that.
func stopJob() (wentOn func(), err error) {
	// Zeros are SIG_DFL, no flags and no mask on every architecture, and no
	// architecture's struct sigaction is larger.
	var standard, caught [256]byte
	set := func(action, old *[256]byte) syscall.Errno {
		const signalSetBytes = 8
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGTSTP),
			uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), signalSetBytes, 0, 0)
		return errno
	}
	if errno := set(&standard, &caught); errno != 0 {
		return func() {}, fmt.Errorf("pylok cannot stop: %w", errno)
	}
	return func() { set(&caught, nil) }, syscall.Kill(0, syscall.SIGTSTP)
}
