package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
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

// serve serves until ctx ends, and then stops cleanly. At each of hangups it reloads.
func serve(ctx context.Context, c config, hangups <-chan os.Signal, stdout io.Writer, log *slog.Logger) (err error) {
	ballast := make([]byte, garbage) // counts as heap, and is no memory until it is written to
	defer runtime.KeepAlive(ballast)
	address, err := c.address()
	if err != nil {
		return err
	}
	var tlsConfig *tls.Config
	cert := &keyPair{file: c.tlsCert, keyFile: c.tlsKey}
	if c.tlsCert != "" {
		if err := cert.read(); err != nil {
			return err
		}
		tlsConfig = cert.config()
	}
	stopProfiles, err := serveProfiles(c.pprof, log)
	if err != nil {
		return err
	}
	defer stopProfiles()

	health := service.NewHealth()
	store, err := filestore.Open(ctx, filestore.Config{
		Root:          c.root,
		StateDir:      c.usableStateDir(log),
		AcceptRestore: c.acceptRestore,
		RootMustExist: c.rootMustExist,
		MaxLocks:      c.maxLocks,
		PollInterval:  c.pollInterval,
		History:       filestore.Retention{Age: c.history.age, Bytes: c.history.bytes},
		Logger:        log,
		Health:        health.Part(),
	})
	if err != nil {
		return err
	}
	manager, err := manager.New(store, manager.Config{
		MaxWait:         c.maxWait,
		MaxWaiters:      c.maxWaiters,
		MaxWaitersTotal: c.maxWaitersTotal,
		Logger:          log,
		Health:          health.Part(),
	})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	server := service.NewServer(
		service.New(manager, service.Config{Root: store.Root(), Store: "file", Version: version()}),
		service.ServerConfig{Health: health, Logger: log, TLS: tlsConfig, MaxConnections: mostConnections()},
	)
	listener, err := listen("--listen", address)
	if err != nil {
		manager.Close()
		return errors.Join(err, store.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Fprintf(stdout, "pylokd: serving %s on %s\n", store.Root(), listener.Addr())

	go func() { // beside the rest, for a file may hang
		for range hangups {
			reload(cert, log)
		}
	}()

	select {
	case <-ctx.Done():
		log.Info("stopping", "cause", context.Cause(ctx))
	case err = <-ended:
		err = fmt.Errorf("serving on %s: %w", address, err)
	}
	return errors.Join(err, within(stopLimit, func() error {
		health.Shutdown() // NOT_SERVING: balancers send nobody any more
		manager.Close()   // waiters and watches end
		if !server.Stop(callsGrace) {
			log.Warn("calls were still open after the grace and were cut off", "grace", callsGrace)
		}
		return store.Close()
	}))
}

// usableStateDir returns the state directory. A default one that cannot be made is done
// without: a server that was told its root needs no home.
func (c *config) usableStateDir(log *slog.Logger) string {
	if !c.stateDirIsDefault || c.stateDir == "" {
		return c.stateDir
	}
	if err := os.MkdirAll(c.stateDir, 0o700); err != nil {
		log.Warn("there is no state directory, so that an older copy of the root cannot be told from it; give one with --state-dir", "error", err)
		return ""
	}
	return c.stateDir
}

// reload reads again what can change while the server runs: the certificate.
func reload(cert *keyPair, log *slog.Logger) {
	if cert.file == "" {
		log.Info("SIGHUP: nothing is read again, for there is no certificate")
		return
	}
	if err := cert.read(); err != nil {
		log.Error("SIGHUP: the certificate stays the one that was read before", "error", err)
		return
	}
	log.Info("SIGHUP: the certificate was read again; new connections see it", "certificate", cert.file)
}

// mostConnections leaves the store descriptors for its own files: half of what the
// process may have, where that is few.
func mostConnections() int {
	const own = 2048
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	most := min(limit.Cur, 1<<30)
	return int(most - min(own, most/2))
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

// address resolves the address to listen on, and refuses one that would open the
// locks to the network by accident.
func (c *config) address() (*net.TCPAddr, error) {
	address, err := resolve("--listen", c.listen)
	if err != nil {
		return nil, err
	}
	if address.IP.IsLoopback() || c.tlsCert != "" || c.insecure {
		return address, nil
	}
	return nil, usageError{fmt.Errorf("%s can be reached from other machines, and without TLS whoever reaches it can read, take and break locks: give --tls-cert and --tls-key, or --insecure where that is meant", c.listen)}
}

func resolve(flag, text string) (*net.TCPAddr, error) {
	if _, _, err := net.SplitHostPort(text); err != nil {
		return nil, usageError{fmt.Errorf("%s is %q; give HOST:PORT, such as 127.0.0.1:5625", flag, text)}
	}
	address, err := net.ResolveTCPAddr("tcp", text)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s is %q: %w", flag, text, err)}
	}
	return address, nil
}

func listen(flag string, address *net.TCPAddr) (net.Listener, error) {
	listener, err := net.ListenTCP("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another program, maybe another pylokd: stop that one, or choose another address with %s", address, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return listener, nil
}

// version is that of the build.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
