package filestore

import (
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/filestore/internal/recovery"
	"github.com/pylok/pylok/filestore/internal/suspects"
	"github.com/pylok/pylok/lock"
)

// restart is what the start of a store works with: the past by the journal, the present by
// the files, and what holds for all of them, by which package recovery judges.
type restart struct {
	*Store
	marks
	recovery.Start
	past       map[lock.Name]*recovery.Past
	finished   bool                            // a start has come to its end before
	snapshotAt lock.Revision                   // the locks that it has are in Store.locks
	hasBatch   bool                            // there is a batchFile
	crashed    bool                            // the last server did not stop cleanly
	written    map[uint64]bool                 // inodes of the files that have a second name, as servers before this one gave them
	asides     map[string][]recovery.Aside     // files that had the place of a lock file, by the hash of its name
	holders    map[journal.FileID]lock.Name    // of files, as far as the past knows; nil: not yet asked for
	unlisted   map[string]error                // directories that could not be read
	highest    lock.Token                      // in any lock file
	leftover   []string                        // files to be removed in the end
	outside    *commit                         // the changes that others made
	reserved   map[lock.Name]lockfile.Reserved // in the files that these are about
	mended     map[lock.Name]bool
	read       int                           // files that were read
	dirs       map[string]suspects.Directory // as they were listed
	now        time.Time
}

// recover fills the store, and returns what it has learned on the way.
func (s *Store) recover(ctx context.Context) (*restart, error) {
	r := newRestart(s)
	if err := r.readMarks(); err != nil {
		return nil, err
	}
	if r.noPast {
		if err := r.giveUpPast(); err != nil {
			return nil, fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
		}
	}
	r.readSnapshot()
	err := r.openJournal()
	if err != nil {
		return nil, err
	}
	if err := r.checkPast(); err != nil {
		return nil, fmt.Errorf("the root %s cannot be served: %w", r.files.root, err)
	}
	if s.journal.Last() < r.snapshotAt || r.snapshotAt < s.journal.Kept() {
		// The snapshot and the journal are not of the same past: somebody
		// took the journal away, or put another there.
		if err := s.journal.Close(); err != nil {
			return nil, err
		}
		forgotten := lock.Token(r.snapshotAt)
		if r, err = s.recoverWithoutSnapshot(r.marks); err != nil {
			return nil, err
		}
		r.highest = max(r.highest, forgotten) // no revision is ever used again
	}
	r.believe(s.claim.before)
	if err := r.compareAll(ctx, r.carryOutNow); err != nil {
		return nil, err
	}
	s.snapshot = r.snapshotAt
	if err := r.finish(); err != nil {
		return nil, err
	}
	return r, nil
}

// recoverWithoutSnapshot begins a recovery again, after it has removed the snapshot,
// so that no later start believes it.
func (s *Store) recoverWithoutSnapshot(known marks) (*restart, error) {
	if err := s.files.Remove(snapshotFile); err != nil && !disk.IsAbsent(err) {
		return nil, err
	}
	if err := s.files.SyncDir(ownDir); err != nil {
		return nil, err
	}
	s.locks.Clear(false)
	clear(s.extended)
	r := newRestart(s)
	r.marks = known
	return r, r.openJournal()
}

// openJournal opens the journal and takes it in.
func (r *restart) openJournal() error {
	if err := r.findLeftovers(); err != nil {
		return err
	}
	config := r.config.journal
	config.After = r.snapshotAt
	var err error
	if r.Store.journal, err = journal.Open(r.files, journalDir, config, r.replay); err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	return nil
}

// believe takes in what the last server said in .pylok/daemon. It moves the checkpoint
// forward if the file system has been intact since that server wrote to it: then all that
// the journal has is in the files, which are changed before.
func (r *restart) believe(daemon []byte) {
	mount := mountOf(daemon)
	r.Unsynced = mount == syncFailed
	r.Intact = mount != "" && mount == r.files.Mount()
	r.End = r.journal.Last()
	r.crashed = r.hasBatch || r.End > r.Checkpoint // a power cut may have taken batchFile
	if r.Intact {
		r.Checkpoint = max(r.Checkpoint, r.End)
	}
	// A journal that lacks more than the last batch is not asked.
	r.Unheard = r.finished && r.crashed && r.End >= r.batchAfter
}

func newRestart(s *Store) *restart {
	return &restart{
		Store:    s,
		past:     make(map[lock.Name]*recovery.Past),
		written:  make(map[uint64]bool),
		asides:   make(map[string][]recovery.Aside),
		outside:  &commit{},
		unlisted: make(map[string]error),
		reserved: make(map[lock.Name]lockfile.Reserved),
		mended:   make(map[lock.Name]bool),
		dirs:     make(map[string]suspects.Directory),
		now:      time.Now().UTC().Truncate(time.Millisecond),
	}
}

// findLeftovers finds the files that the last server has left in .pylok.
func (r *restart) findLeftovers() error {
	var err error
	if r.batchAfter, r.hasBatch, err = readBatchFile(r.files); err != nil {
		return err
	}
	entries, err := disk.List(r.files, ownDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		number, hash, suffix, ok := parseOwn(entry.Name())
		if !ok {
			continue
		}
		r.pool.Skip(number)
		if suffix == keptSuffix {
			continue
		}
		name := ownDir + "/" + entry.Name()
		r.leftover = append(r.leftover, name)
		found, err := r.files.readAt(name, nil)
		if err != nil {
			return err
		}
		r.noteToken(found.Token) // somebody may have seen it, although nothing came of it
		if suffix == newSuffix {
			r.written[found.print.inode] = true
			continue
		}
		r.asides[hash] = append(r.asides[hash], recovery.Aside{Found: r.foundOf(lock.Name{}, found), Name: name, Alone: suffix == takeSuffix})
	}
	return nil
}

// parseOwn takes the name of a file apart that is named by asideOf, keptOf or the pool.
func parseOwn(file string) (number uint64, hash, suffix string, ok bool) {
	suffix = path.Ext(file)
	digits, hash, _ := strings.Cut(strings.TrimSuffix(file, suffix), "-")
	number, err := strconv.ParseUint(digits, 10, 64)
	isOwn := slices.Contains([]string{newSuffix, moveSuffix, takeSuffix, keptSuffix}, suffix)
	return number, hash, suffix, isOwn && err == nil && number < math.MaxUint64/2
}

// replay takes in one line of the journal.
func (r *restart) replay(record journal.Record) error {
	switch record.Kind {
	case journal.KindCheckpoint:
		r.finished = true
		r.Checkpoint = max(r.Checkpoint, record.Revision)
		r.highest = max(r.highest, lock.Token(record.Counter))
	case journal.KindExtended:
		if past := r.pastOf(record.Event.Lock.Name); past != nil && record.Revision >= r.snapshotAt {
			past.Extend(record.Event.Lock)
		}
	case journal.KindEvent:
		event := record.Event
		if event.Revision <= r.snapshotAt {
			return nil
		}
		past := r.pastOf(event.Lock.Name)
		if past == nil {
			past = &recovery.Past{}
			r.past[event.Lock.Name] = past
		}
		past.Add(event, r.fileOf(record.File, event.Revision), r.Checkpoint)
		delete(r.extended, event.Lock.Name)
	}
	return nil
}

// fileOf is the id of a file as it was written down as of a revision, or zero where it
// says nothing: in a copy of the root the files are others.
func (r *restart) fileOf(id journal.FileID, at lock.Revision) journal.FileID {
	if id.Birth == 0 || r.before.Own != r.own || at <= r.before.OwnSince {
		return journal.FileID{}
	}
	return id
}

// pastOf returns what the journal and the snapshot say of a lock, nil: nothing.
func (r *restart) pastOf(name lock.Name) *recovery.Past {
	past := r.past[name]
	if e := find(r.locks, name); past == nil && e != nil {
		past = recovery.Snapshot(e.lock, e.byFile, e.fileToken != e.lock.Token, e.extended, r.fileOf(e.print.id(), r.snapshotAt))
		r.past[name] = past
	}
	return past
}

// mostUnread is more revisions than the last batch can have given out.
const mostUnread = 1 << 16

// finish commits the outside changes, with revisions above all that was ever
// given out, and makes what was mended durable.
func (r *restart) finish() error {
	r.revision = r.beginAbove()
	r.journal.Advance(r.revision)
	if err := r.writeMarks(r.nextMark(r.revision, 2*len(r.outside.steps))); err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	if r.config.AcceptRestore {
		r.config.Logger.Warn("the root was accepted as it is; leave --accept-restore out from now on, or no start can tell an older copy", "tokens_above", r.revision)
	}
	var records []journal.Record
	for i := range r.outside.steps {
		st := &r.outside.steps[i]
		if st.before != nil {
			r.revision++ // for its end
		}
		r.revision++
		e := &st.record.Event
		e.Revision, e.Time, e.Lock.Revision = r.revision, r.now, r.revision
		if e.Type == lock.Locked {
			e.Lock.Token = lock.Token(r.revision)
		}
		if st.after != nil {
			st.after.lock = e.Lock
			r.insert(st.after, r.reserved[e.Lock.Name])
		}
		if st.endBefore(); st.ended != nil {
			records = append(records, *st.ended)
		}
		if st.after != nil {
			st.record.File = st.after.print.id()
		}
		records = append(records, st.record)
		r.config.Logger.Info("a lock file was changed while no server ran", "name", e.Lock.Name, "event", e.Type, "revision", e.Revision, "problem", e.Lock.Problem)
	}
	if err := r.haveFormatOfAll(); err != nil { // before there are lines that need it
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	const batch = 1024
	for n := 0; len(records) > 0; records = records[n:] {
		for n = min(batch, len(records)); records[n-1].More; n++ {
		}
		err := r.journal.Write(true, records[:n]...) // others have done it
		if err == nil {
			err = r.journal.Sync(r.journal.Written()) // before the checkpoint, which includes them
		}
		if err != nil {
			return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
		}
	}
	if len(r.mended) > 0 {
		r.config.Logger.Warn("the last server did not stop cleanly; lock files were brought in line with the journal", "files", len(r.mended))
	}
	err := r.checkpointNow()
	if err == nil {
		r.discard()
		err = r.claim.sign(r.files, r.files.Mount())
	}
	if err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	return nil
}
