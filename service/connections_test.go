package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// dialFrom connects from an address of this machine, and reports whether the server keeps
// the connection.
func dialFrom(t *testing.T, from, to string) (conn net.Conn, kept bool) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		t.Fatal("neither open nor closed")
	}
	return conn, err == nil
}

// TestConnectionsOfOneAddress opens more connections than one address may have: others still
// get theirs, and it does again when some have ended.
func TestConnectionsOfOneAddress(t *testing.T) {
	const most = 3
	r := serve(t, setup{server: ServerConfig{MaxConnections: 10, MaxConnectionsPerAddress: most}})
	var open []net.Conn
	for range 3 * most {
		if c, kept := dialFrom(t, "127.0.0.2", r.address); kept {
			open = append(open, c)
		}
	}
	if len(open) != most {
		t.Errorf("%d connections of one address are open, want %d", len(open), most)
	}
	if _, kept := dialFrom(t, "127.0.0.3", r.address); !kept {
		t.Error("another address gets no connection")
	}
	if n := len(r.log.lines(t, 1, "from one address or user as may be")); n != 1 {
		t.Errorf("the log says %d times that connections were refused, want once", n)
	}
	if stats := r.server.Connections(); stats.RefusedByPlace != 2*most || stats.Refused != 0 || stats.Open != most+1 || stats.Places != 2 {
		t.Errorf("%+v, want %d open from 2 places, and %d refused", stats, most+1, 2*most)
	}
	for _, c := range open {
		c.Close()
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, kept := dialFrom(t, "127.0.0.2", r.address); kept {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is room, and no connection is taken")
		}
	}
}

// What is counted of a connection ends with it, also if that is closed twice.
func TestPlacesEnd(t *testing.T) {
	c := connections{perPlace: 1, logger: slog.New(slog.DiscardHandler)}
	here, there := net.Pipe()
	defer there.Close()
	conn := &connection{Conn: here, all: &c, place: place{isUser: true, uid: 1001}}
	if !c.add(conn) {
		t.Fatal("no room for the first one")
	}
	conn.Close()
	conn.Close()
	if stats := c.counted(); stats.Open != 0 || stats.Places != 0 {
		t.Errorf("%+v, want none", stats)
	}
}

// Of a socket it is the user who counts, and root is not kept out by others of its own.
func TestPlaceOfSocket(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if got, want := placeOf(accepted), (place{isUser: true, uid: uint32(os.Getuid())}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		at := func(ip string) place { return placeOf(addressed{net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}) }
		if got := at(test.a) == at(test.b); got != test.same {
			t.Errorf("%s and %s are one place: %v, want %v", test.a, test.b, got, test.same)
		}
	}
}

// addressed is a connection that has nothing but an address.
type addressed struct{ net.TCPAddr }

func (a addressed) RemoteAddr() net.Addr             { return &a.TCPAddr }
func (addressed) LocalAddr() net.Addr                { return nil }
func (addressed) Read([]byte) (int, error)           { return 0, net.ErrClosed }
func (addressed) Write([]byte) (int, error)          { return 0, net.ErrClosed }
func (addressed) Close() error                       { return nil }
func (addressed) SetDeadline(time.Time) error        { return nil }
func (addressed) SetReadDeadline(t time.Time) error  { return nil }
func (addressed) SetWriteDeadline(t time.Time) error { return nil }

// TestCallsOfOnePlace begins more calls than one place may without their requests, and
// opens more streams of health checks: those beyond are refused, another place's are not,
// and in the end nothing is left that counts.
func TestCallsOfOnePlace(t *testing.T) {
	r := serve(t, setup{})
	far := r.dial(t, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}).DialContext(ctx, "tcp", address)
	}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	watch := func(conn *grpc.ClientConn) error {
		stream, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for range mostAside {
		if err := watch(far); err != nil {
			t.Fatal(err)
		}
	}
	if err := watch(far); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one stream more: %v", err)
	}
	if err := watch(r.conn); err != nil {
		t.Errorf("from another place: %v", err)
	}
	if _, err := pylokv1.NewLockServiceClient(far).Status(t.Context(), &pylokv1.StatusRequest{Name: "a"}); err != nil {
		t.Errorf("a call of locks: %v", err)
	}
	stop()
	for {
		r.server.aside.mu.Lock()
		open := len(r.server.aside.open)
		r.server.aside.mu.Unlock()
		if open == 0 {
			break
		}
		runtime.Gosched()
	}

	var a arrivals
	a.limit = time.Hour
	var begun []context.Context
	for range mostArrivals {
		call, err := a.begin(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		begun = append(begun, call)
	}
	if _, err := a.begin(t.Context(), nil); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one call more: %v", err)
	}
	elsewhere := &connection{place: place{isUser: true, uid: 1}}
	other := peer.NewContext(t.Context(), &peer.Peer{Addr: &remoteAddress{connection: elsewhere}})
	call, err := a.begin(other, nil)
	if err != nil {
		t.Errorf("of another place: %v", err)
	}
	for _, call := range append(begun, call) {
		a.end(call)
		a.end(call) // a stream ends it with each message
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.calls) != 0 || len(a.places) != 0 {
		t.Errorf("%d calls of %d places are kept, want none", len(a.calls), len(a.places))
	}
}
