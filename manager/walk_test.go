package manager_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// asks is a request of the model: a set, or one lock of some kind.
type asks struct {
	id      int
	all     []string
	choices [][]string
	counts  []int
	shared  bool
	limit   int
	tree    bool
	drain   bool
	through bool
	wait    bool

	answered bool
	refused  bool
	got      []string // as granted, in name order
	cancel   context.CancelFunc
	done     chan struct{}
	err      error
	locks    []lock.Lock
}

func (a *asks) String() string {
	var kinds []string
	for kind, is := range map[string]bool{"shared": a.shared, "tree": a.tree, "drain": a.drain, "through": a.through, "wait": a.wait} {
		if is {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return fmt.Sprintf("r%d %v %v%v limit %d %v", a.id, a.all, a.choices, a.counts, a.limit, kinds)
}

// model is what the manager is held to: the walk as the contract has it, over all who wait,
// in the order of their places, again and again until nobody is granted anything.
type model struct {
	held  map[string]*asks // by whom; somebody else's file: of nobody
	trees map[string]bool
	line  []*asks
}

func covers(above, name string) bool {
	return above != name && (above == lock.AllName || strings.HasPrefix(name, above+"/"))
}

// covered reports whether something above keeps a name from a request; the request stands in
// line before those from place on.
func (m *model) covered(a *asks, place int, name string) bool {
	if a.through {
		return false
	}
	for above := range m.trees {
		if covers(above, name) {
			return true
		}
	}
	for _, d := range m.line[:place] {
		if d.drain && d != a && covers(d.all[0], name) {
			return true
		}
	}
	return false
}

func (m *model) slots(name string) (n int) {
	for held := range m.held {
		if strings.HasPrefix(held, name+"/_+") {
			n++
		}
	}
	return n
}

// walk grants what can be granted now to the first who can be, and reports whether anybody
// was.
func (m *model) walk() bool {
	kept := make(map[string]bool)
	for place, a := range m.line {
		var take, keep []string
		ok := true
		for _, name := range a.all {
			switch {
			case m.covered(a, place, name):
				ok = false
				continue
			case m.held[name] != nil, kept[name]:
				ok = false
			case a.shared:
				ok = ok && (a.limit == 0 || m.slots(name) < a.limit)
			default:
				ok = ok && m.slots(name) == 0
			}
			take, keep = append(take, name), append(keep, name)
		}
		for i, names := range a.choices {
			found := 0
			for _, name := range names {
				if found < a.counts[i] && m.held[name] == nil && !kept[name] && m.slots(name) == 0 && !m.covered(a, place, name) {
					found++
					take, keep = append(take, name), append(keep, name)
				}
			}
			ok = ok && found == a.counts[i]
			for _, name := range names { // not for readers to come for ever
				if found < a.counts[i] && m.held[name] == nil && !kept[name] && m.slots(name) > 0 && !m.covered(a, place, name) {
					found++
					keep = append(keep, name)
				}
			}
		}
		if ok && a.drain {
			for name := range m.held {
				ok = ok && !covers(a.all[0], name)
			}
			for _, before := range m.line[:place] {
				for _, name := range slices.Concat(append(before.choices, before.all)...) {
					ok = ok && !covers(a.all[0], name)
				}
			}
		}
		if ok {
			m.grant(a, take)
			m.line = slices.Delete(m.line, place, place+1)
			return true
		}
		if !a.wait {
			a.answered, a.refused = true, true
			m.line = slices.Delete(m.line, place, place+1)
			return true
		}
		for _, name := range keep {
			kept[name] = true
		}
	}
	return false
}

func (m *model) grant(a *asks, names []string) {
	if a.shared {
		number := 1
		for m.held[fmt.Sprintf("%s/_+%d", names[0], number)] != nil {
			number++
		}
		names = []string{fmt.Sprintf("%s/_+%d", names[0], number)}
	}
	for _, name := range names {
		m.held[name] = a
		if a.tree {
			m.trees[name] = true
		}
	}
	slices.Sort(names)
	a.answered, a.got = true, names
}

func (m *model) settle() {
	for m.walk() {
	}
}

func (m *model) release(name string) {
	delete(m.held, name)
	delete(m.trees, name)
	m.settle()
}

var modelNames = []string{"_all", "a", "b", "c", "p", "p/1", "p/2", "p/3", "p/1/x", "q/1", "q/2"}

// randomAsks makes a request.
func randomAsks(r *rand.Rand, id int) *asks {
	a := &asks{id: id, wait: r.IntN(3) > 0, through: r.IntN(12) == 0}
	names := slices.Clone(modelNames[1:])
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	switch r.IntN(8) {
	case 0, 1:
		a.all = names[:1]
	case 2:
		a.all, a.shared, a.limit = names[:1], true, r.IntN(4)
	case 3:
		a.all, a.tree = []string{[]string{"_all", "p", "p/1", "q"}[r.IntN(4)]}, true
		a.drain = a.wait && r.IntN(2) == 0
	default: // a set
		n := r.IntN(4)
		a.all = slices.Sorted(slices.Values(names[:n]))
		names = names[n:]
		for range r.IntN(3) {
			size := 1 + r.IntN(3)
			a.choices, a.counts = append(a.choices, names[:size]), append(a.counts, 1+r.IntN(size))
			names = names[size:]
		}
		if len(a.all)+len(a.choices) == 0 {
			a.all = names[:1]
		}
	}
	return a
}

// send sends a request to the manager, in the background.
func (a *asks) send(t *testing.T, m *manager.Manager) {
	ctx, cancel := context.WithCancel(t.Context())
	a.cancel, a.done = cancel, make(chan struct{})
	holder, reason := fmt.Sprintf("r%d", a.id), ""
	if a.through {
		reason = "through"
	}
	var wait time.Duration
	if a.wait {
		wait = 24 * time.Hour
	}
	parse := func(texts []string) (names []lock.Name) {
		for _, text := range texts {
			names = append(names, lock.MustParseName(text))
		}
		return names
	}
	go func() {
		defer close(a.done)
		if len(a.all) == 1 && len(a.choices) == 0 && (a.shared || a.tree || a.id%2 == 0) {
			var grant lock.Grant
			grant, a.err = m.Lock(ctx, lock.Caller{}, lock.LockRequest{
				Name: parse(a.all)[0], Holder: holder, Wait: wait, Shared: a.shared, Limit: a.limit, Tree: a.tree, Drain: a.drain, ThroughFreeze: a.through, Reason: reason,
			})
			a.locks = []lock.Lock{grant.Lock}
			return
		}
		request := lock.SetRequest{Names: parse(a.all), Holder: holder, Wait: wait, ThroughFreeze: a.through, Reason: reason}
		for i, names := range a.choices {
			request.Choices = append(request.Choices, lock.Choice{Names: parse(names), Count: a.counts[i]})
		}
		var grant lock.SetGrant
		grant, a.err = m.LockSet(ctx, lock.Caller{}, request)
		a.locks = grant.Locks
	}()
}

// outcome says what the manager answered a request.
func (a *asks) outcome() string {
	select {
	case <-a.done:
	default:
		return "waits"
	}
	if a.err != nil {
		if errors.Is(a.err, lock.ErrLockHeld) {
			return "refused"
		}
		return a.err.Error()
	}
	var names []string
	for _, l := range a.locks {
		names = append(names, l.Name.String())
	}
	return fmt.Sprint("granted ", names)
}

// want says what the model answers.
func (a *asks) want() string {
	switch {
	case !a.answered:
		return "waits"
	case a.refused:
		return "refused"
	}
	return fmt.Sprint("granted ", a.got)
}

var walks = flag.Int("walks", 300, "how many random histories TestWalk makes")

// TestWalk holds the manager to the model: random requests, releases, waiters who leave, and
// hands that take and remove locks, one after the other; after each the manager has granted
// and refused what the model has, to the name.
func TestWalk(t *testing.T) {
	const steps = 120
	for seed := range *walks {
		synctest.Test(t, func(t *testing.T) { walkOnce(t, uint64(seed), steps) })
		if t.Failed() {
			return
		}
	}
}

func walkOnce(t *testing.T, seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 15))
	store := open(t)
	m := manage(t, store)
	want := &model{held: make(map[string]*asks), trees: make(map[string]bool)}
	var all []*asks
	var log []string
	byHand := &asks{id: -1}
	for step := range steps {
		heldNames := make([]string, 0, len(want.held))
		for name := range want.held {
			heldNames = append(heldNames, name)
		}
		slices.Sort(heldNames)
		switch what := r.IntN(10); {
		case what < 5 || len(heldNames) == 0:
			a := randomAsks(r, step)
			all = append(all, a)
			log = append(log, "send "+a.String())
			want.line = append(want.line, a)
			want.settle()
			a.send(t, m)
		case what < 8:
			name := lock.MustParseName(heldNames[r.IntN(len(heldNames))])
			log = append(log, "unlock "+name.String())
			l := status(t, m, name)
			want.release(name.String())
			if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: name, Token: l.Token}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case what == 8 && len(want.line) > 0:
			i := r.IntN(len(want.line))
			a := want.line[i]
			log = append(log, "leave "+a.String())
			want.line = slices.Delete(want.line, i, i+1)
			a.answered = true
			want.settle()
			a.cancel()
			synctest.Wait()
			all = slices.DeleteFunc(all, func(other *asks) bool { return other == a })
		default:
			name := modelNames[1+r.IntN(len(modelNames)-1)]
			change := lock.Change{Type: lock.Locked, Cause: lock.File, Lock: lock.Lock{Name: lock.MustParseName(name)}}
			if want.held[name] != nil {
				l := status(t, m, change.Lock.Name)
				change.Type, change.Prev, change.Lock = lock.Unlocked, l.Revision, l
				delete(want.held, name)
				delete(want.trees, name)
			} else {
				want.held[name] = byHand
			}
			log = append(log, fmt.Sprintf("by hand %v %s", change.Type, name))
			if _, err := store.Store.Commit(t.Context(), []lock.Change{change}); err != nil {
				t.Errorf("by hand: %v", err)
			}
			want.settle()
		}
		synctest.Wait()
		for _, a := range all {
			if got, want := a.outcome(), a.want(); got != want {
				t.Errorf("%v: %s, want %s", a, got, want)
			}
		}
		for _, name := range modelNames {
			l, err := store.Store.Get(t.Context(), lock.MustParseName(name))
			if held := err == nil; held != (want.held[name] != nil) {
				t.Errorf("%s: held %t by %q, want %t", name, held, l.Holder, !held)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d after\n%s", seed, strings.Join(log, "\n"))
		}
	}
	for _, a := range all {
		a.cancel()
	}
	synctest.Wait()
}
