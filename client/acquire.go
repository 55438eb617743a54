package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/pylok/pylok/lock"
)

// DefaultTTL is the ttl of a hold unless it is given another. It leaves time to notice
// a connection that went silent, and to renew over another one.
const DefaultTTL = 30 * time.Second

// defaultMargin is which part of a ttl is the margin.
const defaultMargin = 10

// AcquireOption is a wish for Acquire or AcquireSet.
type AcquireOption func(*acquisition)

// acquisition is what Acquire or AcquireSet is to do.
type acquisition struct {
	lock.LockRequest
	choices []choice
	margin  *time.Duration // nil: the default
	holder  *string        // nil: the default
}

// choice is a lock.Choice whose names have not been looked at.
type choice struct {
	count int
	names []string
}

// newAcquisition returns what options wish for, and the margin.
func newAcquisition(options []AcquireOption) (acquisition, time.Duration, error) {
	a := acquisition{LockRequest: lock.LockRequest{TTL: DefaultTTL}}
	for _, option := range options {
		option(&a)
	}
	if a.holder == nil {
		a.Holder = DefaultHolder()
	} else {
		a.Holder = *a.holder
	}
	a.RequestID = cmp.Or(a.RequestID, rand.Text())
	margin, err := marginOf(a.TTL, a.margin)
	return a, margin, err
}

// marginOf returns the margin of a hold with a ttl; wanted may be nil.
func marginOf(ttl time.Duration, wanted *time.Duration) (time.Duration, error) {
	margin := ttl / defaultMargin
	if wanted != nil && ttl > 0 {
		margin = *wanted
	}
	if margin < 0 || margin > ttl/2 {
		return 0, fmt.Errorf("client: a margin of %v for a ttl of %v: it can be 0 to half of the ttl", margin, ttl)
	}
	return margin, nil
}

// WithTTL sets how long the lock stays held when this process dies or is cut off from
// the server: 100 ms to 366 days. Default: DefaultTTL. Zero makes a hold that does not
// end by itself: it is not renewed, goes on while the server is out of reach, and stays
// when this process dies.
func WithTTL(ttl time.Duration) AcquireOption {
	return func(a *acquisition) { a.TTL = ttl }
}

// WithMargin sets how long before the end of its lease a hold that is not renewed
// counts as lost: the time that the work has to stop in before somebody else can get
// the lock. 0 to half of the ttl. Default: a tenth of the ttl. A hold without a ttl has
// no use for it.
func WithMargin(margin time.Duration) AcquireOption {
	return func(a *acquisition) { a.margin = &margin }
}

// WithWait stands in line for a lock that is held, for at most 24 h, or with
// lock.WaitForever until the context ends. Default: it is refused at once.
func WithWait(wait time.Duration) AcquireOption {
	return func(a *acquisition) { a.Wait = wait }
}

// WithHolder sets who holds the lock, for people, and for Unlock without a token.
// Default: DefaultHolder. Empty: anonymous, anyone may release it.
func WithHolder(holder string) AcquireOption {
	return func(a *acquisition) { a.holder = &holder }
}

// WithData sets the user's own document in the lock file. Default: none.
func WithData(data lock.Data) AcquireOption {
	return func(a *acquisition) { a.Data = data }
}

// WithRequestID makes several calls of Acquire one request, at most 128 bytes: they
// share a place in the line, and each is granted the hold that another was granted.
// Default: each is a request of its own.
func WithRequestID(id string) AcquireOption {
	return func(a *acquisition) { a.RequestID = id }
}

// WithRefuseManual does not wait for a person: it is refused when the hold in the way, or a
// request ahead in the line, has no end of its own. Default: it waits.
func WithRefuseManual() AcquireOption {
	return func(a *acquisition) { a.RefuseManual = true }
}

// WithShared takes a shared hold, which stands beside others: readers. While one stands,
// nobody gets the lock itself, as a writer does; while that is held or waited for, nobody
// gets a new shared hold. The Hold's Lock has a name of its own, NAME/_+NUMBER. Not for
// AcquireSet.
func WithShared() AcquireOption {
	return func(a *acquisition) { a.Shared = true }
}

// WithLimit takes a shared hold, as WithShared does, while fewer than n stand.
func WithLimit(n int) AcquireOption {
	return func(a *acquisition) { a.Shared, a.Limit = true, n }
}

// WithTree takes a hold that covers every name below too, and with the name lock.AllName
// every name: nobody gets a new hold there, and what is held goes on to its end. It needs
// the right to freeze. Not for AcquireSet.
func WithTree() AcquireOption {
	return func(a *acquisition) { a.Tree = true }
}

// WithDrain takes a hold as WithTree does, and only when nothing below is held; meanwhile
// later requests below stand behind it. It needs WithWait.
func WithDrain() AcquireOption {
	return func(a *acquisition) { a.Tree, a.Drain = true, true }
}

// WithThroughFreeze takes a lock although somebody's WithTree covers it, for a reason that
// the history keeps. It needs the right to freeze.
func WithThroughFreeze(reason string) AcquireOption {
	return func(a *acquisition) { a.ThroughFreeze, a.Reason = true, reason }
}

// WithReplaceStale replaces the lock's hold if that is stale, whoever's it was, for a reason
// that the history keeps, such as what was looked at. Not for AcquireSet.
func WithReplaceStale(reason string) AcquireOption {
	return func(a *acquisition) { a.ReplaceStale, a.Reason = true, reason }
}

// WithKeep has the hold become stale when its time is over: it stays held, and is lost to
// this process, until somebody has looked and ends it. Default: it ends.
func WithKeep() AcquireOption {
	return func(a *acquisition) { a.OnExpiry = lock.Keep }
}

// Acquire takes a lock and keeps it: the Hold renews it in the background, three times
// in its ttl without the margin, until its Release or its loss. A lock that is held by
// someone else is lock.ErrLockHeld, also at the end of a wait; so is one that is free while
// a tree, a shared hold or an older request stands before this one.
//
// ctx is for taking the lock alone. The Hold goes on when ctx ends, so that the lock is
// still held while the work comes to its end; and so every Hold must be released.
// Hold.Bind makes the context for work that ends with ctx and with the Hold.
//
// An Acquire that returns an error holds nothing, unless it is an *OutcomeUnknownError;
// then the lock becomes free when its ttl runs out. Where ctx ends at the moment of the
// grant, Acquire takes up to 5 s to release what it took.
func (c *Client) Acquire(ctx context.Context, name string, options ...AcquireOption) (*Hold, error) {
	parsed, err := lock.ParseName(name)
	if err != nil {
		return nil, err
	}
	a, margin, err := newAcquisition(options)
	if err != nil {
		return nil, err
	}
	if len(a.choices) > 0 {
		return nil, lock.Invalid("choices", "a choice is of a set: use AcquireSet")
	}
	a.Name = parsed
	begun := c.boottime()
	grant, err := c.Lock(ctx, a.LockRequest)
	if err != nil {
		return nil, err
	}
	l := grant.Lock
	abandoned := func(err error) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		if c.abandon(ctx, l.Name, l.Token) != nil {
			err = &OutcomeUnknownError{Name: l.Name, RequestID: a.RequestID, Err: err}
		}
		return err
	}
	if a.TTL > 0 && c.boottime()-begun >= (a.TTL-margin)/renewals {
		// It stood in line, or was sent again, and nobody can say when within
		// that time the lease began: begin it anew.
		begun = c.boottime()
		renewed, err := c.Renew(ctx, lock.RenewRequest{Name: l.Name, Token: l.Token, TTL: a.TTL})
		if isOver(err) {
			return nil, lostBy(lock.HoldRef{Name: l.Name, Token: l.Token}, err)
		}
		if err != nil {
			return nil, abandoned(err)
		}
		l = renewed
	}
	hold := newHold(ctx, c, l, a.TTL, margin, begun, nil)
	if !c.keeper.keep(hold) {
		hold.end(errClosed)
		hold.background.Wait()
		return nil, abandoned(errClosed)
	}
	if errors.Is(hold.why(), ErrLost) { // before it was kept
		hold.forget()
	}
	return hold, nil
}

// errClosed is of what is taken while Close releases everything.
var errClosed = errors.New("the client has been closed")

// DefaultHolder is user@host, or uid-1234@host for a user who has no name here, as in
// many containers.
func DefaultHolder() string {
	name, host := fmt.Sprintf("uid-%d", os.Getuid()), "somewhere"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		host = h
	}
	return name + "@" + host
}
