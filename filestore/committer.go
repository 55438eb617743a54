package filestore

import (
	"errors"
	"runtime"
	"slices"
	"sync"

	"github.com/google/btree"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/pool"
	"github.com/pylok/pylok/lock"
)

// committer makes commits: it stages what has queued up, writes the lines of all of it
// into the journal, and hands the batch over to the settler, which makes it durable while
// the next batch is staged.
//
// All but the queue is guarded by committing.
type committer struct {
	queue queue

	committing sync.Mutex // held while a batch is made, and by who looks at files between two
	work       files      // its own way to the files
	held       disk.Held  // what work reaches them through
	pool       *pool.Pool
	format     format        // of the root
	batch      disk.File     // batchFile; nil: not yet opened
	batchAfter lock.Revision // what it says
	locks      *btree.BTreeG[*entry]
	revision   lock.Revision          // the last one given out; see floor
	marked     lock.Revision          // of the last checkpoint
	stale      bool                   // readers do not see yet what is known of some files
	extended   map[lock.Name]struct{} // holds whose terms are not those in their file

	ended bool // nothing is committed any more

	doomed []doomed // files in .pylok, the first in the order of revisions

	touched map[lock.Name]bool // by the batch that is being staged
	records []journal.Record   // of the batch that is being written
}

// run is the committer, until the queue is closed and empty.
func (s *Store) run() {
	defer close(s.batches)
	for s.queue.wait() {
		runtime.Gosched() // so that more share the batch: who is ready to commit goes first
		s.commitQueued()
	}
	s.committing.Lock()
	s.ended = true
	s.committing.Unlock()
}

// commitQueued commits what has queued up, at most maxBatch, in as many batches as it takes.
func (s *Store) commitQueued() {
	s.committing.Lock()
	defer s.committing.Unlock()
	for commits := s.queue.take(); len(commits) > 0; {
		commits = s.commitBatch(commits)
	}
}

// commitBatch stages commits and makes a batch of them, but for those that it returns:
// they are about a lock that one before them changes, and come after it.
func (s *Store) commitBatch(commits []*commit) (later []*commit) {
	b := &batch{answered: commits[:0]}
	adds := 0 // locks, by what is staged
	clear(s.touched)
	for _, c := range commits {
		if len(commits) > 1 {
			if s.touches(c) {
				later = append(later, c)
				continue
			}
			for i := range c.changes {
				s.touched[c.changes[i].Lock.Name] = true
			}
		}
		b.answered = append(b.answered, c)
		if c.err = s.stage(c, adds); c.err == nil {
			b.committed = append(b.committed, c)
			adds += c.adds()
		}
	}
	s.commitStaged(b)
	return later
}

// touches reports whether a commit is about a lock that the batch changes.
func (s *Store) touches(c *commit) bool {
	for i := range c.changes {
		if s.touched[c.changes[i].Lock.Name] {
			return true
		}
	}
	return slices.ContainsFunc(c.guards, func(g lock.Guard) bool { return s.touched[g.Name] })
}

// between calls do between two batches, where files and state agree, and makes a batch of
// the steps that it adds to a commit, if any. It returns that commit when it is durable and
// readers see what do has changed; nil: the store is closed. After a failure of the store
// do is not called.
func (s *Store) between(do func(c *commit)) *commit {
	c := &commit{done: make(chan struct{})}
	s.committing.Lock()
	if s.ended {
		s.committing.Unlock()
		return nil
	}
	b := &batch{answered: []*commit{c}}
	if s.failure() == nil {
		do(c)
	}
	if c.err == nil && len(c.steps) > 0 {
		b.committed = append(b.committed, c)
	}
	s.commitStaged(b)
	s.committing.Unlock()
	<-c.done
	return c
}

// commitStaged writes a batch that is staged to the journal and hands it over to the
// settler. If readers do not see yet what is known of some files, they see it with the
// batch.
func (s *Store) commitStaged(b *batch) {
	defer s.held.Release()
	if len(b.committed) > 0 && s.journal.IsFull() {
		s.waitSettled() // the next segment begins where all is durable
		defer s.noteRotation()
	}
	if b.committed = s.write(b.committed); len(b.committed) > 0 {
		b.mark = s.journal.Written()
		s.advance(b)
		s.recycle(b.committed)
	}
	if (len(b.committed) > 0 || s.stale) && s.failure() == nil {
		b.view = &view{revision: s.journal.Written().Last, locks: s.locks.Clone()}
		s.stale = false
	}
	if len(b.committed) == 1 && s.unsettled.Load() == 0 {
		s.settle([]*batch{b}) // fast path: nothing is before it, and to wake up the settler takes longer
	} else {
		s.send(b)
	}
	s.removeDoomed()
}

// write puts the staged commits into the journal, and returns those for which
// there was room; the others are refused. Room is kept for commits that only
// release, so that a full disk can be helped.
func (s *Store) write(staged []*commit) (written []*commit) {
	err := s.writeRecords(staged, false)
	if err == nil {
		return staged
	}
	for _, c := range staged {
		if c.onlyReleases() {
			written = append(written, c)
		} else {
			s.refuse(c, err)
		}
	}
	if err = s.writeRecords(written, true); err == nil {
		return written
	}
	for _, c := range written {
		s.refuse(c, err)
	}
	return nil
}

// refuse gives up a staged commit that the journal did not take.
func (s *Store) refuse(c *commit, err error) {
	if !errors.Is(err, journal.ErrNoRoom) {
		s.fail(err)
		c.err = outcomeUnknown(err)
		return
	}
	s.unstage(c)
	c.err = s.ioError(err)
}

func (s *Store) writeRecords(commits []*commit, reserved bool) error {
	s.records = s.records[:0]
	for _, c := range commits {
		for i := range c.steps {
			st := &c.steps[i]
			if st.ended != nil {
				s.records = append(s.records, *st.ended)
			}
			if st.after != nil {
				st.record.File = st.after.print.id()
			}
			s.records = append(s.records, st.record)
		}
	}
	defer clear(s.records) // what they refer to need not stay
	if len(s.records) == 0 {
		return nil
	}
	return s.journal.Write(reserved, s.records...)
}

// advance makes the changes of a batch, whose lines are written, the state that the
// next one is checked against.
func (s *Store) advance(b *batch) {
	n := 0
	for _, c := range b.committed {
		for i := range c.steps {
			n++
			if c.steps[i].ended != nil {
				n++
			}
		}
	}
	b.events = make([]lock.Event, 0, n)
	for _, c := range b.committed {
		c.events = make([]lock.Event, 0, len(c.steps))
		for i := range c.steps {
			st := &c.steps[i]
			name := st.record.Event.Lock.Name
			switch st.record.Kind {
			case journal.KindCheckpoint:
				continue
			case journal.KindExtended:
				st.after.print = find(s.locks, name).print // learn may have been there
				s.extended[name] = struct{}{}
				c.events = append(c.events, lock.Event{})
			default:
				delete(s.extended, name)
				c.events = append(c.events, st.record.Event)
				if st.ended != nil {
					b.events = append(b.events, st.ended.Event)
				}
				b.events = append(b.events, st.record.Event)
			}
			if st.after != nil {
				s.locks.ReplaceOrInsert(st.after)
			} else {
				s.locks.Delete(st.before)
				s.suspects.Emptied(name)
			}
		}
	}
}

// recycle gives the pool what had the places of lock files that the journal says are over
// or replaced. What others made, or may have made theirs, is doomed.
func (s *Store) recycle(committed []*commit) {
	for _, c := range committed {
		for i := range c.steps {
			st := &c.steps[i]
			switch {
			case st.moved == "":
			case st.before.fileToken == st.before.lock.Token && s.pool.Return(st.moved, uint64(st.record.Event.Revision)):
			default:
				s.doomed = append(s.doomed, doomed{st.moved, st.record.Event.Revision})
			}
		}
	}
}

// doomed is a file that had a lock's place and goes when the change that says so is durable:
// after a power cut before that, a start puts it back.
type doomed struct {
	name string
	by   lock.Revision // of the change
}

// removeDoomed removes the doomed files of changes that are durable.
func (s *Store) removeDoomed() {
	if len(s.doomed) == 0 {
		return
	}
	durable := s.view.Load().revision
	for len(s.doomed) > 0 && s.doomed[0].by <= durable {
		s.complain(s.work.Remove(s.doomed[0].name))
		s.doomed = s.doomed[1:]
	}
}

// noteRotation has the background look whether the journal has become too large.
func (s *Store) noteRotation() {
	select {
	case s.rotated <- struct{}{}:
	default:
	}
}
