package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// startServer runs a server in this process; programs have pylokd.
func startServer() (address string, stop func()) {
	store := memstore.New(memstore.Config{})
	manager, err := manager.New(store, manager.Config{})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := service.NewServer(service.New(manager, service.Config{Store: "memory"}), service.ServerConfig{})
	go server.Serve(listener)
	return listener.Addr().String(), func() {
		manager.Close()
		server.Stop(0)
		store.Close()
	}
}

func ExampleClient_Acquire() {
	address, stop := startServer()
	defer stop()

	c, err := client.Dial(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	data, err := lock.NewData(map[string]any{"msg": "canary deployment", "backend": "App1"})
	if err != nil {
		log.Fatal(err)
	}
	hold, err := c.Acquire(ctx, "lb/server-1", client.WithHolder("alice@ci-7"), client.WithData(data))
	if err != nil {
		log.Fatal(err)
	}
	deploy := func(ctx context.Context, token lock.Token) { fmt.Println("token", token, hold.Lock().Data.JSON()) }
	work, cancel := hold.Bind(ctx) // ends with ctx, and with the hold
	defer cancel()
	deploy(work, hold.Token()) // what it writes to checks the token

	_, err = c.Acquire(ctx, "lb/server-1", client.WithHolder("bob@laptop"))
	if refusal, ok := errors.AsType[*lock.Error](err); ok && errors.Is(err, lock.ErrLockHeld) {
		fmt.Println(refusal.Lock.Name, "is held by", refusal.Lock.Holder)
	}

	if err := hold.Release(ctx, client.WithReason("canary complete")); err != nil {
		log.Fatal(err)
	}
	today := lock.HistoryQuery{Pattern: lock.MustParsePattern("lb/*"), AfterTime: time.Now().Add(-24 * time.Hour)}
	for event, err := range c.History(ctx, today) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %v by %s %q\n", event.Revision, event.Type, event.Actor, event.Reason)
	}
	// Output:
	// token 1 {"backend":"App1","msg":"canary deployment"}
	// lb/server-1 is held by alice@ci-7
	// 1 locked by alice@ci-7 ""
	// 2 unlocked by alice@ci-7 "canary complete"
}

// A hold that is lost cancels its context, and the cause says why.
func ExampleLostError() {
	address, stop := startServer()
	defer stop()

	c, err := client.Dial(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	hold, err := c.Acquire(ctx, "db/orders", client.WithWait(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	defer hold.Release(ctx)

	// Somebody breaks it.
	_, err = c.Unlock(ctx, lock.UnlockRequest{
		Name:   hold.Lock().Name,
		Holder: "bob@laptop",
		Force:  true,
		Reason: "the canary is dead",
	})
	if err != nil {
		log.Fatal(err)
	}

	<-hold.Context().Done()
	err = context.Cause(hold.Context())
	fmt.Println(err)
	if lost, ok := errors.AsType[*client.LostError](err); ok && lost.Cause == lock.Forced {
		fmt.Println("ask", lost.Actor)
	}
	// Output:
	// lost db/orders (token 1): it was broken by bob@laptop: the canary is dead
	// ask bob@laptop
}

func ExampleClient_Watch() {
	address, stop := startServer()
	defer stop()

	c, err := client.Dial(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	if _, err := c.Lock(ctx, lock.LockRequest{Name: lock.MustParseName("lb/server-1")}); err != nil {
		log.Fatal(err)
	}
	held := map[lock.Name]bool{}
	for event, err := range c.Watch(ctx, "lb/**", 0) {
		if err != nil {
			log.Fatal(err) // only when ctx ends: a lost connection is made again
		}
		switch event.Type {
		case lock.Reset:
			clear(held)
		case lock.Locked:
			held[event.Lock.Name] = true
		case lock.Unlocked:
			delete(held, event.Lock.Name)
		case lock.Synced:
			fmt.Println(len(held), "held as of revision", event.Revision)
			return
		}
	}
	// Output: 1 held as of revision 1
}
