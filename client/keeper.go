package client

import (
	"context"
	"errors"
	"sync"
)

// keeper knows what a Client has taken and not released, for Close to release it.
type keeper struct {
	off bool // nothing is to be released

	mu     sync.Mutex
	closed bool
	kept   map[releaser]struct{}
}

// releaser is a Hold or a Set.
type releaser interface {
	release(ctx context.Context, options ...ReleaseOption) (lost, err error)
}

// keep notes that something has been taken. It reports false when the Client is closed and
// will not release it.
func (k *keeper) keep(taken releaser) bool {
	if k.off {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil {
		k.kept = map[releaser]struct{}{}
	}
	k.kept[taken] = struct{}{}
	return !k.closed
}

// forget notes that there is nothing to release any more.
func (k *keeper) forget(taken releaser) {
	if k.off {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.kept, taken)
}

// releasesAtOnce is how many releases a Close has under way.
const releasesAtOnce = 32

// close releases what is kept, within releaseWithin in all. What was lost is no error.
func (k *keeper) close() error {
	k.mu.Lock()
	k.closed = true
	kept := make(chan releaser, len(k.kept))
	for taken := range k.kept {
		kept <- taken
	}
	k.mu.Unlock()
	close(kept)
	ctx, cancel := context.WithTimeout(context.Background(), releaseWithin)
	defer cancel()
	var mu sync.Mutex
	var failures []error
	var workers sync.WaitGroup
	for range min(len(kept), releasesAtOnce) {
		workers.Go(func() {
			for taken := range kept {
				if _, err := taken.release(ctx); err != nil {
					mu.Lock()
					failures = append(failures, err)
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(failures...)
}
