package manager_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// lateness is how long after its deadline a hold may go on.
const lateness = 100 * time.Millisecond

// ends records when holds end, as a watch is told.
type ends map[lock.Token]time.Time

// follow records the end of every hold after a revision in the background.
func (e ends) follow(t *testing.T, m *manager.Manager, after lock.Revision) {
	go func() {
		for event, err := range m.Watch(t.Context(), lock.Caller{}, lock.WatchRequest{After: after}) {
			if err == nil && event.Type == lock.Unlocked {
				e[event.Lock.Token] = time.Now()
				if event.Cause != lock.Expired || event.Actor != event.Lock.Holder {
					t.Errorf("the end of a lease: %+v", event)
				}
			}
		}
	}()
	synctest.Wait()
}

// check says what is wrong with the end of a hold whose deadline is given; zero: it
// has none that matters yet.
func (e ends) check(token lock.Token, deadline time.Time) string {
	synctest.Wait()
	end, ended := e[token]
	switch {
	case ended && (deadline.IsZero() || end.Before(deadline)):
		return "early"
	case !deadline.IsZero() && !ended && time.Since(deadline) >= lateness, ended && end.Sub(deadline) > lateness:
		return "late"
	}
	return ""
}

// TestLeasesEndInTime: no lease ends early, none more than 100 ms late. With a clock
// that goes wrong, the same test sees the one or the other.
func TestLeasesEndInTime(t *testing.T) {
	tests := []struct {
		clock string
		rate  float64
		want  []string
	}{
		{"right", 1, nil},
		{"too fast", 1.01, []string{"early"}},
		{"too slow", 0.95, []string{"late"}},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			started := time.Now()
			m := manageBy(t, open(t), func() time.Duration {
				return time.Duration(float64(time.Since(started)) * test.rate)
			})
			ended := ends{}
			ended.follow(t, m, revision(t, m))
			random := rand.New(rand.NewPCG(1, 2))
			deadlines := map[lock.Token]time.Time{}
			for i := range 300 {
				ttl := 100*time.Millisecond + time.Duration(random.Int64N(int64(time.Minute)))
				if i%10 == 0 {
					ttl = 30 * time.Second // many at the same time
				}
				l := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName(fmt.Sprint("n", i)), TTL: ttl})
				deadlines[l.Token] = time.Now().Add(ttl)
			}
			time.Sleep(2 * time.Minute)
			var problems []string
			for token, deadline := range deadlines {
				if problem := ended.check(token, deadline); problem != "" && !slices.Contains(problems, problem) {
					problems = append(problems, problem)
				}
			}
			if !slices.Equal(problems, test.want) {
				t.Errorf("with a clock that is %s, leases end %q, want %q", test.clock, problems, test.want)
			}
		})
	}
}

func TestExpireTimesEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		ended := ends{}
		ended.follow(t, m, revision(t, m))
		deadlines := map[lock.Token]time.Time{}
		for i := range 200 {
			expire := time.Now().Add(time.Duration(i+1) * 7777777 * time.Microsecond)
			l := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName(fmt.Sprint("n", i)), ExpireTime: expire})
			deadlines[l.Token] = expire
		}
		far := mustLock(t, m, lock.LockRequest{Name: nameA, ExpireTime: time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)})
		time.Sleep(time.Hour)
		for token, deadline := range deadlines {
			if problem := ended.check(token, deadline); problem != "" {
				t.Errorf("the hold until %v ended %s, at %v", deadline, problem, ended[token])
			}
		}
		if got := status(t, m, nameA); got.Token != far.Token {
			t.Error("a hold until the year 2500 has ended")
		}
	})
}

// A day of 1,000 leases that are renewed every third of their ttl; at noon every
// second holder dies.
func TestADayOfLeases(t *testing.T) {
	const leases, ttl, day = 1000, 3 * time.Hour, 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		ended := ends{}
		ended.follow(t, m, revision(t, m))
		random := rand.New(rand.NewPCG(1, 2))
		began := time.Now()
		tokens := make([]lock.Token, leases)
		deadlines := make([]time.Time, leases) // of those that die
		for i := range leases {
			first := time.Duration(random.Int64N(int64(time.Hour)))
			go func() {
				time.Sleep(first)
				name := lock.MustParseName(fmt.Sprint("n", i))
				l := mustLock(t, m, lock.LockRequest{Name: name, TTL: ttl})
				tokens[i] = l.Token
				for deadline := time.Now().Add(ttl); time.Since(began) < day; {
					time.Sleep(ttl / 3)
					if i%2 == 0 && time.Since(began) > day/2 {
						deadlines[i] = deadline
						return
					}
					if _, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: name, Token: l.Token}); err != nil {
						t.Errorf("renewing %v after %v: %v", name, time.Since(began), err)
						return
					}
					deadline = time.Now().Add(ttl)
				}
			}()
		}
		time.Sleep(day)
		for i := range leases {
			if problem := ended.check(tokens[i], deadlines[i]); problem != "" || tokens[i] == 0 {
				t.Errorf("lease %d, to end at %v, ended %s, at %v", i, deadlines[i], problem, ended[tokens[i]])
			}
		}
		if len(ended) != leases/2 {
			t.Errorf("%d leases ended, want %d", len(ended), leases/2)
		}
		time.Sleep(2 * time.Hour) // the goroutines end
	})
}

// From the deadline on a renewal fails with NOT_HOLDER, whether it or the expiry
// comes first.
func TestLateRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		for i := range 100 {
			name := lock.MustParseName(fmt.Sprint("n", i))
			l := mustLock(t, m, lock.LockRequest{Name: name, TTL: time.Second})
			renew := func(data bool) error {
				r := lock.RenewRequest{Name: name, Token: l.Token}
				if data {
					r.Data = &lock.Data{}
				}
				_, err := m.Renew(t.Context(), lock.Caller{}, r)
				return err
			}
			time.Sleep(time.Second - 1)
			if err := renew(i%2 == 0); err != nil {
				t.Fatalf("renewal in the last nanosecond: %v", err)
			}
			time.Sleep(time.Second)
			for _, when := range []string{"at the deadline", "again"} {
				if err := renew(i%2 == 0); !errors.Is(err, lock.ErrNotHolder) {
					t.Fatalf("renewal %s: got %v, want %v", when, err, lock.ErrNotHolder)
				}
			}
			time.Sleep(time.Second)
			if err := renew(false); !errors.Is(err, lock.ErrNotHolder) {
				t.Fatalf("renewal much later: got %v, want %v", err, lock.ErrNotHolder)
			}
		}
	})
}

// A renewal that comes after the deadline and before the Manager has looked at the
// clock, after a suspend, is late all the same, and frees the lock for who waits.
func TestLateRenewalAfterSuspend(t *testing.T) {
	for _, waiter := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			started := time.Now()
			var suspended atomic.Int64
			m := manageBy(t, open(t), func() time.Duration { return time.Since(started) + time.Duration(suspended.Load()) })
			l := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice", TTL: time.Minute})
			var bob *pending
			if waiter {
				bob = lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
			}
			synctest.Wait()
			suspended.Store(int64(time.Hour))
			for range 2 {
				_, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: l.Token})
				if !errors.Is(err, lock.ErrNotHolder) {
					t.Errorf("waiter %v: a late renewal: got %v, want %v", waiter, err, lock.ErrNotHolder)
				}
			}
			if waiter && (!bob.ended() || bob.err != nil) {
				t.Errorf("the waiter was not granted the lock: %v", bob.err)
			}
		})
	}
}

// Ttls run on the boot clock alone, and expire times on the wall clock alone: when
// one of them jumps, the other's holds go on. In a bubble the wall clock cannot be
// set, so the boot clock stands still or jumps instead.
func TestClocksThatJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The wall clock is set forward by an hour.
		started := time.Now()
		var wallAhead atomic.Int64
		m := manageBy(t, open(t), func() time.Duration { return time.Since(started) - time.Duration(wallAhead.Load()) })
		ttl := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("ttl"), TTL: time.Minute})
		wall := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("wall"), ExpireTime: time.Now().Add(time.Minute)})
		synctest.Wait()
		wallAhead.Store(int64(time.Hour))
		time.Sleep(time.Hour)
		if !status(t, m, ttl.Name).Held() {
			t.Error("a ttl ended because the wall clock was set forward")
		}
		if status(t, m, wall.Name).Held() {
			t.Error("an expire time is past and the hold goes on")
		}
		time.Sleep(time.Minute - 1)
		if !status(t, m, ttl.Name).Held() {
			t.Error("a ttl ended early")
		}
		time.Sleep(lateness)
		if status(t, m, ttl.Name).Held() {
			t.Error("a ttl is over and the hold goes on")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// The machine was suspended for an hour, or the wall clock set back by one.
		started := time.Now()
		var bootAhead atomic.Int64
		m := manageBy(t, open(t), func() time.Duration { return time.Since(started) + time.Duration(bootAhead.Load()) })
		ttl := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("ttl"), TTL: time.Minute})
		wall := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("wall"), ExpireTime: time.Now().Add(time.Minute)})
		synctest.Wait()
		bootAhead.Store(int64(time.Hour))
		time.Sleep(lateness + 1)
		if status(t, m, ttl.Name).Held() {
			t.Error("after a suspend of an hour a ttl of a minute goes on")
		}
		time.Sleep(time.Minute - lateness - 2)
		if !status(t, m, wall.Name).Held() {
			t.Error("an expire time is to come and the hold has ended")
		}
		time.Sleep(lateness)
		if status(t, m, wall.Name).Held() {
			t.Error("an expire time is past and the hold goes on")
		}
	})
}

// After a restart every lease has at least min(ttl, 10 s) left, and can be renewed.
func TestRestart(t *testing.T) {
	for _, down := range []time.Duration{0, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			store := open(t)
			m := manage(t, store)
			ttls := []time.Duration{100 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second, time.Hour}
			var locks []lock.Lock
			for _, ttl := range ttls {
				locks = append(locks, mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("ttl-" + ttl.String()), TTL: ttl}))
			}
			renewed := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("renewed"), TTL: 30 * time.Second})
			wall := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("wall"), ExpireTime: time.Now().Add(time.Minute)})
			time.Sleep(50 * time.Millisecond)
			before := revision(t, m)
			m.Close()
			time.Sleep(down)

			back := time.Now()
			m = manage(t, store)
			ended := ends{}
			ended.follow(t, m, before)
			if _, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: renewed.Name, Token: renewed.Token}); err != nil {
				t.Errorf("down for %v: renewal after it: %v", down, err)
			}
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			for i, l := range locks {
				end, least := ended[l.Token], min(ttls[i], 10*time.Second)
				if end.Sub(back) < least || end.Sub(back) > ttls[i]+lateness {
					t.Errorf("down for %v: the ttl of %v ended %v after the restart, want at least %v", down, ttls[i], end.Sub(back), least)
				}
			}
			deadline := wall.ExpireTime
			if deadline.Before(back) {
				deadline = back
			}
			if end := ended[wall.Token]; end.Before(wall.ExpireTime) || end.Sub(deadline) > lateness {
				t.Errorf("down for %v: the hold until %v ended at %v, back at %v", down, wall.ExpireTime, end, back)
			}
		})
	}
}

// A Manager that hears of a grant after the hold was extended does not take the
// extension back.
func TestExtensionIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		gate := make(chan struct{})
		store.beforeEvents.set(func() error { <-gate; return nil })
		m := manage(t, store)
		l := mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Second})
		n := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("n")})
		for _, l := range []lock.Lock{l, n} {
			if _, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: l.Name, Token: l.Token, TTL: time.Minute}); err != nil {
				t.Fatal(err)
			}
		}
		renewed := time.Now()
		close(gate) // now it hears of the grants
		ended := ends{}
		ended.follow(t, m, revision(t, m))
		time.Sleep(2 * time.Minute)
		for _, l := range []lock.Lock{l, n} {
			if problem := ended.check(l.Token, renewed.Add(time.Minute)); problem != "" {
				t.Errorf("the lease of %v, extended to a minute, ended %s, after %v", l.Name, problem, ended[l.Token].Sub(renewed))
			}
		}
	})
}

// The end of a lease that cannot be committed is tried again until it can.
func TestExpiryIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Second})
		tries := 0
		store.beforeCommit.set(func(*lock.Change) error {
			if tries++; tries <= 5 {
				return lock.ErrReadOnly
			}
			return nil
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if status(t, m, nameA).Held() {
			t.Errorf("the hold goes on after %d tries to end it", tries)
		}
	})
}

// A hold that others change just as its lease ends, ends all the same, and no later.
func TestExpiryAgainstAnEdit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		l := mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Second})
		deadline := time.Now().Add(time.Second)
		ended := ends{}
		ended.follow(t, m, revision(t, m))
		store.beforeCommit.set(func(change *lock.Change) error {
			store.beforeCommit.remove()
			store.others(t, lock.Updated)
			return nil
		})
		time.Sleep(time.Minute)
		if problem := ended.check(l.Token, deadline); problem != "" {
			t.Errorf("the lease ended %s, %v after its deadline", problem, ended[l.Token].Sub(deadline))
		}
	})
}

// A hold that ends by other means takes its lease with it; the next hold has its own.
func TestLeaseEndsWithItsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		m := manage(t, store)
		for _, end := range []string{"unlock", "break", "overwrite", "others"} {
			l := mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Minute})
			time.Sleep(30 * time.Second)
			var err error
			switch end {
			case "unlock":
				_, err = m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: l.Token})
			case "break":
				_, err = m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Force: true, Reason: "it hangs"})
			case "others":
				store.others(t, lock.Unlocked)
			}
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			next := mustLock(t, m, lock.LockRequest{Name: nameA, Overwrite: true})
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := status(t, m, nameA); got.Token != next.Token {
				t.Errorf("%s: the next hold, which has no lease, has ended: %+v", end, got)
			}
			if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
