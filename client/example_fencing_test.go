package client_test

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// account is a resource that a lock protects. It keeps the highest token that it has
// seen.
type account struct {
	mu      sync.Mutex
	highest lock.Token
	amount  int
}

// Write is refused to a holder that has lost its lock.
func (a *account) Write(token lock.Token, amount int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token < a.highest {
		return fmt.Errorf("token %d is stale: %d has written", token, a.highest)
	}
	a.highest, a.amount = token, amount
	return nil
}

// Alice stops for longer than her ttl, between her last look at the lock and her write.
// When she goes on, bob has the lock. No lease can prevent that; the account can.
func Example_fencing() {
	address, stop := startServer()
	defer stop()

	c, err := client.Dial(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	name := lock.MustParseName("accounts/7")
	var savings account

	// Alice takes the lock, and stops: this hold is not renewed.
	alice, err := c.Lock(ctx, lock.LockRequest{Name: name, Holder: "alice", TTL: 100 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}

	// Bob stands in line; when alice's lease has run out, the lock is his.
	bob, err := c.Acquire(ctx, "accounts/7", client.WithHolder("bob"), client.WithWait(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Release(ctx)
	fmt.Println("bob writes:", savings.Write(bob.Token(), 120))

	// Alice goes on where she stopped.
	fmt.Println("alice writes:", savings.Write(alice.Lock.Token, 80))
	fmt.Println("the amount is", savings.amount)
	// Output:
	// bob writes: <nil>
	// alice writes: token 1 is stale: 3 has written
	// the amount is 120
}
