package lock

import "time"

// HistoryQuery says which past events are asked for, and in which order. The zero
// HistoryQuery asks for all that are kept, oldest first.
type HistoryQuery struct {
	// Pattern selects events by the lock's name.
	Pattern Pattern
	// After selects events whose revision is higher.
	After Revision
	// AfterTime selects events of that time or later; zero: no limit. The time of an
	// event is what the server's clock said: where that was set back, later events have
	// earlier times.
	AfterTime time.Time
	// BeforeTime selects events of an earlier time; zero: no limit.
	BeforeTime time.Time
	// Actor selects events by who made the change; empty: whoever did.
	Actor string
	// Cause selects events by why the change came about; zero: for whatever cause.
	Cause Cause
	// NewestFirst turns the order round, which is else that of the revisions.
	NewestFirst bool
}

// Match reports whether q asks for an event.
func (q *HistoryQuery) Match(e *Event) bool {
	return e.Revision > q.After &&
		q.Pattern.Match(e.Lock.Name) &&
		(q.AfterTime.IsZero() || !e.Time.Before(q.AfterTime)) &&
		(q.BeforeTime.IsZero() || e.Time.Before(q.BeforeTime)) &&
		(q.Actor == "" || q.Actor == e.Actor) &&
		(q.Cause == 0 || q.Cause == e.Cause)
}

// HistoryPage is some of the events that a HistoryQuery asks for, in its order.
type HistoryPage struct {
	Events []Event
	// Next is where to go on: all events up to there, the one with that revision
	// included, have been looked at. 0: there are no more.
	Next Revision
}

// MaxPageBytes is how large the events of a HistoryPage are together, by Event.Size, but
// for the last.
const MaxPageBytes = 4 << 20
