package suspects

import "sync"

// gathered is what is to be looked at, each once, until somebody takes it.
type gathered[T comparable] struct {
	told chan struct{} // has an element when there is anything

	mu  sync.Mutex
	all map[T]struct{}
}

func newGathered[T comparable]() gathered[T] {
	return gathered[T]{told: make(chan struct{}, 1), all: make(map[T]struct{})}
}

func (g *gathered[T]) add(some ...T) {
	g.mu.Lock()
	for _, one := range some {
		g.all[one] = struct{}{}
	}
	g.mu.Unlock()
	select {
	case g.told <- struct{}{}:
	default:
	}
}

// take takes out all of it.
func (g *gathered[T]) take() (all []T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for one := range g.all {
		all = append(all, one)
	}
	g.all = make(map[T]struct{}) // a map keeps the room of all that was in it
	return all
}
