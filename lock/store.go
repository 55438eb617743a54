package lock

import (
	"context"
	"iter"
)

// Change is one step that a Store takes, on the condition that the lock still
// stands as the caller saw it.
type Change struct {
	// Type is Locked, Updated, Unlocked or Extended.
	Type EventType
	// Cause, Actor and Reason go into the event as they are.
	Cause         Cause
	Actor, Reason string
	// Prev is the Revision of the lock as the caller saw it, 0 if it was free.
	// The lock must still stand there.
	Prev Revision
	// Lock is the lock after the change; for Unlocked, the hold that ends,
	// with the closing message as its Data if there is one. The store sets
	// Revision, and for Locked also Token (the same number) and, where it is
	// zero, AcquireTime (the time of the event). It leaves Warnings out, which
	// are of a file and not of a change.
	Lock Lock
}

// Outcome is how a commit of one change ended.
type Outcome struct {
	Event Event // zero for an Extended change
	Err   error
}

// Store keeps the held locks and the order of all changes. It knows nothing of
// waiting, leases or who may do what: Manager decides, and commits by
// compare-and-swap. Every method may be called from many goroutines at once.
// Implementations pass lock/locktest.
type Store interface {
	// Get returns the lock as the last finished Commit left it, or
	// ErrNotLocked.
	Get(ctx context.Context, name Name) (Lock, error)

	// List returns the held locks that match p and come after the name after
	// (the zero Name: all), in name order, all as of one revision, which it
	// returns too: that of the last event. A sequence that yields an error
	// ends with it, as it does soon after ctx has ended, however many locks p does
	// not match.
	List(ctx context.Context, p Pattern, after Name) (Revision, iter.Seq2[Lock, error])

	// Commit applies all changes or none, each to a different lock, and
	// returns the event of each in the order of the changes. The revisions
	// follow one another. An Extended change keeps the lock's revision and
	// makes no event: its place in the answer has the zero Event. A Locked change
	// of a lock that is held makes two, the Unlocked of the hold that it replaces,
	// as Event.EndOf has it, and its own, which is the one in the answer; the lock
	// is at no time free.
	//
	// A change whose Prev is not the revision of the lock's present state
	// fails the whole with ErrConflict; by the time that is returned, Get
	// shows the state that stood in the way. ErrDataTooLarge, ErrTooManyLocks,
	// ErrInvalidName, ErrReadOnly and ErrShuttingDown also mean that nothing
	// changed. On any other error the outcome is unknown.
	//
	// When Commit returns nil the changes survive a power cut. A ctx that ends
	// does not stop a Commit that has begun.
	Commit(ctx context.Context, changes ...Change) ([]Event, error)

	// CommitEach commits each change as Commit would alone, whatever becomes of the
	// others, and those of one lock in their order, so that a lock may be released
	// and granted again. It returns when all have ended, and how each did. They are
	// made durable together, which takes hardly longer than for one.
	CommitEach(ctx context.Context, changes ...Change) []Outcome

	// CheckSize returns the ErrDataTooLarge with which a Commit would refuse to lock
	// l, or nil; the numbers and times that the Commit sets may make a difference of
	// 64 bytes. It looks at nothing else.
	CheckSize(l Lock) error

	// Events returns events after a revision, oldest first, without a gap,
	// those that others caused included: at least one, and not more than fit
	// in bounded memory. It waits until there is one; what it tells, Get and
	// List show by then. The caller must not change the slice. The errors are
	// a *CompactedError when the oldest event after that revision is no longer
	// kept or the revision is yet to come, ErrShuttingDown after Close, and
	// ctx's.
	Events(ctx context.Context, after Revision) ([]Event, error)

	// Breaks returns events after a revision whose Cause is Forced, oldest first,
	// from before what Events still has: a store may keep them longer than the
	// rest. None: there are no more. The caller must not change the slice.
	Breaks(ctx context.Context, after Revision) ([]Event, error)

	// Close ends all calls of Events, waits for the commits that have begun
	// and gives everything back. Calls after it fail with ErrShuttingDown.
	Close() error
}

// CommitInTurn is CommitEach by one Commit after the other, for a Store that would gain
// nothing from making the changes durable together.
func CommitInTurn(ctx context.Context, s Store, changes ...Change) []Outcome {
	outcomes := make([]Outcome, len(changes))
	for i, change := range changes {
		events, err := s.Commit(ctx, change)
		if outcomes[i].Err = err; err == nil {
			outcomes[i].Event = events[0]
		}
	}
	return outcomes
}
