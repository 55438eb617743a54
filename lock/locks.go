package lock

import (
	"context"
	"iter"
)

// Locks is what every door offers to its callers, in its own form: the rules of package
// manager, or a guard before them. The errors are for callers to see as they are; package
// service has the gRPC code of each. Every method may be called from many goroutines at
// once.
type Locks interface {
	// Lock grants a lock, at once or after a wait.
	Lock(ctx context.Context, caller Caller, request LockRequest) (Grant, error)
	// Unlock ends a hold.
	Unlock(ctx context.Context, caller Caller, request UnlockRequest) (Release, error)
	// Renew begins the lease of a hold anew, and may change its data.
	Renew(ctx context.Context, caller Caller, request RenewRequest) (Lock, error)
	// Status returns a lock as it stands.
	Status(ctx context.Context, caller Caller, name Name) (Lock, error)
	// List returns held locks in name order, all as of one revision, and whether there
	// are more.
	List(ctx context.Context, caller Caller, p Pattern, after Name, limit int) (page []Lock, revision Revision, more bool, err error)
	// LockSet grants several locks, all or none.
	LockSet(ctx context.Context, caller Caller, request SetRequest) (SetGrant, error)
	// UnlockSet ends several holds, as far as they still stand, in one step. It answers
	// for each in name order.
	UnlockSet(ctx context.Context, caller Caller, request UnlockSetRequest) ([]SetAnswer, error)
	// RenewSet begins the leases of several holds anew. It answers for each in name order.
	RenewSet(ctx context.Context, caller Caller, request RenewSetRequest) ([]SetAnswer, error)
	// HandOver has a hold go on under another holder.
	HandOver(ctx context.Context, caller Caller, request HandOverRequest) (HandOverAnswer, error)
	// Ask asks the holder of a lock to let go.
	Ask(ctx context.Context, caller Caller, request AskRequest) (AskAnswer, error)
	// Dismiss puts a waiter out of the line, and returns it as it was.
	Dismiss(ctx context.Context, caller Caller, request DismissRequest) (Waiter, error)
	// Watch yields the changes of locks after a revision.
	Watch(ctx context.Context, caller Caller, request WatchRequest) iter.Seq2[Event, error]
	// History returns a page of the past.
	History(ctx context.Context, caller Caller, q HistoryQuery, from Revision, limit int) (HistoryPage, error)
	// Revision returns the present revision.
	Revision(ctx context.Context) (Revision, error)
}
