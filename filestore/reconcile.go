package filestore

import (
	"time"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// reconcile compares locks with their files. What others did to them is a commit of
// its own, which it returns, without steps if there is nothing. Only the committer
// calls it.
func (s *Store) reconcile(names []lock.Name) (*commit, error) {
	outside := &commit{}
	for _, name := range names {
		if err := s.reconcileLock(name, outside); err != nil {
			return nil, err
		}
	}
	return outside, nil
}

// changedByOthers returns those of the locks whose files are not as the store knows
// them. It looks, as the committer does, between two batches, where files and state
// must agree: during one, the server's own changes look like those of others, and
// what others do to them may look like nothing at all.
func (s *Store) changedByOthers(names []lock.Name) (changed []lock.Name) {
	s.committing.Lock()
	defer s.committing.Unlock()
	defer s.held.Release()
	for _, name := range names {
		p, err := s.work.look(name)
		e := find(s.locks, name)
		isAsKnown := e == nil && p == (fingerprint{}) || e != nil && e.print.matches(p)
		if err != nil || !isAsKnown {
			changed = append(changed, name)
		}
	}
	return changed
}

// reconcileLock adds to outside what others did to a lock's file: created, edited,
// replaced or removed it.
func (s *Store) reconcileLock(name lock.Name, outside *commit) error {
	before := find(s.locks, name)
	found, err := s.work.read(name, before)
	if err != nil {
		return err
	}
	if before == nil && !found.exists() {
		return nil
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	event := lock.Event{Time: now, Cause: lock.File}
	var after *entry
	switch {
	case !found.exists():
		event.Type, event.Lock = lock.Unlocked, before.lock

	case before == nil || !before.isHoldOf(found):
		event.Type, event.Lock = lock.Locked, adopted(name, found, now)

	case before.lock.Data == found.Data && before.lock.Problem == found.Problem:
		// The same in other bytes, or just another look.
		if before.print != found.print {
			same := *before
			same.print, same.fileToken = found.print, found.Token
			same.warnings = found.reserved.Warnings(before.lock, s.work.location(name), before.extended)
			s.locks.ReplaceOrInsert(&same)
			s.stale = true
		}
		return nil

	default:
		event.Type, event.Lock = lock.Updated, before.lock.WithData(found.Data)
		event.Lock.Problem = found.Problem
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
	return nil
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
// the same file, or it has the lock_token that was in it. A file that was put in
// its place is another hold.
func (e *entry) isHoldOf(found lockFile) bool {
	return e.print.sameFile(found.print) || found.Token != 0 && found.Token == e.fileToken
}

// adopted is the hold that a file from outside stands for: anonymous, whatever
// the file claims, since it was written.
func adopted(name lock.Name, found lockFile, now time.Time) lock.Lock {
	l := lock.Lock{
		Name:        name,
		Data:        found.Data,
		AcquireTime: found.mtime.UTC().Truncate(time.Millisecond),
		Problem:     found.Problem,
	}
	if l.AcquireTime.After(now) {
		l.AcquireTime = now
	}
	l.ExpireTime, _ = l.Data.ExpireTime(l.AcquireTime)
	return l
}
