package limits

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/pylok/pylok/lock"
)

// holds are all held locks by their callers, as the events tell, and the grants that have
// been answered and that the events have not come to yet. Whose a hold is says the lock's
// caller; for who proves no name, the grant that went through here says it, so that holds
// of the anonymous from before a restart are nobody's.
type holds struct {
	callers *callers

	mu       sync.Mutex
	by       map[lock.Token]*caller // nil: nobody's that is known; a caller's is a use of it
	followed lock.Revision          // up to there the events have been told
	// released are those whose release has been answered, and of whose grant the events
	// have not told yet.
	released map[lock.Token]bool
}

// reserve reports whether a caller may have some holds more, and how many it has. If it may,
// and asks for it, their places are reserved until asked.
func (h *holds) reserve(c *caller, most, more int, reserve bool) (held int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if most > 0 && c.holds+c.reserved+more > most {
		return c.holds, false
	}
	if reserve {
		c.reserved += more
	}
	return c.holds, true
}

// asked ends what reserve has begun for as many holds, and notes one that was granted; token
// 0: none.
func (h *holds) asked(c *caller, reserved int, token lock.Token) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.reserved -= reserved
	h.granted(c, token)
}

// askedSet is asked for a set.
func (h *holds) askedSet(c *caller, reserved int, set []lock.Lock) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.reserved -= reserved
	for _, l := range set {
		h.granted(c, l.Token)
	}
}

// granted notes a hold that was granted; token 0: none was. The caller must hold mu.
func (h *holds) granted(c *caller, token lock.Token) {
	owner, known := h.by[token]
	if token != 0 && owner == nil && (known || lock.Revision(token) > h.followed) { // else it is over already
		h.put(token, c)
	}
}

// useOwner returns whose a hold is, who stays until leave; nil: nobody's that is known.
func (h *holds) useOwner(token lock.Token) *caller {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.by[token]
	if c != nil {
		c.shard.mu.Lock()
		c.uses++
		c.shard.mu.Unlock()
	}
	return c
}

// ended notes a hold whose release has been answered: who has asked for it may have another
// at once.
func (h *holds) ended(token lock.Token) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(token)
	if lock.Revision(token) > h.followed {
		h.released[token] = true
	}
}

// put makes a hold a caller's. The caller must hold mu.
func (h *holds) put(token lock.Token, c *caller) {
	h.by[token] = c
	c.holds++
	c.shard.mu.Lock()
	c.uses++
	c.shard.mu.Unlock()
}

// drop ends a hold. The caller must hold mu.
func (h *holds) drop(token lock.Token) {
	if c := h.by[token]; c != nil {
		c.holds--
		c.leave()
	}
	delete(h.by, token)
}

// isOf reports whether a hold is a caller's.
func (h *holds) isOf(c *caller, token lock.Token) bool { return h.mayBeOf(c, token, false) }

// mayBeOf is isOf, and reports of the anonymous also whether a hold is nobody's.
func (h *holds) mayBeOf(c *caller, token lock.Token, anonymous bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	owner, held := h.by[token]
	return held && (owner == c || owner == nil && anonymous)
}

// count returns how many holds there are.
func (h *holds) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.by)
}

const (
	// followPause is how long follow waits before it tries again what failed.
	followPause = time.Second
	// followLag is how far follow may be behind, and caughtUp how long an event has to be
	// waited for that finds it up to date. It lets events gather, for to be woken for each
	// batch of changes takes a tenth of all that a server can do; what has been asked for
	// here, h knows without them.
	followLag, caughtUp = 50 * time.Millisecond, time.Millisecond
)

// follow keeps h in step with the events, until ctx ends or the locks are closed.
func (h *holds) follow(ctx context.Context, locks lock.Locks, logger *slog.Logger) {
	for failed := false; ; {
		var fresh map[lock.Token]bool // since the last Reset; nil: there was none, or it is over
		heard := time.Now()
		for event, err := range locks.Watch(ctx, lock.Caller{}, lock.WatchRequest{After: h.after()}) {
			switch {
			case ctx.Err() != nil || errors.Is(err, lock.ErrShuttingDown):
				return
			case err != nil:
				if !failed {
					logger.Error("the holds of callers cannot be followed, and those that end still count; trying again", "error", err)
				}
				failed = true
				continue
			}
			failed = false
			if time.Since(heard) >= caughtUp {
				select {
				case <-ctx.Done():
					return
				case <-time.After(followLag):
				}
			}
			h.hear(event, &fresh)
			heard = time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(followPause):
		}
	}
}

// after is where to go on following.
func (h *holds) after() lock.Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.followed
}

// hear brings h in step with an event. From a Reset to its Synced, fresh has what is held.
func (h *holds) hear(e lock.Event, fresh *map[lock.Token]bool) {
	token := e.Lock.Token
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e.Type {
	case lock.Reset:
		*fresh = make(map[lock.Token]bool)
	case lock.Locked:
		if *fresh != nil {
			(*fresh)[token] = true
		}
		if _, known := h.by[token]; known || h.released[token] {
			break
		}
		h.by[token] = nil
		if e.Lock.Caller != "" {
			c := h.callers.use(key{name: e.Lock.Caller, proved: true})
			h.put(token, c)
			c.leave()
		}
	case lock.Unlocked:
		h.drop(token)
		delete(h.released, token)
	case lock.Synced:
		if *fresh != nil {
			for token := range h.by {
				if lock.Revision(token) <= e.Revision && !(*fresh)[token] {
					h.drop(token)
				}
			}
			*fresh = nil
			maps.DeleteFunc(h.released, func(token lock.Token, _ bool) bool { return lock.Revision(token) <= e.Revision })
		}
	}
	if *fresh == nil {
		h.followed = max(h.followed, e.Revision)
	}
}
