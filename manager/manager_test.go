package manager_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// The tests of this file run in bubbles of testing/synctest: time is virtual, and
// synctest.Wait waits until every other goroutine waits for something.

var nameA = lock.MustParseName("lb/a")

// open returns an empty store, which is closed at the end of the test.
func open(t *testing.T) *hookedStore {
	store := &hookedStore{Store: memstore.New(memstore.Config{})}
	t.Cleanup(func() { store.Close() })
	return store
}

// manage starts a Manager whose leases run on the bubble's time.
func manage(t *testing.T, store lock.Store) *manager.Manager {
	t.Helper()
	started := time.Now()
	return manageBy(t, store, func() time.Duration { return time.Since(started) })
}

// manageBy starts a Manager whose leases run on a given clock.
func manageBy(t *testing.T, store lock.Store, clock func() time.Duration) *manager.Manager {
	t.Helper()
	return manageWith(t, store, manager.Config{}.WithBoottime(clock))
}

// manageWith starts a Manager that is set up in a way of its own.
func manageWith(t *testing.T, store lock.Store, config manager.Config) *manager.Manager {
	t.Helper()
	m, err := manager.New(store, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// hookedStore lets a test step into a store.
type hookedStore struct {
	lock.Store
	afterGet     hook[func()]
	beforeCommit hook[func(change *lock.Change) error]
	beforeEvents hook[func() error]
}

// hook is a function that a test may set at any time.
type hook[F any] struct{ f atomic.Pointer[F] }

func (h *hook[F]) set(f F) { h.f.Store(&f) }

func (h *hook[F]) remove() { h.f.Store(nil) }

func (s *hookedStore) Get(ctx context.Context, name lock.Name) (lock.Lock, error) {
	l, err := s.Store.Get(ctx, name)
	if f := s.afterGet.f.Load(); f != nil {
		(*f)()
	}
	return l, err
}

func (s *hookedStore) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	for i := range changes {
		if f := s.beforeCommit.f.Load(); f != nil {
			if err := (*f)(&changes[i]); err != nil {
				return nil, err
			}
		}
	}
	return s.Store.Commit(ctx, changes, guards...)
}

func (s *hookedStore) Events(ctx context.Context, p lock.Pattern, after lock.Revision, wait time.Duration) ([]lock.Event, lock.Revision, error) {
	if f := s.beforeEvents.f.Load(); f != nil {
		if err := (*f)(); err != nil {
			return nil, after, err
		}
	}
	return s.Store.Events(ctx, p, after, wait)
}

// others commits a change to lb/a behind the Manager's back.
func (s *hookedStore) others(t *testing.T, kind lock.EventType) {
	t.Helper()
	l, err := s.Store.Get(t.Context(), nameA)
	if err != nil && !errors.Is(err, lock.ErrNotLocked) {
		t.Error(err)
	}
	l.Name = nameA
	if _, err := s.Store.Commit(t.Context(), []lock.Change{{Type: kind, Cause: lock.File, Prev: l.Revision, Lock: l}}); err != nil {
		t.Error(err)
	}
}

func mustLock(t *testing.T, m *manager.Manager, r lock.LockRequest) lock.Lock {
	t.Helper()
	grant, err := m.Lock(t.Context(), lock.Caller{}, r)
	if err != nil {
		t.Fatalf("Lock of %v by %q: %v", r.Name, r.Holder, err)
	}
	return grant.Lock
}

func revision(t *testing.T, m *manager.Manager) lock.Revision {
	t.Helper()
	revision, err := m.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func status(t *testing.T, m *manager.Manager, name lock.Name) lock.Lock {
	t.Helper()
	l, err := m.Status(t.Context(), lock.Caller{}, name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// lockSoon calls Lock in the background and waits until that waits.
func lockSoon(ctx context.Context, m *manager.Manager, r lock.LockRequest) *pending {
	p := &pending{}
	go func() {
		p.grant, p.err = m.Lock(ctx, lock.Caller{}, r)
		p.done.Store(true)
	}()
	synctest.Wait()
	return p
}

// pending is a call of Lock in the background.
type pending struct {
	grant lock.Grant
	err   error
	done  atomic.Bool
}

// ended reports whether the call has returned when everything waits.
func (p *pending) ended() bool {
	synctest.Wait()
	return p.done.Load()
}

// A lock that others free just after a request saw it held, and before the request
// stands in line, is granted to it.
func TestFreedBetweenLookAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		store.afterGet.set(func() {
			store.afterGet.remove()
			store.others(t, lock.Unlocked)
			synctest.Wait() // until the Manager has heard of it
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := m.Lock(ctx, lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour}); err != nil {
			t.Errorf("the request waits for a free lock: %v", err)
		}
	})
}

// A waiter that leaves while it is being granted the lock is let go, although the
// grant comes to nothing because others were faster.
func TestLeaveDuringConflict(t *testing.T) {
	for _, leave := range []string{"cancel", "deadline"} {
		synctest.Test(t, func(t *testing.T) {
			store := open(t)
			m := manage(t, store)
			mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			bob := lockSoon(ctx, m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
			carol := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "carol", Wait: 24 * time.Hour})
			left := make(chan struct{})
			store.beforeCommit.set(func(change *lock.Change) error {
				if change.Lock.Holder != "bob" {
					return nil
				}
				store.beforeCommit.remove()
				store.others(t, lock.Locked)
				if leave == "cancel" {
					cancel()
				} else {
					time.Sleep(time.Hour)
				}
				synctest.Wait() // until bob wants to leave
				close(left)
				return nil
			})
			store.others(t, lock.Unlocked) // so that bob's grant comes alone
			<-left
			want := error(context.Canceled)
			if leave == "deadline" {
				want = lock.ErrLockHeld
			}
			if !bob.ended() || !errors.Is(bob.err, want) {
				t.Errorf("%s: the waiter that left: ended %v, %v; want %v", leave, bob.done.Load(), bob.err, want)
			}
			if got := status(t, m, nameA); got.Waiters != 1 || got.Holder != "" {
				t.Errorf("%s: the lock is %+v, want the others' with one waiter", leave, got)
			}
			store.others(t, lock.Unlocked)
			if !carol.ended() || carol.err != nil {
				t.Errorf("%s: the next waiter was not granted the lock: %v", leave, carol.err)
			}
		})
	}
}

// A hold that others end just as its holder does, or as its lease runs out, is over; the
// next in line is granted the lock once, and keeps it, although the request to unlock
// would fit its hold too.
func TestEndedByOthersMeanwhile(t *testing.T) {
	for _, end := range []string{"unlock", "expiry", "renew"} {
		synctest.Test(t, func(t *testing.T) {
			store := open(t)
			m := manage(t, store)
			held := mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Minute})
			bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Wait: time.Hour})
			store.beforeCommit.set(func(*lock.Change) error {
				store.beforeCommit.remove()
				store.others(t, lock.Unlocked)
				return nil
			})
			switch end {
			case "unlock":
				if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA}); !errors.Is(err, lock.ErrNotLocked) {
					t.Errorf("Unlock: got %v, want %v", err, lock.ErrNotLocked)
				}
			case "renew":
				time.Sleep(time.Minute) // it wakes no later than the lease's end
				if _, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token}); !errors.Is(err, lock.ErrNotHolder) {
					t.Errorf("Renew: got %v, want %v", err, lock.ErrNotHolder)
				}
			default:
				time.Sleep(2 * time.Minute)
			}
			if !bob.ended() || bob.err != nil {
				t.Fatalf("%s: the waiter: ended %v, %v; want the lock", end, bob.done.Load(), bob.err)
			}
			time.Sleep(time.Hour) // what is to come of it has come
			if got := status(t, m, nameA); got.Token != bob.grant.Lock.Token {
				t.Errorf("%s: the lock is %+v, want the hold that was granted, with token %d", end, got, bob.grant.Lock.Token)
			}
		})
	}
}

// A grant whose caller leaves before it is told is undone although somebody edits the
// fresh lock file, again and again.
func TestUndoOfAnEditedGrant(t *testing.T) {
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprintf("waits %t", waits), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := open(t)
				m := manage(t, store)
				if waits {
					mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				edits := 3
				store.beforeCommit.set(func(change *lock.Change) error {
					switch {
					case change.Lock.Holder != "bob":
					case change.Type == lock.Locked:
						cancel()
					case change.Type == lock.Unlocked && edits > 0:
						edits--
						store.others(t, lock.Updated)
					}
					return nil
				})
				bob := lockSoon(ctx, m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
				if waits {
					if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"}); err != nil {
						t.Fatal(err)
					}
				}
				if !bob.ended() || !errors.Is(bob.err, context.Canceled) || edits > 0 {
					t.Errorf("ended %t, error %v, %d edits to come; want %v after all", bob.done.Load(), bob.err, edits, context.Canceled)
				}
				if got := status(t, m, nameA); got.Held() {
					t.Errorf("the hold of the caller who left stands: %+v", got)
				}
			})
		})
	}
}

// A waiter whom the store refuses is told so, and the lock goes to the one behind.
func TestWaiterRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		carol := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "carol", Wait: time.Hour})
		store.beforeCommit.set(func(change *lock.Change) error {
			if change.Lock.Holder == "bob" {
				return lock.ErrDataTooLarge
			}
			return nil
		})
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"}); err != nil {
			t.Errorf("Unlock: %v", err)
		}
		if !bob.ended() || !errors.Is(bob.err, lock.ErrDataTooLarge) {
			t.Errorf("the waiter: ended %v, %v; want %v", bob.done.Load(), bob.err, lock.ErrDataTooLarge)
		}
		if !carol.ended() || carol.err != nil {
			t.Errorf("the waiter behind: ended %v, %v; want the lock", carol.done.Load(), carol.err)
		}
	})
}

// A request that is sent again while it waits keeps its place when its first sending
// is canceled, and loses it with the last.
func TestWaitAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		bob := lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour, RequestID: "r1"}
		ctx, cancel := context.WithCancel(t.Context())
		first := lockSoon(ctx, m, bob)
		carol := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "carol", Wait: time.Hour})
		again, cancelAgain := context.WithCancel(t.Context())
		second := lockSoon(again, m, bob)
		third := lockSoon(t.Context(), m, bob)
		if got := status(t, m, nameA).Waiters; got != 2 {
			t.Errorf("%d wait, want 2: bob and carol", got)
		}
		cancel()
		cancelAgain()
		if !first.ended() || !second.ended() || third.ended() || carol.ended() {
			t.Errorf("ended: first %v, second %v, third %v, carol %v; want the first two", first.done.Load(), second.done.Load(), third.done.Load(), carol.done.Load())
		}
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
			t.Fatal(err)
		}
		if !third.ended() || third.err != nil || third.grant.Lock.Holder != "bob" {
			t.Errorf("the third sending: %+v, %v; want it granted", third.grant, third.err)
		}
		if carol.ended() {
			t.Errorf("carol passed bob: %+v, %v", carol.grant, carol.err)
		}
	})
}

// A wait ends when it has run out, says so, and is not granted a lock that becomes
// free in that very moment.
func TestWaitRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		began := time.Now()
		_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "bob", Wait: 5 * time.Minute})
		if waited := time.Since(began); waited != 5*time.Minute || !errors.Is(err, lock.ErrLockHeld) || !strings.Contains(err.Error(), "after waiting 5m0s") {
			t.Errorf("a wait of 5 minutes ended after %v with %v", waited, err)
		}
		for i := range 50 {
			bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Second})
			time.Sleep(time.Second)
			if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
				t.Fatal(err)
			}
			if !bob.ended() || !errors.Is(bob.err, lock.ErrLockHeld) {
				t.Fatalf("round %d: ended %v, %v; want %v", i, bob.done.Load(), bob.err, lock.ErrLockHeld)
			}
			held = mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		}
	})
}

func TestGrantSaysHowLongItWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice", TTL: 90 * time.Second})
		grant, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
		if err != nil || grant.Queued != 90*time.Second || grant.Lock.Holder != "bob" {
			t.Errorf("got %+v, %v; want a grant queued for 90 s", grant, err)
		}
	})
}

// Two Managers on one store never hold the same lock, by the store's
// compare-and-swap alone: on a store without it they do, and the test sees it.
func TestCompareAndSwapGuards(t *testing.T) {
	for _, broken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := open(t)
			m := manage(t, store)
			other := manage(t, store.Store)
			var bob error
			store.beforeCommit.set(func(change *lock.Change) error {
				store.beforeCommit.remove()
				_, bob = other.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "bob"})
				if broken {
					l, err := store.Store.Get(t.Context(), nameA)
					change.Prev = l.Revision
					return err
				}
				return nil
			})
			_, alice := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "alice"})
			both := alice == nil && bob == nil
			if both != broken || bob != nil {
				t.Errorf("compare-and-swap broken %v: alice got %v, bob %v", broken, alice, bob)
			}
			if !broken {
				var refusal *lock.Error
				if !errors.As(alice, &refusal) || refusal.Lock == nil || refusal.Lock.Holder != "bob" {
					t.Errorf("alice got %v, want a refusal with bob's hold", alice)
				}
			}
		})
	}
}

// A quiet watch is told how far it is at least every 30 s, and not more often
// because of changes that its pattern does not select.
func TestSyncedOnAQuietWatch(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := manage(t, open(t))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			var writer sync.WaitGroup
			defer writer.Wait()
			if busy {
				writer.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						mustLock(t, m, lock.LockRequest{Name: lock.MustParseName(fmt.Sprint("db/", i))})
						time.Sleep(700 * time.Millisecond)
					}
				})
			}
			last, synced := time.Now(), 0
			revision := lock.Revision(0)
			for event, err := range m.Watch(ctx, lock.Caller{}, lock.WatchRequest{Pattern: lock.MustParsePattern("lb/**")}) {
				switch {
				case err != nil:
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the watch ended with %v", err)
					}
					continue
				case event.Type == lock.Reset:
					continue
				case event.Type != lock.Synced:
					t.Errorf("busy %v: got %+v", busy, event)
				case event.Revision < revision:
					t.Errorf("busy %v: synced at revision %d after %d", busy, event.Revision, revision)
				}
				if quiet := time.Since(last); quiet > 30*time.Second || quiet < 20*time.Second && synced > 0 {
					t.Errorf("busy %v: synced %v after the one before", busy, quiet)
				}
				last, revision = time.Now(), event.Revision
				synced++
			}
			if synced < 10*60/30 {
				t.Errorf("busy %v: synced %d times in 10 minutes", busy, synced)
			}
			if now, err := m.Revision(t.Context()); err != nil || busy && revision+60 < now {
				t.Errorf("the last synced is at revision %d, far behind %d (%v)", revision, now, err)
			}
		})
	}
}

// A Synced comes directly after the past, also to a reader who is slower than the changes.
func TestSyncedForASlowReader(t *testing.T) {
	for _, resumes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := manage(t, open(t))
			made := 0
			change := func() {
				mustLock(t, m, lock.LockRequest{Name: lock.MustParseName(fmt.Sprint("lock-", made))})
				made++
			}
			for range 10 {
				change()
			}
			after, want := lock.Revision(0), "reset locked locked locked locked locked locked locked locked locked locked synced"
			if resumes {
				after, want = 7, "locked locked locked synced"
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []string
			for event, err := range m.Watch(ctx, lock.Caller{}, lock.WatchRequest{After: after}) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, event.Type.String())
				if event.Type == lock.Synced && event.Revision != 10 {
					t.Errorf("resumes %t: synced at revision %d, want 10", resumes, event.Revision)
				}
				if event.Type == lock.Synced || len(got) == 100 {
					break
				}
				if event.Type == lock.Locked { // while one is read, two are made
					change()
					change()
				}
			}
			if got := strings.Join(got, " "); got != want {
				t.Errorf("resumes %t: got %s, want %s", resumes, got, want)
			}
		})
	}
}

// A subscriber that does not read holds up nobody, and begins anew when the store
// has let go of what it missed.
func TestSlowWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		t.Cleanup(func() { store.Close() })
		m := manage(t, store)
		const changes = 10_000 // more than the store keeps
		var types []lock.EventType
		for event, err := range m.Watch(t.Context(), lock.Caller{}, lock.WatchRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			types = append(types, event.Type)
			if len(types) == 2 { // reset, synced
				l := mustLock(t, m, lock.LockRequest{Name: nameA})
				for i := range changes {
					data, err := lock.ParseData(fmt.Appendf(nil, `{"n":%d}`, i))
					if err != nil {
						t.Error(err)
					}
					if _, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: l.Token, Data: &data}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if len(types) == 5 {
				break
			}
		}
		want := []lock.EventType{lock.Reset, lock.Synced, lock.Reset, lock.Locked, lock.Synced}
		if fmt.Sprint(types) != fmt.Sprint(want) {
			t.Errorf("the watch yielded %v, want %v", types, want)
		}
	})
}

// endingStore is a store that is closed as its history is asked for.
type endingStore struct{ lock.Store }

func (endingStore) History(context.Context, lock.HistoryQuery, lock.Revision, int) (lock.HistoryPage, error) {
	return lock.HistoryPage{}, &lock.Error{Reason: lock.ErrShuttingDown}
}

// TestRenewAtTheEnd: who renews a hold that is over while the server stops hears of that, and
// nothing is logged as a fault.
func TestRenewAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		m := manageWith(t, endingStore{open(t)}, manager.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		_, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: 7, TTL: time.Minute})
		if !errors.Is(err, lock.ErrShuttingDown) {
			t.Errorf("Renew: got %v, want %v", err, lock.ErrShuttingDown)
		}
		answers, err := m.RenewSet(t.Context(), lock.Caller{}, lock.RenewSetRequest{Holds: []lock.HoldRef{{Name: nameA, Token: 7}}, TTL: time.Minute})
		if err != nil || !errors.Is(answers[0].Err, lock.ErrShuttingDown) {
			t.Errorf("RenewSet: got %v, %v, want %v", answers, err, lock.ErrShuttingDown)
		}
		if logged.Len() > 0 {
			t.Errorf("logged %s", &logged)
		}
	})
}
