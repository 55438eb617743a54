// Command go shows pylok from Go: it locks with data, watches from a second
// connection, is refused as a third, and unlocks. PYLOK_ADDRESS says where the
// server is.
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"os"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

const name = "examples/server-1"

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	alice, err := dial()
	if err != nil {
		return err
	}
	defer alice.Close()
	watcher, err := dial()
	if err != nil {
		return err
	}
	defer watcher.Close()
	bob, err := dial()
	if err != nil {
		return err
	}
	defer bob.Close()

	// The hold renews itself; hold.Bind makes a context for work that ends with it, and
	// hold.Asked tells that somebody asks for the lock. AcquireSet takes several, all or none.
	hold, err := alice.Acquire(ctx, name, client.WithHolder("alice"), client.WithData(document("App1", "MAINT")))
	if err != nil {
		return err
	}
	defer hold.Release(ctx)
	fmt.Printf("locked %s, token %d\n", name, hold.Token())

	next, stop := iter.Pull2(watcher.Watch(ctx, "examples/*", 0))
	defer stop()
	if err := follow(next, lock.Synced); err != nil {
		return err
	}

	_, err = bob.Acquire(ctx, name, client.WithHolder("bob"))
	var refused *lock.Error
	if !errors.As(err, &refused) || refused.Lock == nil {
		return fmt.Errorf("bob was not refused as he should be: %w", err)
	}
	fmt.Printf("refused: %s by %s\n", refused.Reason, refused.Lock.Holder)

	if err := hold.Release(ctx, client.WithClosingData(document("App1", "READY"))); err != nil {
		return err
	}
	fmt.Printf("unlocked %s\n", name)
	return follow(next, lock.Unlocked)
}

func dial() (*client.Client, error) {
	return client.Dial(os.Getenv("PYLOK_ADDRESS"), client.Options{})
}

func document(backend, status string) lock.Data {
	data, err := lock.NewData(map[string]any{"backend": backend, "status": status})
	if err != nil {
		panic(err)
	}
	return data
}

// follow prints the events of a watch up to the first of a type.
func follow(next func() (lock.Event, error, bool), last lock.EventType) error {
	for {
		event, err, _ := next()
		if err != nil {
			return err
		}
		if event.Type == lock.Locked || event.Type == lock.Unlocked {
			fmt.Printf("watching: %v by %s, %s\n", event.Type, event.Lock.Holder, event.Lock.Data.Map()["status"])
		}
		if event.Type == last {
			return nil
		}
	}
}
