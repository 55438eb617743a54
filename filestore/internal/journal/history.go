package journal

import (
	"context"
	"errors"

	"github.com/pylok/pylok/lock"
)

// Query is what History is asked for.
type Query struct {
	lock.HistoryQuery
	// From is where to go on: the Next of the page before, 0 for the first page.
	From lock.Revision
	// Until leaves out events whose revision is higher.
	Until lock.Revision
	// Limit is how many events a page may have.
	Limit int
	// Bytes is how large they are together, by Event.Size, but for the last; 0:
	// lock.MaxPageBytes.
	Bytes int
}

// History returns a page of the past: durable events, and those of breaks, unless that is
// nil, from before the oldest segment. See lock.Store for what a page is.
func (j *Journal) History(ctx context.Context, breaks *Breaks, q Query) (lock.HistoryPage, error) {
	s := &search{ctx: ctx, Query: q, journal: j, budget: j.config.HistoryBytes, needles: needlesOf(q.HistoryQuery)}
	s.low, s.high = q.After, q.Until
	switch {
	case q.NewestFirst && q.From > 0:
		s.high = min(s.high, q.From-1)
	case !q.NewestFirst:
		s.low = max(s.low, q.From)
	}
	for s.low < s.high {
		err := s.round(breaks)
		switch {
		case errors.Is(err, errPageFull):
			s.page.Next = s.low
			if q.NewestFirst {
				s.page.Next = s.high + 1
			}
			return s.page, nil
		case errors.Is(err, errPruned): // what there is has to be found anew
		case err != nil:
			return lock.HistoryPage{}, err
		default:
			return s.page, nil
		}
	}
	return s.page, nil
}

// Limits of what Events returns at a time.
const (
	mostEvents     = 256
	mostEventBytes = 256 << 10
)

// Events returns durable events after a revision, and up to another, that p selects,
// oldest first, and up to which revision they are all. They are some 256 KiB at most. The
// error is a *lock.CompactedError when the events after the revision are not kept.
func (j *Journal) Events(ctx context.Context, p lock.Pattern, after, until lock.Revision) ([]lock.Event, lock.Revision, error) {
	if last := j.Last(); after < j.Kept() || after > last {
		return nil, after, &lock.CompactedError{Kept: j.Kept()}
	}
	page, err := j.History(ctx, nil, Query{
		HistoryQuery: lock.HistoryQuery{Pattern: p, After: after},
		Until:        until,
		Limit:        mostEvents,
		Bytes:        mostEventBytes,
	})
	switch kept := j.Kept(); {
	case err != nil:
		return nil, after, err
	case after < kept: // pruned meanwhile
		return nil, after, &lock.CompactedError{Kept: kept}
	case page.Next != 0:
		until = page.Next
	}
	return page.Events, until, nil
}
