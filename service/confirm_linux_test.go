package service

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/isolate"
	"github.com/pylok/pylok/lock"
)

// TestGrantBehindADeadLink has a waiter whose link dies. The lock does not stay with it,
// nor does any of a set: the next in line has it.
func TestGrantBehindADeadLink(t *testing.T) {
	if !isolate.EnterNetwork(t) {
		return
	}
	r := serve(t, setup{})
	r.service.confirmWithin = 500 * time.Millisecond
	forever := durationpb.New(time.Hour)
	for _, wait := range []func(context.Context){
		func(ctx context.Context) {
			r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Holder: "dead", Wait: forever})
		},
		func(ctx context.Context) {
			r.LockSet(ctx, &pylokv1.LockSetRequest{Names: []string{"a", "b"}, Holder: "dead", Wait: forever})
		},
	} {
		name := lock.MustParseName("a")
		held, err := r.manager.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: name, Holder: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			wait(ctx)
		}()
		r.waiters(t, "a", 1)
		next := make(chan lock.Grant, 1)
		go func() {
			g, err := r.manager.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: name, Holder: "next", Wait: time.Hour})
			if err != nil {
				t.Error(err)
			}
			next <- g
		}()
		for { // in line
			l, err := r.manager.Status(t.Context(), lock.Caller{}, name)
			if err != nil {
				t.Fatal(err)
			}
			if l.Waiters == 2 {
				break
			}
			runtime.Gosched()
		}
		isolate.SetLoopback(t, false)
		for !quietFor(r, 100*time.Millisecond) { // what had come before may not have been read yet
			time.Sleep(time.Millisecond)
		}
		silentFor(r, silentAfter)
		if _, err := r.manager.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: name, Token: held.Lock.Token}); err != nil {
			t.Fatal(err)
		}
		var g lock.Grant
		select {
		case g = <-next:
			if g.Lock.Holder != "next" {
				t.Errorf("granted %+v", g.Lock)
			}
		case <-time.After(time.Minute):
			l, err := r.manager.Status(t.Context(), lock.Caller{}, name)
			t.Fatalf("the lock is %+v (%v), want the next in line to have it", l, err)
		}
		if l, err := r.manager.Status(t.Context(), lock.Caller{}, lock.MustParseName("b")); err != nil || l.Held() {
			t.Errorf("the rest of the set is %+v (%v), want it free", l, err)
		}
		isolate.SetLoopback(t, true)
		cancel()
		<-left
		if _, err := r.manager.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: name, Token: g.Lock.Token}); err != nil {
			t.Fatal(err)
		}
	}
}

// quietFor reports whether the server has heard nothing from its clients for so long.
func quietFor(r *running, d time.Duration) bool {
	r.server.connections.mu.Lock()
	defer r.server.connections.mu.Unlock()
	for c := range r.server.connections.open {
		if c.silence() < d {
			return false
		}
	}
	return true
}

// silentFor has the server believe that it has heard nothing from its clients for so long.
func silentFor(r *running, d time.Duration) {
	r.server.connections.mu.Lock()
	defer r.server.connections.mu.Unlock()
	for c := range r.server.connections.open {
		c.heard.Store(time.Now().Add(-d).UnixNano())
	}
}

// TestGrantToASilentClient has a client wait that has not been heard for long and is
// there: it is told at once, and no request is sent twice.
func TestGrantToASilentClient(t *testing.T) {
	r := serve(t, setup{})
	for range 20 {
		hold := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "alice"})
		answered := make(chan *pylokv1.LockResponse, 1)
		go func() {
			response, err := r.Lock(t.Context(), &pylokv1.LockRequest{Name: "a", Holder: "bob", Wait: durationpb.New(time.Hour)})
			if err != nil {
				t.Error(err)
			}
			answered <- response
		}()
		r.waiters(t, "a", 1)
		silentFor(r, time.Hour)
		// By the manager: a call would be heard.
		if _, err := r.manager.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: lock.MustParseName("a"), Token: lock.Token(hold.GetToken())}); err != nil {
			t.Fatal(err)
		}
		response := <-answered
		if response.GetLock().GetHolder() != "bob" {
			t.Fatalf("granted %v", response)
		}
		if _, err := r.manager.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: lock.MustParseName("a"), Token: lock.Token(response.GetLock().GetToken())}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIsAcknowledged looks at what tells a client that is there from one that is not.
func TestIsAcknowledged(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for { // its acknowledgement may be on its way
		is, err := isAcknowledged(server)
		if err != nil {
			t.Fatal(err)
		}
		if is {
			break
		}
		runtime.Gosched()
	}
	// More than fits: the client does not read.
	if err := server.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = server.Write(make([]byte, 1<<20))
	}
	if is, err := isAcknowledged(server); is || err != nil {
		t.Errorf("with more sent than fits: %v, %v; want false", is, err)
	}
	server.Close()
	if _, err := isAcknowledged(server); err == nil {
		t.Error("a closed connection has no error")
	}
}
