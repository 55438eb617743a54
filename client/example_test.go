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

// Two databases and any one of three slots are taken in one step, and given back in one.
func ExampleClient_AcquireSet() {
	address, stop := startServer()
	defer stop()

	c, err := client.Dial(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	if _, err := c.Lock(ctx, lock.LockRequest{Name: lock.MustParseName("slot/1"), Holder: "bob@laptop"}); err != nil {
		log.Fatal(err)
	}
	set, err := c.AcquireSet(ctx, []string{"db/a", "db/b"}, client.WithChoice(1, "slot/1", "slot/2", "slot/3"))
	if err != nil {
		log.Fatal(err)
	}
	for _, hold := range set.Holds() {
		fmt.Println(hold.Lock().Name, hold.Token())
	}

	work, cancel := set.Bind(ctx) // ends with ctx, and with the first hold that is lost
	defer cancel()
	_ = work

	_, err = c.AcquireSet(ctx, []string{"db/b", "db/c"}, client.WithHolder("carol@ci-7"))
	if refusal, ok := errors.AsType[*lock.Error](err); ok && errors.Is(err, lock.ErrLockHeld) {
		fmt.Println("carol is refused:", refusal.Lock.Name, "is held")
	}
	if err := set.Release(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// db/a 2
	// db/b 3
	// slot/2 4
	// carol is refused: db/b is held
}

// A job goes on under the hold of whoever started it, and hears what is asked of it.
func ExampleClient_Adopt() {
	address, stop := startServer()
	defer stop()

	c, err := client.Dial(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	name := lock.MustParseName("lb/server-1")
	grant, err := c.Lock(ctx, lock.LockRequest{Name: name, Holder: "alice@ci-7", TTL: time.Minute})
	if err != nil {
		log.Fatal(err)
	}

	hold, err := c.Adopt(ctx, "lb/server-1", grant.Lock.Token) // such as from PYLOK_TOKEN
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Ask(ctx, lock.AskRequest{Name: name, Holder: "bob@laptop", Message: "may I have it?"}); err != nil {
		log.Fatal(err)
	}
	ask := <-hold.Asked()
	fmt.Println(ask.Actor, "asks:", ask.Message)
	if err := hold.Release(ctx); err != nil { // or leave it to whoever has taken the lock
		log.Fatal(err)
	}
	// Output: bob@laptop asks: may I have it?
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
