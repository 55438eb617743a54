package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

// Why a connection does not come about. The log says each at most once in logEvery, with
// how many there were.
const (
	plaintextToTLS  = "clients do not speak TLS, which this server does: they have to, as with pylok --tls or --ca"
	tlsToPlaintext  = "clients speak TLS, which this server does not: they have to leave it, or it needs --tls-cert and --tls-key"
	notHTTP2        = "clients speak HTTP/1 to the port of gRPC, which is HTTP/2: they have to speak gRPC, as pylok and grpcurl do"
	badCertificate  = "clients show a certificate that does not verify against the client CA"
	noCertificate   = "clients show no certificate, which this server requires: they need one, as with pylok --cert and --key"
	notTrusted      = "clients do not trust the server's certificate: they need the authority's that signed it, as with pylok --ca, and its names have to have the one they connect to"
	oldTLS          = "clients speak TLS too old for this server: they need a newer one, or it needs --tls-min-version 1.2"
	otherHandshakes = "TLS with clients does not come about"
)

// troubles are what keeps connections from coming about, for a log that a client cannot
// fill.
type troubles struct {
	mu   sync.Mutex
	seen map[string]*trouble // by the text
}

type trouble struct {
	count  int       // since the log said so last
	logged time.Time // zero: never
}

// add counts a trouble, and reports whether and with which count it is to be logged.
func (t *troubles) add(text string, now time.Time) (count int, log bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = make(map[string]*trouble)
	}
	one := t.seen[text]
	if one == nil {
		one = &trouble{}
		t.seen[text] = one
	}
	one.count++
	if now.Sub(one.logged) < logEvery {
		return 0, false
	}
	count = one.count
	one.count, one.logged = 0, now
	return count, true
}

// complain logs one of the troubles above, with an example.
func (c *connections) complain(text string, conn net.Conn, attributes ...any) {
	if count, log := c.troubles.add(text, time.Now()); log {
		c.logger.Warn(text, append([]any{"clients", count, "one", conn.RemoteAddr().String()}, attributes...)...)
	}
}

// secure returns credentials that say in the log why a handshake fails, which gRPC keeps
// for itself, and that let nobody in whose certificate verifies no longer.
func (c *connections) secure(creds credentials.TransportCredentials) credentials.TransportCredentials {
	return &secured{creds, c}
}

type secured struct {
	credentials.TransportCredentials
	all *connections
}

// ServerHandshake implements credentials.TransportCredentials.
func (s *secured) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	accepted, _ := raw.(*connection)
	if accepted != nil {
		accepted.linger = true
	}
	conn, info, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		s.all.explain(raw, err)
		return nil, nil, err
	}
	if accepted != nil {
		accepted.linger = false
		if tls, ok := info.(credentials.TLSInfo); ok {
			err = s.all.certify(accepted, tls.State.PeerCertificates)
		}
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, info, nil
}

// Clone implements credentials.TransportCredentials.
func (s *secured) Clone() credentials.TransportCredentials {
	return &secured{s.TransportCredentials.Clone(), s.all}
}

// explain logs why a handshake failed.
func (c *connections) explain(raw net.Conn, err error) {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return // no TLS, and its first bytes have been looked at
	}
	if unverified, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		c.complain(badCertificate, raw, "certificate", nameOf(unverified.UnverifiedCertificates), "error", short(unverified.Err))
		return
	}
	// crypto/tls has no types for these.
	text := err.Error()
	has := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed), errors.Is(err, errHTTP1):
		// It has gone, as those do who only look whether somebody answers, or has its answer.
	case has("client didn't provide a certificate"):
		c.complain(noCertificate, raw)
	case has("remote error") && (has("certificate") || has("unknown")):
		c.complain(notTrusted, raw, "error", short(err))
	case has("unsupported versions"):
		c.complain(oldTLS, raw, "error", short(err))
	case has("unsupported application protocols"), has("missing selected ALPN"):
		c.complain(notHTTP2, raw, "error", short(err))
	default:
		c.complain(otherHandshakes, raw, "error", short(err))
	}
}

// short is what an error says, as long as a client may have it be.
func short(err error) string { return fmt.Sprintf("%.300s", err) }

// nameOf names a certificate that nobody vouches for, for the log.
func nameOf(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	leaf := chain[0]
	switch {
	case len(leaf.URIs) > 0:
		return fmt.Sprintf("%.200s", leaf.URIs[0])
	case len(leaf.DNSNames) > 0:
		return fmt.Sprintf("%.200s", leaf.DNSNames[0])
	}
	return fmt.Sprintf("%.200s", leaf.Subject)
}

// certify keeps a client's certificates with its connection. With an error they verify no
// longer: the authorities are others since the handshake began.
func (c *connections) certify(conn *connection, chain []*x509.Certificate) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.certificates = chain
	return verifyClient(chain, c.clientCAs)
}

// verifyClient verifies a client's certificates as its handshake does. Without any, or
// while the authorities are those of the start (nil), there is nothing to verify.
func verifyClient(chain []*x509.Certificate, roots *x509.CertPool) error {
	if len(chain) == 0 || roots == nil {
		return nil
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, certificate := range chain[1:] {
		options.Intermediates.AddCert(certificate)
	}
	_, err := chain[0].Verify(options)
	return err
}

// VerifyClients closes the connections of clients whose certificates do not verify against
// roots, now and when their handshakes are over. It is for when other authorities vouch
// for clients than when they connected.
func (s *Server) VerifyClients(roots *x509.CertPool) {
	c := &s.connections
	var closing []*connection
	c.mu.Lock()
	c.clientCAs = roots
	for conn := range c.open {
		if verifyClient(conn.certificates, roots) != nil {
			closing = append(closing, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range closing {
		c.complain(badCertificate, conn, "certificate", nameOf(conn.certificates), "error", "the client CA is another since it connected")
		conn.Conn.Close() // gRPC sees that, and closes the rest
	}
}

// isHTTP1 reports whether the first bytes of a connection are a request of HTTP/1, such as
// curl's.
func isHTTP1(first []byte) bool {
	method, _, ok := strings.Cut(string(first[:min(len(first), 16)]), " ")
	return ok && len(method) >= 3 && method != "PRI" && strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// refuseHTTP1 answers a request of HTTP/1 with a text for people.
func refuseHTTP1(conn net.Conn, tls bool) {
	text := "This is a pylok server's port for gRPC, which is HTTP/2. Use pylok, grpcurl, or a client made of its proto.\n"
	if tls {
		text = "This is a pylok server's port for gRPC, and it speaks TLS. Use pylok --tls or --ca, grpcurl, or a client made of its proto.\n"
	}
	conn.SetDeadline(time.Now().Add(lingerLimit))
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text); err == nil {
		linger(conn)
	}
}

// lingerLimit is how long a client may take to read why it is refused.
const lingerLimit = time.Second

// linger says that nothing follows, and waits until the client has gone: a connection
// that is closed with bytes unread is reset, and what was sent last is lost.
func linger(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || conn.SetDeadline(time.Now().Add(lingerLimit)) != nil || half.CloseWrite() != nil {
		return
	}
	io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
}
