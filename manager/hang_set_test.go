package manager_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// lockSetSoon is lockSoon for a set.
func lockSetSoon(ctx context.Context, m *manager.Manager, r lock.SetRequest) *pendingSet {
	p := &pendingSet{}
	go func() {
		p.grant, p.err = m.LockSet(ctx, lock.Caller{}, r)
		p.done.Store(true)
	}()
	synctest.Wait()
	return p
}

// pendingSet is a call of LockSet in the background.
type pendingSet struct {
	pending
	grant lock.SetGrant
}

// holdsOf are the holds of locks.
func holdsOf(locks ...lock.Lock) (holds []lock.HoldRef) {
	for _, l := range locks {
		holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
	}
	return holds
}

// What is true of one lock beside a store that hangs is true of sets, of shared holds and of
// hand-overs: who asked is told in time, other locks go on, and when the store goes on, what
// stands is what the callers expect: grants that nobody was told of are undone, all of a set,
// what was ended or handed over is, and who waits is served.
func TestOutcomeOfSetsUnknown(t *testing.T) {
	nameB, nameC := lock.MustParseName("b"), lock.MustParseName("c")
	both := []lock.Name{nameA, nameB}
	type world struct {
		m          *manager.Manager
		store      *pendingStore
		alice      []lock.Lock // her set of both, not of the tests of grants
		bob, carol *pending    // wait for the one and for the other
	}
	isFree := func(t *testing.T, w *world) {
		t.Helper()
		for _, name := range both {
			if l := status(t, w.m, name); l.Held() {
				t.Errorf("the lock is %+v, want it free", l)
			}
		}
	}
	areServed := func(t *testing.T, w *world) {
		t.Helper()
		for _, p := range []*pending{w.bob, w.carol} {
			if !p.ended() || p.err != nil {
				t.Errorf("who waits: ended %t, %v; want the lock", p.ended(), p.err)
			}
		}
	}
	lockSet := func(r lock.SetRequest) func(w *world) error {
		return func(w *world) error {
			_, err := w.m.LockSet(context.Background(), lock.Caller{}, r)
			return err
		}
	}
	for _, test := range []struct {
		name string
		held bool // by alice, with bob and carol in line
		call func(w *world) error
		then func(t *testing.T, w *world)
	}{
		{"LockSet", false, lockSet(lock.SetRequest{Names: both, Holder: "dora"}), isFree},
		{"LockSet with a wait", false, lockSet(lock.SetRequest{Names: both, Holder: "dora", Wait: 10 * time.Second}), isFree},
		{"LockSet of a choice", false, lockSet(lock.SetRequest{Choices: []lock.Choice{{Names: both}}, Holder: "dora"}), isFree},
		{"Lock shared", false, func(w *world) error {
			_, err := w.m.Lock(context.Background(), lock.Caller{}, lock.LockRequest{Name: nameA, Shared: true})
			return err
		}, func(t *testing.T, w *world) {
			isFree(t, w)
			if l := status(t, w.m, nameA); l.Situation != nil {
				t.Errorf("around the lock is %+v, want nothing", l.Situation)
			}
		}},
		{"UnlockSet", true, func(w *world) error {
			_, err := w.m.UnlockSet(context.Background(), lock.Caller{}, lock.UnlockSetRequest{Holds: holdsOf(w.alice...)})
			return err
		}, areServed},
		{"RenewSet", true, func(w *world) error {
			_, err := w.m.RenewSet(context.Background(), lock.Caller{}, lock.RenewSetRequest{Holds: holdsOf(w.alice...), TTL: 2 * time.Hour})
			return err
		}, func(t *testing.T, w *world) {
			time.Sleep(time.Hour + 50*time.Minute)
			for _, l := range w.alice {
				if got := status(t, w.m, l.Name); got.Token != l.Token {
					t.Errorf("after 1 h 50 min the lock is %+v, want alice's hold", got)
				}
			}
			time.Sleep(15 * time.Minute)
			areServed(t, w)
		}},
		{"HandOver", true, func(w *world) error {
			_, err := w.m.HandOver(context.Background(), lock.Caller{}, lock.HandOverRequest{Name: nameA, Token: w.alice[1].Token, Holder: "erin"})
			return err
		}, func(t *testing.T, w *world) {
			if got := status(t, w.m, nameA); got.Holder != "erin" {
				t.Errorf("the lock is %+v, want it handed over to erin", got)
			}
			if w.bob.ended() {
				t.Errorf("who waits was answered: %v", w.bob.err)
			}
			time.Sleep(time.Hour + time.Minute)
			areServed(t, w)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{store: &pendingStore{hookedStore: open(t)}}
				w.m = manage(t, w.store)
				if test.held {
					grant, err := w.m.LockSet(t.Context(), lock.Caller{}, lock.SetRequest{Names: both, Holder: "alice", TTL: time.Hour})
					if err != nil {
						t.Fatal(err)
					}
					w.alice = grant.Locks
					w.bob = lockSoon(t.Context(), w.m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: 24 * time.Hour})
					w.carol = lockSoon(t.Context(), w.m, lock.LockRequest{Name: nameB, Holder: "carol", Wait: 24 * time.Hour})
				}
				w.store.gate = make(chan struct{})
				began := time.Now()
				if err := test.call(w); !errors.Is(err, lock.ErrOutcomeUnknown) {
					t.Errorf("got error %v, want %v", err, lock.ErrOutcomeUnknown)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %v", took)
				}
				synctest.Wait()
				gate := w.store.gate
				w.store.gate = nil
				mustLock(t, w.m, lock.LockRequest{Name: nameC}) // which nobody else wants
				w.store.gate = gate
				w.store.letGo()
				test.then(t, w)
				if left := whatIsLeft(t, w.m, w.store.Store); left != "" {
					t.Error(left)
				}
			})
		})
	}
}

// A waiter who left while a hanging store granted it the lock has not been told, and is not
// said to be the next holder.
func TestNextIsWhoWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		alice := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		letGo := hang(t, store, "bob")
		var release lock.Release
		go func() {
			var err error
			if release, err = m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: alice.Token}); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(time.Hour + 10*time.Second) // bob's wait ends, and nobody waits for his grant
		letGo()
		synctest.Wait()
		if release.Next.Held() {
			t.Errorf("the next holder is said to be %q, who has left", release.Next.Holder)
		}
	})
}

// A set that nobody could be told of is given back in one step: others see all of it, or none.
func TestSetIsUndoneInOneStep(t *testing.T) {
	names := []lock.Name{nameA, lock.MustParseName("b"), lock.MustParseName("c")}
	for _, how := range []string{"left", "not confirmed"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &countingStore{hookedStore: open(t)}
				m := manage(t, store)
				ctx, leave := context.WithCancel(t.Context())
				request := lock.SetRequest{Names: names, Holder: "bob"}
				if how == "left" {
					store.beforeCommit.set(func(*lock.Change) error {
						leave()
						return nil
					})
				} else {
					request.Confirm = func(context.Context) error { return errors.New("gone") }
				}
				if _, err := m.LockSet(ctx, lock.Caller{}, request); err == nil {
					t.Error("who left has the set")
				}
				for _, name := range names {
					if l := status(t, m, name); l.Held() {
						t.Errorf("the lock is %+v, want it free", l)
					}
				}
				if store.commits != 2 {
					t.Errorf("there were %d commits, want that of the grant and that of its end", store.commits)
				}
				leave()
			})
		})
	}
}

// countingStore counts commits.
type countingStore struct {
	*hookedStore
	commits int
}

func (s *countingStore) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	s.commits++
	return s.hookedStore.Commit(ctx, changes, guards...)
}

// A set that nobody could be told of, and of which the store can end nothing for a while, is
// given back when it can.
func TestSetIsUndoneLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		names := []lock.Name{nameA, lock.MustParseName("b")}
		ctx, leave := context.WithCancel(t.Context())
		store.beforeCommit.set(func(change *lock.Change) error {
			if change.Type == lock.Unlocked {
				return lock.ErrReadOnly
			}
			leave()
			return nil
		})
		if _, err := m.LockSet(ctx, lock.Caller{}, lock.SetRequest{Names: names, Holder: "bob"}); !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v, want %v", err, context.Canceled)
		}
		carol := lockSetSoon(t.Context(), m, lock.SetRequest{Names: names, Holder: "carol", Wait: 2 * time.Hour})
		time.Sleep(time.Hour)
		if carol.ended() {
			t.Fatalf("who waits was answered: %v", carol.err)
		}
		store.beforeCommit.remove()
		time.Sleep(time.Minute)
		if !carol.ended() || carol.err != nil {
			t.Errorf("who waits: ended %t, %v; want the set", carol.ended(), carol.err)
		}
	})
}

// While the store can grant nothing for now, who does not wait is told so at once, and a set
// that waits keeps its place and its names.
func TestPlacesInLineForSetsWhileFull(t *testing.T) {
	nameB := lock.MustParseName("b")
	for _, reason := range []lock.Reason{lock.ErrReadOnly, lock.ErrTooManyLocks} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := open(t)
				m := manage(t, store)
				store.beforeCommit.set(func(*lock.Change) error { return reason })
				began := time.Now()
				for what, call := range map[string]func() error{
					"a set": func() error {
						_, err := m.LockSet(t.Context(), lock.Caller{}, lock.SetRequest{Names: []lock.Name{nameA, nameB}})
						return err
					},
					"a set of one": func() error {
						_, err := m.LockSet(t.Context(), lock.Caller{}, lock.SetRequest{Names: []lock.Name{nameA}})
						return err
					},
					"a choice": func() error {
						_, err := m.LockSet(t.Context(), lock.Caller{}, lock.SetRequest{Choices: []lock.Choice{{Names: []lock.Name{nameA, nameB}}}})
						return err
					},
					"a shared hold": func() error {
						_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Shared: true})
						return err
					},
					"a tree": func() error {
						_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Tree: true})
						return err
					},
				} {
					if err := call(); !errors.Is(err, reason) {
						t.Errorf("%s: %v, want %v", what, err, reason)
					}
				}
				if took := time.Since(began); took > 0 {
					t.Errorf("it took %v to say so", took)
				}
				first := lockSetSoon(t.Context(), m, lock.SetRequest{Names: []lock.Name{nameA, nameB}, Holder: "first", Wait: time.Hour})
				second := lockSoon(t.Context(), m, lock.LockRequest{Name: nameB, Holder: "second", Wait: time.Hour})
				time.Sleep(30 * time.Minute)
				if first.ended() || second.ended() {
					t.Fatalf("who waits was answered: %v, %v", first.err, second.err)
				}
				store.beforeCommit.remove()
				time.Sleep(time.Minute)
				if !first.ended() || first.err != nil || second.ended() {
					t.Errorf("the set ended %t, %v, who is behind it %t; want the set granted first", first.ended(), first.err, second.ended())
				}
			})
		})
	}
}

// lateCtx has ended before those who wait for its end are told.
type lateCtx struct {
	context.Context
	ended bool
	done  chan struct{}
}

func (c *lateCtx) Done() <-chan struct{} { return c.done }

func (c *lateCtx) Err() error {
	if c.ended {
		return context.Canceled
	}
	return nil
}

// A set that has left, and was found to have left by somebody else before it knew that
// itself, keeps nothing from those behind it.
func TestBehindSetThatLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		nameB := lock.MustParseName("b")
		alice := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		ctx := &lateCtx{Context: context.Background(), done: make(chan struct{})}
		set := lockSetSoon(ctx, m, lock.SetRequest{Names: []lock.Name{nameA, nameB}, Holder: "set", Wait: time.Hour})
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameB, Holder: "bob", Wait: time.Hour})
		if set.ended() || bob.ended() {
			t.Fatalf("who waits was answered: %v, %v", set.err, bob.err)
		}
		ctx.ended = true
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: alice.Token}); err != nil {
			t.Error(err)
		}
		close(ctx.done)
		if !set.ended() || !errors.Is(set.err, context.Canceled) {
			t.Errorf("who left: ended %t, %v", set.ended(), set.err)
		}
		if !bob.ended() || bob.err != nil {
			t.Errorf("who was behind: ended %t, %v; want the lock", bob.ended(), bob.err)
		}
	})
}

// Nor does a request for a tree that has left, from who comes at the moment when that is
// found out.
func TestBelowTreeThatLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("a/b"), Holder: "alice"})
		ctx := &lateCtx{Context: context.Background(), done: make(chan struct{})}
		tree := lockSoon(ctx, m, lock.LockRequest{Name: lock.MustParseName("a"), Holder: "tree", Tree: true, Drain: true, Wait: time.Hour})
		if tree.ended() {
			t.Fatalf("who waits was answered: %v", tree.err)
		}
		ctx.ended = true
		bob := lockSetSoon(t.Context(), m, lock.SetRequest{Names: []lock.Name{lock.MustParseName("a/c"), nameA}, Holder: "bob", Wait: time.Hour})
		close(ctx.done)
		if !tree.ended() || !errors.Is(tree.err, context.Canceled) {
			t.Errorf("who left: ended %t, %v", tree.ended(), tree.err)
		}
		if !bob.ended() || bob.err != nil {
			t.Errorf("who is below: ended %t, %v; want the set", bob.ended(), bob.err)
		}
	})
}

// Behind a change that hangs nothing else is begun for the lock, not even by the request
// that came upon it: here one that found a grant to be undone first.
func TestNothingOnTopOfWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &pendingStore{hookedStore: open(t)}
		m := manage(t, store)
		alice := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		ctx, leave := context.WithCancel(t.Context())
		bob := lockSoon(ctx, m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		store.beforeCommit.set(func(change *lock.Change) error {
			if change.Lock.Holder == "bob" {
				leave()
				store.gate = make(chan struct{}) // at the end of bob's hold, too
				return nil
			}
			_, err := store.Store.Commit(t.Context(), []lock.Change{{Type: lock.Unlocked, Cause: lock.File, Prev: alice.Revision, Lock: alice}})
			return err
		})
		began := time.Now()
		_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "alice", Overwrite: true})
		if took := time.Since(began); !errors.Is(err, lock.ErrReadOnly) || took > 30*time.Second {
			t.Errorf("got error %v after %v, want %v when the first change has hung for 30 s", err, took, lock.ErrReadOnly)
		}
		store.beforeCommit.remove()
		store.letGo()
		if !bob.ended() || bob.err == nil {
			t.Errorf("who left: ended %t, %v", bob.ended(), bob.err)
		}
		if left := whatIsLeft(t, m, store.Store); left != "" {
			t.Error(left)
		}
	})
}
