package service

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/lock"
)

// transport makes connections ready for calls and notes what they say of who calls: a Unix
// socket by the kernel, TCP as the transport in it has it.
type transport struct {
	credentials.TransportCredentials // of TCP
}

// connectionInfo is what a call knows of its connection.
type connectionInfo struct {
	credentials.AuthInfo
	evidence *access.Evidence
}

// socketInfo is the AuthInfo of a Unix socket, which nobody else can read or write.
type socketInfo struct{ credentials.CommonAuthInfo }

// AuthType implements credentials.AuthInfo.
func (socketInfo) AuthType() string { return "socket" }

// ServerHandshake implements credentials.TransportCredentials.
func (t transport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if socket := socketOf(raw); socket != nil {
		peer, err := access.PeerCredentials(socket)
		if err != nil {
			return nil, nil, err
		}
		info := socketInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
		return raw, connectionInfo{info, &access.Evidence{Socket: peer, Peer: socket.LocalAddr().String()}}, nil
	}
	conn, info, err := t.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	evidence := &access.Evidence{Peer: host(raw.RemoteAddr())}
	if tls, ok := info.(credentials.TLSInfo); ok && len(tls.State.VerifiedChains) > 0 {
		evidence.Certificates = tls.State.VerifiedChains[0]
	}
	return conn, connectionInfo{info, evidence}, nil
}

// Clone implements credentials.TransportCredentials.
func (t transport) Clone() credentials.TransportCredentials {
	return transport{t.TransportCredentials.Clone()}
}

// socketOf returns the Unix socket that a connection is; nil: it is none.
func socketOf(conn net.Conn) *net.UnixConn {
	if c, ok := conn.(*connection); ok {
		conn = c.Conn
	}
	socket, _ := conn.(*net.UnixConn)
	return socket
}

// host returns an address without its port.
func host(address net.Addr) string {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return host
}

// identity is who makes a call, or why that is not known, in the call's context.
type identity struct {
	caller lock.Caller
	err    error
}

type identityKey struct{}

// identification finds out who calls before anything else looks at a call.
type identification func(context.Context) (lock.Caller, error)

// context returns the context of a call with who makes it.
func (identify identification) context(ctx context.Context) context.Context {
	ctx = access.WithEvidence(ctx, evidenceOf(ctx))
	var c identity
	c.caller, c.err = identify(ctx)
	return context.WithValue(ctx, identityKey{}, &c)
}

// evidenceOf returns what is known of who makes a call.
func evidenceOf(ctx context.Context) *access.Evidence {
	evidence := &access.Evidence{}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(connectionInfo); ok {
			evidence = info.evidence
		}
	}
	return evidence.Authorized(metadata.ValueFromIncomingContext(ctx, "authorization"))
}

// callerOf returns who makes a call; where nobody asks, nobody known.
func callerOf(ctx context.Context) (lock.Caller, error) {
	if c, ok := ctx.Value(identityKey{}).(*identity); ok {
		return c.caller, c.err
	}
	return lock.Caller{}, nil
}

func (identify identification) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(identify.context(ctx), request)
}

func (identify identification) stream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(service, &identifiedStream{stream, identify.context(stream.Context())})
}

// identifiedStream is a stream with a context that has who opened it.
type identifiedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *identifiedStream) Context() context.Context { return s.ctx }
