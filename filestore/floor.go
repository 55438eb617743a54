package filestore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// floorFile is the root's mark. It outlives the journal directory.
const floorFile = ownDir + "/floor"

const (
	// revisionBlock is how many revisions are reserved at a time, so that a mark is
	// written as rarely.
	revisionBlock = 1 << 16
	// restoreJump is by how much an accepted copy goes on above all marks.
	restoreJump = 1 << 20
	// mostAdopted is the highest token in a lock file that is believed where nothing
	// is known of a root but its lock files: some program may have given it out. There
	// is room above it for more changes than anybody makes, in numbers that JSON
	// readers hold exactly (up to 2^53).
	mostAdopted lock.Token = 1 << 52
)

// A mark says how far a root has come. One is in the root, and one, if there is a state
// directory, outside: there the root's is never older, unless the root is a copy from
// before.
type mark struct {
	// Root is the root's id, which is random.
	Root string `json:"root"`
	// Path is where the root was.
	Path string `json:"path"`
	// Starts is how often it has been opened.
	Starts uint64 `json:"starts"`
	// Floor is a revision such that none above it has been given out.
	Floor lock.Revision `json:"floor"`
	// Journal is how far the journal had come, as of a checkpoint.
	Journal journal.Position `json:"journal"`
	// Began is the revision after which the journal began.
	Began lock.Revision `json:"began"`
	// Kept is a revision after which the journal has every event; where that is above
	// Began, the snapshot knows the holds from before.
	Kept lock.Revision `json:"kept"`
	// Own is the server's own directory, which a copy of the root has another of.
	Own journal.FileID `json:"own"`
	// OwnSince is the revision up to which the ids of files are those of the place that
	// the root was copied from.
	OwnSince lock.Revision `json:"own_since"`
}

// isOlder reports whether a root that has come to m had come further at other. With more
// starts it has not: a crash came between the writing of the two marks.
func (m mark) isOlder(other mark) bool {
	return m.Starts < other.Starts || m.Starts == other.Starts && (m.Floor < other.Floor || m.Journal.Last < other.Journal.Last)
}

// isKnown reports whether there is a mark.
func (m mark) isKnown() bool { return m.Root != "" }

func parseMark(name string, text []byte) (m mark, err error) {
	if err = json.Unmarshal(text, &m); err == nil && !m.isKnown() {
		err = errors.New("it names no root")
	}
	if err != nil {
		return mark{}, fmt.Errorf("%s, which keeps tokens from being given out twice, cannot be read (%w): restore it from a backup; or start once with --accept-restore, which goes on far above every token that is known", name, err)
	}
	return m, nil
}

// readFloor returns the root's mark; the zero mark: it has none.
func readFloor(fsys disk.FS) (mark, error) {
	text, err := readWhole(fsys, floorFile)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, err
	}
	return parseMark(floorFile, text)
}

// outsideFile is where the mark of a root is in a state directory.
func outsideFile(stateDir, root string) string {
	return filepath.Join(stateDir, "roots", filepath.Base(root))
}

// readOutside returns the mark of a root in a state directory; the zero mark: there is
// none.
func readOutside(stateDir, root string) (mark, error) {
	if stateDir == "" || root == "" {
		return mark{}, nil
	}
	name := outsideFile(stateDir, root)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, err
	}
	return parseMark(name, text)
}

// highestAt returns the highest Floor of the roots that were served at a path, by the marks
// in a state directory; 0: none is known.
func highestAt(stateDir, path string) (highest lock.Revision, err error) {
	if stateDir == "" {
		return 0, nil
	}
	dir := filepath.Dir(outsideFile(stateDir, "x"))
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return 0, err
		}
		var m mark
		if json.Unmarshal(text, &m) == nil && m.Path == path { // else it is another's
			highest = max(highest, m.Floor)
		}
	}
	return highest, nil
}

// writeOutside writes a mark into a state directory. A crash leaves it or the one before.
func writeOutside(stateDir string, m mark) error {
	name := outsideFile(stateDir, m.Root)
	if err := os.MkdirAll(filepath.Dir(name), ownPerm); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".mark-*")
	if err != nil {
		return err
	}
	_, err = f.Write(m.text())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (m mark) text() []byte {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(err) // it has numbers and strings alone
	}
	return append(text, '\n')
}

// olderError refuses a root that is a copy from before.
type olderError struct {
	root   string
	outer  string // where the other mark is
	is, at mark   // the root's mark, and the one outside
}

func (e *olderError) Error() string {
	return fmt.Sprintf("the root %s is an older copy: it has come to start %d and revision %d, and %s says that it had come to start %d and revision %d. Locks granted since then are not in it, and tokens would be given out again. Put the newer state back; or, to go on with the copy as it is, start once with --accept-restore: new tokens are then far above those from before",
		e.root, e.is.Starts, e.is.Journal.Last, e.outer, e.at.Starts, e.at.Journal.Last)
}

// floor keeps revisions from being given out twice.
type floor struct {
	reserved atomic.Uint64 // the Floor of the root's durable mark
	low      chan struct{} // has an element when little is left of that

	mu   sync.Mutex // held while marks are written
	mark mark       // the root's
}

// haveRevisions makes sure that the next n revisions may be given out. The caller must
// hold committing, or be the start. As a rule they have been reserved ahead.
func (s *Store) haveRevisions(n int) error {
	need := s.revision + lock.Revision(n)
	reserved := lock.Revision(s.floor.reserved.Load())
	if need+revisionBlock/2 > reserved {
		select {
		case s.floor.low <- struct{}{}:
		default:
		}
	}
	if need <= reserved {
		return nil
	}
	return s.reserve(need)
}

// reserve makes durable that revisions up to one may be given out, and some more.
func (s *Store) reserve(to lock.Revision) error {
	s.floor.mu.Lock()
	defer s.floor.mu.Unlock()
	m := s.floor.mark
	m.Floor = max(m.Floor, to+revisionBlock)
	return s.writeMarks(m)
}

// reserveAhead reserves revisions before they are needed, until ctx ends.
func (s *Store) reserveAhead(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.floor.low:
		}
		err := s.reserve(lock.Revision(s.floor.reserved.Load()))
		s.complaints.Result(complaints.NotReserved, err)
		if err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(probeEvery):
		}
	}
}

// noteProgress writes down how far the journal has come, and from where on it is kept.
func (s *Store) noteProgress() error {
	s.floor.mu.Lock()
	defer s.floor.mu.Unlock()
	m := s.floor.mark
	m.Journal, m.Kept = s.journal.Position(), s.journal.Kept()
	return s.writeMarks(m)
}

// writeMarks writes the root's mark, and then the one outside. The caller must hold
// floor.mu, or be the start. The error is that of the root's.
func (s *Store) writeMarks(m mark) error {
	err := writeWhole(s.files, floorFile, m.text())
	if err == nil {
		err = s.files.SyncDir(ownDir)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", floorFile, err)
	}
	s.floor.mark = m
	s.floor.reserved.Store(uint64(m.Floor))
	if s.config.StateDir == "" {
		return nil
	}
	s.complaints.Result(complaints.NotMarkedOutside, writeOutside(s.config.StateDir, m))
	return nil
}

// marks is what a start knows of a root before it looks at it.
type marks struct {
	before   mark           // the root's
	given    lock.Revision  // no revision above it has been given out; 0: nothing is known
	credible lock.Token     // a higher one has not been given out, whatever a file says
	own      journal.FileID // of the server's own directory
	noPast   bool           // the journal directory is not there
}

// readMarks takes in the marks. It refuses a root that is an older copy.
func (r *restart) readMarks() error {
	var err error
	if r.before, err = readFloor(r.files); err != nil && !r.config.AcceptRestore {
		return err
	}
	outside, err := readOutside(r.config.StateDir, r.before.Root)
	switch {
	case r.config.AcceptRestore:
		// Whatever they say is an upper bound, and the copy gets an id of its own.
	case err != nil:
		return err
	case r.before.isKnown() && r.before.isOlder(outside):
		return &olderError{r.files.root, outsideFile(r.config.StateDir, r.before.Root), r.before, outside}
	case r.before.isKnown() && !outside.isKnown() && r.config.StateDir != "":
		r.config.Logger.Info("the state directory knows nothing of the root yet: it was served elsewhere, or with another one; it is taken for the newest", "state_dir", r.config.StateDir)
	}
	r.given = max(r.before.Floor, outside.Floor)
	r.credible = lock.Token(r.given)
	if !r.before.isKnown() {
		if r.given, err = highestAt(r.config.StateDir, r.files.root); err != nil {
			return err
		}
		r.credible = mostAdopted
	}
	own, err := r.files.Lstat(ownDir)
	if err != nil {
		return err
	}
	r.own = journal.FileID{Inode: own.Inode, Birth: own.Birth}
	_, err = r.files.Lstat(journalDir)
	if r.noPast = errors.Is(err, fs.ErrNotExist); r.noPast {
		return nil
	}
	return err
}

// giveUpPast makes a root whose journal directory somebody moved away one that has no
// past, so that a start that does not come to its end leaves no journal that is too short.
func (r *restart) giveUpPast() error {
	if err := r.files.Remove(batchFile); err != nil && !disk.IsAbsent(err) {
		return err
	}
	if !r.before.isKnown() {
		return r.files.SyncDir(ownDir)
	}
	r.config.Logger.Warn("there is no journal any more; all lock files are adopted as anonymous holds, with new tokens", "above", r.given)
	r.before.Journal = journal.Position{}
	r.before.Starts++
	return r.writeMarks(r.before)
}

// checkPast holds the journal, which has been read, to what is known of it.
func (r *restart) checkPast() error {
	if r.config.AcceptRestore {
		return nil
	}
	is, was, kept := r.journal.Position(), r.before.Journal, r.journal.Kept()
	switch {
	case is.Last < r.batchAfter, is.Last < was.Last:
		return r.pastError(fmt.Sprintf("%s ends at revision %d, and the journal had come to revision %d at least", r.segment(is.Segment), is.Last, max(was.Last, r.batchAfter)))
	case r.before.isKnown() && !is.Reaches(was):
		return r.pastError(fmt.Sprintf("%s ends at byte %d, and the journal had come to byte %d of %s at least", r.segment(is.Segment), is.Bytes, was.Bytes, r.segment(was.Segment)))
	case r.before.isKnown() && kept > r.before.Kept:
		return r.pastError(fmt.Sprintf("it begins after revision %d, and had all after revision %d: its first files, from %s on, are missing", kept, r.before.Kept, r.segment(r.before.Kept)))
	case r.before.isKnown() && kept > r.before.Began && r.snapshotAt < kept:
		return r.pastError(fmt.Sprintf("it begins after revision %d, and %s, which knows the holds from before, is missing, damaged or too old", kept, snapshotFile))
	}
	return nil
}

func (r *restart) segment(after lock.Revision) string { return journalDir + "/" + journal.File(after) }

func (r *restart) pastError(what string) error {
	return fmt.Errorf("the journal is not complete: %s. Restore the files from a backup; or start once with --accept-restore, which believes the journal as far as it goes; or, to give up the history and keep the locks, move the journal directory away: lock files that the journal does not know are then adopted as anonymous holds, with tokens far above", what)
}

// beginAbove returns a revision that all are to be above which are given out from now on.
func (r *restart) beginAbove() lock.Revision {
	revision := max(r.journal.Last(), lock.Revision(r.highest))
	switch {
	case r.config.AcceptRestore:
		revision = max(revision, r.given) + restoreJump
	case r.journal.Position() == journal.Position{}: // nothing tells how far they had come
		revision = max(revision, r.given)
	}
	if r.crashed && !r.Intact {
		revision += mostUnread // a power cut may have taken what told of the last ones
	}
	return revision
}

// noteToken takes in a token in a file. One that cannot have been given out says nothing.
func (r *restart) noteToken(token lock.Token) {
	if token <= r.credible {
		r.highest = max(r.highest, token)
	}
}

// nextMark is the mark of this start, which gives out n revisions after one itself.
func (r *restart) nextMark(revision lock.Revision, n int) mark {
	m := r.before
	if !m.isKnown() || r.config.AcceptRestore {
		m.Root = rand.Text()
	}
	if m.Own != r.own {
		m.OwnSince = revision
	}
	m.Path, m.Own = r.files.root, r.own
	m.Starts++
	m.Floor = max(m.Floor, r.given)
	if need := revision + lock.Revision(n); m.Floor < need+revisionBlock/2 {
		m.Floor = need + revisionBlock
	}
	m.Journal, m.Kept = r.journal.Position(), r.journal.Kept()
	if r.snapshotAt < m.Kept {
		m.Began = m.Kept
	}
	return m
}
