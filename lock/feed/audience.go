package feed

import "github.com/pylok/pylok/lock"

// audience is who waits for events, by their patterns. An event finds those whom it
// concerns by a look-up for its name, one for the name that it is a shared hold of, and one
// for each length of what other patterns begin with; those that are found by the same
// look-up are matched one by one. The zero audience is not ready for use. It is guarded by
// Feed.mu.
type audience struct {
	groups   map[key]*group             // all
	names    map[string][]*group        // those whose pattern is of one name, its shared holds included or not
	prefixes map[string][]*group        // the others, by their Prefix
	lengths  [lock.MaxNameBytes + 1]int // keys of prefixes, by their length
}

// key is equal for patterns that select the same.
type key struct {
	text   string
	slots  bool
	filter *lock.Filter
}

func keyOf(p lock.Pattern) key { return key{p.String(), p.HasSlots(), p.Filter()} }

// group is the readers who wait for the same pattern. They all leave it when an event
// wakes them, and the next who comes begins a new one.
type group struct {
	pattern lock.Pattern
	place   int           // in audience.names or prefixes
	waiting int           // who has joined and not left
	news    chan struct{} // closed when an event concerns them, and by Close
	first   lock.Revision // of that event; 0: none has come. Guarded by Feed.mu until news is closed
}

func newAudience() audience {
	return audience{groups: make(map[key]*group), names: make(map[string][]*group), prefixes: make(map[string][]*group)}
}

// join returns the group of those who wait for p, for one more who does.
func (a *audience) join(p lock.Pattern) *group {
	g := a.groups[keyOf(p)]
	if g == nil {
		g = &group{pattern: p, news: make(chan struct{})}
		a.groups[keyOf(p)] = g
		in := a.foundIn(p)
		g.place = len(in[p.Prefix()])
		in[p.Prefix()] = append(in[p.Prefix()], g)
		if g.place == 0 && !isOfName(p) {
			a.lengths[len(p.Prefix())]++
		}
	}
	g.waiting++
	return g
}

// isOfName reports whether a pattern is of one name, its shared holds included or not.
func isOfName(p lock.Pattern) bool { return p.IsOne() || p.HasSlots() }

// foundIn returns where the group of a pattern is found.
func (a *audience) foundIn(p lock.Pattern) map[string][]*group {
	if isOfName(p) {
		return a.names
	}
	return a.prefixes
}

// leave ends what join has begun, for who was not woken.
func (a *audience) leave(g *group) {
	if g.waiting--; g.waiting == 0 {
		a.remove(g)
	}
}

func (a *audience) remove(g *group) {
	delete(a.groups, keyOf(g.pattern))
	in, prefix := a.foundIn(g.pattern), g.pattern.Prefix()
	same := in[prefix]
	last := same[len(same)-1]
	same[g.place], last.place = last, g.place
	same[len(same)-1] = nil
	if same = same[:len(same)-1]; len(same) > 0 {
		in[prefix] = same
		return
	}
	delete(in, prefix)
	if !isOfName(g.pattern) {
		a.lengths[len(prefix)]--
	}
}

// wake wakes whom an event concerns. They do not wait any more then.
func (a *audience) wake(event lock.Event) {
	name := event.Lock.Name.String()
	if len(a.names) > 0 {
		a.tellSome(a.names[name], event)
		if base := event.Lock.Name.Base(); base != event.Lock.Name {
			a.tellSome(a.names[base.String()], event)
		}
	}
	if len(a.prefixes) == 0 {
		return
	}
	for n, prefixes := range a.lengths[:len(name)+1] {
		if prefixes > 0 {
			a.tellSome(a.prefixes[name[:n]], event)
		}
	}
}

// tellSome wakes those of some groups, which are found at the same place, whom an event
// concerns.
func (a *audience) tellSome(same []*group, event lock.Event) {
	for i := len(same) - 1; i >= 0; i-- { // backwards: tell moves the last one
		if g := same[i]; g.pattern.Match(event.Lock.Name) {
			a.tell(g, event.Revision)
		}
	}
}

// tell wakes a group.
func (a *audience) tell(g *group, first lock.Revision) {
	a.remove(g)
	g.first = first
	close(g.news)
}

// wakeAll wakes all, of whom none is concerned.
func (a *audience) wakeAll() {
	for _, g := range a.groups {
		a.tell(g, 0)
	}
}
