package manager_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

var (
	rulesSeeds = flag.Int("rules-seeds", 60, "how many random histories Manager is held against the rules in")
	rulesSeed  = flag.Uint64("rules-seed", 1, "the first one's seed")
)

// stepper makes a Manager and the rules do the same, and compares them after each step,
// once nothing goes on any more.
type stepper struct {
	t      *testing.T
	random *rand.Rand
	store  *handStore
	locks  lock.Locks // under test
	rules  *rules
	names  []string
	count  int
	calls  map[*wanting]*pendingCall
	told   []*told // what was granted, and may be asked for again
	log    []string
	failed string // what is wrong; empty: nothing so far
	other  bool   // a set was granted another of its choices than by the rules, which may be
}

// pendingCall is a request under way.
type pendingCall struct {
	cancel    context.CancelFunc
	cancelled bool

	mu    sync.Mutex
	done  bool
	locks []lock.Lock
	err   error
}

// told is a request and what it was granted.
type told struct {
	want  *wanting
	locks []lock.Lock
}

// handStore is a store to which a person may come first: before the next grant, if it has a
// guard that says that a lock is free, this is made by hand.
type handStore struct {
	lock.Store
	mu sync.Mutex
	// Guards that a test takes out.
	unguarded bool // no guard is checked
	halves    bool // of a set one is not granted
	blind     bool // a tree whose name has two segments does not show
	next      bool
	drains    []lock.Name // may have been found empty before: what is made by hand below comes too late
	made      *lock.Lock  // by hand, where that was free as the guard said
}

// Commit implements lock.Store.
func (s *handStore) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	s.mu.Lock()
	last := changes[len(changes)-1]
	free := slices.IndexFunc(guards, func(g lock.Guard) bool { return g.Revision == 0 })
	isDrained := func(above lock.Name) bool { return free >= 0 && above.Covers(guards[free].Name) }
	if s.next && free >= 0 && !slices.ContainsFunc(s.drains, isDrained) {
		s.made = &lock.Lock{Name: guards[free].Name, Tree: !last.Lock.Shared()}
		if _, err := s.Store.Commit(ctx, []lock.Change{{Type: lock.Locked, Cause: lock.File, Lock: *s.made}}); err != nil {
			s.made = nil // somebody else was first of all
		}
	}
	s.next = s.next && last.Type != lock.Locked
	s.mu.Unlock()
	if s.unguarded {
		guards = nil
	}
	n := len(changes)
	if s.halves && n > 1 && changes[0].Lock.Set.Size > 0 && changes[0].Type == lock.Locked {
		n--
	}
	events, err := s.Store.Commit(ctx, changes[:n], guards...)
	if err == nil && n < len(changes) {
		events = append(events, lock.Event{Type: lock.Locked, Lock: changes[n].Lock})
		l := &events[n].Lock
		l.Token = events[n-1].Lock.Token + 1
		l.Revision, l.Set.ID = lock.Revision(l.Token), events[0].Lock.Token
	}
	return events, err
}

// Get implements lock.Store.
func (s *handStore) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	l, err := s.Store.Get(ctx, name)
	l.Tree = l.Tree && !(s.blind && strings.Count(name.String(), "/") == 1)
	return l, err
}

func (s *stepper) fail(format string, args ...any) {
	if s.failed == "" {
		s.failed = fmt.Sprintf(format, args...)
	}
}

func (s *stepper) chance(percent int) bool { return s.random.IntN(100) < percent }

// some returns some of the elements, in random order.
func some[E any](random *rand.Rand, all []E, n int) []E {
	chosen := slices.Clone(all)
	random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen[:min(n, len(chosen))]
}

// heldBy returns a random held name of those that may be, "" if there is none.
func (s *stepper) held(may func(h *ruledHold) bool) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.rules.holds)) {
		if may(s.rules.holds[name]) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[s.random.IntN(len(names))]
}

// newHolder returns a name that nobody has had.
func (s *stepper) newHolder() string {
	s.count++
	return fmt.Sprintf("o%d", s.count)
}

// request returns a random request.
func (s *stepper) request() *wanting {
	w := &wanting{holder: s.newHolder()}
	n := 1 + s.random.IntN(4)
	switch {
	case s.chance(45):
		w.all = some(s.random, s.names, 1)
		switch {
		case s.chance(35) && w.all[0] != deepName:
			w.shared = true
			if s.chance(50) {
				w.limit = 1 + s.random.IntN(3)
			}
		case s.chance(25):
			w.tree = true
			w.drain = s.chance(60)
		case s.chance(12):
			w.overwrite = true
		case s.chance(12):
			w.replaceStale = true
		}
	default:
		w.isSet = true
		chosen := some(s.random, s.names, len(s.names))
		if s.chance(60) {
			w.all, chosen = chosen[:n], chosen[n:]
		}
		for len(chosen) >= 4 && (len(w.pools) == 0 && len(w.all) == 0 || s.chance(45)) {
			size := 1 + s.random.IntN(4)
			w.pools = append(w.pools, pool{chosen[:size], 1 + s.random.IntN(size)})
			chosen = chosen[size:]
		}
	}
	if !w.tree {
		w.through = s.chance(8)
		w.keep = s.chance(20)
	}
	if len(w.pools) == 0 && !w.drain {
		w.refuseManual = s.chance(8)
	}
	switch s.random.IntN(5) {
	case 0:
	case 1:
		w.wait = lock.WaitForever
	default:
		w.wait = time.Duration(1000+s.random.IntN(30000)) * time.Millisecond
	}
	if w.drain && w.wait == 0 {
		w.wait = lock.WaitForever
	}
	if w.wait != lock.WaitForever {
		w.until = time.Now().Add(w.wait)
	}
	switch s.random.IntN(4) {
	case 0:
		w.ttl = time.Duration(1000+s.random.IntN(20000)) * time.Millisecond
	case 1:
		if !w.until.IsZero() { // it is still to come when the lock is granted
			w.expire = w.until.Add(time.Duration(1000+s.random.IntN(20000)) * time.Millisecond)
		}
	}
	return w
}

func parsed(names []string) (all []lock.Name) {
	for _, name := range names {
		all = append(all, lock.MustParseName(name))
	}
	return all
}

// send sends a request.
func (s *stepper) send(w *wanting) {
	ctx, cancel := context.WithCancel(s.t.Context())
	c := &pendingCall{cancel: cancel}
	s.calls[w] = c
	go func() {
		locks, err := s.call(ctx, w)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.done, c.locks, c.err = true, locks, err
	}()
}

// call makes the call of a request.
func (s *stepper) call(ctx context.Context, w *wanting) ([]lock.Lock, error) {
	onExpiry, reason := lock.End, ""
	if w.keep {
		onExpiry = lock.Keep
	}
	if w.through || w.replaceStale {
		reason = "on purpose"
	}
	if w.isSet {
		r := lock.SetRequest{
			Names: parsed(w.all), Holder: w.holder, RequestID: w.holder, TTL: w.ttl, ExpireTime: w.expire, Wait: w.wait,
			ThroughFreeze: w.through, Reason: reason, OnExpiry: onExpiry, RefuseManual: w.refuseManual,
		}
		for _, p := range w.pools {
			r.Choices = append(r.Choices, lock.Choice{Names: parsed(p.names), Count: p.count})
		}
		grant, err := s.locks.LockSet(ctx, lock.Caller{}, r)
		return grant.Locks, err
	}
	grant, err := s.locks.Lock(ctx, lock.Caller{}, lock.LockRequest{
		Name: lock.MustParseName(w.all[0]), Holder: w.holder, RequestID: w.holder, TTL: w.ttl, ExpireTime: w.expire, Wait: w.wait,
		Shared: w.shared, Limit: w.limit, Tree: w.tree, Drain: w.drain, ThroughFreeze: w.through,
		Overwrite: w.overwrite, ReplaceStale: w.replaceStale, Reason: reason, OnExpiry: onExpiry, RefuseManual: w.refuseManual,
	})
	return []lock.Lock{grant.Lock}, err
}

// byHand changes a lock's file, so to speak.
func (s *stepper) byHand(kind lock.EventType, name string, change func(l *lock.Lock)) {
	n := lock.MustParseName(name)
	l, err := s.store.Store.Get(s.t.Context(), n)
	if err != nil {
		l = lock.Lock{Name: n}
	}
	prev := l.Revision
	change(&l)
	if _, err := s.store.Store.Commit(s.t.Context(), []lock.Change{{Type: kind, Cause: lock.File, Prev: prev, Lock: l}}); err != nil {
		s.fail("by hand: %v", err)
	}
}

// want compares the outcome of a call that nobody waits for.
func (s *stepper) want(what string, err error, reason lock.Reason) {
	if reason == "" && err != nil || reason != "" && !errors.Is(err, reason) {
		s.fail("%s: got %v, want %q", what, err, reason)
	}
}

// step does something at random.
func (s *stepper) step() {
	now := time.Now()
	ctx, anybody := s.t.Context(), lock.Caller{}
	switch n := s.random.IntN(100); {
	case n < 42:
		w := s.request()
		s.handNext()
		s.logf("%v", w)
		s.send(w)
		synctest.Wait()
		s.handFirst()
		s.rules.ask(w, now)
	case n < 62: // a hold ends
		name := s.held(func(*ruledHold) bool { return true })
		if name == "" {
			return
		}
		h := s.rules.holds[name]
		s.handNext()
		s.logf("%s of %s ends", name, h.holder)
		r := lock.UnlockRequest{Name: lock.MustParseName(name), Token: h.token}
		if h.stale {
			r.Stale, r.Reason = true, "looked at"
		}
		_, err := s.locks.Unlock(ctx, anybody, r)
		s.want("the end of a hold", err, "")
		synctest.Wait()
		delete(s.rules.holds, name)
		s.handFirst()
		s.rules.decide(now)
	case n < 67: // what is left of a set ends
		name := s.held(func(h *ruledHold) bool { return h.size > 0 && !h.stale })
		if name == "" {
			return
		}
		id := s.rules.holds[name].setID
		for name, h := range s.rules.holds {
			isPoolOf := func(w *wanting) bool {
				return slices.ContainsFunc(w.pools, func(p pool) bool { return slices.Contains(p.names, name) })
			}
			if h.setID == id && slices.ContainsFunc(s.rules.line, isPoolOf) {
				return // which of a choice is granted depends on who looks first
			}
		}
		s.logf("the set %d ends", id)
		var holds []lock.HoldRef
		for name, h := range s.rules.holds {
			if h.setID == id && !h.stale {
				holds = append(holds, lock.HoldRef{Name: lock.MustParseName(name), Token: h.token})
				delete(s.rules.holds, name)
			}
		}
		answers, err := s.locks.UnlockSet(ctx, anybody, lock.UnlockSetRequest{Holds: holds})
		s.want("the end of a set", err, "")
		for _, a := range answers {
			s.want("the end of one of a set", a.Err, "")
		}
		synctest.Wait()
		s.rules.decide(now)
	case n < 71: // a renewal
		name := s.held(func(*ruledHold) bool { return true })
		if name == "" {
			return
		}
		h := s.rules.holds[name]
		ttl := time.Duration(1000+s.random.IntN(20000)) * time.Millisecond
		s.logf("%s of %s is renewed for %v", name, h.holder, ttl)
		l, err := s.locks.Renew(ctx, anybody, lock.RenewRequest{Name: lock.MustParseName(name), Token: h.token, TTL: ttl})
		if h.stale {
			s.want("the renewal of a stale hold", err, lock.ErrNotHolder)
			return
		}
		s.want("a renewal", err, "")
		if err == nil && l.Token != h.token {
			s.fail("a renewal changed the token of %s", name)
		}
		h.ttl, h.ends = ttl, now.Add(ttl)
	case n < 76: // a hand-over
		name := s.held(func(*ruledHold) bool { return true })
		if name == "" {
			return
		}
		h := s.rules.holds[name]
		r := lock.HandOverRequest{Name: lock.MustParseName(name), Token: h.token, Holder: s.newHolder(), Never: s.chance(30)}
		s.logf("%s of %s is handed over to %s, never %v", name, h.holder, r.Holder, r.Never)
		answer, err := s.locks.HandOver(ctx, anybody, r)
		if h.stale {
			s.want("the hand-over of a stale hold", err, lock.ErrNotHolder)
			return
		}
		s.want("a hand-over", err, "")
		if err != nil {
			return
		}
		for what, call := range map[string]func() error{
			"the old token renews": func() error {
				_, err := s.locks.Renew(ctx, anybody, lock.RenewRequest{Name: r.Name, Token: h.token, TTL: time.Hour})
				return err
			},
			"the old token unlocks": func() error {
				_, err := s.locks.Unlock(ctx, anybody, lock.UnlockRequest{Name: r.Name, Token: h.token})
				return err
			},
			"the old token hands over": func() error {
				_, err := s.locks.HandOver(ctx, anybody, lock.HandOverRequest{Name: r.Name, Token: h.token, Holder: "thief"})
				return err
			},
		} {
			s.want(what, call(), lock.ErrNotHolder)
		}
		h.token, h.holder = answer.Lock.Token, r.Holder
		switch {
		case r.Never:
			h.ttl, h.ends = 0, time.Time{}
		case h.ttl != 0:
			h.ends = now.Add(h.ttl)
		}
		synctest.Wait()
		s.rules.decide(now) // some wait for no person
	case n < 79: // a break
		name := s.held(func(*ruledHold) bool { return true })
		if name == "" {
			return
		}
		s.logf("%s is broken", name)
		_, err := s.locks.Unlock(ctx, anybody, lock.UnlockRequest{Name: lock.MustParseName(name), Force: true, Reason: "broken"})
		s.want("a break", err, "")
		synctest.Wait()
		delete(s.rules.holds, name)
		s.rules.decide(now)
	case n < 84: // one leaves
		if len(s.rules.line) == 0 {
			return
		}
		w := s.rules.line[s.random.IntN(len(s.rules.line))]
		s.logf("%s leaves", w.holder)
		s.calls[w].cancel()
		s.calls[w].cancelled = true
		synctest.Wait()
		s.rules.leave(w)
		s.rules.decide(now)
	case n < 87: // one is put out of the line
		if len(s.rules.line) == 0 {
			return
		}
		w := s.rules.line[s.random.IntN(len(s.rules.line))]
		name := lock.MustParseName(w.names()[0])
		l, err := s.locks.Status(ctx, anybody, name)
		s.want("Status", err, "")
		if l.Situation == nil {
			s.fail("nobody is shown to wait for %s, and %s does", name, w.holder)
			return
		}
		for _, shown := range l.Situation.Waiting {
			if shown.Holder == w.holder {
				s.logf("%s is put out of the line", w.holder)
				_, err := s.locks.Dismiss(ctx, anybody, lock.DismissRequest{Name: name, Place: shown.Place, Reason: "for a test"})
				s.want("Dismiss", err, "")
				synctest.Wait()
				s.rules.leave(w)
				s.rules.decide(now)
				return
			}
		}
		s.fail("%s is not shown to wait for %s", w.holder, name)
	case n < 90: // a file is made
		name := s.names[s.random.IntN(len(s.names))]
		if s.chance(25) && name != deepName {
			name += "/_+7"
		}
		if s.rules.holds[name] != nil {
			return
		}
		tree := s.chance(40) && !strings.Contains(name, "/_+")
		s.logf("%s is made by hand, tree %v", name, tree)
		s.byHand(lock.Locked, name, func(l *lock.Lock) { l.Tree = tree })
		synctest.Wait()
		s.rules.holds[name] = &ruledHold{tree: tree}
		s.rules.decide(now)
	case n < 93: // a file is removed
		name := s.held(func(*ruledHold) bool { return true })
		if name == "" {
			return
		}
		s.logf("%s is removed by hand", name)
		s.byHand(lock.Unlocked, name, func(*lock.Lock) {})
		synctest.Wait()
		delete(s.rules.holds, name)
		s.rules.decide(now)
	case n < 95: // a file is edited
		name := s.held(func(h *ruledHold) bool { return !h.keep })
		if name == "" || strings.Contains(name, "/_+") {
			return
		}
		h := s.rules.holds[name]
		s.logf("%s is edited by hand, tree %v", name, !h.tree)
		s.byHand(lock.Updated, name, func(l *lock.Lock) { l.Tree = !h.tree })
		synctest.Wait()
		h.tree = !h.tree
		s.rules.decide(now)
	case n < 97:
		s.again(ctx)
	default:
		s.wait(now.Add(time.Duration(s.random.IntN(8000)) * time.Millisecond))
	}
}

// again sends a request again of which something stands: it is answered with the same holds,
// or refused, if not all of them stand.
func (s *stepper) again(ctx context.Context) {
	if len(s.told) == 0 {
		return
	}
	of := s.told[s.random.IntN(len(s.told))]
	var stand []lock.Lock
	for _, l := range of.locks {
		if h := s.rules.holds[l.Name.String()]; h != nil && h.token == l.Token && !h.stale {
			stand = append(stand, l)
		}
	}
	if e := of.want.expire; len(stand) == 0 || !e.IsZero() && !e.After(time.Now()) {
		return // it would be granted anew, or asks for an end that is past
	}
	s.logf("%s asks again", of.want.holder)
	got, err := s.call(ctx, of.want)
	if len(stand) < len(of.locks) {
		s.want("a set of which a part stands, asked for again", err, lock.ErrNotHolder)
		return
	}
	s.want("what stands, asked for again", err, "")
	if !slices.EqualFunc(got, of.locks, func(a, b lock.Lock) bool { return a.Name == b.Name && a.Token == b.Token }) {
		s.fail("%s asked again and got %v, want %v", of.want.holder, got, of.locks)
	}
}

// handNext has a person come first, now and then.
func (s *stepper) handNext() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.next, s.store.drains = s.chance(15), nil
	for _, w := range s.rules.line {
		if w.drain {
			s.store.drains = append(s.store.drains, lock.MustParseName(w.all[0]))
		}
	}
}

// handFirst has the rules know what was made by hand before a grant.
func (s *stepper) handFirst() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if made := s.store.made; made != nil {
		s.logf("%s was made by hand before that, tree %v", made.Name, made.Tree)
		s.rules.holds[made.Name.String()] = &ruledHold{tree: made.Tree}
	}
	s.store.next, s.store.made = false, nil
}

// apart is how far apart things that happen by themselves have to be, so that their order is
// known: Manager may be a little late.
const apart = 2 * lateness

// wait lets time go by until then.
func (s *stepper) wait(until time.Time) {
	for s.failed == "" && !s.other {
		ends := s.rules.ends()
		slices.SortFunc(ends, time.Time.Compare)
		if len(ends) > 1 && ends[1].Sub(ends[0]) < 2*apart {
			s.spread(ends[0])
			continue
		}
		if len(ends) == 0 || ends[0].After(until.Add(apart)) {
			break
		}
		time.Sleep(time.Until(ends[0].Add(apart)))
		synctest.Wait()
		s.logf("the time of something is over")
		s.rules.pass(ends[0])
		s.compare()
	}
	time.Sleep(time.Until(until))
	synctest.Wait()
}

// spread has what would end at a time end before.
func (s *stepper) spread(at time.Time) {
	now := time.Now()
	for _, name := range slices.Sorted(maps.Keys(s.rules.holds)) {
		if h := s.rules.holds[name]; h.ends.Equal(at) {
			s.logf("%s of %s ends before its time", name, h.holder)
			_, err := s.locks.Unlock(s.t.Context(), lock.Caller{}, lock.UnlockRequest{Name: lock.MustParseName(name), Force: true, Reason: "at once"})
			s.want("a break", err, "")
			synctest.Wait()
			delete(s.rules.holds, name)
			s.rules.decide(now)
			s.compare()
			return
		}
	}
	for _, w := range s.rules.line {
		if w.until.Equal(at) {
			s.logf("%s leaves before its time", w.holder)
			s.calls[w].cancel()
			s.calls[w].cancelled = true
			synctest.Wait()
			s.rules.leave(w)
			s.rules.decide(now)
			s.compare()
			return
		}
	}
}

func (s *stepper) logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%s %s", time.Now().Format("05.000"), fmt.Sprintf(format, args...)))
}

// compare holds the Manager against the rules.
func (s *stepper) compare() {
	synctest.Wait()
	ctx := s.t.Context()
	s.compareCalls()
	if s.other || s.failed != "" {
		return
	}
	seen := make(map[string]bool)
	_, locks := s.store.Store.List(ctx, lock.Pattern{}, lock.Name{})
	for l := range locks {
		name := l.Name.String()
		seen[name] = true
		h := s.rules.holds[name]
		if h == nil {
			s.fail("%s is held by %s, and should be free", name, l.Holder)
			continue
		}
		if h.token == 0 {
			h.token = l.Token
		}
		if l.Token != h.token || l.Holder != h.holder || l.Tree != h.tree || l.Stale() != h.stale || l.Set.Size != h.size {
			s.fail("%s is %+v, and should be %+v", name, l, *h)
		}
		shown, err := s.locks.Status(ctx, lock.Caller{}, l.Name)
		s.want("Status", err, "")
		if late := shown.Deadline.Sub(h.ends); late.Abs() > 2*apart {
			s.fail("%s ends at %v, and should at %v", name, shown.Deadline, h.ends)
		} else if !h.ends.IsZero() {
			h.ends = shown.Deadline // it may have begun a little later
		}
	}
	for name, h := range s.rules.holds {
		if !seen[name] {
			l, _ := s.locks.Status(ctx, lock.Caller{}, lock.MustParseName(name))
			s.fail("%s is free, and should be held by %s: %+v", name, h.holder, l.Situation)
		}
	}
	if s.failed == "" {
		for _, name := range s.names {
			s.compareStatus(name)
		}
	}
}

// compareCalls holds what the callers were told against the rules.
func (s *stepper) compareCalls() {
	for w, c := range s.calls {
		c.mu.Lock()
		ended, isOver := s.rules.ended[w]
		switch {
		case c.done && !isOver:
			s.fail("%s was answered %v, and should wait", w.holder, c.err)
		case !c.done && isOver:
			s.fail("%s waits, and should have been told %v", w.holder, ended)
		case c.done && c.err == nil && ended.granted == nil:
			s.fail("%s was granted %v, and should have been refused", w.holder, c.locks)
		case c.done && c.err != nil && ended.granted != nil:
			s.fail("%s was refused, and should have been granted %v: %v", w.holder, ended.granted, c.err)
		case s.other:
		case c.done && c.err == nil:
			s.compareGrant(w, c.locks, ended.granted)
			s.told = append(s.told, &told{w, c.locks})
		case c.done && !c.cancelled && !errors.Is(c.err, lock.ErrLockHeld):
			s.fail("%s was refused for another reason: %v", w.holder, c.err)
		}
		c.mu.Unlock()
		if c.done {
			c.cancel()
			delete(s.calls, w)
		}
	}
}

// compareGrant holds the holds of an answer against the rules.
func (s *stepper) compareGrant(w *wanting, got []lock.Lock, want []string) {
	var names []string
	for i, l := range got {
		names = append(names, l.Name.String())
		if l.Token != got[0].Token+lock.Token(i) {
			s.fail("the holds of %s are not of one step: %v", w.holder, got)
		}
		if len(got) > 1 && (l.Set != lock.SetRef{ID: got[0].Token, Size: len(got)}) {
			s.fail("the holds of %s are not of one set: %v", w.holder, got)
		}
		if h := s.rules.holds[l.Name.String()]; h != nil && h.holder == w.holder && len(got) > 1 {
			h.setID = got[0].Token
		}
	}
	if s.other = !slices.Equal(names, want) && w.isChoice(names); s.other {
		return // which of them are free is found out one by one, while others come and go
	}
	if !slices.Equal(names, want) {
		s.fail("%s was granted %v, and should have been %v", w.holder, names, want)
	}
}

// compareStatus holds what is shown of a lock against the rules.
func (s *stepper) compareStatus(name string) {
	l, err := s.locks.Status(s.t.Context(), lock.Caller{}, lock.MustParseName(name))
	s.want("Status", err, "")
	var got, want []string
	var around lock.Situation
	if l.Situation != nil {
		around = *l.Situation
	}
	for _, w := range around.Waiting {
		got = append(got, w.Holder)
	}
	for _, w := range s.rules.line {
		if slices.Contains(w.names(), name) {
			want = append(want, w.holder)
		}
	}
	if !slices.Equal(got, want) || l.Waiters != len(want) {
		s.fail("for %s wait %v (%d), and should %v", name, got, l.Waiters, want)
	}
	if n := len(s.rules.sharedHolds(name)); around.SharedHolds != n {
		s.fail("%s has %d shared holds, and should have %d", name, around.SharedHolds, n)
	}
	below := 0
	for held := range s.rules.holds {
		if l.Tree && slices.Contains(above(held), name) {
			below++
		}
	}
	if around.HeldBelow != below {
		s.fail("%d locks are held below %s, and should %d", around.HeldBelow, name, below)
	}
}

// theNames are those that the requests are for, one list or the other.
var theNames = [][]string{{"a", "a/b", "a/b/c", "a/b/d", "a/e", "b", "b/c", "p/1", "p/2", "p/3", "p/4", "x"},
	{lock.AllName, "d", "d/2", "d/2/3", "d/2/3/4/5/6/7/8", deepName[:len(deepName)-3], deepName, "e/1", "e/2", "f"},
}

// deepName has as many segments as may be.
const deepName = "d/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16"

// runSteps holds one random history against the rules, and returns what is wrong.
func runSteps(t *testing.T, seed uint64, steps int, breaks func(*stepper)) (wrong string, log []string, other bool) {
	synctest.Test(t, func(t *testing.T) {
		store := &handStore{Store: open(t)}
		s := &stepper{
			t:      t,
			random: rand.New(rand.NewPCG(seed, 0)),
			store:  store,
			rules:  &rules{holds: make(map[string]*ruledHold), ended: make(map[*wanting]outcome)},
			names:  theNames[seed%3/2],
			calls:  make(map[*wanting]*pendingCall),
		}
		if breaks != nil {
			breaks(s)
		}
		if s.locks == nil {
			s.locks = manage(t, store)
		}
		for range steps {
			s.step()
			s.compare()
			if s.failed != "" || s.other {
				break
			}
		}
		if s.failed != "" {
			for _, w := range s.rules.line {
				s.logf("in line: %v", w)
			}
			for _, name := range slices.Sorted(maps.Keys(s.rules.holds)) {
				s.logf("held: %s %+v", name, *s.rules.holds[name])
			}
		}
		wrong, log, other = s.failed, s.log, s.other
		for _, c := range s.calls {
			c.cancel()
		}
		synctest.Wait()
		if m, ok := s.locks.(*manager.Manager); ok && wrong == "" {
			wrong = whatIsLeft(t, m, store.Store)
		}
	})
	return wrong, log, other
}

// whatIsLeft says what a Manager whose calls have ended keeps when somebody has removed all
// lock files.
func whatIsLeft(t *testing.T, m *manager.Manager, store lock.Store) string {
	_, locks := store.List(t.Context(), lock.Pattern{}, lock.Name{})
	for l := range locks {
		if _, err := store.Commit(t.Context(), []lock.Change{{Type: lock.Unlocked, Cause: lock.File, Prev: l.Revision, Lock: l}}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Minute) // leases of holds that are over, and retries, come to their ends
	synctest.Wait()
	if rest := m.Rest(); rest != "" {
		return "when all was over there was left: " + rest
	}
	return ""
}

// TestRules holds random histories against the rules: sets, pools, shared holds, trees,
// holds to keep, hand-overs, breaks, files made by hand.
func TestRules(t *testing.T) {
	others := 0
	for i := range *rulesSeeds {
		seed := *rulesSeed + uint64(i)
		wrong, log, other := runSteps(t, seed, 150, nil)
		if wrong != "" {
			t.Fatalf("seed %d, step %d: %s\n%s", seed, len(log), wrong, strings.Join(log, "\n"))
		}
		if other {
			others++
		}
	}
	if others > 2+*rulesSeeds/20 {
		t.Errorf("%d of %d histories end early, because a set was granted another of its choices than by the rules", others, *rulesSeeds)
	}
}

// TestRulesCanFail holds what has a guard taken out against the rules.
func TestRulesCanFail(t *testing.T) {
	over := func(wrap func(lock.Locks) lock.Locks) func(*stepper) {
		return func(s *stepper) { s.locks = wrap(manage(s.t, s.store)) }
	}
	for _, test := range []struct {
		name   string
		breaks func(*stepper)
	}{
		{"half a set is granted", func(s *stepper) { s.store.halves = true }},
		{"one ancestor is not asked", func(s *stepper) { s.store.blind = true }},
		{"the store checks no guard", func(s *stepper) { s.store.unguarded = true }},
		{"one in the queue is overtaken", over(func(l lock.Locks) lock.Locks { return overtakes{l} })},
		{"a stale hold is renewed", over(func(l lock.Locks) lock.Locks { return renewsStale{l} })},
		{"an old token counts after a hand-over", over(func(l lock.Locks) lock.Locks { return &forgetsHandOver{Locks: l} })},
		{"a fourth shared hold", over(func(l lock.Locks) lock.Locks { return oneMore{l} })},
		{"a drain does not wait", over(func(l lock.Locks) lock.Locks { return noDrain{l} })},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := range uint64(500) {
				if wrong, log, _ := runSteps(t, seed, 150, test.breaks); wrong != "" {
					t.Logf("seed %d, step %d: %s", seed, len(log), wrong)
					return
				}
			}
			t.Error("nothing was found")
		})
	}
}

// overtakes goes to the end of the line after each 3 s.
type overtakes struct{ lock.Locks }

func (o overtakes) Lock(ctx context.Context, caller lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	const slice = 3 * time.Second
	for left := r.Wait; ; left -= slice {
		r.Wait = min(left, slice)
		grant, err := o.Locks.Lock(ctx, caller, r)
		if err == nil || left <= slice || ctx.Err() != nil || !errors.Is(err, lock.ErrLockHeld) {
			return grant, err
		}
	}
}

// renewsStale renews a stale hold, as it says.
type renewsStale struct{ lock.Locks }

func (o renewsStale) Renew(ctx context.Context, caller lock.Caller, r lock.RenewRequest) (lock.Lock, error) {
	l, err := o.Locks.Renew(ctx, caller, r)
	if refused, ok := errors.AsType[*lock.Error](err); ok && refused.Lock != nil && refused.Lock.Stale() && refused.Lock.Token == r.Token {
		return *refused.Lock, nil
	}
	return l, err
}

// forgetsHandOver takes the token of a hold that was handed over for the new one's.
type forgetsHandOver struct {
	lock.Locks
	next map[lock.Token]lock.Token
}

func (o *forgetsHandOver) HandOver(ctx context.Context, caller lock.Caller, r lock.HandOverRequest) (lock.HandOverAnswer, error) {
	a, err := o.Locks.HandOver(ctx, caller, r)
	if err == nil {
		if o.next == nil {
			o.next = make(map[lock.Token]lock.Token)
		}
		o.next[r.Token] = a.Lock.Token
	}
	return a, err
}

func (o *forgetsHandOver) Unlock(ctx context.Context, caller lock.Caller, r lock.UnlockRequest) (lock.Release, error) {
	if next := o.next[r.Token]; next != 0 {
		r.Token = next
	}
	return o.Locks.Unlock(ctx, caller, r)
}

// oneMore lets one more shared hold stand than a request says.
type oneMore struct{ lock.Locks }

func (o oneMore) Lock(ctx context.Context, caller lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	if r.Limit > 0 {
		r.Limit++
	}
	return o.Locks.Lock(ctx, caller, r)
}

// noDrain freezes at once.
type noDrain struct{ lock.Locks }

func (o noDrain) Lock(ctx context.Context, caller lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	r.Drain = false
	return o.Locks.Lock(ctx, caller, r)
}

// TestThroughBesideDrain: who goes through freezes has a lock after the tree that waited for
// it to be free, and not while that is being granted.
func TestThroughBesideDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		below := lock.MustParseName("a/b/d")
		held := mustLock(t, m, lock.LockRequest{Name: below})
		var tree, through lock.Grant
		var errs [2]error
		go func() {
			tree, errs[0] = m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: lock.MustParseName("a/b"), Tree: true, Drain: true, Wait: time.Hour})
		}()
		synctest.Wait()
		go func() {
			through, errs[1] = m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: below, ThroughFreeze: true, Reason: "hot fix", Wait: time.Hour})
		}()
		synctest.Wait()
		store.beforeCommit.set(func(change *lock.Change) error {
			if change.Lock.Tree {
				time.Sleep(time.Second) // anybody else could be faster
			}
			return nil
		})
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: below, Token: held.Token}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := errors.Join(errs[:]...); err != nil || tree.Lock.Token == 0 || tree.Lock.Token > through.Lock.Token {
			t.Errorf("got the tree with token %d, and the lock below with token %d, %v; want the tree first", tree.Lock.Token, through.Lock.Token, err)
		}
	})
}

// vanishing is a store in which a lock ends after it was looked at so many times more.
type vanishing struct {
	lock.Store
	name  lock.Name
	looks atomic.Int32
}

// Get implements lock.Store.
func (s *vanishing) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	l, err := s.Store.Get(ctx, name)
	if name == s.name && err == nil && s.looks.Add(-1) == 0 {
		if _, err := s.Store.Commit(ctx, []lock.Change{{Type: lock.Unlocked, Cause: lock.File, Prev: l.Revision, Lock: l}}); err != nil {
			return l, err
		}
	}
	return l, err
}

// TestTreeEndsInWalk: where a tree ends while those below it are looked at, the first of them
// is granted the lock.
func TestTreeEndsInWalk(t *testing.T) {
	for looks := range int32(12) {
		testTreeEndsInWalk(t, looks+1)
	}
}

func testTreeEndsInWalk(t *testing.T, looks int32) {
	synctest.Test(t, func(t *testing.T) {
		store := &vanishing{Store: open(t), name: lock.MustParseName("a")}
		m := manage(t, store)
		below := lock.MustParseName("a/b")
		mustLock(t, m, lock.LockRequest{Name: store.name, Tree: true})
		order := make(chan int, 3)
		ask := func(i int) {
			go func() {
				grant, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: below, Wait: time.Hour})
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: below, Token: grant.Lock.Token}); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		ask(1)
		ask(2)
		store.looks.Store(looks)
		ask(3)
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: store.name, Force: true, Reason: "at last"}); err != nil && !errors.Is(err, lock.ErrNotLocked) {
			t.Error(err)
		}
		for want := range 3 {
			if got := <-order; got != want+1 {
				t.Errorf("after %d looks at the tree request %d was granted the lock as number %d", looks, got, want+1)
			}
		}
		synctest.Wait() // until the last has released it
	})
}
