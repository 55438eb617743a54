package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pylok/pylok/lock"
)

// mostAsked is how much of what was asked of a holder is kept while nobody listens: the
// newest.
const mostAsked = 16

// asked is what was asked of a holder, and who listens for it. It is guarded by Manager.mu.
type asked struct {
	token   lock.Token
	ears    []*ears
	waiting []lock.Event // for the first who listens
}

// Ask asks the holder of a lock to let go. Whoever watches the lock with the hold's token is
// told; if nobody does, who next does is.
//
// The errors are *Error with ErrNotLocked, ErrNotHolder or ErrInvalidArgument, and whatever
// the store comes upon.
func (m *Manager) Ask(ctx context.Context, caller lock.Caller, request lock.AskRequest) (lock.AskAnswer, error) {
	if err := checkText("holder", request.Holder, maxHolderBytes); err != nil {
		return lock.AskAnswer{}, err
	}
	if err := checkMessage("message", request.Message, "say what for"); err != nil {
		return lock.AskAnswer{}, err
	}
	l, err := m.present(ctx, request.Name)
	switch {
	case err != nil:
		return lock.AskAnswer{}, err
	case !l.Held():
		return lock.AskAnswer{}, notLocked(request.Name)
	case request.Token != 0 && request.Token != l.Token:
		return lock.AskAnswer{}, m.staleToken(l, request.Token)
	}
	l.Deadline = m.leases.Deadline(l)
	event := lock.Event{Type: lock.Asked, Time: now(), Lock: l, Actor: caller.Actor(request.Holder), Reason: request.Message}
	return lock.AskAnswer{Lock: m.described(l), Heard: m.tellHolder(event)}, nil
}

// checkMessage holds a text to its limits, which may have lines and must have something that
// can be seen.
func checkMessage(field, text, what string) error {
	if !isVisible(text) {
		return lock.Invalid(field, "it is empty; "+what)
	}
	if err := checkReason(text, false, ""); err != nil {
		return lock.Invalid(field, fmt.Sprintf("it must be valid UTF-8 of at most %d bytes; it has %d", maxReasonBytes, len(text)))
	}
	return nil
}

// tellHolder tells the holder of a hold, and reports whether anybody listens.
func (m *Manager) tellHolder(event lock.Event) (heard bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.askedLocked(event.Lock.Name, event.Lock.Token)
	if a == nil {
		return false // the hold is over by now
	}
	for _, e := range a.ears {
		e.add(event)
	}
	if len(a.ears) == 0 {
		a.waiting = append(a.waiting, event)
		a.waiting = a.waiting[max(len(a.waiting)-mostAsked, 0):]
	}
	return len(a.ears) > 0
}

// askedLocked returns what is asked of a holder; nil: the hold is over. The caller must hold
// mu.
func (m *Manager) askedLocked(name lock.Name, token lock.Token) *asked {
	a := m.asked[name]
	switch {
	case m.heldLocked(name).Token != token:
		return nil
	case a == nil || a.token != token:
		a = &asked{token: token}
		m.asked[name] = a
	}
	return a
}

// ears listen for one watch to what is asked of the holder. The nil ears hear nothing.
type ears struct {
	m     *Manager
	name  lock.Name
	token lock.Token
	heard []lock.Event  // guarded by Manager.mu
	news  chan struct{} // has an element when something was heard
}

// errAsked: something was heard.
var errAsked = errors.New("something is asked of the holder")

// listen returns the ears of a watch, or nil: it is none of the holder's.
func (m *Manager) listen(ctx context.Context, caller lock.Caller, request *lock.WatchRequest) *ears {
	name, err := lock.ParseName(request.Pattern.Prefix())
	if request.Token == 0 || err != nil || !request.Pattern.IsName() && !request.Pattern.HasSlots() {
		return nil
	}
	if l, err := m.present(ctx, name); err != nil || l.Token != request.Token || !isOf(l, caller) {
		return nil
	}
	e := &ears{m: m, name: name, token: request.Token, news: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.askedLocked(name, request.Token)
	if a == nil {
		return nil
	}
	for _, event := range a.waiting {
		e.add(event)
	}
	a.waiting = nil
	a.ears = append(a.ears, e)
	return e
}

// add has something heard. The caller must hold Manager.mu.
func (e *ears) add(event lock.Event) {
	e.heard = append(e.heard, event)
	e.heard = e.heard[max(len(e.heard)-mostAsked, 0):] // a watch that does not read misses the oldest
	select {
	case e.news <- struct{}{}:
	default:
	}
}

// hear returns what was heard since the last call.
func (e *ears) hear() []lock.Event {
	if e == nil {
		return nil
	}
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	heard := e.heard
	e.heard = nil
	return heard
}

// events is the store's Events, which ends with errAsked when something was heard.
func (e *ears) events(ctx context.Context, store lock.Store, p lock.Pattern, after lock.Revision, wait time.Duration) ([]lock.Event, lock.Revision, error) {
	if e == nil {
		return store.Events(ctx, p, after, wait)
	}
	waiting, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-e.news:
			cancel(errAsked)
		case <-waiting.Done():
		}
		close(done)
	}()
	events, until, err := store.Events(waiting, p, after, wait)
	cancel(nil)
	<-done
	if err != nil && ctx.Err() == nil && context.Cause(waiting) == errAsked {
		return nil, after, errAsked
	}
	return events, until, err
}

// close ends the listening. What nobody has heard stays for who listens next.
func (e *ears) close() {
	if e == nil {
		return
	}
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	a := e.m.asked[e.name]
	if a == nil || a.token != e.token {
		return
	}
	a.ears = slices.DeleteFunc(a.ears, func(other *ears) bool { return other == e })
	if len(a.ears) == 0 {
		a.waiting = append(e.heard, a.waiting...)
		if len(a.waiting) == 0 {
			delete(e.m.asked, e.name)
		}
	}
}
