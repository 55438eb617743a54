package filestore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// maxBatch is how many commits share a sync at most.
const maxBatch = 1024

// commit is a call of Commit on its way through the committer, or other work that
// must not come between the steps of a batch.
type commit struct {
	changes []lock.Change
	guards  []lock.Guard
	found   []inspected // files that others may have changed
	again   []lock.Name // of these: such as have changed since they were read
	learnt  []learnt    // files that nobody has changed
	mark    *checkpoint // lock files that have become durable
	probe   bool        // see if the disk works again
	events  []lock.Event
	err     error
	done    chan struct{} // closed when events and err are final

	steps []step // one for each change, once it is staged
	// outside is what others did to the files that are found.
	outside *commit
}

// names calls yield with each lock that a commit may change.
func (c *commit) names(yield func(lock.Name) bool) {
	for _, change := range c.changes {
		if !yield(change.Lock.Name) {
			return
		}
	}
	for _, f := range c.found {
		if !yield(f.name) {
			return
		}
	}
}

// adds returns how many more locks are held after a commit.
func (c *commit) adds() (n int) {
	for _, change := range c.changes {
		switch {
		case change.Type == lock.Unlocked:
			n--
		case change.Type == lock.Locked && change.Prev == 0:
			n++
		}
	}
	return n
}

// isEnded reports whether the commit ends a hold of the lock with one of the first n
// changes.
func (c *commit) isEnded(name lock.Name, n int) bool {
	return slices.ContainsFunc(c.changes[:n], func(before lock.Change) bool {
		return before.Type == lock.Unlocked && before.Lock.Name == name
	})
}

// isGranted reports whether the commit grants the lock with one of the changes from n on.
func (c *commit) isGranted(name lock.Name, n int) bool {
	return slices.ContainsFunc(c.changes[n:], func(after lock.Change) bool {
		return after.Type == lock.Locked && after.Lock.Name == name
	})
}

// step is a staged change: what it does to the files, the journal and the state.
type step struct {
	before *entry          // nil: the lock was free
	after  *entry          // nil: it will be free
	ended  *journal.Record // the line before record: the end of a hold that another replaces; nil: none
	record journal.Record
	linked bool   // the new file has its place, which was empty
	moved  string // the name in .pylok of what had its place; empty: nothing
}

// batch is commits on their way to being durable: their files are made, and their
// lines are in the journal.
type batch struct {
	answered []*commit // to be told
	// committed are those of them that change something, and what others did.
	committed []*commit
	events    []lock.Event  // that the committed are
	mark      *journal.Mark // up to where the journal must be durable; nil: no matter
	view      *view         // the state after it; nil: that before it
}

// run is the committer: it takes what has queued up and commits it together, until the
// store is closed. What it has written to the journal another goroutine makes durable,
// while it goes on.
func (s *Store) run() {
	defer close(s.unsettledMore)
	for {
		switch n, closed := s.commitQueued(); {
		case n > 0:
			select {
			case s.unsettledMore <- struct{}{}:
			default:
			}
		case closed:
			return
		default:
			<-s.arrival
			runtime.Gosched() // so that more share the batch: who is ready to commit goes first
		}
	}
}

// runSettling settles what the committer has written, until that has ended.
func (s *Store) runSettling() {
	defer close(s.done)
	for range s.unsettledMore {
		runtime.Gosched() // so that more share the sync: who is ready to commit goes first
		s.settleWritten()
	}
}

// commitQueued stages and writes what has queued up, and returns how much that was and
// whether no more will come.
func (s *Store) commitQueued() (n int, closed bool) {
	s.committing.Lock()
	defer s.committing.Unlock()
	s.mu.Lock()
	n = min(maxBatch, len(s.queue))
	commits := s.queue[:n:n]
	s.queue = s.queue[n:]
	closed = s.closed
	s.mu.Unlock()
	s.commitAll(commits)
	return n, closed
}

// commitAll stages and writes commits, as many batches as it takes.
func (s *Store) commitAll(commits []*commit) {
	defer s.enqueueMade() // together, so that a change and what follows it share a sync
	for len(commits) > 0 {
		commits = s.commitBatch(commits)
	}
}

// commitAlone makes a commit that nothing is before, and reports whether it was that:
// who commits alone need not wait until two others wake up, one after the other, and
// then until it is woken up itself.
func (s *Store) commitAlone(c *commit) bool {
	if !s.committing.TryLock() {
		return false
	}
	s.mu.Lock()
	alone := !s.closed && len(s.queue) == 0 && len(s.unsettled) == 0
	s.mu.Unlock()
	if !alone {
		s.committing.Unlock()
		return false
	}
	func() {
		defer s.committing.Unlock()
		defer s.failOnPanic()
		s.commitAll([]*commit{c})
	}()
	select {
	case s.settling <- struct{}{}:
		defer func() { <-s.settling }()
		defer s.failOnPanic()
		s.settleAll()
	case <-c.done: // another has settled it
	}
	return true
}

// failOnPanic is deferred where a caller may survive a panic: what is committed next
// must not.
func (s *Store) failOnPanic() {
	if panicked := recover(); panicked != nil {
		s.fail(fmt.Errorf("a fault in the server: %v", panicked), nil)
		panic(panicked)
	}
}

// commitBatch stages commits and writes them to the journal as a batch, but for the
// commits that it returns: they change a lock that one before them changes, and come
// after it.
func (s *Store) commitBatch(commits []*commit) (later []*commit) {
	defer s.held.Release()
	touched := make(map[lock.Name]bool)
	b := &batch{}
	var staged, marks []*commit
	added := 0 // locks, by what is staged
	for _, c := range commits {
		if touchesAny(c, touched) {
			later = append(later, c)
			continue
		}
		for name := range c.names {
			touched[name] = true
		}
		b.answered = append(b.answered, c)
		if len(c.changes) > 0 {
			if c.err = s.stage(c, added); c.err == nil {
				staged = append(staged, c)
				added += c.adds()
			}
		}
		if c.mark != nil && s.failure() == nil {
			c.steps = []step{{record: c.mark.record(s.revision)}}
			staged = append(staged, c)
			marks = append(marks, c)
		}
		if c.probe {
			s.probe()
		}
		s.learn(c.learnt)
		if len(c.found) > 0 && s.failure() == nil {
			if err := s.haveRevisions(2 * len(c.found)); err != nil {
				c.err = s.ioError(err)
			} else if outside := s.reconcile(c); len(outside.steps) > 0 {
				c.outside = outside
				staged = append(staged, outside)
			}
		}
	}
	if len(staged) > 0 && s.journal.IsFull() {
		s.enqueueMade()
		s.settleWritten()
		defer s.noteRotation()
	}
	if committed := s.write(staged); len(committed) > 0 {
		s.advance(b, committed)
		s.discardMoved(committed)
	}
	if len(marks) > 0 {
		s.settleMarks(b, marks)
		return later
	}
	s.addMade(b)
	return later
}

// noteRotation has the background look whether the journal has become too large.
func (s *Store) noteRotation() {
	select {
	case s.rotated <- struct{}{}:
	default:
	}
}

// settleMarks is the rest of commitBatch for a batch with checkpoints: once they are
// durable, what they make needless is forgotten.
func (s *Store) settleMarks(b *batch, marks []*commit) {
	b.answered = slices.DeleteFunc(b.answered, func(c *commit) bool { return c.mark != nil && slices.Contains(marks, c) })
	s.addMade(b)
	s.enqueueMade()
	s.settleWritten()
	for _, c := range marks {
		if c.err == nil {
			s.marked = c.mark
			s.forgetDurable(c.mark.revision)
			s.journal.Prune(c.mark.prune)
		}
	}
	s.addMade(&batch{answered: marks})
	s.enqueueMade()
	s.settleWritten()
}

// addMade adds a batch to those that enqueueMade hands over. If others do not see yet what
// is known of some files, they see it with the batch.
func (s *Store) addMade(b *batch) {
	if (b.mark != nil || s.stale) && s.failure() == nil {
		b.view = &view{revision: s.journal.Written().Last, locks: s.locks.Clone()}
		s.stale = false
	}
	s.made = append(s.made, b)
}

// enqueueMade hands over the batches that have been made to who settles them.
func (s *Store) enqueueMade() {
	s.mu.Lock()
	s.unsettled = append(s.unsettled, s.made...)
	s.mu.Unlock()
	s.made = nil
}

// settleWritten makes durable what has been written so far, shows it to readers and
// answers it, in the order of the writing. Where it returns, all batches are settled
// that were enqueued before it was called.
func (s *Store) settleWritten() {
	s.settling <- struct{}{}
	defer func() { <-s.settling }()
	s.settleAll()
}

// settleAll is settleWritten for who has settling.
func (s *Store) settleAll() {
	s.mu.Lock()
	batches := slices.Clone(s.unsettled)
	s.mu.Unlock()
	if len(batches) == 0 {
		return
	}
	var err error
	for _, b := range slices.Backward(batches) {
		if b.mark != nil {
			err = s.journal.Sync(*b.mark)
			break
		}
	}
	s.settle(batches, err)
	s.mu.Lock()
	s.unsettled = slices.Delete(s.unsettled, 0, len(batches))
	s.mu.Unlock()
	for _, b := range batches {
		for _, c := range b.answered {
			close(c.done)
		}
	}
}

// settle makes durable batches the state of the readers, and fills in the answers. With
// an error they are not known to be durable.
func (s *Store) settle(batches []*batch, err error) {
	var shown *view
	var events []lock.Event
	for _, b := range batches {
		if err != nil && b.mark != nil {
			s.fail(err, b.committed)
		} else {
			if b.view != nil {
				shown = b.view
			}
			events = append(events, b.events...)
			if slices.ContainsFunc(b.committed, func(c *commit) bool { return !onlyReleases(c) }) {
				s.recovered()
			}
		}
		for _, c := range b.answered {
			if c.outside != nil && c.outside.err != nil {
				c.err = c.outside.err
			}
		}
	}
	if err != nil {
		return // what readers see stays what is known to be durable
	}
	s.feed.Append(func() {
		if shown != nil {
			s.view.Store(shown)
		}
	}, events...)
}

// touchesAny reports whether a commit is about any of the locks.
func touchesAny(c *commit, touched map[lock.Name]bool) bool {
	for name := range c.names {
		if touched[name] {
			return true
		}
	}
	return slices.ContainsFunc(c.guards, func(g lock.Guard) bool { return touched[g.Name] })
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
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, change := range c.changes {
		st, err := s.stageChange(c, i, now)
		seen = seen || st.after != nil && change.Type != lock.Extended
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

// stageChange prepares one change of a commit that has been checked. A lock that is
// handed over has its file replaced by the grant, and the end of its hold is a line of the
// journal alone. With an error, a step that has an entry after it says that somebody may
// have seen its revision.
func (s *Store) stageChange(c *commit, i int, now time.Time) (step, error) {
	change := c.changes[i]
	l := change.Lock
	l.Warnings = "" // they are of the file, and this is another one
	before := find(s.locks, l.Name)
	if change.Type == lock.Extended {
		after := *before
		after.extended = true
		after.lock.TTL, after.lock.ExpireTime = l.TTL, l.ExpireTime
		return step{
			before: before,
			after:  &after,
			record: journal.Record{Kind: journal.KindExtended, Event: lock.Event{Lock: after.lock}},
		}, nil
	}
	replaces := before != nil && change.Type == lock.Locked && !c.isEnded(l.Name, i)
	if replaces {
		s.revision++ // for the end of what it replaces
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
	if replaces {
		st.endBefore()
	}
	if change.Type == lock.Unlocked && c.isGranted(l.Name, i) {
		return st, nil
	}
	var p fingerprint // of what is in its place; zero: nothing
	if before != nil {
		// Before anything is moved: most of what others did shows here.
		var err error
		if p, err = s.work.look(l.Name); err != nil {
			return step{}, s.lookError(l.Name, err)
		}
		if !before.print.matches(p) {
			return step{}, lock.ErrConflict
		}
		if p.isDir {
			return step{}, &lock.Error{
				Reason:  lock.ErrLockFile,
				Message: fmt.Sprintf("%s is a directory, which the server leaves alone, so %s stays held: remove it by hand", s.work.location(l.Name), l.Name),
			}
		}
	}
	if change.Type == lock.Unlocked {
		moved := s.takenFile(l.Name)
		if err := s.work.take(l.Name, p, moved); err != nil {
			return step{}, s.placeError(l.Name, err)
		}
		st.moved = moved
		return st, nil
	}
	text := lockfile.Append(nil, l, s.work.location(l.Name))
	if err := checkSize(l, len(text)); err != nil {
		return step{}, err
	}
	if err := s.beginBatch(); err != nil {
		return step{}, s.ioError(err)
	}
	file, written, err := s.writeNew(l, text)
	if err != nil {
		return step{}, s.ioError(err)
	}
	st.after = &entry{key: l.Name.String(), lock: l, fileToken: l.Token, print: written}
	if before == nil {
		if err := s.work.link(file, l.Name); err != nil {
			return st, s.linkError(l.Name, err)
		}
		st.linked = true
		return st, nil
	}
	moved := s.movedFile(l.Name)
	if err := s.work.replace(l.Name, file, written, p, moved); err != nil {
		return st, s.placeError(l.Name, err)
	}
	st.moved = moved
	return st, nil
}

// endBefore makes a Locked in the place of another hold two lines of the journal: the
// end of that hold, and its own.
func (st *step) endBefore() {
	if e := st.record.Event; st.before != nil && e.Type == lock.Locked {
		st.ended = &journal.Record{Kind: journal.KindEvent, Event: e.EndOf(st.before.lock), More: true}
	}
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
		s.fail(fmt.Errorf("changing the lock file of %s: %w", name, err), nil)
		return outcomeUnknown(err)
	case errors.Is(err, errChanged), isByOthers(err):
		s.noteDisplaced(err)
		return lock.ErrConflict
	case isOfTheFile(err):
		return s.fileError(name, err)
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
		case st.linked:
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
			s.fail(fmt.Errorf("undoing a change of the lock file of %s: %w", name, err), nil)
		} else if err != nil { // the file, as it is, decides
			s.noteDisplaced(err)
			suspect = append(suspect, name)
		}
	}
	c.steps = nil
	if len(suspect) > 0 {
		s.revisits.add(suspect)
	}
}

// complain logs a failure that costs nothing but room.
func (s *Store) complain(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.complaints.Bad(complaints.NotCleaned, "", err)
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
		s.fail(err, []*commit{c})
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

// discardMoved removes what had the places of lock files that the journal says are over
// or replaced.
func (s *Store) discardMoved(committed []*commit) {
	for _, c := range committed {
		for i := range c.steps {
			if moved := c.steps[i].moved; moved != "" {
				s.complain(s.work.Remove(moved))
			}
		}
	}
}

// advance makes the changes of a batch, whose lines are written, the state that the
// next one is checked against.
func (s *Store) advance(b *batch, committed []*commit) {
	mark := s.journal.Written()
	b.mark, b.committed = &mark, committed
	for _, c := range committed {
		for i := range c.steps {
			st := &c.steps[i]
			name := st.record.Event.Lock.Name
			switch st.record.Kind {
			case journal.KindCheckpoint:
				continue
			case journal.KindExtended:
				st.after.print = find(s.locks, name).print // forget may have been there
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
			}
		}
	}
}

// failure returns why nothing can be written any more, or nil.
func (s *Store) failure() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes the store read-only until it is opened again. What becomes of the
// commits is then unknown.
func (s *Store) fail(err error, commits []*commit) {
	if s.failed.CompareAndSwap(nil, &err) {
		s.tellHealth()
		s.config.Logger.Error("the store is read-only until the server starts again", "error", err)
	}
	for _, c := range commits {
		c.err = outcomeUnknown(err)
	}
}

// ioError refuses a change that the file system would not take.
func (s *Store) ioError(err error) error {
	if s.trouble.Swap(&err) == nil {
		s.tellHealth()
		s.config.Logger.Error("the store cannot write", "error", err)
	}
	return readOnly(err)
}

// recovered notes that the disk takes changes.
func (s *Store) recovered() {
	if s.trouble.Load() != nil && s.trouble.Swap(nil) != nil {
		s.tellHealth()
		s.config.Logger.Info("the store can write again")
	}
}

// tellHealth tells Config.Health what ails the store now, the gravest if there are
// several, unless that was told before.
func (s *Store) tellHealth() {
	s.telling.Lock()
	defer s.telling.Unlock()
	now := cmp.Or(s.failed.Load(), s.away.Load(), s.trouble.Load())
	switch {
	case now == s.told:
		return
	case now == nil:
		s.config.Health(nil)
	default:
		s.config.Health(*now)
	}
	s.told = now
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
		Message: fmt.Sprintf("the store cannot write (%v); nothing changed. Unlocking may still work; ask again when there is room", disk.ReasonOf(err)),
		Err:     err,
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
