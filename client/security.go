package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

// Why no connection comes about although a server answers. An *UnreachableError is one
// of them where that was found out.
var (
	// ErrServerSpeaksTLS: the server speaks TLS, and Options.TLS is nil.
	ErrServerSpeaksTLS = errors.New("the server speaks TLS, and the connection was to be without")
	// ErrServerSpeaksPlaintext: Options.TLS is set, and the server does not speak it.
	ErrServerSpeaksPlaintext = errors.New("the server does not speak TLS, and the connection was to be with it")
	// ErrServerTooOld: the server speaks no version of TLS that Options.TLS allows.
	ErrServerTooOld = errors.New("the server speaks no version of TLS that the connection was to be with")
	// ErrUnknownAuthority: none of the CAs that Options.TLS trusts vouches for the
	// server's certificate.
	ErrUnknownAuthority = errors.New("the server's certificate is from a CA that is not trusted here")
	// ErrWrongServerName: the server's certificate is for other names than that of the
	// address.
	ErrWrongServerName = errors.New("the server's certificate is for another name")
	// ErrServerCertificateExpired: the server's certificate is not valid any more, or not
	// yet, by the clock here.
	ErrServerCertificateExpired = errors.New("the server's certificate is not valid at this time")
	// ErrCertificateRequired: the server wants a certificate of the client, and
	// Options.TLS has none.
	ErrCertificateRequired = errors.New("the server wants a certificate of the client, and there is none")
	// ErrCertificateRefused: the server does not take the certificate of the client.
	ErrCertificateRefused = errors.New("the server does not take the client's certificate")
)

// security are credentials that know a Unix socket, where the kernel says who is on the
// other end, and notice a server that has others.
type security struct {
	credentials.TransportCredentials
	hasCertificate bool                  // there is one to show to the server
	mismatch       atomic.Pointer[error] // of the last attempt to connect; nil: there was none
}

// socketInfo is what is known of the server at the other end of a Unix socket.
type socketInfo struct {
	credentials.CommonAuthInfo
	listener uint32 // the user who listens
	err      error  // why that is not known; nil: it is
}

// AuthType implements credentials.AuthInfo.
func (socketInfo) AuthType() string { return "socket" }

// ClientHandshake implements credentials.TransportCredentials.
func (s *security) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if _, isSocket := raw.(*net.UnixConn); isSocket {
		info := socketInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
		info.listener, info.err = listenerOf(raw)
		return raw, info, nil
	}
	conn, info, err := s.TransportCredentials.ClientHandshake(ctx, authority, raw)
	s.note(s.mismatchOf(err))
	if err == nil {
		conn = &greeted{Conn: conn, security: s, plaintext: s.Info().SecurityProtocol == "insecure"}
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials. What connects and what asks for
// the mismatch must be one.
func (s *security) Clone() credentials.TransportCredentials { return s }

func (s *security) note(mismatch error) {
	if mismatch == nil {
		s.mismatch.Store(nil)
		return
	}
	s.mismatch.Store(&mismatch)
}

// mismatchOf returns what the error of a handshake, or of the first reading after one,
// says of the two sides; nil: nothing.
func (s *security) mismatchOf(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return ErrServerSpeaksPlaintext
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w: %w", ErrUnknownAuthority, unknown)
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("%w: %w", ErrWrongServerName, name)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fmt.Errorf("%w: %s", ErrServerCertificateExpired, invalid.Detail)
	}
	// crypto/tls has no type for alerts outside of QUIC, but each has the text of its
	// AlertError.
	refusal, ok := errors.AsType[*net.OpError](err)
	if !ok || refusal.Op != "remote error" {
		return nil
	}
	const (
		handshakeFailure       = tls.AlertError(40)
		badCertificate         = tls.AlertError(42)
		unsupportedCertificate = tls.AlertError(43)
		revokedCertificate     = tls.AlertError(44)
		expiredCertificate     = tls.AlertError(45)
		unknownCertificate     = tls.AlertError(46)
		unknownAuthority       = tls.AlertError(48)
		accessDenied           = tls.AlertError(49)
		protocolVersion        = tls.AlertError(70)
		certificateRequired    = tls.AlertError(116)
	)
	is := func(alerts ...tls.AlertError) bool {
		for _, alert := range alerts {
			if refusal.Err.Error() == alert.Error() {
				return true
			}
		}
		return false
	}
	switch {
	case is(protocolVersion):
		return ErrServerTooOld
	case is(certificateRequired), !s.hasCertificate && is(badCertificate, handshakeFailure):
		return ErrCertificateRequired
	case s.hasCertificate && is(badCertificate, unsupportedCertificate, revokedCertificate, expiredCertificate, unknownCertificate, unknownAuthority, accessDenied):
		return fmt.Errorf("%w: %w", ErrCertificateRefused, refusal.Err)
	}
	return nil
}

// explain adds to an error what is known of why no connection came about.
func (s *security) explain(err error) error {
	unreachable, ok := errors.AsType[*UnreachableError](err)
	if mismatch := s.mismatch.Load(); ok && !unreachable.Sent && mismatch != nil {
		unreachable.mismatch = *mismatch
	}
	return err
}

// greeted is a connection that looks at what the server says first: with TLS 1.3 what it
// thinks of the client's certificate, too.
type greeted struct {
	net.Conn
	security  *security
	plaintext bool
	done      bool // it has said something, or will not
}

// Read implements net.Conn.
func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if g.done || n == 0 && err == nil {
		return n, err
	}
	g.done = true
	if !g.plaintext {
		g.security.note(g.security.mismatchOf(err))
		return n, err
	}
	const alert = 21 // the type of the record that a TLS server may refuse plaintext with
	refused := n > 0 && b[0] == alert
	hungUp := n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
	if refused || hungUp && speaksTLS(g.RemoteAddr()) {
		g.security.note(ErrServerSpeaksTLS)
	} else {
		g.security.note(nil)
	}
	return n, err
}

// speaksTLS asks a server that has hung up on plaintext. Many do so without a word, and
// so do those that are about to stop.
func speaksTLS(address net.Addr) bool {
	if _, ok := address.(*net.TCPAddr); !ok {
		return false
	}
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	// Nothing is sent but the greeting, so it does not matter who answers.
	conn, err := tls.DialWithDialer(dialer, address.Network(), address.String(), &tls.Config{
		InsecureSkipVerify: true,
		NextProtos:         []string{"h2"},
	})
	if err == nil {
		conn.Close()
		return true
	}
	refusal, ok := errors.AsType[*net.OpError](err)
	return ok && refusal.Op == "remote error" // so crypto/tls says of an alert
}
