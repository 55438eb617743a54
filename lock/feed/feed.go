// Package feed keeps the most recent events of a store in memory, for any number
// of readers. A reader is nothing but the revision it has come to, so one that is
// slow or gone costs nothing.
package feed

import (
	"context"
	"slices"
	"sort"
	"sync"

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
	news    chan struct{} // closed by the next Append or Close; nil: nobody waits
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
	return &Feed{config: config, kept: after, last: after}
}

// Append adds events, whose revisions increase and are above all before them, and
// wakes the readers that wait. It panics on events out of order. After Close it
// does nothing.
func (f *Feed) Append(events ...lock.Event) {
	if len(events) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for _, event := range events {
		if event.Revision <= f.last {
			panic("feed: events out of order")
		}
		f.last = event.Revision
		f.add(event)
	}
	f.trim()
	f.wake()
}

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

// trim lets go of the oldest events until the rest is within the limits.
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

func (f *Feed) wake() {
	if f.news != nil {
		close(f.news)
		f.news = nil
	}
}

// After returns events after a revision, oldest first, without a gap: at least one
// and at most 256 KiB or 256 events. It waits until there is one. The slice is
// shared: the caller must not change it. The errors are a *lock.CompactedError when
// an event after that revision is no longer kept or the revision is yet to come,
// lock.ErrShuttingDown after Close, and ctx's.
func (f *Feed) After(ctx context.Context, after lock.Revision) ([]lock.Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		events, news, err := f.look(after)
		if news == nil {
			return events, err
		}
		select {
		case <-news:
		case <-ctx.Done():
		}
	}
}

// look returns what there is after a revision, or a channel that is closed when
// there may be something.
func (f *Feed) look(after lock.Revision) (events []lock.Event, news <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, nil, &lock.Error{
			Reason:  lock.ErrShuttingDown,
			Message: "the server is shutting down; ask again when it is back",
		}
	case after < f.kept || after > f.last:
		return nil, nil, &lock.CompactedError{Kept: f.kept}
	case after == f.last:
		if f.news == nil {
			f.news = make(chan struct{})
		}
		return nil, f.news, nil
	}
	i := sort.Search(len(f.batches), func(i int) bool {
		b := f.batches[i].events
		return b[len(b)-1].Revision > after
	})
	b := f.batches[i].events
	j := sort.Search(len(b), func(j int) bool { return b[j].Revision > after })
	return b[j:len(b):len(b)], nil, nil
}

// Close ends all calls of After, and fails later ones.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.batches = nil
	f.wake()
}
