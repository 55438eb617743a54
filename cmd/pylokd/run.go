package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/filestore"
)

const (
	// stopLimit is how long a clean stop may take, whatever hangs. With three times
	// sayLimit, for the log, for stdout and for the cause of the end, it is within 10 s.
	stopLimit = 8 * time.Second
	// callsGrace is what of it the running calls have to finish.
	callsGrace = 5 * time.Second
	// sayLimit is how long it waits, in the end, for somebody to read what it has said.
	sayLimit = 500 * time.Millisecond
	// garbage is how many bytes of it may gather in a heap that is small. Go
	// collects when the heap has doubled: one of 4 MiB has after a few hundred
	// requests, and then a quarter of the CPU goes into collecting.
	garbage = 16 << 20
)

// run is pylokd, until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, text, err := parse(args, os.Getenv)
	if errors.Is(err, errDone) {
		_, err := io.WriteString(stdout, text)
		return err
	}
	if err != nil {
		return err
	}
	if _, isSet := os.LookupEnv("TZ"); !isSet {
		zone, err := linkedZone("/etc/localtime")
		if err != nil {
			return err
		}
		if zone != nil {
			time.Local = zone
		}
	}
	if c.checkAccess != "" {
		return checkAccess(c.checkAccess, stdout)
	}
	if c.check {
		return check(ctx, c, stdout)
	}
	// Whoever reads what the server says may stall, or go: it serves all the same.
	signal.Ignore(syscall.SIGPIPE)
	// A hang-up never ends it, not while it stops either: nothing takes the handler away.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	logged := newLines(stderr, c.droppedNote)
	defer logged.close(sayLimit)
	said := newLines(stdout, func(int) []byte { return nil }) // one line
	defer said.close(sayLimit)
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, c, hangups, said, c.logger(logged)) }()
	select {
	case err = <-ended:
	case <-ctx.Done(): // a start may hang too
		err = within(stopLimit, func() error { return <-ended })
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // told to stop before it served
	}
	return err
}

// check prints what is wrong with a root; the error says how much.
func check(ctx context.Context, c config, stdout io.Writer) error {
	findings := 0
	err := filestore.Check(ctx, filestore.Config{Root: c.root, StateDir: c.stateDir, AcceptRestore: c.acceptRestore}, func(finding string) {
		findings++
		fmt.Fprintln(stdout, finding)
	})
	switch {
	case err != nil:
		return err
	case findings == 1:
		return errors.New("1 finding; nothing was changed")
	case findings > 1:
		return fmt.Errorf("%d findings; nothing was changed", findings)
	}
	fmt.Fprintf(stdout, "%s: all is well\n", c.root)
	return nil
}

// checkAccess prints what an access file says, or what is wrong in it.
func checkAccess(file string, stdout io.Writer) error {
	policy, _, err := access.ReadPolicy(file)
	if problems := access.Problems(err); problems != nil {
		for _, problem := range problems {
			fmt.Fprintln(stdout, problem)
		}
		return fmt.Errorf("%s cannot be an access file", file)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: all is well\n\n%s", file, policy.Describe(time.Now()))
	return err
}

// within returns what do returns, if it does so in time. A disk that hangs must not
// keep the process.
func within(limit time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("the stop took longer than %v and was given up, as if by a crash; the next start mends what it left", limit)
	}
}

// logger returns the log that the flags ask for.
func (c *config) logger(stderr io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.logLevel}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(stderr, options))
	}
	return slog.New(slog.NewTextHandler(stderr, options))
}

// droppedNote is the line of the log that says how many others are missing.
func (c *config) droppedNote(dropped int) []byte {
	var line bytes.Buffer
	c.logger(&line).Error("lines of the log are missing here, for nobody read them", "lines", dropped)
	return line.Bytes()
}

// version is that of the build.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
