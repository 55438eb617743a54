package client_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// TestLockFileRemoved: `rm` ends a hold within a second or two, an edit does not.
func TestLockFileRemoved(t *testing.T) {
	root := t.TempDir()
	store, err := filestore.Open(t.Context(), filestore.Config{Root: root, PollInterval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	manager, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	address, _ := serve(t, service.New(manager, service.Config{Root: root, Store: "file"}))
	defer manager.Close() // before the server stops, which waits for watches
	c, err := client.Dial(address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hold, err := c.Acquire(t.Context(), "lb/x", client.WithTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release(t.Context())

	file := filepath.Join(root, "lb", "x.lock")
	if err := os.WriteFile(file, []byte("msg: by hand\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for e, err := range c.Watch(t.Context(), "lb/x", lock.Revision(hold.Token())) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == lock.Updated {
			break
		}
	}
	goesOn(t, hold)

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	select {
	case <-hold.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the hold goes on without its file")
	}
	<-hold.Context().Done()
	if lost := isLost(t, hold); lost.Cause != lock.File {
		t.Errorf("got %+v, want the cause file", lost)
	}
}

// TestExpiry: over TCP, by the machine's clock: a lease that is not renewed in time is
// lost on both sides, and never on the server first.
func TestExpiry(t *testing.T) {
	address, stop := startServer()
	defer stop()
	suspended := &clock{started: time.Now()}
	c, err := client.DialTest(address, client.Options{}, suspended.now)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const ttl = 500 * time.Millisecond
	stopped, err := c.Lock(t.Context(), lock.LockRequest{Name: lock.MustParseName("stopped"), TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	hold, err := c.Acquire(t.Context(), "x", client.WithTTL(ttl))
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release(t.Context())
	// Stand in line for what is not renewed.
	next, err := c.Acquire(t.Context(), "stopped", client.WithWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Release(t.Context())
	if next.Token() <= stopped.Lock.Token {
		t.Errorf("token %d follows %d", next.Token(), stopped.Lock.Token)
	}
	_, err = c.Renew(t.Context(), lock.RenewRequest{Name: stopped.Lock.Name, Token: stopped.Lock.Token, TTL: ttl})
	if !errors.Is(err, lock.ErrNotHolder) {
		t.Errorf("got %v, want NOT_HOLDER", err)
	}
	// Wait for as long again, by the server's clock, while the other is renewed.
	other, err := c.Lock(t.Context(), lock.LockRequest{Name: lock.MustParseName("other"), TTL: 3 * ttl})
	if err != nil {
		t.Fatal(err)
	}
	after, err := c.Lock(t.Context(), lock.LockRequest{Name: other.Lock.Name, Wait: time.Minute})
	if err != nil || after.Queued < 2*ttl {
		t.Fatalf("got %+v, %v", after, err)
	}
	goesOn(t, hold)
	suspended.suspend(ttl)
	if err := hold.Err(); !errors.Is(err, client.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}
