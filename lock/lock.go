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
	// Problem says why the lock file could not be read; empty when it could.
	Problem string
	// Warnings says what in the lock file does not count, a sentence a line; empty
	// when all counts, and in events.
	Warnings string
	// Waiters is how many requests wait for the lock. Manager fills it in;
	// stores keep zero.
	Waiters int
	// Deadline is when the hold ends unless it is renewed. Manager fills it
	// in; stores keep zero. Zero means that the hold does not end by itself.
	Deadline time.Time
}

// Held reports whether the lock is held.
func (l Lock) Held() bool { return l.Token != 0 }

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
