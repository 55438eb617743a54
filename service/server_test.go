package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

func TestPanic(t *testing.T) {
	store := &fakeStore{
		Store: memstore.New(memstore.Config{}),
		get: func(name lock.Name) error {
			if name.String() == "panic" {
				panic("boom at /srv/secret")
			}
			return nil
		},
	}
	r := serve(t, setup{store: store})
	_, err := r.Status(t.Context(), &pylokv1.StatusRequest{Name: "panic"})
	if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != internalText || len(s.Details()) != 0 {
		t.Errorf("got %v, want INTERNAL with the constant text alone", s)
	}
	line := r.log.lines(t, 1, `"code":"Internal"`)[0]
	if line["error"] != "panic: boom at /srv/secret" || line["level"] != "ERROR" || line["name"] != "panic" {
		t.Errorf("the log: got %v, want the panic as an error", line)
	}
	if stack, _ := line["stack"].(string); !strings.Contains(stack, "server_test.go") {
		t.Errorf("the log: got stack %q, want one that leads here", stack)
	}
	r.lock(t, &pylokv1.LockRequest{Name: "other"})
}

func TestLog(t *testing.T) {
	r := serve(t, setup{})
	r.lock(t, &pylokv1.LockRequest{Name: "lb/web-1", Holder: "alice", RequestId: "id", Data: document(t, `{"msg": "hush-hush"}`)})
	line := r.log.lines(t, 1, "LockService/Lock")[0]
	for key, want := range map[string]string{
		"level":  "DEBUG",
		"msg":    "call finished",
		"method": "/pylok.v1.LockService/Lock",
		"code":   "OK",
		"name":   "lb/web-1",
		"holder": "alice",
	} {
		if line[key] != want {
			t.Errorf("%s: got %v, want %s", key, line[key], want)
		}
	}
	if peer, _ := line["peer"].(string); !strings.HasPrefix(peer, "127.0.0.1:") {
		t.Errorf("peer: got %v, want the client's address", line["peer"])
	}
	if duration, _ := line["duration"].(float64); duration <= 0 {
		t.Errorf("duration: got %v, want how long it took", line["duration"])
	}

	_, err := r.Lock(t.Context(), &pylokv1.LockRequest{Name: "lb/web-1", Holder: "bob"})
	refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld)
	if line := r.log.lines(t, 1, "LOCK_HELD")[0]; line["level"] != "INFO" || line["code"] != "FailedPrecondition" {
		t.Errorf("a refusal: got %v", line)
	}
	_, err = r.Lock(t.Context(), &pylokv1.LockRequest{Name: strings.Repeat("long\n", 100)})
	refused(t, err, codes.InvalidArgument, lock.ErrInvalidName)
	if line := r.log.lines(t, 1, "INVALID_NAME")[0]; len(line["name"].(string)) > maxLoggedBytes+3 {
		t.Errorf("a long name: got %v", line)
	}

	set, err := r.LockSet(t.Context(), &pylokv1.LockSetRequest{Names: []string{"a", "b"}, Choices: []*pylokv1.Choice{{Names: []string{"c", "d"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if line := r.log.lines(t, 1, "LockService/LockSet")[0]; line["names"] != "a b c d" {
		t.Errorf("a set: got %v", line)
	}
	if _, err := r.UnlockSet(t.Context(), &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "a", Token: set.GetLocks()[0].GetToken()}, {Name: "z", Token: 1}}}); err != nil {
		t.Fatal(err)
	}
	if line := r.log.lines(t, 1, "LockService/UnlockSet")[0]; line["names"] != "a z" {
		t.Errorf("the end of a set: got %v", line)
	}
	_, err = r.LockSet(t.Context(), &pylokv1.LockSetRequest{Names: slices.Repeat([]string{"name"}, 10_000)})
	refused(t, err, codes.InvalidArgument, lock.ErrInvalidArgument)
	if line := r.log.lines(t, 1, "INVALID_ARGUMENT")[0]; len(line["names"].(string)) > maxLoggedBytes+3 {
		t.Errorf("many names: got %v", line)
	}

	ctx, cancel := contextOf(t)
	stream, err := r.Watch(ctx, &pylokv1.WatchRequest{Pattern: "lb/**"})
	if err != nil {
		t.Fatal(err)
	}
	next(t, stream, 3)
	if line := r.log.lines(t, 1, "stream began")[0]; line["pattern"] != "lb/**" || line["method"] != "/pylok.v1.LockService/Watch" {
		t.Errorf("a stream's beginning: got %v", line)
	}
	cancel()
	if line := r.log.lines(t, 1, "Canceled")[0]; line["pattern"] != "lb/**" || line["msg"] != "call finished" {
		t.Errorf("a stream's end: got %v", line)
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if strings.Contains(r.log.text.String(), "hush") {
		t.Errorf("the log shows data:\n%s", r.log.text.String())
	}
}

func TestReflection(t *testing.T) {
	r := serve(t, setup{})
	stream, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	services := fmt.Sprint(response.GetListServicesResponse().GetService())
	for _, want := range []string{"pylok.v1.LockService", "grpc.health.v1.Health"} {
		if !strings.Contains(services, want) {
			t.Errorf("got %s, want %s in it", services, want)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestHealth(t *testing.T) {
	r := serve(t, setup{})
	client := healthv1.NewHealthClient(r.conn)
	check := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, name := range []string{"", "pylok.v1.LockService"} {
			response, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: name})
			if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
			if response.GetStatus() != want {
				t.Errorf("%q: got %v, want %v", name, response.GetStatus(), want)
			}
		}
	}
	ctx, cancel := contextOf(t)
	defer cancel()
	stream, err := client.Watch(ctx, &healthv1.HealthCheckRequest{Service: "pylok.v1.LockService"})
	if err != nil {
		t.Fatal(err)
	}
	told := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if response.GetStatus() != want {
			t.Errorf("the stream: got %v, want %v", response.GetStatus(), want)
		}
	}
	check(healthv1.HealthCheckResponse_SERVING)
	told(healthv1.HealthCheckResponse_SERVING)
	store, following := r.health.Part(), r.health.Part()
	store(errDisk)
	check(healthv1.HealthCheckResponse_NOT_SERVING)
	told(healthv1.HealthCheckResponse_NOT_SERVING)
	following(errDisk)
	store(nil)
	check(healthv1.HealthCheckResponse_NOT_SERVING) // one part still fails
	following(nil)
	check(healthv1.HealthCheckResponse_SERVING)
	told(healthv1.HealthCheckResponse_SERVING)
	r.health.Shutdown()
	store(nil)
	check(healthv1.HealthCheckResponse_NOT_SERVING)
	told(healthv1.HealthCheckResponse_NOT_SERVING)
}

// stuckConn is a connection whose client stops to read on command.
type stuckConn struct {
	net.Conn
	stop chan struct{}
}

// Read implements net.Conn.
func (c *stuckConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.stop:
		return 0, errors.New("not reading any more")
	default:
		return n, err
	}
}

// Close implements net.Conn: the server is to believe that the client is there.
func (c *stuckConn) Close() error { return nil }

// TestStop stops a server that is full of calls.
func TestStop(t *testing.T) {
	const watches, waiters = 200, 50
	r := serve(t, setup{})
	ctx := t.Context()
	hold := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "h"})
	for i := range 40 {
		r.lock(t, &pylokv1.LockRequest{Name: fmt.Sprintf("big/%d", i), Data: document(t, fmt.Sprintf(`{"x": %q}`, strings.Repeat("x", 60<<10)))})
	}

	var ends sync.WaitGroup
	codesOf := make(chan codes.Code, watches+waiters)
	for range watches {
		stream := r.watch(t, &pylokv1.WatchRequest{Pattern: "a"})
		next(t, stream, 3)
		ends.Go(func() {
			_, err := stream.Recv()
			codesOf <- status.Code(err)
		})
	}
	for range waiters {
		ends.Go(func() {
			_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(time.Hour)})
			codesOf <- status.Code(err)
		})
	}
	r.waiters(t, "a", waiters)

	// One client reads no messages: its flow control holds the handler in Send.
	lazy := r.watch(t, &pylokv1.WatchRequest{})
	if _, err := lazy.Header(); err != nil {
		t.Fatal(err)
	}
	// One reads no bytes: not even that the server goes away.
	stop := make(chan struct{})
	deaf := pylokv1.NewLockServiceClient(r.dial(t, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { conn.Close() })
		return &stuckConn{Conn: conn, stop: stop}, nil
	})))
	stream, err := deaf.Watch(ctx, &pylokv1.WatchRequest{Pattern: "big/*"})
	if err != nil {
		t.Fatal(err)
	}
	next(t, stream, 1)
	close(stop)
	// One connects and says nothing: gRPC waits for it, and so does its Stop.
	silent, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	began := time.Now()
	r.health.Shutdown()
	r.manager.Close()
	ends.Wait()
	if finished := r.server.Stop(500 * time.Millisecond); finished {
		t.Error("Stop says that all calls finished, and some could not")
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v, want less than 8 s", took)
	}
	close(codesOf)
	for code := range codesOf {
		if code != codes.Unavailable {
			t.Errorf("a call ended with %v, want %v", code, codes.Unavailable)
		}
	}
	l, err := r.manager.Status(context.Background(), lock.Caller{}, lock.MustParseName("a"))
	if err != nil || uint64(l.Token) != hold.GetToken() {
		t.Errorf("after the stop: got %v, %v, want the hold as it was", l, err)
	}
}

// stuckStore returns a store whose one commit closes committing and takes until goOn is
// closed.
func stuckStore() (store lock.Store, committing, goOn chan struct{}) {
	committing, goOn = make(chan struct{}), make(chan struct{})
	return &fakeStore{
		Store: memstore.New(memstore.Config{}),
		commit: func([]lock.Change) error {
			close(committing)
			<-goOn
			return nil
		},
	}, committing, goOn
}

// TestStopLetsCallsFinish: a call that runs is answered before the connection goes.
func TestStopLetsCallsFinish(t *testing.T) {
	store, committing, goOn := stuckStore()
	r := serve(t, setup{store: store})
	answered := make(chan error, 1)
	go func() {
		_, err := r.Lock(t.Context(), &pylokv1.LockRequest{Name: "a"})
		answered <- err
	}()
	<-committing
	r.manager.Close()
	stopped := make(chan bool, 1)
	go func() { stopped <- r.server.Stop(20 * time.Second) }()
	close(goOn)
	if err := <-answered; err != nil {
		t.Errorf("the call: got %v, want its answer", err)
	}
	if !<-stopped {
		t.Error("Stop says that it cut a call off")
	}
}

// TestManyWaitersOnOneConnection: more than the 20,000 that are asked for fit.
func TestManyWaitersOnOneConnection(t *testing.T) {
	if testing.Short() {
		t.Skip("20,000 goroutines on each side")
	}
	const waiters = 20_000
	r := serve(t, setup{manager: manager.Config{MaxWaiters: waiters}})
	r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "h"})
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range waiters {
		waiting.Go(func() {
			_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(time.Hour)})
			refusedCode(t, err, codes.Canceled)
		})
	}
	deadline := time.After(2 * time.Minute)
	for {
		response, err := r.Status(ctx, &pylokv1.StatusRequest{Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if response.GetLock().GetWaiters() == waiters {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("got %d waiters, want %d", response.GetLock().GetWaiters(), waiters)
		default:
		}
	}
	cancel()
	waiting.Wait()
	r.waiters(t, "a", 0)
}

// TestPingsAsPromised: the contract lets a client ping every 10 s. The server allows for
// pings that come sooner after each other than they were sent.
func TestPingsAsPromised(t *testing.T) {
	const promised = 10 * time.Second
	if minClientPing > promised/2 {
		t.Errorf("the server takes pings every %v, and the contract says %v", minClientPing, promised)
	}
}

// TestWhatWaitersKeep: a request that waits keeps its document, and not the message that
// brought it, which may be many times as large.
func TestWhatWaitersKeep(t *testing.T) {
	r := serve(t, setup{})
	r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "h"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	message := func() (data weak.Pointer[structpb.Struct]) {
		request := &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(time.Hour), Data: document(t, `{"x": [1, 2, 3]}`)}
		data = weak.Make(request.Data)
		go func() {
			_, err := r.service.Lock(ctx, request)
			ended <- err
		}()
		return data
	}()
	r.waiters(t, "a", 1)
	for deadline := time.Now().Add(time.Minute); message.Value() != nil; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("the message is kept")
		}
	}
	cancel()
	refusedCode(t, <-ended, codes.Canceled)
}
