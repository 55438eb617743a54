package filestore

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// logged is a log that may be read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// soon waits until something is so.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// TestRootThatGoesAway: while the path of the root leads elsewhere nothing is granted,
// and health says why; when it leads back all goes on.
func TestRootThatGoesAway(t *testing.T) {
	rename := func(from, to string) func(string) error {
		return func(dir string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	}
	link := func(to string) func(string) error {
		return func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "link")), os.Symlink(to, filepath.Join(dir, "link")))
		}
	}
	for _, test := range []struct {
		name, root string
		away, back func(dir string) error
		want       string // of the refusal
		second     bool   // another server can be started on the path
	}{
		{"moved", "root", rename("root", "old"), rename("old", "root"), "root is not there any more", false},
		{"another in its place", "root", func(dir string) error {
			return errors.Join(rename("root", "old")(dir), os.Mkdir(filepath.Join(dir, "root"), 0o700))
		}, func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "root")), rename("old", "root")(dir))
		}, "root is another directory now", true},
		{"a link that leads elsewhere", "link", link("other"), link("root"), "link is another directory now", true},
		{"the server's own directory moved", "root", rename("root/.pylok", "old"), rename("old", "root/.pylok"), "root/.pylok is not there any more", false},
		{"another in the place of the server's own directory", "root", func(dir string) error {
			return errors.Join(rename("root/.pylok", "old")(dir), os.Mkdir(filepath.Join(dir, "root/.pylok"), 0o700))
		}, func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "root/.pylok")), rename("old", "root/.pylok")(dir))
		}, "root/.pylok is another directory now", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"root", "other"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink("root", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			h, log := new(healthTold), new(logged)
			config := Config{Root: filepath.Join(dir, test.root), NoNotify: true, PollInterval: 10 * time.Millisecond, Health: h.tell, Logger: log.logger()}
			s, err := Open(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			held := mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("held")}, "alice", `{}`))[0].Lock
			free := lock.Lock{Name: lock.MustParseName("free")}

			if err := test.away(dir); err != nil {
				t.Fatal(err)
			}
			soon(t, "health says so", func() bool { err, _ := h.last(); return err != nil && strings.Contains(err.Error(), test.want) })
			for _, change := range []lock.Change{locked(free, "bob", `{}`), unlocked(held), updated(held, `{"n":1}`), extended(held, time.Hour)} {
				if err := mustFail(t, s, change); !errors.Is(err, lock.ErrReadOnly) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v: got %v, want %v that says: %s", change.Type, err, lock.ErrReadOnly, test.want)
				}
			}
			if err, n := h.last(); n > 2 { // one for each step
				t.Errorf("health was told %d times, at last %v", n, err)
			}
			if test.second {
				second, err := Open(t.Context(), Config{Root: config.Root, NoNotify: true})
				if err != nil {
					t.Fatal(err)
				}
				mustCommit(t, second, locked(free, "carol", `{}`))
				mustFail(t, s, locked(free, "bob", `{}`))
				mustCommit(t, second, unlocked(present(t.Context(), t, second, free.Name)))
				if err := second.Close(); err != nil {
					t.Error(err)
				}
			}

			if err := test.back(dir); err != nil {
				t.Fatal(err)
			}
			soon(t, "health is well", func() bool { err, _ := h.last(); return err == nil })
			mustCommit(t, s, unlocked(present(t.Context(), t, s, held.Name)))
			// It may have seen the second one's file, and be yet to see that it is gone.
			soon(t, "free is free", func() bool { return !present(t.Context(), t, s, free.Name).Held() })
			mustCommit(t, s, locked(present(t.Context(), t, s, free.Name), "bob", `{}`))
			if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
				t.Errorf("there are %d errors in the log, want 1:\n%s", n, log)
			}
		})
	}
}

// TestAwayAndFailing: health is well again only when nothing ails the store.
func TestAwayAndFailing(t *testing.T) {
	w, h := openHealthy(t)
	defer w.Close()
	w.disk.arm(fails(syscall.ENOSPC, "create", "allocate"))
	mustFail(t, w.Store, locked(w.get(t, "new"), "carol", `{}`))
	root, old := w.disk.root, w.disk.root+".old"
	if err := os.Rename(root, old); err != nil {
		t.Fatal(err)
	}
	w.lookForRoot()
	if err, n := h.last(); n != 2 || !strings.Contains(err.Error(), "not there any more") {
		t.Errorf("health was told %d times, at last %v", n, err)
	}
	if err := os.Rename(old, root); err != nil {
		t.Fatal(err)
	}
	w.lookForRoot()
	if err, n := h.last(); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("health was told %d times, at last %v", n, err)
	}
	w.disk.arm(nil)
	w.mustCommit(t, locked(w.get(t, "new"), "carol", `{}`))
	if err, n := h.last(); n != 4 || err != nil {
		t.Errorf("health was told %d times, at last %v", n, err)
	}
}

// TestCleanersAreKeptOff: systemd-tmpfiles asks for an exclusive lock of each directory
// that it comes to, and leaves out what it does not get.
func TestCleanersAreKeptOff(t *testing.T) {
	root := t.TempDir()
	top, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	clean := func() error { return syscall.Flock(int(top.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	done := func() {
		if err := syscall.Flock(int(top.Fd()), syscall.LOCK_UN); err != nil {
			t.Fatal(err)
		}
	}
	if err := clean(); err != nil { // one is at work when the server starts
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Root: root, PollInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done()
	soon(t, "a cleaner is kept off", func() bool {
		err := clean()
		if err == nil {
			done()
		}
		return errors.Is(err, syscall.EWOULDBLOCK)
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := clean(); err != nil {
		t.Errorf("no server has the root, and a cleaner is kept off: %v", err)
	}
}

func TestRootMustExist(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	for _, missing := range []string{root, filepath.Join(root, ownDir)} {
		s, err := Open(t.Context(), Config{Root: root, RootMustExist: true})
		if err == nil {
			s.Close()
			t.Fatal("a root that nobody has served is served")
		}
		if !strings.Contains(err.Error(), missing+" is missing") {
			t.Errorf("got %v, want that %s is missing", err, missing)
		}
		if _, err := os.Lstat(missing); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was made: %v", missing, err)
		}
		if missing == root {
			if err := os.Mkdir(root, 0o700); err != nil { // as the place of a volume
				t.Fatal(err)
			}
		}
	}
	for _, must := range []bool{false, true} {
		s, err := Open(t.Context(), Config{Root: root, RootMustExist: must})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRootThatIsNotUTF8(t *testing.T) {
	root := filepath.Join(t.TempDir(), "caf\xe9")
	s, err := Open(t.Context(), Config{Root: root})
	if err == nil {
		s.Close()
		t.Fatal("it is served")
	}
	if !strings.Contains(err.Error(), `caf\xe9" is not UTF-8`) {
		t.Errorf("Open: %v", err)
	}
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), Config{Root: root}, func(string) {}); err == nil || !strings.Contains(err.Error(), `caf\xe9" is not UTF-8`) {
		t.Errorf("Check: %v", err)
	}
}
