package client

import (
	"context"
	"os"
	"os/user"
	"time"

	"github.com/pylok/pylok/lock"
)

// DefaultTTL is the ttl of a hold unless it is given another. It leaves time to notice
// a connection that went silent, and to renew over another one.
const DefaultTTL = 30 * time.Second

// AcquireOption is a wish for Acquire.
type AcquireOption func(*lock.LockRequest)

// WithTTL sets how long the lock stays held when this process dies or is cut off from
// the server: 100 ms to 366 days. Default: DefaultTTL. Zero makes a hold that does not
// end by itself: it is not renewed, goes on while the server is out of reach, and stays
// when this process dies.
func WithTTL(ttl time.Duration) AcquireOption {
	return func(request *lock.LockRequest) { request.TTL = ttl }
}

// WithWait stands in line for a lock that is held, for at most 24 h. Default: it is
// refused at once.
func WithWait(wait time.Duration) AcquireOption {
	return func(request *lock.LockRequest) { request.Wait = wait }
}

// WithHolder sets who holds the lock, for people, and for Unlock without a token.
// Default: user@host. Empty: anonymous, anyone may release it.
func WithHolder(holder string) AcquireOption {
	return func(request *lock.LockRequest) { request.Holder = holder }
}

// WithData sets the user's own document in the lock file. Default: none.
func WithData(data lock.Data) AcquireOption {
	return func(request *lock.LockRequest) { request.Data = data }
}

// Acquire takes a lock and keeps it: the Hold renews it in the background at a third
// of its ttl until its Release or its loss. A lock that is held by someone else is
// lock.ErrLockHeld, also at the end of a wait.
//
// ctx is for the whole life of the Hold: its end ends the wait for the lock, and the
// Hold's Context. The Hold itself goes on until its Release, so that the lock is still
// held while the work comes to its end; and so every Hold must be released. To bound
// the wait alone, use WithWait.
//
// An Acquire that returns an error holds nothing, unless it is an *OutcomeUnknownError;
// then the lock becomes free when its ttl runs out. Where ctx ends at the moment of the
// grant, Acquire takes up to 5 s to release what it took.
func (c *Client) Acquire(ctx context.Context, name string, options ...AcquireOption) (*Hold, error) {
	parsed, err := lock.ParseName(name)
	if err != nil {
		return nil, err
	}
	request := lock.LockRequest{Name: parsed, TTL: DefaultTTL, Holder: defaultHolder()}
	for _, option := range options {
		option(&request)
	}
	begun := c.boottime()
	grant, err := c.Lock(ctx, request)
	if err != nil {
		return nil, err
	}
	l := grant.Lock
	if request.TTL > 0 && c.boottime()-begun >= request.TTL/renewals {
		// It stood in line, or was sent again, and nobody can say when within
		// that time the lease began: begin it anew.
		begun = c.boottime()
		l, err = c.Renew(ctx, lock.RenewRequest{Name: parsed, Token: l.Token, TTL: request.TTL})
		if isOver(err) {
			return nil, &LostError{Name: parsed, Token: grant.Lock.Token, Err: err}
		}
		if err != nil {
			_ = c.abandon(ctx, grant.Lock) // if that fails, the lease runs out
			return nil, err
		}
	}
	return newHold(ctx, c, l, request.TTL, begun), nil
}

// defaultHolder is user@host.
func defaultHolder() string {
	name, host := "somebody", "somewhere"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		host = h
	}
	return name + "@" + host
}
