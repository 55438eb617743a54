package lock

import (
	"context"
	"time"
)

// LockRequest asks for a lock.
type LockRequest struct {
	Name Name
	Data Data
	// Holder is who wants the lock, at most 256 bytes; empty means anonymous.
	Holder string
	// TTL makes the hold a lease of 100 ms to 366 days; zero: no lease.
	TTL time.Duration
	// ExpireTime ends the hold at a wall clock time to come; zero: no end.
	// At most one of TTL and ExpireTime is set.
	ExpireTime time.Time
	// Wait is how long to stand in line for a lock that is held; zero: not.
	Wait time.Duration
	// RequestID is the same for every sending of the same request, at most
	// 128 bytes; empty: the request is not sent again.
	RequestID string
	// Overwrite replaces a hold that is anonymous or has the same non-empty
	// Holder, and is no other caller's.
	Overwrite bool
	// MayBreak lets Overwrite replace the hold of another caller too. A guard sets it for
	// who has that right; a door never does.
	MayBreak bool
	// Confirm, if it is set, is called once the lock has been granted to a request that
	// stood in line, and returns an error if the caller cannot be told: then the grant
	// is undone and the next in line has it, unless another sending of the same request
	// has been told.
	Confirm func(ctx context.Context) error
}

// Grant is the answer to a LockRequest.
type Grant struct {
	Lock Lock
	// Queued is how long the request stood in line.
	Queued time.Duration
	// Broke reports whether Overwrite has ended the hold of another caller.
	Broke bool
}

// UnlockRequest asks for the end of a hold.
type UnlockRequest struct {
	Name Name
	// Token is the hold to end; zero: the present one, if Holder may.
	Token Token
	// Holder is who asks, for a request without a token.
	Holder string
	// Force breaks somebody else's hold. It needs a Reason.
	Force bool
	// Reason is for the history, at most 1,024 bytes.
	Reason string
	// Data is a closing message for the event; nil: the hold's data.
	Data *Data
}

// Release is the answer to an UnlockRequest.
type Release struct {
	// Lock is the hold as it was.
	Lock Lock
	// Revision is that of its end.
	Revision Revision
	// Next is the hold that the lock was granted to in the same step; it is not
	// held when nobody waited.
	Next Lock
}

// RenewRequest asks to keep a hold longer, or to change its data.
type RenewRequest struct {
	Name Name
	// Token is the hold's. It must not be zero.
	Token Token
	// TTL and ExpireTime are new terms, as in LockRequest; both zero: the
	// hold's own.
	TTL        time.Duration
	ExpireTime time.Time
	// Data replaces the hold's data; nil: it stays.
	Data *Data
	// Holder is who asks, at most 256 bytes. It decides nothing, and the hold's own
	// stays.
	Holder string
}
