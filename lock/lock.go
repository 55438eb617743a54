package lock

import "time"

// Revision is the number of a change. One counter serves the whole store; it
// starts at 1, is never reused and never goes back. Zero means no change.
type Revision uint64

// Token is the fencing token of a hold: the revision of its grant. Tokens only
// ever increase, over all locks of a store, for ever. Zero means no hold.
type Token uint64

// Lock is a lock as it stands. Values are never changed in place.
type Lock struct {
	// Name is always set, also for a free lock.
	Name Name
	// Data is the user's own document; empty for a free lock.
	Data Data
	// Holder says who holds the lock, free-form; empty means anonymous.
	Holder string
	// Caller is whose the hold is, by Caller.Owner of who was granted it; empty: the
	// holder and the token alone decide, as for a file that somebody made by hand.
	Caller string
	// Token is the hold's fencing token; zero means that the lock is free.
	Token Token
	// Revision is that of the last change of this lock.
	Revision Revision
	// AcquireTime is when the hold began, in UTC, to the millisecond.
	AcquireTime time.Time
	// TTL is the length of the lease, counted from the last renewal; zero
	// means that the hold has no ttl. A hold has a TTL, an ExpireTime or
	// neither.
	TTL time.Duration
	// ExpireTime is an absolute end of the hold; zero means none.
	ExpireTime time.Time
	// RequestID is the request that was granted the hold; empty when it gave
	// none. A request with the same id is answered with the same hold.
	RequestID string
	// Tree reports whether the hold covers every name below its own too: a freeze.
	Tree bool
	// Set says which set the hold was granted in; zero: in none.
	Set SetRef
	// OnExpiry says what becomes of the hold when its time is over.
	OnExpiry OnExpiry
	// StaleTime is when the time of a hold with Keep was over; zero: it is not. A stale
	// hold is held until somebody ends or replaces it who has looked.
	StaleTime time.Time
	// Problem says why the lock file could not be read; empty when it could.
	Problem string
	// Warnings says what in the lock file does not count, a sentence a line; empty
	// when all counts, and in events.
	Warnings string
	// Waiters is how many requests wait for the lock. Manager fills it in, as it does all
	// that follows; stores keep zero.
	Waiters int
	// Situation is what stands around the lock; nil: nothing.
	Situation *Situation
	// Deadline is when the hold ends, or becomes stale, unless it is renewed. Zero means
	// that the hold does not end by itself, or is stale already.
	Deadline time.Time
}

// SetRef says which holds were granted together. The zero SetRef is of no set.
type SetRef struct {
	// ID is the lowest token of the set's holds.
	ID Token
	// Size is how many holds the set was granted, at least 2.
	Size int
}

// OnExpiry says what becomes of a hold whose time is over.
type OnExpiry uint8

// What becomes of it.
const (
	// End: it ends.
	End OnExpiry = iota
	// Keep: it becomes stale.
	Keep
)

// String returns the word: release or keep.
func (o OnExpiry) String() string { return word(int(o), "release", "keep") }

// Situation is what stands around a lock and is worked out when it is shown. It is in no
// event.
type Situation struct {
	// Waiting is the first of the lock's waiters, in the order of their places.
	Waiting []Waiter
	// SharedHolds is how many shared holds of the lock stand.
	SharedHolds int
	// HeldBelow is, for a Tree, how many locks below its name are held.
	HeldBelow int
	// BlockedBy is what keeps a free lock from being granted; nil: nothing does.
	BlockedBy *Obstacle
	// Conflict says what the hold is at odds with, as one that somebody made by hand below
	// a freeze is; empty: nothing.
	Conflict string
	// ConflictWith is the other lock that Conflict tells of; zero: it tells of none.
	ConflictWith Name
}

// Waiter is a request that waits for a lock.
type Waiter struct {
	// Place is its number: every request that has to wait gets one when it comes, one
	// counter for all. Who has a lower one goes first.
	Place uint64
	// Holder and Caller are who wants the lock, as Lock has them.
	Holder, Caller string
	// Since is when it came.
	Since time.Time
	// Until is when its wait ends; zero: it waits without an end.
	Until time.Time
	// Shared and Tree say which kind of hold it wants, if not a plain one.
	Shared, Tree bool
	// Names is what a set waits for, all of them and those of its choices, in name order;
	// nil: the lock alone.
	Names []Name
	// Message is the text of its data's key msg.
	Message string
}

// Who says in words who waits.
func (w Waiter) Who() string {
	switch {
	case w.Holder == "" && w.Caller == "":
		return "somebody who gave no name"
	case w.Caller == "" || w.Caller == w.Holder:
		return w.Holder
	case w.Holder == "":
		return w.Caller
	}
	return w.Holder + " (" + w.Caller + ")"
}

// Obstacle is what stands before a request for a free lock.
type Obstacle struct {
	// Kind says what it is.
	Kind ObstacleKind
	// Lock is the covering Tree, or the first of the shared holds; zero for others.
	Lock Lock
	// Hidden reports whether there is a Lock, held, that the caller may not view: it is
	// zero then. A guard sets it.
	Hidden bool
	// Waiter is the older request; zero for others. Of one for another lock, as for a tree
	// that covers this one, Names has that lock.
	Waiter Waiter
}

// ObstacleKind says what an Obstacle is.
type ObstacleKind uint8

// The kinds.
const (
	// ByTree: a hold of a name above covers the lock, or one that is about to be granted.
	ByTree ObstacleKind = iota + 1
	// ByShared: shared holds of the lock stand.
	ByShared
	// ByWaiter: an older request waits for the lock, or for a tree that covers it.
	ByWaiter
)

// String returns the kind's word: tree, shared or waiter.
func (k ObstacleKind) String() string { return word(int(k), "", "tree", "shared", "waiter") }

// Held reports whether the lock is held.
func (l Lock) Held() bool { return l.Token != 0 }

// Stale reports whether the time of the hold is over and it is kept for a human.
func (l Lock) Stale() bool { return !l.StaleTime.IsZero() }

// Manual reports whether the hold has no end of its own: a human took it, and it may last
// for days.
func (l Lock) Manual() bool { return l.Held() && l.TTL == 0 && l.ExpireTime.IsZero() }

// Shared reports whether this is a shared hold of another lock, by its name.
func (l Lock) Shared() bool { return l.Name.IsSlot() }

// ExpireWarning says why the data key expire does not end the hold; empty: it does, or
// there is none.
func (l Lock) ExpireWarning() string {
	expire, problem := l.Data.ExpireTime(l.AcquireTime)
	switch {
	case problem != "" || expire.IsZero():
		return problem
	case l.TTL != 0:
		return "the data key expire does not count; the hold has a ttl"
	case !l.ExpireTime.Equal(expire):
		return "the data key expire does not count; the hold has an expire time of its own"
	}
	return ""
}

// WithData returns the hold with other data. An end that came from the data key
// expire follows the new data.
func (l Lock) WithData(data Data) Lock {
	if fromData, _ := l.Data.ExpireTime(l.AcquireTime); l.TTL == 0 && l.ExpireTime.Equal(fromData) {
		l.ExpireTime, _ = data.ExpireTime(l.AcquireTime)
	}
	l.Data = data
	return l
}

// State returns the original library's word for the state: locked or unlocked.
func (l Lock) State() string {
	if l.Held() {
		return "locked"
	}
	return "unlocked"
}
