package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/access/limits"
	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// server is what pylokd puts together: a store, the rules on it, and the door that opens
// on those.
type server struct {
	config config
	log    *slog.Logger
	health *service.Health
	// control has the present access file, audit is told of what it refuses.
	control *access.Control
	audit   *access.Audit

	store *filestore.Store
	locks *manager.Manager
	// limits stand before all else that the door opens on.
	limits *limits.Limits
	door   *service.Server
}

// open opens the store, and then what stands on it.
func (s *server) open(ctx context.Context, tls *tls.Config) (err error) {
	c := &s.config
	s.store, err = filestore.Open(ctx, filestore.Config{
		Root:          c.root,
		StateDir:      c.usableStateDir(s.log),
		AcceptRestore: c.acceptRestore,
		RootMustExist: c.rootMustExist,
		MaxLocks:      c.maxLocks,
		PollInterval:  c.pollInterval,
		History:       filestore.Retention{Age: c.history.age, Bytes: c.history.bytes},
		Logger:        s.log,
		Health:        s.health.Part(),
	})
	if err != nil {
		return err
	}
	s.locks, err = manager.New(s.store, manager.Config{
		MaxWait:         c.maxWait,
		MaxWaiters:      c.maxWaiters,
		MaxWaitersTotal: c.maxWaitersTotal,
		Logger:          s.log,
		Health:          s.health.Part(),
	})
	if err != nil {
		return errors.Join(err, s.store.Close())
	}
	guard := access.NewGuard(s.locks, s.control, access.GuardConfig{Record: s.audit.Record, Note: s.store.Note("access"), Logger: s.log})
	s.limits = limits.New(guard, c.callerLimits(s.locks, s.log))
	connections, perAddress := c.connectionLimits(openFiles())
	if c.maxConnections > connections {
		s.log.Warn("--max-connections is more than the limit of open files allows, with those that the store needs; raise that (ulimit -n)", "connections", connections)
	}
	s.door = service.NewServer(
		service.New(s.limits, service.Config{Root: s.store.Root(), Store: "file", Version: version(), May: s.control.May, Admit: s.limits.Admit}),
		service.ServerConfig{
			Health:         s.health,
			Identify:       s.identify,
			Interceptors:   []service.Interceptor{service.LogCalls(s.log)},
			Logger:         s.log,
			TLS:            tls,
			MaxConnections: connections,
			MaxStreams:     uint32(c.maxStreams),
			IdleTimeout:    c.idleTimeout,

			MaxConnectionsPerAddress: perAddress,
		},
	)
	return nil
}

// identify returns who makes a call, and has the audit note whom it refuses.
func (s *server) identify(ctx context.Context) (lock.Caller, error) {
	caller, err := s.control.Identify(ctx)
	if err != nil {
		s.audit.Record(access.Record{Time: time.Now(), Caller: lock.Caller{Peer: access.EvidenceOf(ctx).Peer}, Reason: err.Error()})
	}
	return caller, err
}

// close ends what open has begun, the other way round.
func (s *server) close() error {
	s.health.Shutdown() // NOT_SERVING: balancers send nobody any more
	s.locks.Close()     // waiters and watches end
	s.limits.Close()
	if !s.door.Stop(callsGrace) {
		s.log.Warn("calls were still open after the grace and were cut off", "grace", callsGrace)
	}
	return errors.Join(s.store.Close(), s.audit.Close())
}

// serve serves until ctx ends, and then stops cleanly. At each of hangups it reloads.
func serve(ctx context.Context, c config, hangups <-chan os.Signal, stdout io.Writer, log *slog.Logger) (err error) {
	ballast := make([]byte, garbage) // counts as heap, and is no memory until it is written to
	defer runtime.KeepAlive(ballast)
	address, err := c.address()
	if err != nil {
		return err
	}
	certs, err := newCertificates(&c, log)
	if err != nil {
		return err
	}
	var tls *tls.Config
	if certs != nil {
		tls = certs.config()
	}
	control, err := access.NewControl(access.Config{File: c.access, Logger: log})
	if err != nil {
		return err
	}
	if c.access == "" && address != nil && !address.IP.IsLoopback() {
		log.Warn("there is no access file, so whoever gets in from another machine may do everything, under any name; --access says who may do what")
	}
	audit, err := access.OpenAudit(c.auditFile, log)
	if err != nil {
		return err
	}
	stopProfiles, err := serveProfiles(c.pprof, log)
	if err != nil {
		return err
	}
	defer stopProfiles()
	s := &server{config: c, log: log, health: service.NewHealth(), control: control, audit: audit}
	if err := s.open(ctx, tls); err != nil {
		return err
	}
	if certs != nil {
		certs.clientCAsChanged = s.door.VerifyClients
	}
	listeners, err := c.listenAll(address, log)
	if err != nil {
		return errors.Join(err, s.close())
	}
	ended := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() {
			if err := s.door.Serve(listener); err != nil {
				ended <- fmt.Errorf("serving on %s: %w", listener.Addr(), err)
			}
		}()
	}
	fmt.Fprintf(stdout, "pylokd: serving %s on %s\n", s.store.Root(), listeners[0].Addr())

	go control.Run(ctx)
	go func() { // beside the rest, for a file may hang
		look := time.NewTicker(lookEvery)
		defer look.Stop()
		for {
			select {
			case <-hangups:
				reload(certs, control, log)
				audit.Reopen()
			case now := <-look.C:
				if certs != nil {
					certs.look(now)
				}
			case <-ctx.Done():
				return
			}
		}
	}()

	select {
	case <-ctx.Done():
		log.Info("stopping", "cause", context.Cause(ctx))
	case err = <-ended:
	}
	return errors.Join(err, within(stopLimit, s.close))
}

// listenAll opens all that is served on: the address, and the socket.
func (c *config) listenAll(address *net.TCPAddr, log *slog.Logger) (listeners []net.Listener, err error) {
	if address != nil {
		listener, err := listen("--listen", address)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, listener)
	}
	socket, err := c.listenSocket(log)
	if socket != nil {
		listeners = append(listeners, socket)
	}
	if err == nil && len(listeners) == 0 {
		err = errors.New("--listen is none, and there is no socket: nobody could call")
	}
	if err != nil {
		for _, listener := range listeners {
			err = errors.Join(err, listener.Close())
		}
		return nil, err
	}
	return listeners, nil
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

// reload reads again what can change while the server runs: the certificates and the
// access file.
func reload(certs *certificates, control *access.Control, log *slog.Logger) {
	if certs == nil && !control.HasFile() {
		log.Info("SIGHUP: nothing is read again, for there is no certificate and no access file")
	}
	if certs != nil {
		certs.reload("SIGHUP")
	}
	if control.HasFile() {
		control.ReloadFor("SIGHUP")
	}
}
