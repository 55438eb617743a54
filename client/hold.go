package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

const (
	// renewals is how many times a hold is renewed in its life, if all goes well.
	renewals = 3
	// clockCheck is how often the boot clock is looked at: timers stand still in
	// suspend, and the lease does not.
	clockCheck = time.Second
	// explainWithin is how long a watch may take to say who ended a hold that a
	// renewal has found over, and why.
	explainWithin = time.Second
	// maxWatchers is how many Holds of a Client watch their locks all the time: each
	// watch is a stream, which the server and the connection have to keep.
	maxWatchers = 100
	// releaseWithin is how long a Release may take.
	releaseWithin = 5 * time.Second
)

// Hold is one uninterrupted possession of a lock, from Acquire, Adopt or a Set. Every
// method may be called from many goroutines at once.
//
// A Hold whose lock is broken, or loses its file, knows at once. Beyond 100 Holds of
// one Client at the same time, those that come later know when they are renewed next, and
// are not told what is asked of them; only Holds without a ttl always know at once.
type Hold struct {
	// Three goroutines keep it. One renews, that of its Set if it is of one; one looks at
	// the clock, for no renewal in flight may make the end of the lease late; and one
	// watches the lock's name. The renewals alone suffice to keep and to lose a hold: the
	// watch is for news that come early and say who and why.

	client *Client
	set    *Set // nil: it is of none
	name   lock.Name
	token  lock.Token
	ttl    time.Duration // zero: the hold does not end by itself
	life   time.Duration // how long the hold goes on without a renewal: ttl without the margin

	context    context.Context // until the hold is over
	cancel     context.CancelCauseFunc
	background sync.WaitGroup

	mu      sync.Mutex
	lock    lock.Lock
	renewed time.Duration // on the boot clock: the start of the last call that began the lease anew
	failure error         // of the last renewal; nil: it succeeded
	err     error         // why the hold is over, as far as it is known
	heard   []Ask         // the last of what was asked, for a watch that begins anew has it again
	asked   chan Ask      // closed when the hold is over, and so is the next
	atRisk  chan error

	releasing     sync.Mutex // guards the two below
	released      bool       // the server knows
	maybeReleased bool       // the answer to a Release was lost
}

// newHold keeps a lock that was taken or renewed by a call that began at a time on the
// boot clock. One of a set is not renewed: the set does it.
func newHold(ctx context.Context, c *Client, l lock.Lock, ttl, margin, renewed time.Duration, set *Set) *Hold {
	h := &Hold{
		client: c, set: set, name: l.Name, token: l.Token, ttl: ttl, life: ttl - margin, lock: l, renewed: renewed,
		asked: make(chan Ask, maxAsks), atRisk: make(chan error, 1),
	}
	h.context, h.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	select {
	case c.watchers <- struct{}{}:
		h.background.Go(func() {
			h.watchAlways()
			<-c.watchers
		})
	default:
		if ttl == 0 {
			h.background.Go(h.watchAlways)
		}
	}
	if ttl > 0 {
		h.background.Go(h.expire)
	}
	if ttl > 0 && set == nil {
		h.background.Go(h.renewAlways)
	}
	return h
}

// ref returns what the server knows the hold by.
func (h *Hold) ref() lock.HoldRef { return lock.HoldRef{Name: h.name, Token: h.token} }

// Token returns the hold's fencing token, for resources that refuse lower ones than
// they have seen.
func (h *Hold) Token() lock.Token { return h.token }

// Lock returns the lock as it stood at the last renewal or change, its name and data
// included. It stays so after the hold is over.
func (h *Hold) Lock() lock.Lock {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lock
}

// Context returns the context of the hold. It ends when the hold is over, and then
// context.Cause says why: a *LostError or ErrReleased. It has the values of the context
// that Acquire was given, and does not end with that: for work that is to end with
// another context too, there is Bind.
//
// It ends at once when the server says that the hold is over. The cause has what is
// known then; who ended it and why may come a moment later, and Err and Release have
// it.
//
// A lease that cannot be renewed is counted as lost before its end, by the margin of
// WithMargin. Its end is counted from the start of the last renewal that succeeded, on
// a clock that counts suspend where there is one. That is never later than the server
// ends it.
func (h *Hold) Context() context.Context { return h.context }

// Bind returns the context for the work that the lock protects: a copy of ctx that ends
// with the hold too. Then context.Cause says why, as of Context. The end of ctx ends the
// work and not the hold, which goes on until its Release. Call cancel when the work is
// done.
func (h *Hold) Bind(ctx context.Context) (work context.Context, cancel context.CancelFunc) {
	return bind(ctx, h.context)
}

// bind returns a copy of ctx that ends with held too.
func bind(ctx, held context.Context) (work context.Context, cancel context.CancelFunc) {
	work, end := context.WithCancelCause(ctx)
	detach := context.AfterFunc(held, func() { end(context.Cause(held)) })
	if held.Err() != nil {
		end(context.Cause(held)) // at once
	}
	return work, func() {
		detach()
		end(context.Canceled)
	}
}

// Done is closed when the hold is over: released or lost.
func (h *Hold) Done() <-chan struct{} { return h.context.Done() }

// LeaseLeft returns how long nobody else can get the lock, unless somebody breaks the
// hold: until the end of the lease, counted as for Context, whether the hold is over or
// not. Zero or less: somebody else may have the lock. A hold without a ttl has the
// longest Duration left.
func (h *Hold) LeaseLeft() time.Duration {
	if h.ttl == 0 {
		return math.MaxInt64
	}
	return h.leftOf(h.ttl)
}

// Err returns nil while the hold goes on, and then why it is over: a *LostError, which
// is an ErrLost, or ErrReleased. It looks at the clock, so it is right also in a process
// that has just woken up.
func (h *Hold) Err() error {
	if h.ttl > 0 && h.leftOf(h.life) <= 0 {
		h.end(h.overdue())
	}
	return h.why()
}

// Update replaces the data in the lock file, and renews the hold.
func (h *Hold) Update(ctx context.Context, data lock.Data) error {
	if err := h.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.context, cancel)()
	begun := h.client.boottime()
	l, err := h.client.Renew(ctx, lock.RenewRequest{Name: h.name, Token: h.token, TTL: h.ttl, Data: &data})
	switch {
	case err == nil:
		h.begin(begun, l)
		return h.Err()
	case isOver(err):
		h.refused(err)
		return h.why()
	case h.why() != nil:
		return h.why()
	}
	return err
}

// ReleaseOption is a wish for Release.
type ReleaseOption func(*lock.UnlockRequest)

// WithReason says why the lock is released, for those who watch and for the history:
// at most 1024 bytes.
func WithReason(reason string) ReleaseOption {
	return func(request *lock.UnlockRequest) { request.Reason = reason }
}

// WithClosingData leaves a document for those who watch and for the history, in place
// of the hold's data.
func WithClosingData(data lock.Data) ReleaseOption {
	return func(request *lock.UnlockRequest) { request.Data = &data }
}

// Release ends the hold: first here, so that its Context ends before anybody else can
// get the lock, then on the server. A hold that was lost before is not sent to the
// server again: Release returns its *LostError. Another error means that the server
// could not be told; the lease then runs out by itself, and Release may be called
// again. After one that succeeded it does nothing.
//
// ctx is for its values alone: the lock is released also when ctx has ended, such as
// by an interrupt or as the hold's own Context. Release takes at most 5 s.
func (h *Hold) Release(ctx context.Context, options ...ReleaseOption) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer cancel()
	lost, err := h.release(ctx, options...)
	return cmp.Or(lost, err)
}

// release is Release for as long as ctx goes on. It returns apart what was lost before and
// what may stay locked.
func (h *Hold) release(ctx context.Context, options ...ReleaseOption) (lost, err error) {
	if h.Err() == nil {
		h.end(ErrReleased)
	}
	h.background.Wait()
	if err := h.why(); !errors.Is(err, ErrReleased) {
		return err, nil
	}
	h.releasing.Lock()
	defer h.releasing.Unlock()
	if h.released {
		return nil, nil
	}
	request := lock.UnlockRequest{Name: h.name, Token: h.token}
	for _, option := range options {
		option(&request)
	}
	_, err = h.client.Unlock(ctx, request)
	return h.unlocked(err)
}

// unlocked notes how the server answered an Unlock, and returns what release is to. The
// caller must hold releasing.
func (h *Hold) unlocked(answer error) (lost, err error) {
	switch {
	case answer == nil || isOver(answer):
		h.released = true
		h.forget()
		if answer != nil && !h.maybeReleased {
			lost = h.lost(answer)
		}
		return lost, nil
	}
	h.maybeReleased = h.maybeReleased || isOutcomeUnknown(answer)
	if h.ttl > 0 && h.Lock().OnExpiry == lock.End {
		return nil, fmt.Errorf("%s may stay locked for up to %v: %w", h.name, h.ttl, answer)
	}
	return nil, fmt.Errorf("%s may stay locked: %w", h.name, answer)
}

// end ends the hold, unless it is over already.
func (h *Hold) end(why error) {
	h.mu.Lock()
	news := h.err == nil
	if news {
		h.err = why
		close(h.asked)
		close(h.atRisk)
	}
	why = h.err
	h.mu.Unlock()
	h.cancel(why)
	if news && h.set != nil {
		h.set.ended(h, why)
	}
	if news && errors.Is(why, ErrLost) {
		h.forget()
	}
}

// forget tells the Client that there is nothing to release any more.
func (h *Hold) forget() {
	if h.set != nil {
		h.set.forget()
	} else {
		h.client.keeper.forget(h)
	}
}

// explain says more of why a hold is over that has ended because of known.
func (h *Hold) explain(known, more *LostError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == error(known) {
		h.err = more
	}
}

// why is Err as far as it is known, without a look at the clock.
func (h *Hold) why() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// lost makes the error for a hold that is over, or might be, because of err.
func (h *Hold) lost(err error) *LostError { return lostBy(h.ref(), err) }

// lostBy is lost for a hold that need not be a Hold.
func lostBy(hold lock.HoldRef, err error) *LostError {
	e := &LostError{Name: hold.Name, Token: hold.Token, Err: err}
	if refusal, ok := errors.AsType[*lock.Error](err); ok && refusal.Reason == lock.ErrNotHolder && refusal.Lock != nil {
		switch l := refusal.Lock; {
		case !l.Held():
			e.Cause = lock.Expired // the server remembers
		case l.Token == hold.Token && l.Stale():
			e.Cause, e.Stale = lock.Expired, true
		}
	}
	return e
}

// overdue is why a hold is over whose lease has run out by the clock.
func (h *Hold) overdue() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failure == nil {
		return &LostError{Name: h.name, Token: h.token, Cause: lock.Expired}
	}
	return h.lost(h.failure)
}

// begin notes that the lease began anew with a call that began at a time on the boot
// clock, and what that call returned. An answer that comes after the end changes
// nothing, whether that end has been noticed or not.
func (h *Hold) begin(begun time.Duration, l lock.Lock) {
	if h.Err() != nil {
		return
	}
	h.mu.Lock()
	h.renewed = max(h.renewed, begun)
	h.failure = nil
	h.mu.Unlock()
	h.observe(l)
}

// observe notes how the lock stands, unless that is old news.
func (h *Hold) observe(l lock.Lock) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.Revision >= h.lock.Revision {
		h.lock = l
	}
}

// leftOf returns how long it is until d after the lease last began.
func (h *Hold) leftOf(d time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.renewed + d - h.client.boottime()
}

// pass waits until d after the lease last began, however often it begins anew
// meanwhile. It reports false when the hold is over.
func (h *Hold) pass(d time.Duration) bool {
	for {
		left := h.leftOf(d)
		if left <= 0 {
			return h.context.Err() == nil
		}
		if !sleep(h.context, min(left, clockCheck)) {
			return false
		}
	}
}

// expire ends the hold when it was not renewed in time, and warns before that.
func (h *Hold) expire() {
	for h.pass(h.life * 3 / 4) {
		for warned := false; h.leftOf(h.life*3/4) <= 0; { // until it is renewed
			warned = warned || h.warn()
			left := h.leftOf(h.life)
			if left <= 0 {
				h.end(h.overdue())
				return
			}
			if !sleep(h.context, min(left, clockCheck, h.life/renewals)) {
				return
			}
		}
	}
}

// renewAlways renews the hold until it is over. All errors but those that say just that
// may pass in time.
func (h *Hold) renewAlways() {
	for h.pass(h.life/renewals) && h.Err() == nil {
		err := h.renew()
		if isOver(err) {
			h.refused(err)
			return
		}
		if err != nil {
			h.failed(err)
			sleep(h.context, afterFailure(h.life))
		}
	}
}

// afterFailure is the pause after a renewal that failed, of a hold that goes on for so
// long without one.
func afterFailure(life time.Duration) time.Duration { return min(life/20, time.Second) }

// failed notes why a renewal failed.
func (h *Hold) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failure = err
}

// renew asks once for a renewal. A request without an answer is given up in time for
// another.
func (h *Hold) renew() error {
	message, err := renewMessage(lock.RenewRequest{Name: h.name, Token: h.token, TTL: h.ttl})
	if err != nil {
		return err
	}
	var response *pylokv1.RenewResponse
	begun := h.client.boottime()
	err = h.client.within(h.context, h.life/renewals, func(ctx context.Context) (err error) {
		response, err = h.client.service.Renew(ctx, message, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		return err
	}
	l, err := lockFromProto(response.GetLock())
	if err != nil {
		return err
	}
	h.begin(begun, l)
	return nil
}

// within makes one call for a renewal, which is given up after some time.
func (c *Client) within(ctx context.Context, most time.Duration, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	err := call(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = c.noAnswer(most)
	}
	c.isAway(err) // which takes note of it
	return err
}

// noAnswer is why a renewal failed that the server did not answer for so long.
func (c *Client) noAnswer(most time.Duration) error {
	return &UnreachableError{
		Address: c.address,
		Sent:    true,
		Err:     status.Errorf(codes.DeadlineExceeded, "no answer within %v", most),
	}
}

// refused ends a hold that the server says is over: at once, with what the refusal
// says. Then it looks for who ended it and why, if the refusal does not tell.
func (h *Hold) refused(err error) {
	known := h.lost(err)
	h.end(known)
	if known.Cause != 0 || h.why() != error(known) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.context), explainWithin)
	defer cancel()
	// The token is over, and nothing will be asked of it.
	if explained, _ := h.watch(ctx, 0, func(*LostError) {}); explained != nil && explained.Cause != 0 {
		explained.Err = err
		h.explain(known, explained)
	}
}

// watchAgain is when a hold asks again for a watch that the server has no room for.
const watchAgain = 10 * time.Second

// watchAlways ends the hold when a change of its lock has ended it, and hears what is asked
// of it.
func (h *Hold) watchAlways() {
	token := h.token
	for {
		var known *LostError
		ctx, cancel := context.WithCancel(context.WithoutCancel(h.context))
		detach := context.AfterFunc(h.context, cancel)
		lost, err := h.watch(ctx, token, func(lost *LostError) {
			detach() // there may be more to know
			known = lost
			h.end(lost)
		})
		cancel()
		switch {
		case known != nil:
			h.explain(known, lost)
			return
		case lost != nil:
			h.end(lost)
			return
		case isOver(err) && token != 0:
			token = 0 // what ended it is told without
		case !isRateLimited(err) && !errors.Is(err, lock.ErrTooManyWatches) || !sleep(h.context, jitter(watchAgain)):
			return
		}
	}
}

// watch returns how the hold was ended, as soon as a change of its lock has ended it, or
// why it cannot watch. Where there may be more to know of it, it calls over at once with
// what is known, and looks on for a moment. With the hold's token it hears what is asked.
func (h *Hold) watch(ctx context.Context, token lock.Token, over func(*LostError)) (*LostError, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var lost *LostError // not nil: by a request, and who has it now may be told next
	seen := true        // since the last Reset, if there was one
	request := &pylokv1.WatchRequest{Pattern: h.name.String(), AfterRevision: uint64(h.Lock().Revision), Token: uint64(token)}
	for event, err := range h.client.watch(ctx, request) {
		switch {
		case lost != nil && err != nil:
			return lost, nil
		case err != nil:
			return nil, err
		case event.Type != lock.Reset && event.Type != lock.Synced && event.Lock.Name != h.name:
			continue // a shared hold beside it
		}
		ours := event.Lock.Token == h.token
		switch event.Type {
		case lock.Reset:
			seen = false
		case lock.Locked, lock.Updated:
			switch {
			case lost != nil:
				return h.replaced(event, lost), nil
			case !ours: // another hold has taken its place
				return h.replaced(event, h.ended(event)), nil
			case event.Lock.Stale():
				h.observe(event.Lock)
				return h.becameStale(event), nil
			}
			seen = true
			h.observe(event.Lock)
		case lock.Unlocked:
			if !ours || lost != nil {
				continue
			}
			if lost = h.ended(event); lost.Cause != lock.Request {
				return lost, nil
			}
			over(lost)
			defer time.AfterFunc(explainWithin, cancel).Stop()
		case lock.Asked:
			if ours {
				h.hear(event)
			}
		case lock.Synced:
			switch {
			case lost != nil:
				return lost, nil
			case !seen:
				return h.lost(nil), nil
			}
		}
	}
	return lost, nil
}

// ended makes the error for a hold that an event has ended. An event without a cause is
// one of the present state and does not tell how that came about.
func (h *Hold) ended(event lock.Event) *LostError {
	e := h.lost(nil)
	if event.Cause != 0 {
		e.Cause, e.Actor, e.Reason = event.Cause, event.Actor, event.Reason
	}
	return e
}

// becameStale makes the error for a hold whose time is over and that is kept.
func (h *Hold) becameStale(event lock.Event) *LostError {
	e := h.ended(event)
	e.Cause, e.Stale = lock.Expired, true
	return e
}

// replaced makes the error for a hold that was lost and whose lock an event says is held
// anew: handed over, if the hold went on under another holder. Who overwrites a hold has
// its holder's name, or it had none, and makes the change in its own.
func (h *Hold) replaced(event lock.Event, lost *LostError) *LostError {
	old, now := h.Lock(), event.Lock
	if event.Previous != h.token || event.Cause != lock.Request {
		return lost
	}
	byAnother := event.Actor != "" && event.Actor != lock.Anonymous && event.Actor != cmp.Or(now.Caller, now.Holder)
	if toAnother := old.Holder != "" && old.Holder != now.Holder; !toAnother && !byAnother {
		return lost
	}
	e := *lost
	e.To, e.Cause, e.Actor, e.Reason = cmp.Or(now.Holder, now.Caller, "somebody who gave no name"), event.Cause, event.Actor, event.Reason
	return &e
}
