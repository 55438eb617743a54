package client

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
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
	// TLS encrypts the connection, checks the server's certificate, and shows the
	// client's, if there is one; TLSFiles makes it of files. At least TLS 1.3, unless its
	// MinVersion says otherwise. Nil: plaintext.
	TLS *tls.Config
	// Bearer says who asks, beside what the connection tells. It goes only over TLS that
	// checks the server's certificate, or to a Unix socket on which root or this process's
	// own user listens; elsewhere it is an error. Nil: nothing is sent.
	Bearer BearerSource
	// Insecure allows plaintext to other machines, where anyone on the way can
	// read and change what is sent, and a Bearer over plaintext, or over TLS that does not
	// check who the server is: anybody can listen on a port of this machine, too.
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
	// ReleaseAll has Close release all that Acquire and AcquireSet took with the Client and
	// that has not been released, but no Hold of Adopt.
	ReleaseAll bool
}

// Client is a connection to a server. It may be used from many goroutines at
// once, connects when it is first needed, and connects again after a loss.
type Client struct {
	address    string
	connection *grpc.ClientConn
	bearer     *bearer // nil: there is none
	service    pylokv1.LockServiceClient
	patience   time.Duration
	reached    atomic.Bool          // the server has answered once
	boottime   func() time.Duration // the clock that leases run on; tests have another
	watchers   chan struct{}        // has an element for each Hold that watches

	keeper keeper // of what Close releases

	onTrouble func(error)
	inTrouble atomic.Bool // as onTrouble was told last
	telling   sync.Mutex  // held while onTrouble is told
}

// Dial makes a Client for the server at address: HOST:PORT, or unix:///PATH or just the
// path of a Unix socket. An empty address is what FindAddress finds, or with TLS
// DefaultAddress. Dial does not wait for the server: an error is one of address or
// options.
func Dial(address string, options Options) (*Client, error) {
	return dial(address, options)
}

func dial(address string, options Options, more ...grpc.DialOption) (*Client, error) {
	switch {
	case address == "" && options.TLS != nil:
		address = DefaultAddress
	case address == "":
		address = FindAddress()
	}
	target, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	security, err := options.security(target)
	if err != nil {
		return nil, err
	}
	address = target.text
	bearer := newBearer(options.Bearer, options.Insecure)
	if bearer != nil {
		more = append(more, grpc.WithPerRPCCredentials(bearer))
	}
	connection, err := grpc.NewClient(target.forGRPC(), append([]grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestBackoff},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithChainUnaryInterceptor(domainErrors(address, security, bearer)),
		grpc.WithChainStreamInterceptor(domainStreamErrors(address, security)),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("the address %q: %w", address, err)
	}
	return &Client{
		keeper:     keeper{off: !options.ReleaseAll},
		patience:   cmp.Or(options.Patience, DefaultPatience),
		onTrouble:  options.OnTrouble,
		address:    address,
		connection: connection,
		bearer:     bearer,
		service:    pylokv1.NewLockServiceClient(connection),
		boottime:   new(lease.Clock).Now,
		watchers:   make(chan struct{}, maxWatchers),
	}, nil
}

// security returns what connections to a target are protected with, or why they must
// not be made.
func (o *Options) security(t target) (*security, error) {
	switch {
	case t.socket != "" && o.TLS != nil:
		return nil, fmt.Errorf("%s is a Unix socket, which has no TLS and needs none; leave TLS out, or give another address", t.text)
	case t.socket != "":
		return &security{TransportCredentials: insecure.NewCredentials()}, nil
	case o.TLS == nil && o.Insecure:
		return &security{TransportCredentials: insecure.NewCredentials()}, nil
	case o.TLS == nil && !isLoopback(t.host):
		return nil, fmt.Errorf("%s is another machine, and without TLS anyone on the way could read and change what is sent; turn TLS on, or allow an insecure connection explicitly", t.text)
	case o.TLS == nil && o.Bearer != nil:
		return nil, fmt.Errorf("without TLS nothing tells who listens at %s, and whoever does would get the bearer token; turn TLS on, use the server's socket, or allow an insecure connection explicitly", t.text)
	case o.TLS == nil:
		return &security{TransportCredentials: insecure.NewCredentials()}, nil
	}
	config := o.TLS.Clone()
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS13
	}
	checked := !config.InsecureSkipVerify || config.VerifyConnection != nil || config.VerifyPeerCertificate != nil
	if o.Bearer != nil && !checked && !o.Insecure {
		return nil, fmt.Errorf("the TLS to %s checks nobody's certificate, and whoever listens there would get the bearer token", t.text)
	}
	return &security{
		TransportCredentials: credentials.NewTLS(config),
		hasCertificate:       len(config.Certificates) > 0 || config.GetClientCertificate != nil,
	}, nil
}

// Address returns the server's address: HOST:PORT as it was given to Dial, or
// unix:///PATH.
func (c *Client) Address() string { return c.address }

// Service returns the server's RPCs as they are: nothing is sent again. Their errors
// are as the package says.
func (c *Client) Service() pylokv1.LockServiceClient { return c.service }

// Close ends all calls and the connection. Release holds before, or have Close do it with
// Options.ReleaseAll, for which it takes at most 5 s; then its error says what may still be
// locked. A Hold of Adopt it leaves as it is, held.
func (c *Client) Close() error {
	return errors.Join(c.keeper.close(), c.connection.Close())
}
