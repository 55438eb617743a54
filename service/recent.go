package service

import "sync/atomic"

// maxRecentBytes is how large the data of what recent remembers may be, as JSON or as
// bytes on the wire: as a message a document takes some ten times that.
const maxRecentBytes = 4 << 10

// recent remembers what was made of values lately, for the same ones come again and
// again: a change to all who watch, the data of a hold in every answer about it. It has
// room for 256 of them.
type recent[K comparable, V any] [256]atomic.Pointer[made[K, V]]

type made[K comparable, V any] struct {
	of    K
	value V
}

// get returns what make makes of a value, which the caller must not change. Make says
// too whether to remember it. Values with the same hash, which may be any number, take
// each other's place.
func (r *recent[K, V]) get(of K, hash uint64, make func() (V, bool)) V {
	slot := &r[hash%uint64(len(r))]
	if have := slot.Load(); have != nil && have.of == of {
		return have.value
	}
	value, keep := make()
	if keep {
		slot.Store(&made[K, V]{of, value})
	}
	return value
}
