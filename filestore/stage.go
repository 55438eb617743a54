package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// Staging a commit is to check it and to make it of the lock files. It can be undone until
// its lines are in the journal.

// step is a staged change: what it does to the files, the journal and the state.
type step struct {
	before *entry          // nil: the lock was free
	after  *entry          // nil: it will be free
	ended  *journal.Record // the line before record: the end of a hold that another replaces; nil: none
	record journal.Record
	placed bool   // the new file has its place, which was empty
	moved  string // the name in .pylok of what had its place; empty: nothing
}

// stage checks a commit against the state and the files and prepares its steps. On
// an error nothing is left of it. added is how many locks the batch adds before it.
func (s *Store) stage(c *commit, added int) (err error) {
	if err := s.failure(); err != nil {
		return readOnly(err)
	}
	if away := s.away.Load(); away != nil {
		return *away
	}
	revision, seen := s.revision, false
	defer func() {
		if err != nil {
			s.unstage(c)
			if !seen { // a number that nobody can have read is used again
				s.revision = revision
			}
		}
	}()
	if err := s.check(c, added); err != nil {
		return err
	}
	if err := s.haveRevisions(2 * len(c.changes)); err != nil {
		return s.ioError(err)
	}
	if err := s.haveFormatOf(c.changes); err != nil {
		return s.ioError(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	c.steps = slices.Grow(c.first[:0], len(c.changes))
	for i := range c.changes {
		var st step
		err := s.stageChange(&st, c, i, now)
		seen = seen || st.after != nil && st.record.Kind == journal.KindEvent
		if err != nil {
			return err
		}
		st.record.More = i < len(c.changes)-1
		c.steps = append(c.steps, st)
	}
	return nil
}

// check holds a commit to the state of the locks. added is how many the batch adds before
// it.
func (s *Store) check(c *commit, added int) error {
	for _, guard := range c.guards {
		if s.present(guard.Name) != guard.Revision {
			return lock.ErrConflict
		}
	}
	for i, change := range c.changes {
		if c.isEnded(change.Lock.Name, i) {
			continue // it is free then
		}
		present := s.present(change.Lock.Name)
		if change.Prev != present || present == 0 && change.Type != lock.Locked {
			return lock.ErrConflict
		}
	}
	held := s.locks.Len() + added
	if adds := c.adds(); adds > 0 && held+adds > s.config.MaxLocks {
		return &lock.Error{
			Reason:  lock.ErrTooManyLocks,
			Message: fmt.Sprintf("%d locks are held, the most that this server allows is %d; unlock some, or raise its --max-locks", held, s.config.MaxLocks),
		}
	}
	return nil
}

// present returns the revision at which a lock stands, 0: it is free.
func (s *Store) present(name lock.Name) lock.Revision {
	if e := find(s.locks, name); e != nil {
		return e.lock.Revision
	}
	return 0
}

// stageChange prepares the step of one change of a commit that has been checked. A lock
// that is handed over has its file replaced by the grant, and the end of its hold is a line
// of the journal alone. With an error, a step with an entry after it says that somebody may
// have seen its revision.
func (s *Store) stageChange(st *step, c *commit, i int, now time.Time) error {
	change := &c.changes[i]
	name := change.Lock.Name
	st.before = find(s.locks, name)
	if change.Type == lock.Extended {
		after := *st.before
		after.extended = true
		after.lock.TTL, after.lock.ExpireTime = change.Lock.TTL, change.Lock.ExpireTime
		st.after = &after
		st.record = journal.Record{Kind: journal.KindExtended, Event: lock.Event{Lock: after.lock}}
		return nil
	}
	replaces := st.before != nil && change.Type == lock.Locked && !c.isEnded(name, i)
	if replaces {
		s.revision++ // for the end of what it replaces
	}
	st.record = journal.Record{Kind: journal.KindEvent, Event: s.nextEvent(change, now)}
	c.nameSet(&st.record.Event)
	if replaces {
		st.endBefore()
	}
	switch {
	case change.Type != lock.Unlocked:
		return s.stageFile(st)
	case c.isGranted(name, i):
		return nil
	}
	return s.stageRelease(st)
}

// nextEvent returns the event of a change, with the next revision.
func (s *Store) nextEvent(change *lock.Change, now time.Time) lock.Event {
	s.revision++
	l := change.Lock
	l.Warnings = "" // they are of the file, and this is another one
	l.Revision = s.revision
	if change.Type == lock.Locked {
		l.Token = lock.Token(s.revision)
		if l.AcquireTime.IsZero() {
			l.AcquireTime = now
		}
	}
	return lock.Event{
		Revision: s.revision,
		Time:     now,
		Type:     change.Type,
		Cause:    change.Cause,
		Lock:     l,
		Actor:    change.Actor,
		Reason:   change.Reason,
	}
}

// nameSet gives the event of a hold that is granted in a set without an id that id.
func (c *commit) nameSet(e *lock.Event) {
	set := &e.Lock.Set
	if e.Type != lock.Locked || set.Size == 0 || set.ID != 0 {
		return
	}
	if c.set == 0 {
		c.set = e.Lock.Token
	}
	set.ID = c.set
}

// stageRelease takes a lock's file out of its place.
func (s *Store) stageRelease(st *step) error {
	if err := s.mayMove(st.before); err != nil {
		return err
	}
	name := st.before.lock.Name
	moved := s.takenFile(name)
	if err := s.work.take(name, st.before.print, moved); err != nil {
		return s.placeError(name, err)
	}
	st.moved = moved
	return nil
}

// stageFile gives the lock its new file, in place of the one that it has, if any.
func (s *Store) stageFile(st *step) error {
	if st.before != nil {
		if err := s.mayMove(st.before); err != nil {
			return err
		}
	}
	l := st.record.Event.Lock
	text := lockfile.Append(nil, l, s.work.location(l.Name))
	if err := checkSize(l, len(text)); err != nil {
		return err
	}
	if err := s.beginBatch(); err != nil {
		return s.ioError(err)
	}
	file, stat, err := s.pool.Take(text, uint64(s.view.Load().revision))
	if err != nil {
		return s.ioError(err)
	}
	st.after = &entry{key: l.Name.String(), lock: l, fileToken: l.Token, print: newPrint(stat)}
	if st.before == nil {
		if err := s.work.place(file, l.Name); err != nil {
			s.complain(s.work.Remove(file))
			return s.newFileError(l.Name, err)
		}
		st.placed = true
		return nil
	}
	moved := s.movedFile(l.Name)
	if err := s.work.replace(l.Name, file, st.after.print, st.before.print, moved); err != nil {
		return s.placeError(l.Name, err)
	}
	st.moved = moved
	return nil
}

// mayMove reports by its error why what is in the place of a held lock's file, as far as it
// is known, is not moved to be looked at.
func (s *Store) mayMove(e *entry) error {
	switch {
	case e.print.isDir:
		return &lock.Error{
			Reason:  lock.ErrLockFile,
			Message: fmt.Sprintf("%s is a directory, which the server leaves alone, so %s stays held: remove it by hand", s.work.location(e.lock.Name), e.lock.Name),
		}
	case e.lock.Problem == "":
		return nil
	}
	// It may not be possible to look at it.
	p, err := s.work.look(e.lock.Name)
	switch {
	case err != nil:
		return s.lookError(e.lock.Name, err)
	case !e.print.matches(p):
		return lock.ErrConflict
	}
	return nil
}

// endBefore makes a Locked in the place of another hold two lines of the journal: the
// end of that hold, and its own.
func (st *step) endBefore() {
	if e := &st.record.Event; st.before != nil && e.Type == lock.Locked {
		e.Previous = st.before.lock.Token
		st.ended = &journal.Record{Kind: journal.KindEvent, Event: e.EndOf(st.before.lock), More: true}
	}
}

// newFileError says why a new lock file cannot have its place.
func (s *Store) newFileError(name lock.Name, err error) error {
	switch {
	case errors.Is(err, errBlocked):
		return &lock.Error{
			Reason:  lock.ErrInvalidName,
			Field:   "name",
			Message: fmt.Sprintf("%s cannot have a lock file: %v", name, err),
			Err:     err,
		}
	case errors.Is(err, fs.ErrExist):
		return lock.ErrConflict // somebody else created it
	case isOfTheFile(err):
		return &lock.Error{
			Reason:  lock.ErrLockFile,
			Message: fmt.Sprintf("%s cannot have a lock file (%s), and nothing changed: see to the directory %s, where the server must be able to make files", name, whyOfTheFile(err), path.Dir(s.work.location(name))),
			Err:     err,
		}
	}
	return s.ioError(err)
}

// placeError says why what is in the place of a held lock's file cannot be replaced or
// removed.
func (s *Store) placeError(name lock.Name, err error) error {
	switch {
	case errors.Is(err, errMisplaced):
		s.fail(fmt.Errorf("changing the lock file of %s: %w", name, err))
		return outcomeUnknown(err)
	case errors.Is(err, errChanged), isByOthers(err):
		s.noteDisplaced(err)
		return lock.ErrConflict
	case isOfTheFile(err):
		return s.fileError(name, err)
	case disk.IsExhausted(err):
		return readOnly(err)
	}
	return s.ioError(err)
}

// lookError says why a held lock's file cannot be looked at: whatever it is, it says
// nothing of other files.
func (s *Store) lookError(name lock.Name, err error) error {
	if disk.IsExhausted(err) {
		return readOnly(err)
	}
	return s.fileError(name, err)
}

func (s *Store) fileError(name lock.Name, err error) error {
	return &lock.Error{
		Reason:  lock.ErrLockFile,
		Message: fmt.Sprintf("the lock file %s cannot be changed (%s), and nothing changed: %s stays held until the server may change that file and its directory, or somebody who may removes it", s.work.location(name), whyOfTheFile(err), name),
		Err:     err,
	}
}

// noteDisplaced logs where somebody's file is that lost its place.
func (s *Store) noteDisplaced(err error) {
	if displaced, ok := errors.AsType[*displacedError](err); ok {
		s.config.Logger.Warn("somebody took the place of a lock file while it was looked at", "name", displaced.name, "kept", displaced.kept)
	}
}

// unstage undoes stage.
func (s *Store) unstage(c *commit) {
	var suspect []lock.Name
	for _, st := range slices.Backward(c.steps) {
		name := st.record.Event.Lock.Name
		var err error
		switch {
		case st.placed:
			err = s.work.takeBack(name, st.after.print, s.takenFile(name))
		case st.moved == "":
			continue
		case st.after == nil:
			err = s.work.putBack(st.moved, name, nil)
		default:
			err = s.work.restore(name, st.after.print, st.moved)
		}
		var displaced *displacedError
		isDecided := isOfTheFile(err) || errors.As(err, &displaced) && !errors.Is(err, errMisplaced)
		if err != nil && !isDecided { // the next start undoes it
			s.fail(fmt.Errorf("undoing a change of the lock file of %s: %w", name, err))
		} else if err != nil { // the file, as it is, decides
			s.noteDisplaced(err)
			suspect = append(suspect, name)
		}
	}
	c.steps = nil
	if len(suspect) > 0 {
		s.suspects.Again(suspect)
	}
}

// complain logs a failure that costs nothing but room.
func (s *Store) complain(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.complaints.Bad(complaints.NotCleaned, "", err)
	}
}

// CheckSize implements lock.Store.
func (s *Store) CheckSize(l lock.Lock) error {
	return checkSize(l, len(lockfile.Append(nil, l, s.work.location(l.Name))))
}

// checkSize refuses a lock whose file would be too large.
func checkSize(l lock.Lock, bytes int) error {
	if bytes <= lock.MaxFileBytes {
		return nil
	}
	return &lock.Error{
		Reason:  lock.ErrDataTooLarge,
		Field:   "data",
		Message: fmt.Sprintf("the lock file of %s would be %d bytes long; at most %d are allowed: keep the bulk elsewhere and lock with a link to it", l.Name, bytes, lock.MaxFileBytes),
	}
}
