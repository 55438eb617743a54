package filestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/filestore/internal/recovery"
	"github.com/pylok/pylok/filestore/internal/suspects"
	"github.com/pylok/pylok/lock"
)

// restart is what the start of a store works with: the past by the journal, the present by
// the files, and what holds for all of them, by which package recovery judges.
type restart struct {
	*Store
	marks
	recovery.Start
	past       map[lock.Name]*recovery.Past
	finished   bool                            // a start has come to its end before
	snapshotAt lock.Revision                   // the locks that it has are in Store.locks
	hasBatch   bool                            // there is a batchFile
	crashed    bool                            // the last server did not stop cleanly
	written    map[uint64]bool                 // inodes of the files that have a second name, as servers before this one gave them
	asides     map[string][]recovery.Aside     // files that had the place of a lock file, by the hash of its name
	holders    map[journal.FileID]lock.Name    // of files, as far as the past knows; nil: not yet asked for
	unlisted   map[string]error                // directories that could not be read
	highest    lock.Token                      // in any lock file
	leftover   []string                        // files to be removed in the end
	outside    *commit                         // the changes that others made
	reserved   map[lock.Name]lockfile.Reserved // in the files that these are about
	mended     map[lock.Name]bool
	read       int                           // files that were read
	dirs       map[string]suspects.Directory // as they were listed
	now        time.Time
}

// recover fills the store, and returns what it has learned on the way.
func (s *Store) recover(ctx context.Context) (*restart, error) {
	r := newRestart(s)
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
func (s *Store) recoverWithoutSnapshot(known marks) (*restart, error) {
	if err := s.files.Remove(snapshotFile); err != nil && !disk.IsAbsent(err) {
		return nil, err
	}
	if err := s.files.SyncDir(ownDir); err != nil {
		return nil, err
	}
	s.locks.Clear(false)
	clear(s.extended)
	r := newRestart(s)
	r.marks = known
	return r, r.openJournal()
}

// openJournal opens the journal and takes it in.
func (r *restart) openJournal() error {
	if err := r.findLeftovers(); err != nil {
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
func (r *restart) believe(daemon []byte) {
	mount := mountOf(daemon)
	r.Unsynced = mount == syncFailed
	r.Intact = mount != "" && mount == r.files.Mount()
	r.End = r.journal.Last()
	r.crashed = r.hasBatch || r.End > r.Checkpoint // a power cut may have taken batchFile
	if r.Intact {
		r.Checkpoint = max(r.Checkpoint, r.End)
	}
	// A journal that lacks more than the last batch is not asked.
	r.Unheard = r.finished && r.crashed && r.End >= r.batchAfter
}

func newRestart(s *Store) *restart {
	return &restart{
		Store:    s,
		past:     make(map[lock.Name]*recovery.Past),
		written:  make(map[uint64]bool),
		asides:   make(map[string][]recovery.Aside),
		outside:  &commit{},
		unlisted: make(map[string]error),
		reserved: make(map[lock.Name]lockfile.Reserved),
		mended:   make(map[lock.Name]bool),
		dirs:     make(map[string]suspects.Directory),
		now:      time.Now().UTC().Truncate(time.Millisecond),
	}
}

// findLeftovers finds the files that the last server has left in .pylok.
func (r *restart) findLeftovers() error {
	var err error
	if r.batchAfter, r.hasBatch, err = readBatchFile(r.files); err != nil {
		return err
	}
	entries, err := disk.List(r.files, ownDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		number, hash, suffix := parseOwn(entry.Name())
		if number < math.MaxUint64/2 {
			r.pool.Skip(number)
		}
		if suffix != newSuffix && suffix != moveSuffix && suffix != takeSuffix || number == 0 {
			continue
		}
		name := ownDir + "/" + entry.Name()
		r.leftover = append(r.leftover, name)
		found, err := r.files.readAt(name, nil)
		if err != nil {
			return err
		}
		r.noteToken(found.Token) // somebody may have seen it, although nothing came of it
		if suffix == newSuffix {
			r.written[found.print.inode] = true
			continue
		}
		r.asides[hash] = append(r.asides[hash], recovery.Aside{Found: r.foundOf(lock.Name{}, found), Name: name, Alone: suffix == takeSuffix})
	}
	return nil
}

// parseOwn takes the name of a file apart that is named by asideOf or the pool; number 0:
// it is not.
func parseOwn(file string) (number uint64, hash, suffix string) {
	suffix = path.Ext(file)
	digits, hash, _ := strings.Cut(strings.TrimSuffix(file, suffix), "-")
	number, _ = strconv.ParseUint(digits, 10, 64)
	return number, hash, suffix
}

// replay takes in one line of the journal.
func (r *restart) replay(record journal.Record) error {
	switch record.Kind {
	case journal.KindCheckpoint:
		r.finished = true
		r.Checkpoint = max(r.Checkpoint, record.Revision)
		r.highest = max(r.highest, lock.Token(record.Counter))
	case journal.KindExtended:
		if past := r.pastOf(record.Event.Lock.Name); past != nil && record.Revision >= r.snapshotAt {
			past.Extend(record.Event.Lock)
		}
	case journal.KindEvent:
		event := record.Event
		if event.Revision <= r.snapshotAt {
			return nil
		}
		past := r.pastOf(event.Lock.Name)
		if past == nil {
			past = &recovery.Past{}
			r.past[event.Lock.Name] = past
		}
		past.Add(event, r.fileOf(record.File, event.Revision), r.Checkpoint)
		delete(r.extended, event.Lock.Name)
	}
	return nil
}

// fileOf is the id of a file as it was written down as of a revision, or zero where it
// says nothing: in a copy of the root the files are others.
func (r *restart) fileOf(id journal.FileID, at lock.Revision) journal.FileID {
	if id.Birth == 0 || r.before.Own != r.own || at <= r.before.OwnSince {
		return journal.FileID{}
	}
	return id
}

// pastOf returns what the journal and the snapshot say of a lock, nil: nothing.
func (r *restart) pastOf(name lock.Name) *recovery.Past {
	past := r.past[name]
	if e := find(r.locks, name); past == nil && e != nil {
		past = recovery.Snapshot(e.lock, e.byFile, e.fileToken != e.lock.Token, e.extended, r.fileOf(e.print.id(), r.snapshotAt))
		r.past[name] = past
	}
	return past
}

// foundOf is a file of a lock as package recovery takes it.
func (r *restart) foundOf(name lock.Name, f lockFile) recovery.Found {
	root := cmp.Or(r.before.Path, r.files.root) // as the last server wrote it
	return recovery.Found{
		Content:  f.Content,
		Exists:   f.exists(),
		Unread:   f.unread,
		ID:       f.print.id(),
		Mtime:    f.mtime,
		Ctime:    time.Unix(0, f.print.ctime),
		Ours:     r.written[f.print.inode],
		Text:     f.text,
		Location: (&files{root: root}).location(name),
	}
}

// judge decides what becomes of a lock whose file was found.
func (r *restart) judge(name lock.Name, f lockFile) recovery.Verdict {
	past, found := r.past[name], r.foundOf(name, f)
	v := r.Judge(past, found, r.asides[hashOf(name)])
	if (v.Remedy == recovery.Adopt || v.Remedy == recovery.Tell) && r.mayBeOurs(name, found) {
		found.Ours = r.isMade(fileOf(name))
		v = r.Judge(past, found, r.asides[hashOf(name)])
	}
	return v
}

// mayBeOurs reports whether a file may be one that a power cut left of a change that nobody
// was told of, or has brought back. The file of another lock, which is held, is not: the
// last server would not have written it for this one, so that somebody has moved it here;
// but where this one has changed since the checkpoint, it may have had that file before.
func (r *restart) mayBeOurs(name lock.Name, found recovery.Found) bool {
	if r.Intact || !r.Unheard || !found.Exists || found.Ours {
		return false
	}
	if r.holders == nil {
		r.holders = make(map[journal.FileID]lock.Name)
		r.locks.Ascend(func(e *entry) bool {
			if r.past[e.lock.Name] == nil {
				r.holders[r.fileOf(e.print.id(), r.snapshotAt)] = e.lock.Name
			}
			return true
		})
		for name, past := range r.past {
			if past.IsHeld() {
				r.holders[past.File] = name
			}
		}
		delete(r.holders, journal.FileID{})
	}
	holder, isHeld := r.holders[found.ID]
	past := r.past[name]
	return !isHeld || holder == name || past != nil && past.Last.Revision > r.Checkpoint
}

// isMade reports whether a file is one that a server made.
func (r *restart) isMade(file string) bool {
	f, err := disk.OpenRegular(r.files, file, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	stat, err := f.Stat()
	return err == nil && f.IsMade(stat)
}

// compareAll calls act with the verdict on every lock that has a file or a history,
// but for those whose files are as the snapshot knows them.
func (r *restart) compareAll(ctx context.Context, act func(lock.Name, lockFile, recovery.Verdict) error) error {
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
		r.pastOf(name)
		return act(name, found, r.judge(name, found))
	})
	if err != nil {
		return err
	}
	for _, name := range slices.SortedFunc(maps.Keys(r.past), lock.Name.Compare) {
		if seen[name] {
			continue
		}
		found := lockFile{}
		v := r.judge(name, found)
		hidden := slices.ContainsFunc(unreadable, func(dir string) bool { return strings.HasPrefix(name.String(), dir) })
		if past := r.past[name]; hidden && past.IsHeld() {
			v = recovery.Verdict{Remedy: recovery.Keep, Lock: past.Hold}
			found = lastFile(past)
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
func (r *restart) findSuspects(ctx context.Context) (toRead []unread, unreadable []string, err error) {
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
		toRead = append(toRead, unlike...)
		r.dirs[l.dir] = l.Directory
		return nil
	}, func(dir string, err error) {
		unreadable = append(unreadable, dir+"/")
		mu.Lock()
		defer mu.Unlock()
		r.dirs[dir] = suspects.Directory{Fresh: true} // the poller is to try again
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
				r.pastOf(e.lock.Name)
			}
			return true
		})
	}
	slices.SortFunc(toRead, func(a, b unread) int { return a.name.Compare(b.name) })
	return toRead, unreadable, nil
}

// isAsKnown reports whether a file is as the snapshot knows it.
func (r *restart) isAsKnown(e *entry, base string, at disk.Dir) bool {
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
func (r *restart) readAll(suspects []unread, take func(lock.Name, lockFile) error) error {
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

// lastFile is what a past knows of the hold's file.
func lastFile(past *recovery.Past) (f lockFile) {
	id, token := past.LastFile()
	f.print, f.Token = fingerprint{inode: id.Inode, birth: id.Birth}, token
	return f
}

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
	if v.Why != "" && !isTold {
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
		// Once it is, there is another verdict on it.
		delete(r.asides, hashOf(name))
		return r.putBack(name, found, v.Aside)
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
		l = adopted(name, found, r.now)
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
	for _, file := range append(r.leftover, batchFile) {
		r.complain(r.files.Remove(file))
	}
	r.batchAfter = 0
}

// mostUnread is more revisions than the last batch can have given out.
const mostUnread = 1 << 16

// finish commits the outside changes, with revisions above all that was ever
// given out, and makes what was mended durable.
func (r *restart) finish() error {
	r.revision = r.beginAbove()
	r.journal.Advance(r.revision)
	if err := r.writeMarks(r.nextMark(r.revision, 2*len(r.outside.steps))); err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	if r.config.AcceptRestore {
		r.config.Logger.Warn("the root was accepted as it is; leave --accept-restore out from now on, or no start can tell an older copy", "tokens_above", r.revision)
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
	if len(r.mended) > 0 {
		r.config.Logger.Warn("the last server did not stop cleanly; lock files were brought in line with the journal", "files", len(r.mended))
	}
	err := r.checkpointNow()
	if err == nil {
		r.discard()
		err = r.claim.sign(r.files, r.files.Mount())
	}
	if err != nil {
		return fmt.Errorf("the root %s cannot be served: %w", r.files.root, rootCause(err))
	}
	return nil
}
