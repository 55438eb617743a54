package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

func TestDialChecksItsArguments(t *testing.T) {
	bearer := func(context.Context) (client.Bearer, error) { return client.Bearer{}, errors.New("not asked") }
	for _, test := range []struct {
		address string
		options client.Options
		want    string // part of the error; empty: none
	}{
		{"127.0.0.1:5625", client.Options{}, ""},
		{"127.9.9.9:5625", client.Options{}, ""},
		{"localhost:5625", client.Options{}, ""},
		{"LocalHost.:5625", client.Options{}, ""},
		{"db.localhost:5625", client.Options{}, ""},
		{"[::1]:5625", client.Options{}, ""},
		{"locks.example.com:5625", client.Options{Insecure: true}, ""},
		{"locks.example.com:5625", client.Options{TLS: &tls.Config{}}, ""},
		{"locks.example.com:5625", client.Options{}, "locks.example.com:5625 is another machine, and without TLS"},
		{"localhost.example.com:5625", client.Options{}, "is another machine"},
		{"10.0.0.7:5625", client.Options{}, "is another machine"},
		{"[2001:db8::1]:5625", client.Options{}, "is another machine"},
		{"0.0.0.0:5625", client.Options{}, "is another machine"},
		{"localhost", client.Options{}, `the address "localhost" is not HOST:PORT`},
		{":5625", client.Options{}, "is not HOST:PORT"},
		{"localhost:", client.Options{}, "is not HOST:PORT"},
		{"::1:5625", client.Options{}, "is not HOST:PORT"},
		{"localhost:lock", client.Options{}, "is not HOST:PORT"},
		{"localhost:66666", client.Options{}, "is not HOST:PORT"},
		{"unix:///run/pylok.sock", client.Options{}, ""},
		{"unix:///run/py lok%20#?.sock", client.Options{Bearer: bearer}, ""},
		{"unix://run/pylok.sock", client.Options{}, "no absolute path after unix://"},
		{"unix:", client.Options{}, "has no path of a socket"},
		{"unix:///run/pylok.sock", client.Options{TLS: &tls.Config{}}, "is a Unix socket, which has no TLS and needs none"},
		{"/" + strings.Repeat("x", 107), client.Options{}, "has a path of 108 bytes; the system allows 107"},
		{"localhost:5625", client.Options{Bearer: bearer}, "without TLS nothing tells who listens at localhost:5625"},
		{"localhost:5625", client.Options{Bearer: bearer, Insecure: true}, ""},
		{"localhost:5625", client.Options{Bearer: bearer, TLS: &tls.Config{}}, ""},
		{"localhost:5625", client.Options{Bearer: bearer, TLS: &tls.Config{InsecureSkipVerify: true}}, "checks nobody's certificate"},
	} {
		t.Run(test.address, func(t *testing.T) {
			c, err := client.Dial(test.address, test.options)
			if test.want == "" {
				if err != nil {
					t.Fatalf("got the error %q, want none", err)
				}
				if got := c.Address(); got != test.address {
					t.Errorf("Address() = %q, want %q", got, test.address)
				}
				if err := c.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got the error %v, want one with %q", err, test.want)
			}
		})
	}
}

// serve runs a server for one test and returns its address.
func serve(t *testing.T, service pylokv1.LockServiceServer) (string, *grpc.Server) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pylokv1.RegisterLockServiceServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return listener.Addr().String(), server
}

// dial connects to address for one test.
func dial(t *testing.T, address string) pylokv1.LockServiceClient {
	t.Helper()
	c, err := client.Dial(address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.Service()
}

// blocking is a server whose calls end when the test or the caller lets them.
type blocking struct {
	pylokv1.UnimplementedLockServiceServer
	arrived chan struct{}
}

func (s blocking) Status(ctx context.Context, _ *pylokv1.StatusRequest) (*pylokv1.StatusResponse, error) {
	s.arrived <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s blocking) Watch(_ *pylokv1.WatchRequest, stream grpc.ServerStreamingServer[pylokv1.WatchResponse]) error {
	s.arrived <- struct{}{}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func TestUnreachable(t *testing.T) {
	// An address where nothing listens.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	listener.Close()

	check := func(t *testing.T, err error, address string, sent bool) {
		t.Helper()
		unreachable, ok := errors.AsType[*client.UnreachableError](err)
		if !ok {
			t.Fatalf("got the error %v, want an UnreachableError", err)
		}
		if unreachable.Address != address || unreachable.Sent != sent {
			t.Errorf("got address %s and sent %v, want %s and %v", unreachable.Address, unreachable.Sent, address, sent)
		}
		if !strings.Contains(err.Error(), address) {
			t.Errorf("the message %q does not name the address %s", err, address)
		}
	}

	t.Run("nobody listens", func(t *testing.T) {
		_, err := dial(t, nobody).Status(t.Context(), &pylokv1.StatusRequest{Name: "x"})
		check(t, err, nobody, false)
		if !strings.HasSuffix(err.Error(), "connection refused") {
			t.Errorf("the message %q does not end with the cause", err)
		}
	})
	t.Run("nobody listens to a watch", func(t *testing.T) {
		stream, err := dial(t, nobody).Watch(t.Context(), &pylokv1.WatchRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		check(t, err, nobody, false)
	})
	t.Run("a listener that says nothing", func(t *testing.T) {
		mute, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer mute.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = dial(t, mute.Addr().String()).Status(ctx, &pylokv1.StatusRequest{Name: "x"})
		check(t, err, mute.Addr().String(), false)
	})
	t.Run("the server goes away", func(t *testing.T) {
		service := blocking{arrived: make(chan struct{})}
		address, server := serve(t, service)
		go func() {
			<-service.arrived
			server.Stop()
		}()
		_, err := dial(t, address).Status(t.Context(), &pylokv1.StatusRequest{Name: "x"})
		check(t, err, address, true)
	})
	t.Run("the server of a watch goes away", func(t *testing.T) {
		service := blocking{arrived: make(chan struct{})}
		address, server := serve(t, service)
		go func() {
			<-service.arrived
			server.Stop()
		}()
		stream, err := dial(t, address).Watch(t.Context(), &pylokv1.WatchRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		check(t, err, address, true)
	})
}

func TestContextEnds(t *testing.T) {
	service := blocking{arrived: make(chan struct{}, 1)}
	address, _ := serve(t, service)
	c := dial(t, address)

	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-service.arrived
			cancel()
		}()
		_, err := c.Status(ctx, &pylokv1.StatusRequest{Name: "x"})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got the error %v, want context.Canceled", err)
		}
	})
	t.Run("no answer in time", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := c.Status(ctx, &pylokv1.StatusRequest{Name: "x"})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got the error %v, want context.DeadlineExceeded", err)
		}
	})
	t.Run("a watch is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.Watch(ctx, &pylokv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := stream.Recv(); !errors.Is(err, context.Canceled) {
			t.Errorf("got the error %v, want context.Canceled", err)
		}
	})
}
