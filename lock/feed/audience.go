package feed

import "github.com/pylok/pylok/lock"

// audience is who waits for events, by what they wait for: the name that a pattern is, or
// what all names begin with that it selects. An event finds those whom it may concern by
// a look-up for its name, and one for each length that such a beginning has. The zero
// audience is not ready for use. It is guarded by Feed.mu.
type audience struct {
	names    map[string]*group
	prefixes map[string]*group
	lengths  [lock.MaxNameBytes + 1]int // groups in prefixes, by the length of theirs
}

// group is the readers who wait for the same name or prefix. They all leave it when an
// event wakes them, and the next who comes begins a new one.
type group struct {
	key     string
	isName  bool
	waiting int           // who has joined and not left
	news    chan struct{} // closed when an event may concern them, and by Close
	first   lock.Revision // of that event; 0: none has come. Guarded by Feed.mu until news is closed
}

func newAudience() audience {
	return audience{names: make(map[string]*group), prefixes: make(map[string]*group)}
}

// join returns the group of those who wait for what p selects, for one more who does.
func (a *audience) join(p lock.Pattern) *group {
	key, isName := p.Prefix(), p.IsName()
	groups := a.prefixes
	if isName {
		groups = a.names
	}
	g := groups[key]
	if g == nil {
		g = &group{key: key, isName: isName, news: make(chan struct{})}
		groups[key] = g
		if !isName {
			a.lengths[len(key)]++
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
	if g.isName {
		delete(a.names, g.key)
	} else {
		delete(a.prefixes, g.key)
		a.lengths[len(g.key)]--
	}
}

// wake wakes whom an event may concern. They do not wait any more then.
func (a *audience) wake(event lock.Event) {
	name := event.Lock.Name.String()
	a.tell(a.names[name], event.Revision)
	if len(a.prefixes) == 0 {
		return
	}
	for n, groups := range a.lengths[:len(name)+1] {
		if groups > 0 {
			a.tell(a.prefixes[name[:n]], event.Revision)
		}
	}
}

// tell wakes a group, which may be nil.
func (a *audience) tell(g *group, first lock.Revision) {
	if g != nil {
		a.remove(g)
		g.first = first
		close(g.news)
	}
}

// wakeAll wakes all, of whom none is concerned.
func (a *audience) wakeAll() {
	for _, groups := range []map[string]*group{a.names, a.prefixes} {
		for _, g := range groups {
			a.tell(g, 0)
		}
	}
}
