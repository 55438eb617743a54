package lock

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Change is what a commit does to one lock, on the condition that the lock still
// stands as the caller saw it.
type Change struct {
	// Type is Locked, Updated, Unlocked or Extended.
	Type EventType
	// Cause, Actor and Reason go into the event as they are.
	Cause         Cause
	Actor, Reason string
	// Prev is the Revision of the lock as the caller saw it, 0 if it was free, or if a
	// change before it in the same commit frees it. The lock must still stand there.
	Prev Revision
	// Lock is the lock after the change; for Unlocked, the hold that ends,
	// with the closing message as its Data if there is one. The store sets
	// Revision, and for Locked also Token (the same number), where it is
	// zero, AcquireTime (the time of the event), and where Set has a Size and no ID,
	// that, to the token of the first such change of the commit. It leaves Warnings out, which
	// are of a file and not of a change.
	Lock Lock
}

// Guard is a condition of a commit: a lock that must stand at a revision, and that the
// commit does not change.
type Guard struct {
	Name Name
	// Revision is the lock's as the caller saw it, 0 if it was free.
	Revision Revision
}

// Store keeps the held locks and the order of all changes. It knows nothing of
// waiting, leases or who may do what: Manager decides, and commits by
// compare-and-swap. Every method may be called from many goroutines at once.
// Implementations pass lock/locktest.
type Store interface {
	// Get returns the lock as the last finished Commit left it, or
	// ErrNotLocked. It waits for no disk and no network.
	Get(ctx context.Context, name Name) (Lock, error)

	// List returns the held locks that match p and come after the name after
	// (the zero Name: all), in name order, all as of one revision, which it
	// returns too: that of the last event. A sequence that yields an error
	// ends with it, as it does soon after ctx has ended, however many locks p does
	// not match.
	List(ctx context.Context, p Pattern, after Name) (Revision, iter.Seq2[Lock, error])

	// Revision returns the revision of the last event, as List does.
	Revision(ctx context.Context) (Revision, error)

	// Commit makes all of the changes or none, in their order, if every guard holds. It
	// returns the event of each change. The revisions follow one another. An Extended
	// change keeps the lock's revision and makes no event: its place in the answer has
	// the zero Event. A Locked change of a lock that is held makes two, the Unlocked of
	// the hold that it replaces, as Event.EndOf has it, and its own, which is the one in
	// the answer and has the replaced hold's token as its Previous.
	//
	// A lock is changed once, or it is handed over: it is Unlocked, and a later change,
	// with a Prev of 0, has it Locked. Like one that is replaced it is at no time free
	// then, for readers and for others who commit. What breaks this rule, or those of
	// CheckCommit in general, is ErrInvalidArgument.
	//
	// A change whose Prev, or a guard whose Revision, is not that of the lock's present
	// state fails the whole with ErrConflict; by the time that is returned, Get shows
	// the state that stood in the way. ErrDataTooLarge, ErrTooManyLocks, ErrInvalidName,
	// ErrInvalidArgument, ErrLockFile, ErrReadOnly and ErrShuttingDown also mean that
	// nothing changed. On any other error the outcome is unknown. A commit that leaves no
	// more locks held than there were is never ErrTooManyLocks.
	//
	// When Commit returns nil the changes survive a power cut. When ctx ends first, the
	// error is ErrReadOnly if nothing has begun and nothing will, and else a
	// *PendingError: what has begun goes on, and no other change of these locks is made
	// before its outcome is known.
	Commit(ctx context.Context, changes []Change, guards ...Guard) ([]Event, error)

	// CheckSize returns the ErrDataTooLarge with which a Commit would refuse to lock
	// l, or nil; the numbers and times that the Commit sets may make a difference of
	// 64 bytes. It looks at nothing else.
	CheckSize(l Lock) error

	// Events returns events after a revision that p selects, oldest first, without a
	// gap, those that others caused included: at least one, and not more than fit in
	// bounded memory. Until is the revision up to which they are all, the place to go
	// on from. It waits until there is one, for at most the time wait; then it returns
	// none, and until is at least the present revision as the call began. What others
	// do to locks that p does not select costs a call that waits nothing. What it
	// tells, Get and List show by then. The caller must not change the slice. The
	// errors are a *CompactedError when the oldest event after that revision is no
	// longer kept or the revision is yet to come, ErrShuttingDown after Close, and
	// ctx's.
	Events(ctx context.Context, p Pattern, after Revision, wait time.Duration) (events []Event, until Revision, err error)

	// History returns events that q asks for: those behind the revision from, which is
	// the Next of the page before, or 0 for the first page. Of events that Events no
	// longer has a store may keep some longer: those whose Cause is Forced. A page has up
	// to limit events, which is at least 1, and is bounded in bytes by MaxPageBytes. It
	// may have fewer, even none, and still not be the last: what one call reads is bounded
	// too. What it tells, Get and List show by then.
	History(ctx context.Context, q HistoryQuery, from Revision, limit int) (HistoryPage, error)

	// Close ends all calls of Events, waits for the commits that have begun
	// and gives everything back. Calls after it fail with ErrShuttingDown.
	Close() error
}

// CheckCommit holds a commit to what every Store asks of one, whatever the state is. The
// errors are *Error with ErrInvalidArgument or ErrInvalidName.
func CheckCommit(changes []Change, guards []Guard) error {
	if len(changes) == 0 {
		return Invalid("changes", "a commit needs at least one")
	}
	for i, change := range changes {
		name := change.Lock.Name
		if name.IsZero() {
			_, err := ParseName("")
			return err
		}
		switch change.Type {
		case Locked, Updated, Unlocked, Extended:
		default:
			return Invalid("changes", fmt.Sprintf("a lock cannot be changed by %v", change.Type))
		}
		for j, before := range changes[:i] {
			if before.Lock.Name != name {
				continue
			}
			isHandedOver := before.Type == Unlocked && change.Type == Locked && change.Prev == 0
			if !isHandedOver || isChanged(name, changes[:j]) {
				return Invalid("changes", fmt.Sprintf("%s is changed twice, and not by its end and the next grant", name))
			}
		}
	}
	for i, guard := range guards {
		isGuarded := func(other Guard) bool { return other.Name == guard.Name }
		switch {
		case guard.Name.IsZero():
			_, err := ParseName("")
			return err
		case isChanged(guard.Name, changes):
			return Invalid("guards", fmt.Sprintf("%s is changed too, and its change says what it must be like", guard.Name))
		case slices.ContainsFunc(guards[:i], isGuarded):
			return Invalid("guards", fmt.Sprintf("%s is guarded twice", guard.Name))
		}
	}
	return nil
}

func isChanged(name Name, changes []Change) bool {
	return slices.ContainsFunc(changes, func(c Change) bool { return c.Lock.Name == name })
}
