package suspects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/internal/isolate"
	"github.com/pylok/pylok/lock"
)

// fakeStore holds locks and keeps what it is told.
type fakeStore struct {
	mu        sync.Mutex
	held      []string // sorted
	inspected map[string]int
	confirmed map[string]int
	removed   []string
	err       error // of Inspect
}

// fakeFile is a file that is as it is known to be if it is empty, and to be confirmed if it
// has one byte.
type fakeFile string

func (f fakeFile) Name() lock.Name { return lock.MustParseName(string(f)) }

func (f fakeFile) Compare(found disk.Stat) Comparison {
	return []Comparison{AsKnown, Unconfirmed, Changed}[min(found.Size, 2)]
}

func (s *fakeStore) Held(from string, yield func(File) bool) {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	first, _ := slices.BinarySearch(held, from)
	for _, name := range held[first:] {
		if !yield(fakeFile(name)) {
			return
		}
	}
}

func (s *fakeStore) IsHeld(name lock.Name) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, isHeld := slices.BinarySearch(s.held, name.String())
	return isHeld
}

func (s *fakeStore) Inspect(names []lock.Name) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.inspected[name.String()]++
	}
	return s.err
}

func (s *fakeStore) Confirm(unconfirmed []File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range unconfirmed {
		s.confirmed[file.Name().String()]++
	}
	return nil
}

func (s *fakeStore) ChangedByOthers(names []lock.Name) []lock.Name { return names }

func (s *fakeStore) Removed(dirs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = append(s.removed, dirs...)
}

// inspections returns how often a lock's file was inspected.
func (s *fakeStore) inspections(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inspected[name]
}

// safeBuffer is a log that is written and read at the same time.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newFinder returns a Finder for a new root, which it does not look at yet.
func newFinder(t testing.TB, change func(*Config), dirs ...string) (*Finder, *fakeStore, string, *safeBuffer) {
	t.Helper()
	root := isolate.AttributesDir(t)
	listed := map[string]Directory{".": {Fresh: true}}
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		listed[dir] = Directory{Fresh: true}
	}
	fsys, err := disk.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fsys.Close() })
	log := new(safeBuffer)
	logger := slog.New(slog.NewTextHandler(log, nil))
	config := Config{FS: fsys, Logger: logger, Complaints: complaints.New(logger), PollInterval: 5 * time.Millisecond, EmptyFor: 5 * time.Millisecond}
	if change != nil {
		change(&config)
	}
	store := &fakeStore{inspected: make(map[string]int), confirmed: make(map[string]int)}
	return New(config, store, listed), store, root, log
}

// run runs a Finder until the test ends.
func run(t testing.TB, f *Finder) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		f.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

func write(t testing.TB, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestNamed: each way names what others did, by itself.
func TestNamed(t *testing.T) {
	polling := func(c *Config) { c.NoNotify = true }
	notified := func(c *Config) { c.PollInterval = time.Hour }
	for way, change := range map[string]func(*Config){"polling": polling, "inotify": notified} {
		t.Run(way, func(t *testing.T) {
			f, store, root, _ := newFinder(t, change, "d")
			store.held = []string{"d/changed", "d/gone", "d/same", "d/unread", "no/directory"}
			for name, text := range map[string]string{"changed": "", "gone": "", "same": "", "unread": "1"} {
				write(t, root, "d/"+name+".lock", text)
			}
			run(t, f)
			soon(t, "the file that nobody has read is read", func() bool {
				store.mu.Lock()
				defer store.mu.Unlock()
				return store.confirmed["d/unread"] > 0
			})
			soon(t, "the one without a directory is named", func() bool { return store.inspections("no/directory") > 0 })
			write(t, root, "d/changed.lock", "something else")
			write(t, root, "d/new.lock", "")
			if err := errors.Join(os.Remove(filepath.Join(root, "d/gone.lock")), os.Mkdir(filepath.Join(root, "e"), 0o755)); err != nil {
				t.Fatal(err)
			}
			write(t, root, "e/newer.lock", "")
			write(t, root, "e/no lock", "")
			for _, name := range []string{"d/changed", "d/new", "d/gone", "e/newer"} {
				soon(t, name+" is named", func() bool { return store.inspections(name) > 0 })
			}
			store.mu.Lock()
			defer store.mu.Unlock()
			if n := store.inspected["d/same"]; n > 0 && way == "polling" {
				t.Errorf("a file that nobody changed was named %d times", n)
			}
		})
	}
}

// TestAgain names what the store could not inspect once more.
func TestAgain(t *testing.T) {
	f, store, _, _ := newFinder(t, func(c *Config) { c.NoNotify, c.PollInterval = true, time.Hour })
	run(t, f)
	f.Again([]lock.Name{lock.MustParseName("x"), lock.MustParseName("y")})
	soon(t, "both are named", func() bool { return store.inspections("x") == 1 && store.inspections("y") == 1 })
	f.AgainLater([]lock.Name{lock.MustParseName("x")})
	soon(t, "one is named again", func() bool { return store.inspections("x") == 2 })
}

// TestNoNotificationsThroughLinks: what happens behind a link is not told of.
func TestNoNotificationsThroughLinks(t *testing.T) {
	outside := t.TempDir()
	f, _, root, _ := newFinder(t, nil, "real")
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"link", "real"} {
		f.poller.watch(&directory{path: dir})
	}
	write(t, outside, "x.lock", "")
	write(t, root, "real/x.lock", "")
	written, err := f.notifier.read()
	if _, told := written[place{"real", "x.lock"}]; err != nil || !told || len(written) != 1 {
		t.Errorf("told of %v, %v, want real/x.lock alone", written, err)
	}
	f.notifier.close()
}

// TestMovedOut: a directory that is moved out of the root is not watched any more, nor are
// those in it, which the kernel does not tell of.
func TestMovedOut(t *testing.T) {
	f, store, root, _ := newFinder(t, func(c *Config) { c.PollInterval = time.Hour }, "a", "a/b", "c")
	store.held = []string{"a/b/x"}
	write(t, root, "a/b/x.lock", "")
	run(t, f)
	soon(t, "all are watched", func() bool { return f.notifier.watched() == 4 })
	if err := os.Rename(filepath.Join(root, "a"), filepath.Join(isolate.AttributesDir(t), "a")); err != nil {
		t.Fatal(err)
	}
	soon(t, "two are watched", func() bool { return f.notifier.watched() == 2 })
	soon(t, "the lock in it is named", func() bool { return store.inspections("a/b/x") > 0 })
}

// TestRest: a directory that a lock has just been released in stays for a while; one that is
// found empty goes at once, if the server made it, and so do those that it was in, unless
// they rest.
func TestRest(t *testing.T) {
	f, store, root, _ := newFinder(t, func(c *Config) { c.EmptyFor = time.Hour })
	for _, dir := range []string{"rests/a/b", "rests/c", "held/a/b"} {
		if err := f.config.FS.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "people/made"), 0o755); err != nil {
		t.Fatal(err)
	}
	store.held = []string{"held/a/x"} // its file is not there yet
	f.Emptied(lock.MustParseName("rests/x"))
	f.Emptied(lock.MustParseName("rests/c/x"))
	f.Emptied(lock.MustParseName("x"))
	run(t, f)
	soon(t, "what does not rest is removed", func() bool {
		store.mu.Lock()
		defer store.mu.Unlock()
		slices.Sort(store.removed)
		return slices.Equal(store.removed, []string{"held/a/b", "rests/a", "rests/a/b"})
	})
	for _, dir := range []string{"rests/c", "held/a", "people/made"} {
		if _, err := os.Stat(filepath.Join(root, dir)); err != nil {
			t.Error(err)
		}
	}
}

// TestRestEnds: a directory has rested at some time, also where it is found empty again and
// again meanwhile.
func TestRestEnds(t *testing.T) {
	f, store, _, _ := newFinder(t, func(c *Config) { c.NoNotify, c.EmptyFor = true, time.Millisecond }, "d")
	f.Emptied(lock.MustParseName("d/x"))
	soon(t, "it does not rest", func() bool {
		f.poller.removal.add("d")
		f.poller.removeSome()
		return !f.emptied.isResting("d")
	})
	if len(store.removed) > 0 {
		t.Errorf("%q were removed, which the server did not make", store.removed)
	}
}

// TestNoMoreWatches: that inotify is used up is one line in the log, which says of what and
// how to help it, and polling finds what happens in the other directories. When there are
// watches again they are used.
func TestNoMoreWatches(t *testing.T) {
	const dirs, limit = 40, 10
	limitFile := "/proc/sys/user/max_inotify_watches"
	if !isolate.Enter(t, unix.CLONE_NEWUSER) { // whose limits are its own
		return
	}
	setLimit := func(n int) {
		if err := os.WriteFile(limitFile, fmt.Append(nil, n), 0); err != nil {
			t.Fatal(err)
		}
	}
	setLimit(limit)
	var names []string
	for i := range dirs {
		names = append(names, fmt.Sprintf("d%02d", i))
	}
	f, store, root, log := newFinder(t, nil, names...)
	run(t, f)
	for _, dir := range names {
		write(t, root, dir+"/x.lock", "")
		soon(t, dir+"/x is named", func() bool { return store.inspections(dir+"/x") > 0 })
	}
	for round := range 20 { // of polls
		name := fmt.Sprintf("%s/y%d", names[dirs-1], round)
		write(t, root, name+".lock", "")
		soon(t, name+" is named", func() bool { return store.inspections(name) > 0 })
	}
	if n := f.notifier.watched(); n != limit {
		t.Errorf("%d directories are watched, want %d", n, limit)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, complaints.NoNotifications) || !strings.Contains(text, "fs.inotify.max_user_watches = ") || !strings.Contains(text, "watched=10") {
		t.Errorf("want one line that says which limit is reached:\n%s", text)
	}
	setLimit(1000)
	soon(t, "all are watched", func() bool { return f.notifier.watched() == dirs+1 })
	soon(t, "it is told", func() bool { return strings.Contains(log.String(), "no longer: "+complaints.NoNotifications) })
}
