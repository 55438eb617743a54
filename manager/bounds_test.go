package manager_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// askedStore takes note of what is asked of its History.
type askedStore struct {
	lock.Store
	asked []lock.HistoryQuery
	most  int // events that may come
}

func (s *askedStore) History(ctx context.Context, q lock.HistoryQuery, from lock.Revision, limit int) (lock.HistoryPage, error) {
	s.asked, s.most = append(s.asked, q), s.most+limit
	return s.Store.History(ctx, q, from, limit)
}

// What ended a hold is looked for once, among the events of its lock alone, whatever has
// happened to that and to others since.
func TestSearchForTheEndIsBounded(t *testing.T) {
	for _, test := range []struct {
		ends string
		want error
	}{
		{"by itself", lock.ErrNotHolder},
		{"by Unlock", lock.ErrNotLocked},
	} {
		t.Run(test.ends, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &askedStore{Store: open(t)}
				m := manage(t, store)
				cycles := func(n int) {
					for i := range n {
						l := mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Second})
						if i%2 == 0 {
							time.Sleep(2 * time.Second)
						} else if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: l.Token}); err != nil {
							t.Fatal(err)
						}
					}
				}
				cycles(100)
				held := mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Second})
				if test.want == lock.ErrNotHolder {
					time.Sleep(2 * time.Second)
				} else if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
					t.Fatal(err)
				}
				cycles(100)
				_, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token, TTL: time.Hour})
				if !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if len(store.asked) != 1 || store.asked[0].Pattern.String() != nameA.String() || store.most != 1 {
					t.Errorf("the history was asked %+v, for up to %d events; want one of %v", store.asked, store.most, nameA)
				}
			})
		})
	}
}

// Where the past cannot be read, now or at all, a holder is told soon that the hold is over.
func TestHoldIsOverWithoutHistory(t *testing.T) {
	for _, test := range []struct {
		name    string
		history func(ctx context.Context) error
	}{
		{"hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{"fails", func(context.Context) error { return errors.New("input/output error") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, failingHistory{open(t), test.history})
				held := mustLock(t, m, lock.LockRequest{Name: nameA, TTL: time.Second})
				time.Sleep(2 * time.Second)
				began := time.Now()
				_, err := m.Renew(t.Context(), lock.Caller{}, lock.RenewRequest{Name: nameA, Token: held.Token, TTL: time.Hour})
				if took := time.Since(began); !errors.Is(err, lock.ErrNotLocked) || took > 5*time.Second {
					t.Errorf("got %v after %v, want %v soon", err, took, lock.ErrNotLocked)
				}
			})
		})
	}
}

// failingHistory is a store that has no past to show.
type failingHistory struct {
	lock.Store
	err func(ctx context.Context) error
}

func (s failingHistory) History(ctx context.Context, _ lock.HistoryQuery, _ lock.Revision, _ int) (lock.HistoryPage, error) {
	return lock.HistoryPage{}, s.err(ctx)
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

// Data that no lock file has room for are refused before anybody waits with them, so that
// they take no memory of those who can be granted the lock.
func TestDataThatCannotFitDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		mustLock(t, m, lock.LockRequest{Name: nameA})
		data, err := lock.NewData(map[string]any{"msg": strings.Repeat("x", 200<<10)})
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			began := time.Now()
			_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Data: data, Wait: time.Hour})
			if !errors.Is(err, lock.ErrDataTooLarge) || time.Since(began) > 0 {
				t.Fatalf("got %v after %v, want %v at once", err, time.Since(began), lock.ErrDataTooLarge)
			}
		}
		if l, err := m.Status(t.Context(), lock.Caller{}, nameA); err != nil || l.Waiters != 0 {
			t.Errorf("%d wait (%v), want none", l.Waiters, err)
		}
	})
}
