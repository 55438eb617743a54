package lock

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Reason is why a request was refused. It is itself an error, so that
// errors.Is(err, lock.ErrLockHeld) works on any error that wraps it; its text is
// the reason that goes over the wire.
type Reason string

// The reasons. The gRPC code of each is in service/errors.go.
const (
	// ErrLockHeld: the lock is held by someone else, also after a wait.
	ErrLockHeld Reason = "LOCK_HELD"
	// ErrNotHolder: the token is stale, or the holder differs.
	ErrNotHolder Reason = "NOT_HOLDER"
	// ErrNotLocked: the lock is free.
	ErrNotLocked Reason = "NOT_LOCKED"
	// ErrInvalidName: the name breaks a rule of ParseName.
	ErrInvalidName Reason = "INVALID_NAME"
	// ErrInvalidArgument: another part of the request breaks a rule.
	ErrInvalidArgument Reason = "INVALID_ARGUMENT"
	// ErrDataTooLarge: the lock file would be larger than 64 KiB.
	ErrDataTooLarge Reason = "DATA_TOO_LARGE"
	// ErrTooManyWaiters: the queue for the lock is full, or as many requests wait, of all
	// or of the caller, as may.
	ErrTooManyWaiters Reason = "TOO_MANY_WAITERS"
	// ErrTooManyLocks: the store holds as many locks as it may, or the caller does.
	ErrTooManyLocks Reason = "TOO_MANY_LOCKS"
	// ErrLockFile: the operating system does not let the store change this one lock's
	// file, or make it; nothing changed.
	ErrLockFile Reason = "LOCK_FILE_FAILED"
	// ErrReadOnly: the store cannot write; nothing changed.
	ErrReadOnly Reason = "STORE_READ_ONLY"
	// ErrOutcomeUnknown: the change may or may not survive; ask again with the
	// same request id.
	ErrOutcomeUnknown Reason = "OUTCOME_UNKNOWN"
	// ErrUnauthenticated: the caller's proof is wrong or over.
	ErrUnauthenticated Reason = "UNAUTHENTICATED"
	// ErrPermissionDenied: the rules do not allow the caller to do this.
	ErrPermissionDenied Reason = "PERMISSION_DENIED"
	// ErrRateLimited: the caller asks more often than it may, or has as many calls open as
	// it may; RetryAfter says when to
	// ask again.
	ErrRateLimited Reason = "RATE_LIMITED"
	// ErrTooManyWatches: the caller, or the server, has as many watches as may be.
	ErrTooManyWatches Reason = "TOO_MANY_WATCHES"
	// ErrShuttingDown: the server is stopping; nothing changed.
	ErrShuttingDown Reason = "SHUTTING_DOWN"
)

// Error returns the reason's name.
func (r Reason) Error() string { return string(r) }

// Errors between a Store and Manager. They never reach a caller of Manager.
var (
	// ErrConflict: a Change's Prev is not the lock's present revision.
	ErrConflict = errors.New("the lock has changed")
	// ErrCompacted: the store no longer has the events after that revision.
	ErrCompacted = errors.New("the events after that revision are no longer kept")
)

// CompactedError is an ErrCompacted that says from where events are kept.
type CompactedError struct {
	// Kept is the lowest revision after which every event is kept.
	Kept Revision
}

// Error says from where events are kept.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("%v; they are kept after revision %d", ErrCompacted, e.Kept)
}

// Is makes a CompactedError an ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// PendingError is that a commit was given up before its outcome was known.
type PendingError struct {
	// Outcome waits until it is known, and returns what Commit would have.
	Outcome func() ([]Event, error)
	// Err says so, for who asked; an *Error with ErrOutcomeUnknown.
	Err error
}

// Error returns the text of Err.
func (e *PendingError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *PendingError) Unwrap() error { return e.Err }

// Error is a refused request: what happened, to what, and what to do next.
type Error struct {
	// Reason says which kind of refusal it is.
	Reason Reason
	// Message is a whole sentence for the person who asked.
	Message string
	// Field is the request field at fault, as the proto names it; for
	// ErrInvalidName, ErrInvalidArgument and ErrDataTooLarge. Where the message begins
	// with it, a colon and a space follow.
	Field string
	// Lock is the present state of the lock; for ErrLockHeld and ErrNotHolder.
	Lock *Lock
	// Names are the locks that Message names besides those of the request and Lock: not
	// everybody may view them.
	Names []Name
	// RetryAfter is when to ask again; for ErrRateLimited. Zero: not said.
	RetryAfter time.Duration
	// Err is the cause underneath, for the log; nil when there is none.
	Err error
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap gives errors.Is and errors.As the reason and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}

// DataTooLarge returns an *Error with ErrDataTooLarge for data of which the message says
// how large they are.
func DataTooLarge(message string) error {
	return &Error{
		Reason:  ErrDataTooLarge,
		Field:   "data",
		Message: fmt.Sprintf("%s; a lock file holds at most %d bytes in all: keep the bulk elsewhere and lock with a link to it", message, MaxFileBytes),
	}
}

// Invalid returns an *Error with ErrInvalidArgument for a request field.
func Invalid(field, message string) error {
	return &Error{Reason: ErrInvalidArgument, Field: field, Message: field + ": " + message}
}

// InField returns a refusal of what is in one field as one that names another, such as
// names[2] for the field name: the request has that.
func InField(field string, err error) error {
	refused, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	in := *refused
	in.Field, in.Message = field, strings.TrimPrefix(refused.Message, refused.Field+": ")
	if in.Message != refused.Message {
		in.Message = field + ": " + in.Message
	}
	return &in
}
