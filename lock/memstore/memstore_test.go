package memstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/feed"
	"github.com/pylok/pylok/lock/locktest"
	"github.com/pylok/pylok/lock/memstore"
)

func open(t *testing.T) lock.Store {
	s := memstore.New(memstore.Config{})
	if *wrong != "" {
		return mutant{s, *wrong}
	}
	return s
}

func TestStore(t *testing.T) { locktest.Test(t, open) }

func TestManager(t *testing.T) { locktest.TestManager(t, open) }

func change(kind lock.EventType, name string, prev lock.Revision) lock.Change {
	return lock.Change{Type: kind, Cause: lock.Request, Prev: prev, Lock: lock.Lock{Name: lock.MustParseName(name)}}
}

func TestMaxLocks(t *testing.T) {
	s := memstore.New(memstore.Config{MaxLocks: 2})
	defer s.Close()
	steps := []struct {
		changes []lock.Change
		want    error
	}{
		{[]lock.Change{change(lock.Locked, "a", 0)}, nil},
		{[]lock.Change{change(lock.Locked, "b", 0), change(lock.Locked, "c", 0)}, lock.ErrTooManyLocks},
		{[]lock.Change{change(lock.Locked, "b", 0)}, nil},
		{[]lock.Change{change(lock.Locked, "c", 0)}, lock.ErrTooManyLocks},
		{[]lock.Change{change(lock.Locked, "a", 1)}, nil},
		{[]lock.Change{change(lock.Unlocked, "b", 2), change(lock.Locked, "c", 0)}, nil},
	}
	for i, step := range steps {
		if _, err := s.Commit(t.Context(), step.changes); !errors.Is(err, step.want) {
			t.Errorf("step %d: got error %v, want %v", i, err, step.want)
		}
	}
}

func TestCompaction(t *testing.T) {
	s := memstore.New(memstore.Config{Feed: feed.Config{Events: 3}})
	defer s.Close()
	for i := range 10 {
		if _, err := s.Commit(t.Context(), []lock.Change{change(lock.Locked, fmt.Sprint(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := s.Events(t.Context(), lock.Pattern{}, 0, time.Hour)
	var compacted *lock.CompactedError
	if !errors.As(err, &compacted) || compacted.Kept != 7 {
		t.Errorf("Events(0): got %v, want a CompactedError with Kept 7", err)
	}
	if events, _, err := s.Events(t.Context(), lock.Pattern{}, 7, time.Hour); err != nil || len(events) != 3 {
		t.Errorf("Events(7): got %d events and %v, want 3", len(events), err)
	}
}
