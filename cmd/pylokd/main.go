// Pylokd serves the locks of one directory over gRPC. `pylokd --help` is its manual.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
	_ "time/tzdata" // lock files have times in the zone that TZ names, on any machine
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	code := make(chan int, 1)
	go func() { code <- exitCode(err, os.Stderr) }()
	select {
	case code := <-code:
		os.Exit(code)
	case <-time.After(sayLimit): // nobody reads why
		os.Exit(exitCode(err, io.Discard))
	}
}

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

// Error says what is wrong with it.
func (e usageError) Error() string { return e.err.Error() }

// exitCode tells why pylokd ends, and returns 0 for done, 1 for failed and 2 for a
// wrong command line.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "pylokd: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(stderr, "`pylokd --help` shows the flags.")
		return 2
	}
	return 1
}
