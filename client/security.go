package client

import (
	"context"
	"crypto/tls"
	"errors"
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
)

// security are credentials that notice a server that has others.
type security struct {
	credentials.TransportCredentials
	mismatch atomic.Pointer[error] // of the last attempt to connect; nil: there was none
}

// ClientHandshake implements credentials.TransportCredentials.
func (s *security) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ClientHandshake(ctx, authority, raw)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case noTLS:
		s.mismatch.Store(&ErrServerSpeaksPlaintext)
	case err == nil && s.Info().SecurityProtocol == "insecure":
		conn = &greeted{Conn: conn, security: s}
	default:
		s.mismatch.Store(nil)
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials. What connects and what asks for
// the mismatch must be one.
func (s *security) Clone() credentials.TransportCredentials { return s }

// explain adds to an error what is known of why no connection came about.
func (s *security) explain(err error) error {
	unreachable, ok := errors.AsType[*UnreachableError](err)
	if mismatch := s.mismatch.Load(); ok && !unreachable.Sent && mismatch != nil {
		unreachable.mismatch = *mismatch
	}
	return err
}

// greeted is a connection in plaintext that looks at what the server says first.
type greeted struct {
	net.Conn
	security *security
	done     bool // it has said something, or will not
}

// Read implements net.Conn.
func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if g.done || n == 0 && err == nil {
		return n, err
	}
	g.done = true
	const alert = 21 // the type of the record that a TLS server may refuse plaintext with
	refused := n > 0 && b[0] == alert
	hungUp := n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
	if refused || hungUp && speaksTLS(g.RemoteAddr()) {
		g.security.mismatch.Store(&ErrServerSpeaksTLS)
	} else {
		g.security.mismatch.Store(nil)
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
