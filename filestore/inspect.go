package filestore

import (
	"context"
	"errors"
	"sync"
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

// mostInspections is how often a file that changes meanwhile is read again at once.
const mostInspections = 3

// inspect reads the files of locks and has the committer take in what others did to
// them. It returns when that is committed and readers see it, or when the store is
// closed. The error says why it cannot be taken in. In that case, and where a file keeps
// changing, the files are inspected again later.
func (s *Store) inspect(names []lock.Name) (err error) {
	rest := names
	for range mostInspections {
		if rest, err = s.inspectOnce(rest); err != nil {
			s.revisits.addLater(names)
			return err
		}
		if len(rest) == 0 {
			return nil
		}
	}
	s.revisits.addLater(rest)
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
		if time.Since(began) >= pollStretch || len(files) == suspectBatch {
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

// takeIn has the committer take in what was found in files, and returns when that is
// committed or the store is closed. It returns those that have changed since.
func (s *Store) takeIn(files []inspected) (again []lock.Name, err error) {
	if len(files) == 0 {
		return nil, nil
	}
	c := &commit{task: func(c *commit) { again = s.reconcile(c, files) }}
	for _, f := range files {
		c.about = append(c.about, f.name)
	}
	if !s.do(c) {
		return nil, nil
	}
	if !errors.Is(c.err, lock.ErrReadOnly) { // which is logged
		s.complaints.Result(complaints.NotTakenIn, c.err)
	}
	return again, c.err
}

// revisitAfter is how long a file rests that could not be looked at.
const revisitAfter = time.Second

// revisits is the locks whose files are to be inspected again.
type revisits struct {
	told chan struct{} // has an element when there are any

	mu    sync.Mutex
	names map[lock.Name]bool
}

func newRevisits() revisits {
	return revisits{told: make(chan struct{}, 1), names: make(map[lock.Name]bool)}
}

// add has files inspected soon.
func (r *revisits) add(names []lock.Name) {
	r.mu.Lock()
	for _, name := range names {
		r.names[name] = true
	}
	r.mu.Unlock()
	select {
	case r.told <- struct{}{}:
	default:
	}
}

// addLater has files inspected after a pause.
func (r *revisits) addLater(names []lock.Name) {
	if len(names) > 0 {
		time.AfterFunc(revisitAfter, func() { r.add(names) })
	}
}

// take takes out all of them.
func (r *revisits) take() (names []lock.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.names {
		names = append(names, name)
	}
	clear(r.names)
	return names
}

// revisit inspects the files of revisits until ctx ends.
func (s *Store) revisit(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.revisits.told:
			_ = s.inspect(s.revisits.take()) // logged, and tried again
		}
	}
}
