package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

const testRoot = "/srv/locks"

// setup is what a test may choose; the zero value is a server on a new memstore.
type setup struct {
	store   lock.Store
	manager manager.Config
	server  ServerConfig
}

// running is a server on loopback with a client.
type running struct {
	pylokv1.LockServiceClient
	conn    *grpc.ClientConn
	address string
	server  *Server
	service *Service
	manager *manager.Manager
	health  *Health
	log     *logBuffer
}

func serve(t testing.TB, with setup) *running {
	t.Helper()
	if with.store == nil {
		with.store = memstore.New(memstore.Config{})
	}
	manager, err := manager.New(with.store, with.manager)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{
		address: listener.Addr().String(),
		service: New(manager, Config{Root: testRoot, Store: "memory", Version: "v0.0.0-test"}),
		manager: manager,
		health:  NewHealth(),
		log:     &logBuffer{},
	}
	with.server.Health = r.health
	if with.server.Logger == nil {
		with.server.Logger = slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	with.server.Interceptors = []Interceptor{LogCalls(with.server.Logger)}
	r.server = NewServer(r.service, with.server)
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(listener) }()
	t.Cleanup(func() {
		manager.Close()
		r.server.Stop(time.Second)
		if err := <-served; err != nil {
			t.Errorf("Serve returned %v", err)
		}
		if err := with.store.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	r.conn = r.dial(t)
	r.LockServiceClient = pylokv1.NewLockServiceClient(r.conn)
	return r
}

func (r *running) dial(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(r.address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// lock takes a lock that is known to be free.
func (r *running) lock(t testing.TB, request *pylokv1.LockRequest) *pylokv1.Lock {
	t.Helper()
	response, err := r.Lock(t.Context(), request)
	if err != nil {
		t.Fatalf("Lock(%v): %v", request, err)
	}
	return response.GetLock()
}

// waiters waits until a lock has that many waiters.
func (r *running) waiters(t testing.TB, name string, want uint32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		response, err := r.Status(ctx, &pylokv1.StatusRequest{Name: name})
		if err != nil {
			t.Fatalf("waiting for %d waiters of %s: %v", want, name, err)
		}
		if response.GetLock().GetWaiters() == want {
			return
		}
	}
}

// watch opens a stream that ends with the test.
func (r *running) watch(t testing.TB, request *pylokv1.WatchRequest) pylokv1.LockService_WatchClient {
	t.Helper()
	stream, err := r.Watch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// next returns the next n events of a stream.
func next(t testing.TB, stream pylokv1.LockService_WatchClient, n int) []*pylokv1.Event {
	t.Helper()
	var events []*pylokv1.Event
	for range n {
		response, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(events), n, err)
		}
		events = append(events, response.GetEvent())
	}
	return events
}

// document makes a Struct from JSON.
func document(t testing.TB, text string) *structpb.Struct {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatal(err)
	}
	s, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// details are those of a status.
type details struct {
	info      *errdetails.ErrorInfo
	violation *errdetails.BadRequest_FieldViolation
	lock      *pylokv1.Lock
}

// refused checks the code and the reason of an error, and returns its details.
func refused(t testing.TB, err error, code codes.Code, reason lock.Reason) details {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("got %v %q, want code %v", s.Code(), s.Message(), code)
	}
	var d details
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			d.info = detail
		case *errdetails.BadRequest:
			if n := len(detail.GetFieldViolations()); n != 1 {
				t.Errorf("got %d field violations, want 1", n)
			}
			d.violation = detail.GetFieldViolations()[0]
		case *pylokv1.Lock:
			d.lock = detail
		default:
			t.Errorf("got a detail %T %v", detail, detail)
		}
	}
	if d.info.GetReason() != string(reason) {
		t.Errorf("got reason %q, want %q", d.info.GetReason(), reason)
	}
	if d.info.GetDomain() != "pylok" {
		t.Errorf("got domain %q, want pylok", d.info.GetDomain())
	}
	return d
}

// fakeStore is a store whose Commit and Get can be made to fail.
type fakeStore struct {
	lock.Store
	commit func(changes []lock.Change) error // nil error: go on
	get    func(name lock.Name) error
}

// Commit implements lock.Store.
func (s *fakeStore) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	if s.commit != nil {
		if err := s.commit(changes); err != nil {
			return nil, err
		}
	}
	return s.Store.Commit(ctx, changes, guards...)
}

// Get implements lock.Store.
func (s *fakeStore) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	if s.get != nil {
		if err := s.get(name); err != nil {
			return lock.Lock{}, err
		}
	}
	return s.Store.Get(ctx, name)
}

// logBuffer collects a log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.news != nil {
		close(b.news)
		b.news = nil
	}
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// lines waits until there are n lines with a substring, and returns those.
func (b *logBuffer) lines(t testing.TB, n int, with string) []map[string]any {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		var found []map[string]any
		b.mu.Lock()
		for line := range strings.Lines(b.text.String()) {
			if !strings.Contains(line, with) {
				continue
			}
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Errorf("not a JSON line: %q: %v", line, err)
			}
			found = append(found, fields)
		}
		if b.news == nil {
			b.news = make(chan struct{})
		}
		news := b.news
		all := b.text.String()
		b.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-news:
		case <-timeout:
			t.Fatalf("got %d log lines with %q, want %d, in\n%s", len(found), with, n, all)
		}
	}
}

var errDisk = errors.New("write /srv/locks/.pylok/journal/7: input/output error")
