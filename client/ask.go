package client

import (
	"fmt"
	"slices"
	"time"

	"github.com/pylok/pylok/lock"
)

// maxAsks is how many Asks wait to be received.
const maxAsks = 16

// Ask is that somebody asks the holder of a lock to let go.
type Ask struct {
	// Name is the lock's.
	Name lock.Name
	// Actor is who asks; empty: who gave no name.
	Actor string
	// Message is what they say.
	Message string
	// Time is when they asked, by the server's clock.
	Time time.Time
}

// Asked returns the channel on which the Hold tells what is asked of it, with Client.Ask or
// pylok ask; what was asked before the Hold began, the server tells too. Nothing follows
// from it by itself. The newest 16 wait to be received. It is closed when the hold is over.
func (h *Hold) Asked() <-chan Ask { return h.asked }

// AtRisk returns the channel on which the Hold warns before its loss: when three quarters
// of its ttl without the margin have passed without a renewal, so that its renewals have
// failed for about a third of the ttl, and the last quarter is left. The error says why. It
// comes once until the hold is renewed again. The channel is closed when the hold is over.
func (h *Hold) AtRisk() <-chan error { return h.atRisk }

// hear tells who receives of something that was asked, unless it was told already.
func (h *Hold) hear(event lock.Event) {
	ask := Ask{Name: h.name, Actor: event.Actor, Message: event.Reason, Time: event.Time}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil || slices.Contains(h.heard, ask) {
		return
	}
	h.heard = append(h.heard[max(0, len(h.heard)+1-maxAsks):], ask)
	push(h.asked, ask)
	if h.set != nil {
		h.set.hear(ask)
	}
}

// warn tells who receives that the hold has not been renewed for so long that it may be
// lost. It reports false where no renewal has failed, as when this process did not run.
func (h *Hold) warn() bool {
	left := h.leftOf(h.life)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil || left <= 0 || h.failure == nil {
		return false
	}
	why := fmt.Errorf("%s is lost in %v unless it is renewed before: %w", h.name, left.Round(time.Millisecond), h.failure)
	push(h.atRisk, why)
	if h.set != nil {
		h.set.warn(why)
	}
	return true
}

// push sends to a channel with room, and drops the oldest where there is none. The caller
// must keep others from sending.
func push[T any](c chan T, v T) {
	for {
		select {
		case c <- v:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}
