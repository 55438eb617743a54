package filestore

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/filestore/internal/recovery"
	"github.com/pylok/pylok/lock"
)

// carryOutNow does what a verdict asks for. Where the file is changed by somebody just
// then, there is another verdict on it.
func (r *restart) carryOutNow(name lock.Name, found lockFile, v recovery.Verdict) error {
	const tries = 100
	for range tries {
		err := r.carryOut(name, found, v)
		switch {
		case err == nil && v.Remedy != recovery.PutBack:
			return nil
		case err == nil, errors.Is(err, errChanged), errors.Is(err, fs.ErrExist), disk.IsAbsent(err):
			r.noteDisplaced(err)
			if found, err = r.files.read(name, nil); err != nil {
				return fmt.Errorf("looking at the lock file of %s: %w", name, err)
			}
			v = r.judge(name, found)
		case isOfTheFile(err) && (found.exists() || v.Remedy == recovery.Remove):
			r.config.Logger.Warn("a lock file cannot be changed; the lock stays held", "name", name, "error", err)
			if v.Remedy == recovery.Remove {
				v = recovery.Verdict{Remedy: recovery.Adopt, Why: v.Why, Event: lock.Locked}
			} else {
				v.Remedy, v.Why = recovery.Keep, ""
			}
		default:
			// A hold that was acknowledged and has lost its file would be lost too.
			return fmt.Errorf("mending the lock file of %s, which is held: %w", name, err)
		}
	}
	return fmt.Errorf("the lock file of %s changes all the time: start the server when nobody changes it", name)
}

// carryOut is carryOutNow for a file that nobody changes.
func (r *restart) carryOut(name lock.Name, found lockFile, v recovery.Verdict) error {
	isTold := v.Remedy == recovery.Tell || v.Remedy == recovery.Adopt
	if v.Why != "" && !isTold && !r.mended[name] { // a file that was put back may be written again
		r.config.Logger.Warn("mending a lock file", "name", name, "why", v.Why)
		r.mended[name] = true
	}
	past := r.past[name]
	switch {
	case v.Remedy == recovery.Nothing:
		r.locks.Delete(&entry{key: name.String()})
	case v.Remedy == recovery.Remove:
		r.locks.Delete(&entry{key: name.String()})
		moved := r.takenFile(name)
		if err := r.files.take(name, found.print, moved); err != nil {
			return err
		}
		return r.files.Remove(moved)
	case v.Remedy == recovery.Keep:
		r.insert(&entry{lock: v.Lock, byFile: past != nil && past.ByFile, fileToken: found.Token, print: found.print}, found.reserved)
	case v.Remedy == recovery.Rewrite:
		p, err := r.files.rewrite(name, found.print, lockfile.Append(nil, v.Lock, r.files.location(name)), r.movedFile(name), r.movedFile(name))
		if err != nil {
			return err
		}
		r.insert(&entry{lock: v.Lock, fileToken: v.Lock.Token, print: p}, nil)
	case v.Remedy == recovery.PutBack:
		if err := r.putBack(name, found, v.Aside); err != nil {
			return err
		}
		delete(r.asides, hashOf(name)) // and there is another verdict
	case isTold:
		r.tell(name, found, v)
	}
	return nil
}

// tell makes an event of what others did to a lock's file.
func (r *restart) tell(name lock.Name, found lockFile, v recovery.Verdict) {
	past := r.past[name]
	l := v.Lock
	if v.Remedy == recovery.Adopt {
		l = adopted(name, found, r.foundOf(name, found).Location, r.now)
	}
	st := step{record: journal.Record{Kind: journal.KindEvent, Event: lock.Event{Type: v.Event, Cause: lock.File, Lock: l}}}
	if v.Event == lock.Locked && past.IsHeld() { // another hold's file
		st.before = &entry{lock: past.Hold}
	}
	if v.Event == lock.Unlocked {
		r.locks.Delete(&entry{key: name.String()})
	} else {
		st.after = &entry{
			lock:      l,
			byFile:    v.Event == lock.Locked || past.ByFile,
			fileToken: found.Token,
			print:     found.print,
		}
		r.reserved[name] = found.reserved
	}
	r.outside.steps = append(r.outside.steps, st)
}

// putBack gives a file that was moved out of a lock's place that place again, in place
// of what was found there.
func (r *restart) putBack(name lock.Name, found lockFile, moved string) error {
	if !found.exists() {
		return r.files.placeAnything(moved, name)
	}
	err := r.files.Exchange(moved, fileOf(name))
	if errors.Is(err, errors.ErrUnsupported) {
		return r.files.Rename(moved, fileOf(name))
	}
	if err != nil {
		return err
	}
	if err := r.files.expect(moved, found.print); err != nil {
		return errors.Join(err, r.files.Exchange(moved, fileOf(name)))
	}
	return r.files.Remove(moved)
}

// insert adds a hold whose file has reserved keys that the server may not have written.
func (r *restart) insert(e *entry, reserved lockfile.Reserved) {
	e.key = e.lock.Name.String()
	delete(r.extended, e.lock.Name)
	if past := r.past[e.lock.Name]; past != nil && past.Extended && past.Hold.Token == e.lock.Token {
		e.extended = true
		r.extended[e.lock.Name] = struct{}{}
	}
	e.warnings = reserved.Warnings(e.lock, r.files.location(e.lock.Name), e.extended)
	r.locks.ReplaceOrInsert(e)
}

// discard removes the files that the last server has left in .pylok, but for those that are
// somebody's. They tell a next start what a crash may have done, until here.
func (r *restart) discard() {
	pasts := make(map[string]*recovery.Past)
	if len(r.asides) > 0 {
		for name, past := range r.past {
			pasts[hashOf(name)] = past
		}
	}
	for hash, asides := range r.asides {
		for _, aside := range asides {
			if !r.IsSomebodys(pasts[hash], aside.Found) || r.isMade(aside.Name) {
				continue
			}
			if stat, err := r.files.Lstat(aside.Name); err != nil || stat.Mode.IsRegular() && stat.Links > 1 {
				continue // it has its place again, or never left it
			}
			kept := keptOf(aside.Name)
			r.config.Logger.Warn("the server stopped while it looked at a file that somebody had put in the place of a lock file; the file is kept", "kept", kept)
			r.complain(r.files.Rename(aside.Name, kept))
		}
	}
	for _, file := range append(r.leftover, formatFile+newSuffix, batchFile) {
		r.complain(r.files.Remove(file))
	}
	r.batchAfter = 0
}
