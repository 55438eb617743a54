package feed

import "github.com/pylok/pylok/lock"

// audience is who waits for events, by their patterns. An event finds those whom it
// concerns by a look-up for its name, and one for each length of what the patterns begin
// with that wait; those with the same beginning are matched one by one. The zero audience
// is not ready for use. It is guarded by Feed.mu.
type audience struct {
	groups   map[key]*group             // all
	prefixes map[string][]*group        // those whose pattern is no name, by its Prefix
	lengths  [lock.MaxNameBytes + 1]int // keys of prefixes, by their length
}

// key is equal for patterns that select the same.
type key struct {
	text   string
	filter *lock.Filter
}

func keyOf(p lock.Pattern) key { return key{p.String(), p.Filter()} }

// group is the readers who wait for the same pattern. They all leave it when an event
// wakes them, and the next who comes begins a new one.
type group struct {
	pattern lock.Pattern
	place   int           // in audience.prefixes
	waiting int           // who has joined and not left
	news    chan struct{} // closed when an event concerns them, and by Close
	first   lock.Revision // of that event; 0: none has come. Guarded by Feed.mu until news is closed
}

func newAudience() audience {
	return audience{groups: make(map[key]*group), prefixes: make(map[string][]*group)}
}

// join returns the group of those who wait for p, for one more who does.
func (a *audience) join(p lock.Pattern) *group {
	g := a.groups[keyOf(p)]
	if g == nil {
		g = &group{pattern: p, news: make(chan struct{})}
		a.groups[keyOf(p)] = g
		if !p.IsName() {
			same := a.prefixes[p.Prefix()]
			if len(same) == 0 {
				a.lengths[len(p.Prefix())]++
			}
			g.place = len(same)
			a.prefixes[p.Prefix()] = append(same, g)
		}
	}
	g.waiting++
	return g
}

// leave ends what join has begun, for who was not woken.
func (a *audience) leave(g *group) {
	if g.waiting--; g.waiting == 0 {
		a.remove(g)
	}
}

func (a *audience) remove(g *group) {
	delete(a.groups, keyOf(g.pattern))
	if g.pattern.IsName() {
		return
	}
	prefix := g.pattern.Prefix()
	same := a.prefixes[prefix]
	last := same[len(same)-1]
	same[g.place], last.place = last, g.place
	same[len(same)-1] = nil
	if same = same[:len(same)-1]; len(same) > 0 {
		a.prefixes[prefix] = same
		return
	}
	delete(a.prefixes, prefix)
	a.lengths[len(prefix)]--
}

// wake wakes whom an event concerns. They do not wait any more then.
func (a *audience) wake(event lock.Event) {
	name := event.Lock.Name.String()
	if g := a.groups[key{text: name}]; g != nil {
		a.tell(g, event.Revision)
	}
	if len(a.prefixes) == 0 {
		return
	}
	for n, prefixes := range a.lengths[:len(name)+1] {
		if prefixes == 0 {
			continue
		}
		same := a.prefixes[name[:n]]
		for i := len(same) - 1; i >= 0; i-- { // backwards: tell moves the last one
			if g := same[i]; g.pattern.Match(event.Lock.Name) {
				a.tell(g, event.Revision)
			}
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
