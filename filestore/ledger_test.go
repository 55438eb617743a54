package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// smallJournal has segments of a few changes.
var smallJournal = journal.Config{SegmentBytes: 2 << 10, ChunkBytes: 1 << 10, ReserveBytes: 512}

// mustOpenOn opens a store on a disk.
func mustOpenOn(t *testing.T, d *testDisk) *Store {
	t.Helper()
	s, err := openOn(t, d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openOn(t *testing.T, d *testDisk) (*Store, error) {
	t.Helper()
	config := Config{Root: d.root, AcceptRestore: d.accept, NoNotify: true, History: d.history, journal: d.journal, rest: 2}.withDefaults()
	return open(t.Context(), config, d.root, d)
}

// ledger is what a caller of a store knows for certain.
type ledger struct {
	mu sync.Mutex
	// possible is, for each lock, every state that it may be in; exactly one
	// unless an answer was missing.
	possible map[lock.Name][]state
	events   map[lock.Revision]lock.Event // acknowledged
	outside  map[lock.Name]string         // lock files of others', which nobody may touch
	byHand   map[lock.Name]bool           // whose first lock file somebody wrote, without a token
	highest  lock.Token                   // ever seen
	pruned   bool                         // the history may begin later
	untold   []untold
}

// untold is a commit that nobody was told the outcome of: all of its changes, or none.
type untold struct {
	changes []lock.Change
	before  map[lock.Name][]state
}

// state is what a lock may be like: free, or held.
type state struct {
	data   lock.Data
	holder string
	caller string
	token  lock.Token // anyToken: held with a token that was not told
	ttl    time.Duration
	tree   bool
	keep   lock.OnExpiry
	stale  int64       // milliseconds since the Unix epoch; 0: it is not
	set    lock.SetRef // with anyToken, without an id that was not told
}

// stateOf is the state that a lock is in.
func stateOf(l lock.Lock) state {
	if !l.Held() {
		return state{}
	}
	s := state{data: l.Data, holder: l.Holder, caller: l.Caller, token: l.Token, ttl: l.TTL, tree: l.Tree, keep: l.OnExpiry, set: l.Set}
	if l.Stale() {
		s.stale = l.StaleTime.UnixMilli()
	}
	return s
}

// isOf reports whether a lock is in a state.
func (s state) isOf(l lock.Lock) bool {
	if s.token == anyToken && l.Held() {
		s.token = l.Token
		if s.set.ID == 0 && s.set.Size == l.Set.Size {
			s.set = l.Set
		}
	}
	return stateOf(l) == s
}

// stateAfter returns the state of the lock after a change, if it is made.
func stateAfter(c lock.Change) state {
	switch {
	case c.Type == lock.Unlocked:
		return state{}
	case c.Type == lock.Locked:
		c.Lock.Token = anyToken
	}
	return stateOf(c.Lock)
}

const anyToken = ^lock.Token(0)

func (s state) String() string {
	switch s.token {
	case 0:
		return "free"
	case anyToken:
		return fmt.Sprintf("held by %q (%q) for %v (%v, %v, %v, %+v) with a new token and %.60s", s.holder, s.caller, s.ttl, s.tree, s.keep, s.stale, s.set, s.data.JSON())
	}
	return fmt.Sprintf("held by %q (%q) for %v (%v, %v, %v, %+v) with token %d and %.60s", s.holder, s.caller, s.ttl, s.tree, s.keep, s.stale, s.set, s.token, s.data.JSON())
}

func newLedger() *ledger {
	return &ledger{possible: make(map[lock.Name][]state), events: make(map[lock.Revision]lock.Event), outside: make(map[lock.Name]string)}
}

// present returns the state of a lock in a store.
func present(ctx context.Context, t *testing.T, s *Store, name lock.Name) lock.Lock {
	t.Helper()
	l, err := s.Get(ctx, name)
	if errors.Is(err, lock.ErrNotLocked) {
		return lock.Lock{Name: name}
	}
	if err != nil {
		t.Fatalf("Get(%v): %v", name, err)
	}
	return l
}

// callerOf is whose the holds of a holder are; nobody's are of nobody.
func callerOf(holder string) string {
	if holder == "" {
		return ""
	}
	return "unix:" + holder
}

// locked is a change that grants a lock, free or held.
func locked(l lock.Lock, holder, data string) lock.Change {
	parsed, err := lock.ParseData([]byte(data))
	if err != nil {
		panic(err)
	}
	return lock.Change{Type: lock.Locked, Cause: lock.Request, Prev: l.Revision, Lock: lock.Lock{Name: l.Name, Holder: holder, Caller: callerOf(holder), Data: parsed}}
}

func updated(l lock.Lock, data string) lock.Change {
	parsed, err := lock.ParseData([]byte(data))
	if err != nil {
		panic(err)
	}
	return lock.Change{Type: lock.Updated, Cause: lock.Request, Prev: l.Revision, Lock: l.WithData(parsed)}
}

func extended(l lock.Lock, ttl time.Duration) lock.Change {
	l.TTL = ttl
	return lock.Change{Type: lock.Extended, Cause: lock.Request, Prev: l.Revision, Lock: l}
}

func unlocked(l lock.Lock) lock.Change {
	return lock.Change{Type: lock.Unlocked, Cause: lock.Request, Prev: l.Revision, Lock: l}
}

// commit commits changes and notes the answer. A killed process gives none but
// those that it gave before.
func (b *ledger) commit(t *testing.T, s *Store, d *testDisk, changes ...lock.Change) error {
	t.Helper()
	b.mu.Lock()
	before := b.highest
	b.mu.Unlock()
	events, err := s.Commit(t.Context(), changes)
	b.take(t, d, before, changes, events, err)
	return err
}

// handOver makes the changes that hand a held lock over.
func handOver(held lock.Lock, holder, data string) []lock.Change {
	return []lock.Change{unlocked(held), locked(lock.Lock{Name: held.Name}, holder, data)}
}

// take notes the answer to changes that were committed when no token above before had
// been seen.
func (b *ledger) take(t *testing.T, d *testDisk, before lock.Token, changes []lock.Change, events []lock.Event, err error) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		for i, e := range events {
			if changes[i].Type != lock.Extended && lock.Token(e.Revision) <= before {
				t.Errorf("the event of %v has revision %d, which is not above %d", changes[i].Lock.Name, e.Revision, before)
			}
			b.note(changes[i], e)
		}
		return
	}
	refused := errors.Is(err, lock.ErrReadOnly) || errors.Is(err, lock.ErrConflict) || errors.Is(err, lock.ErrShuttingDown) || errors.Is(err, lock.ErrInvalidName) || errors.Is(err, lock.ErrLockFile)
	if d.isKilled() || !refused {
		u := untold{before: make(map[lock.Name][]state)}
		for i, c := range changes {
			if isHandedOver(c, changes[i:]) {
				continue // it is at no time free
			}
			u.changes = append(u.changes, c)
			u.before[c.Lock.Name] = slices.Clone(b.states(c.Lock.Name))
			b.possible[c.Lock.Name] = append(b.states(c.Lock.Name), stateAfter(c))
		}
		b.untold = append(b.untold, u)
	}
}

// isHandedOver reports whether a change is the end of a hold that comes with the next
// grant, one of the changes after it.
func isHandedOver(c lock.Change, after []lock.Change) bool {
	return c.Type == lock.Unlocked && slices.ContainsFunc(after, func(a lock.Change) bool {
		return a.Type == lock.Locked && a.Lock.Name == c.Lock.Name
	})
}

func (b *ledger) states(name lock.Name) []state {
	if b.possible[name] == nil {
		return []state{{}}
	}
	return b.possible[name]
}

// note notes an acknowledged change.
func (b *ledger) note(c lock.Change, e lock.Event) {
	switch c.Type {
	case lock.Extended: // has no event
		b.possible[c.Lock.Name] = []state{stateOf(c.Lock)}
		return
	case lock.Unlocked:
		b.possible[c.Lock.Name] = []state{{}}
	default:
		b.possible[c.Lock.Name] = []state{stateOf(e.Lock)}
	}
	b.events[e.Revision] = e
	b.highest = max(b.highest, lock.Token(e.Revision))
}

// violations returns what an opened store and its files do not have as they should.
func (b *ledger) violations(t *testing.T, s *Store) (found []string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for name := range b.possible {
		got := present(t.Context(), t, s, name)
		ok := slices.ContainsFunc(b.states(name), func(want state) bool { return want.isOf(got) })
		if !ok || got.Problem != "" {
			say("%v is %v (problem %q), want one of %v", name, stateOf(got), got.Problem, b.states(name))
		}
		b.highest = max(b.highest, got.Token)
		text, err := os.ReadFile(filepath.Join(s.Root(), fileOf(name)))
		content := lockfile.Read(text)
		if want, ok := b.outside[name]; ok {
			if string(text) != want {
				say("the lock file of %v, which is not ours, is\n%s(%v), want\n%s", name, text, err, want)
			}
			continue
		}
		switch {
		case errors.Is(err, os.ErrNotExist) && got.Held():
			say("%v is held and has no lock file", name)
		case errors.Is(err, os.ErrNotExist):
		case !got.Held():
			say("%v is free and has a lock file:\n%.400q", name, text)
		case b.byHand[name] && content.Token == 0 && content.Data == got.Data: // it still stands
		case content.Data != got.Data || content.Token != got.Token || content.Holder != got.Holder || content.Caller != got.Caller,
			content.Tree != got.Tree || content.OnExpiry != got.OnExpiry || content.Set != got.Set || !content.StaleTime.Equal(got.StaleTime):
			say("%v is %v and its lock file of %d bytes says:\n%.40q", name, stateOf(got), len(text), text)
		}
	}
	found = append(found, b.halves(t, s)...)
	if text, err := os.ReadFile(filepath.Join(s.Root(), formatFile)); err != nil || format(text) != secondFormat {
		_, locks := s.List(t.Context(), lock.Pattern{}, lock.Name{})
		for l := range locks {
			if formatOf(&l) == secondFormat {
				say("%v stands in a root that says %q, %v: %+v", l.Name, text, err, l)
			}
		}
	}
	for _, name := range leftNew(t, s.Root()) {
		say("%s/%s is left", ownDir, name)
	}
	found = append(found, b.missingEvents(t, s)...)
	next, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName("the-next")}, "", `{}`)})
	switch {
	case err != nil:
		say("a lock after the start: %v", err)
	case next[0].Lock.Token <= b.highest:
		say("the next token is %d, want one above %d", next[0].Lock.Token, b.highest)
	default:
		if _, err := s.Commit(t.Context(), []lock.Change{unlocked(next[0].Lock)}); err != nil {
			say("an unlock after the start: %v", err)
		}
		b.highest = next[0].Lock.Token + 1
	}
	return found
}

// halves returns which commits that nobody was told of have come about by halves, as far as
// what became of their locks tells.
func (b *ledger) halves(t *testing.T, s *Store) (found []string) {
	t.Helper()
	for i, u := range b.untold {
		var made, not []string
		set := lock.SetRef{}
		for _, c := range u.changes {
			name := c.Lock.Name
			isOther := func(o untold) bool { return o.before[name] != nil }
			if slices.ContainsFunc(b.untold[i+1:], isOther) || slices.ContainsFunc(b.untold[:i], isOther) {
				continue
			}
			got, after := present(t.Context(), t, s, name), stateAfter(c)
			before := slices.ContainsFunc(u.before[name], func(s state) bool { return s.isOf(got) })
			switch {
			case before == after.isOf(got): // that tells nothing
			case before:
				not = append(not, fmt.Sprintf("%v is %v", name, stateOf(got)))
			default:
				made = append(made, fmt.Sprintf("%v is %v", name, stateOf(got)))
				if c.Type == lock.Locked && got.Set.Size > 0 && set.Size > 0 && got.Set != set {
					found = append(found, fmt.Sprintf("%v is of the set %+v, and others with it of %+v", name, got.Set, set))
				} else if c.Type == lock.Locked && got.Set.Size > 0 {
					set = got.Set
				}
			}
		}
		if len(made) > 0 && len(not) > 0 {
			found = append(found, fmt.Sprintf("half of a commit was made:\n\t\t%s\n\tand of the other nothing:\n\t\t%s", strings.Join(made, "\n\t\t"), strings.Join(not, "\n\t\t")))
		}
	}
	return found
}

// missingEvents returns which acknowledged events the history does not have.
func (b *ledger) missingEvents(t *testing.T, s *Store) (found []string) {
	t.Helper()
	history := make(map[lock.Revision]lock.Event)
	holds := make(map[lock.Name]lock.Token) // present, by the events so far; 0: free
	end, _ := s.List(t.Context(), lock.Pattern{}, lock.Name{})
	first := lock.Revision(0)
	for after := first; after < end; {
		events, _, err := s.Events(t.Context(), lock.Pattern{}, after, time.Hour)
		if compacted := (*lock.CompactedError)(nil); errors.As(err, &compacted) && after == 0 && b.pruned {
			first, after = compacted.Kept, compacted.Kept
			continue
		}
		if err != nil || len(events) == 0 {
			return append(found, fmt.Sprintf("Events(%d): %d events, error %v", after, len(events), err))
		}
		for _, e := range events {
			if e.Revision <= after {
				found = append(found, fmt.Sprintf("after revision %d comes revision %d", after, e.Revision))
			}
			after = e.Revision
			history[after] = e
			token, known := holds[e.Lock.Name]
			switch known = known || first == 0; {
			case e.Type == lock.Locked && known && token != 0:
				found = append(found, fmt.Sprintf("%v is locked by event %d, and the hold with token %d has not ended", e.Lock.Name, e.Revision, token))
			case e.Type != lock.Locked && known && token != e.Lock.Token:
				found = append(found, fmt.Sprintf("event %d is %v of token %d, and %v is held with token %d", e.Revision, e.Type, e.Lock.Token, e.Lock.Name, token))
			}
			holds[e.Lock.Name] = e.Lock.Token
			if e.Type == lock.Unlocked {
				holds[e.Lock.Name] = 0
			}
		}
	}
	for revision, want := range b.events {
		if revision <= first {
			continue // pruned
		}
		got := history[revision]
		if got.Type != want.Type || got.Lock.Name != want.Lock.Name || stateOf(got.Lock) != stateOf(want.Lock) || got.Previous != want.Previous {
			found = append(found, fmt.Sprintf("event %d is %+v, want %+v", revision, got, want))
		}
	}
	return found
}

// check reports violations under the name of what went before.
func (b *ledger) check(t *testing.T, what string, s *Store) {
	t.Helper()
	if found := b.violations(t, s); len(found) > 0 {
		t.Errorf("%s:\n\t%s", what, strings.Join(found, "\n\t"))
	}
}
