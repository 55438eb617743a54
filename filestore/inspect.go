package filestore

import (
	"errors"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
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
