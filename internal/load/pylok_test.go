package load_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/load"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// startPylok returns a service that keeps its locks in memory.
func startPylok(t *testing.T) *load.Pylok {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New(memstore.Config{})
	manager, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pylokv1.RegisterLockServiceServer(server, service.New(manager, service.Config{}))
	go server.Serve(listener)
	t.Cleanup(func() {
		server.Stop()
		manager.Close()
		store.Close()
	})
	target, err := load.NewPylok("alice@ci-7", func() (*client.Client, error) {
		return client.Dial(listener.Addr().String(), client.Options{})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	return target
}

func held(t *testing.T, target *load.Pylok) []*pylokv1.Lock {
	t.Helper()
	response, err := target.Service.List(t.Context(), &pylokv1.ListRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetLocks()
}

var small = load.Measurements([]int{1, 20}, []int{1, 20}, []int{1, 5})

// Every lock is where it was asked for, has a lease, and is released.
func TestPylok(t *testing.T) {
	target := startPylok(t)
	for _, m := range small {
		run, err := m.Run(t.Context(), target, load.Options{Prefix: "bench/x-", Duration: 50 * time.Millisecond})
		if err != nil || run.Count == 0 {
			t.Errorf("%s %d: %d, %v; want some", m.Row, m.Size, run.Count, err)
		}
	}
	if left := held(t, target); len(left) > 0 {
		t.Errorf("%d locks are left: %v", len(left), left[0])
	}
	history, err := target.Service.History(t.Context(), &pylokv1.HistoryRequest{PageSize: 1000})
	if err != nil || len(history.GetEvents()) == 0 {
		t.Fatalf("the history has %d events, %v", len(history.GetEvents()), err)
	}
	for _, event := range history.GetEvents() {
		l := event.GetLock()
		if !strings.HasPrefix(l.GetName(), "bench/x-") || l.GetTtl().AsDuration() != load.TTL || l.GetHolder() != "alice@ci-7" {
			t.Fatalf("a lock is %v, want a name with the prefix, a ttl and the holder", l)
		}
	}
}

// What a run that was cut short has left can be released, and nothing else is.
func TestRelease(t *testing.T) {
	target := startPylok(t)
	other, err := target.Take(t.Context(), "bench/y-lock-0", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range small {
		ctx, cancel := context.WithCancel(t.Context()) // the server learns of it, but not when
		time.AfterFunc(100*time.Millisecond, cancel)
		_, err := m.Run(ctx, target, load.Options{Prefix: "bench/x-", Duration: time.Hour})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s %d: got %v, want what cut it short", m.Row, m.Size, err)
		}
		if err := target.Release(t.Context(), "bench/x-"); err != nil {
			t.Errorf("%s %d: Release: %v", m.Row, m.Size, err)
		}
		time.Sleep(10 * time.Millisecond) // for what could come late
		if left := held(t, target); len(left) != 1 || left[0].GetToken() != other {
			t.Fatalf("%s %d: %d locks are left, want the other one: %v", m.Row, m.Size, len(left), left)
		}
	}
}
