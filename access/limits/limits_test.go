package limits

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

var (
	alice   = lock.Caller{Name: "unix:alice", Peer: "/run/pylok/pylok.sock"}
	bob     = lock.Caller{Name: "token:bob", Peer: "192.0.2.7"}
	far     = lock.Caller{Peer: "192.0.2.1"}
	farther = lock.Caller{Name: lock.Anonymous, Peer: "192.0.2.2"}
)

// limited returns limits before a Manager on an empty store, in a bubble.
func limited(t testing.TB, config Config) (*Limits, *memstore.Store) {
	store := memstore.New(memstore.Config{})
	return on(t, store, config), store
}

func on(t testing.TB, store lock.Store, config Config) *Limits {
	t.Helper()
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l := New(m, config)
	t.Cleanup(func() {
		m.Close()
		l.Close()
	})
	return l
}

// bubble runs a test whose time is its own.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func name(i int) lock.Name {
	n, err := lock.ParseName(fmt.Sprintf("n/%d", i))
	if err != nil {
		panic(err)
	}
	return n
}

func mustLock(t testing.TB, l *Limits, who lock.Caller, request lock.LockRequest) lock.Lock {
	t.Helper()
	grant, err := l.Lock(t.Context(), who, request)
	if err != nil {
		t.Fatalf("locking %s: %v", request.Name, err)
	}
	return grant.Lock
}

// refusal fails unless err is a refusal for the reason, whose message names the caller.
func refusal(t testing.TB, err error, reason lock.Reason, says string) *lock.Error {
	t.Helper()
	refused, ok := errors.AsType[*lock.Error](err)
	if !ok || refused.Reason != reason || !strings.Contains(refused.Message, says) {
		t.Fatalf("got %v, want %v that says %q", err, reason, says)
	}
	return refused
}

// expire ends a hold, if there is one, as the end of its lease does.
func expire(t testing.TB, store lock.Store, n lock.Name) {
	held, err := store.Get(context.Background(), n)
	if err == nil {
		_, err = store.Commit(context.Background(), []lock.Change{{Type: lock.Unlocked, Cause: lock.Expired, Prev: held.Revision, Lock: held}})
	}
	if err != nil && !errors.Is(err, lock.ErrNotLocked) && !errors.Is(err, lock.ErrConflict) {
		t.Error(err)
	}
}

func TestKey(t *testing.T) {
	for _, test := range []struct {
		a, b lock.Caller
		same bool
	}{
		{lock.Caller{Peer: "192.0.2.1"}, lock.Caller{Peer: "192.0.2.1"}, true},
		{lock.Caller{Peer: "192.0.2.1"}, lock.Caller{Peer: "192.0.2.2"}, false},
		{lock.Caller{Peer: "192.0.2.1"}, lock.Caller{Name: lock.Anonymous, Peer: "192.0.2.1"}, true},
		{lock.Caller{Peer: "192.0.2.1"}, lock.Caller{Peer: "::ffff:192.0.2.1"}, true},
		{lock.Caller{Peer: "2001:db8:0:1::1"}, lock.Caller{Peer: "2001:db8:0:1:ffff::2"}, true},
		{lock.Caller{Peer: "2001:db8:0:1::1"}, lock.Caller{Peer: "2001:db8:0:2::1"}, false},
		{lock.Caller{Peer: "fe80::1%eth0"}, lock.Caller{Peer: "fe80::2%eth1"}, true},
		{lock.Caller{Name: "token:ci", Peer: "192.0.2.1"}, lock.Caller{Name: "token:ci", Peer: "192.0.2.2"}, true},
		{lock.Caller{Name: "token:ci", Peer: "192.0.2.1"}, lock.Caller{Peer: "192.0.2.1"}, false},
		{lock.Caller{Name: "/run/s"}, lock.Caller{Peer: "/run/s"}, false},
		{lock.Caller{}, lock.Caller{Name: lock.Anonymous}, true},
	} {
		a, _ := keyOf(&test.a)
		b, _ := keyOf(&test.b)
		if got := a == b; got != test.same {
			t.Errorf("%+v and %+v are one caller: %v, want %v", test.a, test.b, got, test.same)
		}
	}
	for peer, want := range map[string]bool{"192.0.2.1": true, "2001:db8::1": true, "127.0.0.1": false, "127.8.0.1": false, "::1": false, "::ffff:127.0.0.1": false, "/run/s": false, "": false} {
		if _, got := keyOf(&lock.Caller{Peer: peer}); got != want {
			t.Errorf("%q is on another machine: %v, want %v", peer, got, want)
		}
	}
}

// Who asks too often is refused until it may again; others are not, nor who is on this
// machine, nor the renewals and releases of what the caller holds.
func TestRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{Rate: 10, Burst: 5})
		held := mustLock(t, l, far, lock.LockRequest{Name: name(1), TTL: time.Minute})
		status := func(who lock.Caller) error {
			_, err := l.Status(t.Context(), who, name(1))
			return err
		}
		for range 4 {
			if err := status(far); err != nil {
				t.Fatal(err)
			}
		}
		refused := refusal(t, status(far), lock.ErrRateLimited, "anonymous at 192.0.2.1")
		if refused.RetryAfter != 100*time.Millisecond {
			t.Errorf("to be asked again after %v, want 100ms", refused.RetryAfter)
		}
		refusal(t, l.Admit(far), lock.ErrRateLimited, "anonymous at 192.0.2.1") // of what goes past the locks
		if err := l.Admit(farther); err != nil {
			t.Errorf("of another: %v", err)
		}
		for range 1000 { // to be refused must not put it off
			refusal(t, status(far), lock.ErrRateLimited, "")
		}
		for _, who := range []lock.Caller{farther, bob, alice, {Peer: "127.0.0.1"}, {Peer: "::1"}} {
			if err := status(who); err != nil {
				t.Errorf("%v: %v", who, err)
			}
		}
		for range 100 {
			if err := status(alice); err != nil {
				t.Fatalf("on this machine: %v", err)
			}
		}

		_, err := l.Renew(t.Context(), far, lock.RenewRequest{Name: name(1), Token: held.Token + 1})
		refusal(t, err, lock.ErrRateLimited, "") // not what it holds
		if _, err := l.Renew(t.Context(), far, lock.RenewRequest{Name: name(1), Token: held.Token}); err != nil {
			t.Errorf("the renewal of a hold: %v", err)
		}
		if _, err := l.Unlock(t.Context(), far, lock.UnlockRequest{Name: name(1), Token: held.Token}); err != nil {
			t.Errorf("the release of a hold: %v", err)
		}

		time.Sleep(refused.RetryAfter)
		if err := status(far); err != nil {
			t.Errorf("after the time that the refusal says: %v", err)
		}
		refusal(t, status(far), lock.ErrRateLimited, "")
		if got := l.Stats().Refused.Rate; got != 1004 {
			t.Errorf("%d refusals are counted, want 1004", got)
		}
	})
}

// The waits of a caller are bounded, in number and in bytes, and each ends with its call.
func TestWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{MaxWaits: 2, MaxWaitingBytes: 200})
		held := mustLock(t, l, bob, lock.LockRequest{Name: name(1)})
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := l.Lock(ctx, alice, lock.LockRequest{Name: name(1), Wait: time.Hour})
				ended <- err
			}()
		}
		synctest.Wait()
		_, err := l.Lock(t.Context(), alice, lock.LockRequest{Name: name(1), Wait: time.Hour})
		refusal(t, err, lock.ErrTooManyWaiters, "unix:alice")
		_, err = l.Lock(t.Context(), alice, lock.LockRequest{Name: name(1)})
		refusal(t, err, lock.ErrLockHeld, "") // it does not wait
		data, err := lock.NewData(map[string]any{"msg": strings.Repeat("x", 200)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Lock(t.Context(), bob, lock.LockRequest{Name: name(1), Wait: time.Hour, Data: data})
		refusal(t, err, lock.ErrTooManyWaiters, "token:bob that wait for locks have 0 bytes")
		if open := l.Stats().Open; open.Waits != 2 || open.WaitingBytes != 6 || open.Calls != 2 {
			t.Errorf("open: %+v, want 2 waits with 6 bytes", open)
		}
		leave()
		<-ended
		<-ended
		if open := l.Stats().Open; open.Waits != 0 || open.WaitingBytes != 0 || open.Calls != 0 {
			t.Errorf("open: %+v, want no waits", open)
		}
		if _, err := l.Unlock(t.Context(), bob, lock.UnlockRequest{Name: name(1), Token: held.Token}); err != nil {
			t.Fatal(err)
		}
		mustLock(t, l, alice, lock.LockRequest{Name: name(1), Wait: time.Hour})
		if got := l.Stats().Refused.Waits; got != 2 {
			t.Errorf("%d refusals are counted, want 2", got)
		}
	})
}

// watching begins a watch, which ends when its context does; it returns what it failed
// with, or nil once it watches.
func watching(ctx context.Context, l *Limits, who lock.Caller) error {
	failed := make(chan error, 1)
	go func() {
		for _, err := range l.Watch(ctx, who, lock.WatchRequest{}) {
			select {
			case failed <- err:
			default:
			}
		}
	}()
	synctest.Wait()
	return <-failed
}

// The watches of a caller are bounded, and those of all.
func TestWatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{MaxWatches: 2, MaxWatchesTotal: 3})
		ctx, leave := context.WithCancel(t.Context())
		for _, who := range []lock.Caller{alice, alice} {
			if err := watching(ctx, l, who); err != nil {
				t.Fatal(err)
			}
		}
		refusal(t, watching(ctx, l, alice), lock.ErrTooManyWatches, "unix:alice has 2 watches")
		if err := watching(t.Context(), l, bob); err != nil {
			t.Fatal(err)
		}
		refusal(t, watching(ctx, l, bob), lock.ErrTooManyWatches, "3 watches are open")
		if stats := l.Stats(); stats.Open.Watches != 3 || stats.Refused.Watches != 2 {
			t.Errorf("%+v, want 3 open and 2 refused", stats)
		}
		leave()
		synctest.Wait()
		if err := watching(t.Context(), l, alice); err != nil {
			t.Errorf("when others have ended: %v", err)
		}
		if open := l.Stats().Open; open.Watches != 2 || open.Calls != 2 {
			t.Errorf("open: %+v, want 2 watches", open)
		}
	})
}

// gated are Locks whose scans end when they are told to.
type gated struct {
	lock.Locks
	end chan struct{}
}

func (g *gated) History(ctx context.Context, _ lock.Caller, _ lock.HistoryQuery, _ lock.Revision, _ int) (page lock.HistoryPage, err error) {
	select {
	case <-g.end:
	case <-ctx.Done():
	}
	return page, ctx.Err()
}

func (g *gated) List(ctx context.Context, _ lock.Caller, _ lock.Pattern, _ lock.Name, _ int) (page []lock.Lock, revision lock.Revision, more bool, err error) {
	_, err = g.History(ctx, lock.Caller{}, lock.HistoryQuery{}, 0, 1)
	return nil, 0, false, err
}

func (g *gated) Watch(ctx context.Context, _ lock.Caller, _ lock.WatchRequest) iter.Seq2[lock.Event, error] {
	return func(yield func(lock.Event, error) bool) {
		<-ctx.Done()
		yield(lock.Event{}, ctx.Err())
	}
}

// Of one caller only so many calls of List and History work at a time; those beyond wait,
// and others' do not wait for them.
func TestScans(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner := &gated{end: make(chan struct{})}
		l := New(inner, Config{MaxScans: 2, MaxCalls: 4})
		defer l.Close()
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error, 10)
		scan := func(who lock.Caller, history bool) {
			go func() {
				var err error
				if history {
					_, err = l.History(ctx, who, lock.HistoryQuery{}, 0, 1)
				} else {
					_, _, _, err = l.List(ctx, who, lock.Pattern{}, lock.Name{}, 1)
				}
				ended <- err
			}()
			synctest.Wait()
		}
		scan(far, true)
		scan(far, false)
		scan(far, true)
		scan(far, false)
		if open := l.Stats().Open; open.Scans != 2 || open.Calls != 4 {
			t.Errorf("open: %+v, want 2 scans of 4 calls", open)
		}
		_, err := l.History(ctx, far, lock.HistoryQuery{}, 0, 1)
		if refused := refusal(t, err, lock.ErrRateLimited, "anonymous at 192.0.2.1 has 4 calls open"); refused.RetryAfter <= 0 {
			t.Error("the refusal does not say when to ask again")
		}
		scan(farther, true)
		if open := l.Stats().Open; open.Scans != 3 {
			t.Errorf("open: %+v, want 3 scans", open)
		}
		inner.end <- struct{}{}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if open := l.Stats().Open; open.Scans != 3 || open.Calls != 4 {
			t.Errorf("open: %+v, want 3 scans of 4 calls", open)
		}
		leave()
		synctest.Wait()
		if open := l.Stats().Open; open.Scans != 0 || open.Calls != 0 {
			t.Errorf("open: %+v, want none", open)
		}
	})
}

// The holds of a caller are bounded however they begin and end.
func TestHolds(t *testing.T) {
	for _, who := range []lock.Caller{alice, far, {}} {
		k, _ := keyOf(&who)
		t.Run(k.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l, store := limited(t, Config{MaxHolds: 2})
				lockOne := func(i int) error {
					_, err := l.Lock(t.Context(), who, lock.LockRequest{Name: name(i)})
					synctest.Wait()
					return err
				}
				full := func(after string) {
					t.Helper()
					synctest.Wait()
					refused := refusal(t, lockOne(9), lock.ErrTooManyLocks, k.String()+" holds 2 locks, the most that one caller may")
					if stats := l.Stats(); stats.Open.Holds != 3 {
						t.Errorf("%s: %+v, want 3 holds; %v", after, stats, refused)
					}
				}
				mustLock(t, l, bob, lock.LockRequest{Name: name(0)})
				leased := mustLock(t, l, who, lock.LockRequest{Name: name(1), TTL: time.Minute, Holder: "me"})
				mustLock(t, l, who, lock.LockRequest{Name: name(2), RequestID: "again"})
				full("two grants")

				mustLock(t, l, who, lock.LockRequest{Name: name(2), RequestID: "again"})
				full("a request that was sent again")
				leased = mustLock(t, l, who, lock.LockRequest{Name: name(1), TTL: time.Minute, Holder: "me", Overwrite: true})
				full("its own hold overwritten")
				_, err := l.Lock(t.Context(), who, lock.LockRequest{Name: name(0), Overwrite: true})
				refusal(t, err, lock.ErrTooManyLocks, "")

				if _, err := l.Unlock(t.Context(), who, lock.UnlockRequest{Name: name(1), Token: leased.Token}); err != nil {
					t.Fatal(err)
				}
				mustLock(t, l, who, lock.LockRequest{Name: name(3)})
				full("a release")
				expire(t, store, name(3))
				synctest.Wait()
				if err := lockOne(4); err != nil {
					t.Errorf("when a lease has run out: %v", err)
				}
				full("a lease that ran out")
				if _, err := l.Unlock(t.Context(), bob, lock.UnlockRequest{Name: name(4), Force: true, Reason: "a test"}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if err := lockOne(5); err != nil {
					t.Errorf("when a hold was broken: %v", err)
				}
				full("a break")
			})
		})
	}
}

// Many requests at once are no way around the limit.
func TestHoldsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{MaxHolds: 10})
		var requests sync.WaitGroup
		for i := range 200 {
			requests.Go(func() { l.Lock(t.Context(), far, lock.LockRequest{Name: name(i)}) })
		}
		requests.Wait()
		if held := l.holds.count(); held != 10 {
			t.Errorf("%d are held, want 10", held)
		}
	})
}

// Holds from before a start count for the callers that they name.
func TestHoldsFromBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		for i, caller := range []string{alice.Name, alice.Name, ""} {
			change := lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: name(i), Caller: caller}}
			if _, err := store.Commit(t.Context(), []lock.Change{change}); err != nil {
				t.Fatal(err)
			}
		}
		l := on(t, store, Config{MaxHolds: 3, Rate: 1})
		synctest.Wait()
		mustLock(t, l, alice, lock.LockRequest{Name: name(7)})
		_, err := l.Lock(t.Context(), alice, lock.LockRequest{Name: name(8)})
		refusal(t, err, lock.ErrTooManyLocks, "unix:alice holds 3")

		// Whoever it was of the anonymous, its renewals must go on.
		mustLock(t, l, far, lock.LockRequest{Name: name(9)})
		_, err = l.Status(t.Context(), far, name(2))
		refusal(t, err, lock.ErrRateLimited, "")
		held, err := store.Get(t.Context(), name(2))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Renew(t.Context(), far, lock.RenewRequest{Name: name(2), Token: held.Token, TTL: time.Minute}); err != nil {
			t.Errorf("the renewal of a hold from before: %v", err)
		}
	})
}

// However calls and events run across each other, in the end nothing is left that counts.
func TestNothingIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, store := limited(t, Config{Rate: 1e6, MaxCalls: 50, MaxWaits: 20, MaxWatches: 5, MaxScans: 3, MaxHolds: 4})
		var work sync.WaitGroup
		for i := range 40 {
			work.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				who := []lock.Caller{alice, bob, far, farther}[i%4]
				for range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(500))*time.Millisecond)
					n := name(random.IntN(10))
					switch random.IntN(6) {
					case 0:
						for range l.Watch(ctx, who, lock.WatchRequest{}) {
						}
					case 1:
						l.History(ctx, who, lock.HistoryQuery{}, 0, 10)
					case 2:
						expire(t, store, n)
					default:
						request := lock.LockRequest{Name: n, Overwrite: random.IntN(4) == 0}
						if random.IntN(2) == 0 {
							request.Wait = time.Second
						}
						grant, err := l.Lock(ctx, who, request)
						if err == nil && random.IntN(2) == 0 {
							l.Unlock(ctx, who, lock.UnlockRequest{Name: n, Token: grant.Lock.Token})
						}
					}
					cancel()
				}
			})
		}
		work.Wait()
		for i := range 10 {
			expire(t, store, name(i))
		}
		time.Sleep(2 * time.Minute) // callers are forgotten
		synctest.Wait()
		if stats := l.Stats(); stats.Open != (Open{}) {
			t.Errorf("%+v, want nothing open", stats)
		}
		if l.callers.rest.uses != 0 {
			t.Errorf("the rest has %d uses", l.callers.rest.uses)
		}
	})
}

// failing are Locks whose watches begin with one that fails.
type failing struct {
	lock.Locks
	watches int
}

func (f *failing) Watch(ctx context.Context, who lock.Caller, request lock.WatchRequest) iter.Seq2[lock.Event, error] {
	f.watches++
	if f.watches == 1 {
		return func(yield func(lock.Event, error) bool) { yield(lock.Event{}, errors.New("input/output error")) }
	}
	return f.Locks.Watch(ctx, who, request)
}

// Holds that end while they cannot be followed do not count for ever.
func TestFollowingFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		m, err := manager.New(store, manager.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		l := New(m, Config{MaxHolds: 1, Follow: &failing{Locks: m}})
		defer l.Close()
		synctest.Wait()
		mustLock(t, l, alice, lock.LockRequest{Name: name(1)})
		expire(t, store, name(1))
		_, err = l.Lock(t.Context(), alice, lock.LockRequest{Name: name(2)})
		refusal(t, err, lock.ErrTooManyLocks, "")
		time.Sleep(time.Minute)
		mustLock(t, l, alice, lock.LockRequest{Name: name(2)})
	})
}

// A flood of addresses costs bounded memory, and neither resets a limit that is in use nor
// takes anything from those that are known.
func TestManyCallers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const most = 4 * shardCount
		l, _ := limited(t, Config{Rate: 10, Burst: 2, MaxHolds: 1, MaxCallers: most})
		used := func(who lock.Caller) {
			t.Helper()
			_, err := l.Lock(t.Context(), who, lock.LockRequest{Name: name(99)})
			if !errors.Is(err, lock.ErrRateLimited) && !errors.Is(err, lock.ErrTooManyLocks) {
				t.Errorf("%v is as new: %v", who, err)
			}
		}
		mustLock(t, l, bob, lock.LockRequest{Name: name(1)})
		mustLock(t, l, far, lock.LockRequest{Name: name(2)})
		flood := func(n int) (refused int) {
			for i := range n {
				who := lock.Caller{Peer: fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)}
				if _, err := l.Status(t.Context(), who, name(1)); err != nil {
					refusal(t, err, lock.ErrRateLimited, "all beyond the 128 callers")
					refused++
				}
			}
			return refused
		}
		if refused := flood(10_000); refused < 9_000 {
			t.Errorf("of 10,000 new addresses at once %d are refused", refused)
		}
		if known := l.Stats().Open.Callers; known > most {
			t.Errorf("%d callers are told apart, want at most %d", known, most)
		}
		used(bob)
		used(far)
		for range 10 {
			time.Sleep(2 * time.Second)
			flood(1000)
			used(bob)
			used(far)
		}
		time.Sleep(2 * time.Minute)
		if known := l.Stats().Open.Callers; known != 2 {
			t.Errorf("%d callers are told apart when the flood is over, want 2", known)
		}
		for i := range 20 { // others have room again
			who := lock.Caller{Peer: fmt.Sprintf("198.51.100.%d", i)}
			if _, err := l.Status(t.Context(), who, name(1)); err != nil {
				t.Error(err)
			}
		}
	})
}

// Without limits nothing is refused, and all is counted.
func TestNoLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{})
		for i := range 1000 {
			mustLock(t, l, far, lock.LockRequest{Name: name(i), Wait: time.Second})
		}
		synctest.Wait()
		if stats := l.Stats(); stats.Open != (Open{Holds: 1000, Callers: 1}) || stats.Refused != (Refused{}) {
			t.Errorf("%+v", stats)
		}
	})
}

// A rate that is in use is not forgotten to make room for others.
func TestRateIsNotForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := limited(t, Config{Rate: 1, Burst: 2, MaxCallers: shardCount})
		ask := func(who lock.Caller) error {
			_, err := l.Status(t.Context(), who, name(1))
			return err
		}
		for ask(far) == nil {
		}
		for i := range 1000 {
			ask(lock.Caller{Peer: fmt.Sprintf("2001:db8:%x::1", i)})
		}
		refusal(t, ask(far), lock.ErrRateLimited, "anonymous at 192.0.2.1 ")
	})
}

// A hold that was released before the events told of it does not count when they do.
func TestReleaseBeforeItsEvent(t *testing.T) {
	h := holds{callers: newCallers(1000), by: make(map[lock.Token]*caller), released: make(map[lock.Token]bool)}
	c := h.callers.use(key{name: alice.Name, proved: true})
	defer c.leave()
	var fresh map[lock.Token]bool
	granted := lock.Lock{Name: name(1), Token: 5, Revision: 5, Caller: alice.Name}
	h.asked(c, 0, 5)
	if c.holds != 1 {
		t.Fatalf("%d holds after a grant", c.holds)
	}
	h.ended(5)
	h.hear(lock.Event{Type: lock.Locked, Revision: 5, Lock: granted}, &fresh)
	if c.holds != 0 {
		t.Errorf("%d holds when the grant is told that was released, want none", c.holds)
	}
	h.hear(lock.Event{Type: lock.Unlocked, Revision: 6, Lock: granted}, &fresh)
	h.asked(c, 0, 5) // an answer that comes late
	if c.holds != 0 || len(h.by) != 0 || len(h.released) != 0 {
		t.Errorf("%d holds, %v, %v, want none", c.holds, h.by, h.released)
	}
}
