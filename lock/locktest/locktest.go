// Package locktest is the suite that every lock.Store passes: [Test] holds a store
// to the words of the interface, [TestManager] holds a manager.Manager on that store to
// the rules of who gets which lock when.
//
// Every subtest opens a fresh store. The suite waits for events and never for time,
// so it suits a store whose Commit takes milliseconds.
package locktest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// patience is how long anything may take that is going to happen.
const patience = 30 * time.Second

// tested is a store in a test, with its methods made short.
type tested struct {
	t *testing.T
	lock.Store
	start lock.Revision // of the fresh store
}

// run runs a subtest on a fresh store.
func run(t *testing.T, open func(t *testing.T) lock.Store, name string, test func(s tested)) {
	t.Run(name, func(t *testing.T) {
		store := open(t)
		t.Cleanup(func() { store.Close() })
		s := tested{t: t, Store: store}
		s.start = s.revision()
		test(s)
	})
}

// revision returns the store's present revision.
func (s tested) revision() lock.Revision {
	s.t.Helper()
	revision, err := s.Revision(s.t.Context())
	if err != nil {
		s.t.Fatalf("Revision: %v", err)
	}
	return revision
}

// change makes a Change of the lock as it stands; the edits say what changes.
func (s tested) change(kind lock.EventType, name string, edits ...func(*lock.Change)) lock.Change {
	s.t.Helper()
	l := s.get(name)
	c := lock.Change{Type: kind, Cause: lock.Request, Prev: l.Revision, Lock: l}
	if kind == lock.Locked {
		c.Lock = lock.Lock{Name: l.Name}
	}
	for _, edit := range edits {
		edit(&c)
	}
	return c
}

// commit commits changes that must succeed.
func (s tested) commit(changes ...lock.Change) []lock.Event {
	s.t.Helper()
	events, err := s.Commit(s.t.Context(), changes)
	if err != nil {
		s.t.Fatalf("Commit(%s): %v", describe(changes), err)
	}
	if len(events) != len(changes) {
		s.t.Fatalf("Commit(%s) returned %d events, want one for each change", describe(changes), len(events))
	}
	return events
}

// lock commits a grant of the lock, free or held, and returns it.
func (s tested) lock(name string, edits ...func(*lock.Change)) lock.Lock {
	s.t.Helper()
	return s.commit(s.change(lock.Locked, name, edits...))[0].Lock
}

// unlock commits the end of the hold.
func (s tested) unlock(name string, edits ...func(*lock.Change)) lock.Event {
	s.t.Helper()
	return s.commit(s.change(lock.Unlocked, name, edits...))[0]
}

// get returns the lock; one that is free has only its name.
func (s tested) get(name string) lock.Lock {
	s.t.Helper()
	n := lock.MustParseName(name)
	l, err := s.Get(s.t.Context(), n)
	if errors.Is(err, lock.ErrNotLocked) {
		return lock.Lock{Name: n}
	}
	if err != nil {
		s.t.Fatalf("Get(%s): %v", name, err)
	}
	return l
}

// list returns the locks that the pattern selects and that come after a name.
func (s tested) list(pattern, after string) []lock.Lock {
	s.t.Helper()
	var name lock.Name
	if after != "" {
		name = lock.MustParseName(after)
	}
	_, locks := s.List(s.t.Context(), lock.MustParsePattern(pattern), name)
	var page []lock.Lock
	for l, err := range locks {
		if err != nil {
			s.t.Fatalf("List(%q, %q): %v", pattern, after, err)
		}
		page = append(page, l)
	}
	return page
}

// events reads the next n events after a revision, and not more.
func (s tested) events(after lock.Revision, n int) []lock.Event {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	events, err := readEvents(ctx, s.Store, after, n)
	if err != nil {
		s.t.Fatal(err)
	}
	return events
}

// readEvents reads at least n events after a revision.
func readEvents(ctx context.Context, store lock.Store, after lock.Revision, n int) (all []lock.Event, err error) {
	for len(all) < n {
		events, _, err := store.Events(ctx, lock.Pattern{}, after, time.Hour)
		if err != nil {
			return all, fmt.Errorf("Events(%d), with %d of %d events read: %w", after, len(all), n, err)
		}
		if len(events) == 0 {
			return all, fmt.Errorf("Events(%d) returned nothing and no error", after)
		}
		all = append(all, events...)
		after = events[len(events)-1].Revision
	}
	if len(all) > n {
		return all, fmt.Errorf("there are %d events, want %d; the first too many is %+v", len(all), n, all[n])
	}
	return all, nil
}

// nothingAfter checks that nothing has been committed since a revision, by an
// event that is made for it.
func (s tested) nothingAfter(after lock.Revision) {
	s.t.Helper()
	mark := s.lock("the-end-of-the-test")
	if got := s.events(after, 1)[0]; got.Revision != mark.Revision {
		s.t.Errorf("there is an event of something that changed nothing: %+v", got)
	}
}

// wantLock checks a lock against what it should be.
func wantLock(t *testing.T, what string, got, want lock.Lock) {
	t.Helper()
	if !sameLock(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// sameLock is == but for how a time is written.
func sameLock(a, b lock.Lock) bool {
	if !a.AcquireTime.Equal(b.AcquireTime) || !a.ExpireTime.Equal(b.ExpireTime) || !a.StaleTime.Equal(b.StaleTime) || !a.Deadline.Equal(b.Deadline) {
		return false
	}
	b.AcquireTime, b.ExpireTime, b.StaleTime, b.Deadline = a.AcquireTime, a.ExpireTime, a.StaleTime, a.Deadline
	return a == b
}

func sameEvent(a, b lock.Event) bool {
	if !a.Time.Equal(b.Time) || !sameLock(a.Lock, b.Lock) {
		return false
	}
	b.Time, b.Lock = a.Time, a.Lock
	return a == b
}

// wantKeptTime checks that a time is as times are kept.
func wantKeptTime(t *testing.T, what string, got time.Time) {
	t.Helper()
	if got.Location() != time.UTC || !got.Equal(got.Truncate(time.Millisecond)) {
		t.Errorf("%s is %v, want UTC, to the millisecond", what, got)
	}
}

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

func describe(changes []lock.Change) (text string) {
	for i, c := range changes {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%v %v over revision %d", c.Type, c.Lock.Name, c.Prev)
	}
	return text
}

// Edits of a Change.

func withData(json string) func(*lock.Change) {
	data, err := lock.ParseData([]byte(json))
	if err != nil {
		panic(err)
	}
	return func(c *lock.Change) { c.Lock.Data = data }
}

func withHolder(holder string) func(*lock.Change) {
	return func(c *lock.Change) { c.Lock.Holder = holder }
}

func withTTL(ttl time.Duration) func(*lock.Change) {
	return func(c *lock.Change) { c.Lock.TTL, c.Lock.ExpireTime = ttl, time.Time{} }
}

func withExpireTime(t time.Time) func(*lock.Change) {
	return func(c *lock.Change) { c.Lock.TTL, c.Lock.ExpireTime = 0, t }
}

func withPrev(prev lock.Revision) func(*lock.Change) {
	return func(c *lock.Change) { c.Prev = prev }
}
