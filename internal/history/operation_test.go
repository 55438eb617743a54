package history

import (
	"fmt"
	"math"
	"time"
)

// kind is what an operation does.
type kind string

const (
	lockOp   kind = "Lock"
	unlockOp kind = "Unlock"
	renewOp  kind = "Renew"
	statusOp kind = "Status"

	// These the check adds to what the clients did.

	// openOp is the state in which a daemon found a lock.
	openOp kind = "open"
	// reopenOp is the end of one daemon and the start of the next, up to the
	// first look at the lock.
	reopenOp kind = "restart"
	// undoOp is the release of a grant whose caller had left.
	undoOp kind = "undo"
)

// outcome is what a client knows of an operation.
type outcome string

const (
	done    outcome = "done"
	refused outcome = "refused" // nothing changed, for a reason
	unknown outcome = "unknown" // it may have taken effect, or may yet
)

const (
	never  = math.MaxInt64
	always = math.MinInt64
)

// operation is one call that a client made. Times are those of clock.
type operation struct {
	id         string // the client's own; in the data or the reason of the request
	client     int
	generation int // the daemon that it went to
	kind       kind
	name       string

	token     uint64
	holder    string
	force     bool
	ttl       time.Duration
	wait      time.Duration
	requestID string
	overwrite bool
	data      bool // of a Renew: it replaces the data

	call, ret int64
	// alive is how long the caller surely wanted the lock.
	alive int64

	outcome  outcome
	reason   string // of a refusal
	text     string // of an error, for people
	lock     view   // as the answer showed it
	revision uint64 // of an Unlock that is done
	next     uint64 // of an Unlock that is done: the token of the hold that follows in the same step; 0: none

	// Of reopenOp: the next daemon was not started before exec.
	exec int64
	// Of openOp: the highest token that the lock had had.
	last uint64
}

// view is a lock as an answer shows it; without a token it is free.
type view struct {
	token   uint64
	holder  string
	data    string // the id of the operation that wrote the data
	ttl     time.Duration
	waiters uint32
}

// String describes the operation for failures and pictures.
func (o *operation) String() string {
	text := fmt.Sprintf("%s %s", o.id, o.kind)
	add := func(is bool, format string, args ...any) {
		if is {
			text += fmt.Sprintf(" "+format, args...)
		}
	}
	add(o.token != 0, "token=%d", o.token)
	add(o.holder != "", "holder=%s", o.holder)
	add(o.force, "force")
	add(o.ttl != 0, "ttl=%v", o.ttl)
	add(o.wait != 0, "wait=%v", o.wait)
	add(o.requestID != "", "request=%s", o.requestID)
	add(o.overwrite, "overwrite")
	add(o.data, "data")
	add(o.last != 0, "last=%d", o.last)
	add(o.next != 0, "next=%d", o.next)
	text += " -> " + string(o.outcome)
	add(o.reason != "", "%s", o.reason)
	if o.outcome != unknown || o.lock.token != 0 {
		text += " " + o.lock.String()
	}
	return text
}

func (v view) String() string {
	if v.token == 0 {
		return "free"
	}
	return fmt.Sprintf("{%d %q %s %v}", v.token, v.holder, v.data, v.ttl)
}
