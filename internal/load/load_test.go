package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHistogram(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v, want 0", got)
	}
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rand.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		h.Add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.99, 1} {
		want := all[int(q*float64(len(all)-1))]
		if got := h.Quantile(q); got < want*99/100-1 || got > want*101/100+1 {
			t.Errorf("quantile %v is %v, want %v to 1 %%", q, got, want)
		}
	}
	if h.Count() != 10_000 {
		t.Errorf("count %d, want 10000", h.Count())
	}
}

func TestHistogramEnds(t *testing.T) {
	for _, test := range []struct{ add, want time.Duration }{
		{-1, 0},
		{0, 0},
		{255, 255},
		{24 * time.Hour, 1<<maxBits - 1<<(maxBits-fineBits)/2},
	} {
		var h Histogram
		h.Add(test.add)
		if got := h.Quantile(0.5); got != test.want {
			t.Errorf("%v is kept as %v, want %v", test.add, got, test.want)
		}
	}
}

// table is a Target in memory that checks how it is used.
type table struct {
	mu      sync.Mutex
	held    map[string]chan struct{} // closed by Unlock
	changes atomic.Int64
	follow  []chan struct{}
	fail    atomic.Bool
}

var errFailed = errors.New("failed as told")

func (f *table) Callers(context.Context, int) error { return nil }

func (f *table) Lock(_ context.Context, _ int, name string) error {
	if f.fail.Load() {
		return errFailed
	}
	for {
		f.mu.Lock()
		if f.held == nil {
			f.held = make(map[string]chan struct{})
		}
		held := f.held[name]
		if held == nil {
			f.held[name] = make(chan struct{})
			f.tell()
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		<-held
	}
}

func (f *table) Unlock(_ context.Context, _ int, name string) error {
	f.mu.Lock()
	close(f.held[name])
	delete(f.held, name)
	f.tell()
	f.mu.Unlock()
	if name == short.Prefix+"contended" {
		time.Sleep(time.Millisecond) // somebody else's turn
	}
	return nil
}

func (f *table) tell() {
	f.changes.Add(1)
	for _, c := range f.follow {
		c <- struct{}{}
	}
}

func (f *table) Status(_ context.Context, _ int, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[name] == nil {
		return errors.New("read a lock that is free")
	}
	return nil
}

func (f *table) Subscribe(ctx context.Context, _ int, _ string, ready func(), changed func(int)) error {
	c := make(chan struct{}, 1<<20)
	f.mu.Lock()
	f.follow = append(f.follow, c)
	f.mu.Unlock()
	ready()
	for {
		select {
		case <-c:
			changed(1)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *table) Close() error { return nil }

var short = Options{Prefix: "bench/x-", Duration: 20 * time.Millisecond}

func TestCycles(t *testing.T) {
	f := new(table)
	run, err := Cycles(t.Context(), f, 3, short)
	if err != nil {
		t.Fatal(err)
	}
	// Each caller has done one more before the measuring.
	if want := f.changes.Load()/2 - 3; run.Count != want || len(run.Steps) != 2 || run.Steps[1].Count() != want {
		t.Errorf("%d cycles and %d steps, want %d and 2", run.Count, len(run.Steps), want)
	}
	if run.Elapsed < short.Duration {
		t.Errorf("elapsed %v, want %v at least", run.Elapsed, short.Duration)
	}
}

func TestReads(t *testing.T) {
	f := new(table)
	run, err := Reads(t.Context(), f, 3, short)
	if err != nil || run.Count == 0 {
		t.Errorf("%d reads, %v; want some", run.Count, err)
	}
	if len(f.held) > 0 {
		t.Errorf("%d locks stay held", len(f.held))
	}
}

func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, err := HandOver(t.Context(), new(table), 3, Options{Prefix: short.Prefix, Duration: 50 * time.Millisecond})
		if err != nil || run.Count == 0 {
			t.Errorf("%d hand-overs, %v; want some", run.Count, err)
		}
		if got := run.Latency.Quantile(0.5); got >= holdFor {
			t.Errorf("a hand-over took %v, which has the hold in it", got)
		}
	})
}

func TestDeliveries(t *testing.T) {
	f := new(table)
	run, err := Deliveries(t.Context(), f, 5, 2, short)
	if want := 5 * f.changes.Load(); err != nil || run.Count != want {
		t.Errorf("%d deliveries, %v; want %d", run.Count, err, want)
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int64
		run, err := Pace(t.Context(), 10, 4, 50*time.Millisecond, Options{Duration: 100 * time.Millisecond},
			func(context.Context, int) error {
				done.Add(1)
				return nil
			})
		if err != nil || run.Count != done.Load() || run.Count < 19 || run.Count > 20 {
			t.Errorf("%d steps, %v; want %d, which is about 20", run.Count, err, done.Load())
		}
	})
}

func TestEach(t *testing.T) {
	var done [10]atomic.Int64
	err := Each(t.Context(), len(done), 3, func(_ context.Context, i int) error {
		done[i].Add(1)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for i := range done {
		if n := done[i].Load(); n != 1 {
			t.Errorf("step %d was done %d times, want once", i, n)
		}
	}
}

// all is everything that is measured.
func all() map[string]func(context.Context, Target) error {
	return map[string]func(context.Context, Target) error{
		"cycles":     func(ctx context.Context, f Target) error { _, err := Cycles(ctx, f, 3, short); return err },
		"reads":      func(ctx context.Context, f Target) error { _, err := Reads(ctx, f, 3, short); return err },
		"hand-over":  func(ctx context.Context, f Target) error { _, err := HandOver(ctx, f, 3, short); return err },
		"deliveries": func(ctx context.Context, f Target) error { _, err := Deliveries(ctx, f, 3, 1, short); return err },
		"pace": func(ctx context.Context, f Target) error {
			_, err := Pace(ctx, 3, 2, time.Millisecond, short, func(ctx context.Context, i int) error { return f.Lock(ctx, i, "x") })
			return err
		},
		"each": func(ctx context.Context, f Target) error {
			return Each(ctx, 1000, 3, func(ctx context.Context, i int) error { return f.Lock(ctx, i, fmt.Sprint(i)) })
		},
	}
}

// The error is the first one, and nobody hangs.
func TestErrors(t *testing.T) {
	for name, do := range all() {
		t.Run(name, func(t *testing.T) {
			f := new(table)
			f.fail.Store(true)
			if err := do(t.Context(), f); !errors.Is(err, errFailed) {
				t.Errorf("got %v, want %v", err, errFailed)
			}
		})
	}
}

// Whoever cuts a run short is the reason why it ended, and does not wait for it.
func TestCutShort(t *testing.T) {
	enough := errors.New("enough")
	for name, do := range all() {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(enough)
			if err := do(ctx, ending{new(table)}); !errors.Is(err, enough) && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, enough)
			}
		})
	}
}

// ending is a table whose locks cannot be taken by one whose context has ended.
type ending struct{ *table }

func (e ending) Lock(ctx context.Context, caller int, name string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return e.table.Lock(ctx, caller, name)
}

// A subscriber who is gone is the error, and not waited for.
func TestSubscriberStops(t *testing.T) {
	for _, after := range []int{0, 1, 1000} {
		_, err := Deliveries(t.Context(), deaf{new(table), after}, 3, 1, Options{Duration: time.Hour})
		if !errors.Is(err, errFailed) {
			t.Errorf("after %d changes: got %v, want %v", after, err, errFailed)
		}
	}
}

// deaf is a table whose subscribers stop after so many changes.
type deaf struct {
	*table
	after int
}

func (d deaf) Subscribe(ctx context.Context, connection int, prefix string, ready func(), changed func(int)) error {
	if d.after == 0 {
		return errFailed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := d.after
	d.table.Subscribe(ctx, connection, prefix, ready, func(n int) {
		changed(n)
		if left--; left == 0 {
			cancel()
		}
	})
	return errFailed
}

func TestMeasurements(t *testing.T) {
	var got []string
	for _, m := range Measurements([]int{1, 16}, []int{2}, []int{1, 1000}) {
		got = append(got, m.Row+" at "+At(m.Row, m.Size))
		if m.Size == 1000 {
			continue
		}
		if run, err := m.Run(t.Context(), new(table), short); err != nil || run.Count == 0 {
			t.Errorf("%s: %d, %v; want some", got[len(got)-1], run.Count, err)
		}
	}
	want := []string{
		"Lock+Unlock at 1 caller", "Lock+Unlock at 16 callers", "hand-over at 2 waiters",
		"Status at 1 caller", "Status at 16 callers",
		"Watch at 1 subscriber", "Watch at 1,000 subscribers", "Watch, one connection at 1,000 subscribers",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
