package memstore_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

var wrong = flag.String("mutant", "", "which mutant the suite is to run on")

// mutants are stores that break a promise each, by what they do with a commit.
var mutants = map[string]struct {
	caught string // the test that must catch it
	commit func(ctx context.Context, s lock.Store, changes []lock.Change, guards []lock.Guard) ([]lock.Event, error)
}{
	"guards that are not checked": {"TestStore/GuardsOfMany", func(ctx context.Context, s lock.Store, changes []lock.Change, _ []lock.Guard) ([]lock.Event, error) {
		return s.Commit(ctx, changes)
	}},
	"only the first guard is checked": {"TestStore/GuardsOfMany", func(ctx context.Context, s lock.Store, changes []lock.Change, guards []lock.Guard) ([]lock.Event, error) {
		return s.Commit(ctx, changes, guards[:min(1, len(guards))]...)
	}},
	"a set by halves": {"TestStore/SetsOfAll", func(ctx context.Context, s lock.Store, changes []lock.Change, guards []lock.Guard) (events []lock.Event, err error) {
		if len(changes) < 2 {
			return s.Commit(ctx, changes, guards...)
		}
		half := len(changes) / 2
		first, err := s.Commit(ctx, changes[:half], guards...)
		if err != nil {
			return nil, err
		}
		for i := range changes[half:] { // the id of the first half
			if set := &changes[half+i].Lock.Set; changes[half+i].Type == lock.Locked && set.Size > 0 && set.ID == 0 {
				set.ID = first[0].Lock.Token
			}
		}
		for range 10 {
			runtime.Gosched() // others look at what is there
		}
		second, err := s.Commit(ctx, changes[half:], guards...)
		return append(first, second...), err
	}},
	"a set of each hold": {"TestStore/SetIDs", func(ctx context.Context, s lock.Store, changes []lock.Change, guards []lock.Guard) (events []lock.Event, err error) {
		for i := range changes {
			if set := &changes[i].Lock.Set; set.Size > 0 && set.ID == 0 {
				set.ID = lock.Token(i + 1)
			}
		}
		return s.Commit(ctx, changes, guards...)
	}},
	"no hold knows what it replaces": {"TestStore/Previous", func(ctx context.Context, s lock.Store, changes []lock.Change, guards []lock.Guard) (events []lock.Event, err error) {
		events, err = s.Commit(ctx, changes, guards...)
		for i := range events {
			events[i].Previous = 0
		}
		return events, err
	}},
	"a stale hold is like any other": {"TestStore/BecomesStale", func(ctx context.Context, s lock.Store, changes []lock.Change, guards []lock.Guard) (events []lock.Event, err error) {
		for i := range changes {
			changes[i].Lock.StaleTime = changes[i].Lock.AcquireTime
		}
		return s.Commit(ctx, changes, guards...)
	}},
}

// mutant is a store with a mutant's Commit.
type mutant struct {
	lock.Store
	name string
}

func (m mutant) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	return mutants[m.name].commit(ctx, m.Store, changes, guards)
}

// TestMutants has the suite run on stores that break a promise: it must catch each.
func TestMutants(t *testing.T) {
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.ReplaceAll(m.caught, "/", "$/^")+"$", "-mutant="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: "+m.caught) {
				t.Errorf("%s does not catch it (%v):\n%s", m.caught, err, out)
			}
		})
	}
}
