package manager_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// What waits is bounded over all locks, by number and by bytes, and who leaves makes room.
func TestLimitsOverAllLocks(t *testing.T) {
	data := func(bytes int) lock.Data {
		d, err := lock.NewData(map[string]any{"x": strings.Repeat("x", bytes)})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	tests := []struct {
		name   string
		config manager.Config
		data   lock.Data
	}{
		{"number", manager.Config{MaxWaitersTotal: 3}, lock.Data{}},
		{"bytes", manager.Config{MaxWaitingBytes: 3500}, data(1000)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manageWith(t, open(t), test.config)
				request := func(i int) lock.LockRequest {
					return lock.LockRequest{Name: lock.MustParseName(fmt.Sprintf("lock-%d", i)), Data: test.data, Wait: time.Hour}
				}
				for i := range 4 {
					mustLock(t, m, request(i))
				}
				for range 3 { // the limits are as far away as at first
					ctx, cancel := context.WithCancel(t.Context())
					var waiting []*pending
					for i := range 3 {
						waiting = append(waiting, lockSoon(ctx, m, request(i)))
					}
					if _, err := m.Lock(ctx, lock.Caller{}, request(3)); !errors.Is(err, lock.ErrTooManyWaiters) {
						t.Errorf("the fourth to wait: %v, want %v", err, lock.ErrTooManyWaiters)
					}
					mustLock(t, m, lock.LockRequest{Name: nameA, Wait: time.Hour}) // a free lock is granted
					if _, err := m.Unlock(ctx, lock.Caller{}, lock.UnlockRequest{Name: nameA}); err != nil {
						t.Fatal(err)
					}
					if _, err := m.Unlock(ctx, lock.Caller{}, lock.UnlockRequest{Name: request(0).Name}); err != nil {
						t.Fatal(err)
					}
					if !waiting[0].ended() || waiting[0].err != nil {
						t.Errorf("the first to wait: %v, want it granted", waiting[0].err)
					}
					fourth := lockSoon(ctx, m, request(3))
					cancel()
					for i, p := range append(waiting[1:], fourth) {
						if !p.ended() || !errors.Is(p.err, context.Canceled) {
							t.Errorf("waiter %d: %v, want %v", i, p.err, context.Canceled)
						}
					}
				}
			})
		})
	}
}

// A request may not be sent without end while it waits.
func TestOneRequestSentManyTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
		bob := lock.LockRequest{Name: nameA, Holder: "bob", RequestID: "r1", Wait: time.Hour}
		var sent []*pending
		for range 100 {
			sent = append(sent, lockSoon(t.Context(), m, bob))
		}
		refused := 0
		for _, p := range sent {
			if p.ended() {
				refused++
				if !errors.Is(p.err, lock.ErrTooManyWaiters) {
					t.Errorf("got %v, want %v", p.err, lock.ErrTooManyWaiters)
				}
			}
		}
		if refused != 36 {
			t.Errorf("%d of 100 sendings were refused, want 36", refused)
		}
		if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"}); err != nil {
			t.Fatal(err)
		}
		for i, p := range sent[:64] {
			if !p.ended() || p.err != nil || p.grant.Lock.Holder != "bob" {
				t.Errorf("sending %d: ended %t, %v; want it granted", i, p.done.Load(), p.err)
			}
		}
	})
}

// A waiter whom the store cannot grant the lock for now, because the disk is full, keeps
// its place, is tried again, and is told the cause when its wait ends.
func TestWaiterOnAFullDisk(t *testing.T) {
	for _, reason := range []lock.Reason{lock.ErrReadOnly, lock.ErrTooManyLocks} {
		for _, ends := range []string{"unlock", "expiry", "by others"} {
			for _, room := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/room %t", reason, ends, room), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						store := open(t)
						m := manage(t, store)
						r := lock.LockRequest{Name: nameA, Holder: "alice"}
						if ends == "expiry" {
							r.TTL = time.Minute
						}
						mustLock(t, m, r)
						bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
						carol := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "carol", Wait: 2 * time.Hour})
						var tries atomic.Int32
						store.beforeCommit.set(func(change *lock.Change) error {
							if change.Type != lock.Locked {
								return nil
							}
							tries.Add(1)
							return &lock.Error{Reason: reason, Message: "full"}
						})
						switch ends {
						case "unlock":
							if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Holder: "alice"}); err != nil {
								t.Errorf("Unlock: %v", err)
							}
						case "expiry":
							time.Sleep(2 * time.Minute)
						case "by others":
							store.others(t, lock.Unlocked)
						}
						if bob.ended() || carol.ended() {
							t.Fatalf("the waiters were answered: %v, %v", bob.err, carol.err)
						}
						if _, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "dora"}); !errors.Is(err, reason) {
							t.Errorf("a request that does not wait: %v, want %v", err, reason)
						}
						dora := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "dora", Wait: 3 * time.Hour})
						if got := status(t, m, nameA); got.Held() || got.Waiters != 3 {
							t.Errorf("the lock is %+v, want it free, with 3 waiters", got)
						}
						time.Sleep(10 * time.Minute)
						if n := tries.Load(); n < 60 || n > 200 {
							t.Errorf("it was tried %d times in 10 minutes", n)
						}
						if !room {
							time.Sleep(time.Hour)
							if !bob.ended() || !errors.Is(bob.err, reason) {
								t.Errorf("the waiter whose wait has ended: ended %t, %v; want %v", bob.done.Load(), bob.err, reason)
							}
							bob = carol
						}
						store.beforeCommit.remove()
						time.Sleep(10 * time.Second)
						if !bob.ended() || bob.err != nil {
							t.Errorf("the next waiter, when there is room: ended %t, %v; want the lock", bob.done.Load(), bob.err)
						}
						if dora.ended() {
							t.Errorf("who came last: %+v, %v; want it in line", dora.grant, dora.err)
						}
					})
				})
			}
		}
	}
}

// A hold ends although the lock cannot be granted along with its end. Who was to be granted
// it keeps the place if that may pass, is tried alone, and is told what stands in the way.
func TestHandOverRefused(t *testing.T) {
	for _, test := range []struct {
		reason lock.Reason
		times  int    // the grant to bob is refused
		holder string // of the lock in the end
		bob    error  // that bob is told
	}{
		{lock.ErrReadOnly, 1, "bob", nil},
		{lock.ErrReadOnly, 3, "bob", nil},
		{lock.ErrTooManyLocks, 3, "bob", nil},
		{lock.ErrLockFile, 1, "bob", nil},
		{lock.ErrLockFile, 2, "carol", lock.ErrLockFile},
		{lock.ErrDataTooLarge, 2, "carol", lock.ErrDataTooLarge},
		{lock.ErrInvalidName, 2, "carol", lock.ErrInvalidName},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := open(t)
			m := manage(t, store)
			held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
			bob := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "bob", Wait: time.Hour})
			carol := lockSoon(t.Context(), m, lock.LockRequest{Name: nameA, Holder: "carol", Wait: time.Hour})
			left := test.times
			store.beforeCommit.set(func(change *lock.Change) error {
				if change.Lock.Holder != "bob" || left == 0 {
					return nil
				}
				left--
				return &lock.Error{Reason: test.reason, Message: "not for bob"}
			})
			if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
				t.Errorf("%v: Unlock: %v", test.reason, err)
			}
			time.Sleep(time.Minute) // for what is tried again
			synctest.Wait()
			if got := status(t, m, nameA); got.Holder != test.holder || left != 0 {
				t.Errorf("%v, %d times: the lock is %+v, want a hold of %s", test.reason, test.times, got, test.holder)
			}
			if test.bob != nil && (!bob.ended() || !errors.Is(bob.err, test.bob)) || test.bob == nil && bob.err != nil || carol.err != nil {
				t.Errorf("%v, %d times: bob was told %v, want %v; carol %v", test.reason, test.times, bob.err, test.bob, carol.err)
			}
		})
	}
}
