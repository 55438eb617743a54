package locktest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pylok/pylok/lock"
)

// withSet has a change grant one of a set's holds.
func withSet(size int) func(*lock.Change) {
	return func(c *lock.Change) { c.Lock.Set = lock.SetRef{Size: size} }
}

// testSetIDs: the holds that are granted in one commit as a set know it by the token of the
// first of them; others in the commit do not.
func testSetIDs(s tested) {
	replaced := s.lock("b")
	updated := s.lock("e", withSet(2))
	if want := (lock.SetRef{ID: updated.Token, Size: 2}); updated.Set != want {
		s.t.Errorf("a hold of a set that is granted alone is of %+v, want %+v", updated.Set, want)
	}
	before := s.revision()
	made := s.commit(
		s.change(lock.Locked, "a"),
		s.change(lock.Locked, "b", withSet(3)),
		s.change(lock.Locked, "c", withSet(3)),
		s.change(lock.Locked, "d", func(c *lock.Change) { c.Lock.Set = lock.SetRef{ID: updated.Token, Size: 2} }),
		s.change(lock.Updated, "e", withData(`{"n":1}`)),
		s.change(lock.Locked, "f", withSet(3)))
	if replaced.Token >= made[1].Lock.Token {
		s.t.Errorf("the token %d comes after %d", made[1].Lock.Token, replaced.Token)
	}
	set := lock.SetRef{ID: made[1].Lock.Token, Size: 3}
	wants := map[string]lock.SetRef{"a": {}, "b": set, "c": set, "d": updated.Set, "e": updated.Set, "f": set}
	for name, want := range wants {
		if got := s.get(name).Set; got != want {
			s.t.Errorf("%s is of the set %+v, want %+v", name, got, want)
		}
	}
	told := s.events(before, len(made)+1) // and the end of what was replaced
	told = slices.DeleteFunc(told, func(e lock.Event) bool { return e.Type == lock.Unlocked })
	if !slices.EqualFunc(told, made, sameEvent) {
		s.t.Errorf("Events: got %+v, and Commit returned %+v", told, made)
	}

	// It stays with the hold, in its end too, and not with the next.
	if got := s.commit(s.change(lock.Updated, "c", withData(`{"n":2}`)))[0].Lock.Set; got != set {
		s.t.Errorf("an updated hold is of the set %+v, want %+v", got, set)
	}
	if got := s.unlock("c").Lock.Set; got != set {
		s.t.Errorf("the end of the hold is of the set %+v, want %+v", got, set)
	}
	if got := s.lock("c").Set; got != (lock.SetRef{}) {
		s.t.Errorf("the next hold is of the set %+v, want none", got)
	}

	// Another commit grants another set.
	other := s.commit(s.change(lock.Locked, "g", withSet(2)), s.change(lock.Locked, "h", withSet(2)))
	if want := (lock.SetRef{ID: other[0].Lock.Token, Size: 2}); other[0].Lock.Set != want || other[1].Lock.Set != want {
		s.t.Errorf("the next set's holds are of %+v and %+v, want %+v", other[0].Lock.Set, other[1].Lock.Set, want)
	}
}

// testSetsOfAll has goroutines take sets of up to 64 locks at random, and give them back in
// one commit: all of each or nothing, at any moment that a list shows.
func testSetsOfAll(s tested) {
	const takers, rounds, names = 8, 12, 80
	look := func() {
		of := make(map[lock.SetRef]int)
		_, locks := s.List(s.t.Context(), lock.MustParsePattern("set/*"), lock.Name{})
		for l, err := range locks {
			if err != nil {
				s.t.Errorf("List: %v", err)
				return
			}
			of[l.Set]++
		}
		for set, n := range of {
			if n != set.Size {
				s.t.Errorf("a list shows %d holds of the set %+v", n, set)
			}
		}
	}
	var group sync.WaitGroup
	for taker := range takers {
		random := rand.New(rand.NewPCG(uint64(taker), 1))
		group.Go(func() {
			for range rounds {
				look()
				size := 2 + random.IntN(lock.MaxSetNames-1)
				chosen := random.Perm(names)[:size]
				slices.Sort(chosen)
				var take []lock.Change
				for _, n := range chosen {
					take = append(take, s.change(lock.Locked, fmt.Sprintf("set/%02d", n), withPrev(0), withSet(size)))
				}
				events, err := s.Commit(s.t.Context(), take)
				if errors.Is(err, lock.ErrConflict) {
					continue
				}
				if err != nil {
					s.t.Errorf("taking %d locks: %v", size, err)
					return
				}
				look()
				var give []lock.Change
				for _, e := range events {
					give = append(give, lock.Change{Type: lock.Unlocked, Cause: lock.Request, Prev: e.Revision, Lock: e.Lock})
				}
				if _, err := s.Commit(s.t.Context(), give); err != nil {
					s.t.Errorf("giving back %d locks: %v", size, err)
					return
				}
			}
		})
	}
	group.Wait()
	if left := s.list("", ""); len(left) > 0 {
		s.t.Errorf("in the end %d locks are held", len(left))
	}
}

// testPrevious: a hold that takes the place of another in one step says of which.
func testPrevious(s tested) {
	first := s.commit(s.change(lock.Locked, "a"))[0]
	if first.Previous != 0 {
		s.t.Errorf("a grant of a free lock has the previous token %d", first.Previous)
	}
	// It is the store that knows.
	before := s.revision()
	made := s.commit(s.change(lock.Locked, "a"), s.change(lock.Locked, "b"))
	if made[0].Previous != first.Lock.Token || made[1].Previous != 0 {
		s.t.Errorf("the previous tokens are %d and %d, want %d and 0", made[0].Previous, made[1].Previous, first.Lock.Token)
	}
	if got := s.events(before, 3); got[0].Previous != 0 || !sameEvent(got[1], made[0]) || !sameEvent(got[2], made[1]) {
		s.t.Errorf("Events: got %+v, and Commit returned %+v", got, made)
	}
	page := s.history(lock.HistoryQuery{Pattern: lock.MustParsePattern("a"), After: before})
	if len(page) != 2 || page[1].Previous != first.Lock.Token {
		s.t.Errorf("History: got %+v, want the end and a grant with the previous token %d", page, first.Lock.Token)
	}
	// Of the next holder, whose turn it is when one ends, it is no successor.
	next := s.commit(s.change(lock.Unlocked, "a"), s.change(lock.Locked, "a", withPrev(0)))
	if next[1].Previous != 0 || next[0].Previous != 0 {
		s.t.Errorf("the next holder's event has the previous token %d", next[1].Previous)
	}
}

// testBecomesStale: a hold goes on as a stale one, and is replaced or ended like any other.
func testBecomesStale(s tested) {
	at := time.Date(2026, 11, 22, 19, 3, 11, 482e6, time.UTC)
	stale := func(c *lock.Change) { c.Cause, c.Lock.StaleTime = lock.Expired, at }
	kept := s.lock("a", withTTL(time.Minute), withData(`{"n":1}`), func(c *lock.Change) { c.Lock.OnExpiry = lock.Keep })
	before := s.revision()
	event := s.commit(s.change(lock.Updated, "a", stale))[0]
	want := kept
	want.StaleTime, want.Revision = at, before+1
	wantLock(s.t, "the stale hold in the event", event.Lock, want)
	wantLock(s.t, "Get of a stale hold", s.get("a"), want)
	if got := s.events(before, 1)[0]; !sameEvent(got, event) || got.Cause != lock.Expired {
		s.t.Errorf("Events: got %+v, want %+v", got, event)
	}
	if got := s.lock("a"); got.Stale() || got.OnExpiry != lock.End {
		s.t.Errorf("the hold in its place is %+v", got)
	}
}

// testSlots: a pattern of one name with its slots selects both and nothing else, in Events,
// List and History; Slots and Below select what they say.
func testSlots(s tested) {
	all := []string{
		"conf/app", "conf/app/_+1", "conf/app/_+10", "conf/app/_+by-hand", "conf/app/_+1/x", "conf/app/_x", "conf/app/x",
		"conf/app-2", "conf/app2", "conf", "conf/_+1", "conf/ap", "_+1", "d/conf/app/_+1", "_all", "_all/_+1",
	}
	for _, name := range all {
		s.lock(name)
	}
	for _, name := range all {
		s.unlock(name)
		s.lock(name)
	}
	app := lock.MustParseName("conf/app")
	for _, test := range []struct {
		what    string
		pattern lock.Pattern
		want    []string
	}{
		{"with slots", lock.MustParsePattern("conf/app").WithSlots(), []string{"conf/app", "conf/app/_+1", "conf/app/_+10", "conf/app/_+by-hand"}},
		{"of a slot, with slots", lock.MustParsePattern("conf/app/_+1").WithSlots(), []string{"conf/app/_+1"}},
		{"slots of _all", lock.MustParsePattern("_all").WithSlots(), []string{"_all", "_all/_+1"}},
		{"slots", app.Slots(), []string{"conf/app/_+1", "conf/app/_+10", "conf/app/_+by-hand"}},
		{"below", app.Below(), []string{"conf/app/_+1", "conf/app/_+1/x", "conf/app/_+10", "conf/app/_+by-hand", "conf/app/_x", "conf/app/x"}},
		{"below _all", lock.MustParseName("_all").Below(), nil},
	} {
		if test.what == "below _all" {
			test.want = slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == "_all" })
		}
		slices.Sort(test.want)
		var listed []string
		_, locks := s.List(s.t.Context(), test.pattern, lock.Name{})
		for l, err := range locks {
			if err != nil {
				s.t.Fatalf("%s: List: %v", test.what, err)
			}
			listed = append(listed, l.Name.String())
		}
		if !slices.Equal(listed, test.want) {
			s.t.Errorf("%s: List has %q, want %q", test.what, listed, test.want)
		}
		now, told := s.revision(), make(map[string]int)
		for after := s.start; after < now; {
			events, until, err := s.Events(s.t.Context(), test.pattern, after, 0)
			if err != nil {
				s.t.Fatalf("%s: Events: %v", test.what, err)
			}
			for _, e := range events {
				told[e.Lock.Name.String()]++
			}
			after = until
		}
		remembered := make(map[string]int)
		for _, e := range s.history(lock.HistoryQuery{Pattern: test.pattern}) {
			remembered[e.Lock.Name.String()]++
		}
		for _, name := range all {
			want := 0
			if slices.Contains(test.want, name) {
				want = 3
			}
			if told[name] != want || remembered[name] != want {
				s.t.Errorf("%s: Events has %d of %s and History %d, want %d", test.what, told[name], name, remembered[name], want)
			}
		}
	}

	// A watch of the name with its slots waits for no others.
	for _, name := range []string{"conf/app/_+1", "conf/app"} {
		after := s.revision()
		read := make(chan []lock.Event)
		go func() {
			events, _, err := s.Events(s.t.Context(), lock.MustParsePattern("conf/app").WithSlots(), after, patience)
			if err != nil {
				s.t.Errorf("Events of conf/app with its slots: %v", err)
			}
			read <- events
		}()
		s.lock("conf/app/x")
		s.lock("conf")
		end := s.unlock(name)
		if got := <-read; len(got) != 1 || got[0].Revision != end.Revision {
			s.t.Errorf("Events of conf/app with its slots: got %+v, want one of %s", got, name)
		}
	}
}

// testGuardsOfMany: one guard of many that does not hold refuses a commit of many changes,
// wherever it stands, and all that hold refuse none.
func testGuardsOfMany(s tested) {
	const many = 16
	var guards []lock.Guard
	for i := range many {
		name := fmt.Sprintf("guarded/%d", i)
		if i%2 == 0 {
			s.lock(name)
		}
		guards = append(guards, lock.Guard{Name: lock.MustParseName(name), Revision: s.get(name).Revision})
	}
	former := s.lock("set/0", withHolder("former"))
	var changes []lock.Change
	for i := range 8 {
		changes = append(changes, s.change(lock.Locked, fmt.Sprintf("set/%d", i), withSet(8)))
	}
	revision := s.revision()
	for i := range guards {
		outdated := slices.Clone(guards)
		outdated[i].Revision += 1000
		_, err := s.Commit(s.t.Context(), changes, outdated...)
		wantError(s.t, fmt.Sprintf("with guard %d outdated", i), err, lock.ErrConflict)
	}
	wantLock(s.t, "a lock after commits whose guards did not hold", s.get("set/0"), former)
	if held := s.list("set/*", ""); len(held) != 1 || s.revision() != revision {
		s.t.Errorf("after commits whose guards did not hold %d locks of the set are held, at revision %d; want 1 at %d", len(held), s.revision(), revision)
	}
	if _, err := s.Commit(s.t.Context(), changes, guards...); err != nil {
		s.t.Errorf("with guards that hold: %v", err)
	}
	for i, guard := range guards {
		if got := s.get(guard.Name.String()).Revision; got != guard.Revision {
			s.t.Errorf("guard %d: its lock stands at %d, want %d", i, got, guard.Revision)
		}
	}
}

// history reads all that a query asks for.
func (s tested) history(q lock.HistoryQuery) (all []lock.Event) {
	s.t.Helper()
	for from := lock.Revision(0); ; {
		page, err := s.History(s.t.Context(), q, from, 100)
		if err != nil {
			s.t.Fatalf("History: %v", err)
		}
		all = append(all, page.Events...)
		if from = page.Next; from == 0 {
			return all
		}
	}
}

// testDeepTrees: trees of the deepest names, of the longest, and of all names, are kept
// like others, and what is below a name is found.
func testDeepTrees(s tested) {
	deep := strings.TrimSuffix(strings.Repeat("d/", lock.MaxNameSegments), "/")
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("l", lock.MaxSegmentBytes-1)+"/", lock.MaxNameBytes/lock.MaxSegmentBytes), "/")
	for _, name := range []string{deep, long, lock.AllName, "d/d/d"} {
		l := s.lock(name, func(c *lock.Change) { c.Lock.Tree = true })
		if got := s.get(name); !got.Tree || got.Token != l.Token {
			s.t.Errorf("the tree of %.40s is %+v", name, got)
		}
	}
	for name, want := range map[string]int{"d": 2, "d/d/d": 1, deep: 0, lock.AllName: 3} {
		_, locks := s.List(s.t.Context(), lock.MustParseName(name).Below(), lock.Name{})
		got := 0
		for _, err := range locks {
			if err != nil {
				s.t.Fatalf("List: %v", err)
			}
			got++
		}
		if got != want {
			s.t.Errorf("%d locks are held below %.40s, want %d", got, name, want)
		}
	}
	thawed := s.commit(s.change(lock.Updated, lock.AllName, func(c *lock.Change) { c.Lock.Tree = false }))[0]
	if thawed.Lock.Tree || s.get(lock.AllName).Tree {
		s.t.Errorf("the thawed lock is %+v", thawed)
	}
}
