package service

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// The benchmarks run over loopback, beside a plain gRPC server whose handlers do
// nothing: what pylok takes above it, in the same run, is its own. The client's side
// is the same for all, for it encodes requests once and decodes no answers. CPU-µs/op
// is the CPU time of both sides, which tells more than ns/op where others use the
// machine too.

// benchDocument is the original library's example, as bench/ has it.
const benchDocument = `{
	"contact_email": "billyjenkins@example.com",
	"data": {"backend": "App1", "server": "server-cluster3w1-2", "status": "MAINT"},
	"msg": "Locking App1 on server-cluster3w1-2 for canary deployment"
}`

const benchCallers = 64

// BenchmarkCalls has callers share one connection, each with a lock of its own.
//
//	empty   a call of the plain server that says nothing
//	ready   a call of the plain server that answers a Status encoded long ago: what
//	        Status could be at best
//	status  Status of a held lock with data
//	cycle   Lock with data, then Unlock: two calls. The store is memstore, which makes
//	        nothing durable
func BenchmarkCalls(b *testing.B) {
	r := serve(b, setup{server: ServerConfig{Logger: quiet()}})
	data := document(b, benchDocument)
	held := func(name string) *pylokv1.LockRequest {
		return &pylokv1.LockRequest{Name: name, Data: data, Holder: "alice@ci-7", Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)}}
	}
	r.lock(b, held("bench/held"))
	answer, err := r.Status(b.Context(), &pylokv1.StatusRequest{Name: "bench/held"})
	if err != nil {
		b.Fatal(err)
	}
	plain := newPlainServer(b, encode(b, answer))
	conn := r.dial(b)
	ask := encode(b, &pylokv1.StatusRequest{Name: "bench/held"})

	b.Run("empty", func(b *testing.B) {
		concurrently(b, func(int) func(context.Context) error {
			return func(ctx context.Context) error { return call(ctx, plain.conn, plainEmpty, encodedMessage{}) }
		})
	})
	b.Run("ready", func(b *testing.B) {
		concurrently(b, func(int) func(context.Context) error {
			return func(ctx context.Context) error { return call(ctx, plain.conn, plainReady, ask) }
		})
	})
	b.Run("status", func(b *testing.B) {
		concurrently(b, func(int) func(context.Context) error {
			return func(ctx context.Context) error {
				return call(ctx, conn, pylokv1.LockService_Status_FullMethodName, ask)
			}
		})
	})
	b.Run("cycle", func(b *testing.B) {
		concurrently(b, func(caller int) func(context.Context) error {
			name := fmt.Sprintf("bench/%d", caller)
			lock := encode(b, held(name))
			unlock := encode(b, &pylokv1.UnlockRequest{Name: name, Holder: "alice@ci-7"})
			return func(ctx context.Context) error {
				if err := call(ctx, conn, pylokv1.LockService_Lock_FullMethodName, lock); err != nil {
					return err
				}
				return call(ctx, conn, pylokv1.LockService_Unlock_FullMethodName, unlock)
			}
		})
	})
}

// BenchmarkDoor is what the service does for a call beside gRPC, without a connection.
//
//	request  decoding a LockRequest with data
//	answer   encoding a LockResponse with data
//	set      encoding a LockSetResponse of 8 locks with data
//	arrival  the limit on how long a request may take to arrive
func BenchmarkDoor(b *testing.B) {
	s, c := New(nil, Config{Root: testRoot}), newCodec(256<<10)
	data, err := lock.ParseData([]byte(benchDocument))
	if err != nil {
		b.Fatal(err)
	}
	l := lock.Lock{Name: lock.MustParseName("bench/held"), Data: data, Holder: "alice@ci-7", Token: 1, Revision: 1, AcquireTime: time.Now(), TTL: time.Hour}
	wire := encode(b, &pylokv1.LockRequest{Name: "bench/held", Data: document(b, benchDocument), Holder: "alice@ci-7", Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)}})
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			request := new(pylokv1.LockRequest)
			err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, request)
			if err == nil {
				_, err = s.lockRequest(request)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("answer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			wire, err := c.Marshal(s.lockResponse(lock.Grant{Lock: l}))
			if err != nil {
				b.Fatal(err)
			}
			wire.Free()
		}
	})
	b.Run("set", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			wire, err := c.Marshal(s.lockSetResponse(lock.SetGrant{Locks: []lock.Lock{l, l, l, l, l, l, l, l}}))
			if err != nil {
				b.Fatal(err)
			}
			wire.Free()
		}
	})
	b.Run("arrival", func(b *testing.B) {
		b.ReportAllocs()
		a := &arrivals{limit: time.Hour}
		for b.Loop() {
			ctx, cancel := context.WithCancel(b.Context())
			ctx, _ = a.begin(ctx, nil)
			a.end(ctx)
			cancel()
		}
	})
}

// BenchmarkWatch delivers changes to many subscribers. One op is one delivery.
//
//	ready   the plain server has one message, encoded long ago, for each subscriber
//	watch   Watch, the changes being made without gRPC
//
// Each subscriber has a connection of its own, or all share one.
func BenchmarkWatch(b *testing.B) {
	for _, subscribers := range []int{100, 1000} {
		for _, shared := range []bool{false, true} {
			connections := "each its own"
			if shared {
				connections = "one"
			}
			b.Run(fmt.Sprintf("ready/%d/connection=%s", subscribers, connections), func(b *testing.B) {
				ready := encodedMessage(make([]byte, 400))
				plain := newPlainServer(b, ready)
				deliver(b, subscribers, shared, plain.dial, plainStream, encodedMessage{}, func(int) { plain.tellAll() })
			})
			b.Run(fmt.Sprintf("watch/%d/connection=%s", subscribers, connections), func(b *testing.B) {
				r := serve(b, setup{server: ServerConfig{Logger: quiet()}})
				data, err := lock.ParseData([]byte(benchDocument))
				if err != nil {
					b.Fatal(err)
				}
				name := lock.MustParseName("watched/lock")
				dial := func(t testing.TB) *grpc.ClientConn { return r.dial(t) }
				after := encode(b, &pylokv1.WatchRequest{Pattern: "watched/**"})
				deliver(b, subscribers, shared, dial, pylokv1.LockService_Watch_FullMethodName, after, func(i int) {
					var err error
					if i%2 == 0 {
						_, err = r.manager.Lock(b.Context(), lock.Caller{}, lock.LockRequest{Name: name, Data: data, Holder: "alice@ci-7", TTL: time.Hour})
					} else {
						_, err = r.manager.Unlock(b.Context(), lock.Caller{}, lock.UnlockRequest{Name: name, Holder: "alice@ci-7"})
					}
					if err != nil {
						b.Error(err)
					}
				})
			})
		}
	}
}

// deliver has subscribers follow a stream of a method, and tells each of them at least
// b.N/subscribers times something that the method sends on.
func deliver(b *testing.B, subscribers int, shared bool, dial func(testing.TB) *grpc.ClientConn, method string, request encodedMessage, tell func(i int)) {
	const window = 16 // told before the slowest subscriber has it
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	got := make([]atomic.Int64, subscribers)
	slowest := func() int64 {
		least := got[0].Load()
		for i := range got {
			least = min(least, got[i].Load())
		}
		return least
	}
	await := func(n int64) {
		for slowest() < n && !b.Failed() {
			time.Sleep(100 * time.Microsecond)
		}
	}
	conn := dial(b)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range subscribers {
		if !shared && i > 0 {
			conn = dial(b)
		}
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodecV2(clientCodec{newEncodedCodec()}))
		if err == nil {
			err = stream.SendMsg(request)
		}
		if err == nil {
			err = stream.CloseSend()
		}
		for range 2 { // RESET and SYNCED, or the like
			var message encodedMessage
			if err == nil {
				err = stream.RecvMsg(&message)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			var message encodedMessage
			for stream.RecvMsg(&message) == nil {
				got[i].Add(1)
			}
			if ctx.Err() == nil {
				b.Error("a stream ended")
			}
		})
	}
	b.ReportAllocs()
	began := cpuTime(b)
	b.ResetTimer()
	told := max(b.N/subscribers, 1)
	for i := range told {
		await(int64(i - window))
		tell(i)
	}
	await(int64(told))
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-began)/1e3/float64(b.N), "CPU-µs/op")
}

// concurrently does something b.N times in all, from callers that each have their way
// to do it.
func concurrently(b *testing.B, of func(caller int) func(context.Context) error) {
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	began := cpuTime(b)
	b.ResetTimer()
	var running sync.WaitGroup
	for caller := range benchCallers {
		do := of(caller)
		running.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-began)/1e3/float64(b.N), "CPU-µs/op")
}

// cpuTime is what this process has used, user and system.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// encodedMessage is a message as it goes over the wire.
type encodedMessage []byte

func encode(b *testing.B, message proto.Message) encodedMessage {
	wire, err := proto.Marshal(message)
	if err != nil {
		b.Fatal(err)
	}
	return wire
}

// encodedCodec is protobuf, and sends an encodedMessage as it is.
type encodedCodec struct{ encoding.CodecV2 }

func newEncodedCodec() encodedCodec { return encodedCodec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c encodedCodec) Marshal(message any) (mem.BufferSlice, error) {
	if wire, ok := message.(encodedMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(wire)}, nil
	}
	return c.CodecV2.Marshal(message)
}

// clientCodec looks at nothing that it receives.
type clientCodec struct{ encodedCodec }

// Unmarshal implements encoding.CodecV2.
func (clientCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

func call(ctx context.Context, conn *grpc.ClientConn, method string, request encodedMessage) error {
	return conn.Invoke(ctx, method, request, nil, grpc.ForceCodecV2(clientCodec{newEncodedCodec()}))
}

// The methods of the plain server.
const (
	plainEmpty  = "/plain/Empty"
	plainReady  = "/plain/Ready"
	plainStream = "/plain/Stream"
)

// plainServer is gRPC with nothing behind it.
type plainServer struct {
	address string
	conn    *grpc.ClientConn

	mu   sync.Mutex
	told int
	news chan struct{}
}

func newPlainServer(b *testing.B, ready encodedMessage) *plainServer {
	p := &plainServer{told: 2, news: make(chan struct{})}
	empty := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		return new(emptypb.Empty), decode(new(emptypb.Empty))
	}
	answer := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		return ready, decode(new(pylokv1.StatusRequest))
	}
	stream := func(_ any, stream grpc.ServerStream) error {
		for sent := 0; ; sent++ {
			told, news := p.look()
			for sent == told {
				select {
				case <-news:
				case <-stream.Context().Done():
					return nil
				}
				told, news = p.look()
			}
			if err := stream.SendMsg(ready); err != nil {
				return err
			}
		}
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(newEncodedCodec()))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "plain",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Empty", Handler: empty}, {MethodName: "Ready", Handler: answer}},
		Streams:     []grpc.StreamDesc{{StreamName: "Stream", Handler: stream, ServerStreams: true}},
	}, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go server.Serve(listener)
	b.Cleanup(server.Stop)
	p.address = listener.Addr().String()
	p.conn = p.dial(b)
	return p
}

func (p *plainServer) dial(t testing.TB) *grpc.ClientConn {
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// tellAll has each stream send one message more.
func (p *plainServer) tellAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told++
	close(p.news)
	p.news = make(chan struct{})
}

// look returns how many messages each stream is to have sent, and what is closed when
// there are more.
func (p *plainServer) look() (told int, news <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told, p.news
}
