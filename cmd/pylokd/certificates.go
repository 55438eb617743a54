package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often the files of certificates are looked at for a change.
const lookEvery = 10 * time.Second

const (
	// endsSoon is how long before its end the log begins to warn of a certificate.
	endsSoon = 7 * day
	// warnEvery is how often it does.
	warnEvery = day
)

// certificates is the server's side of TLS: its certificate and key, and who may vouch
// for clients, as their files were read last. They are read whole or not at all.
type certificates struct {
	certFile, keyFile string
	clientCAFile      string // empty: clients are not asked for certificates
	clientAuth        tls.ClientAuthType
	minVersion        uint16
	log               *slog.Logger
	// clientCAsChanged is called after a read that other authorities vouch for clients
	// from; nil: nobody is.
	clientCAsChanged func(*x509.CertPool)

	current atomic.Pointer[keyRing]
	// failing reports whether the newest read failed, so that current is older than the
	// files.
	failing atomic.Bool

	// The rest is of who reads, who must hold mu.
	mu      sync.Mutex
	stamps  []os.FileInfo     // of the files, before they were read last
	content [sha256.Size]byte // of the files, likewise
	settled bool              // whether stamps tell every change since
	failure string            // of the newest read; empty: it succeeded
	said    bool              // whether the log says failure
	warned  map[string]warning
}

// keyRing is what was read at a time. It does not change.
type keyRing struct {
	config    *tls.Config
	clientCAs *x509.CertPool // nil: none
	loadTime  time.Time
	// notBefore is from when the server's certificate is valid, and notAfter when the first
	// of it and of those that come with it ends; clientCAsNotAfter is when the last of the
	// client CAs does.
	notBefore, notAfter, clientCAsNotAfter time.Time
}

// check returns why clients refuse a certificate at a time, if they do.
func (r *keyRing) check(now time.Time) error {
	switch {
	case now.Before(r.notBefore):
		return fmt.Errorf("the server's certificate is valid only from %s on", r.notBefore.UTC().Format(time.RFC3339))
	case now.After(r.notAfter):
		return fmt.Errorf("the server's certificate, or one that comes with it, has ended at %s", r.notAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// warning is what the log has said of the end of a certificate.
type warning struct {
	ended bool
	time  time.Time
}

// newCertificates reads what the flags name; nil: no TLS.
func newCertificates(c *config, log *slog.Logger) (*certificates, error) {
	if c.tlsCert == "" {
		return nil, nil
	}
	s := &certificates{
		certFile: c.tlsCert, keyFile: c.tlsKey, clientCAFile: c.tlsClientCA,
		minVersion: tlsVersions[c.tlsMinVersion],
		log:        log,
		warned:     make(map[string]warning),
	}
	switch {
	case c.tlsClientCA != "" && c.tlsClientCert == "require":
		s.clientAuth = tls.RequireAndVerifyClientCert
	case c.tlsClientCA != "":
		s.clientAuth = tls.VerifyClientCertIfGiven
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if err := s.read(now); err != nil {
		return nil, err
	}
	s.warn(now)
	return s, nil
}

// files are those that are read.
func (s *certificates) files() []string {
	files := []string{s.certFile, s.keyFile}
	if s.clientCAFile != "" {
		files = append(files, s.clientCAFile)
	}
	return files
}

// read reads the files. With an error all stays what it is. The caller must hold mu.
func (s *certificates) read(now time.Time) error {
	s.stamp() // before, so that a change meanwhile is seen as one
	next, err := s.load(now)
	before := s.current.Load()
	if err == nil {
		// One that clients refuse takes the place only of one that they refuse too. At the
		// start it is better than no server: who comes by a Unix socket needs none.
		invalid := next.check(now)
		switch {
		case before == nil && now.Before(next.notBefore): // warn tells of the end
			s.log.Error("clients refuse the server until then", "error", invalid, "file", s.certFile)
		case before != nil && invalid != nil && before.check(now) == nil:
			err = fmt.Errorf("%s: %w", s.certFile, invalid)
		}
	}
	s.failing.Store(err != nil)
	if err != nil {
		return err
	}
	s.failure, s.said = "", false
	s.current.Store(next)
	if before != nil && s.clientCAsChanged != nil && next.clientCAs != nil && !next.clientCAs.Equal(before.clientCAs) {
		s.clientCAsChanged(next.clientCAs)
	}
	if info, err := os.Stat(s.keyFile); err == nil && info.Mode().Perm()&0o007 != 0 {
		s.log.Warn("everybody on this machine may read or change the key of the certificate: make it the server's own with chmod o-rwx", "key", s.keyFile, "mode", info.Mode().Perm())
	}
	return nil
}

// load makes a keyRing of the files.
func (s *certificates) load(now time.Time) (*keyRing, error) {
	pair, chain, err := readPair(s.certFile, s.keyFile)
	if err != nil {
		return nil, err
	}
	ring := &keyRing{
		loadTime:  now,
		notBefore: chain[0].NotBefore,
		notAfter:  chain[0].NotAfter,
		config: &tls.Config{
			Certificates: []tls.Certificate{*pair},
			MinVersion:   s.minVersion,
			ClientAuth:   s.clientAuth,
			// A session that is resumed is of a client who was verified before, against
			// authorities that may be others now. Connections last, so that little is saved.
			SessionTicketsDisabled: true,
		},
	}
	for _, certificate := range chain {
		if certificate.NotAfter.Before(ring.notAfter) {
			ring.notAfter = certificate.NotAfter
		}
	}
	if s.clientCAFile == "" {
		return ring, nil
	}
	pool, authorities, err := readAuthorities(s.clientCAFile)
	if err != nil {
		return nil, err
	}
	ring.clientCAs, ring.config.ClientCAs = pool, pool
	for _, certificate := range authorities {
		if certificate.NotAfter.After(ring.clientCAsNotAfter) {
			ring.clientCAsNotAfter = certificate.NotAfter
		}
	}
	return ring, nil
}

// reload reads the files again, and says in the log what has become of that; cause is why.
func (s *certificates) reload(cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if err := s.read(now); err != nil {
		s.failure, s.said = err.Error(), true
		s.log.Error(cause+": the certificates stay those that were read before", "error", err)
		return
	}
	s.sayRead(cause)
	s.warn(now)
}

// sayRead says that the files were read again.
func (s *certificates) sayRead(cause string) {
	ring := s.current.Load()
	attributes := []any{"certificate", s.certFile, "until", ring.notAfter.UTC()}
	if s.clientCAFile != "" {
		attributes = append(attributes, "client_ca", s.clientCAFile)
	}
	s.log.Info(cause+": the certificates were read again; new connections see them", attributes...)
}

// look reads the files again if they have changed or could not be read, and warns of
// certificates that end. What it cannot read it says once, and only of what is so at two
// looks in a row: between the renewal of a certificate and that of its key the two do not
// go together.
func (s *certificates) look(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.warn(now)
	if s.failure == "" && !s.changed() {
		return
	}
	err := s.read(now)
	if err == nil {
		s.sayRead("files have changed")
		return
	}
	switch text := err.Error(); {
	case text != s.failure:
		s.failure, s.said = text, false
	case !s.said:
		s.said = true
		s.log.Error("files of certificates have changed and cannot be used: the certificates stay those that were read before", "error", err)
	}
}

// warn says in the log that certificates end soon or have ended. The caller must hold mu.
func (s *certificates) warn(now time.Time) {
	ring := s.current.Load()
	s.warnOf("the server's certificate", s.certFile, "clients refuse the server", ring.notAfter, now)
	if s.clientCAFile != "" {
		s.warnOf("the last of the client CAs", s.clientCAFile, "clients with certificates are refused", ring.clientCAsNotAfter, now)
	}
}

func (s *certificates) warnOf(what, file, effect string, end, now time.Time) {
	left := end.Sub(now)
	if left > endsSoon {
		delete(s.warned, file)
		return
	}
	last, ended := s.warned[file], left <= 0
	if last.ended == ended && now.Sub(last.time) < warnEvery {
		return
	}
	s.warned[file] = warning{ended: ended, time: now}
	if ended {
		s.log.Error(what+" has ended: "+effect+"; renew it, and it is read without a restart", "file", file, "ended", end.UTC())
	} else {
		s.log.Warn(what+" ends in less than a week: then "+effect+"; renew it, and it is read without a restart", "file", file, "ends", end.UTC())
	}
}

// config is TLS with the certificates as they are when a client connects.
func (s *certificates) config() *tls.Config {
	return &tls.Config{
		GetConfigForClient:     func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load().config, nil },
		MinVersion:             s.minVersion,
		SessionTicketsDisabled: true,
	}
}

// clockGrain is how far apart two changes of a file are at the least, for its modification
// time to tell them on every file system.
const clockGrain = 2 * time.Second

// stamp notes what tells the files from themselves after a change. The caller must hold
// mu.
func (s *certificates) stamp() {
	began := time.Now()
	s.stamps, s.settled = stampsOf(s.files()), true
	for _, stamp := range s.stamps {
		s.settled = s.settled && stamp != nil && began.Sub(stamp.ModTime()) > clockGrain
	}
	s.content = contentOf(s.files())
}

// changed reports whether the files are others than at the stamp. The caller must hold mu.
func (s *certificates) changed() bool {
	switch {
	case !sameStamps(s.stamps, stampsOf(s.files())):
		return true
	case s.settled:
		return false
	}
	before := s.content
	s.stamp()
	return s.content != before
}

// contentOf returns a digest of what stands in files. Pipes are left out: those can be
// read only once.
func contentOf(files []string) [sha256.Size]byte {
	all := sha256.New()
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
			continue
		}
		text, err := os.ReadFile(file)
		fmt.Fprintln(all, len(text), err)
		all.Write(text)
	}
	return [sha256.Size]byte(all.Sum(nil))
}

// stampsOf returns what tells files from themselves at other times; nil for one that
// cannot be looked at. Links are followed, as certbot and Kubernetes renew by those.
func stampsOf(files []string) []os.FileInfo {
	stamps := make([]os.FileInfo, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			stamps[i] = info
		}
	}
	return stamps
}

func sameStamps(a, b []os.FileInfo) bool {
	for i := range a {
		switch {
		case a[i] == nil && b[i] == nil:
		case a[i] == nil || b[i] == nil || !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size():
			return false
		}
	}
	return true
}
