package manager_test

import (
	"context"
	"errors"
	"strings"
	"testing"
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

// A page of the history ends before it is very large, and before it has read very much;
// the pages together have all.
func TestHistoryIsBounded(t *testing.T) {
	store, m, _ := largeHistory(t, 10_000)
	tests := []struct {
		pattern    string
		events     int
		read, page int // the most bytes that a page may read and return
	}{
		{"b", 10_001, 8 << 20, 5 << 20},
		{"lb/a", 2, 70 << 20, 1 << 20},
	}
	for _, test := range tests {
		got, after := 0, lock.Revision(0)
		for {
			store.bytes = 0
			page, next, err := m.History(t.Context(), lock.Caller{}, lock.MustParsePattern(test.pattern), after, 1000)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, event := range page {
				size += event.Size()
			}
			if size > test.page || store.bytes > test.read {
				t.Errorf("a page of %s is %d bytes of events and has read %d", test.pattern, size, store.bytes)
			}
			got += len(page)
			if after = next; next == 0 {
				break
			}
		}
		if got != test.events {
			t.Errorf("the pages of %s have %d events, want %d", test.pattern, got, test.events)
		}
	}
}
