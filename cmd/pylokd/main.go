// Pylokd serves the locks of one directory over gRPC. `pylokd --help` is its manual.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
	_ "time/tzdata" // lock files have times in the zone that TZ names, on any machine
)

func main() {
	ctx := untilSignal(syscall.SIGINT, syscall.SIGTERM)
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

// untilSignal returns a context that ends with the first of the signals. The second ends
// the process at once, by the signal's default action; one that is ignored from the start,
// as SIGINT is in the background of a script, has none, and the process exits with the
// status by which a shell tells such an end.
func untilSignal(signals ...os.Signal) context.Context {
	ignored := slices.DeleteFunc(slices.Clone(signals), func(s os.Signal) bool { return !signal.Ignored(s) })
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, func() {
		if len(ignored) == 0 {
			stop()
			return
		}
		second := make(chan os.Signal, 1)
		signal.Notify(second, ignored...) // before stop, which has them ignored again
		stop()
		if s, ok := (<-second).(syscall.Signal); ok {
			os.Exit(128 + int(s))
		}
	})
	return ctx
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
