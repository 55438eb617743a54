package lock

import (
	"context"
	"math"
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
	// Wait is how long to stand in line for a lock that is held; zero: not; WaitForever:
	// until the caller leaves.
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
	// Shared asks for a shared hold of the lock, one of its own with the name
	// NAME/_+NUMBER, beside others: readers and one writer.
	Shared bool
	// Limit is how many shared holds may stand, this one included; zero: any number.
	Limit int
	// Tree asks for a hold that covers every name below too: nobody gets a new hold there.
	Tree bool
	// Drain has a Tree granted only when nothing below is held; later requests below stand
	// behind it. It needs a Wait.
	Drain bool
	// ThroughFreeze takes the lock although a tree covers it. It needs a Reason.
	ThroughFreeze bool
	// ReplaceStale replaces a stale hold. It needs a Reason.
	ReplaceStale bool
	// Reason is for the history, at most 1,024 bytes.
	Reason string
	// OnExpiry says what becomes of the hold when its time is over.
	OnExpiry OnExpiry
	// RefuseManual refuses at once when the hold in the way, or a request ahead in the
	// line, has no end of its own.
	RefuseManual bool
	// Confirm, if it is set, is called once the lock has been granted to a request that
	// stood in line, and returns an error if the caller cannot be told: then the grant
	// is undone and the next in line has it, unless another sending of the same request
	// has been told.
	Confirm func(ctx context.Context) error
}

// WaitForever is a Wait without an end.
const WaitForever = time.Duration(math.MaxInt64)

// Grant is the answer to a LockRequest.
type Grant struct {
	Lock Lock
	// Queued is how long the request stood in line.
	Queued time.Duration
	// Broke reports whether Overwrite has ended the hold of another caller.
	Broke bool
	// ReplacedStale reports whether a stale hold has ended for it.
	ReplacedStale bool
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
	// Stale ends a stale hold, whoever's it was. It needs a Reason.
	Stale bool
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

// WatchRequest asks for the changes of locks.
type WatchRequest struct {
	// Pattern selects the locks.
	Pattern Pattern
	// After is the revision from where on; zero: the present state comes first.
	After Revision
	// Token is a hold of the caller's, of the one name that Pattern is: what is asked of
	// its holder is told too. Zero: it is not.
	Token Token
}

// Choice asks for some of several locks, whichever they are: a pool.
type Choice struct {
	Names []Name
	// Count is how many of them, at least 1.
	Count int
}

// MaxSetNames is how many names a SetRequest may have, those of its choices included.
const MaxSetNames = 64

// SetRequest asks for several locks, all or none. What is not said here is as in
// LockRequest, for each hold.
type SetRequest struct {
	// Names are those to have all.
	Names []Name
	// Choices are those to have some of.
	Choices       []Choice
	Data          Data
	Holder        string
	TTL           time.Duration
	ExpireTime    time.Time
	Wait          time.Duration
	RequestID     string
	ThroughFreeze bool
	Reason        string
	OnExpiry      OnExpiry
	RefuseManual  bool
	Confirm       func(ctx context.Context) error
}

// SetGrant is the answer to a SetRequest.
type SetGrant struct {
	// Locks are the holds, in name order.
	Locks []Lock
	// Queued is how long the request stood in line.
	Queued time.Duration
}

// HoldRef is one hold of a lock.
type HoldRef struct {
	Name  Name
	Token Token
}

// UnlockSetRequest asks for the end of several holds, in one step.
type UnlockSetRequest struct {
	// Holds are those to end, at most MaxSetNames.
	Holds []HoldRef
	// Set ends, in place of Holds, what is left of the set with that ID.
	Set Token
	// May is asked of each hold of Set before anything is done to it; what it returns is
	// the hold's SetAnswer.Err, and the hold stays. Nil: all may be ended. A guard sets it;
	// a door never does.
	May func(Name) error
	// Holder, Force, Reason and Data are as in UnlockRequest, for each.
	Holder string
	Force  bool
	Reason string
	Data   *Data
}

// RenewSetRequest asks to keep several holds longer.
type RenewSetRequest struct {
	// Holds are those to renew, at most MaxSetNames.
	Holds []HoldRef
	// TTL, ExpireTime and Holder are as in RenewRequest, for each.
	TTL        time.Duration
	ExpireTime time.Time
	Holder     string
}

// SetAnswer is what became of one hold of a set.
type SetAnswer struct {
	HoldRef
	// Lock is the hold as it was, for UnlockSet, and as it is, for RenewSet.
	Lock Lock
	// Revision is that of its end, for UnlockSet.
	Revision Revision
	// Next is the hold that the lock was granted to in the same step, for UnlockSet. Manager
	// grants what a set leaves in steps of their own, so that it is not held.
	Next Lock
	// Err is why nothing was done, an *Error; nil: it was.
	Err error
}

// HandOverRequest asks for a hold to go on under another holder, with another token.
type HandOverRequest struct {
	Name Name
	// Token is the hold's. It must not be zero.
	Token Token
	// Holder is who has the hold from now on; empty: anonymous.
	Holder string
	// Caller is whose the hold is from now on, an authenticated name; empty: nobody's, as
	// far as callers go.
	Caller string
	// From is who hands over, for the event, at most 256 bytes; empty: the hold's holder.
	From string
	// TTL and ExpireTime are new terms, as in LockRequest; both zero: the hold's own.
	TTL        time.Duration
	ExpireTime time.Time
	// Never has the hold go on without an end of its own.
	Never bool
	// Data replaces the hold's data; nil: it stays.
	Data *Data
	// Reason is for the history, at most 1,024 bytes.
	Reason string
	// RequestID is the new hold's, as in LockRequest: the same request again, with the
	// old token, is answered with the same hold.
	RequestID string
	// NoTree refuses to hand a Tree over. A guard sets it where Caller may not freeze; a
	// door never does.
	NoTree bool
}

// HandOverAnswer is the answer to a HandOverRequest.
type HandOverAnswer struct {
	// Lock is the hold as it goes on.
	Lock Lock
	// Warnings are what may be a mistake, a sentence each. A guard, who knows callers,
	// fills them.
	Warnings []string
}

// AskRequest asks the holder of a lock to let go.
type AskRequest struct {
	Name Name
	// Token asks the holder of that hold alone; zero: whoever holds it.
	Token Token
	// Message is for the holder, at most 1,024 bytes. It must not be empty.
	Message string
	// Holder is who asks, at most 256 bytes.
	Holder string
}

// AskAnswer is the answer to an AskRequest.
type AskAnswer struct {
	// Lock is the hold.
	Lock Lock
	// Heard reports whether somebody listens for the holder at present. If not, who next
	// does is told.
	Heard bool
}

// DismissRequest puts a waiter out of the line.
type DismissRequest struct {
	Name Name
	// Place is the waiter's.
	Place uint64
	// Holder is who does it, at most 256 bytes.
	Holder string
	// Reason is for the waiter, at most 1,024 bytes. It must not be empty.
	Reason string
}
