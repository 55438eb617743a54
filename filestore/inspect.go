package filestore

import (
	"errors"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/suspects"
	"github.com/pylok/pylok/lock"
)

// inspected is a lock's file as somebody has read it, beside the committer: a file can be
// large, and every commit would wait until it is read and parsed.
type inspected struct {
	name  lock.Name
	known *entry // of the lock, from before the file was read; nil: it was free
	lockFile
}

const (
	// mostInspections is how often a file that changes meanwhile is read again at once.
	mostInspections = 3
	// inspectStretch is how long files are read before what has been found is committed.
	inspectStretch = 5 * time.Millisecond
	// inspectBatch is how many files' findings are committed together at most.
	inspectBatch = 256
)

// inspect reads the files of locks and has the committer take in what others did to
// them. It returns when that is committed and readers see it, or when the store is
// closed. The error says why it cannot be taken in. In that case, and where a file keeps
// changing, the files are inspected again later.
func (s *Store) inspect(names []lock.Name) (err error) {
	rest := names
	for range mostInspections {
		if rest, err = s.inspectOnce(rest); err != nil {
			s.suspects.AgainLater(names)
			return err
		}
		if len(rest) == 0 {
			return nil
		}
	}
	s.suspects.AgainLater(rest)
	return nil
}

// inspectOnce is inspect, but for the files that it returns: they have changed since
// they were read.
func (s *Store) inspectOnce(names []lock.Name) (again []lock.Name, err error) {
	if !s.beginRead() {
		return nil, nil
	}
	defer s.endRead()
	held := s.files.Hold()
	defer held.Drop()
	here := files{FS: held, root: s.files.root}
	var files []inspected
	began := time.Now()
	for _, name := range names {
		v := s.view.Load()
		if v == nil || s.queue.isClosed() {
			return nil, nil
		}
		known := find(v.locks, name)
		found, err := here.read(name, known)
		if err != nil {
			s.complaints.Bad(complaints.NoDescriptors, "", err)
			_, takenIn := s.takeIn(files)
			return nil, errors.Join(takenIn, readOnly(err))
		}
		files = append(files, inspected{name, known, found})
		// What has been found is not kept back for what takes long.
		if time.Since(began) >= inspectStretch || len(files) == inspectBatch {
			changed, err := s.takeIn(files)
			if err != nil {
				return nil, err
			}
			again = append(again, changed...)
			files, began = nil, time.Now()
		}
	}
	changed, err := s.takeIn(files)
	return append(again, changed...), err
}

// takeIn takes in what was found in files, and returns when that is committed or the
// store is closed. It returns those that have changed since.
func (s *Store) takeIn(files []inspected) (again []lock.Name, err error) {
	if len(files) == 0 {
		return nil, nil
	}
	c := s.between(func(c *commit) { again = s.reconcile(c, files) })
	if c == nil {
		return nil, nil
	}
	if !errors.Is(c.err, lock.ErrReadOnly) { // which is logged
		s.complaints.Result(complaints.NotTakenIn, c.err)
	}
	return again, c.err
}

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
		case found.Token != e.fileToken || found.Data != e.lock.Data || found.Problem != e.lock.Problem || !e.print.matches(found.print):
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

// Removed implements suspects.Store.
func (i inspector) Removed(dirs []string) {
	s := i.store
	s.committing.Lock()
	defer s.committing.Unlock()
	for _, dir := range dirs {
		s.held.Forget(dir)
	}
}
