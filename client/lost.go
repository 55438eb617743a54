package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pylok/pylok/lock"
)

var (
	// ErrReleased: the hold is over because of its own Release.
	ErrReleased = errors.New("the hold has been released")
	// ErrLost: the hold is over, and not because of its own Release. Every
	// *LostError is one.
	ErrLost = errors.New("the hold is lost")
)

// LostError says why a hold is over although it was not released. It is the cause of
// its Context, and what its methods return from then on; these may say more than the
// cause, which has what was known when the hold ended.
type LostError struct {
	// Name and Token are those of the hold.
	Name  lock.Name
	Token lock.Token
	// Cause is how the server ended the hold: lock.Forced (it was broken),
	// lock.Expired, lock.File (its lock file was removed or replaced) or
	// lock.Request (who has its token or its holder's name released it, handed it over, or
	// took the lock anew with overwrite). Expired is also a process that did not run
	// when it was time to renew. Zero: how the hold ended is not known, or
	// whether it has; it could not be renewed in time, and Err says why.
	Cause lock.Cause
	// Stale reports whether the hold, one of WithKeep, stands although it is over: nobody
	// else gets the lock until somebody has looked.
	Stale bool
	// To is who has the lock now that the hold was handed over; empty: it was not.
	To string
	// Actor is who ended it, and Reason their words; empty when not known.
	Actor, Reason string
	// Err is why it could not be renewed, such as an *UnreachableError, or the
	// refusal that told of its end, with the lock as it then was; nil when a watch
	// told of it.
	Err error
}

// Error says what was lost and why.
func (e *LostError) Error() string {
	return fmt.Sprintf("lost %s (token %d): %s", e.Name, e.Token, e.why())
}

func (e *LostError) why() string {
	actor, reason := e.Actor, ""
	if actor == "" {
		actor = "somebody who gave no name"
	}
	if e.Reason != "" {
		reason = ": " + e.Reason
	}
	switch {
	case e.To != "":
		if strings.HasPrefix(e.Reason, "handed over to ") { // the server's words
			return "it was " + e.Reason
		}
		return "it was handed over to " + e.To + reason
	case e.Stale:
		return "the lease ran out before it was renewed; the lock stays held, stale, until somebody has looked"
	}
	switch e.Cause {
	case lock.Forced:
		return "it was broken by " + actor + reason
	case lock.Expired:
		return "the lease ran out before it was renewed"
	case lock.File:
		return "its lock file was removed or replaced"
	case lock.Request:
		return "it was released or replaced by " + actor + reason
	}
	switch {
	case e.Err == nil:
		return "how it ended is no longer known"
	case isOver(e.Err):
		return e.Err.Error()
	}
	return "it could not be renewed in time: " + e.Err.Error()
}

// Is makes every LostError an ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Unwrap returns Err.
func (e *LostError) Unwrap() error { return e.Err }
