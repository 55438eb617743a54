package service

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// ServerConfig sets up a Server. The zero value of each field stands for its
// default.
type ServerConfig struct {
	// Health is what the server answers to health checks. Default: a new one.
	Health *Health
	// Identify returns who makes a call, by the access.Evidence in its context; an error
	// refuses the call. Default: nobody is known, and nobody refused.
	Identify func(context.Context) (lock.Caller, error)
	// Interceptors see every call, the first before the others, and all of them the
	// status that a panic of a handler has become.
	Interceptors []Interceptor
	// Logger is told of connections that are refused. Default: nothing is logged.
	Logger *slog.Logger
	// TLS is the server's side of TLS. Default: none, all is sent in the clear.
	TLS *tls.Config
	// MaxMessageBytes is the largest request whose data is looked at; those of a
	// larger one are DATA_TOO_LARGE. Default 256 KiB, in which any document fits that
	// fits in a lock file.
	MaxMessageBytes int
	// MaxStreams is how many calls may be open on one connection. A client's
	// waiters share a connection, and calls beyond the limit stand in line
	// inside the client, out of the server's sight. Default 32,768.
	MaxStreams uint32
	// ConnectTimeout is how long a new connection may take to say what it
	// wants, TLS included, and a new call to send its request. Default 20 s.
	ConnectTimeout time.Duration
	// MaxConnections is how many connections may be open at a time; more are closed at
	// once. Default: as many as the operating system lets it open.
	MaxConnections int
	// MaxConnectionsPerAddress is how many of them may come from one place: an IPv4
	// address, a /64 of IPv6, or a user of this machine by a socket; root is not counted.
	// Default: any number.
	MaxConnectionsPerAddress int
	// IdleTimeout is how long a connection stays open without a call; clients connect
	// again by themselves when they have one. Default 15 min.
	IdleTimeout time.Duration
}

// Interceptor stands between gRPC and the handlers.
type Interceptor struct {
	Unary  grpc.UnaryServerInterceptor
	Stream grpc.StreamServerInterceptor
}

const (
	// hardMessageBytes is the largest request that is read at all. gRPC refuses a larger
	// one without a reason for programs.
	hardMessageBytes = 1 << 20
	// maxHeaderBytes bounds the metadata of a request.
	maxHeaderBytes = 64 << 10
	// A client that is cut off from the server shows within pingAfter and
	// pingTimeout together; its waiters leave the queues then.
	pingAfter   = 20 * time.Second
	pingTimeout = 10 * time.Second
	// minClientPing is how often a client may ping.
	minClientPing = 5 * time.Second
	// A connection has a buffer for reading, and while it writes one for that. The
	// requests that 64 callers have under way at a time fit into the first.
	readBuffer, writeBuffer = 8 << 10, 16 << 10
	// window is how much a client may send ahead, on a connection and for one call.
	// Where it is fixed gRPC does not look for a better one, which would cost a ping and
	// its answer for each request of a client that sends one at a time.
	window = 1 << 20
	// callWorkers are goroutines that stay for calls to come: the stack of a new
	// one has to grow first, which takes longer than most calls. Calls beyond
	// them have goroutines of their own.
	callWorkers = 64
)

// Server serves a Service over gRPC, with grpc.health.v1 and reflection beside it.
type Server struct {
	grpc        *grpc.Server
	connections connections
	aside       aside
	stopping    chan struct{} // closed by Stop
	stop        sync.Once
}

// NewServer returns a server that does not serve yet.
func NewServer(service *Service, config ServerConfig) *Server {
	if config.Health == nil {
		config.Health = NewHealth()
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.MaxMessageBytes == 0 {
		config.MaxMessageBytes = 256 << 10
	}
	if config.MaxStreams == 0 {
		config.MaxStreams = 32768
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 20 * time.Second
	}
	if config.IdleTimeout == 0 {
		config.IdleTimeout = 15 * time.Minute
	}
	s := &Server{
		connections: connections{limit: config.MaxConnections, perPlace: config.MaxConnectionsPerAddress, tls: config.TLS != nil, logger: config.Logger},
		stopping:    make(chan struct{}),
	}
	arrivals := &arrivals{limit: config.ConnectTimeout}
	answerPanics := recovery.WithRecoveryHandler(recovered)
	unary := []grpc.UnaryServerInterceptor{arrivals.unary}
	stream := []grpc.StreamServerInterceptor{arrivals.stream, s.endAtStop}
	if config.Identify != nil {
		identify := identification(config.Identify)
		unary, stream = append(unary, identify.unary), append(stream, identify.stream)
	}
	for _, interceptor := range config.Interceptors {
		unary, stream = append(unary, interceptor.Unary), append(stream, interceptor.Stream)
	}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec(config.MaxMessageBytes)),
		grpc.MaxRecvMsgSize(max(config.MaxMessageBytes, hardMessageBytes)),
		grpc.MaxConcurrentStreams(config.MaxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(config.ConnectTimeout),
		grpc.ReadBufferSize(readBuffer),
		grpc.WriteBufferSize(writeBuffer),
		grpc.NumStreamWorkers(callWorkers),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout, MaxConnectionIdle: config.IdleTimeout}),
		grpc.InTapHandle(arrivals.begin),
		grpc.WaitForHandlers(true), // so that the store is not closed under them
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(append(unary, recovery.UnaryServerInterceptor(answerPanics))...),
		grpc.ChainStreamInterceptor(append(stream, recovery.StreamServerInterceptor(answerPanics))...),
	}
	tcp := insecure.NewCredentials()
	if config.TLS != nil {
		tcp = s.connections.secure(credentials.NewTLS(config.TLS))
	}
	options = append(options, grpc.Creds(transport{tcp}))
	s.grpc = grpc.NewServer(options...)
	pylokv1.RegisterLockServiceServer(s.grpc, service)
	healthv1.RegisterHealthServer(s.grpc, config.Health.server)
	reflection.Register(s.grpc)
	return s
}

// Serve answers on a listener, of TCP or of a Unix socket, which it closes in the end; on
// several, if it is called for each. It returns nil after
// Stop, and else what the listener came upon.
func (s *Server) Serve(listener net.Listener) error {
	return s.grpc.Serve(s.connections.listener(listener))
}

// Connections returns what is counted of connections, for metrics.
func (s *Server) Connections() ConnectionStats { return s.connections.counted() }

// endAtStop ends the streams of health checks and of reflection when the server stops:
// they have no end of their own, and Stop would wait for them.
func (s *Server) endAtStop(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if strings.HasPrefix(info.FullMethod, "/"+pylokv1.LockService_ServiceDesc.ServiceName+"/") {
		return handler(service, stream) // ends with the locks' own
	}
	from := placeOfCall(stream.Context())
	if !s.aside.begin(from) {
		return status.Errorf(codes.ResourceExhausted, "%d streams of health checks and reflection are open from %v, the most that may be from one place", mostAside, from)
	}
	defer s.aside.end(from)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- handler(service, &stoppingStream{stream, ctx}) }()
	select {
	case err := <-ended:
		return err
	case <-s.stopping:
		return status.Error(codes.Unavailable, "the server is shutting down")
	}
}

// mostAside is how many streams beside the locks' own, of health checks and of reflection,
// one place may have open: more than clients behind one address that check each of their
// connections.
const mostAside = 4096

// aside counts those streams by place.
type aside struct {
	mu   sync.Mutex
	open tally
}

func (a *aside) begin(from place) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open.add(from, mostAside)
}

func (a *aside) end(from place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open.remove(from)
}

// stoppingStream is a stream with a context that ends when the server stops.
type stoppingStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *stoppingStream) Context() context.Context { return s.ctx }

// Stop takes no more calls and lets those that run finish for at most grace; then
// it closes every connection, and waits for the calls that this ends. It reports whether
// all calls finished by themselves.
// Calls that wait or watch finish only when their manager is closed, so close it
// before.
func (s *Server) Stop(grace time.Duration) bool {
	s.stop.Do(func() { close(s.stopping) })
	finished := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(finished)
	}()
	select {
	case <-finished:
		return true
	case <-time.After(grace):
	}
	s.connections.close()
	s.grpc.Stop()
	return false
}
