package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// replay goes through the history of a party in the order of revisions, and holds each
// change against what the rules allow there, and against what the guests were told when.
type replay struct {
	party    *party
	acts     map[string]*act
	held     map[string]*standing
	granted  map[string][]*pylokv1.Event // by demand; where it was granted again, the last time
	earlier  []*grants                   // before that
	stale    map[uint64]uint64           // by token, the revision at which it became so
	handed   map[uint64]uint64           // by token, that of the hold that came in its place
	timeline map[string][]moment         // by name
	events   []timed
	since    map[*demand]int64 // when it surely stood in all its lines
	problems []string

	overtakes int // pairs that were compared
	stood     int // demands that were seen in line
}

// standing is a hold as the history has it at a revision.
type standing struct {
	token  uint64
	tree   bool
	demand *demand // nil: it was handed over
}

// grants are what a demand was granted together.
type grants struct {
	demand *demand
	events []*pylokv1.Event
}

// moment is what a lock is from a revision on.
type moment struct {
	revision, token uint64
}

// timed is a change and when it was made, as far as that is known.
type timed struct {
	revision   uint64
	after      int64 // of who asked, the call
	before     int64 // and the answer
	what       string
	demand     *demand
	covered    bool // the lock was covered by a tree
	name       string
	free       func(names []string) int // how many of these were, after the whole commit
	isReplaced bool
}

func (r *replay) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// aboveOf returns the names whose trees cover a name.
func aboveOf(name string) []string {
	var names []string
	if name != "_all" {
		names = append(names, "_all")
	}
	for i, c := range name {
		if c == '/' {
			names = append(names, name[:i])
		}
	}
	return names
}

// baseOf returns the lock that a hold is of, and whether it is a shared one.
func baseOf(name string) (string, bool) {
	if i := strings.LastIndex(name, "/_+"); i > 0 {
		return name[:i], true
	}
	return name, false
}

// check replays the history of a party.
func (p *party) check() *replay {
	r := &replay{
		party:    p,
		acts:     make(map[string]*act),
		held:     make(map[string]*standing),
		granted:  make(map[string][]*pylokv1.Event),
		stale:    make(map[uint64]uint64),
		handed:   make(map[uint64]uint64),
		timeline: make(map[string][]moment),
		since:    make(map[*demand]int64),
		problems: p.problems,
	}
	for _, a := range p.acts {
		r.acts[a.id] = a
		if g := p.started[a.generation]; a.ret > g.ended {
			a.ret = g.ended
		}
	}
	for i := 0; i < len(p.history); {
		i += r.replayFrom(i)
	}
	r.allOrNone()
	r.answers()
	r.inOrder()
	r.looks()
	r.line()
	return r
}

// replayFrom replays one event, or those of one set, and returns how many.
func (r *replay) replayFrom(i int) int {
	events := r.party.history[i : i+1]
	first := events[0]
	if d := r.demandOf(first); d != nil && d.size() > 1 && d.isSet {
		// What is granted together is granted before anything is judged.
		for n := 1; n < d.size() && i+n < len(r.party.history) && r.demandOf(r.party.history[i+n]) == d; n++ {
			events = r.party.history[i : i+n+1]
		}
	}
	before := maps.Clone(r.held)
	for _, event := range events {
		r.apply(event, before)
	}
	for _, event := range events {
		if d := r.demandOf(event); d != nil && event.GetPreviousToken() == 0 {
			r.judge(event, d, before)
		}
	}
	return len(events)
}

// demandOf returns the demand that an event grants; nil: it is another event.
func (r *replay) demandOf(event *pylokv1.Event) *demand {
	if event.GetType() != pylokv1.EventType_EVENT_TYPE_LOCKED {
		return nil
	}
	return r.party.demands[event.GetLock().GetData().GetFields()["op"].GetStringValue()]
}

// apply makes the change of an event.
func (r *replay) apply(event *pylokv1.Event, before map[string]*standing) {
	l := event.GetLock()
	name, token, revision := l.GetName(), l.GetToken(), event.GetRevision()
	bad := func(format string, args ...any) {
		r.problem("history: %s: %v", fmt.Sprintf(format, args...), event)
	}
	was := r.held[name]
	id := l.GetData().GetFields()["op"].GetStringValue()
	switch event.GetType() {
	case pylokv1.EventType_EVENT_TYPE_LOCKED:
		d := r.party.demands[id]
		if was != nil {
			bad("the lock was held with token %d", was.token)
		}
		if token != revision {
			bad("the token is not the revision")
		}
		r.held[name] = &standing{token: token, tree: l.GetTree(), demand: d}
		r.timeline[name] = append(r.timeline[name], moment{revision, token})
		if d != nil && event.GetPreviousToken() == 0 {
			if len(d.sendings) > 1 && r.isOver(r.granted[id]) {
				r.earlier = append(r.earlier, &grants{d, r.granted[id]})
				r.granted[id] = nil
			}
			r.granted[id] = append(r.granted[id], event)
			return
		}
		a := r.acts[id]
		if a == nil || a.kind != handOverOp {
			bad("nobody asked for this")
			return
		}
		switch {
		case a.holds[0] != hold{name, event.GetPreviousToken()}:
			bad("it is not the hold that was to be handed over: %v", a)
		case a.outcome == refused:
			bad("who handed over was refused: %v", a)
		}
		r.handed[a.holds[0].token] = token
		r.events = append(r.events, timed{revision: revision, after: a.call, before: a.before(), what: a.String(), name: name, isReplaced: true})
	case pylokv1.EventType_EVENT_TYPE_UPDATED:
		switch {
		case was == nil || was.token != token:
			bad("there was no such hold")
		case l.GetStaleTime() == nil || event.GetCause() != pylokv1.EventCause_EVENT_CAUSE_EXPIRED:
			bad("nobody asked for this")
		case r.stale[token] != 0:
			bad("it was stale already")
		}
		r.stale[token] = revision
	case pylokv1.EventType_EVENT_TYPE_UNLOCKED:
		if was == nil || was.token != token {
			bad("there was no such hold")
		}
		delete(r.held, name)
		r.timeline[name] = append(r.timeline[name], moment{revision, 0})
		r.ended(event, bad)
	}
}

// isOver reports whether there were grants, and nothing of them stands any more: who asks
// for them again is granted them anew.
func (r *replay) isOver(events []*pylokv1.Event) bool {
	for _, event := range events {
		if s := r.held[event.GetLock().GetName()]; s != nil && s.token == event.GetLock().GetToken() {
			return false
		}
	}
	return len(events) > 0
}

// before returns when an act was surely done.
func (a *act) before() int64 {
	if a.outcome == done {
		return a.ret
	}
	return never
}

// ended judges the end of a hold.
func (r *replay) ended(event *pylokv1.Event, bad func(string, ...any)) {
	l := event.GetLock()
	ref := hold{l.GetName(), l.GetToken()}
	switch {
	case event.GetCause() == pylokv1.EventCause_EVENT_CAUSE_EXPIRED:
		if l.GetOnExpiry() == pylokv1.OnExpiry_ON_EXPIRY_KEEP {
			bad("a hold that is kept ended by itself")
		}
		return
	case event.GetReason() == undoneReason,
		event.GetReason() == fmt.Sprintf(replacedReason, event.GetRevision()+1):
		return
	}
	a := r.acts[event.GetReason()]
	switch {
	case a == nil || a.kind != unlockOp:
		bad("nobody asked for this end")
		return
	case !slices.Contains(a.holds, ref):
		bad("another hold was to end: %v", a)
	case a.outcome == refused:
		bad("who asked for this end was refused: %v", a)
	case slices.Contains(a.refused, ref):
		bad("who asked for this end was told that it did not: %v", a)
	case r.stale[ref.token] != 0 && !a.stale && !a.force:
		bad("a stale hold was ended by its token: %v", a)
	}
	r.events = append(r.events, timed{revision: event.GetRevision(), after: a.call, before: a.before(), what: a.String(), name: l.GetName()})
}

// judge holds a grant against the rules.
func (r *replay) judge(event *pylokv1.Event, d *demand, before map[string]*standing) {
	name := event.GetLock().GetName()
	base, isShared := baseOf(name)
	bad := func(format string, args ...any) {
		r.problem("grant: %s: %v: %v", fmt.Sprintf(format, args...), event, d)
	}
	if !slices.Contains(d.all(), base) || isShared != d.shared || event.GetLock().GetTree() != d.tree {
		bad("nobody asked for this")
	}
	if slices.ContainsFunc(d.sendings, func(a *act) bool { return a.outcome == refused && a.reason == "LOCK_HELD" && len(d.sendings) == 1 }) {
		bad("who asked was refused")
	}
	covered := false
	for _, above := range aboveOf(name) {
		if s := before[above]; s != nil && s.tree {
			covered = true
			if !d.through {
				bad("it is covered by the tree %s with token %d", above, s.token)
			}
		}
	}
	shared := 0
	for other := range before {
		if b, is := baseOf(other); is && b == base {
			shared++
		}
		if d.drain && slices.Contains(aboveOf(other), name) {
			bad("%s below is held", other)
		}
	}
	switch {
	case isShared && before[base] != nil:
		bad("%s itself is held", base)
	case isShared && d.limit > 0 && shared >= d.limit:
		bad("%d shared holds stand", shared)
	case !isShared && shared > 0:
		bad("%d shared holds stand", shared)
	}
	last := int64(never)
	for _, a := range d.sendings {
		last = min(last, a.before())
	}
	held := maps.Clone(r.held)
	r.events = append(r.events, timed{
		revision: event.GetRevision(), after: d.sendings[0].call, before: last, what: d.String(), demand: d, covered: covered, name: base,
		free: func(names []string) (n int) {
			for _, name := range names {
				if isFree(held, name) {
					n++
				}
			}
			return n
		},
	})
}

// isFree reports whether one could have a lock for oneself.
func isFree(held map[string]*standing, name string) bool {
	if held[name] != nil {
		return false
	}
	for _, above := range aboveOf(name) {
		if s := held[above]; s != nil && s.tree {
			return false
		}
	}
	for other := range held {
		if base, is := baseOf(other); is && base == name {
			return false
		}
	}
	return true
}

// allOrNone checks that of each demand all was granted, in one step, or nothing.
func (r *replay) allOrNone() {
	all := slices.Clone(r.earlier)
	for id, events := range r.granted {
		all = append(all, &grants{r.party.demands[id], events})
	}
	for _, g := range all {
		d, events := g.demand, g.events
		var bases []string
		for i, event := range events {
			base, _ := baseOf(event.GetLock().GetName())
			bases = append(bases, base)
			set := event.GetLock().GetSet()
			switch {
			case event.GetRevision() != events[0].GetRevision()+uint64(i):
				r.problem("all or none: it was not granted in one step: %v: %v", d, events)
			case len(events) > 1 && (set.GetId() != events[0].GetLock().GetToken() || int(set.GetSize()) != len(events)), len(events) == 1 && set != nil:
				r.problem("all or none: what belongs together does not say so: %v: %v", d, event)
			}
		}
		isRight := len(events) == d.size()
		for _, name := range d.names {
			isRight = isRight && slices.Contains(bases, name)
		}
		for _, c := range d.choices {
			n := 0
			for _, name := range c.names {
				if slices.Contains(bases, name) {
					n++
				}
			}
			isRight = isRight && n == c.count
		}
		if !isRight {
			r.problem("all or none: %v was granted %v", d, bases)
		}
	}
}

// answers holds what the guests were told against the history.
func (r *replay) answers() {
	first := make(map[uint64]int64) // by token, when its end by a hand-over was surely known
	for _, a := range r.party.acts {
		if a.kind == handOverOp && a.outcome == done {
			first[a.holds[0].token] = a.ret
		}
	}
	for _, a := range r.party.acts {
		if a.outcome != done {
			continue
		}
		switch a.kind {
		case lockOp:
			var got []hold
			for _, event := range r.granted[a.demand.id] {
				got = append(got, hold{event.GetLock().GetName(), event.GetLock().GetToken()})
			}
			var told []hold
			for _, l := range a.locks {
				told = append(told, hold{l.GetName(), l.GetToken()})
			}
			if !slices.Equal(got, told) && !r.wasHandedOver(a, got, told) {
				r.problem("answers: %v was told %v, and the history has %v", a, told, got)
			}
		case unlockOp, renewOp, handOverOp:
			for _, ref := range a.holds {
				if slices.Contains(a.refused, ref) {
					continue
				}
				if at, over := first[ref.token]; over && a.call > at {
					r.problem("hand-over: the old token %d counts after it: %v", ref.token, a)
				}
			}
			for _, l := range a.locks {
				if at := r.stale[l.GetToken()]; a.kind == renewOp && at != 0 && l.GetRevision() >= at {
					r.problem("stale: %v renewed %v, which was stale at %d", a, l, at)
				}
			}
		}
	}
}

// wasHandedOver reports whether a demand that was sent again was told of what had come in
// the place of its holds.
func (r *replay) wasHandedOver(a *act, got, told []hold) bool {
	return len(a.demand.sendings) > 1 && len(got) == len(told)
}

// inOrder checks that no change was made before an earlier one was asked for.
func (r *replay) inOrder() {
	slices.SortFunc(r.events, func(a, b timed) int { return cmp.Compare(a.revision, b.revision) })
	var latest *timed
	for i := range r.events {
		e := &r.events[i]
		if latest != nil && e.before < latest.after {
			r.problem("order: revision %d was asked for after revision %d was answered: %s; %s", latest.revision, e.revision, latest.what, e.what)
		}
		if latest == nil || e.after > latest.after {
			latest = e
		}
	}
}

// looks checks that each lock was as it was seen at some time while somebody looked.
func (r *replay) looks() {
	byBefore := slices.SortedFunc(slices.Values(r.events), func(a, b timed) int { return cmp.Compare(a.before, b.before) })
	highest := make([]uint64, len(byBefore)) // revision of those answered so far
	for i, e := range byBefore {
		highest[i] = e.revision
		if i > 0 {
			highest[i] = max(highest[i], highest[i-1])
		}
	}
	byAfter := slices.SortedFunc(slices.Values(r.events), func(a, b timed) int { return cmp.Compare(a.after, b.after) })
	lowest := make([]uint64, len(byAfter)+1) // revision of those asked for from there on
	lowest[len(byAfter)] = math.MaxUint64
	for i := len(byAfter) - 1; i >= 0; i-- {
		lowest[i] = min(lowest[i+1], byAfter[i].revision)
	}
	for _, a := range r.party.acts {
		if a.kind != statusOp || a.outcome != done {
			continue
		}
		l := a.locks[0]
		from := uint64(0)
		if i, _ := slices.BinarySearchFunc(byBefore, a.call, func(e timed, t int64) int { return cmp.Compare(e.before, t) }); i > 0 {
			from = highest[i-1]
		}
		i, _ := slices.BinarySearchFunc(byAfter, a.ret+1, func(e timed, t int64) int { return cmp.Compare(e.after, t) })
		until := lowest[i]
		if !r.was(l.GetName(), l.GetToken(), from, until) {
			r.problem("looks: at no time between %s and %s, revisions %d to %d, was %s as it was seen: %v", seconds(a.call), seconds(a.ret), from, until, l.GetName(), l)
		}
		for _, w := range l.GetWaiting() {
			if d := r.party.demands[w.GetHolder()]; d != nil && len(d.sendings) == 1 {
				if at, known := r.since[d]; !known || a.ret < at {
					r.since[d] = a.ret
				}
			} else if d == nil {
				r.problem("looks: nobody with the holder %q wants %s", w.GetHolder(), l.GetName())
			}
		}
	}
}

// was reports whether a lock had a token at some revision from one up to, and without, another.
func (r *replay) was(name string, token, from, until uint64) bool {
	present := uint64(0)
	for _, m := range r.timeline[name] {
		if m.revision >= until {
			break
		}
		if m.revision > from && present == token {
			return true
		}
		present = m.token
	}
	return present == token
}

// line checks that nobody overtakes: who was seen in line before another asked goes first,
// as long as that one's wait goes on.
func (r *replay) line() {
	r.stood = len(r.since)
	slices.SortFunc(r.events, func(a, b timed) int { return cmp.Compare(a.revision, b.revision) })
	for w, since := range r.since {
		a := w.sendings[0]
		granted := uint64(math.MaxUint64)
		if events := r.granted[w.id]; len(events) > 0 {
			granted = events[0].GetRevision()
		}
		until := a.alive // when it surely waited still
		switch {
		case granted != math.MaxUint64:
			until = never
		case a.outcome == refused:
			until = min(until, a.call+int64(w.wait))
		}
		if g := r.party.started[a.generation]; granted == math.MaxUint64 {
			until = min(until, g.doomed)
		}
		for i := range r.events {
			e := &r.events[i]
			if e.revision > granted {
				break
			}
			if e.demand == nil || e.demand == w || e.after <= since || e.demand.sendings[0].generation != a.generation {
				continue
			}
			if granted == math.MaxUint64 && e.before >= until || e.demand.through {
				continue
			}
			r.overtakes++
			switch {
			case slices.Contains(w.names, e.name):
				r.problem("overtaken: %v, in line by %s, by revision %d of %v", w, seconds(since), e.revision, e.demand)
			case w.drain && slices.Contains(aboveOf(e.name), w.names[0]):
				r.problem("overtaken: %v drains, in line by %s, and below it came revision %d of %v", w, seconds(since), e.revision, e.demand)
			}
			for _, c := range w.choices {
				if slices.Contains(c.names, e.name) && e.free(c.names) < c.count {
					r.problem("overtaken: %v, in line by %s, is not left enough by revision %d of %v", w, seconds(since), e.revision, e.demand)
				}
			}
		}
	}
}
