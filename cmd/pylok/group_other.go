//go:build unix && !linux

package main

import "syscall"

// endWithParent cannot be had here: a command whose pylok is killed goes on.
func endWithParent(*syscall.SysProcAttr) {}

// stopJob stops this process. The function that it returns is to be called when it
// goes on.
func stopJob() (wentOn func(), err error) {
	return func() {}, syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
}
