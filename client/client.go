package client

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lease"
)

// DefaultAddress is where a server listens unless it was told otherwise: LOCK on
// a keypad.
const DefaultAddress = "127.0.0.1:5625"

// How a connection is made and kept.
const (
	connectTimeout   = 5 * time.Second        // for one attempt to connect
	firstBackoff     = 200 * time.Millisecond // between the first and the second attempt
	longestBackoff   = 2 * time.Second        // between later attempts: leases are waiting
	keepaliveTime    = 30 * time.Second       // of silence, during a call, before the server is asked for a sign of life
	keepaliveTimeout = 10 * time.Second       // without one: the connection is lost

	// What may be under way to a call, and to all calls together, in bytes. Were
	// it not fixed, gRPC would measure the connection with a ping whenever
	// something arrives: of a quiet watch, for each event.
	window = 1 << 20

	// A page of List has at most 1000 locks of 64 KiB of YAML each, which may
	// take more room as a message.
	maxResponseBytes = 256 << 20
)

// Options say how a Client connects. The zero Options connect in plaintext, and
// only to this machine.
type Options struct {
	// TLS encrypts the connection and checks the server's certificate. Nil:
	// plaintext.
	TLS *tls.Config
	// Insecure allows plaintext to other machines, where anyone on the way can
	// read and change what is sent. It has no meaning when TLS is set.
	Insecure bool
	// Patience is how long a request goes on being sent to a server that has answered
	// before and has gone away, as for a restart. A request that stands in line goes on
	// until its wait is over, a Hold until it is lost, and a Watch without end. Zero:
	// DefaultPatience. Less: not at all.
	Patience time.Duration
	// OnTrouble is told, with the error, when the server does not answer something that
	// goes on, and with nil when it answers again: once each, from one goroutine at a
	// time. It must not call the Client. Nil: nobody is told.
	OnTrouble func(err error)
}

// Client is a connection to a server. It may be used from many goroutines at
// once, connects when it is first needed, and connects again after a loss.
type Client struct {
	address    string
	connection *grpc.ClientConn
	service    pylokv1.LockServiceClient
	patience   time.Duration
	reached    atomic.Bool          // the server has answered once
	boottime   func() time.Duration // the clock that leases run on; tests have another
	watchers   chan struct{}        // has an element for each Hold that watches

	onTrouble func(error)
	inTrouble atomic.Bool // as onTrouble was told last
	telling   sync.Mutex  // held while onTrouble is told
}

// Dial makes a Client for the server at address, which is HOST:PORT. It does not
// wait for the server: an error is one of address or options.
func Dial(address string, options Options) (*Client, error) {
	return dial(address, options)
}

func dial(address string, options Options, more ...grpc.DialOption) (*Client, error) {
	host, port, err := net.SplitHostPort(address)
	if _, notNumber := strconv.ParseUint(port, 10, 16); err != nil || host == "" || notNumber != nil {
		return nil, fmt.Errorf("the address %q is not HOST:PORT, such as %s", address, DefaultAddress)
	}
	transport := insecure.NewCredentials()
	switch {
	case options.TLS != nil:
		transport = credentials.NewTLS(options.TLS)
	case !options.Insecure && !isLoopback(host):
		return nil, fmt.Errorf("%s is another machine, and without TLS anyone on the way could read and change what is sent; turn TLS on, or allow an insecure connection explicitly", address)
	}
	security := &security{TransportCredentials: transport}
	connection, err := grpc.NewClient("dns:///"+address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestBackoff},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithChainUnaryInterceptor(domainErrors(address, security)),
		grpc.WithChainStreamInterceptor(domainStreamErrors(address, security)),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("the address %q: %w", address, err)
	}
	return &Client{
		patience:   cmp.Or(options.Patience, DefaultPatience),
		onTrouble:  options.OnTrouble,
		address:    address,
		connection: connection,
		service:    pylokv1.NewLockServiceClient(connection),
		boottime:   new(lease.Clock).Now,
		watchers:   make(chan struct{}, maxWatchers),
	}, nil
}

// isLoopback reports whether host is this machine under a name or an address that
// cannot mean another one.
func isLoopback(host string) bool {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	return net.ParseIP(host).IsLoopback()
}

// Address returns the server's address as it was given to Dial.
func (c *Client) Address() string { return c.address }

// Service returns the server's RPCs as they are: nothing is sent again. Their errors
// are as the package says.
func (c *Client) Service() pylokv1.LockServiceClient { return c.service }

// Close ends all calls and the connection. Release holds before.
func (c *Client) Close() error { return c.connection.Close() }
