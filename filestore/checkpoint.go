package filestore

import (
	"context"
	"errors"
	"time"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// checkpointEvery is how often the lock files are made durable while there are
// changes. It bounds the work of the next start.
const checkpointEvery = 30 * time.Second

// checkpoint says that the lock files are durable as of a revision.
type checkpoint struct {
	revision lock.Revision
	snapshot lock.Revision // the journal up to there can be done without
	pruned   []string      // journal files that are of no more use
}

func (c *checkpoint) record(counter lock.Revision) journal.Record {
	return journal.Record{Kind: journal.KindCheckpoint, Revision: c.revision, Counter: counter, Time: time.Now()}
}

// checkpoints makes checkpoints in the background until ctx ends, and forgets what
// need not be remembered behind them. Commits go on meanwhile. The start made one at
// the revision last.
func (s *Store) checkpoints(ctx context.Context, last lock.Revision) {
	ticker := time.NewTicker(checkpointEvery)
	defer ticker.Stop()
	if v := s.unsaved; v != nil {
		s.unsaved = nil
		s.saveSnapshot(v)
	}
	var pruned []string // journal files to be removed, oldest first
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		v := s.view.Load() // what has been published is in the files
		revision := v.revision
		if revision == last {
			continue
		}
		if err := s.files.Sync(); err != nil {
			s.config.Logger.Warn("no checkpoint could be made; a start after a crash takes longer", "error", err)
			continue
		}
		c := &commit{mark: &checkpoint{revision: revision, snapshot: s.snapshot}, done: make(chan struct{})}
		if !s.enqueue(c) {
			return
		}
		<-c.done
		if c.err != nil {
			continue // the committer has said so
		}
		last = revision
		if revision-s.snapshot >= lock.Revision(max(snapshotChanges, v.locks.Len())) || s.journal.MayPrune(s.config.History) {
			s.saveSnapshot(v)
		}
		// In order: a gap would look like damage.
		pruned = append(pruned, c.mark.pruned...)
		for len(pruned) > 0 {
			if err := s.files.Remove(pruned[0]); err != nil && !isAbsent(err) {
				s.complain(err)
				break
			}
			pruned = pruned[1:]
		}
	}
}

// probeEvery is how often a store that could not write tries again.
const probeEvery = time.Second

// probes looks, while changes are refused for want of a working disk, whether it
// works again, until ctx ends.
func (s *Store) probes(ctx context.Context) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !s.troubled.Load() {
			continue
		}
		c := &commit{probe: true, done: make(chan struct{})}
		if !s.enqueue(c) {
			return
		}
		<-c.done
	}
}

// probe tries what a change needs of the disk. Only the committer calls it.
func (s *Store) probe() {
	if s.failure() != nil {
		return
	}
	name := newFile(0)
	file, err := s.work.create(name)
	if err == nil {
		_, err = file.WriteAt(make([]byte, lock.MaxFileBytes), 0)
		err = errors.Join(err, file.Close(), s.work.Remove(name))
	}
	if err == nil {
		err = s.journal.MakeRoom()
	}
	if err == nil {
		s.recovered()
	}
}

// checkpointNow makes a checkpoint of everything, where no committer runs.
func (s *Store) checkpointNow() error {
	if s.failure() != nil {
		return nil
	}
	if err := s.files.Sync(); err != nil {
		return err
	}
	mark := &checkpoint{revision: s.journal.Last()}
	if err := s.journal.Write(true, mark.record(s.revision)); err != nil {
		return err
	}
	s.marked = mark
	return s.journal.Sync(s.journal.Written())
}
