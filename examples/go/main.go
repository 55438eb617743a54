// Command go shows pylok from Go: it locks with data, watches from a second
// connection, is refused as a third, and unlocks. PYLOK_ADDRESS says where the
// server is.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
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

	held, err := alice.Service().Lock(ctx, &pylokv1.LockRequest{
		Name:   name,
		Holder: "alice",
		Data:   document("App1", "MAINT"),
	})
	if err != nil {
		return err
	}
	fmt.Printf("locked %s, token %d\n", name, held.GetLock().GetToken())

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := watcher.Service().Watch(ctx, &pylokv1.WatchRequest{Pattern: "examples/*"})
	if err != nil {
		return err
	}
	if err := follow(stream, pylokv1.EventType_EVENT_TYPE_SYNCED); err != nil {
		return err
	}

	_, err = bob.Service().Lock(ctx, &pylokv1.LockRequest{Name: name, Holder: "bob"})
	var refused *lock.Error
	if !errors.As(err, &refused) || refused.Lock == nil {
		return fmt.Errorf("bob was not refused as he should be: %w", err)
	}
	fmt.Printf("refused: %s by %s\n", refused.Reason, refused.Lock.Holder)

	if _, err := alice.Service().Unlock(ctx, &pylokv1.UnlockRequest{
		Name:  name,
		Token: held.GetLock().GetToken(),
		Data:  document("App1", "READY"),
	}); err != nil {
		return err
	}
	fmt.Printf("unlocked %s\n", name)
	return follow(stream, pylokv1.EventType_EVENT_TYPE_UNLOCKED)
}

func dial() (*client.Client, error) {
	return client.Dial(cmp.Or(os.Getenv("PYLOK_ADDRESS"), client.DefaultAddress), client.Options{})
}

func document(backend, status string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"backend": structpb.NewStringValue(backend),
		"status":  structpb.NewStringValue(status),
	}}
}

// follow prints the events of a stream up to the first of a type.
func follow(stream pylokv1.LockService_WatchClient, last pylokv1.EventType) error {
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		event := response.GetEvent()
		fields := event.GetLock().GetData().GetFields()
		switch event.GetType() {
		case pylokv1.EventType_EVENT_TYPE_LOCKED:
			fmt.Printf("watching: locked by %s, %s\n", event.GetLock().GetHolder(), fields["status"].GetStringValue())
		case pylokv1.EventType_EVENT_TYPE_UNLOCKED:
			fmt.Printf("watching: unlocked by %s, %s\n", event.GetLock().GetHolder(), fields["status"].GetStringValue())
		}
		if event.GetType() == last {
			return nil
		}
	}
}
