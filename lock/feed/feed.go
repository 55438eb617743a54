// Package feed keeps the most recent events of a store in memory, for any number
// of readers. A reader is nothing but the revision it has come to, so one that is
// slow or gone costs nothing; one that waits is woken by what concerns it alone.
package feed

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/pylok/pylok/lock"
)

// Config limits what a Feed keeps. The zero value of each field stands for its
// default.
type Config struct {
	// Events is how many events are kept. Default 8,192.
	Events int
	// Bytes is how many bytes the kept events may take, their data included.
	// The newest event is kept whatever its size. Default 16 MiB.
	Bytes int
}

// Limits of a batch, which is also the unit in which memory is given back: up to
// one batch more than Config says stays in memory.
const (
	batchEvents = 256
	batchBytes  = 256 << 10
)

// Feed keeps the most recent events. Every method may be called from many
// goroutines at once; the zero Feed is not ready for use.
type Feed struct {
	config Config

	mu      sync.Mutex
	batches []batch       // oldest first, none empty
	events  int           // in all batches
	bytes   int           // in all batches
	kept    lock.Revision // every event after this revision is in batches
	last    lock.Revision // revision of the newest event, else kept
	closed  bool
	waiting audience
}

// batch is a run of events. Readers hold slices of it, so it only ever grows at
// its end, and what leaves it at its front is not overwritten.
type batch struct {
	events []lock.Event
	bytes  int
}

// New returns a Feed that keeps the events after a revision.
func New(after lock.Revision, config Config) *Feed {
	if config.Events == 0 {
		config.Events = 8192
	}
	if config.Bytes == 0 {
		config.Bytes = 16 << 20
	}
	return &Feed{config: config, kept: after, last: after, waiting: newAudience()}
}

// Append shows the state that the events lead to, by calling show, if that is not nil,
// and adds the events, whose revisions increase and are above all before them. It wakes
// the readers that wait for one of them. No call of Events comes between the two: who
// knows a revision from what was shown finds its events. It panics on events out of
// order. After Close it adds nothing.
func (f *Feed) Append(show func(), events ...lock.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if show != nil {
		show()
	}
	if f.closed {
		return
	}
	for _, event := range events {
		if event.Revision <= f.last {
			panic("feed: events out of order")
		}
		f.last = event.Revision
		f.add(event)
		f.waiting.wake(event)
	}
	f.trim()
}

// add keeps an event. The caller must hold mu.
func (f *Feed) add(event lock.Event) {
	size := event.Size()
	end := len(f.batches) - 1
	if end < 0 || len(f.batches[end].events) >= batchEvents || f.batches[end].bytes+size > batchBytes {
		f.batches = append(f.batches, batch{})
		end++
	}
	b := &f.batches[end]
	b.events = append(b.events, event)
	b.bytes += size
	f.events++
	f.bytes += size
}

// trim lets go of the oldest events until the rest is within the limits. The caller must
// hold mu.
func (f *Feed) trim() {
	empty := 0
	for f.events > 1 && (f.events > f.config.Events || f.bytes > f.config.Bytes) {
		b := &f.batches[empty]
		size := b.events[0].Size()
		f.kept = b.events[0].Revision
		b.events = b.events[1:]
		b.bytes -= size
		f.events--
		f.bytes -= size
		if len(b.events) == 0 {
			empty++
		}
	}
	f.batches = slices.Delete(f.batches, 0, empty)
}

// Events returns events after a revision that p selects, oldest first: at least one and
// at most 256 KiB or 256. Until is the revision up to which they are all. It waits for
// one for at most the time wait, and then returns none. The slice is shared: the caller
// must not change it.
//
// The errors are a *lock.CompactedError when an event after that revision is no longer
// kept or the revision is yet to come, lock.ErrShuttingDown after Close, and ctx's. With
// an error too, p selects none of the events up to until.
func (f *Feed) Events(ctx context.Context, p lock.Pattern, after lock.Revision, wait time.Duration) (events []lock.Event, until lock.Revision, err error) {
	deadline := time.Now().Add(wait)
	for {
		if err := ctx.Err(); err != nil {
			return nil, after, err
		}
		some, g, err := f.look(p, after, wait > 0)
		switch {
		case err != nil:
			return nil, after, err
		case len(some) > 0:
			if run := firstRun(p, some); len(run) > 0 {
				return run, run[len(run)-1].Revision, nil
			}
			after = some[len(some)-1].Revision
		case g == nil:
			return nil, after, nil
		default:
			var woken bool
			if after, woken, err = f.await(ctx, g, after, time.Until(deadline)); !woken {
				return nil, after, err
			}
		}
	}
}

// look returns events after a revision, whatever they are of; where there are none yet
// and the caller wants to wait, what it is to await.
func (f *Feed) look(p lock.Pattern, after lock.Revision, wait bool) ([]lock.Event, *group, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, nil, shuttingDown()
	case after < f.kept || after > f.last:
		return nil, nil, &lock.CompactedError{Kept: f.kept}
	case after == f.last && wait:
		return nil, f.waiting.join(p), nil
	case after == f.last:
		return nil, nil, nil
	}
	i := sort.Search(len(f.batches), func(i int) bool {
		b := f.batches[i].events
		return b[len(b)-1].Revision > after
	})
	b := f.batches[i].events
	j := sort.Search(len(b), func(j int) bool { return b[j].Revision > after })
	return b[j:len(b):len(b)], nil, nil
}

// firstRun returns the first events, one after the other, that p selects.
func firstRun(p lock.Pattern, events []lock.Event) []lock.Event {
	selected := func(e lock.Event) bool { return p.Match(e.Lock.Name) }
	i := slices.IndexFunc(events, selected)
	if i < 0 {
		return nil
	}
	events = events[i:]
	if n := slices.IndexFunc(events, func(e lock.Event) bool { return !selected(e) }); n >= 0 {
		return events[:n:n]
	}
	return events
}

// await waits until an event comes that concerns the group, for at most the time wait.
// It reports whether one has come, and up to which revision none has.
func (f *Feed) await(ctx context.Context, g *group, after lock.Revision, wait time.Duration) (until lock.Revision, woken bool, err error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-g.news:
		if g.first == 0 {
			return after, false, shuttingDown()
		}
		return g.first - 1, true, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return after, false, shuttingDown()
	case g.first != 0: // it came just now
		return g.first - 1, true, nil
	}
	f.waiting.leave(g)
	return f.last, false, ctx.Err()
}

// Close ends all calls of Events, and fails later ones.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.batches = nil
		f.waiting.wakeAll()
	}
}

func shuttingDown() error {
	return &lock.Error{
		Reason:  lock.ErrShuttingDown,
		Message: "the server is shutting down; ask again when it is back",
	}
}
