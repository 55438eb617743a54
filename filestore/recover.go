package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
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
	marks
	past       map[lock.Name]*history
	checkpoint lock.Revision
	finished   bool                            // a start has come to its end before
	snapshotAt lock.Revision                   // the locks that it has are in Store.locks
	written    map[uint64]bool                 // inodes of the files that the last server wrote last
	intact     bool                            // no file has lost what was written to it
	unsynced   bool                            // the files may lose it although they show it
	unlisted   map[string]error                // directories that could not be read
	terms      map[lock.Name]lock.Lock         // of holds that were renewed with other terms
	highest    lock.Token                      // in any lock file
	unread     bool                            // a power cut has taken the token of a file that the server wrote
	leftover   []string                        // files to be removed in the end
	moved      []string                        // those of them that had the place of a lock file
	outside    *commit                         // the changes that others made
	reserved   map[lock.Name]lockfile.Reserved // in the files that these are about
	mended     int
	read       int                 // files that were read
	dirs       map[string]dirState // as they were listed
	now        time.Time
}

// history is what the journal says of one lock.
type history struct {
	last   lock.Event
	hold   lock.Lock      // the present or last hold
	byFile bool           // somebody else made the hold's file
	edited bool           // somebody has edited the hold's file, and its lock_token may be gone
	file   journal.FileID // the hold's; zero: not known
	// steady: what the hold's file says is what was written there last, by the server
	// or somebody else. Set when the two are compared.
	steady bool
	tokens []lock.Token
	// versions is what the hold's file has said since the checkpoint: a power
	// cut may leave any of it, torn.
	versions []lock.Lock
	// byHand is what somebody wrote into the file and the server, or somebody,
	// replaced since the checkpoint: a power cut may bring it back.
	byHand []replaced
}

// replaced is a version of a lock's file that another has taken the place of.
type replaced struct {
	lock.Lock
	at lock.Revision // of what replaced it
}

func (h *history) isHeld() bool { return h != nil && h.last.Type != lock.Unlocked }

func (h *history) knows(token lock.Token) bool {
	return h != nil && token != 0 && slices.Contains(h.tokens, token)
}

// recover fills the store, and returns what it has learned on the way.
func (s *Store) recover(ctx context.Context) (*recovery, error) {
	r := newRecovery(s)
	if err := r.readMarks(); err != nil {
		return nil, err
	}
	if r.noPast {
		if err := r.giveUpPast(); err != nil {
			return nil, fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
		}
	}
	r.readSnapshot()
	err := r.openJournal()
	if err != nil {
		return nil, err
	}
	if err := r.checkPast(); err != nil {
		return nil, fmt.Errorf("the root %s cannot be served: %w", r.files.root, err)
	}
	if s.journal.Last() < r.snapshotAt || r.snapshotAt < s.journal.Kept() {
		// The snapshot and the journal are not of the same past: somebody
		// took the journal away, or put another there.
		if err := s.journal.Close(); err != nil {
			return nil, err
		}
		forgotten := lock.Token(r.snapshotAt)
		if r, err = s.recoverWithoutSnapshot(r.marks); err != nil {
			return nil, err
		}
		r.highest = max(r.highest, forgotten) // no revision is ever used again
	}
	r.believe(s.claim.before)
	if err := r.compareAll(ctx, r.carryOutNow); err != nil {
		return nil, err
	}
	s.snapshot = r.snapshotAt
	if err := r.finish(); err != nil {
		return nil, err
	}
	return r, nil
}

// recoverWithoutSnapshot begins a recovery again, after it has removed the snapshot,
// so that no later start believes it.
func (s *Store) recoverWithoutSnapshot(known marks) (*recovery, error) {
	if err := s.files.Remove(snapshotFile); err != nil && !disk.IsAbsent(err) {
		return nil, err
	}
	if err := s.files.SyncDir(ownDir); err != nil {
		return nil, err
	}
	s.locks.Clear(false)
	clear(s.extended)
	r := newRecovery(s)
	r.marks = known
	return r, r.openJournal()
}

// openJournal opens the journal and takes it in.
func (r *recovery) openJournal() error {
	if err := r.findWritten(); err != nil {
		return err
	}
	config := r.config.journal
	config.After = r.snapshotAt
	var err error
	if r.Store.journal, err = journal.Open(r.files, journalDir, config, r.replay); err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	return nil
}

// believe takes in what the last server said in .pylok/daemon. It moves the checkpoint
// forward if the file system has been intact since that server wrote to it: then all that
// the journal has is in the files, which are changed before.
func (r *recovery) believe(daemon []byte) {
	mount := mountOf(daemon)
	r.unsynced = mount == syncFailed
	r.intact = mount != "" && mount == r.files.Mount()
	if r.intact {
		r.checkpoint = max(r.checkpoint, r.journal.Last())
	}
}

func newRecovery(s *Store) *recovery {
	return &recovery{
		Store:    s,
		past:     make(map[lock.Name]*history),
		written:  make(map[uint64]bool),
		terms:    make(map[lock.Name]lock.Lock),
		outside:  &commit{},
		unlisted: make(map[string]error),
		reserved: make(map[lock.Name]lockfile.Reserved),
		dirs:     make(map[string]dirState),
		now:      time.Now().UTC().Truncate(time.Millisecond),
	}
}

// findWritten finds the files that still have the name in .pylok under which the last
// server wrote them.
func (r *recovery) findWritten() error {
	var err error
	if r.batchAfter, err = readBatchFile(r.files); err != nil {
		return err
	}
	entries, err := disk.List(r.files, ownDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := ownDir + "/" + entry.Name()
		r.noteNumber(entry.Name())
		digits, isNew := strings.CutSuffix(entry.Name(), newSuffix)
		if _, err := strconv.ParseUint(digits, 10, 64); isNew && err == nil {
			stat, err := r.files.Lstat(name)
			if err != nil {
				return err
			}
			text, err := readWhole(r.files, name)
			if err != nil {
				return err
			}
			r.written[stat.Inode] = true
			// Somebody may have seen its token, although nothing came of it.
			token := lockfile.Read(text).Token
			r.noteToken(token)
			r.unread = r.unread || token == 0
			r.leftover = append(r.leftover, name)
		}
		if strings.HasSuffix(entry.Name(), moveSuffix) || strings.HasSuffix(entry.Name(), takeSuffix) {
			r.leftover = append(r.leftover, name)
			r.moved = append(r.moved, name)
		}
	}
	return nil
}

// noteNumber keeps the number of a file in .pylok from being given to another.
func (r *recovery) noteNumber(file string) {
	digits := file[:len(file)-len(strings.TrimLeft(file, "0123456789"))]
	if n, err := strconv.ParseUint(digits, 10, 64); err == nil && n < math.MaxUint64/2 {
		r.Store.written.last = max(r.Store.written.last, n)
	}
}

// replay takes in one line of the journal.
func (r *recovery) replay(record journal.Record) error {
	switch record.Kind {
	case journal.KindCheckpoint:
		r.finished = true
		r.checkpoint = max(r.checkpoint, record.Revision)
		r.highest = max(r.highest, lock.Token(record.Counter))
	case journal.KindExtended:
		if l := record.Event.Lock; record.Revision >= r.snapshotAt {
			r.terms[l.Name] = l
			r.historyOf(l.Name)
		}
	case journal.KindEvent:
		event := record.Event
		name := event.Lock.Name
		if event.Revision <= r.snapshotAt {
			return nil
		}
		h := r.historyOf(name)
		if h == nil {
			h = &history{}
			r.past[name] = h
		}
		if h.isHeld() && h.byFile {
			h.byHand = append(h.byHand, replaced{h.hold, event.Revision})
		}
		h.last = event
		if event.Type != lock.Unlocked {
			h.file = r.fileOf(record.File, event.Revision)
		}
		switch event.Type {
		case lock.Locked:
			h.edited = false
			h.hold = event.Lock
			h.byFile = event.Cause == lock.File
			h.tokens = append(h.tokens, event.Lock.Token)
		case lock.Updated:
			h.edited = event.Cause == lock.File
			h.hold = event.Lock
			h.byFile = h.byFile && event.Cause == lock.File
		}
		for len(h.versions) > 0 && h.versions[0].Revision <= r.checkpoint {
			h.versions = h.versions[1:]
		}
		for len(h.byHand) > 0 && h.byHand[0].at <= r.checkpoint {
			h.byHand = h.byHand[1:]
		}
		if event.Type != lock.Unlocked && event.Cause != lock.File {
			h.versions = append(h.versions, event.Lock)
		}
		delete(r.terms, name)
		delete(r.extended, name)
	}
	return nil
}

// fileOf is the id of a file as it was written down as of a revision, or zero where it
// says nothing: in a copy of the root the files are others.
func (r *recovery) fileOf(id journal.FileID, at lock.Revision) journal.FileID {
	if id.Birth == 0 || r.before.Own != r.own || at <= r.before.OwnSince {
		return journal.FileID{}
	}
	return id
}

// historyOf returns what the journal and the snapshot say of a lock, nil: nothing.
func (r *recovery) historyOf(name lock.Name) *history {
	h := r.past[name]
	if e := find(r.locks, name); h == nil && e != nil {
		event := lock.Event{Revision: e.lock.Revision, Time: e.lock.AcquireTime, Type: lock.Locked, Lock: e.lock}
		h = &history{
			last:   event,
			hold:   e.lock,
			byFile: e.byFile,
			edited: e.fileToken != e.lock.Token,
			file:   r.fileOf(e.print.id(), r.snapshotAt),
			tokens: []lock.Token{e.lock.Token},
		}
		r.past[name] = h
		if _, ok := r.terms[name]; !ok && e.extended {
			r.terms[name] = e.lock
		}
	}
	return h
}

// isOrphan reports whether a file is one that the last server wrote and the journal
// does not account for: for a grant that nobody was told of, or, after a power cut,
// for one that is over, or for another lock's, where what the directory says and what
// the file says are not of the same time. A journal that lacks more than the last
// batch is not asked.
func (r *recovery) isOrphan(found lockFile) bool {
	return r.written[found.print.inode] && r.finished && r.journal.Last() >= r.batchAfter &&
		(!r.intact || lock.Revision(found.Token) > r.journal.Last())
}

// compareAll calls act with the verdict on every lock that has a file or a history,
// but for those whose files are as the snapshot knows them.
func (r *recovery) compareAll(ctx context.Context, act func(lock.Name, lockFile, verdict) error) error {
	suspects, unreadable, err := r.findSuspects(ctx)
	if err != nil {
		return err
	}
	r.read = len(suspects)
	seen := make(map[lock.Name]bool, len(suspects))
	for _, s := range suspects {
		seen[s.name] = true
	}
	err = r.readAll(suspects, func(name lock.Name, found lockFile) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.noteToken(found.Token)
		r.historyOf(name)
		return act(name, found, r.compare(name, found))
	})
	if err != nil {
		return err
	}
	for _, name := range slices.SortedFunc(maps.Keys(r.past), lock.Name.Compare) {
		if seen[name] {
			continue
		}
		found := lockFile{}
		v := r.compare(name, found)
		hidden := slices.ContainsFunc(unreadable, func(dir string) bool { return strings.HasPrefix(name.String(), dir) })
		if h := r.past[name]; hidden && h.isHeld() {
			v = verdict{remedy: keep, lock: r.withTerms(h.hold)}
			found = h.lastFile()
		}
		if err := act(name, found, v); err != nil {
			return err
		}
	}
	return nil
}

// unread is a lock whose file has to be read.
type unread struct {
	name  lock.Name
	known *entry // by the snapshot; nil: nothing
}

// findSuspects lists all directories and finds the lock files that are not as the
// snapshot knows them, or that the journal has something to say of. The locks of the
// snapshot that have no file get a history. unreadable is directories, with a slash,
// that could not be read.
func (r *recovery) findSuspects(ctx context.Context) (suspects []unread, unreadable []string, err error) {
	var mu sync.Mutex
	var present []*entry // whose files are there
	strays, err := r.files.walk(func(l listing) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var known []*entry
		var unlike []unread
		probe := new(entry) // for all of them: an entry is large
		for _, file := range l.locks {
			probe.key = file.name.String()
			e, found := r.locks.Get(probe)
			if found {
				known = append(known, e)
			}
			if r.past[file.name] != nil || !r.isAsKnown(e, file.base, l.at) {
				unlike = append(unlike, unread{file.name, e})
			}
		}
		mu.Lock()
		defer mu.Unlock()
		present = append(present, known...)
		suspects = append(suspects, unlike...)
		r.dirs[l.dir] = dirState{stat: l.stat, fresh: l.fresh}
		return nil
	}, func(dir string, err error) {
		unreadable = append(unreadable, dir+"/")
		mu.Lock()
		defer mu.Unlock()
		r.dirs[dir] = dirState{fresh: true} // the poller is to try again
		r.unlisted[dir] = err
		r.complaints.Unreadable(dir, err)
	})
	if err != nil {
		return nil, nil, err
	}
	if strays > 0 {
		r.config.Logger.Info("files that are no lock files are left alone", "count", strays)
	}
	if len(present) < r.locks.Len() {
		seen := make(map[*entry]bool, len(present))
		for _, e := range present {
			seen[e] = true
		}
		r.locks.Ascend(func(e *entry) bool {
			if !seen[e] {
				r.historyOf(e.lock.Name)
			}
			return true
		})
	}
	slices.SortFunc(suspects, func(a, b unread) int { return a.name.Compare(b.name) })
	return suspects, unreadable, nil
}

// isAsKnown reports whether a file is as the snapshot knows it.
func (r *recovery) isAsKnown(e *entry, base string, at disk.Dir) bool {
	if e == nil || !e.print.isKnown() {
		return false
	}
	now, err := at.Lstat(base)
	return err == nil && e.print.matches(fingerprintOf(now)) && !r.written[now.Inode]
}

// readChunk is how many files a processor reads at a time.
const readChunk = 64

// readAll reads the files of suspects, on all processors, and calls take with each in
// turn.
func (r *recovery) readAll(suspects []unread, take func(lock.Name, lockFile) error) error {
	type chunk struct {
		suspects []unread
		found    []lockFile
		err      error
		done     chan struct{} // closed when all of it is read
	}
	read := func(c *chunk) {
		defer close(c.done)
		held := r.files.Hold()
		defer held.Drop()
		here := files{FS: held, root: r.files.root}
		for _, s := range c.suspects {
			found, err := here.read(s.name, s.known)
			if err != nil {
				c.err = fmt.Errorf("looking at the lock file of %s: %w", s.name, err)
				return
			}
			c.found = append(c.found, found)
		}
	}
	var reading []*chunk // in order
	defer func() {
		for _, c := range reading { // after an error
			<-c.done
		}
	}()
	for rest := suspects; len(rest) > 0 || len(reading) > 0; {
		for len(rest) > 0 && len(reading) <= runtime.GOMAXPROCS(0) {
			n := min(readChunk, len(rest))
			c := &chunk{suspects: rest[:n], done: make(chan struct{})}
			rest = rest[n:]
			reading = append(reading, c)
			go read(c)
		}
		c := reading[0]
		reading = reading[1:]
		<-c.done
		for i, found := range c.found {
			if err := take(c.suspects[i].name, found); err != nil {
				return err
			}
		}
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// remedy is what is done about a lock whose file and history are compared.
type remedy uint8

const (
	nothing remedy = iota // the lock is free, and so says everything
	keep                  // the hold stands, and so does its file
	rewrite               // the hold stands; its file is written again
	putBack               // the hold stands; its file gets its place again
	remove                // the lock is free; its file is removed
	tell                  // others changed the file: that becomes an event
)

// verdict is what comparing a lock's file with its history leads to.
type verdict struct {
	remedy remedy
	why    string         // in words, for people; empty: all is well
	lock   lock.Lock      // the hold, for keep and rewrite; the lock after, for tell
	event  lock.EventType // for tell
	moved  string         // for putBack: where the file is
}

// tellOf is the verdict that others changed a lock's file.
func tellOf(why string, after lock.Lock, event lock.EventType) verdict {
	return verdict{remedy: tell, why: why, lock: after, event: event}
}

// movedOf returns where the last server moved the file of a hold that the journal knows,
// for a change that it does not know; empty: nowhere. It also reports whether somebody
// has changed since then what that server left in the place: removed the file that took
// it, or edited it.
func (r *recovery) movedOf(h *history, found lockFile) (file string, changed bool) {
	if found.exists() && !r.written[found.print.inode] {
		return "", false // it was replaced
	}
	for _, file := range r.moved {
		if !isMovedOf(file, h.hold.Name) {
			continue
		}
		moved, err := r.files.readAt(file, nil)
		if err != nil || !moved.exists() || !h.isAsHeld(moved) {
			continue
		}
		if !found.exists() {
			return file, !strings.HasSuffix(file, takeSuffix)
		}
		return file, found.print.mtime > moved.print.ctime // when the one took the place of the other
	}
	return "", false
}

// compare decides what becomes of a lock by its history and its file. It changes
// nothing.
func (r *recovery) compare(name lock.Name, found lockFile) verdict {
	v := r.compareShown(name, found)
	h := r.past[name]
	if v.remedy == keep && r.unsynced && h != nil && !h.byFile && h.last.Revision > r.checkpoint {
		v.remedy, v.why = rewrite, "the last server could not make the lock file durable"
	}
	return v
}

// compareShown is compare for files that are what they show.
func (r *recovery) compareShown(name lock.Name, found lockFile) verdict {
	h := r.past[name]
	recent := h != nil && h.last.Revision > r.checkpoint
	if h != nil {
		h.steady = r.intact || !recent
	}
	var moved string
	var changed bool
	if h.isHeld() && !(found.exists() && h.isAsHeld(found)) {
		moved, changed = r.movedOf(h, found)
	}
	adopt := func(why string) verdict {
		return tellOf(why, adopted(name, found, r.now), lock.Locked)
	}
	switch {
	case !found.exists() && !h.isHeld():
		return verdict{}

	case !found.exists() && recent && !h.byFile:
		return verdict{remedy: rewrite, why: "the lock file of a recent hold is missing", lock: r.withTerms(h.hold)}

	case moved != "" && !changed:
		return verdict{remedy: putBack, why: "the lock was being changed when the server stopped", lock: r.withTerms(h.hold), moved: moved}

	case !found.exists():
		return tellOf("the lock file was removed while no server ran", h.hold, lock.Unlocked)

	case r.isOrphan(found) && !h.isHeld():
		return verdict{remedy: remove, why: "the lock was being granted or released when the server stopped"}

	case r.isOrphan(found) && !h.isAsHeld(found) && !changed:
		return verdict{remedy: rewrite, why: "the lock file was being written when the server stopped", lock: r.withTerms(h.hold)}

	case found.unread && h.isHeld() && recent && !h.byFile:
		return verdict{remedy: rewrite, why: "the lock file of a recent hold cannot be read", lock: r.withTerms(h.hold)}

	case found.unread && h.isHeld(): // what it says is found when it can be read
		return verdict{remedy: keep, lock: r.withTerms(h.hold)}

	case h.isHeld():
		return r.compareHold(h, found, recent)

	case recent && (h.knows(found.Token) && !found.mtime.After(h.last.Time.Add(timeGrain)) || r.isTorn(h, found) || r.isBack(h, found)):
		return verdict{remedy: remove, why: "the lock file of a released hold came back"}

	case h == nil && found.Token != 0:
		return adopt("the lock file is of no hold that the history knows")
	}
	return adopt("the lock file was made while no server ran")
}

// isAsHeld reports whether a file says what the history does.
func (h *history) isAsHeld(found lockFile) bool {
	isOf := h.isOwn(found) || h.byFile || h.isSameFile(found) || h.edited && h.file == (journal.FileID{})
	return isOf && h.hold.Data == found.Data && h.hold.Problem == found.Problem
}

// isOwn reports whether a file has the hold's token.
func (h *history) isOwn(found lockFile) bool {
	return found.Token != 0 && found.Token == h.hold.Token
}

// isSameFile reports whether a file is certainly the hold's, be it edited. The server
// writes its files again for other holds, and a power cut may bring back what they said.
func (h *history) isSameFile(found lockFile) bool {
	return h.file != (journal.FileID{}) && h.file == found.print.id() && (h.steady || found.Token == 0)
}

// lastFile is what the history knows of the hold's file.
func (h *history) lastFile() (f lockFile) {
	f.print = fingerprint{inode: h.file.Inode, birth: h.file.Birth}
	if !h.byFile && !h.edited {
		f.Token = h.hold.Token
	}
	return f
}

// compareHold is compare for a lock that is held by its history and has a file.
func (r *recovery) compareHold(h *history, found lockFile, recent bool) verdict {
	own := h.isOwn(found)
	hold := r.withTerms(h.hold)
	switch {
	case h.isAsHeld(found):
		return verdict{remedy: keep, lock: hold}

	case own && recent && !h.byFile:
		return verdict{remedy: rewrite, why: "the lock file does not have the latest data of a recent hold", lock: hold}

	case !own && recent && !h.byFile && h.knows(found.Token), r.isBack(h, found):
		return verdict{remedy: rewrite, why: "the lock file is that of a hold before", lock: hold}

	case r.isTorn(h, found):
		return verdict{remedy: rewrite, why: "the lock file of a recent hold is half written", lock: hold}

	case own, h.isSameFile(found), h.byFile && !h.knows(found.Token):
		edited := hold.WithData(found.Data)
		edited.Problem = found.Problem
		return tellOf("the lock file was edited while no server ran", edited, lock.Updated)
	}
	return tellOf("the lock file was replaced while no server ran", adopted(hold.Name, found, r.now), lock.Locked)
}

// withTerms returns a hold with the terms that it was renewed with.
func (r *recovery) withTerms(l lock.Lock) lock.Lock {
	if terms, ok := r.terms[l.Name]; ok && terms.Token == l.Token {
		l.TTL, l.ExpireTime = terms.TTL, terms.ExpireTime
	}
	return l
}

// carryOutNow does what a verdict asks for. Where the file is changed by somebody just
// then, there is another verdict on it.
func (r *recovery) carryOutNow(name lock.Name, found lockFile, v verdict) error {
	const tries = 100
	for range tries {
		err := r.carryOut(name, found, v)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errChanged), errors.Is(err, fs.ErrExist), disk.IsAbsent(err):
			r.noteDisplaced(err)
			if found, err = r.files.read(name, nil); err != nil {
				return fmt.Errorf("looking at the lock file of %s: %w", name, err)
			}
			v = r.compare(name, found)
		case isOfTheFile(err) && (found.exists() || v.remedy == remove):
			r.config.Logger.Warn("a lock file cannot be changed; the lock stays held", "name", name, "error", err)
			if v.remedy == remove {
				v = tellOf(v.why, adopted(name, found, r.now), lock.Locked)
			} else {
				v.remedy, v.why = keep, ""
			}
		default:
			// A hold that was acknowledged and has lost its file would be lost too.
			return fmt.Errorf("mending the lock file of %s, which is held: %w", name, err)
		}
	}
	return fmt.Errorf("the lock file of %s changes all the time: start the server when nobody changes it", name)
}

// carryOut is carryOutNow for a file that nobody changes.
func (r *recovery) carryOut(name lock.Name, found lockFile, v verdict) error {
	if v.why != "" && v.remedy != tell {
		r.config.Logger.Warn("mending a lock file", "name", name, "why", v.why)
		r.mended++
	}
	h := r.past[name]
	switch v.remedy {
	case nothing, remove:
		r.locks.Delete(&entry{key: name.String()})
		if v.remedy == remove {
			moved := r.takenFile(name)
			if err := r.files.take(name, found.print, moved); err != nil {
				return err
			}
			return r.files.Remove(moved)
		}
	case keep:
		r.insert(&entry{lock: v.lock, byFile: h != nil && h.byFile, fileToken: found.Token, print: found.print}, found.reserved)
	case rewrite:
		p, err := r.files.rewrite(name, found.print, lockfile.Append(nil, v.lock, r.files.location(name)), r.movedFile(name), r.movedFile(name))
		if err != nil {
			return err
		}
		r.insert(&entry{lock: v.lock, fileToken: v.lock.Token, print: p}, nil)
	case putBack:
		back, err := r.files.readAt(v.moved, nil)
		if err == nil {
			err = r.putBack(name, found, v.moved)
		}
		if err != nil {
			return err
		}
		back.print.ctime = 0 // it has another name now
		r.insert(&entry{lock: v.lock, byFile: h.byFile, fileToken: back.Token, print: back.print}, back.reserved)
	case tell:
		st := step{record: journal.Record{Kind: journal.KindEvent, Event: lock.Event{Type: v.event, Cause: lock.File, Lock: v.lock}}}
		if v.event == lock.Locked && h.isHeld() { // another hold's file
			st.before = &entry{lock: r.withTerms(h.hold)}
		}
		if v.event == lock.Unlocked {
			r.locks.Delete(&entry{key: name.String()})
		} else {
			st.after = &entry{
				lock:      v.lock,
				byFile:    v.event == lock.Locked || h.byFile,
				fileToken: found.Token,
				print:     found.print,
			}
			r.reserved[name] = found.reserved
		}
		r.outside.steps = append(r.outside.steps, st)
	}
	return nil
}

// putBack gives a file that was moved out of a lock's place that place again, in place
// of what was found there.
func (r *recovery) putBack(name lock.Name, found lockFile, moved string) error {
	if !found.exists() {
		err := r.files.link(moved, name)
		if errors.Is(err, syscall.EPERM) {
			return r.files.moveBack(moved, name)
		}
		if err != nil {
			return err
		}
		return r.files.Remove(moved)
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
func (r *recovery) insert(e *entry, reserved lockfile.Reserved) {
	e.key = e.lock.Name.String()
	if terms, ok := r.terms[e.lock.Name]; ok && terms.Token == e.lock.Token {
		e.extended = true
		r.extended[e.lock.Name] = struct{}{}
	}
	e.warnings = reserved.Warnings(e.lock, r.files.location(e.lock.Name), e.extended)
	r.locks.ReplaceOrInsert(e)
}

// discard removes a file that the last server has left in .pylok, unless it is somebody's.
func (r *recovery) discard(file string) error {
	if !slices.Contains(r.moved, file) || !r.isSomebodys(file) {
		return r.files.Remove(file)
	}
	kept := keptOf(file)
	r.config.Logger.Warn("the server stopped while it looked at a file that somebody had put in the place of a lock file; the file is kept", "kept", kept)
	return r.files.Rename(file, kept)
}

// isSomebodys reports whether a file that the last server moved out of a lock's place is
// none that a server wrote or knew as the hold's, and has no other name.
func (r *recovery) isSomebodys(file string) bool {
	if stat, err := r.files.Lstat(file); err != nil || stat.Mode.IsRegular() && stat.Links > 1 {
		return false
	}
	found, err := r.files.readAt(file, nil)
	if err != nil || !found.exists() || found.Token != 0 || r.written[found.print.inode] {
		return false
	}
	for name, h := range r.past {
		if isMovedOf(file, name) {
			return !h.isSameFile(found) && (h.hold.Data != found.Data || h.hold.Problem != found.Problem)
		}
	}
	return true
}

// mostUnread is more revisions than the last batch can have given out.
const mostUnread = 1 << 16

// timeGrain is what an event's time is rounded down by.
const timeGrain = time.Millisecond

// isTorn reports whether a file is what a power cut left of a file that the server
// wrote for the lock since the checkpoint: it is not younger than the history, and
// each byte is what was written there or was never written. Lock files are not
// synced one by one.
func (r *recovery) isTorn(h *history, found lockFile) bool {
	latest := h.last.Time.Add(timeGrain)
	if h.isHeld() {
		latest = latest.Add(time.Second) // the file is written after the event's time
	}
	if r.intact || found.Token != 0 || found.mtime.After(latest) {
		return false
	}
	text, err := readWhole(r.files, fileOf(h.last.Lock.Name))
	return err == nil && slices.ContainsFunc(h.versions, func(l lock.Lock) bool {
		return l.Revision > r.checkpoint && isTornOf(text, lockfile.Append(nil, l, r.files.location(l.Name)))
	})
}

// isBack reports whether a file is one that somebody wrote and the server has removed
// or replaced since the checkpoint: it is not younger than that, and says the same.
func (r *recovery) isBack(h *history, found lockFile) bool {
	if h.last.Cause == lock.File || found.mtime.After(h.last.Time.Add(timeGrain)) {
		return false
	}
	return slices.ContainsFunc(h.byHand, func(before replaced) bool {
		return before.at > r.checkpoint && before.Data == found.Data && before.Problem == found.Problem
	})
}

// isTornOf reports whether text is what is left of a file that was being written.
func isTornOf(text, written []byte) bool {
	if len(text) > len(written) {
		return false
	}
	for i, c := range text {
		if c != 0 && c != written[i] {
			return false
		}
	}
	return len(text) < len(written) || bytes.IndexByte(text, 0) >= 0
}

// finish commits the outside changes, with revisions above all that was ever
// given out, and makes what was mended durable.
func (r *recovery) finish() error {
	r.revision = r.beginAbove()
	r.journal.Advance(r.revision)
	if err := r.writeMarks(r.nextMark(r.revision, 2*len(r.outside.steps))); err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	if r.config.AcceptRestore {
		r.config.Logger.Warn("the root was accepted as it is; leave --accept-restore out from now on, or no start can tell an older copy", "tokens_above", r.revision)
		r.leftover = append(r.leftover, batchFile) // of another past
		r.batchAfter = 0
	}
	var records []journal.Record
	for i := range r.outside.steps {
		st := &r.outside.steps[i]
		if st.before != nil {
			r.revision++ // for its end
		}
		r.revision++
		e := &st.record.Event
		e.Revision, e.Time, e.Lock.Revision = r.revision, r.now, r.revision
		if e.Type == lock.Locked {
			e.Lock.Token = lock.Token(r.revision)
		}
		if st.after != nil {
			st.after.lock = e.Lock
			r.insert(st.after, r.reserved[e.Lock.Name])
		}
		if st.endBefore(); st.ended != nil {
			records = append(records, *st.ended)
		}
		if st.after != nil {
			st.record.File = st.after.print.id()
		}
		records = append(records, st.record)
		r.config.Logger.Info("a lock file was changed while no server ran", "name", e.Lock.Name, "event", e.Type, "revision", e.Revision, "problem", e.Lock.Problem)
	}
	const batch = 1024
	for n := 0; len(records) > 0; records = records[n:] {
		for n = min(batch, len(records)); records[n-1].More; n++ {
		}
		err := r.journal.Write(true, records[:n]...) // others have done it
		if err == nil {
			err = r.journal.Sync(r.journal.Written()) // before the checkpoint, which includes them
		}
		if err != nil {
			return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
		}
	}
	if r.mended > 0 {
		r.config.Logger.Warn("the last server did not stop cleanly; lock files were brought in line with the journal", "files", r.mended)
	}
	err := r.checkpointNow()
	if err == nil {
		// They tell a next start what a power cut may have done, until here.
		for _, file := range r.leftover {
			r.complain(r.discard(file))
		}
		err = r.claim.sign(r.files, r.files.Mount())
	}
	if err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	return nil
}
