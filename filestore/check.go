package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/pool"
	"github.com/pylok/pylok/filestore/internal/recovery"
	"github.com/pylok/pylok/lock"
)

// Check reads a root that no server serves and calls report with a sentence for
// every damage and for every lock whose file and history disagree, with what the
// next start with the same configuration will do about it. It changes nothing. The error
// says why the root could not be checked.
func Check(ctx context.Context, config Config, report func(string)) error {
	root, err := absolute(config.Root)
	if err != nil {
		return err
	}
	fsys, err := disk.Open(root)
	if err != nil {
		return fmt.Errorf("the root %s cannot be opened: %w", root, rootCause(err))
	}
	defer fsys.Close()
	s := &Store{
		files:     files{FS: fsys, root: root},
		config:    Config{Root: root, StateDir: config.StateDir, AcceptRestore: config.AcceptRestore}.withDefaults(),
		committer: committer{locks: newTree(), extended: make(map[lock.Name]struct{}), pool: pool.New(fsys, pool.Config{Dir: ownDir})},
	}
	s.complaints = complaints.New(s.config.Logger)
	if _, err := fsys.Lstat(ownDir); errors.Is(err, fs.ErrNotExist) {
		return reportAdoption(s, report)
	}
	own, err := openOwn(root, fsys)
	if err != nil {
		return err
	}
	defer own.Close()
	if err := own.TryLock(); err != nil {
		return fmt.Errorf("the root %s is being served; stop its server first: %w", root, err)
	}
	var unknown *formatError
	if _, err := readFormat(fsys); errors.As(err, &unknown) {
		report("no start serves this root: " + unknown.Error())
		return nil
	} else if err != nil {
		report(fmt.Sprintf("%s cannot be read, so that no start serves this root: %v", formatFile, err))
		return nil
	}
	r := newRestart(s)
	if err := r.readMarks(); err != nil {
		report("no start serves this root: " + err.Error())
		return nil
	}
	if r.noPast {
		return reportAdoption(s, report)
	}
	r.readSnapshot()
	if err := r.findLeftovers(); err != nil {
		return err
	}
	if n := len(r.leftover); n > 0 {
		report(fmt.Sprintf("%s has %d files that a server left there when it crashed; they will be removed", ownDir, n))
	}
	s.journal, err = journal.Load(fsys, journalDir, r.snapshotAt, r.replay)
	var damage *journal.DamageError
	switch {
	case errors.As(err, &damage):
		report(damage.Error())
		return nil
	case err != nil:
		return err
	}
	if err := r.checkPast(); err != nil {
		report("no start serves this root: " + err.Error())
		return nil
	}
	switch {
	case r.journal.Position() == journal.Position{}:
		return reportAdoption(s, report)
	case s.journal.Last() < r.snapshotAt || r.snapshotAt < s.journal.Kept():
		report(fmt.Sprintf("%s is not of the same past as the journal; a start will do without it", snapshotFile))
		return nil
	}
	if file, bytes := s.journal.Torn(); bytes > 0 {
		report(fmt.Sprintf("%s ends in %d bytes that a crash tore and nobody was told of; they will be cut off", file, bytes))
	}
	daemon, err := readWhole(fsys, daemonFile)
	if err != nil {
		daemon = nil // nothing is known
	}
	r.believe(daemon)
	err = r.compareAll(ctx, func(name lock.Name, _ lockFile, v recovery.Verdict) error {
		if v.Why != "" {
			report(fmt.Sprintf("%s: %s; %s", name, v.Why, v.Consequence()))
		}
		return nil
	})
	for _, dir := range slices.Sorted(maps.Keys(r.unlisted)) {
		report(fmt.Sprintf("the directory %s cannot be read (%v): its locks are taken to be as the journal has them, and others in it stay unseen", dir, disk.ReasonOf(r.unlisted[dir])))
	}
	return err
}

// reportAdoption tells what becomes of a root that has no journal.
func reportAdoption(s *Store, report func(string)) error {
	var mu sync.Mutex
	var names []lock.Name
	_, err := s.files.walk(func(l listing) error {
		mu.Lock()
		defer mu.Unlock()
		for _, file := range l.locks {
			names = append(names, file.name)
		}
		return nil
	}, func(dir string, err error) {
		report(fmt.Sprintf("the directory %s cannot be read: %v", dir, err))
	})
	slices.SortFunc(names, lock.Name.Compare)
	for _, name := range names {
		report(fmt.Sprintf("%s: there is no journal; the lock file will be adopted as an anonymous hold", name))
	}
	return err
}
