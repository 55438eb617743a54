package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// maxBatch is how many commits share a sync at most.
const maxBatch = 1024

// commit is a call of Commit on its way through the committer.
type commit struct {
	changes []lock.Change
	events  []lock.Event
	err     error
	done    chan struct{} // closed when events and err are final

	steps []step // one for each change, once it is staged
}

// step is a staged change: what it does to the files, the journal and the state.
type step struct {
	before *entry // nil: the lock was free
	after  *entry // nil: it will be free
	record journal.Record
	linked bool // the new file already has its place
}

// run is the committer: it takes what has queued up and commits it together.
func (s *Store) run() {
	defer close(s.done)
	var batch []*commit
	for {
		s.mu.Lock()
		room := min(maxBatch-len(batch), len(s.queue))
		batch = append(batch, s.queue[:room]...)
		s.queue = s.queue[room:]
		closed := s.closed
		s.mu.Unlock()
		if len(batch) == 0 {
			if closed {
				return
			}
			<-s.arrival
			continue
		}
		batch = s.commitBatch(batch)
	}
}

// commitBatch commits a batch and answers it, but for the commits that it returns:
// they change a lock that one before them changes, and come after it.
func (s *Store) commitBatch(batch []*commit) (later []*commit) {
	touched := make(map[lock.Name]bool)
	var answered, staged []*commit
	added := 0 // locks, by what is staged
	for _, c := range batch {
		if touchesAny(c, touched) {
			later = append(later, c)
			continue
		}
		for _, change := range c.changes {
			touched[change.Lock.Name] = true
		}
		answered = append(answered, c)
		if c.err = s.stage(c, added); c.err == nil {
			staged = append(staged, c)
			added += len(c.changes)
		} else if errors.Is(c.err, lock.ErrConflict) {
			outside, err := s.reconcile(c)
			if err != nil {
				c.err = s.ioError(err)
			} else if len(outside.steps) > 0 {
				staged = append(staged, outside)
			}
		}
	}
	committed := s.write(staged)
	if len(committed) > 0 {
		err := s.apply(committed)
		if err == nil {
			err = s.journal.Sync()
		}
		if err == nil {
			s.settle(committed)
		} else {
			s.fail(err)
			for _, c := range committed {
				c.err = outcomeUnknown(err)
			}
		}
	}
	for _, c := range answered {
		close(c.done)
	}
	for _, c := range committed {
		s.clean(c)
	}
	return later
}

func touchesAny(c *commit, names map[lock.Name]bool) bool {
	for _, change := range c.changes {
		if names[change.Lock.Name] {
			return true
		}
	}
	return false
}

// stage checks a commit against the state and the files and prepares its steps. On
// an error nothing is left of it. added is how many locks the batch adds before it.
func (s *Store) stage(c *commit, added int) (err error) {
	if s.failed != nil {
		return readOnly(s.failed)
	}
	revision := s.revision
	defer func() {
		if err != nil {
			s.unstage(c)
			s.revision = revision
		}
	}()
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, change := range c.changes {
		st, err := s.stageChange(change, now, added+i)
		if st.after != nil || st.before != nil {
			st.record.More = i < len(c.changes)-1
			c.steps = append(c.steps, st)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stageChange prepares one change.
func (s *Store) stageChange(change lock.Change, now time.Time, added int) (step, error) {
	l := change.Lock
	before := find(s.locks, l.Name)
	var present lock.Revision
	if before != nil {
		present = before.lock.Revision
	}
	if change.Prev != present || before == nil && change.Type != lock.Locked {
		return step{}, lock.ErrConflict
	}
	if change.Type == lock.Extended {
		after := *before
		after.lock.TTL, after.lock.ExpireTime = l.TTL, l.ExpireTime
		return step{
			before: before,
			after:  &after,
			record: journal.Record{Kind: journal.KindExtended, Event: lock.Event{Lock: after.lock}},
		}, nil
	}
	if before == nil && s.locks.Len()+added >= s.config.MaxLocks {
		return step{}, &lock.Error{
			Reason:  lock.ErrTooManyLocks,
			Message: fmt.Sprintf("%d locks are held, the most that this server allows; unlock some, or raise its --max-locks", s.locks.Len()),
		}
	}
	s.revision++
	l.Revision = s.revision
	if change.Type == lock.Locked {
		l.Token = lock.Token(s.revision)
		if l.AcquireTime.IsZero() {
			l.AcquireTime = now
		}
	}
	st := step{
		before: before,
		record: journal.Record{Kind: journal.KindEvent, Event: lock.Event{
			Revision: s.revision,
			Time:     now,
			Type:     change.Type,
			Cause:    change.Cause,
			Lock:     l,
			Actor:    change.Actor,
			Reason:   change.Reason,
		}},
	}
	if before != nil {
		// Best seen now: once the journal has the line it is too late.
		p, err := s.files.look(l.Name)
		if err != nil {
			return step{}, s.ioError(err)
		}
		if !before.print.matches(p) {
			return step{}, lock.ErrConflict
		}
		if p.isDir {
			return step{}, &lock.Error{
				Reason:  lock.ErrInvalidName,
				Field:   "name",
				Message: fmt.Sprintf("%s is a directory, which the server leaves alone; remove it by hand", s.files.location(l.Name)),
			}
		}
	}
	if change.Type == lock.Unlocked {
		return st, nil
	}
	text := lockfile.Append(nil, l, s.files.location(l.Name))
	if len(text) > lock.MaxFileBytes {
		return step{}, &lock.Error{
			Reason:  lock.ErrDataTooLarge,
			Field:   "data",
			Message: fmt.Sprintf("the lock file of %s would be %d bytes long; at most %d are allowed: keep the bulk elsewhere and lock with a link to it", l.Name, len(text), lock.MaxFileBytes),
		}
	}
	p, err := s.files.writeNew(s.revision, text)
	if err != nil {
		return step{}, s.ioError(err)
	}
	st.after = &entry{key: l.Name.String(), lock: l, fileToken: l.Token, print: p}
	if before == nil {
		if err := s.files.link(s.revision, l.Name); err != nil {
			return st, s.linkError(l.Name, err)
		}
		st.linked = true
	}
	return st, nil
}

// linkError says why a new lock file cannot have its place.
func (s *Store) linkError(name lock.Name, err error) error {
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
	}
	return s.ioError(err)
}

// unstage undoes stage.
func (s *Store) unstage(c *commit) {
	for _, st := range c.steps {
		if st.linked {
			s.complain(s.files.Remove(fileOf(st.after.lock.Name)))
		}
		if st.after != nil && c.done != nil && st.record.Kind == journal.KindEvent {
			s.complain(s.files.Remove(newFileOf(st.record.Event.Revision)))
		}
	}
	c.steps = nil
}

// clean removes the .new names of a commit's files.
func (s *Store) clean(c *commit) {
	for _, st := range c.steps {
		if st.linked {
			s.complain(s.files.Remove(newFileOf(st.record.Event.Revision)))
		}
	}
}

// complain logs a failure that costs nothing but room.
func (s *Store) complain(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.config.Logger.Warn("cleaning up", "error", err)
	}
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
		if onlyReleases(c) {
			written = append(written, c)
			continue
		}
		s.unstage(c)
		c.err = s.ioError(err)
	}
	if err := s.writeRecords(written, true); err != nil {
		for _, c := range written {
			s.unstage(c)
			c.err = s.ioError(err)
		}
		return nil
	}
	return written
}

func (s *Store) writeRecords(commits []*commit, reserved bool) error {
	var records []journal.Record
	for _, c := range commits {
		for _, st := range c.steps {
			records = append(records, st.record)
		}
	}
	if len(records) == 0 {
		return nil
	}
	return s.journal.Write(reserved, records...)
}

// onlyReleases reports whether a commit adds nothing to the disk but its journal
// lines. What others did to the files is one of these: they have done it.
func onlyReleases(c *commit) bool {
	for _, change := range c.changes {
		if change.Type != lock.Unlocked {
			return false
		}
	}
	return true
}

// apply does to the files what the journal now says. It fails on a broken disk
// only; the next start applies what is missing.
func (s *Store) apply(committed []*commit) error {
	for _, c := range committed {
		if c.done == nil {
			continue // others did it
		}
		for _, st := range c.steps {
			name := st.record.Event.Lock.Name
			switch {
			case st.record.Kind == journal.KindExtended, st.linked:
			case st.after == nil:
				if err := s.files.Remove(fileOf(name)); err != nil && !isAbsent(err) {
					return fmt.Errorf("removing the lock file of %s: %w", name, err)
				}
			default:
				if err := s.files.Rename(newFileOf(st.record.Event.Revision), fileOf(name)); err != nil {
					return fmt.Errorf("replacing the lock file of %s: %w", name, err)
				}
			}
		}
	}
	return nil
}

// settle makes the committed changes the state, for readers too, and fills in the
// answers.
func (s *Store) settle(committed []*commit) {
	var events []lock.Event
	for _, c := range committed {
		if s.troubled && !onlyReleases(c) {
			s.troubled = false
			s.config.Health(nil)
		}
		for _, st := range c.steps {
			name := st.record.Event.Lock.Name
			if st.after != nil {
				s.locks.ReplaceOrInsert(st.after)
			} else {
				s.locks.Delete(st.before)
			}
			if st.record.Kind == journal.KindExtended {
				s.extended[name] = struct{}{}
				c.events = append(c.events, lock.Event{})
				continue
			}
			delete(s.extended, name)
			c.events = append(c.events, st.record.Event)
			events = append(events, st.record.Event)
		}
	}
	s.publish()
	s.feed.Append(events...)
}

// fail makes the store read-only until it is opened again.
func (s *Store) fail(err error) {
	if s.failed == nil {
		s.failed = err
		s.config.Health(err)
		s.config.Logger.Error("the store is read-only until the server starts again", "error", err)
	}
}

// ioError refuses a change that the file system would not take.
func (s *Store) ioError(err error) error {
	if !s.troubled {
		s.troubled = true
		s.config.Health(err)
		s.config.Logger.Error("the store cannot write", "error", err)
	}
	return readOnly(err)
}

func outcomeUnknown(err error) error {
	return &lock.Error{
		Reason:  lock.ErrOutcomeUnknown,
		Message: "the change could not be made durable and may or may not be there when the server has been started again; ask then with the same request_id",
		Err:     err,
	}
}

func readOnly(err error) error {
	return &lock.Error{
		Reason:  lock.ErrReadOnly,
		Message: fmt.Sprintf("the store cannot write (%v); nothing changed. Unlocking may still work; ask again when there is room", reasonOf(err)),
		Err:     err,
	}
}
