package manager_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pylok/pylok/lock"
)

// rules say who gets which lock when, as the contract does, with nothing clever: all of it
// is looked at for every decision. What Manager does is held against it.
type rules struct {
	holds map[string]*ruledHold
	line  []*wanting // those that wait, in the order in which they came
	ended map[*wanting]outcome
}

// ruledHold is a hold as the rules have it.
type ruledHold struct {
	holder     string
	size       int // of its set; 0: in none
	setID      lock.Token
	token      lock.Token // once it was seen
	tree, keep bool
	stale      bool
	ttl        time.Duration
	ends       time.Time // zero: never
}

func (h *ruledHold) manual() bool { return h.ends.IsZero() && !h.stale }

// wanting is a request.
type wanting struct {
	holder       string // each has its own
	all          []string
	pools        []pool
	isSet        bool
	shared       bool
	limit        int
	tree, drain  bool
	through      bool
	keep         bool
	overwrite    bool
	replaceStale bool
	refuseManual bool
	ttl          time.Duration
	expire       time.Time
	until        time.Time     // end of the wait
	wait         time.Duration // 0: it does not
}

// String describes the request.
func (w *wanting) String() string {
	text := fmt.Sprintf("%s asks for %v", w.holder, w.all)
	for _, p := range w.pools {
		text += fmt.Sprintf(" and %d of %v", p.count, p.names)
	}
	for _, is := range []struct {
		word string
		is   bool
	}{
		{"shared", w.shared}, {fmt.Sprint("limit ", w.limit), w.limit > 0}, {"tree", w.tree}, {"drain", w.drain},
		{"through", w.through}, {"keep", w.keep}, {"overwrite", w.overwrite}, {"replace stale", w.replaceStale},
		{"refuse manual", w.refuseManual}, {fmt.Sprint("ttl ", w.ttl), w.ttl != 0}, {"expires", !w.expire.IsZero()},
		{"as a set", w.isSet},
	} {
		if is.is {
			text += ", " + is.word
		}
	}
	if w.wait == lock.WaitForever {
		return text + ", waits forever"
	}
	return fmt.Sprintf("%s, waits %v", text, w.wait)
}

// pool is a choice.
type pool struct {
	names []string
	count int
}

// outcome is what became of a request.
type outcome struct {
	granted []string // in name order; nil: it was refused
}

func (w *wanting) names() []string {
	names := slices.Clone(w.all)
	for _, p := range w.pools {
		names = append(names, p.names...)
	}
	return names
}

// isChoice reports whether names are all that a request for a set wants, and of each of its
// pools as many.
func (w *wanting) isChoice(names []string) bool {
	n := len(w.all)
	isHad := func(name string) bool { return slices.Contains(names, name) }
	for _, name := range w.all {
		if !isHad(name) {
			return false
		}
	}
	for _, p := range w.pools {
		had := 0
		for _, name := range p.names {
			if isHad(name) {
				had++
			}
		}
		if had != p.count {
			return false
		}
		n += had
	}
	return w.isSet && len(names) == n
}

// above are the names whose trees cover a name.
func above(name string) []string {
	var names []string
	if name != lock.AllName {
		names = append(names, lock.AllName)
	}
	for i, c := range name {
		if c == '/' {
			names = append(names, name[:i])
		}
	}
	return names
}

// sharedHolds are those that stand of a name.
func (r *rules) sharedHolds(name string) []string {
	var slots []string
	for held := range r.holds {
		if strings.HasPrefix(held, name+"/_+") {
			slots = append(slots, held)
		}
	}
	return slots
}

// tree returns the hold that covers a name.
func (r *rules) tree(name string) *ruledHold {
	for _, a := range above(name) {
		if h := r.holds[a]; h != nil && h.tree {
			return h
		}
	}
	return nil
}

// covered reports whether a tree keeps a name from a request: one that stands, or one that
// waits before it for what is below to end.
func (r *rules) covered(w *wanting, name string) bool {
	if w.through {
		return false
	}
	if r.tree(name) != nil {
		return true
	}
	for _, t := range r.line {
		if t == w {
			break
		}
		if t.drain && slices.Contains(above(name), t.all[0]) {
			return true
		}
	}
	return false
}

// fits reports whether the shared holds of a name leave room for a request.
func (r *rules) fits(w *wanting, name string) bool {
	n := len(r.sharedHolds(name))
	return n == 0 || w.shared && (w.limit == 0 || n < w.limit)
}

// drained reports whether nothing below is held, or waited for by those before.
func (r *rules) drained(w *wanting) bool {
	isBelow := func(name string) bool { return slices.Contains(above(name), w.all[0]) }
	for held := range r.holds {
		if isBelow(held) {
			return false
		}
	}
	for _, other := range r.line {
		if other == w {
			break
		}
		if slices.ContainsFunc(other.names(), isBelow) {
			return false
		}
	}
	return true
}

// reach returns what a request can be granted, nil: not all is there; and what it keeps from
// those behind it then. Claimed is what those before it keep.
func (r *rules) reach(w *wanting, claimed map[string]bool) (take, claim []string) {
	missing := false
	for _, name := range w.all {
		switch {
		case r.covered(w, name):
			missing = true
			continue
		case r.holds[name] != nil || claimed[name] || !r.fits(w, name):
			missing = true
		}
		take, claim = append(take, name), append(claim, name)
	}
	for _, p := range w.pools {
		n := 0
		for _, name := range p.names {
			if n < p.count && r.holds[name] == nil && !claimed[name] && len(r.sharedHolds(name)) == 0 && !r.covered(w, name) {
				take, claim = append(take, name), append(claim, name)
				n++
			}
		}
		missing = missing || n < p.count
		for _, name := range p.names { // not for readers to come for ever
			if n < p.count && r.holds[name] == nil && !claimed[name] && len(r.sharedHolds(name)) > 0 && !r.covered(w, name) {
				claim = append(claim, name)
				n++
			}
		}
	}
	if missing || w.drain && !r.drained(w) {
		return nil, claim
	}
	return take, nil
}

// decide grants all that can be granted, and refuses those who wait for no person.
func (r *rules) decide(now time.Time) {
	for r.decideOne(now) {
	}
}

func (r *rules) decideOne(now time.Time) bool {
	claimed := make(map[string]bool)
	for _, w := range r.line {
		take, claim := r.reach(w, claimed)
		switch {
		case take != nil:
			r.grant(w, take, now)
			return true
		case w.refuseManual && r.waitsForPerson(w):
			r.leave(w)
			return true
		}
		for _, name := range claim {
			claimed[name] = true
		}
	}
	return false
}

// waitsForPerson reports whether a hold without an end is in the way.
func (r *rules) waitsForPerson(w *wanting) bool {
	for _, name := range w.all {
		if h := r.holds[name]; h != nil && h.manual() {
			return true
		}
		isFrozen := func(above string) bool {
			return r.holds[above] != nil && r.holds[above].tree && r.holds[above].manual()
		}
		if !w.through && slices.ContainsFunc(above(name), isFrozen) {
			return true
		}
		if !w.shared && slices.ContainsFunc(r.sharedHolds(name), func(slot string) bool { return r.holds[slot].manual() }) {
			return true
		}
	}
	return false
}

// personAhead reports whether somebody in line wants one of the names without an end.
func (r *rules) personAhead(w *wanting) bool {
	for _, other := range r.line {
		if other.ttl == 0 && other.expire.IsZero() && slices.ContainsFunc(other.names(), func(name string) bool { return slices.Contains(w.names(), name) }) {
			return true
		}
	}
	return false
}

// ask is a new request.
func (r *rules) ask(w *wanting, now time.Time) {
	if !w.isSet {
		name := w.all[0]
		h := r.holds[name]
		mayReplace := h != nil && (w.overwrite && h.holder == "" || w.replaceStale && h.stale)
		switch {
		case mayReplace && r.covered(w, name):
			r.leave(w)
			return
		case mayReplace:
			delete(r.holds, name)
			r.grant(w, w.all, now)
			r.decide(now)
			return
		}
	}
	r.line = append(r.line, w)
	isGranted := func() bool { return r.ended[w].granted != nil }
	if w.refuseManual && r.isAheadOf(w) {
		r.leave(w)
	}
	r.decide(now)
	if w.wait == 0 && !isGranted() {
		r.leave(w)
		r.decide(now)
	}
}

// isAheadOf is personAhead for the last in line.
func (r *rules) isAheadOf(w *wanting) bool {
	r.line = r.line[:len(r.line)-1]
	defer func() { r.line = append(r.line, w) }()
	return r.personAhead(w)
}

// grant makes the holds of a request.
func (r *rules) grant(w *wanting, names []string, now time.Time) {
	names = slices.Sorted(slices.Values(names))
	for i, name := range names {
		if w.shared {
			for number := 1; ; number++ {
				if name = fmt.Sprintf("%s/_+%d", w.all[0], number); r.holds[name] == nil {
					break
				}
			}
			names[i] = name
		}
		h := &ruledHold{holder: w.holder, tree: w.tree, keep: w.keep, ttl: w.ttl, ends: w.expire}
		if w.ttl != 0 {
			h.ends = now.Add(w.ttl)
		}
		if len(names) > 1 {
			h.size = len(names)
		}
		r.holds[name] = h
	}
	r.leave(w)
	r.ended[w] = outcome{names}
}

// leave takes a request out of the line, which is refused.
func (r *rules) leave(w *wanting) {
	r.line = slices.DeleteFunc(r.line, func(other *wanting) bool { return other == w })
	r.ended[w] = outcome{}
}

// ends are the times at which something ends by itself.
func (r *rules) ends() (ends []time.Time) {
	for _, name := range slices.Sorted(maps.Keys(r.holds)) {
		if h := r.holds[name]; !h.ends.IsZero() {
			ends = append(ends, h.ends)
		}
	}
	for _, w := range r.line {
		if !w.until.IsZero() {
			ends = append(ends, w.until)
		}
	}
	return ends
}

// pass ends what ends by itself at a time.
func (r *rules) pass(now time.Time) {
	for name, h := range r.holds {
		switch {
		case h.ends.IsZero() || h.ends.After(now):
		case h.keep:
			h.stale, h.ends = true, time.Time{}
		default:
			delete(r.holds, name)
		}
	}
	for _, w := range slices.Clone(r.line) {
		if !w.until.IsZero() && !w.until.After(now) {
			r.leave(w)
		}
	}
	r.decide(now)
}
