// Command pylok takes, releases, shows and follows locks on a pylok server.
package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // for TZ where the system has no zones
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // by nohup, or by a shell for what runs in its background
			signal.Notify(signals, s)
		}
	}
	go func() {
		s := <-signals
		signal.Stop(signals) // a second one ends the program as if it had no say
		cancel(interrupted{s.(syscall.Signal)})
	}()
	// Nobody reading what it writes is an error and not the end: there may be a lock
	// to give back.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole command: it carries out args and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := newProgram(stdin, stdout, stderr)
	root := p.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !p.started {
		err = asUsageError(err) // cobra's own complaints are all of this kind
	}
	_, definite := errors.AsType[*exitError](err) // it stands, signal or not
	if _, signaled := errors.AsType[interrupted](context.Cause(ctx)); signaled && err != nil && !definite {
		err = &exitError{failureCode(ctx), cmp.Or(mayBeLocked(err), strings.TrimPrefix(p.unknownOutcome(), "\n"))}
	}
	if errors.Is(err, syscall.EPIPE) {
		return exitSignaled + int(syscall.SIGPIPE) // as if the signal had ended it: whoever read has read enough
	}
	return p.report(err)
}

// interrupted is the cause that ends the context of a program that got a signal.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return "got the signal: " + i.signal.String() }
