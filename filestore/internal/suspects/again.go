package suspects

import (
	"context"
	"sync"
	"time"

	"github.com/pylok/pylok/lock"
)

// againAfter is how long a file rests that could not be looked at.
const againAfter = time.Second

// again is the locks whose files are to be inspected again.
type again struct {
	told chan struct{} // has an element when there are any

	mu    sync.Mutex
	names map[lock.Name]bool
}

func newAgain() again {
	return again{told: make(chan struct{}, 1), names: make(map[lock.Name]bool)}
}

// Again has files inspected soon.
func (f *Finder) Again(names []lock.Name) {
	a := &f.again
	a.mu.Lock()
	for _, name := range names {
		a.names[name] = true
	}
	a.mu.Unlock()
	select {
	case a.told <- struct{}{}:
	default:
	}
}

// AgainLater has files inspected after a pause.
func (f *Finder) AgainLater(names []lock.Name) {
	if len(names) > 0 {
		time.AfterFunc(againAfter, func() { f.Again(names) })
	}
}

// take takes out all of them.
func (a *again) take() (names []lock.Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.names {
		names = append(names, name)
	}
	clear(a.names)
	return names
}

// runAgain has the files inspected until ctx ends.
func (f *Finder) runAgain(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.again.told:
			_ = f.store.Inspect(f.again.take()) // logged, and named again
		}
	}
}
