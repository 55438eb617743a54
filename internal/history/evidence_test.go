package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// evidence is what a run has seen, made ready for the checks: what became of the
// operations of which the clients do not know it.
//
// The server's own history says which of those took effect. To believe it makes the
// checks only stricter: without, each of them might have.
type evidence struct {
	run  *run
	byID map[string]*operation
	// effective are all operations that took effect or showed something, by
	// generation and name.
	effective map[place][]*operation
	models    map[place]*model
	granted   map[uint64]*operation // by token
	requests  map[string]string     // by operation
	problems  []string
	unknown   int // operations
	took      int // of these: effect
	undone    int
	handed    int // over to a waiter, by the answers to who released
}

// place is one lock during the life of one daemon.
type place struct {
	generation int
	name       string
}

func (e *evidence) problem(format string, args ...any) {
	e.problems = append(e.problems, fmt.Sprintf(format, args...))
}

// undoneReason is how the history tells a grant that was undone, and replacedReason, with
// the token of the next, a hold in whose place another came.
const (
	undoneReason   = "the caller left before it was answered"
	replacedReason = "replaced by the hold with token %d"
)

func examine(r *run) *evidence {
	e := &evidence{
		run:       r,
		byID:      make(map[string]*operation),
		effective: make(map[place][]*operation),
		models:    make(map[place]*model),
		granted:   make(map[uint64]*operation),
		requests:  make(map[string]string),
		problems:  r.problems,
	}
	requestOf := make(map[uint64]string)
	for i := range r.generations {
		for _, name := range r.names {
			e.models[place{i, name}] = &model{
				doubtful:  make(map[uint64][]*operation),
				requestOf: requestOf,
				requests:  e.requests,
			}
		}
	}
	for _, o := range r.operations {
		e.byID[o.id] = o
		e.requests[o.id] = o.requestID
		if o.outcome == unknown {
			e.unknown++
		}
		// What a daemon does it does before its end, whenever it is heard of.
		g := r.generations[o.generation]
		o.ret = min(o.ret, g.ended)
		o.alive = min(o.alive, g.doomed)
		if o.outcome == unknown {
			o.ret = g.ended
			o.alive = min(o.alive, r.stopped)
		}
		if o.kind == renewOp && !o.data && o.outcome == unknown {
			doubtful := e.models[place{o.generation, o.name}].doubtful
			doubtful[o.token] = append(doubtful[o.token], o)
		}
	}
	e.readHistory()
	for token, o := range e.granted {
		requestOf[token] = o.requestID
	}
	for _, o := range r.operations {
		known := o.outcome == done || o.outcome == refused && o.reason != "SHUTTING_DOWN"
		if known {
			at := place{o.generation, o.name}
			e.effective[at] = append(e.effective[at], o)
		}
	}
	e.addRestarts()
	return e
}

// readHistory holds the server's history against what the clients were told, and
// finds in it what they were not.
func (e *evidence) readHistory() {
	var revision uint64
	present := make(map[string]*pylokv1.Lock)
	tokens := make(map[string][]uint64)
	locked := make(map[string]uint64)   // tokens granted, by operation
	updated := make(map[string]bool)    // by operation
	unlocked := make(map[string]uint64) // revision, by operation
	var replaced *pylokv1.Event         // the event before, if it ends a hold that another replaces
	for _, event := range e.run.history {
		l := event.GetLock()
		was := present[l.GetName()]
		id := l.GetData().GetFields()["op"].GetStringValue()
		bad := func(format string, args ...any) {
			e.problem("history: %s: event %v", fmt.Sprintf(format, args...), event)
		}
		if event.GetRevision() <= revision {
			bad("the revision is not above %d", revision)
		}
		revision = event.GetRevision()
		if replaced != nil && (event.GetType() != pylokv1.EventType_EVENT_TYPE_LOCKED || l.GetName() != replaced.GetLock().GetName()) {
			bad("the hold that replaces another does not follow its end: %v", replaced)
			replaced = nil
		}
		switch event.GetType() {
		case pylokv1.EventType_EVENT_TYPE_LOCKED:
			o := e.byID[id]
			switch {
			case o == nil || o.kind != lockOp || o.name != l.GetName():
				bad("nobody asked for this grant")
				continue
			case o.outcome == refused:
				bad("its caller was refused: %v", o)
			case locked[id] != 0:
				bad("it is the second grant of %v", o)
			case l.GetToken() != revision:
				bad("the token is not the revision")
			case was != nil:
				bad("the lock was held: %v", was)
			case replaced != nil && (!o.overwrite || event.GetActor() != replaced.GetActor()):
				bad("it replaces another hold, and %v did not ask for that", o)
			case replaced != nil && replaced.GetLock().GetHolder() != "" && replaced.GetLock().GetHolder() != o.holder:
				bad("it replaces the hold of somebody else: %v", replaced)
			case event.GetCause() != pylokv1.EventCause_EVENT_CAUSE_REQUEST:
				bad("the cause is not a request")
			case event.GetActor() != o.holder:
				bad("it is by somebody else than %v", o)
			}
			replaced = nil
			locked[id] = l.GetToken()
			tokens[o.name] = append(tokens[o.name], l.GetToken())
			e.granted[l.GetToken()] = o
			present[o.name] = l
			if o.outcome == unknown {
				e.took++
				view := viewOf(l)
				view.ttl = o.ttl
				e.tookEffect(o, view)
			}
		case pylokv1.EventType_EVENT_TYPE_UPDATED:
			o := e.byID[id]
			switch {
			case o == nil || o.kind != renewOp || o.name != l.GetName():
				bad("nobody asked for this update")
				continue
			case o.outcome == refused:
				bad("its caller was refused: %v", o)
			case updated[id]:
				bad("it is the second update of %v", o)
			case was.GetToken() != o.token || l.GetToken() != o.token:
				bad("it is not of the hold that was meant: %v, the hold %v", o, was)
			case event.GetActor() != cmp.Or(o.holder, l.GetHolder()):
				bad("it is by somebody else than %v", o)
			}
			updated[id] = true
			present[o.name] = l
			if o.outcome == unknown {
				e.took++
				e.tookEffect(o, viewOf(l))
			}
		case pylokv1.EventType_EVENT_TYPE_UNLOCKED:
			switch {
			case was == nil:
				bad("the lock was free")
			case was.GetToken() != l.GetToken():
				bad("it is not of the hold that was there: %v", was)
			}
			delete(present, l.GetName())
			if event.GetCause() == pylokv1.EventCause_EVENT_CAUSE_EXPIRED {
				if event.GetActor() != "" {
					bad("somebody is said to have let the lease run out")
				}
				break
			}
			if event.GetReason() == fmt.Sprintf(replacedReason, revision+1) {
				replaced = event
				break
			}
			ended := view{token: l.GetToken(), holder: l.GetHolder(), data: id}
			if event.GetReason() == undoneReason {
				e.undo(ended.token, bad)
				break
			}
			o := e.byID[event.GetReason()]
			switch {
			case o == nil || o.kind != unlockOp || o.name != l.GetName():
				bad("nobody asked for this release")
				continue
			case o.outcome == refused:
				bad("its caller was refused: %v", o)
			case unlocked[o.id] != 0:
				bad("it is the second release of %v", o)
			case event.GetActor() != o.holder && (event.GetActor() != l.GetHolder() || o.holder != ""):
				bad("it is by somebody else than %v", o)
			}
			unlocked[o.id] = revision
			if o.outcome == unknown {
				e.took++
				e.tookEffect(o, ended)
			}
		default:
			bad("such an event is no change")
		}
	}
	for _, o := range e.run.operations {
		switch {
		case o.outcome != done:
		case o.kind == lockOp && o.lock.token == 0,
			o.kind == lockOp && locked[o.id] == 0 && !slices.Contains(tokens[o.name], o.lock.token),
			o.kind == lockOp && locked[o.id] != 0 && locked[o.id] != o.lock.token,
			o.kind == renewOp && o.data && !updated[o.id],
			o.kind == unlockOp && unlocked[o.id] != o.revision:
			e.problem("history: what was answered is not in it: %v", o)
		}
	}
	for _, o := range e.run.operations {
		if o.kind != unlockOp || o.outcome != done || o.next == 0 {
			continue
		}
		follows := slices.IndexFunc(tokens[o.name], func(token uint64) bool { return token > o.revision })
		switch waiter := e.granted[o.next]; {
		case follows < 0 || tokens[o.name][follows] != o.next:
			e.problem("history: the hold that it says comes next does not: %v", o)
		case waiter.wait == 0:
			e.problem("history: the hold that it says comes next did not wait: %v, %v", o, waiter)
		default:
			e.handed++
		}
	}
	for name := range tokens {
		next := order(tokens[name])
		for i := range e.run.generations {
			e.models[place{i, name}].next = next
		}
	}
}

// tookEffect makes an operation of unknown outcome one that took effect at some time
// before the end of its daemon.
func (e *evidence) tookEffect(o *operation, as view) {
	effect := *o
	effect.outcome, effect.lock = done, as
	at := place{o.generation, o.name}
	e.effective[at] = append(e.effective[at], &effect)
}

// undo is the release of a grant whose caller had left.
func (e *evidence) undo(token uint64, bad func(string, ...any)) {
	o := e.granted[token]
	if o == nil {
		bad("what was undone is no grant")
		return
	}
	if o.outcome != unknown {
		bad("the caller was told otherwise: %v", o)
	}
	e.undone++
	at := place{o.generation, o.name}
	e.effective[at] = append(e.effective[at], &operation{
		id: o.id, client: o.client, generation: o.generation, kind: undoOp, name: o.name,
		token: token, call: o.call, ret: o.ret, outcome: done,
	})
}

// addRestarts puts the first look at each lock between the lives of two daemons. It
// shows all there is to know of a lock, so that each life can be checked by itself.
func (e *evidence) addRestarts() {
	gs := e.run.generations
	last := make(map[string]uint64)
	tokens := slices.Sorted(maps.Keys(e.granted))
	for i, g := range gs {
		for _, token := range tokens {
			if o := e.granted[token]; o.generation < i {
				last[o.name] = max(last[o.name], token)
			}
		}
		for _, name := range e.run.names {
			first := *g.opening[name]
			first.kind, first.ret, first.exec, first.last = openOp, first.call, g.exec, last[name]
			at := place{i, name}
			e.effective[at] = append(e.effective[at], &first)
			if i > 0 {
				restart := *g.opening[name]
				restart.kind, restart.call, restart.exec = reopenOp, gs[i-1].ended+1, g.exec
				at := place{i - 1, name}
				e.effective[at] = append(e.effective[at], &restart)
			}
		}
	}
	for at := range e.effective {
		slices.SortFunc(e.effective[at], func(a, b *operation) int { return cmp.Compare(a.call, b.call) })
	}
}
