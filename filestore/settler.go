package filestore

import (
	"sync/atomic"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// settler makes batches durable, shows them to readers and answers them, in their order:
// as many at a time as there are.
type settler struct {
	batches   chan *batch   // from the committer, which closes it
	unsettled atomic.Int32  // batches that were sent and are not settled
	done      chan struct{} // closed when nothing is settled any more
}

// mostUnsettled is how many batches wait for the settler until the committer does too.
const mostUnsettled = 256

// batch is commits on their way to being durable: their files are made, and their
// lines are in the journal.
type batch struct {
	answered []*commit // to be told
	// committed are those of them that change something.
	committed []*commit
	mark      journal.Mark  // up to where the journal must be durable, if there are any
	events    []lock.Event  // that they make
	view      *view         // the state after it; nil: that before it
	settled   chan struct{} // closed when it is settled; nil: nobody waits
}

// send hands a batch over.
func (s *settler) send(b *batch) {
	s.unsettled.Add(1)
	s.batches <- b
}

// waitSettled waits until all batches are settled that were sent.
func (s *settler) waitSettled() {
	settled := make(chan struct{})
	s.send(&batch{settled: settled})
	<-settled
}

// runSettler is the settler, until the committer has ended.
func (s *Store) runSettler() {
	defer close(s.done)
	for b := range s.batches {
		batches := []*batch{b}
		for more := true; more; {
			select {
			case b, more = <-s.batches:
				if more {
					batches = append(batches, b)
				}
			default:
				more = false
			}
		}
		s.settle(batches)
		s.unsettled.Add(-int32(len(batches)))
	}
}

// settle makes batches durable, shows them and answers them. If they cannot be made
// durable, what readers see stays what is known to be.
func (s *Store) settle(batches []*batch) {
	var err error
	for i := len(batches) - 1; i >= 0; i-- {
		if len(batches[i].committed) > 0 {
			err = s.journal.Sync(batches[i].mark)
			break
		}
	}
	if err != nil {
		s.fail(err)
	}
	var shown *view
	var events []lock.Event
	for _, b := range batches {
		for _, c := range b.committed {
			if err != nil {
				c.err = outcomeUnknown(err)
			} else if !c.onlyReleases() {
				s.recovered()
			}
		}
		if b.view != nil {
			shown = b.view
		}
		if len(events) == 0 {
			events = b.events
		} else {
			events = append(events, b.events...)
		}
	}
	if err == nil {
		s.feed.Append(func() {
			if shown != nil {
				s.view.Store(shown)
			}
		}, events...)
	}
	for _, b := range batches {
		for _, c := range b.answered {
			close(c.done)
		}
		if b.settled != nil {
			close(b.settled)
		}
	}
}
