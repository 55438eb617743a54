package filestore

import (
	"errors"
	"io/fs"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
)

const (
	snapshotFile = ownDir + "/snapshot"
	// snapshotChanges is how many changes make a snapshot worth writing, where
	// fewer locks are held than that; else it is their number. So a snapshot
	// costs no more than the changes did.
	snapshotChanges = 10_000
)

// saveSnapshot is writeSnapshot where a failure costs the next start time, and no more.
func (s *Store) saveSnapshot(v *view) {
	if err := s.writeSnapshot(v); err != nil {
		s.complain(err)
		return
	}
	s.snapshot = v.revision
}

// writeSnapshot writes a view that a checkpoint covers.
func (s *Store) writeSnapshot(v *view) error {
	return journal.WriteSnapshot(s.files, snapshotFile, v.revision, func(yield func(journal.Hold) bool) {
		v.locks.Ascend(func(e *entry) bool {
			p := e.print
			if !p.isKnown() || e.warnings != "" { // the next start is to read it
				p = fingerprint{inode: p.inode, birth: p.birth}
			}
			return yield(journal.Hold{
				Lock:      e.lock,
				ByFile:    e.byFile,
				Extended:  e.extended,
				FileToken: e.fileToken,
				File:      disk.Stat{Inode: p.inode, Size: p.size, Mtime: p.mtime, Ctime: p.ctime, Birth: p.birth},
			})
		})
	})
}

// readSnapshot begins a recovery with the last snapshot, if there is one. One that
// cannot be used costs time, and the tokens of holds that nothing else remembers.
func (r *restart) readSnapshot() {
	revision, err := journal.ReadSnapshot(r.files, snapshotFile, func(h *journal.Hold) {
		r.locks.ReplaceOrInsert(&entry{
			key:       h.Lock.Name.String(),
			lock:      h.Lock,
			byFile:    h.ByFile,
			extended:  h.Extended,
			fileToken: h.FileToken,
			print:     fingerprint{inode: h.File.Inode, size: h.File.Size, mtime: h.File.Mtime, ctime: h.File.Ctime, birth: h.File.Birth},
		})
		r.highest = max(r.highest, h.Lock.Token)
		if h.Extended {
			r.extended[h.Lock.Name] = struct{}{}
		}
	})
	if err == nil {
		r.snapshotAt, r.Checkpoint, r.finished = revision, revision, true
		return
	}
	r.locks.Clear(false)
	clear(r.extended)
	if !errors.Is(err, fs.ErrNotExist) {
		r.config.Logger.Warn("the snapshot cannot be used; the start takes longer", "error", err)
	}
}
