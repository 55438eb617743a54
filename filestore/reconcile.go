package filestore

import (
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// reconcile takes in what was found in lock files: what others did to them makes the steps
// of c. It returns those that have changed since they were read. The caller must hold
// committing.
func (s *Store) reconcile(c *commit, found []inspected) (again []lock.Name) {
	err := s.haveRevisions(2 * len(found))
	if err == nil {
		err = s.haveFormatOfFound(found)
	}
	if err != nil {
		c.err = s.ioError(err)
		return nil
	}
	for _, f := range found {
		isTakenIn := func(st step) bool { return st.record.Event.Lock.Name == f.name }
		if slices.ContainsFunc(c.steps, isTakenIn) {
			continue // it was found twice
		}
		if s.isStill(f) {
			s.reconcileLock(f.name, f.lockFile, c)
		} else {
			again = append(again, f.name)
		}
	}
	return again
}

// isStill reports whether neither the server nor, as far as a look tells, anybody else
// has changed a lock's file since it was read.
func (s *Store) isStill(f inspected) bool {
	if find(s.locks, f.name) != f.known {
		return false
	}
	now, err := s.work.look(f.name)
	switch {
	case err != nil:
		return f.unread && !disk.IsExhausted(err)
	case f.print.ctime == -1:
		return true // it will be another in any case
	}
	return f.print.matches(now)
}

// reconcileLock adds to outside what others did to a lock's file: created, edited,
// replaced or removed it.
func (s *Store) reconcileLock(name lock.Name, found lockFile, outside *commit) {
	before := find(s.locks, name)
	if before == nil && !found.exists() {
		return
	}
	if found.unread && before != nil && before.isHoldOf(found) {
		found.Token = before.fileToken // as far as anybody knows
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	event := lock.Event{Time: now, Cause: lock.File}
	var after *entry
	switch {
	case !found.exists():
		event.Type, event.Lock = lock.Unlocked, before.lock

	case before == nil || !before.isHoldOf(found):
		event.Type, event.Lock = lock.Locked, adopted(name, found, s.work.location(name), now)

	case before.says(found, s.work.location(name)):
		// The same in other bytes, or just another look.
		if before.print != found.print {
			same := *before
			same.print, same.fileToken = found.print, found.Token
			same.warnings = found.reserved.Warnings(before.lock, s.work.location(name), before.extended)
			s.locks.ReplaceOrInsert(&same)
			s.stale = true
		}
		return

	default:
		event.Type, event.Lock = lock.Updated, before.lock.WithData(found.Data)
		event.Lock.Problem, event.Lock.Tree = found.Problem, found.IsTree(before.lock, s.work.location(name))
	}
	if before != nil && event.Type == lock.Locked {
		s.revision++ // for its end
	}
	s.revision++
	event.Revision, event.Lock.Revision = s.revision, s.revision
	if event.Type == lock.Locked {
		event.Lock.Token = lock.Token(s.revision)
	}
	if found.exists() {
		after = &entry{
			key:       name.String(),
			lock:      event.Lock,
			byFile:    event.Type == lock.Locked || before.byFile,
			fileToken: found.Token,
			print:     found.print,
			warnings:  found.reserved.Warnings(event.Lock, s.work.location(name), false),
		}
	}
	st := step{before: before, after: after, record: journal.Record{Kind: journal.KindEvent, Event: event}}
	st.endBefore()
	outside.steps = append(outside.steps, st)
	s.config.Logger.Info("a lock file was changed from outside", "name", name, "event", event.Type, "revision", event.Revision, "problem", event.Lock.Problem)
}

// learnt is that a lock's file, which has been read, is as its entry says.
type learnt struct {
	entry *entry
	print fingerprint
}

// learn takes note of files that have been read, where their locks have not changed
// since: what became of a file after that shows by its times. Only the committer calls
// it.
func (s *Store) learn(files []learnt) {
	for _, l := range files {
		if find(s.locks, l.entry.lock.Name) == l.entry {
			same := *l.entry
			same.print = l.print
			s.locks.ReplaceOrInsert(&same)
			s.stale = true
		}
	}
}

// isHoldOf reports whether a file is that of the entry's hold, be it edited: it is
// the same file, as far as one that could not be looked at or read can be told, or it
// has the lock_token that was in it. A file that was put in its place is another hold.
func (e *entry) isHoldOf(found lockFile) bool {
	return e.print.sameFile(found.print) || found.Token != 0 && found.Token == e.fileToken ||
		e.print == unseen || found.unread && found.print.inode == e.print.inode
}

// says reports whether a file at location says what the entry does.
func (e *entry) says(found lockFile, location string) bool {
	return e.lock.Data == found.Data && e.lock.Problem == found.Problem && e.lock.Tree == found.IsTree(e.lock, location)
}

// adopted is the hold that a file from outside, at location, stands for: anonymous,
// whatever the file claims, since it was written.
func adopted(name lock.Name, found lockFile, location string, now time.Time) lock.Lock {
	l := lock.Lock{
		Name:        name,
		Data:        found.Data,
		AcquireTime: found.mtime.UTC().Truncate(time.Millisecond),
		Problem:     found.Problem,
		Tree:        found.IsTree(lock.Lock{}, location),
	}
	if l.AcquireTime.After(now) {
		l.AcquireTime = now
	}
	l.ExpireTime, _ = l.Data.ExpireTime(l.AcquireTime)
	return l
}
