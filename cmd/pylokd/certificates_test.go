package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/internal/testcert"
)

// renewable are certificates in files that a test renews.
type renewable struct {
	*certificates
	log    *bytes.Buffer
	served *tls.Config // one for all connections, as a server has
}

func read(t *testing.T, pair *testcert.Pair, clientCA string, clientCert string) *renewable {
	t.Helper()
	r := &renewable{log: &bytes.Buffer{}}
	s, err := newCertificates(&config{tlsCert: pair.CertFile, tlsKey: pair.KeyFile, tlsClientCA: clientCA, tlsClientCert: clientCert, tlsMinVersion: "1.3"}, slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.certificates, r.served = s, s.config()
	return r
}

// handshake has a client connect, and returns what it knows of the connection and what
// either side comes upon.
func (r *renewable) handshake(t *testing.T, client *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ended := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err == nil {
			conn := tls.Server(raw, r.served)
			if err = conn.Handshake(); err == nil {
				_, err = conn.Write([]byte("x"))
			}
			conn.Close()
		}
		ended <- err
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err != nil {
		return state, err, <-ended
	}
	defer conn.Close()
	n, err := conn.Read(make([]byte, 1)) // in TLS 1.3 a server refuses after the client's handshake
	if n == 1 {
		err = nil
	}
	return conn.ConnectionState(), err, <-ended
}

// shows fails the test if the server does not show a certificate.
func (r *renewable) shows(t *testing.T, want *testcert.Pair) {
	t.Helper()
	state, clientErr, serverErr := r.handshake(t, &tls.Config{InsecureSkipVerify: true})
	if err := errors.Join(clientErr, serverErr); err != nil {
		t.Fatal(err)
	}
	if shown := state.PeerCertificates[0]; !shown.Equal(want.Certificate) {
		t.Errorf("the server shows certificate %v, want %v; the log:\n%s", shown.SerialNumber, want.Certificate.SerialNumber, r.log)
	}
}

// write writes a file in place.
func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateMistakes: what cannot be used is told at the start, and while the server
// runs it changes nothing.
func TestCertificateMistakes(t *testing.T) {
	authority := testcert.New(t)
	good, other := authority.Server(testcert.Options{}), authority.Server(testcert.Options{})
	nameless, forClients := authority.Client(testcert.Options{CommonName: "locks.example.com"}), authority.Client(testcert.Options{URIs: []string{"spiffe://corp/a"}})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})
	legacy := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("secret")})
	ca := authority.CertPEM
	chain := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, test := range []struct {
		name          string
		cert, key, ca []byte
		want          []string
	}{
		{"an empty certificate", nil, good.KeyPEM, ca, []string{"cert.pem is empty"}},
		{"an empty key", good.CertPEM, nil, ca, []string{"key.pem is empty"}},
		{"no PEM", []byte("hello"), good.KeyPEM, ca, []string{"cert.pem has no certificate in PEM", "openssl x509 -inform der"}},
		{"a key in DER", good.CertPEM, []byte{0x30, 0x77, 2, 1}, ca, []string{"key.pem has no private key in PEM", "openssl pkey -inform der"}},
		{"half a certificate", good.CertPEM[:len(good.CertPEM)/2], good.KeyPEM, ca, []string{"cert.pem", "not complete"}},
		{"half of who vouches for it", chain(good.CertPEM, ca[:len(ca)-9]), good.KeyPEM, ca, []string{"cert.pem", "not complete"}},
		{"half a key", good.CertPEM, good.KeyPEM[:len(good.KeyPEM)/2], ca, []string{"key.pem", "not complete"}},
		{"bad bytes in PEM", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), good.KeyPEM, ca, []string{"certificate 1 of", "cert.pem cannot be read"}},
		{"bad bytes in the chain", chain(good.CertPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), good.KeyPEM, ca, []string{"certificate 2 of", "cert.pem cannot be read"}},
		{"an encrypted key", good.CertPEM, encrypted, ca, []string{"key.pem is encrypted", "openssl pkey"}},
		{"a key encrypted as of old", good.CertPEM, legacy, ca, []string{"key.pem is encrypted", "openssl pkey"}},
		{"swapped files", good.KeyPEM, good.CertPEM, ca, []string{"swapped"}},
		{"two certificates", good.CertPEM, good.CertPEM, ca, []string{"key.pem has no private key; it has certificate"}},
		{"two keys", good.KeyPEM, good.KeyPEM, ca, []string{"cert.pem has a key and no certificate"}},
		{"another's key", good.CertPEM, other.KeyPEM, ca, []string{"key.pem does not go with the certificate", "cert.pem"}},
		{"no alternative name", nameless.CertPEM, nameless.KeyPEM, ca, []string{"no subject alternative name", "locks.example.com"}},
		{"a client's", forClients.CertPEM, forClients.KeyPEM, ca, []string{"not for servers", "serverAuth"}},
		{"an empty client CA", good.CertPEM, good.KeyPEM, nil, []string{"ca.pem is empty"}},
		{"half a client CA", good.CertPEM, good.KeyPEM, ca[:len(ca)/2], []string{"ca.pem", "not complete"}},
		{"one of two client CAs", good.CertPEM, good.KeyPEM, chain(ca, ca[:len(ca)-9]), []string{"ca.pem", "not complete"}},
		{"a client CA that is none", good.CertPEM, good.KeyPEM, chain(ca, other.CertPEM), []string{"certificate 2 of", "ca.pem", "none of a certificate authority"}},
		{"a key as the client CA", good.CertPEM, good.KeyPEM, good.KeyPEM, []string{"ca.pem has a key and no certificate"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			c := &config{tlsCert: filepath.Join(dir, "cert.pem"), tlsKey: filepath.Join(dir, "key.pem"), tlsClientCA: filepath.Join(dir, "ca.pem"), tlsMinVersion: "1.3"}
			write(t, c.tlsCert, test.cert)
			write(t, c.tlsKey, test.key)
			write(t, c.tlsClientCA, test.ca)
			_, err := newCertificates(c, slog.New(slog.DiscardHandler))
			says(t, fmt.Sprint(err), test.want...)
			if strings.Contains(fmt.Sprint(err), "secret") {
				t.Errorf("the error has of the key: %v", err)
			}

			files := []string{c.tlsCert, c.tlsKey, c.tlsClientCA}
			for i, text := range [][]byte{good.CertPEM, good.KeyPEM, ca} {
				write(t, files[i], text)
			}
			var log bytes.Buffer
			s, err := newCertificates(c, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			before := s.current.Load()
			for i, text := range [][]byte{test.cert, test.key, test.ca} {
				write(t, files[i], text)
			}
			s.reload("SIGHUP")
			if s.current.Load() != before || !s.failing.Load() {
				t.Error("what cannot be used was taken, in part at the least")
			}
			says(t, log.String(), "stay those that were read before", "level=ERROR")
		})
	}
}

// TestRenewal renews certificates in the ways that programs do.
func TestRenewal(t *testing.T) {
	authority := testcert.New(t)
	look := func(r *renewable) { r.look(time.Now()) }

	t.Run("in place", func(t *testing.T) {
		before, after := authority.Server(testcert.Options{}), authority.Server(testcert.Options{NotAfter: time.Now().Add(2 * time.Hour)})
		r := read(t, authority.Server(testcert.Options{}), "", "request")
		write(t, r.certFile, before.CertPEM)
		write(t, r.keyFile, before.KeyPEM)
		look(r)
		r.shows(t, before)
		old := r.current.Load()

		r.log.Reset()
		write(t, r.certFile, after.CertPEM[:100])
		look(r)
		r.shows(t, before)
		write(t, r.certFile, after.CertPEM)
		look(r)
		r.shows(t, before)
		if r.log.Len() > 0 {
			t.Errorf("while the files are written the log says:\n%s", r.log)
		}
		if !r.failing.Load() {
			t.Error("a certificate without its key counts as read")
		}
		for range 5 {
			look(r)
		}
		if n := strings.Count(r.log.String(), "does not go with"); n != 1 {
			t.Errorf("the log says %d times that the key does not go with the certificate, want once:\n%s", n, r.log)
		}
		write(t, r.keyFile, after.KeyPEM)
		look(r)
		r.shows(t, after)
		says(t, r.log.String(), "were read again")
		now := r.current.Load()
		if r.failing.Load() || !now.notAfter.Equal(after.Certificate.NotAfter) || !now.loadTime.After(old.loadTime) {
			t.Errorf("it knows of itself %+v, failing %v", now, r.failing.Load())
		}
	})
	t.Run("by links", func(t *testing.T) {
		// As Kubernetes does: cert.pem -> now/cert.pem, and now is what is replaced. The new
		// files are as old and as large as those before.
		dir := t.TempDir()
		pairs := []*testcert.Pair{authority.Server(testcert.Options{}), authority.Server(testcert.Options{})}
		same := time.Now().Add(-time.Hour)
		point := func(pair *testcert.Pair) {
			t.Helper()
			for _, file := range []string{pair.CertFile, pair.KeyFile} {
				if err := os.Chtimes(file, same, same); err != nil {
					t.Fatal(err)
				}
			}
			next := filepath.Join(dir, "next")
			if err := errors.Join(os.Symlink(filepath.Dir(pair.CertFile), next), os.Rename(next, filepath.Join(dir, "now"))); err != nil {
				t.Fatal(err)
			}
		}
		links := &testcert.Pair{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
		if err := errors.Join(os.Symlink("now/cert.pem", links.CertFile), os.Symlink("now/key.pem", links.KeyFile)); err != nil {
			t.Fatal(err)
		}
		point(pairs[0])
		r := read(t, links, "", "request")
		r.shows(t, pairs[0])
		point(pairs[1])
		look(r)
		r.shows(t, pairs[1])
		if err := os.Remove(filepath.Join(dir, "now")); err != nil {
			t.Fatal(err)
		}
		look(r)
		r.shows(t, pairs[1])
	})
	t.Run("in the same moment", func(t *testing.T) {
		// The modification time and the size are those of before.
		before, after := authority.Server(testcert.Options{}), authority.Server(testcert.Options{})
		r := read(t, before, "", "request")
		now, err := os.Stat(before.CertFile)
		if err != nil {
			t.Fatal(err)
		}
		size := max(len(before.CertPEM), len(after.CertPEM)) + 1
		put := func(pair *testcert.Pair) {
			t.Helper()
			write(t, r.certFile, append(bytes.Clone(pair.CertPEM), bytes.Repeat([]byte("\n"), size-len(pair.CertPEM))...))
			write(t, r.keyFile, pair.KeyPEM)
			for _, file := range r.files() {
				if err := os.Chtimes(file, now.ModTime(), now.ModTime()); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(before)
		r.reload("SIGHUP")
		put(after)
		look(r)
		r.shows(t, after)
	})
	t.Run("nothing new", func(t *testing.T) {
		r := read(t, authority.Server(testcert.Options{}), "", "request")
		before := r.current.Load()
		look(r)
		if r.current.Load() != before {
			t.Error("files that did not change were read again")
		}
	})
}

// TestCertificateEnds: the log warns of an end that comes and says when it is there, with
// a line a day, until the certificate is renewed.
func TestCertificateEnds(t *testing.T) {
	authority := testcert.New(t)
	now := time.Now()
	end := now.Add(30 * day)
	short := authority.Server(testcert.Options{NotAfter: end})
	r := read(t, short, authority.CertFile, "request")
	for at := now; at.Before(end.Add(2 * day)); at = at.Add(time.Hour) {
		r.look(at)
	}
	if soon, ended := strings.Count(r.log.String(), "ends in less than a week"), strings.Count(r.log.String(), "certificate has ended"); soon != 7 || ended != 2 {
		t.Errorf("the log says %d times that it ends soon and %d times that it has ended, want 7 and 2:\n%s", soon, ended, r.log)
	}
	r.log.Reset()
	renewed := authority.Server(testcert.Options{NotAfter: end.Add(90 * day)})
	write(t, r.certFile, renewed.CertPEM)
	write(t, r.keyFile, renewed.KeyPEM)
	r.look(end.Add(3 * day))
	r.shows(t, renewed)
	if strings.Contains(r.log.String(), "server's certificate") {
		t.Errorf("of the renewed certificate it says:\n%s", r.log)
	}
	r.look(authority.Certificate.NotAfter.Add(-day))
	says(t, r.log.String(), "the last of the client CAs ends in less than a week")
}

// TestCertificateOfAnotherTime: a certificate that is not valid now takes no valid one's
// place; one that will be does when it is. A server starts with it all the same.
func TestCertificateOfAnotherTime(t *testing.T) {
	authority := testcert.New(t)
	soon := time.Now().Add(day)
	valid, ended, early := authority.Server(testcert.Options{}), authority.Server(testcert.Options{NotAfter: time.Now().Add(-time.Second)}), authority.Server(testcert.Options{NotBefore: soon})
	r := read(t, authority.Server(testcert.Options{}), "", "request")
	put := func(pair *testcert.Pair) {
		t.Helper()
		write(t, r.certFile, pair.CertPEM)
		write(t, r.keyFile, pair.KeyPEM)
		r.reload("SIGHUP")
	}
	put(valid)
	for _, pair := range []*testcert.Pair{ended, early} {
		put(pair)
		r.shows(t, valid)
		if !r.failing.Load() {
			t.Error("a certificate of another time counts as read")
		}
	}
	says(t, r.log.String(), "has ended at", "is valid only from")
	r.look(soon.Add(-time.Minute))
	r.shows(t, valid)
	r.look(soon.Add(time.Minute))
	r.shows(t, early)

	started := read(t, ended, "", "request")
	says(t, started.log.String(), "has ended: clients refuse the server")
	if n := strings.Count(started.log.String(), "\n"); n != 1 {
		t.Errorf("of that the log has %d lines, want 1:\n%s", n, started.log)
	}
	says(t, read(t, authority.Server(testcert.Options{NotBefore: time.Now().Add(time.Hour)}), "", "request").log.String(), "clients refuse the server until then", "valid only from")
	started.shows(t, ended)
	started.log.Reset()
	write(t, started.certFile, valid.CertPEM)
	write(t, started.keyFile, valid.KeyPEM)
	started.look(time.Now())
	started.shows(t, valid)
}

// TestKeyThatEverybodyMayRead is one that the log warns of.
func TestKeyThatEverybodyMayRead(t *testing.T) {
	pair := testcert.New(t).Server(testcert.Options{})
	if r := read(t, pair, "", "request"); r.log.Len() > 0 {
		t.Errorf("of a key of its own the log says:\n%s", r.log)
	}
	if err := os.Chmod(pair.KeyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	says(t, read(t, pair, "", "request").log.String(), "everybody", pair.KeyFile, "chmod o-rwx")
}

// TestClientCertificates: whom the server lets connect.
func TestClientCertificates(t *testing.T) {
	authority, next := testcert.New(t), testcert.New(t)
	server := authority.Server(testcert.Options{})
	type proof struct {
		name string
		pair *testcert.Pair // nil: none
	}
	none := proof{name: "none"}
	good := proof{"good", authority.Client(testcert.Options{CommonName: "ci"})}
	stranger := proof{"another authority's", next.Client(testcert.Options{CommonName: "ci"})}
	ended := proof{"ended", authority.Client(testcert.Options{CommonName: "ci", NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Second)})}
	early := proof{"not yet valid", authority.Client(testcert.Options{CommonName: "ci", NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)})}
	serverAsClient := proof{"a server's", server}
	all := []proof{none, good, stranger, ended, early, serverAsClient}

	expect := func(t *testing.T, r *renewable, works ...proof) {
		t.Helper()
		for _, p := range all {
			// Sends what it has, even if the server does not ask for its authority.
			client := &tls.Config{RootCAs: authority.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if p.pair == nil {
					return &tls.Certificate{}, nil
				}
				c := p.pair.TLS()
				return &c, nil
			}}
			_, clientErr, serverErr := r.handshake(t, client)
			want := false
			for _, w := range works {
				want = want || w.name == p.name
			}
			if got := clientErr == nil && serverErr == nil; got != want {
				t.Errorf("%s: the client has %v, the server %v; want that it works: %v", p.name, clientErr, serverErr, want)
			}
			if _, alert := errors.AsType[*net.OpError](clientErr); !want && !alert {
				t.Errorf("%s: the client has %v, want an alert", p.name, clientErr)
			}
		}
	}
	t.Run("no client CA", func(t *testing.T) { expect(t, read(t, server, "", "request"), all...) })
	t.Run("request", func(t *testing.T) { expect(t, read(t, server, authority.CertFile, "request"), none, good) })
	t.Run("require", func(t *testing.T) { expect(t, read(t, server, authority.CertFile, "require"), good) })
	t.Run("another CA", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "ca.pem")
		write(t, file, authority.CertPEM)
		r := read(t, server, file, "request")
		var told *x509.CertPool
		r.clientCAsChanged = func(pool *x509.CertPool) { told = pool }
		r.reload("SIGHUP")
		if told != nil {
			t.Error("it was told of other client CAs, and they are the same")
		}
		// A client that was let in may not resume that session under another CA.
		cache := tls.NewLRUClientSessionCache(8)
		resume := &tls.Config{RootCAs: authority.Pool(), ClientSessionCache: cache, Certificates: []tls.Certificate{good.pair.TLS()}}
		for range 2 {
			state, clientErr, serverErr := r.handshake(t, resume)
			if clientErr != nil || serverErr != nil {
				t.Fatal(clientErr, serverErr)
			}
			if state.DidResume {
				t.Error("a session was resumed")
			}
		}
		write(t, file, next.CertPEM)
		r.look(time.Now())
		if told == nil || !told.Equal(next.Pool()) {
			t.Error("it was not told of the other client CAs")
		}
		resume.Certificates = nil
		resume.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c := good.pair.TLS()
			return &c, nil
		}
		if _, clientErr, serverErr := r.handshake(t, resume); clientErr == nil || serverErr == nil {
			t.Error("a session outlives the authority that vouched for its client")
		}
		expect(t, r, none, stranger)
	})
}

// TestMinimumVersion: TLS 1.2 is spoken if the server is told so.
func TestMinimumVersion(t *testing.T) {
	authority := testcert.New(t)
	r := read(t, authority.Server(testcert.Options{}), "", "request")
	old := &tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS12}
	if _, clientErr, _ := r.handshake(t, old); clientErr == nil {
		t.Error("TLS 1.2 is spoken by default")
	}
	r.minVersion = tls.VersionTLS12
	r.served = r.config()
	r.reload("SIGHUP")
	if _, clientErr, serverErr := r.handshake(t, old); clientErr != nil || serverErr != nil {
		t.Errorf("with --tls-min-version 1.2: %v, %v", clientErr, serverErr)
	}
}
