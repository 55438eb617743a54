package feed_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/feed"
)

func event(revision lock.Revision) lock.Event {
	return lock.Event{Revision: revision, Type: lock.Locked}
}

func bigEvent(t *testing.T, revision lock.Revision, size int) lock.Event {
	data, err := lock.NewData(map[string]any{"bulk": strings.Repeat("x", size)})
	if err != nil {
		t.Fatal(err)
	}
	return lock.Event{Revision: revision, Type: lock.Locked, Lock: lock.Lock{Data: data}}
}

// all returns events after a revision, whatever they are of.
func all(ctx context.Context, f *feed.Feed, after lock.Revision) ([]lock.Event, error) {
	events, _, err := f.Events(ctx, lock.Pattern{}, after, time.Hour)
	return events, err
}

// readAll reads what there is after a revision, up to until.
func readAll(t *testing.T, f *feed.Feed, after, until lock.Revision) (revisions []lock.Revision) {
	t.Helper()
	for after < until {
		events, err := all(t.Context(), f, after)
		if err != nil {
			t.Fatalf("Events after %d: %v", after, err)
		}
		for _, e := range events {
			revisions = append(revisions, e.Revision)
			after = e.Revision
		}
	}
	return revisions
}

func TestAfterReadsAllInOrder(t *testing.T) {
	f := feed.New(10, feed.Config{})
	var want []lock.Revision
	for r := lock.Revision(11); r < 5000; r += 1 + r%3 { // revisions have gaps
		want = append(want, r)
	}
	last := want[len(want)-1]
	for some := range slices.Chunk(want, 7) {
		var events []lock.Event
		for _, r := range some {
			events = append(events, event(r))
		}
		f.Append(nil, events...)
	}
	for skip := 0; skip < len(want); skip += 97 {
		after := lock.Revision(10)
		if skip > 0 {
			after = want[skip-1]
		}
		got := readAll(t, f, after, last)
		if !slices.Equal(got, want[skip:]) {
			t.Fatalf("after %d: got %v, want %v", after, got, want[skip:])
		}
	}
}

// A revision that no event has is a fine place to go on from while all events after
// it are kept.
func TestAfterInAGap(t *testing.T) {
	f := feed.New(0, feed.Config{})
	f.Append(nil, event(5), event(9))
	got := readAll(t, f, 7, 9)
	if len(got) != 1 || got[0] != 9 {
		t.Errorf("Events after 7 = %v, want [9]", got)
	}
}

func TestCompacted(t *testing.T) {
	f := feed.New(100, feed.Config{Events: 4})
	check := func(after, kept lock.Revision) {
		t.Helper()
		_, err := all(t.Context(), f, after)
		var compacted *lock.CompactedError
		if !errors.As(err, &compacted) || compacted.Kept != kept {
			t.Errorf("Events after %d: got %v, want a CompactedError with Kept %d", after, err, kept)
		}
	}
	check(0, 100)
	check(99, 100)
	check(101, 100) // yet to come
	for r := lock.Revision(101); r <= 110; r++ {
		f.Append(nil, event(r))
	}
	check(100, 106)
	check(105, 106)
	check(111, 106)
	if got := readAll(t, f, 106, 110); len(got) != 4 {
		t.Errorf("Events after 106 = %v, want 4 events", got)
	}
	f.Append(nil, event(111), event(112), event(113), event(114), event(115), event(116)) // more than are kept
	check(111, 112)
	if got := readAll(t, f, 112, 116); len(got) != 4 {
		t.Errorf("Events after 112 = %v, want 4 events", got)
	}
}

func TestBytesAreBounded(t *testing.T) {
	const limit = 100_000
	f := feed.New(0, feed.Config{Bytes: limit})
	for r := lock.Revision(1); r <= 50; r++ {
		f.Append(nil, bigEvent(t, r, 10_000))
	}
	_, err := all(t.Context(), f, 0)
	var compacted *lock.CompactedError
	if !errors.As(err, &compacted) {
		t.Fatalf("Events after 0: got %v, want a CompactedError", err)
	}
	if got := len(readAll(t, f, compacted.Kept, 50)); got != 9 {
		t.Errorf("%d events of 10 kB are kept in 100 kB, want 9", got)
	}
	f.Append(nil, bigEvent(t, 51, 2*limit)) // by itself past the limit: the newest stays
	if got := readAll(t, f, 50, 51); len(got) != 1 {
		t.Errorf("Events after 50 = %v, want [51]", got)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	f := feed.New(0, feed.Config{})
	for r := lock.Revision(1); r <= 20; r++ {
		f.Append(nil, bigEvent(t, r, 60_000))
	}
	events, err := all(t.Context(), f, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) > 4 {
		t.Errorf("a batch has %d events of 60 kB, want at most 4", len(events))
	}
}

// What a reader has been given stays as it was, whatever comes after.
func TestBatchesStay(t *testing.T) {
	f := feed.New(0, feed.Config{Events: 3})
	f.Append(nil, event(1), event(2))
	batch, err := all(t.Context(), f, 0)
	if err != nil {
		t.Fatal(err)
	}
	for r := lock.Revision(3); r < 100; r++ {
		f.Append(nil, event(r))
	}
	if len(batch) != 2 || batch[0].Revision != 1 || batch[1].Revision != 2 {
		t.Errorf("the batch has become %v", batch)
	}
	_ = append(batch, event(7)) // into a slice of its own
	if got := readAll(t, f, 96, 99); len(got) != 3 {
		t.Errorf("Events after 96 = %v, want 3 events", got)
	}
}

func TestAfterWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(0, feed.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		type result struct {
			n   int
			err error
		}
		read := func(ctx context.Context) <-chan result {
			results := make(chan result, 1)
			go func() {
				events, err := all(ctx, f, 0)
				results <- result{len(events), err}
			}()
			return results
		}
		stays, leaves := read(t.Context()), read(ctx)
		synctest.Wait()
		cancel()
		if got := <-leaves; !errors.Is(got.err, context.Canceled) {
			t.Errorf("After with a canceled ctx: got %v, want context.Canceled", got.err)
		}
		synctest.Wait()
		f.Append(nil, event(1))
		if got := <-stays; got.err != nil || got.n != 1 {
			t.Errorf("After: got %d events and %v, want 1 event", got.n, got.err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(0, feed.Config{})
		f.Append(nil, event(1))
		waiting := make(chan error)
		go func() {
			_, err := all(t.Context(), f, 1)
			waiting <- err
		}()
		synctest.Wait()
		f.Close()
		if err := <-waiting; !errors.Is(err, lock.ErrShuttingDown) {
			t.Errorf("a waiting After ended with %v, want %v", err, lock.ErrShuttingDown)
		}
		if _, err := all(t.Context(), f, 0); !errors.Is(err, lock.ErrShuttingDown) {
			t.Errorf("After after Close: got %v, want %v", err, lock.ErrShuttingDown)
		}
		f.Append(nil, event(2))
		f.Close()
	})
}

func TestOutOfOrderPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Append of a revision that is not above the last did not panic")
		}
	}()
	f := feed.New(0, feed.Config{})
	f.Append(nil, event(2))
	f.Append(nil, event(2))
}

// Every reader sees each event that its pattern selects once and in order, while events
// are appended, however long it waits at a time.
func TestManyReaders(t *testing.T) {
	const readers, events = 100, 2000
	names := []string{"a", "lb/a", "lb/b", "lb/west/a", "lb/west/b", "z"}
	patterns := []string{"", "a", "z", "y", "lb/a", "lb/*", "lb/**", "l**", "lb/west/*", "*/a", "**/b", "*"}
	all := make([]lock.Event, events)
	for i := range all {
		all[i] = eventOf(names[rand.IntN(len(names))], lock.Revision(i+1))
	}
	f := feed.New(0, feed.Config{})
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			p := lock.MustParsePattern(patterns[i%len(patterns)])
			var got, want []lock.Revision
			for _, e := range all {
				if p.Match(e.Lock.Name) {
					want = append(want, e.Revision)
				}
			}
			for after := lock.Revision(0); after < events; {
				some, until, err := f.Events(t.Context(), p, after, time.Duration(rand.Int64N(int64(100*time.Microsecond))))
				if err != nil || until < after {
					t.Errorf("%q after %d: until %d, %v", p, after, until, err)
					return
				}
				for _, e := range some {
					got = append(got, e.Revision)
				}
				after = until
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q: got %v, want %v", p, got, want)
			}
		})
	}
	for rest := all; len(rest) > 0; {
		n := min(1+rand.IntN(3), len(rest))
		f.Append(nil, rest[:n]...)
		rest = rest[n:]
	}
	group.Wait()
}

func TestReadersAllocateNothing(t *testing.T) {
	f := feed.New(0, feed.Config{})
	for r := lock.Revision(1); r <= 1000; r++ {
		f.Append(nil, event(r))
	}
	ctx := t.Context()
	if got := testing.AllocsPerRun(100, func() { all(ctx, f, 500) }); got != 0 {
		t.Errorf("Events allocates %v times, want none", got)
	}
}

// One event at a time to 1,000 readers that wait; the time is that of one event
// reaching all of them.
func BenchmarkThousandReaders(b *testing.B) {
	const readers = 1000
	f := feed.New(0, feed.Config{})
	b.ReportAllocs()
	var group, told sync.WaitGroup
	for range readers {
		group.Go(func() {
			for after := lock.Revision(0); after < lock.Revision(b.N); {
				events, err := all(context.Background(), f, after)
				if err != nil {
					b.Error(err)
					return
				}
				for _, e := range events {
					after = e.Revision
					told.Done()
				}
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		told.Add(readers)
		f.Append(nil, event(lock.Revision(i+1)))
		told.Wait()
	}
	group.Wait()
}
