package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// checkpointEvery is how often the lock files are made durable while there are
// changes. It bounds the work of the next start.
const checkpointEvery = 30 * time.Second

// checkpointer makes checkpoints and snapshots, and prunes the journal behind them. What
// follows checkpointing is guarded by it; Close uses it when the background work has ended.
type checkpointer struct {
	rotated chan struct{} // has an element when the journal has begun a segment

	checkpointing sync.Mutex    // held while a checkpoint is made
	snapshot      lock.Revision // of the last snapshot
	unsaved       *view         // what the start found, if that took long; nil: no more
	pruned        []string      // segments of the journal that are to be removed, oldest first
}

// checkpointAt returns the journal's line that the lock files are durable as of a revision.
// The caller must hold committing, or be alone.
func (s *Store) checkpointAt(revision lock.Revision) journal.Record {
	return journal.Record{Kind: journal.KindCheckpoint, Revision: revision, Counter: s.revision, Time: time.Now()}
}

// checkpoints makes checkpoints in the background until ctx ends, and forgets what
// need not be remembered behind them. Commits go on meanwhile. The start made one at
// the revision last.
func (s *Store) checkpoints(ctx context.Context, last lock.Revision) {
	ticker := time.NewTicker(s.config.checkpointEvery)
	defer ticker.Stop()
	if v := s.unsaved; v != nil {
		s.unsaved = nil
		s.saveSnapshot(v)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.rotated:
			// Each checkpoint has a price: while many changes are made, one for
			// each quarter of what is kept.
			excess := s.config.History
			excess.Bytes += excess.Bytes / 4
			if !s.mayPrune(excess) {
				continue
			}
		case <-ticker.C:
		}
		if s.failure() != nil || s.view.Load().revision == last && !s.mayPrune(s.config.History) {
			continue
		}
		made, err := s.makeCheckpoint(false)
		s.complaints.Result(complaints.NoCheckpoint, err)
		if err != nil {
			continue
		}
		last = made
	}
}

// syncFiles makes the lock files durable. After it has failed once the store takes no
// changes until it is opened again, which writes the files again that are in doubt.
func (s *Store) syncFiles() error {
	err := s.files.Sync()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("the lock files could not be made durable; restart the server when the disk is well: %w", err)
	s.fail(err)
	return errors.Join(err, s.claim.sign(s.files, syncFailed))
}

// mayPrune reports whether a retention lets go of a segment of the journal.
func (s *Store) mayPrune(keep Retention) bool {
	return len(s.journal.Prunable(keep, math.MaxUint64)) > 0
}

// makeCheckpoint makes a checkpoint of what readers see, which is in the files, and
// returns its revision. It makes a snapshot, if one is asked for or due, and prunes the
// journal.
func (s *Store) makeCheckpoint(snapshot bool) (lock.Revision, error) {
	s.checkpointing.Lock()
	defer s.checkpointing.Unlock()
	if err := s.failure(); err != nil {
		return 0, err
	}
	v := s.view.Load()
	if err := s.syncFiles(); err != nil {
		return 0, err
	}
	if snapshot || v.revision-s.snapshot >= lock.Revision(max(snapshotChanges, v.locks.Len())) || s.mayPrune(s.config.History) {
		s.saveSnapshot(v)
	}
	pruned := s.journal.Prunable(s.config.History, s.snapshot)
	if err := s.breaks.Keep(breaksRetention(s.config.History), pruned); err != nil {
		s.complain(err)
		pruned = nil // they are kept until it works
	}
	c := s.between(func(c *commit) {
		s.marked = v.revision
		c.steps = []step{{record: s.checkpointAt(v.revision)}}
	})
	if c == nil {
		return v.revision, nil // Close makes one
	}
	if err := cmp.Or(c.err, s.failure()); err != nil {
		return 0, err
	}
	isPruned := false
	s.between(func(*commit) {
		s.journal.Prune(len(pruned))
		isPruned = true
	})
	if !isPruned { // the store is closed, or has failed
		return v.revision, nil
	}
	s.pruned = append(s.pruned, pruned...)
	if err := s.noteProgress(); err != nil {
		s.complain(err)
		return v.revision, nil // the next start would miss what is pruned
	}
	// In order: a gap would look like damage.
	for len(s.pruned) > 0 {
		err := s.files.Remove(s.pruned[0])
		if err == nil || disk.IsAbsent(err) {
			err = s.files.Remove(journal.IndexFile(s.pruned[0]))
		}
		if err != nil && !disk.IsAbsent(err) {
			s.complain(err)
			break
		}
		s.pruned = s.pruned[1:]
	}
	return v.revision, nil
}

// breaksFile is where breaks are that the journal no longer has.
const breaksFile = ownDir + "/breaks.jsonl"

// breaksRetention is how much of the breaks is kept beside all of the past: longer, and
// a share of their own.
func breaksRetention(r Retention) Retention { return Retention{Age: 4 * r.Age, Bytes: r.Bytes / 16} }

// checkpointNow makes a checkpoint of everything, where no committer runs.
func (s *Store) checkpointNow() error {
	if s.failure() != nil {
		return nil
	}
	if err := s.syncFiles(); err != nil {
		return err
	}
	s.marked = s.journal.Last()
	if err := s.journal.Write(true, s.checkpointAt(s.marked)); err != nil {
		return err
	}
	return s.journal.Sync(s.journal.Written())
}
