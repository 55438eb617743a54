package filestore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// recovery is what the start of a store works with: the past by the journal, the
// present by the files, and the checkpoint that says how far both agree.
//
// Up to the checkpoint the files are right: where they differ from the journal,
// somebody changed them while no server ran. After it the journal is right about
// the files that the server wrote, since a power cut may have undone that. A file
// that the journal does not know is somebody's, and never destroyed.
type recovery struct {
	*Store
	past       map[lock.Name]*history
	checkpoint lock.Revision
	unanswered map[lock.Revision]bool   // of .new files; false: the journal has it
	orphans    map[uint64]lock.Revision // inodes of those that it does not have
	highest    lock.Token               // in any lock file
	outside    *commit                  // the changes that others made
	mended     int
}

// history is what the journal says of one lock.
type history struct {
	last   lock.Event
	hold   lock.Lock // the present or last hold
	byFile bool      // somebody else made the hold's file
	tokens []lock.Token
}

func (h *history) isHeld() bool { return h != nil && h.last.Type != lock.Unlocked }

func (h *history) knows(token lock.Token) bool {
	return h != nil && token != 0 && slices.Contains(h.tokens, token)
}

// recover fills the store.
func (s *Store) recover(ctx context.Context) error {
	r := &recovery{
		Store:      s,
		past:       make(map[lock.Name]*history),
		unanswered: make(map[lock.Revision]bool),
		orphans:    make(map[uint64]lock.Revision),
		outside:    &commit{},
	}
	if err := r.findNewFiles(); err != nil {
		return err
	}
	var err error
	if s.journal, err = journal.Open(s.files, journalDir, s.config.journal, r.replay); err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", s.files.root, rootCause(err))
	}
	if err := r.findOrphans(); err != nil {
		return err
	}
	if err := r.compareFiles(ctx); err != nil {
		return err
	}
	return r.finish()
}

// findNewFiles finds what a crash left under .new names.
func (r *recovery) findNewFiles() error {
	entries, err := r.files.ReadDir(ownDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		digits, isNew := strings.CutSuffix(entry.Name(), newSuffix)
		if revision, err := strconv.ParseUint(digits, 10, 64); isNew && err == nil {
			r.unanswered[lock.Revision(revision)] = true
		}
	}
	return nil
}

// replay takes in one line of the journal.
func (r *recovery) replay(record journal.Record) error {
	switch record.Kind {
	case journal.KindCheckpoint:
		r.checkpoint = record.Revision
	case journal.KindExtended:
		l := record.Event.Lock
		if h := r.past[l.Name]; h.isHeld() && h.hold.Token == l.Token {
			h.hold.TTL, h.hold.ExpireTime = l.TTL, l.ExpireTime
			r.extended[l.Name] = struct{}{}
		}
	case journal.KindEvent:
		event := record.Event
		name := event.Lock.Name
		h := r.past[name]
		if h == nil {
			h = &history{}
			r.past[name] = h
		}
		h.last = event
		switch event.Type {
		case lock.Locked:
			h.hold = event.Lock
			h.byFile = event.Cause == lock.File
			h.tokens = append(h.tokens, event.Lock.Token)
		case lock.Updated:
			h.hold = event.Lock
			h.byFile = h.byFile && event.Cause == lock.File
		}
		delete(r.extended, name)
		if r.unanswered[event.Revision] {
			r.unanswered[event.Revision] = false
		}
	}
	return nil
}

// findOrphans finds the inodes of new files that the journal does not have.
func (r *recovery) findOrphans() error {
	for revision, unanswered := range r.unanswered {
		if !unanswered {
			continue
		}
		info, err := r.files.Lstat(newFileOf(revision))
		if err != nil {
			return err
		}
		r.orphans[fingerprintOf(info).inode] = revision
	}
	return nil
}

// compareFiles goes through all lock files, and then through the holds that have
// none.
func (r *recovery) compareFiles(ctx context.Context) error {
	seen := make(map[lock.Name]bool)
	var unreadable []string
	strays, err := r.files.walk(func(name lock.Name) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		seen[name] = true
		found, err := r.files.read(name)
		if err != nil {
			return fmt.Errorf("looking at the lock file of %s: %w", name, err)
		}
		return r.compare(name, found)
	}, func(dir string, err error) {
		unreadable = append(unreadable, dir+"/")
		r.config.Logger.Warn("a directory cannot be read; the locks below it are taken from the journal", "directory", dir, "error", err)
	})
	if err != nil {
		return err
	}
	if strays > 0 {
		r.config.Logger.Info("files that are no lock files are left alone", "count", strays)
	}
	for _, name := range slices.SortedFunc(maps.Keys(r.past), lock.Name.Compare) {
		switch h := r.past[name]; {
		case seen[name]:
		case slices.ContainsFunc(unreadable, func(dir string) bool { return strings.HasPrefix(name.String(), dir) }):
			if h.isHeld() {
				r.keep(h.hold, lockFile{})
			}
		default:
			if err := r.compare(name, lockFile{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare decides what a lock's state is, by its history and its file.
func (r *recovery) compare(name lock.Name, found lockFile) error {
	if _, orphan := r.orphans[found.print.inode]; orphan && found.exists() {
		// A grant that nobody was told of.
		if err := r.files.Remove(fileOf(name)); err != nil {
			return err
		}
		r.mended++
		found = lockFile{}
	}
	r.highest = max(r.highest, found.Token)
	h := r.past[name]
	recent := h != nil && h.last.Revision > r.checkpoint
	switch {
	case !found.exists() && !h.isHeld():
		return nil

	case !found.exists() && recent && !h.byFile:
		return r.rewrite(h.hold, lockFile{})

	case !found.exists():
		r.tell(lock.Unlocked, h.hold, nil)
		return nil

	case !h.isHeld() && recent && (h.knows(found.Token) || r.isTorn(h, found)):
		r.mended++
		return r.files.Remove(fileOf(name))

	case h == nil && r.journal.Reaches(lock.Revision(found.Token)) || h != nil && !h.isHeld() || h == nil && found.Token == 0:
		now := time.Now().UTC().Truncate(time.Millisecond)
		r.tell(lock.Locked, adopted(name, found, now), &found)
		return nil

	case h == nil:
		// A hold from before the journal's beginning: the file is all there is.
		r.keep(lock.Lock{
			Name:        name,
			Data:        found.Data,
			Holder:      found.Holder,
			Token:       found.Token,
			Revision:    lock.Revision(found.Token),
			AcquireTime: found.AcquireTime,
			TTL:         found.TTL,
			ExpireTime:  found.ExpireTime,
			RequestID:   found.RequestID,
		}, found)
		return nil
	}
	return r.compareHold(h, found, recent)
}

// compareHold is compare for a lock that is held by its history and has a file.
func (r *recovery) compareHold(h *history, found lockFile, recent bool) error {
	same := h.hold.Data == found.Data && h.hold.Problem == found.Problem
	own := found.Token == h.hold.Token
	switch {
	case own && same, h.byFile && same:
		r.keep(h.hold, found)
	case own && recent && !h.byFile, r.isTorn(h, found), recent && !h.byFile && h.knows(found.Token) && !own:
		return r.rewrite(h.hold, found)
	case own, h.byFile && !h.knows(found.Token):
		l := h.hold.WithData(found.Data)
		l.Problem = found.Problem
		r.tell(lock.Updated, l, &found)
	default:
		now := time.Now().UTC().Truncate(time.Millisecond)
		r.tell(lock.Locked, adopted(h.hold.Name, found, now), &found)
	}
	return nil
}

// isTorn reports whether a file is what a power cut left of the server's own file
// of the history's last hold: it is not younger than the history, and each byte is
// what was written there or was never written. Lock files are not synced one by
// one.
func (r *recovery) isTorn(h *history, found lockFile) bool {
	const clockSkew = time.Second // between the file system's clock and ours
	if h.byFile || found.Token != 0 || found.mtime.After(h.last.Time.Add(clockSkew)) || h.last.Revision <= r.checkpoint {
		return false
	}
	text, err := readWhole(r.files, fileOf(h.hold.Name))
	if err != nil {
		return false
	}
	written := lockfile.Append(nil, h.hold, r.files.location(h.hold.Name))
	if len(text) > len(written) {
		return false
	}
	for i, c := range text {
		if c != 0 && c != written[i] {
			return false
		}
	}
	return len(bytes.TrimRight(text, "\x00")) < len(written)
}

// keep takes a hold over with its file as it is.
func (r *recovery) keep(l lock.Lock, found lockFile) {
	r.locks.ReplaceOrInsert(&entry{key: l.Name.String(), lock: l, fileToken: found.Token, print: found.print})
}

// rewrite writes the file of a hold again, in place of found.
func (r *recovery) rewrite(l lock.Lock, found lockFile) error {
	p, err := r.files.writeNew(l.Revision, lockfile.Append(nil, l, r.files.location(l.Name)))
	if err != nil {
		return err
	}
	delete(r.unanswered, l.Revision)
	if found.exists() {
		err = r.files.Rename(newFileOf(l.Revision), fileOf(l.Name))
	} else if err = r.files.link(l.Revision, l.Name); err == nil {
		err = r.files.Remove(newFileOf(l.Revision))
	}
	if err != nil {
		return fmt.Errorf("writing the lock file of %s again: %w", l.Name, err)
	}
	r.mended++
	r.locks.ReplaceOrInsert(&entry{key: l.Name.String(), lock: l, fileToken: l.Token, print: p})
	return nil
}

// tell notes an outside change, to be committed when all is compared. l is the
// lock after it, without its revision.
func (r *recovery) tell(t lock.EventType, l lock.Lock, found *lockFile) {
	st := step{record: journal.Record{Kind: journal.KindEvent, Event: lock.Event{Type: t, Cause: lock.File, Lock: l}}}
	if found != nil {
		st.after = &entry{key: l.Name.String(), lock: l, fileToken: found.Token, print: found.print}
	}
	r.outside.steps = append(r.outside.steps, st)
}

// finish commits the outside changes, with revisions above all that was ever
// given out, and makes what was mended durable.
func (r *recovery) finish() error {
	r.revision = max(r.journal.Last(), lock.Revision(r.highest))
	r.journal.Advance(r.revision)
	now := time.Now().UTC().Truncate(time.Millisecond)
	var records []journal.Record
	for i := range r.outside.steps {
		st := &r.outside.steps[i]
		r.revision++
		e := &st.record.Event
		e.Revision, e.Time, e.Lock.Revision = r.revision, now, r.revision
		if e.Type == lock.Locked {
			e.Lock.Token = lock.Token(r.revision)
		}
		if st.after != nil {
			st.after.lock = e.Lock
			r.locks.ReplaceOrInsert(st.after)
		}
		records = append(records, st.record)
		r.config.Logger.Info("a lock file was changed while no server ran", "name", e.Lock.Name, "event", e.Type, "revision", e.Revision, "problem", e.Lock.Problem)
	}
	const batch = 1024
	for chunk := range slices.Chunk(records, batch) {
		if err := r.journal.Write(false, chunk...); err != nil {
			return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
		}
	}
	for revision := range r.unanswered {
		r.complain(r.files.Remove(newFileOf(revision)))
	}
	if r.mended > 0 {
		r.config.Logger.Warn("the last server did not stop cleanly; lock files were brought in line with the journal", "files", r.mended)
	}
	if err := r.Store.checkpoint(); err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	r.revision = max(r.revision, r.journal.Last())
	return nil
}

// checkpoint makes all lock files durable and says so in the journal. Only the
// committer calls it, or who is alone.
func (s *Store) checkpoint() error {
	if s.failed != nil {
		return nil
	}
	if err := s.files.Sync(); err != nil {
		return err
	}
	err := s.journal.Write(true, journal.Record{Kind: journal.KindCheckpoint, Revision: s.revision, Time: time.Now()})
	if err != nil {
		return err
	}
	return s.journal.Sync()
}
