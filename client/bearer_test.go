package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// door takes the bearer token that it is told to, and tells how often it was asked with
// each. Its watches end when the token does.
type door struct {
	pylokv1.UnimplementedLockServiceServer
	takes func(token string) bool
	life  time.Duration // of a watch

	mu    sync.Mutex
	calls []string // the tokens, in order
}

func (d *door) check(ctx context.Context) error {
	token := strings.TrimPrefix(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ", "), "Bearer ")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, token)
	if d.takes(token) {
		return nil
	}
	return unauthenticated()
}

func unauthenticated() error {
	refusal, err := status.New(codes.Unauthenticated, "the token has ended").WithDetails(
		&errdetails.ErrorInfo{Domain: "pylok", Reason: "UNAUTHENTICATED"})
	if err != nil {
		panic(err)
	}
	return refusal.Err()
}

// seen returns the tokens of the calls so far.
func (d *door) seen() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.calls...)
}

func (d *door) Info(ctx context.Context, _ *pylokv1.InfoRequest) (*pylokv1.InfoResponse, error) {
	return &pylokv1.InfoResponse{}, d.check(ctx)
}

func (d *door) Watch(_ *pylokv1.WatchRequest, stream grpc.ServerStreamingServer[pylokv1.WatchResponse]) error {
	if err := d.check(stream.Context()); err != nil {
		return err
	}
	select {
	case <-time.After(d.life):
		return unauthenticated()
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// dialDoor connects to a door within a bubble of synctest.
func dialDoor(t *testing.T, d *door, source client.BearerSource) *client.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	pylokv1.RegisterLockServiceServer(server, d)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	c, err := client.DialTest("127.0.0.1:1", client.Options{Bearer: source, Insecure: true}, func() time.Duration { return 0 },
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// numbered is a source of the tokens t1, t2 and so on.
type numbered struct {
	life  time.Duration
	fail  error
	asked int
}

func (n *numbered) next(context.Context) (client.Bearer, error) {
	n.asked++
	if n.fail != nil {
		return client.Bearer{}, n.fail
	}
	return client.Bearer{Token: fmt.Sprint("t", n.asked), ExpireTime: time.Now().Add(n.life)}, nil
}

// info asks a server what it is and whom it takes one for.
func info(t *testing.T, address string, options client.Options) (client.Info, error) {
	t.Helper()
	c, err := client.Dial(address, options)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Info(t.Context())
}

// static is a source of one token.
func static(token string) client.BearerSource {
	return func(context.Context) (client.Bearer, error) { return client.Bearer{Token: token}, nil }
}

// TestBearerIsRenewed: a token is kept until shortly before its end, and the next one is
// fetched while it still counts, so that a source that fails for a moment ends no call.
func TestBearerIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{takes: func(string) bool { return true }}
		source := &numbered{life: 10 * time.Minute}
		c := dialDoor(t, d, source.next)
		ask := func(want string, asked int) {
			t.Helper()
			_, err := c.Info(t.Context())
			calls := d.seen()
			if err != nil || calls[len(calls)-1] != want || source.asked != asked {
				t.Errorf("Info: %v with the token %q, the source asked %d times; want %q, %d times", err, calls[len(calls)-1], source.asked, want, asked)
			}
		}
		ask("t1", 1)
		time.Sleep(9*time.Minute + 29*time.Second)
		ask("t1", 1)
		time.Sleep(time.Second)
		ask("t2", 2)
		time.Sleep(9*time.Minute + 45*time.Second)
		source.fail = errors.New("the issuer is away")
		ask("t2", 3)
		time.Sleep(15 * time.Second)
		_, err := c.Info(t.Context())
		if _, ok := errors.AsType[*client.CredentialError](err); !ok || !errors.Is(err, source.fail) {
			t.Errorf("Info with an ended token and no other: %v, want a CredentialError of the source", err)
		}
	})
}

// TestBearerRefused: a call whose token is refused is made once more with the next one,
// and not again.
func TestBearerRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{takes: func(token string) bool { return token == "t2" }}
		source := &numbered{life: time.Hour}
		c := dialDoor(t, d, source.next)
		if _, err := c.Info(t.Context()); err != nil {
			t.Errorf("Info with a token after the first one: %v", err)
		}
		d.takes = func(string) bool { return false }
		_, err := c.Info(t.Context())
		if !errors.Is(err, lock.ErrUnauthenticated) {
			t.Errorf("Info with tokens that are refused: %v, want ErrUnauthenticated", err)
		}
		for _, err := range c.Watch(t.Context(), "", 0) {
			if !errors.Is(err, lock.ErrUnauthenticated) {
				t.Errorf("Watch with tokens that are refused: %v, want ErrUnauthenticated", err)
			}
		}
		if got, want := strings.Join(d.seen(), " "), "t1 t2 t2 t3 t3 t4"; got != want {
			t.Errorf("the calls had the tokens %s, want %s", got, want)
		}

		one := &door{takes: func(string) bool { return false }}
		c = dialDoor(t, one, static("single"))
		if _, err := c.Info(t.Context()); !errors.Is(err, lock.ErrUnauthenticated) {
			t.Errorf("Info with the only token: %v, want ErrUnauthenticated", err)
		}
		if n := len(one.seen()); n != 1 {
			t.Errorf("a token that stays the same was sent %d times, want once", n)
		}
	})
}

// TestWatchOutlivesItsToken: a watch that the server ends with its token goes on with the
// next one.
func TestWatchOutlivesItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{takes: func(string) bool { return true }, life: 3 * time.Second}
		source := &numbered{life: 3 * time.Second}
		c := dialDoor(t, d, source.next)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for _, err := range c.Watch(ctx, "", 0) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Watch: %v, want the end of its context", err)
			}
		}
		if got, want := strings.Join(d.seen(), " "), "t1 t2 t3 t4"; got != want {
			t.Errorf("the streams had the tokens %s, want %s", got, want)
		}
	})
}

// TestBearerHasNoSpace: what cannot be a token is not sent, nor shown.
func TestBearerHasNoSpace(t *testing.T) {
	for _, token := range []string{"", "s3cret s3cret", "s3cret\n", "s3cret\x00", "s3crét"} {
		address, _ := serve(t, &door{takes: func(string) bool { return true }})
		c, err := client.Dial(address, client.Options{Bearer: static(token), Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Info(t.Context())
		c.Close()
		if _, refused := errors.AsType[*client.CredentialError](err); !refused || strings.Contains(err.Error(), "s3cr") {
			t.Errorf("%q: %v, want a CredentialError without the token", token, err)
		}
	}
}
