package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// nowhere is an address where no server listens: a test that is given no other one
// must not find a server of whoever runs the tests.
const nowhere = "127.0.0.1:1"

// leaveEnvironment makes the tests independent of who runs them, and how: no variable
// of pylok's or of a CI job's is there, no config file and no socket is found, and the
// programs that the tests start do not ignore the signals that nohup, or a shell for what
// runs in its background, has this process ignore.
func leaveEnvironment() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PYLOK") || strings.HasPrefix(name, "ACTIONS_ID_TOKEN") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("PYLOK_ADDRESS", nowhere)
	empty := filepath.Join(programs, "nothing") // in which go, too, keeps what it counts
	os.Setenv("XDG_CONFIG_HOME", empty)
	os.Setenv("XDG_RUNTIME_DIR", empty)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGTSTP, syscall.SIGPIPE} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}
