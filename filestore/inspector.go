package filestore

import (
	"errors"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/suspects"
	"github.com/pylok/pylok/lock"
)

// emptyFor is how long, at least, a directory stays after its last lock.
const emptyFor = 5 * time.Second

// inspector is the store as suspects.Finder sees it.
type inspector struct{ store *Store }

// Held implements suspects.Store.
func (i inspector) Held(from string, yield func(suspects.File) bool) {
	if v := i.store.view.Load(); v != nil {
		v.locks.AscendGreaterOrEqual(&entry{key: from}, func(e *entry) bool { return yield(e) })
	}
}

// IsHeld implements suspects.Store.
func (i inspector) IsHeld(name lock.Name) bool {
	v := i.store.view.Load()
	return v == nil || find(v.locks, name) != nil
}

// Inspect implements suspects.Store.
func (i inspector) Inspect(names []lock.Name) error { return i.store.inspect(names) }

// Name implements suspects.File.
func (e *entry) Name() lock.Name { return e.lock.Name }

// Compare implements suspects.File.
func (e *entry) Compare(found disk.Stat) suspects.Comparison {
	now := fingerprintOf(found)
	switch {
	case !e.print.matches(now):
		return suspects.Changed
	case !e.print.isKnown() && !now.fresh: // else soon
		return suspects.Unconfirmed
	}
	return suspects.AsKnown
}

// Confirm implements suspects.Store: it reads files beside the committer, and inspects those
// that are not as the server wrote them.
func (i inspector) Confirm(unconfirmed []suspects.File) error {
	s := i.store
	if !s.beginRead() {
		return nil
	}
	held := s.files.Hold()
	here := files{FS: held, root: s.files.root}
	var read []learnt
	var changed []lock.Name
	var failed error
	for _, file := range unconfirmed {
		e := file.(*entry)
		found, err := here.read(e.lock.Name, e)
		switch {
		case err != nil: // the next poll tries again
			failed = err
		case found.unread && found.Problem == e.lock.Problem: // still
		case found.Token != e.fileToken || !e.says(found, s.files.location(e.lock.Name)) || !e.print.matches(found.print):
			changed = append(changed, e.lock.Name)
		case found.print.isKnown():
			read = append(read, learnt{e, found.print})
		}
	}
	held.Drop()
	s.endRead()
	if len(read) > 0 {
		s.between(func(*commit) { s.learn(read) })
	}
	return errors.Join(failed, s.inspect(changed))
}

// ChangedByOthers implements suspects.Store. It looks, as the committer does, between two
// batches, where files and state must agree: during one, the server's own changes look like
// those of others, and what others do to them may look like nothing at all.
func (i inspector) ChangedByOthers(names []lock.Name) (changed []lock.Name) {
	s := i.store
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

// Removed implements suspects.Store.
func (i inspector) Removed(dirs []string) {
	s := i.store
	s.committing.Lock()
	defer s.committing.Unlock()
	for _, dir := range dirs {
		s.held.Forget(dir)
	}
}
