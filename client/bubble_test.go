package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// bubble is a server over a memstore and the network to it, within synctest's bubble:
// gRPC runs there too, over bufconn. A goroutine that is left over at the end fails the
// test.
//
// The Manager's own leases run on the machine's clock and so hardly at all; the end of
// a lease is told through the store.
type bubble struct {
	t     *testing.T
	store *memstore.Store

	manager  *manager.Manager
	server   *grpc.Server
	listener *bufconn.Listener
	network  *network

	mu            sync.Mutex
	calls         []call
	before, after func(method string) error
	older         bool               // it knows no more than exclusive locks that end
	altersAnswer  func(response any) // before it is sent, if set
	noWatch       error              // the answer to Watch, if set
	watchTells    []*pylokv1.Event   // what Watch tells before that
	watchDelay    time.Duration      // before Watch is answered
}

// beforeCalls has f called before each call is carried out; its error, if there is
// one, is the answer.
func (b *bubble) beforeCalls(f func(method string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = f
}

// afterCalls has f called when a call has been carried out and not yet answered; its
// error, if there is one, is the answer.
func (b *bubble) afterCalls(f func(method string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.after = f
}

// afterOne is afterCalls for the first call of a method alone.
func (b *bubble) afterOne(method string, f func()) { b.afterCalls(firstOf(method, f)) }

// beforeOne is beforeCalls for the first call of a method alone.
func (b *bubble) beforeOne(method string, f func()) { b.beforeCalls(firstOf(method, f)) }

// isOlder makes the server one that knows no more than exclusive locks that end, or not.
func (b *bubble) isOlder(older bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.older = older
}

// alterAnswers has f change what the server answers.
func (b *bubble) alterAnswers(f func(response any)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.altersAnswer = f
}

// firstOf calls f for the first call of a method. Later ones do not wait for it.
func firstOf(method string, f func()) func(method string) error {
	var called atomic.Bool
	return func(m string) error {
		if m == method && called.CompareAndSwap(false, true) {
			f()
		}
		return nil
	}
}

// call is one that the server got.
type call struct {
	method string
	at     time.Time
}

// inBubble runs a test with a server.
func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{
			t:       t,
			store:   memstore.New(memstore.Config{}),
			network: &network{conns: map[*conn]struct{}{}},
		}
		b.start()
		t.Cleanup(func() { b.store.Close() })
		t.Cleanup(b.stop)
		test(t, b)
	})
}

// start starts the server.
func (b *bubble) start() {
	manager, err := manager.New(b.store, manager.Config{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.manager = manager
	b.listener = bufconn.Listen(1 << 20)
	b.server = grpc.NewServer(grpc.UnaryInterceptor(b.intercept), grpc.StreamInterceptor(b.interceptStream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))
	pylokv1.RegisterLockServiceServer(b.server, service.New(manager, service.Config{Store: "memory"}))
	b.network.listener.Store(b.listener)
	go b.server.Serve(b.listener)
}

// stop stops the server as a kill does, as far as clients can see.
func (b *bubble) stop() {
	b.network.listener.Store(nil)
	b.network.cut()
	b.server.Stop()
	b.manager.Close()
}

func (b *bubble) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	before, after := b.record(method)
	b.mu.Lock()
	older, alters := b.older, b.altersAnswer
	b.mu.Unlock()
	if older {
		if slices.Contains([]string{"LockSet", "UnlockSet", "RenewSet", "HandOver", "Ask", "Dismiss"}, method) {
			return nil, status.Errorf(codes.Unimplemented, "unknown method %s for service pylok.v1.LockService", method)
		}
		if request, ok := request.(*pylokv1.LockRequest); ok {
			fields := request.ProtoReflect()
			for i := range fields.Descriptor().Fields().Len() {
				if field := fields.Descriptor().Fields().Get(i); field.Number() > 8 {
					fields.Clear(field)
				}
			}
		}
	}
	if before != nil {
		if err := before(method); err != nil {
			return nil, err
		}
	}
	response, err := handler(ctx, request)
	if info, ok := response.(*pylokv1.InfoResponse); ok && older {
		info.Features = nil
	}
	if alters != nil && err == nil {
		alters(response)
	}
	if after != nil {
		if err := after(method); err != nil {
			return nil, err
		}
	}
	return response, err
}

func (b *bubble) interceptStream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	b.record(path.Base(info.FullMethod))
	b.mu.Lock()
	noWatch := b.noWatch
	b.mu.Unlock()
	if noWatch != nil {
		for _, event := range b.watchTells {
			if err := stream.SendMsg(&pylokv1.WatchResponse{Event: event}); err != nil {
				return err
			}
		}
		return noWatch
	}
	time.Sleep(b.watchDelay)
	return handler(service, stream)
}

func (b *bubble) record(method string) (before, after func(method string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, call{method, time.Now()})
	return b.before, b.after
}

// callsOf returns when the server got calls of a method.
func (b *bubble) callsOf(method string) (times []time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.calls {
		if c.method == method {
			times = append(times, c.at)
		}
	}
	return times
}

// client makes a client, whose leases run on a clock of its own.
func (b *bubble) client() (*client.Client, *clock) { return b.clientWith(client.Options{}) }

func (b *bubble) clientWith(options client.Options) (*client.Client, *clock) {
	b.t.Helper()
	clock := &clock{started: time.Now()}
	c, err := client.DialTest("127.0.0.1:5625", options, clock.now, grpc.WithContextDialer(b.network.dial))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c, clock
}

// acquire takes a lock.
func (b *bubble) acquire(c *client.Client, name string, options ...client.AcquireOption) *client.Hold {
	b.t.Helper()
	hold, err := c.Acquire(b.t.Context(), name, options...)
	if err != nil {
		b.t.Fatalf("Acquire(%s): %v", name, err)
	}
	b.t.Cleanup(func() { hold.Release(context.Background()) })
	return hold
}

// commit changes the present hold of a lock in the store, past the Manager.
func (b *bubble) commit(name string, eventType lock.EventType, cause lock.Cause, actor, reason string) {
	b.t.Helper()
	b.commitLock(name, eventType, cause, actor, reason, func(*lock.Lock) {})
}

// becomeStale has the time of a hold be over that is kept, as the Manager does.
func (b *bubble) becomeStale(name string) {
	b.t.Helper()
	b.commitLock(name, lock.Updated, lock.Expired, "", "", func(l *lock.Lock) {
		l.OnExpiry, l.StaleTime = lock.Keep, time.Now().UTC()
	})
}

// commitLock is commit with a change of the lock.
func (b *bubble) commitLock(name string, eventType lock.EventType, cause lock.Cause, actor, reason string, change func(*lock.Lock)) {
	b.t.Helper()
	l, err := b.store.Get(b.t.Context(), lock.MustParseName(name))
	if err != nil {
		b.t.Fatal(err)
	}
	change(&l)
	_, err = b.store.Commit(b.t.Context(), []lock.Change{{
		Type: eventType, Cause: cause, Actor: actor, Reason: reason, Prev: l.Revision, Lock: l,
	}})
	if err != nil {
		b.t.Fatal(err)
	}
}

// forget makes so many changes that the store no longer has those before.
func (b *bubble) forget() {
	b.t.Helper()
	other := lock.Lock{Name: lock.MustParseName("other")}
	for range 5000 {
		for _, eventType := range []lock.EventType{lock.Locked, lock.Unlocked} {
			events, err := b.store.Commit(b.t.Context(), []lock.Change{{Type: eventType, Cause: lock.Request, Prev: other.Revision, Lock: other}})
			if err != nil {
				b.t.Fatal(err)
			}
			other = events[0].Lock
		}
		other = lock.Lock{Name: other.Name}
	}
}

// events returns the history of all locks, a line each.
func (b *bubble) events() (lines []string) {
	b.t.Helper()
	page, err := b.manager.History(context.Background(), lock.Caller{}, lock.HistoryQuery{}, 0, 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range page.Events {
		lines = append(lines, fmt.Sprintf("%d %v %v %v", e.Revision, e.Type, e.Cause, e.Lock.Name))
	}
	return lines
}

// clock is a boot clock that can be moved on, as suspend does.
type clock struct {
	started   time.Time
	suspended atomic.Int64 // a time.Duration
}

func (c *clock) now() time.Duration {
	return time.Since(c.started) + time.Duration(c.suspended.Load())
}

// suspend moves the boot clock, and no timer.
func (c *clock) suspend(d time.Duration) { c.suspended.Add(int64(d)) }

// network connects clients to the server.
type network struct {
	listener atomic.Pointer[bufconn.Listener] // nil: nobody listens

	mu    sync.Mutex
	conns map[*conn]struct{}
	dials int
}

func (n *network) dial(ctx context.Context, _ string) (net.Conn, error) {
	listener := n.listener.Load()
	if listener == nil {
		return nil, errors.New("connection refused")
	}
	inner, err := listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = struct{}{}
	n.dials++
	return c, nil
}

// each calls f for every connection made so far.
func (n *network) each(f func(*conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		f(c)
	}
}

// cut breaks all connections.
func (n *network) cut() { n.each(func(c *conn) { c.Close() }) }

// silence lets nothing through any more on the connections that there are.
func (n *network) silence() { n.each(func(c *conn) { c.silent.Store(true) }) }

// conn is a connection that can go silent.
type conn struct {
	net.Conn
	silent atomic.Bool
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if !c.silent.Load() || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}
