package access_test

import (
	"errors"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/access/bearer"
	"github.com/pylok/pylok/lock"
)

// TestProofEnds: a token that ends while it is used ends the watch, and no call by it
// succeeds after, on a context that has been identified before too.
func TestProofEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [\"group:ci\"], may: [lock], locks: [\"**\"]}\n", nil)
		token, hash := bearer.New()
		end := time.Now().Add(time.Hour)
		g.write(strings.Replace(rulesFor(hash, "  - {who: [\"group:ci\"], may: [lock], locks: [\"**\"]}\n"), "groups:", "expires: "+end.UTC().Format(time.RFC3339)+", groups:", 1))
		if err := g.control.Reload(); err != nil {
			t.Fatal(err)
		}
		ctx := access.WithEvidence(t.Context(), &access.Evidence{Bearer: token})
		caller, err := g.control.Identify(ctx)
		if err != nil || !caller.ExpireTime.Equal(end) {
			t.Fatalf("%+v, %v", caller, err)
		}
		next, stop := iter.Pull2(g.Watch(ctx, caller, lock.WatchRequest{}))
		defer stop()
		for {
			e, err, ok := next()
			if err != nil || !ok {
				t.Fatal(err)
			}
			if e.Type == lock.Synced {
				break
			}
		}
		over := make(chan struct{})
		time.AfterFunc(24*time.Hour, func() { close(over) })
		ended := make(chan error, 1)
		go func() {
			for {
				_, err, ok := next()
				if err != nil || !ok {
					ended <- err
					return
				}
			}
		}()
		select {
		case err := <-ended:
			if !errors.Is(err, lock.ErrUnauthenticated) || time.Now().Before(end) {
				t.Errorf("the watch ended at %v with %v", time.Now(), err)
			}
		case <-over:
			t.Fatal("the watch goes on a day later")
		}
		if caller, err := g.control.Identify(ctx); !errors.Is(err, lock.ErrUnauthenticated) {
			t.Errorf("after its end: %+v, %v", caller, err)
		}
	})
}
