package client

import (
	"cmp"
	"context"
	"crypto/rand"
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

// AcquireOption is a wish for Acquire.
type AcquireOption func(*acquisition)

// acquisition is what Acquire is to do.
type acquisition struct {
	lock.LockRequest
	margin *time.Duration // nil: the default
	holder *string        // nil: the default
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

// WithWait stands in line for a lock that is held, for at most 24 h. Default: it is
// refused at once.
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

// Acquire takes a lock and keeps it: the Hold renews it in the background, three times
// in its ttl without the margin, until its Release or its loss. A lock that is held by
// someone else is lock.ErrLockHeld, also at the end of a wait.
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
	a := acquisition{LockRequest: lock.LockRequest{Name: parsed, TTL: DefaultTTL}}
	for _, option := range options {
		option(&a)
	}
	if a.holder == nil {
		a.Holder = DefaultHolder()
	} else {
		a.Holder = *a.holder
	}
	margin := a.TTL / defaultMargin
	if a.margin != nil && a.TTL > 0 {
		margin = *a.margin
	}
	if margin < 0 || margin > a.TTL/2 {
		return nil, fmt.Errorf("client: a margin of %v for a ttl of %v: it can be 0 to half of the ttl", margin, a.TTL)
	}
	a.RequestID = cmp.Or(a.RequestID, rand.Text())
	begun := c.boottime()
	grant, err := c.Lock(ctx, a.LockRequest)
	if err != nil {
		return nil, err
	}
	l := grant.Lock
	if a.TTL > 0 && c.boottime()-begun >= (a.TTL-margin)/renewals {
		// It stood in line, or was sent again, and nobody can say when within
		// that time the lease began: begin it anew.
		begun = c.boottime()
		renewed, err := c.Renew(ctx, lock.RenewRequest{Name: parsed, Token: l.Token, TTL: a.TTL})
		if isOver(err) {
			return nil, &LostError{Name: parsed, Token: l.Token, Err: err}
		}
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
			defer cancel()
			if c.abandon(ctx, parsed, l.Token) != nil {
				err = &OutcomeUnknownError{Name: parsed, RequestID: a.RequestID, Err: err}
			}
			return nil, err
		}
		l = renewed
	}
	return newHold(ctx, c, l, a.TTL, margin, begun), nil
}

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
