package access

import (
	"cmp"
	"time"

	"github.com/pylok/pylok/lock"
)

// Record is what somebody asked for and whether it was allowed.
type Record struct {
	Time    time.Time
	Caller  lock.Caller
	Verb    Verb
	Name    string // of the lock, or a pattern; empty: it concerned none
	Allowed bool
	Act     Act    // that was done; empty for what was refused
	To      string // whose the hold is after a hand-over, or whom a dismissal concerned
	Reason  string // the caller's, for what was allowed; else the refusal
}

// Act is what was done to others, or to the hold of another, in a word.
type Act string

// The acts.
const (
	broke         Act = "break"
	overwrote     Act = "overwrite"
	froze         Act = "freeze"
	thawed        Act = "thaw"
	throughFreeze Act = "through-freeze" // or would have gone through one
	handedOver    Act = "hand-over"
	dismissed     Act = "dismiss"
	endedStale    Act = "end-stale"
	replacedStale Act = "replace-stale"
)

// record tells of a refusal.
func (g *Guard) record(caller lock.Caller, v Verb, name string, refusal string) {
	g.tell(Record{Caller: caller, Verb: v, Name: name, Reason: refusal})
}

// recordAct tells of what was done.
func (g *Guard) recordAct(caller lock.Caller, v Verb, n lock.Name, act Act, reason string) {
	g.tell(Record{Caller: caller, Verb: v, Name: n.String(), Allowed: true, Act: act, Reason: reason})
}

func (g *Guard) tell(r Record) {
	if g.config.Record != nil {
		r.Time = time.Now()
		g.config.Record(r)
	}
}

// recordGrant tells of a grant that others are to know of. An Overwrite gives no reason but
// that it is one.
func (g *Guard) recordGrant(caller lock.Caller, r *lock.LockRequest, grant lock.Grant) {
	if grant.Broke {
		g.recordAct(caller, Break, r.Name, overwrote, cmp.Or(r.Reason, "overwritten"))
	}
	if grant.ReplacedStale {
		g.recordAct(caller, Lock, r.Name, replacedStale, r.Reason)
	}
	if r.ThroughFreeze {
		g.recordAct(caller, Freeze, r.Name, throughFreeze, r.Reason)
	}
	if r.Tree {
		reason := cmp.Or(r.Reason, r.Data.String("msg"))
		g.recordAct(caller, Freeze, r.Name, froze, reason)
		g.config.Logger.Info("a tree of locks is frozen", "name", r.Name.String(), "by", whoIs(caller, r.Holder), "reason", reason)
	}
}

// recordEnd tells of a hold that was ended and was not an ordinary one of who ended it.
func (g *Guard) recordEnd(caller lock.Caller, l lock.Lock, force, stale bool, reason string) {
	verb := Lock
	if force {
		verb = Break
		g.recordAct(caller, Break, l.Name, broke, reason)
	}
	if stale {
		g.recordAct(caller, Lock, l.Name, endedStale, reason)
	}
	if l.Tree {
		g.recordAct(caller, verb, l.Name, thawed, reason)
		g.config.Logger.Info("a tree of locks is frozen no more", "name", l.Name.String(), "by", whoIs(caller, l.Holder), "reason", reason)
	}
}

// recordHandOver tells of a hold that goes on under another.
func (g *Guard) recordHandOver(caller lock.Caller, l lock.Lock, reason string) {
	to := cmp.Or(l.Caller, l.Holder)
	g.tell(Record{Caller: caller, Verb: Lock, Name: l.Name.String(), Allowed: true, Act: handedOver, To: to, Reason: reason})
	g.config.Logger.Info("a hold was handed over", "name", l.Name.String(), "by", whoIs(caller, ""), "to", to, "reason", reason)
}

// recordDismissal tells of a waiter who was put out of the line.
func (g *Guard) recordDismissal(caller lock.Caller, r *lock.DismissRequest, w lock.Waiter) {
	g.tell(Record{Caller: caller, Verb: Break, Name: r.Name.String(), Allowed: true, Act: dismissed, To: cmp.Or(w.Caller, w.Holder), Reason: r.Reason})
}

// whoIs names who asked, for the log.
func whoIs(caller lock.Caller, holder string) string {
	return cmp.Or(caller.Actor(holder), lock.Anonymous)
}
