package history

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// halves is a store that leaves one lock of a set out.
type halves struct{ lock.Store }

// Commit implements lock.Store.
func (s halves) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	n := len(changes) - 1
	if n == 0 || changes[0].Lock.Set.Size == 0 || changes[0].Type != lock.Locked {
		return s.Store.Commit(ctx, changes, guards...)
	}
	events, err := s.Store.Commit(ctx, changes[:n], guards...)
	if err == nil {
		l := changes[n].Lock
		l.Token = events[n-1].Lock.Token + 1
		l.Revision, l.Set.ID = lock.Revision(l.Token), events[0].Lock.Token
		events = append(events, lock.Event{Type: lock.Locked, Lock: l})
	}
	return events, err
}

// blind is a store that does not show that a lock whose name has two segments is a tree.
type blind struct{ lock.Store }

// Get implements lock.Store.
func (s blind) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	l, err := s.Store.Get(ctx, name)
	l.Tree = l.Tree && strings.Count(name.String(), "/") != 1
	return l, err
}

// overtakes has who waits go to the end of the line after each 20 ms.
type overtakes struct{ lock.Locks }

const slice = 20 * time.Millisecond

// Lock implements lock.Locks.
func (o overtakes) Lock(ctx context.Context, caller lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	for left := r.Wait; ; left -= slice {
		r.Wait = min(left, slice)
		grant, err := o.Locks.Lock(ctx, caller, r)
		if err == nil || left <= slice || ctx.Err() != nil || !errors.Is(err, lock.ErrLockHeld) {
			return grant, err
		}
	}
}

// LockSet implements lock.Locks.
func (o overtakes) LockSet(ctx context.Context, caller lock.Caller, r lock.SetRequest) (lock.SetGrant, error) {
	for left := r.Wait; ; left -= slice {
		r.Wait = min(left, slice)
		grant, err := o.Locks.LockSet(ctx, caller, r)
		if err == nil || left <= slice || ctx.Err() != nil || !errors.Is(err, lock.ErrLockHeld) {
			return grant, err
		}
	}
}

// oneByOne grants the locks of a set one after the other.
type oneByOne struct{ lock.Locks }

// LockSet implements lock.Locks.
func (o oneByOne) LockSet(ctx context.Context, caller lock.Caller, r lock.SetRequest) (grant lock.SetGrant, err error) {
	for _, name := range r.Names {
		one := r
		one.Names, one.Choices = []lock.Name{name}, nil
		if len(grant.Locks) == 0 {
			one.Choices = r.Choices
		}
		part, err := o.Locks.LockSet(ctx, caller, one)
		if err != nil {
			return grant, err
		}
		grant.Locks = append(grant.Locks, part.Locks...)
	}
	if len(r.Names) == 0 {
		return o.Locks.LockSet(ctx, caller, r)
	}
	return grant, nil
}

// renewsStale renews a stale hold, as it says.
type renewsStale struct{ lock.Locks }

// Renew implements lock.Locks.
func (o renewsStale) Renew(ctx context.Context, caller lock.Caller, r lock.RenewRequest) (lock.Lock, error) {
	l, err := o.Locks.Renew(ctx, caller, r)
	if refused, ok := errors.AsType[*lock.Error](err); ok && refused.Lock != nil && refused.Lock.Stale() && refused.Lock.Token == r.Token {
		return *refused.Lock, nil
	}
	return l, err
}

// oldTokens takes the token of a hold that was handed over for the new one's.
type oldTokens struct {
	lock.Locks
	mu   sync.Mutex
	next map[lock.Token]lock.Token
}

// HandOver implements lock.Locks.
func (o *oldTokens) HandOver(ctx context.Context, caller lock.Caller, r lock.HandOverRequest) (lock.HandOverAnswer, error) {
	a, err := o.Locks.HandOver(ctx, caller, r)
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.next[r.Token] = a.Lock.Token
	}
	return a, err
}

// Unlock implements lock.Locks.
func (o *oldTokens) Unlock(ctx context.Context, caller lock.Caller, r lock.UnlockRequest) (lock.Release, error) {
	o.mu.Lock()
	if next := o.next[r.Token]; next != 0 {
		r.Token = next
	}
	o.mu.Unlock()
	return o.Locks.Unlock(ctx, caller, r)
}

// oneMore lets one more shared hold stand than a request says.
type oneMore struct{ lock.Locks }

// Lock implements lock.Locks.
func (o oneMore) Lock(ctx context.Context, caller lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	if r.Limit > 0 {
		r.Limit++
	}
	return o.Locks.Lock(ctx, caller, r)
}

// noDrain freezes at once.
type noDrain struct{ lock.Locks }

// Lock implements lock.Locks.
func (o noDrain) Lock(ctx context.Context, caller lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	r.Drain = false
	return o.Locks.Lock(ctx, caller, r)
}

// TestPartyCanFail holds parties on servers with a guard taken out.
func TestPartyCanFail(t *testing.T) {
	on := func(wrap func(lock.Locks) lock.Locks) func() *local {
		return func() *local { return &local{open: inMemory(), with: wrap} }
	}
	stored := func(wrap func(lock.Store) lock.Store) func() *local {
		open := inMemory()
		return func() *local {
			return &local{open: func() (lock.Store, error) {
				store, err := open()
				return wrap(store), err
			}}
		}
	}
	for _, test := range []struct {
		name string
		on   func() *local
		want string               // a problem has it
		more func(*partySettings) // so that it happens more often
	}{
		{"intact", func() *local { return &local{open: inMemory()} }, "", nil},
		{"half a set", stored(func(s lock.Store) lock.Store { return halves{s} }), "all or none: ", nil},
		{"one by one", on(func(l lock.Locks) lock.Locks { return oneByOne{l} }), "all or none: ", nil},
		{"overtaking", on(func(l lock.Locks) lock.Locks { return overtakes{l} }), "overtaken: ", nil},
		{"one ancestor is not asked", stored(func(s lock.Store) lock.Store { return blind{s} }), "covered by the tree", nil},
		{"a drain that does not wait", on(func(l lock.Locks) lock.Locks { return noDrain{l} }), "below is held", nil},
		{"a stale hold is renewed", on(func(l lock.Locks) lock.Locks { return renewsStale{l} }), "stale: ", func(s *partySettings) { s.keep, s.late = 100, 60 }},
		{"old tokens after a hand-over", on(func(l lock.Locks) lock.Locks {
			return &oldTokens{Locks: l, next: make(map[lock.Token]lock.Token)}
		}), "hand-over: ", nil},
		{"a fourth shared hold", on(func(l lock.Locks) lock.Locks { return oneMore{l} }), "shared holds stand", func(s *partySettings) { s.shared = 90 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			for attempt := range uint64(3 * attempts) {
				s := partySettings{
					seed: attempt + 1, duration: 700 * time.Millisecond, guests: 24,
					names: mixedNames, largest: 6, kinds: true, keep: 10, disturb: 3,
				}
				if test.more != nil {
					test.more(&s)
				}
				r := attend(t, s, test.on())
				if test.want == "" {
					for _, problem := range r.problems {
						t.Error(problem)
					}
					return
				}
				for _, problem := range r.problems {
					if strings.Contains(problem, test.want) {
						t.Logf("attempt %d: %d problems, such as: %s", attempt+1, len(r.problems), problem)
						return
					}
				}
			}
			t.Error("nothing was found")
		})
	}
}
