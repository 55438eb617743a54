package manager_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/feed"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// countingStore counts the bytes of the events that are read from it.
type countingStore struct {
	lock.Store
	bytes int
}

func (s *countingStore) Events(ctx context.Context, p lock.Pattern, after lock.Revision, wait time.Duration) ([]lock.Event, lock.Revision, error) {
	events, until, err := s.Store.Events(ctx, p, after, wait)
	for _, event := range events {
		s.bytes += event.Size()
	}
	return events, until, err
}

// largeHistory returns a store and the Manager on it with changes of lock b that are 10
// KiB each, after the grant of lb/a and before its end.
func largeHistory(t *testing.T, changes int) (*countingStore, *manager.Manager, lock.Lock) {
	const everything = 1 << 40
	store := memstore.New(memstore.Config{Feed: feed.Config{Events: everything, Bytes: everything}})
	t.Cleanup(func() { store.Close() })
	m := manage(t, store)
	held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
	other := mustLock(t, m, lock.LockRequest{Name: lock.MustParseName("b")})
	data, err := lock.NewData(map[string]any{"x": strings.Repeat("x", 10<<10)})
	if err != nil {
		t.Fatal(err)
	}
	for range changes {
		events, err := store.Commit(t.Context(), []lock.Change{{Type: lock.Updated, Cause: lock.Request, Prev: other.Revision, Lock: other.WithData(data)}})
		if err != nil {
			t.Fatal(err)
		}
		other = events[0].Lock
	}
	if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
		t.Fatal(err)
	}
	counting := &countingStore{Store: store}
	return counting, manage(t, counting), held
}

// How a hold ended long ago is not looked for without end.
func TestSearchForTheEndIsBounded(t *testing.T) {
	store, m, held := largeHistory(t, 3000)
	store.bytes = 0
	_, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token, TTL: time.Hour})
	if !errors.Is(err, lock.ErrNotLocked) || !strings.Contains(err.Error(), "ended some time ago") {
		t.Errorf("got %v, want %v, some time ago", err, lock.ErrNotLocked)
	}
	if store.bytes > 9<<20 {
		t.Errorf("it read %d bytes of events", store.bytes)
	}
}

// waitingStore has a History that ends when it is told to.
type waitingStore struct {
	lock.Store
	begun, end chan struct{}
}

func (s *waitingStore) History(context.Context, lock.HistoryQuery, lock.Revision, int) (lock.HistoryPage, error) {
	s.begun <- struct{}{}
	<-s.end
	return lock.HistoryPage{}, nil
}

// Only so many calls read the past at a time. Those beyond wait, until their caller has
// had enough, one has ended, or the Manager is closed.
func TestHistoriesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := memstore.New(memstore.Config{})
		defer memory.Close()
		store := &waitingStore{Store: memory, begun: make(chan struct{}, 10), end: make(chan struct{})}
		m, err := manager.New(store, manager.Config{MaxHistories: 2})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 10)
		call := func(ctx context.Context) {
			go func() {
				_, err := m.History(ctx, lock.Caller{}, lock.HistoryQuery{}, 0, 1)
				ended <- err
			}()
			synctest.Wait()
		}
		impatient, leave := context.WithCancel(t.Context())
		call(t.Context())
		call(t.Context())
		call(impatient)
		call(t.Context())
		call(t.Context())
		if n := len(store.begun); n != 2 {
			t.Errorf("%d read at a time, want 2", n)
		}
		leave()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("who has had enough: %v", err)
		}
		store.end <- struct{}{}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(store.begun); n != 3 {
			t.Errorf("%d have read when one had ended, want 3", n)
		}
		m.Close()
		if err := <-ended; !errors.Is(err, lock.ErrShuttingDown) {
			t.Errorf("who waits when the Manager is closed: %v", err)
		}
		close(store.end)
	})
}
