package manager_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

var faultySeeds = flag.Int("faulty-seeds", 1, "how many")

// faultyStore is a store that refuses commits at times, or is late with them.
type faultyStore struct {
	*hookedStore
	mu     sync.Mutex
	random *rand.Rand
	well   bool
	late   sync.WaitGroup
}

func (s *faultyStore) Commit(ctx context.Context, changes []lock.Change, guards ...lock.Guard) ([]lock.Event, error) {
	s.mu.Lock()
	n := 100
	if !s.well {
		n = s.random.IntN(20)
	}
	pause := time.Duration(s.random.IntN(3)) * time.Millisecond
	s.mu.Unlock()
	switch n {
	case 0:
		return nil, &lock.Error{Reason: lock.ErrReadOnly, Message: "full"}
	case 1:
		return nil, &lock.Error{Reason: lock.ErrTooManyLocks, Message: "many"}
	case 2:
		return nil, lock.ErrConflict
	case 3:
		return nil, &lock.Error{Reason: lock.ErrLockFile, Message: "a file"}
	case 4, 5:
		done := make(chan struct{})
		var events []lock.Event
		var err error
		s.late.Go(func() {
			defer close(done)
			time.Sleep(pause)
			if n == 4 {
				events, err = s.hookedStore.Commit(context.Background(), changes, guards...)
			} else {
				err = &lock.Error{Reason: lock.ErrReadOnly, Message: "late"}
			}
		})
		return nil, &lock.PendingError{Outcome: func() ([]lock.Event, error) { <-done; return events, err }, Err: &lock.Error{Reason: lock.ErrOutcomeUnknown, Message: "given up"}}
	case 6:
		time.Sleep(pause)
	}
	return s.hookedStore.Commit(ctx, changes, guards...)
}

// Whatever a store refuses or is late with, and whoever leaves: when it is well again all
// who wait are served, and at the end nothing is kept of anybody.
func TestFaultyStore(t *testing.T) {
	for seed := range *faultySeeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { faulty(t, uint64(seed)) })
		})
		if t.Failed() {
			return
		}
	}
}

func faulty(t *testing.T, seed uint64) {
	store := &faultyStore{hookedStore: open(t), random: rand.New(rand.NewPCG(seed, 1))}
	m := manage(t, store)
	paths := []string{"a", "b", "a/x", "a/y", "b/x", "a/x/1", "c"}
	var names []lock.Name
	for _, p := range paths {
		names = append(names, lock.MustParseName(p))
	}
	var clients sync.WaitGroup
	healed, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for i := range 24 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)+10))
			who := fmt.Sprint("c", i)
			for round := range 30 {
				if healed.Err() != nil {
					return
				}
				ctx, leave := context.WithCancel(healed)
				if r.IntN(3) == 0 {
					time.AfterFunc(time.Duration(r.IntN(4000))*time.Microsecond, leave)
				}
				wait := []time.Duration{0, time.Millisecond, 20 * time.Millisecond, lock.WaitForever}[r.IntN(4)]
				id := fmt.Sprintf("%s-%d", who, round)
				var holds []lock.Lock
				var err error
				confirm := func(context.Context) error {
					if r.IntN(6) == 0 {
						return errors.New("gone")
					}
					return nil
				}
				pick := r.Perm(len(names))
				ask := func() {
					holds, err = nil, nil
					var grant lock.Grant
					switch kind := (round + i) % 6; kind {
					case 0, 1:
						set := lock.SetRequest{Names: []lock.Name{names[pick[0]], names[pick[1]]}, Holder: who, RequestID: id, Wait: wait, Confirm: confirm, ThroughFreeze: r.IntN(4) == 0, Reason: "x"}
						if kind == 1 {
							set.Choices = []lock.Choice{{Names: []lock.Name{names[pick[2]], names[pick[3]], names[pick[4]]}, Count: 1 + r.IntN(2)}}
						}
						g, e := m.LockSet(ctx, lock.Caller{}, set)
						holds, err = g.Locks, e
						return
					case 2:
						grant, err = m.Lock(ctx, lock.Caller{}, lock.LockRequest{Name: names[pick[0]], Holder: who, RequestID: id, Wait: wait, Shared: true, Limit: r.IntN(3), Confirm: confirm})
					case 3:
						grant, err = m.Lock(ctx, lock.Caller{}, lock.LockRequest{Name: names[pick[0]], Holder: who, RequestID: id, Wait: wait, Tree: true, Drain: wait != 0 && r.IntN(2) == 0, Confirm: confirm})
					default:
						grant, err = m.Lock(ctx, lock.Caller{}, lock.LockRequest{Name: names[pick[0]], Holder: who, RequestID: id, Wait: wait, Confirm: confirm, ThroughFreeze: r.IntN(4) == 0, Reason: "x", RefuseManual: r.IntN(4) == 0})
					}
					if err == nil {
						holds = []lock.Lock{grant.Lock}
					}
				}
				ask()
				if err != nil && r.IntN(2) == 0 {
					ask()
				}
				leave()
				if len(holds) == 0 {
					continue
				}
				if r.IntN(4) == 0 {
					answer, err := m.HandOver(healed, lock.Caller{}, lock.HandOverRequest{Name: holds[0].Name, Token: holds[0].Token, Holder: who})
					if err == nil {
						holds[0] = answer.Lock
					}
				}
				for _, l := range holds { // also those whose hand-over was late
					for {
						got, err := m.Status(healed, lock.Caller{}, l.Name)
						if err != nil || got.Token < l.Token || got.Holder != who || !got.Held() {
							break
						}
						_, err = m.UnlockSet(healed, lock.Caller{}, lock.UnlockSetRequest{Holds: []lock.HoldRef{{Name: got.Name, Token: got.Token}}})
						if healed.Err() != nil {
							return
						}
						_ = err
					}
				}
			}
		})
	}
	// In the midst of it, somebody clears what was granted unseen and outstays its welcome.
	stop := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			_, page := store.List(healed, lock.Pattern{}, lock.Name{})
			for l, err := range page {
				if err == nil && time.Since(l.AcquireTime) > 200*time.Millisecond {
					_, _ = m.Unlock(healed, lock.Caller{}, lock.UnlockRequest{Name: l.Name, Token: l.Token, Force: true, Reason: "sweep"})
				}
			}
		}
	})
	time.Sleep(10 * time.Second)
	store.mu.Lock()
	store.well = true
	store.mu.Unlock()
	clients.Wait()
	if healed.Err() != nil {
		t.Errorf("somebody still waits: %s", m.Rest())
	}
	time.Sleep(time.Minute) // for what is tried again
	close(stop)
	sweeper.Wait()
	time.Sleep(time.Minute)
	if rest := m.Rest(); rest != "" {
		t.Errorf("at the end there is left: %s", rest)
	}
}
