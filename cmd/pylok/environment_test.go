package main

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// nowhere is an address where no server listens: a test that is given no other one
// must not find a server of whoever runs the tests.
const nowhere = "127.0.0.1:1"

// leaveEnvironment makes the tests independent of who runs them, and how: no variable
// of pylok's is there, and the programs that the tests start do not ignore the signals
// that nohup, or a shell for what runs in its background, has this process ignore.
func leaveEnvironment() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PYLOK") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("PYLOK_ADDRESS", nowhere)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGTSTP, syscall.SIGPIPE} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}
