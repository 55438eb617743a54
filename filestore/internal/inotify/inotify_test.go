package inotify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func open(t *testing.T) *Watcher {
	t.Helper()
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func add(t *testing.T, w *Watcher, path, dir string) {
	t.Helper()
	if _, err := w.Add(path, dir); err != nil {
		t.Fatal(err)
	}
}

// read returns what there is to read: the kernel has queued an event when the call
// that caused it returns.
func read(t *testing.T, w *Watcher) (events []string, missed bool) {
	t.Helper()
	missed, err := w.Read(func(e Event) { events = append(events, text(e)) })
	if err != nil {
		t.Fatal(err)
	}
	return events, missed
}

func TestEvents(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(dir string) error // there is a file x in it, and a directory sub
		want []string
	}{
		{"create", func(dir string) error {
			f, err := os.OpenFile(dir+"/new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			return errors.Join(err, f.Close())
		}, []string{"d/new"}},
		{"write", func(dir string) error {
			f, err := os.OpenFile(dir+"/x", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("something else")
			return err // not closed yet
		}, []string{"d/x written"}},
		{"truncate", func(dir string) error { return os.Truncate(dir+"/x", 0) }, []string{"d/x written"}},
		{"remove", func(dir string) error { return os.Remove(dir + "/x") }, []string{"d/x"}},
		{"link", func(dir string) error { return os.Link(dir+"/x", dir+"/y") }, []string{"d/y"}},
		{"symbolic link", func(dir string) error { return os.Symlink("x", dir+"/y") }, []string{"d/y"}},
		{"named pipe", func(dir string) error { return syscall.Mkfifo(dir+"/y", 0o644) }, []string{"d/y"}},
		{"rename", func(dir string) error { return os.Rename(dir+"/x", dir+"/y") }, []string{"d/x", "d/y"}},
		{"move in", func(dir string) error { return os.Rename(dir+"/../outside", dir+"/x") }, []string{"d/x"}},
		{"move out", func(dir string) error { return os.Rename(dir+"/x", dir+"/../outside") }, []string{"d/x"}},
		{"make a directory", func(dir string) error { return os.Mkdir(dir+"/new", 0o755) }, []string{"d/new dir"}},
		{"remove a directory", func(dir string) error { return os.Remove(dir + "/sub") }, []string{"d/sub dir"}},
		{"move a directory", func(dir string) error { return os.Rename(dir+"/sub", dir+"/moved") }, []string{"d/sub dir", "d/moved dir"}},
		{"a name of 255 bytes", func(dir string) error { return os.Mkdir(dir+"/"+strings.Repeat("n", 255), 0o755) }, []string{"d/" + strings.Repeat("n", 255) + " dir"}},
		{"one entry twice", func(dir string) error {
			return errors.Join(os.Remove(dir+"/x"), os.Mkdir(dir+"/x", 0o755))
		}, []string{"d/x", "d/x dir"}},
		{"below", func(dir string) error { return os.Mkdir(dir+"/sub/new", 0o755) }, nil},
		{"look", func(dir string) error {
			_, err := os.ReadFile(dir + "/x")
			return err
		}, nil},
		{"chmod", func(dir string) error { return os.Chmod(dir+"/x", 0o600) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			err := errors.Join(os.MkdirAll(dir+"/sub", 0o755), os.WriteFile(dir+"/x", []byte("something"), 0o644), os.WriteFile(dir+"/../outside", nil, 0o644))
			if err != nil {
				t.Fatal(err)
			}
			w := open(t)
			add(t, w, dir, "d")
			if err := test.do(dir); err != nil {
				t.Fatal(err)
			}
			if got, missed := read(t, w); !slices.Equal(got, test.want) || missed {
				t.Errorf("got %q, missed=%t, want %q", got, missed, test.want)
			}
			if got, missed := read(t, w); len(got) > 0 || missed {
				t.Errorf("then got %q, missed=%t, want nothing", got, missed)
			}
		})
	}
}

// TestManyEvents reads more than fits into a buffer, of two directories.
func TestManyEvents(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	w := open(t)
	add(t, w, a, "a")
	add(t, w, b, "b")
	var want []string
	for i := range 2 * bufferBytes / maxRecord {
		name := fmt.Sprintf("%03d%s", i, strings.Repeat("n", i%250))
		for _, dir := range []string{a, b} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, "a/"+name+" dir", "b/"+name+" dir")
	}
	if got, missed := read(t, w); !slices.Equal(got, want) || missed {
		t.Errorf("got %d events, missed=%t, want %d:\n%q\n%q", len(got), missed, len(want), got, want)
	}
}

// TestOverflow changes more than the kernel keeps.
func TestOverflow(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/0", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w := open(t)
	add(t, w, dir, "d")
	for i := range kept/2 + 1 { // two events each
		if err := os.Rename(fmt.Sprint(dir, "/", i), fmt.Sprint(dir, "/", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if got, missed := read(t, w); len(got) != kept || !missed {
		t.Errorf("got %d events, missed=%t, want %d and some missed", len(got), missed, kept)
	}
	if err := os.WriteFile(dir+"/after", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, missed := read(t, w); !slices.Equal(got, []string{"d/after"}) || missed {
		t.Errorf("then got %q, missed=%t, want what was changed after", got, missed)
	}
}

// readMissed reads until something has been missed.
func readMissed(t *testing.T, w *Watcher) (events []string) {
	t.Helper()
	for {
		if err := w.Wait(); err != nil {
			t.Fatal(err)
		}
		some, missed := read(t, w)
		if events = append(events, some...); missed {
			return events
		}
	}
}

func TestDirectoryThatGoes(t *testing.T) {
	for _, test := range []struct {
		name   string
		do     func(dir string) error
		missed bool
	}{
		{"removed", os.RemoveAll, false},
		{"moved", func(dir string) error { return os.Rename(dir, dir+".moved") }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "dir")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			w := open(t)
			add(t, w, root, "root")
			add(t, w, dir, "d")
			if err := test.do(dir); err != nil {
				t.Fatal(err)
			}
			got, missed := read(t, w)
			if !slices.Contains(got, "root/dir dir") || missed != test.missed {
				t.Errorf("got %q, missed=%t, want the directory in it too, missed=%t", got, missed, test.missed)
			}
			if more, missed := read(t, w); len(more) > 0 || missed { // the end of the watch, where it was moved
				t.Errorf("then got %q, missed=%t, want nothing", more, missed)
			}
			if w.Len() != 1 {
				t.Errorf("the directories that are watched are %q, want the root", w.dirs)
			}
			// Another in its place is another.
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			add(t, w, dir, "d")
			if err := os.Mkdir(dir+"/x", 0o755); err != nil {
				t.Fatal(err)
			}
			if got, missed := read(t, w); !slices.Equal(got, []string{"root/dir dir", "d/x dir"}) || missed {
				t.Errorf("got %q, missed=%t, want what is new", got, missed)
			}
		})
	}
}

// TestForget ends watches, also such as have ended or are called otherwise.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	w := open(t)
	watch, err := w.Add(dir, "before")
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, dir, "d")
	w.Forget(watch, "before")
	if err := os.Mkdir(dir+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, w); !slices.Equal(got, []string{"d/x dir"}) {
		t.Errorf("got %q of a directory that is called otherwise now", got)
	}
	w.Forget(watch, "d")
	if err := os.Mkdir(dir+"/y", 0o755); err != nil {
		t.Fatal(err)
	}
	if got, missed := read(t, w); len(got) > 0 || missed || w.Len() > 0 || kernelWatches(t, w) > 0 {
		t.Errorf("got %q, missed=%t, and %d watches of %d known, after the last one was forgotten", got, missed, kernelWatches(t, w), w.Len())
	}
	w.Forget(watch, "d")
}

// TestMemory: what is known of many directories goes with them.
func TestMemory(t *testing.T) {
	const many = 5000
	root := t.TempDir()
	w := open(t)
	for i := range many {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		add(t, w, dir, dir)
	}
	if w.most != many || w.Len() != many {
		t.Fatalf("%d and %d directories are watched, want %d", w.most, w.Len(), many)
	}
	for i := range many {
		if err := os.Remove(filepath.Join(root, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, missed := read(t, w); missed || w.most > many/4 || w.Len() != 0 || kernelWatches(t, w) > 0 {
		t.Errorf("missed=%t, and there is room for %d, %d are known and %d watched, want nothing", missed, w.most, w.Len(), kernelWatches(t, w))
	}
}

// kernelWatches counts the watches that the kernel has.
func kernelWatches(t *testing.T, w *Watcher) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", w.fd))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "inotify wd:")
}

// TestMovedDirectoryAddedAgain: whoever adds a moved directory before its move has been
// read hears of it all the same, at the latest when the move has been read and it is
// added once more.
func TestMovedDirectoryAddedAgain(t *testing.T) {
	root := t.TempDir()
	dir, moved := filepath.Join(root, "dir"), filepath.Join(root, "moved")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := open(t)
	add(t, w, dir, "dir")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	add(t, w, moved, "moved")
	if err := os.Mkdir(moved+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := readMissed(t, w); !slices.Equal(got, []string{"moved/x dir"}) {
		t.Errorf("got %q, want x by the new name", got)
	}
	add(t, w, moved, "moved")
	if err := os.Mkdir(moved+"/y", 0o755); err != nil {
		t.Fatal(err)
	}
	if got, missed := read(t, w); !slices.Equal(got, []string{"moved/y dir"}) || missed {
		t.Errorf("got %q, missed=%t, want y by the new name", got, missed)
	}
}

func TestAddRefuses(t *testing.T) {
	w := open(t)
	file := filepath.Join(t.TempDir(), "file")
	if _, err := w.Add(file, "d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v, want %v", err, fs.ErrNotExist)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Add(file, "d"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file: got %v, want %v", err, syscall.ENOTDIR)
	}
	if len(w.dirs) != 0 {
		t.Errorf("%q are watched, want nothing", w.dirs)
	}
}

// TestClose closes Watchers while they are used in every way.
func TestClose(t *testing.T) {
	before := descriptors(t)
	for range 100 {
		w, err := New()
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		add(t, w, dir, "d")
		var users sync.WaitGroup
		began := make(chan struct{})
		users.Go(func() {
			close(began)
			for {
				err := w.Wait()
				if err == nil {
					_, err = w.Read(func(Event) {})
				}
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
		users.Go(func() {
			for i := 0; ; i++ {
				_, err := w.Add(dir, "d")
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err == nil && i == 0 {
					err = os.Mkdir(dir+"/x", 0o755)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
		<-began
		for range 2 {
			users.Go(func() {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		users.Wait()
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors of inotify and eventfd are open, %d were before", after, before)
	}
}

// descriptors counts this process's open descriptors of the kinds that a Watcher has.
func descriptors(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		// One that is gone is that of the directory itself.
		target, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		if strings.Contains(target, "inotify") || strings.Contains(target, "eventfd") {
			n++
		}
	}
	return n
}
