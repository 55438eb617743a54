package lock

import (
	"fmt"
	"time"
)

// EventType says what an event tells.
type EventType uint8

// The event types. Stores make Locked, Updated and Unlocked; Manager's streams
// add Reset and Synced. Extended is for a Change alone.
const (
	// Locked: the lock has a new hold, with a new token. Where it replaces another,
	// that one's Unlocked has come just before.
	Locked EventType = iota + 1
	// Updated: the hold goes on with other data.
	Updated
	// Unlocked: the hold ended.
	Unlocked
	// Reset: forget every lock you know; the present state follows.
	Reset
	// Synced: all changes up to the event's revision have been told.
	Synced
	// Extended: the hold goes on with another TTL or ExpireTime and the same
	// data. It is a Change that takes no revision and makes no event.
	Extended
	// Asked: somebody asks the holder to let go. Manager tells it to the holder alone; it
	// is no change.
	Asked
)

// String returns the type's word: locked, updated, unlocked, reset, synced,
// extended or asked.
func (t EventType) String() string {
	return word(int(t), "", "locked", "updated", "unlocked", "reset", "synced", "extended", "asked")
}

// Cause says why a change came about.
type Cause uint8

// The causes.
const (
	// Request: the holder, or who became it, asked for the change.
	Request Cause = iota + 1
	// Forced: somebody broke the hold on purpose.
	Forced
	// Expired: the lease ran out.
	Expired
	// File: somebody changed the lock file.
	File
)

// String returns the cause's word: request, forced, expired or file.
func (c Cause) String() string {
	return word(int(c), "", "request", "forced", "expired", "file")
}

func word(i int, words ...string) string {
	if i < len(words) {
		return words[i]
	}
	return "unknown"
}

// Event is one change, as it is kept for ever after.
type Event struct {
	// Revision is the number of the change.
	Revision Revision
	// Time is when it was made, in UTC, to the millisecond. The order of
	// events is that of their revisions; a clock set back shows here.
	Time time.Time
	// Type says what happened.
	Type EventType
	// Cause says why; zero for Reset and Synced.
	Cause Cause
	// Lock is the lock after the change. For Unlocked it is the hold that
	// ended, its Data replaced by the closing message if there was one.
	Lock Lock
	// Previous is, for Locked, the token of the hold that this one has taken the place of
	// in one step: it was overwritten, handed over, or stale; zero: of none.
	Previous Token
	// Actor is who made the change: the authenticated caller, else the holder
	// that the caller claimed; empty when neither is known, and for Expired and
	// File.
	Actor string
	// Reason is why, in the actor's own words or the server's; for Asked, what the actor
	// says.
	Reason string
}

// EndOf returns the event before e, a Locked that takes the place of a hold: that
// hold's end.
func (e Event) EndOf(hold Lock) Event {
	hold.Revision = e.Revision - 1
	return Event{
		Revision: hold.Revision,
		Time:     e.Time,
		Type:     Unlocked,
		Cause:    e.Cause,
		Lock:     hold,
		Actor:    e.Actor,
		Reason:   fmt.Sprintf("replaced by the hold with token %d", e.Revision),
	}
}

// Size returns how many bytes the event takes in memory, about.
func (e Event) Size() int {
	const bare = 256 // without its texts
	l := e.Lock
	return bare + len(l.Name.text) + len(l.Data.text) + len(l.Holder) + len(l.Caller) + len(l.RequestID) + len(l.Problem) + len(e.Actor) + len(e.Reason)
}
