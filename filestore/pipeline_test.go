package filestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// slowDisk is a disk whose syncs of the journal wait to be let go.
type slowDisk struct {
	disk.FS
	syncs  chan chan error // one for each sync, once it has begun; takes its result
	placed chan string     // the names of the lock files made
}

func (d *slowDisk) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasPrefix(name, journalDir) && flag&os.O_CREATE == 0 {
		f = slowFile{f, d}
	}
	return f, err
}

func (d *slowDisk) RenameNew(oldName, newName string) error {
	err := d.FS.RenameNew(oldName, newName)
	if err == nil {
		d.placed <- newName
	}
	return err
}

func (d *slowDisk) Hold() disk.Held { return heldSlowDisk{d} }

type heldSlowDisk struct{ *slowDisk }

func (heldSlowDisk) Release()      {}
func (heldSlowDisk) Drop()         {}
func (heldSlowDisk) Forget(string) {}

type slowFile struct {
	disk.File
	disk *slowDisk
}

func (f slowFile) Datasync() error {
	if f.disk.syncs == nil {
		return f.File.Datasync()
	}
	result := make(chan error)
	f.disk.syncs <- result
	err := <-result
	return errors.Join(err, f.File.Datasync())
}

// openSlow opens a store whose journal has a segment already.
func openSlow(t *testing.T) (*Store, *slowDisk) {
	t.Helper()
	root, fsys, err := openRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &slowDisk{FS: fsys, placed: make(chan string, 100)}
	config := Config{Root: root, NoNotify: true}.withDefaults()
	s, err := open(t.Context(), config, root, d)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("first")}, "somebody", `{}`))
	if err := s.Close(); err != nil { // the segment's file is opened again, as one that is slow
		t.Fatal(err)
	}
	if d.FS, err = disk.Open(root, ownDir); err != nil {
		t.Fatal(err)
	}
	if s, err = open(t.Context(), config, root, d); err != nil {
		t.Fatal(err)
	}
	d.placed = make(chan string, 100)
	d.syncs = make(chan chan error)
	return s, d
}

// begin commits a new lock and returns where the answer comes. There is another one
// beside it, for a commit that is alone has the committer wait for its sync.
func begin(t *testing.T, s *Store, name string) chan error {
	t.Helper()
	s.committing.Lock()
	commits := []*commit{enqueue(t, s, name+"-beside"), enqueue(t, s, name)}
	s.committing.Unlock()
	answer := make(chan error, 1)
	go func() {
		for _, c := range commits {
			<-c.done
		}
		answer <- commits[1].err
	}()
	return answer
}

// enqueue has a new lock committed behind what has queued up, and returns the commit.
func enqueue(t *testing.T, s *Store, name string) *commit {
	t.Helper()
	c := &commit{changes: []lock.Change{locked(lock.Lock{Name: lock.MustParseName(name)}, "somebody", `{}`)}, done: make(chan struct{})}
	if !s.queue.add(c) {
		t.Fatal("the store is closed")
	}
	return c
}

// wantWaiting checks that a commit has not been answered.
func wantWaiting(t *testing.T, c *commit, when string) {
	t.Helper()
	select {
	case <-c.done:
		t.Errorf("%s: %v was answered (%v)", when, c.changes[0].Lock.Name, c.err)
	default:
	}
}

// wantHeld checks that all see the hold of a lock.
func wantHeld(t *testing.T, s *Store, when string, name string) {
	t.Helper()
	if l, err := s.Get(t.Context(), lock.MustParseName(name)); err != nil || !l.Held() {
		t.Errorf("%s: Get(%s) says %v, %v, want a hold", when, name, l, err)
	}
}

func wantFree(t *testing.T, s *Store, when string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := s.Get(t.Context(), lock.MustParseName(name)); !errors.Is(err, lock.ErrNotLocked) {
			t.Errorf("%s: Get(%s) says %v, want %v", when, name, err, lock.ErrNotLocked)
		}
	}
}

// The files of a commit are made while the one before is made durable. Neither is seen
// or answered before it is durable itself.
func TestFilesAreMadeDuringASync(t *testing.T) {
	s, d := openSlow(t)
	first := begin(t, s, "a")
	firstSync := <-d.syncs
	<-d.placed
	<-d.placed
	second := enqueue(t, s, "b")
	if file := <-d.placed; file != "b.lock" {
		t.Errorf("during the sync of a the file %s was made, want b.lock", file)
	}
	wantFree(t, s, "during the sync of a", "a", "b")
	firstSync <- nil
	if err := <-first; err != nil {
		t.Errorf("a: %v", err)
	}
	secondSync := <-d.syncs
	wantHeld(t, s, "after the sync of a", "a")
	wantFree(t, s, "during the sync of b", "b")
	wantWaiting(t, second, "during the sync of b")
	secondSync <- nil
	if <-second.done; second.err != nil {
		t.Errorf("b: %v", second.err)
	}
	wantHeld(t, s, "after the sync of b", "b")
	d.letGo(t, s)
}

// letGo closes the store, with all its syncs.
func (d *slowDisk) letGo(t *testing.T, s *Store) {
	t.Helper()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for {
		select {
		case result := <-d.syncs:
			result <- nil
		case err := <-closed:
			if err != nil {
				t.Errorf("Close: %v", err)
			}
			return
		}
	}
}

// A sync that fails takes with it what was written meanwhile.
func TestSyncFailsWithCommitsBehindIt(t *testing.T) {
	s, d := openSlow(t)
	answers := []chan error{begin(t, s, "a")}
	sync := <-d.syncs
	<-d.placed
	<-d.placed
	answers = append(answers, begin(t, s, "b"))
	<-d.placed
	<-d.placed
	sync <- syscall.EIO
	for i, answer := range answers {
		if err := <-answer; !errors.Is(err, lock.ErrOutcomeUnknown) {
			t.Errorf("commit %d: %v, want %v", i, err, lock.ErrOutcomeUnknown)
		}
	}
	wantFree(t, s, "after the failed sync", "a", "b")
	if err := <-begin(t, s, "c"); !errors.Is(err, lock.ErrReadOnly) {
		t.Errorf("a commit after it: %v, want %v", err, lock.ErrReadOnly)
	}
	d.letGo(t, s)
	d.syncs = nil
	root := s.Root()
	next, err := Open(t.Context(), Config{Root: root, NoNotify: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "a", "b"} { // their lines are whole
		wantHeld(t, next, "after the next start", name)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// Who is refused for a change that is not yet durable is told when it is: Get then shows
// what stood in the way.
func TestConflictWithWhatIsBeingMadeDurable(t *testing.T) {
	s, d := openSlow(t)
	first := begin(t, s, "a")
	sync := <-d.syncs
	<-d.placed
	<-d.placed
	second := enqueue(t, s, "a")
	third := enqueue(t, s, "b")
	<-d.placed // of the third, so that the second has been looked at too
	wantWaiting(t, second, "during the sync of the first commit of a")
	sync <- nil
	if err := <-first; err != nil {
		t.Errorf("the first commit of a: %v", err)
	}
	(<-d.syncs) <- nil
	if <-third.done; third.err != nil {
		t.Errorf("b: %v", third.err)
	}
	if <-second.done; !errors.Is(second.err, lock.ErrConflict) {
		t.Errorf("the second commit of a: %v, want %v", second.err, lock.ErrConflict)
	}
	wantHeld(t, s, "after the conflict", "a")
	d.letGo(t, s)
}

// A lock is handed over by one sync and one exchange of files. Until it is durable readers
// see the hold before, and nobody ever sees the lock free.
func TestHandOverInOneSync(t *testing.T) {
	s, d := openSlow(t)
	name := lock.MustParseName("first")
	file := filepath.Join(s.Root(), fileOf(name))
	held, err := s.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		events []lock.Event
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		events, err := s.Commit(t.Context(), []lock.Change{unlocked(held), locked(lock.Lock{Name: name}, "next", `{}`)})
		answers <- answer{events, err}
	}()
	sync := <-d.syncs
	if l, err := s.Get(t.Context(), name); err != nil || l.Token != held.Token {
		t.Errorf("before the sync Get says %+v, %v, want the hold before", l, err)
	}
	if text, err := os.ReadFile(file); err != nil || lockfile.Read(text).Holder != "next" {
		t.Errorf("before the sync the file says %q, %v, want the next hold", text, err)
	}
	sync <- nil
	select {
	case <-d.syncs:
		t.Fatal("there is a second sync")
	case a := <-answers:
		if a.err != nil {
			t.Fatal(a.err)
		}
		if l, err := s.Get(t.Context(), name); err != nil || l.Token != a.events[1].Lock.Token {
			t.Errorf("Get says %+v, %v, want the hold of %+v", l, err, a.events[1])
		}
	}
	d.letGo(t, s)
}

// Who does not wait any more is told whether the change has begun; one that has not is not
// made.
func TestGivingUp(t *testing.T) {
	s, d := openSlow(t)
	first := begin(t, s, "a")
	sync := <-d.syncs
	name := lock.MustParseName("b")
	giveUp := func(when string, want error, begun func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		answer := make(chan error, 1)
		go func() {
			_, err := s.Commit(ctx, []lock.Change{locked(lock.Lock{Name: name}, "somebody", `{}`)})
			answer <- err
		}()
		begun()
		cancel()
		if err := <-answer; !errors.Is(err, want) {
			t.Errorf("%s: got error %v, want %v", when, err, want)
		}
	}
	s.committing.Lock() // as a disk on which making files hangs
	giveUp("in the queue", lock.ErrReadOnly, func() {
		for waits := 0; waits == 0; runtime.Gosched() {
			s.queue.mu.Lock()
			waits = len(s.queue.commits)
			s.queue.mu.Unlock()
		}
	})
	s.committing.Unlock()
	for len(d.placed) > 0 {
		<-d.placed
	}
	giveUp("begun", lock.ErrOutcomeUnknown, func() { <-d.placed })
	wantFree(t, s, "before the sync", "b")
	sync <- nil
	if err := <-first; err != nil {
		t.Errorf("a: %v", err)
	}
	(<-d.syncs) <- nil
	s.waitSettled()
	wantHeld(t, s, "in the end", "b")
	d.letGo(t, s)
}

// unreadableDisk is a disk on which reading a lock file takes until goOn.
type unreadableDisk struct {
	disk.FS
	goOn chan struct{}
}

func (d *unreadableDisk) Hold() disk.Held { return unreadableHeld{d.FS.Hold(), d} }

type unreadableHeld struct {
	disk.Held
	disk *unreadableDisk
}

func (d unreadableHeld) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	if strings.HasSuffix(name, lock.FileSuffix) {
		<-d.disk.goOn
	}
	return d.Held.OpenFile(name, flag, perm)
}

// Who does not wait any more for what stands in the way of a change is told that it was not
// made.
func TestGivingUpAConflict(t *testing.T) {
	root, fsys, err := openRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &unreadableDisk{FS: fsys, goOn: make(chan struct{})}
	s, err := open(t.Context(), Config{Root: root, NoNotify: true, PollInterval: time.Hour}.withDefaults(), root, d)
	if err != nil {
		t.Fatal(err)
	}
	put(t, root, "a", []byte("msg: mine\n"), 0)
	change := locked(lock.Lock{Name: lock.MustParseName("a")}, "somebody", `{}`)
	c := enqueue(t, s, "a")
	if <-c.done; !errors.Is(c.err, lock.ErrConflict) {
		t.Errorf("beside a file: got error %v, want %v", c.err, lock.ErrConflict)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.outcome(ctx, c); !errors.Is(err, lock.ErrReadOnly) {
		t.Errorf("while the file in the way cannot be read: got error %v, want %v", err, lock.ErrReadOnly)
	}
	close(d.goOn)
	if _, err := s.Commit(t.Context(), []lock.Change{change}); !errors.Is(err, lock.ErrConflict) {
		t.Errorf("when it can: got error %v, want %v", err, lock.ErrConflict)
	}
	wantHeld(t, s, "in the end", "a")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A hand-over that comes upon what others did to the lock's file tells of it once.
func TestHandOverAfterOthers(t *testing.T) {
	d := openDisk(t, t.TempDir())
	s, err := open(t.Context(), Config{Root: d.root, NoNotify: true, PollInterval: time.Hour}.withDefaults(), d.root, d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := lock.MustParseName("a")
	file := filepath.Join(d.root, fileOf(name))
	for _, others := range []struct {
		what string
		do   func() error
		want lock.EventType
	}{
		{"removed", func() error { return os.Remove(file) }, lock.Unlocked},
		{"edited", func() error { return os.WriteFile(file, []byte("msg: edited\n"), 0o644) }, lock.Updated},
	} {
		held := mustCommit(t, s, locked(present(t.Context(), t, s, name), "alice", `{}`))[0].Lock
		if err := others.do(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), handOver(held, "bob", `{}`)); !errors.Is(err, lock.ErrConflict) {
			t.Errorf("%s: got error %v, want %v", others.what, err, lock.ErrConflict)
		}
		events, _, err := s.Events(t.Context(), lock.Pattern{}, held.Revision, 0)
		if err != nil || len(events) != 1 || events[0].Type != others.want || events[0].Cause != lock.File {
			t.Errorf("%s: the events are %+v, %v; want one, %v by file", others.what, events, err, others.want)
		}
	}
}

// closingDisk is a disk on which reading a segment of the journal takes until goOn, and
// that knows when it is closed.
type closingDisk struct {
	disk.FS
	reading chan struct{}
	goOn    chan struct{}
	closed  chan struct{}
}

func (d *closingDisk) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	if d.reading != nil && strings.HasPrefix(name, journalDir) && flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		d.reading <- struct{}{}
		<-d.goOn
	}
	return d.FS.OpenFile(name, flag, perm)
}

func (d *closingDisk) Close() error {
	close(d.closed)
	return d.FS.Close()
}

// TestCloseWaitsForReaders closes a store that somebody reads the past from: the
// directories stay open for as long.
func TestCloseWaitsForReaders(t *testing.T) {
	dir := t.TempDir()
	before, err := Open(t.Context(), Config{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, before, locked(lock.Lock{Name: lock.MustParseName("a")}, "somebody", `{}`))
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	root, fsys, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := &closingDisk{FS: fsys, closed: make(chan struct{})}
	s, err := open(t.Context(), Config{Root: root, NoNotify: true}.withDefaults(), root, d)
	if err != nil {
		t.Fatal(err)
	}
	d.reading, d.goOn = make(chan struct{}), make(chan struct{})
	read := make(chan error, 1)
	go func() {
		events, _, err := s.Events(t.Context(), lock.Pattern{}, 0, time.Hour)
		if err == nil && len(events) == 0 {
			err = errors.New("no events")
		}
		read <- err
	}()
	<-d.reading
	ended := make(chan error, 1)
	go func() { ended <- s.Close() }()
	for s.view.Load() != nil { // it has come as far as it may
		runtime.Gosched()
	}
	select {
	case <-d.closed:
		t.Error("the disk is closed under a reader")
	default:
	}
	close(d.goOn)
	if err := <-read; err != nil {
		t.Errorf("the reader: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := s.Events(t.Context(), lock.Pattern{}, 0, time.Hour); !errors.Is(err, lock.ErrShuttingDown) {
		t.Errorf("Events after Close: %v, want %v", err, lock.ErrShuttingDown)
	}
	if _, err := s.History(t.Context(), lock.HistoryQuery{}, 0, 1); !errors.Is(err, lock.ErrShuttingDown) {
		t.Errorf("History after Close: %v, want %v", err, lock.ErrShuttingDown)
	}
}

// Events that are read from the journal wait for others to have been read, as long as
// their caller does.
func TestPastReadsAtATime(t *testing.T) {
	config := Config{Root: t.TempDir(), NoNotify: true}
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("a")}, "alice", `{}`))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), config); err != nil { // its feed begins here
		t.Fatal(err)
	}
	defer s.Close()
	for range mostPastReads {
		s.pastReads <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if events, _, err := s.Events(ctx, lock.Pattern{}, 0, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while others read: %v, %v; want %v", events, err, context.DeadlineExceeded)
	}
	<-s.pastReads
	for range 2 {
		if events, _, err := s.Events(t.Context(), lock.Pattern{}, 0, 0); err != nil || len(events) != 1 {
			t.Errorf("when one has ended: %v, %v; want one event", events, err)
		}
	}
}
