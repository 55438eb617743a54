package filestore

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/internal/isolate"
	"github.com/pylok/pylok/lock"
)

var manyDirectories = flag.Int("directories", 0, "take and release this many locks in directories of their own, with the default settings")

// directoriesOf returns the directories below a root but for the server's own.
func directoriesOf(t *testing.T, root string) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has just been removed
			return nil
		case err != nil || !entry.IsDir() || path == root:
			return err
		case entry.Name() == ownDir:
			return fs.SkipDir
		}
		below, err := filepath.Rel(root, path)
		dirs = append(dirs, below)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// watchedDirectories counts the inotify watches of this process.
func watchedDirectories(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may be closed by now
		n += strings.Count(string(text), "inotify wd:")
	}
	return n
}

// openRemoved counts the files that this process has open and that are removed.
func openRemoved(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if target, _ := os.Readlink(file); strings.HasSuffix(target, " (deleted)") {
			n++
		}
	}
	return n
}

// heapBytes returns how much memory is in use.
func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools had
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// lockAndUnlock takes a lock of each name and releases it, some at a time.
func lockAndUnlock(t *testing.T, s *Store, names []string) {
	t.Helper()
	var callers sync.WaitGroup
	const concurrent = 64
	for c := range concurrent {
		callers.Go(func() {
			for i := c; i < len(names); i += concurrent {
				events, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName(names[i])}, "somebody", `{}`)})
				if err == nil {
					_, err = s.Commit(t.Context(), []lock.Change{unlocked(events[0].Lock)})
				}
				if err != nil {
					t.Errorf("%s: %v", names[i], err)
					return
				}
			}
		})
	}
	callers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// TestDirectoriesGo: when the last lock has gone from the directories that the server made,
// they go too, with their watches and what is known of them.
func TestDirectoriesGo(t *testing.T) {
	many, config := 300, Config{emptyFor: 20 * time.Millisecond, PollInterval: 20 * time.Millisecond}
	patience := 30 * time.Second
	if *manyDirectories > 0 {
		many, config = *manyDirectories, Config{}
		patience = 10 * time.Minute
	}
	config.Root = isolate.AttributesDir(t)
	others := watchedDirectories(t)
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	shut := func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	defer func() { shut() }()
	var names []string
	for i := range many {
		name := fmt.Sprintf("job/%d/d0", i)
		if i%3 == 0 {
			name = fmt.Sprintf("deep/%d/a/b/c/d/e/f/x", i)
		}
		names = append(names, name)
	}
	lockAndUnlock(t, s, names[:100]) // what is made once is made
	if *manyDirectories > 0 {        // the feed, too, is full
		warm := make([]string, 5000)
		for i := range warm {
			warm[i] = fmt.Sprint("warm/", i)
		}
		lockAndUnlock(t, s, warm)
	}
	soon(t, "its directories are gone", func() bool { return len(directoriesOf(t, s.Root())) == 0 })
	heap := heapBytes()

	done := Cost(t, fmt.Sprintf("taking and releasing %d locks", many))
	lockAndUnlock(t, s, names)
	done()
	t.Logf("then there are %d directories and %d watches; heap %d KiB, before %d", len(directoriesOf(t, s.Root())), watchedDirectories(t), heapBytes()>>10, heap>>10)
	done = Cost(t, "removing the directories")
	for end := time.Now().Add(patience); ; time.Sleep(config.withDefaults().emptyFor / 5) {
		// Not by walking, which takes the most of a processor.
		entries, err := os.ReadDir(s.Root())
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d directories have not been removed", len(directoriesOf(t, s.Root())))
		}
	}
	done()
	soon(t, "none that is removed is open", func() bool { return openRemoved(t) == 0 })
	soon(t, "the root alone is watched", func() bool { return watchedDirectories(t) == others+1 })
	// The history knows where in its active segment the events of each name are.
	index := uint64(200 * many)
	soon(t, "what was known of them is gone", func() bool { return uint64(heapBytes()) < uint64(heap+heap/10+1<<20)+index })
	t.Logf("heap %d KiB", heapBytes()>>10)
	t.Logf("heap %d KiB, before %d", heapBytes()>>10, heap>>10)

	shut()
	done = Cost(t, "the next start")
	if s, err = Open(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	done()
}

// TestDirectoriesThatStay: what people made, or keep something in, stays, over restarts too;
// what the server made goes in the end, whichever server it was.
func TestDirectoriesThatStay(t *testing.T) {
	root := isolate.AttributesDir(t)
	config := Config{Root: root, emptyFor: 5 * time.Millisecond, PollInterval: 5 * time.Millisecond, NoNotify: true}
	if err := os.MkdirAll(filepath.Join(root, "people/made/this"), 0o755); err != nil {
		t.Fatal(err)
	}
	notes := filepath.Join(root, "server/keep/notes")
	for round := range 5 {
		s, err := Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		lockNow := func(name string) lock.Lock {
			return mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName(name)}, "somebody", `{}`))[0].Lock
		}
		var held lock.Lock
		if round < 2 {
			held = lockNow("server/held/x")
		}
		switch round {
		case 0:
			l := lockNow("server/keep/it/x")
			err = os.WriteFile(notes, nil, 0o644)
			mustCommit(t, s, unlocked(l))
		case 3:
			err = os.Remove(notes)
		}
		if err != nil {
			t.Fatal(err)
		}
		lockAndUnlock(t, s, []string{"people/made/this/x", "people/made/x", "new/a/b/x", "new/x", "x"})
		want := []string{"people", "people/made", "people/made/this"}
		if round < 3 {
			want = append(want, "server", "server/keep")
		}
		if held.Held() {
			want = append(want, "server/held")
		}
		slices.Sort(want)
		soon(t, fmt.Sprintf("round %d: there are %q", round, want), func() bool { return slices.Equal(directoriesOf(t, root), want) })
		for range 5 { // and stay
			lockAndUnlock(t, s, []string{"another/x"})
			soon(t, "another goes", func() bool { return slices.Equal(directoriesOf(t, root), want) })
		}
		if held.Held() {
			mustCommit(t, s, unlocked(held))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirectoriesAfterKill: a start removes what a server that was killed had made, also
// before it could note anything.
func TestDirectoriesAfterKill(t *testing.T) {
	root := isolate.AttributesDir(t)
	d := openDisk(t, root)
	killed := mustOpenOn(t, d)
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("job/%d/a/x", i))
	}
	lockAndUnlock(t, killed, names)
	d.kill()
	_ = killed.Close()
	if dirs := directoriesOf(t, root); len(dirs) != 101 {
		t.Fatalf("there are %d directories after the kill, want 101", len(dirs))
	}
	s, err := Open(t.Context(), Config{Root: root, emptyFor: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	soon(t, "there are none", func() bool { return len(directoriesOf(t, root)) == 0 })
}

// TestDirectoriesInUse removes directories as fast as it can while locks come and go in them:
// no request fails for that, and each file is where it belongs.
func TestDirectoriesInUse(t *testing.T) {
	root := isolate.AttributesDir(t)
	s, err := Open(t.Context(), Config{Root: root, emptyFor: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for round := range 60 {
		var names []string
		for i := range 64 {
			names = append(names, fmt.Sprintf("a/%d/b/%d", i%4, i))
		}
		lockAndUnlock(t, s, names)
		held := mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("a/0/b/x")}, "somebody", `{}`))[0].Lock
		if _, err := os.Stat(filepath.Join(root, "a/0/b/x.lock")); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		mustCommit(t, s, unlocked(held))
		if round%4 == 0 { // the next one begins while they go
			soon(t, "a directory goes", func() bool { return len(directoriesOf(t, root)) < 9 })
		}
	}
}
