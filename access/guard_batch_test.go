package access_test

import (
	"iter"
	"testing"
	"testing/synctest"

	"github.com/pylok/pylok/lock"
)

// TestGuardWatchWithinABatch: of changes that came together, none is told after new rules
// hide it, though the watch has them already.
func TestGuardWatchWithinABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [\"*\"], may: [view], locks: [\"**\"]}\n", nil)
		ctx, ci := g.ci()
		next, stop := iter.Pull2(g.Watch(ctx, ci, lock.WatchRequest{}))
		defer stop()
		for range 2 { // reset and synced
			if _, err, _ := next(); err != nil {
				t.Fatal(err)
			}
		}
		g.take("b/1")
		g.take("b/2")
		g.take("b/3")
		if e, err, _ := next(); err != nil || e.Lock.Name.String() != "b/1" {
			t.Fatalf("the watch tells %+v, %v; want b/1", e, err)
		}
		g.change("  - {who: [\"*\"], may: [view], locks: [\"a/**\"]}\n")
		if e, err, _ := next(); err != nil || e.Type != lock.Reset {
			t.Errorf("after new rules the watch tells %s of %s, %v; want reset", e.Type, e.Lock.Name, err)
		}
	})
}
