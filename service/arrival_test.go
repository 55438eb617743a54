package service

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// headers writes those of a call, without a request, and leaves the stream open.
func headers(t *testing.T, framer *http2.Framer, stream uint32, method string, more ...[2]string) {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range append([][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "test"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	}, more...) {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
}

// TestRequestThatNeverArrives begins calls and never sends their requests: they end, and
// the connection goes on.
func TestRequestThatNeverArrives(t *testing.T) {
	r := serve(t, setup{server: ServerConfig{ConnectTimeout: 200 * time.Millisecond}})
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	calls := map[uint32]string{1: "/pylok.v1.LockService/Lock", 3: "/pylok.v1.LockService/Watch", 5: "/grpc.health.v1.Health/Check"}
	for _, stream := range []uint32{1, 3, 5} {
		headers(t, framer, stream, calls[stream])
	}
	for len(calls) > 0 {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("%v are still open: %v", calls, err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				if field.Name == "grpc-status" && frame.StreamEnded() {
					if want := "1"; field.Value != want {
						t.Errorf("%s: status %s, want %s (%v)", calls[frame.StreamID], field.Value, want, codes.Canceled)
					}
					delete(calls, frame.StreamID)
				}
			}
		case *http2.RSTStreamFrame:
			delete(calls, frame.StreamID)
		case *http2.GoAwayFrame:
			t.Fatalf("the connection ends: %v", frame)
		}
	}
}

// TestRequestThatArrives begins a call whose answer takes longer than its request may.
func TestRequestThatArrives(t *testing.T) {
	r := serve(t, setup{server: ServerConfig{ConnectTimeout: 100 * time.Millisecond}})
	r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "alice"})
	_, err := r.Lock(t.Context(), &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(300 * time.Millisecond)})
	refusedCode(t, err, codes.FailedPrecondition)
}

// TestCallsThatAreTakenBack begins calls with long headers and takes them back at once:
// nothing of them is kept until their requests would be late.
func TestCallsThatAreTakenBack(t *testing.T) {
	const (
		calls       = 2000
		headerBytes = 15000
	)
	r := serve(t, setup{server: ServerConfig{ConnectTimeout: time.Hour}})
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.Copy(io.Discard, conn)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range uint32(calls) {
		headers(t, framer, 2*i+1, "/pylok.v1.LockService/Status", [2]string{"x", strings.Repeat("y", headerBytes)})
		if err := framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
	}
	r.lock(t, &pylokv1.LockRequest{Name: "a"})
	for deadline := time.Now().Add(time.Minute); heap() > before+calls*headerBytes/4; {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are kept of %d calls that are over", heap()-before, calls)
		}
	}
}

// TestMostConnections opens more connections than may be open.
func TestMostConnections(t *testing.T) {
	const most = 3
	r := serve(t, setup{server: ServerConfig{MaxConnections: most}})
	r.lock(t, &pylokv1.LockRequest{Name: "a"}) // by the first one
	var open []net.Conn
	isOpen := func(c net.Conn) bool { // the server begins with its settings
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			t.Fatal("neither open nor closed")
		}
		return err == nil
	}
	for range 2 * most {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if isOpen(c) {
			open = append(open, c)
		}
	}
	if len(open) != most-1 {
		t.Errorf("%d connections are open beside the first, want %d", len(open), most-1)
	}
	r.lock(t, &pylokv1.LockRequest{Name: "b"})
	if n := len(r.log.lines(t, 1, "connections were refused")); n != 1 {
		t.Errorf("the log says %d times that connections were refused, want once", n)
	}
	for _, c := range open {
		c.Close()
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		taken := isOpen(c)
		c.Close()
		if taken {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("there is room, and no connection is taken")
		}
	}
}
