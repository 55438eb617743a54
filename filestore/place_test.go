package filestore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// umask returns the process's own.
func umask() os.FileMode {
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	return os.FileMode(mask)
}

// settled returns a lock once the store has looked at its file.
func settled(t *testing.T, s *Store, name lock.Name) lock.Lock {
	t.Helper()
	if err := s.inspect([]lock.Name{name}); err != nil {
		t.Fatal(err)
	}
	return present(t.Context(), t, s, name)
}

// TestWindows has others change a lock's file before each operation of a change of that
// lock, in turn, whatever the server has looked at by then. What they do is never undone.
func TestWindows(t *testing.T) {
	name := lock.MustParseName("dir/x")
	script := []byte("msg: a script's\n")
	// Each returns whether it did what it is called.
	remove := func(file string) bool { return os.Remove(file) == nil }
	take := func(file string) bool { // as a script takes a lock that it has found free
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return false
		}
		defer f.Close()
		_, err = f.Write(script)
		return err == nil
	}
	for _, others := range []struct {
		what string
		do   func(file string) bool
		held bool // afterwards, by the script
	}{
		{"removed", remove, false},
		{"removed and made again", func(file string) bool { return remove(file) && take(file) }, true},
		{"made where it was free", take, true},
		{"replaced", func(file string) bool {
			fresh := file + "~"
			return os.WriteFile(fresh, script, 0o644) == nil && os.Rename(fresh, file) == nil
		}, true},
		{"made a directory", func(file string) bool { return remove(file) && os.Mkdir(file, 0o755) == nil }, true},
	} {
		for _, change := range []struct {
			what string
			of   func(l lock.Lock) lock.Change
		}{
			{"unlocked", unlocked},
			{"updated", func(l lock.Lock) lock.Change { return updated(l, `{"msg":"new"}`) }},
			{"overwritten", func(l lock.Lock) lock.Change { return locked(l, "bob", `{"msg":"another hold"}`) }},
			{"locked", func(l lock.Lock) lock.Change { return locked(lock.Lock{Name: l.Name}, "bob", `{}`) }},
		} {
			for _, plain := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s while it is %s, plain %v", others.what, change.what, plain), func(t *testing.T) {
					root := t.TempDir()
					file := filepath.Join(root, fileOf(name))
					d := openDisk(t, root)
					d.plain = plain
					s, err := openOn(t, d)
					if err != nil {
						t.Fatal(err)
					}
					done := 0
					for at, more := 1, true; more; at++ {
						l := settled(t, s, name)
						if want := change.what != "locked"; l.Held() != want {
							next := locked(l, "alice", `{"msg":"old"}`)
							if !want {
								next = unlocked(l)
							}
							if _, err := s.Commit(t.Context(), []lock.Change{next}); err != nil {
								t.Fatal(err)
							}
							l = present(t.Context(), t, s, name)
						}
						var did bool
						var op string
						d.arm(func(n int, what, of string) error {
							if n == at {
								op = what + " " + of
								did = others.do(file)
							}
							return nil
						})
						_, commitErr := s.Commit(t.Context(), []lock.Change{change.of(l)})
						more = d.operations() >= at
						d.arm(nil)
						after := settled(t, s, name)
						// The journal's index is made beside the change, in the window too.
						if !did || plain && (isWindow(op) || strings.Contains(op, journalDir)) {
							if info, err := os.Lstat(file); err == nil && info.IsDir() {
								_ = os.Remove(file)
							}
							continue
						}
						done++
						_, statErr := os.Lstat(file)
						if there := statErr == nil; there != others.held || after.Held() != others.held {
							t.Errorf("before operation %d, %s: the file is there %v, the lock is held %v; want both %v (the change: %v)", at, op, there, after.Held(), others.held, commitErr)
						}
						if others.held && (after.Holder != "" || after.Token == l.Token) {
							t.Errorf("before operation %d, %s: the lock is held by %q with token %d; want a new hold by nobody", at, op, after.Holder, after.Token)
						}
						if info, err := os.Lstat(file); others.held && err == nil && info.IsDir() {
							if err := os.Remove(file); err != nil {
								t.Fatal(err)
							}
						} else if text, err := os.ReadFile(file); others.held && string(text) != string(script) {
							t.Errorf("before operation %d, %s: the script's file has %q (%v)", at, op, text, err)
						}
					}
					if done == 0 && others.what != "made where it was free" && change.what != "locked" {
						t.Error("there was no operation to come between")
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					if kept, _ := filepath.Glob(filepath.Join(root, ownDir, "*"+keptSuffix)); len(kept) > 0 {
						t.Errorf("nobody was in the way twice, and there is %v", kept)
					}
				})
			}
		}
	}
}

// TestSecondName has others give a lock's file another lock's name, beside its own or
// instead of it, before each operation of a change, in turn. That is a file of theirs then,
// whatever becomes of the lock's: nothing is written to it any more.
func TestSecondName(t *testing.T) {
	name, second := lock.MustParseName("x"), lock.MustParseName("z")
	for what, do := range map[string]func(from, to string) error{"mv": os.Rename, "ln": os.Link} {
		for changed, of := range map[string]func(l lock.Lock) lock.Change{
			"unlocked":    unlocked,
			"updated":     func(l lock.Lock) lock.Change { return updated(l, `{"msg":"new"}`) },
			"overwritten": func(l lock.Lock) lock.Change { return locked(l, "bob", `{"msg":"another hold"}`) },
		} {
			t.Run(what+" while it is "+changed, func(t *testing.T) {
				root := t.TempDir()
				file, other := filepath.Join(root, fileOf(name)), filepath.Join(root, fileOf(second))
				d := openDisk(t, root)
				s, err := openOn(t, d)
				if err != nil {
					t.Fatal(err)
				}
				for at, more := 1, true; more; at++ {
					if _, err := s.Commit(t.Context(), []lock.Change{locked(settled(t, s, name), "alice", `{"msg":"old"}`)}); err != nil {
						t.Fatal(err)
					}
					var op string
					did := false
					d.arm(func(n int, what, of string) error {
						if n == at {
							op, did = what+" "+of, do(file, other) == nil
						}
						return nil
					})
					_, _ = s.Commit(t.Context(), []lock.Change{of(present(t.Context(), t, s, name))})
					more = d.operations() >= at
					d.arm(nil)
					if !did {
						continue
					}
					text, err := os.ReadFile(other)
					if err != nil {
						t.Errorf("before operation %d, %s: %v", at, op, err)
						continue
					}
					for n := range 128 { // twice as many as the pool has rest
						l := settled(t, s, name)
						next := locked(l, "carol", fmt.Sprintf(`{"n":%d}`, n))
						if l.Held() && n%2 == 0 {
							next = unlocked(l)
						}
						if _, err := s.Commit(t.Context(), []lock.Change{next}); err != nil {
							t.Fatal(err)
						}
					}
					if now, err := os.ReadFile(other); string(now) != string(text) {
						t.Errorf("before operation %d, %s: the file of the second name has %q, %v; want %q", at, op, now, err, text)
					}
					l := settled(t, s, second)
					if !l.Held() || l.Holder != "" {
						t.Errorf("before operation %d, %s: the second name is %+v, want an anonymous hold", at, op, l)
					}
					if _, err := s.Commit(t.Context(), []lock.Change{unlocked(l)}); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if left := leftNew(t, root); len(left) > 0 {
					t.Errorf("%v is left", left)
				}
			})
		}
	}
}

// isWindow reports whether an operation is the one before which replaceByName may not
// see what others do.
func isWindow(op string) bool {
	kind, name, _ := strings.Cut(op, " ")
	return kind == "rename" && strings.HasSuffix(name, lock.FileSuffix)
}

// TestDisplaced has a script take the place of another one's file, which was moved out
// to be looked at. Both files are there in the end.
func TestDisplaced(t *testing.T) {
	name := lock.MustParseName("x")
	root := t.TempDir()
	file := filepath.Join(root, fileOf(name))
	d := openDisk(t, root)
	s, err := openOn(t, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "alice", `{}`)}); err != nil {
		t.Fatal(err)
	}
	d.arm(func(_ int, op, of string) error {
		var err error
		switch {
		case op == "rename" && strings.HasSuffix(of, takeSuffix):
			err = errors.Join(os.Remove(file), os.WriteFile(file, []byte("a: 1\n"), 0o644))
		case op == "rename" && of == fileOf(name):
			err = os.WriteFile(file, []byte("b: 2\n"), 0o644)
		}
		return err
	})
	if _, err := s.Commit(t.Context(), []lock.Change{unlocked(present(t.Context(), t, s, name))}); !errors.Is(err, lock.ErrConflict) {
		t.Errorf("unlock: %v, want a conflict", err)
	}
	d.arm(nil)
	if l := settled(t, s, name); l.Data.JSON() != `{"b":2}` {
		t.Errorf("the lock is %+v, want that of the file in its place", l)
	}
	kept, err := filepath.Glob(filepath.Join(root, ownDir, "*"+keptSuffix))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept are %v, %v; want one file", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != "a: 1\n" {
		t.Errorf("kept is %q, %v", text, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d = openDisk(t, root); true {
		if s, err = openOn(t, d); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(kept[0]); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

var storms = flag.Int("storms", 200, "how often TestStorm has others change a file")

// TestStorm changes one lock, by holder and by hand, under the load of others: no rm is
// undone, and no file that a script made is deleted.
func TestStorm(t *testing.T) {
	s, err := Open(t.Context(), Config{Root: t.TempDir(), PollInterval: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for i := range 24 {
		load.Go(func() {
			name := lock.MustParseName(fmt.Sprintf("load/%d", i))
			for ctx.Err() == nil {
				if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "load", `{}`)}); err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Commit(t.Context(), []lock.Change{unlocked(present(ctx, t, s, name))}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer func() {
		stop()
		load.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	// change changes a held lock again and again, until others have changed its file.
	change := func(name lock.Name, next func(lock.Lock) lock.Change) (started chan struct{}, ended func()) {
		started = make(chan struct{})
		var gone atomic.Bool
		var running sync.WaitGroup
		running.Go(func() {
			for n := 0; !gone.Load(); n++ {
				l := present(t.Context(), t, s, name)
				if !l.Held() || l.Holder != "alice" {
					return
				}
				if n == 1 {
					close(started)
				}
				if _, err := s.Commit(t.Context(), []lock.Change{next(l)}); err != nil && !errors.Is(err, lock.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
		return started, func() { gone.Store(true); running.Wait() }
	}
	t.Run("rm beside updates", func(t *testing.T) {
		name := lock.MustParseName("x")
		file := filepath.Join(s.Root(), fileOf(name))
		undone := 0
		for range *storms {
			if _, err := s.Commit(t.Context(), []lock.Change{locked(settled(t, s, name), "alice", `{}`)}); err != nil {
				t.Fatal(err)
			}
			started, ended := change(name, func(l lock.Lock) lock.Change { return updated(l, fmt.Sprintf(`{"n":%d}`, l.Revision)) })
			<-started
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			ended()
			if l := settled(t, s, name); l.Held() {
				undone++
			}
		}
		if undone > 0 {
			t.Errorf("%d of %d rm were undone", undone, *storms)
		}
	})
	t.Run("a script beside releases", func(t *testing.T) {
		deleted, taken := 0, 0
		for i := range *storms {
			name := lock.MustParseName(fmt.Sprintf("y%d", i%4))
			file := filepath.Join(s.Root(), fileOf(name))
			if _, err := s.Commit(t.Context(), []lock.Change{locked(settled(t, s, name), "alice", `{}`)}); err != nil {
				t.Fatal(err)
			}
			released := make(chan struct{})
			go func() {
				defer close(released)
				for {
					l := present(t.Context(), t, s, name)
					if l.Holder != "alice" {
						return
					}
					if _, err := s.Commit(t.Context(), []lock.Change{unlocked(l)}); err == nil {
						return
					} else if !errors.Is(err, lock.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}()
			_ = os.Remove(file)
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL, 0o644)
			if err == nil {
				taken++
				f.Close()
			}
			<-released
			l := settled(t, s, name)
			if _, statErr := os.Stat(file); err == nil && (statErr != nil || !l.Held()) {
				deleted++
			}
			if l.Held() {
				if _, err := s.Commit(t.Context(), []lock.Change{unlocked(l)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if deleted > 0 || taken == 0 {
			t.Errorf("%d of %d files that a script made are gone", deleted, taken)
		}
		t.Logf("the script made %d files beside %d releases", taken, *storms)
	})
}

// TestOneFileFails has the operating system refuse to change one lock's file: that lock
// answers so and stays as it is; the others, and the health of the store, are not touched.
func TestOneFileFails(t *testing.T) {
	for _, cause := range []error{syscall.EPERM, syscall.EACCES, syscall.EXDEV, syscall.EBUSY, syscall.EROFS, syscall.ENAMETOOLONG} {
		t.Run(cause.Error(), func(t *testing.T) {
			root := t.TempDir()
			d := openDisk(t, root)
			config := Config{Root: root, NoNotify: true, journal: smallJournal, Health: func(err error) {
				if err != nil {
					t.Errorf("health: %v", err)
				}
			}}.withDefaults()
			s, err := open(t.Context(), config, root, d)
			if err != nil {
				t.Fatal(err)
			}
			held := lock.MustParseName("bad/held")
			if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: held}, "alice", `{}`)}); err != nil {
				t.Fatal(err)
			}
			l := present(t.Context(), t, s, held)
			fail := func(_ int, op, name string) error {
				if slices.Contains([]string{"rename", "exchange", "link", "mkdir"}, op) && strings.HasPrefix(name, "bad") || op == "rename" && strings.HasSuffix(name, hashOf(held)+takeSuffix) {
					return cause
				}
				return nil
			}
			d.arm(fail)
			for what, change := range map[string]lock.Change{
				"unlock":    unlocked(l),
				"update":    updated(l, `{"a":1}`),
				"overwrite": locked(l, "bob", `{}`),
				"lock":      locked(lock.Lock{Name: lock.MustParseName("bad/new")}, "bob", `{}`),
			} {
				// Beside a change that could be made, which is not made either.
				other := locked(lock.Lock{Name: lock.MustParseName("good/" + what)}, "bob", `{}`)
				for _, changes := range [][]lock.Change{{change}, {other, change}} {
					if _, err := s.Commit(t.Context(), changes); !errors.Is(err, lock.ErrLockFile) || !errors.Is(err, cause) {
						t.Errorf("%s: %v, want %v", what, err, lock.ErrLockFile)
					}
				}
				if got := settled(t, s, other.Lock.Name); got.Held() {
					t.Errorf("%s: half of the commit is there: %+v", what, got)
				}
				if got := settled(t, s, held); got != l {
					t.Errorf("after %s the lock is %+v, want %+v", what, got, l)
				}
				if _, err := s.Commit(t.Context(), []lock.Change{other}); err != nil {
					t.Errorf("another lock, after %s: %v", what, err)
				}
			}
			d.arm(nil)
			if _, err := s.Commit(t.Context(), []lock.Change{unlocked(l)}); err != nil {
				t.Errorf("when it works again: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDirectoryInPlace has a directory where a lock file goes: it is held, and stays there
// until somebody removes it.
func TestDirectoryInPlace(t *testing.T) {
	s, err := Open(t.Context(), Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	name := lock.MustParseName("x")
	dir := filepath.Join(s.Root(), fileOf(name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := settled(t, s, name)
	if !l.Held() || l.Problem == "" {
		t.Errorf("the lock is %+v, want a hold with a problem", l)
	}
	for what, change := range map[string]lock.Change{"unlock": unlocked(l), "update": updated(l, `{"a":1}`), "overwrite": locked(l, "bob", `{}`)} {
		if _, err := s.Commit(t.Context(), []lock.Change{change}); !errors.Is(err, lock.ErrLockFile) {
			t.Errorf("%s: %v, want %v", what, err, lock.ErrLockFile)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Errorf("the directory: %v", err)
	}
	if l := settled(t, s, name); l.Held() {
		t.Errorf("the lock is %+v, want it free", l)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDirectoryGoes removes a lock's directory again and again while the lock is taken:
// it is made again, and nothing is wrong with the store.
func TestDirectoryGoes(t *testing.T) {
	root := t.TempDir()
	s, err := Open(t.Context(), Config{Root: root, Health: func(err error) {
		if err != nil {
			t.Errorf("health: %v", err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	name := lock.MustParseName("ci/x/y")
	stop := make(chan struct{})
	var removing sync.WaitGroup
	removed := 0
	removing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.Remove(filepath.Join(root, "ci/x")) == nil {
				removed++
				_ = os.Remove(filepath.Join(root, "ci"))
			}
		}
	})
	for range 500 {
		if _, err := s.Commit(t.Context(), []lock.Change{locked(settled(t, s, name), "alice", `{}`)}); err != nil {
			t.Fatalf("lock: %v", err)
		}
		if _, err := s.Commit(t.Context(), []lock.Change{unlocked(present(t.Context(), t, s, name))}); err != nil {
			t.Fatalf("unlock: %v", err)
		}
	}
	close(stop)
	removing.Wait()
	if removed == 0 {
		t.Error("the directory never went")
	}
	t.Logf("the directory went %d times", removed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestModes makes lock files and directories for whom the umask lets have them, and keeps
// the server's own files to itself.
func TestModes(t *testing.T) {
	for _, mask := range []int{0o022, 0o002, 0o077} {
		before := syscall.Umask(mask)
		defer syscall.Umask(before)
		s, err := Open(t.Context(), Config{Root: filepath.Join(t.TempDir(), "root")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName("a/b")}, "alice", `{}`)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), []lock.Change{updated(present(t.Context(), t, s, lock.MustParseName("a/b")), `{"a":1}`)}); err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]fs.FileMode{"": 0o777, "a": 0o777, "a/b.lock": 0o666, ".pylok": 0o700} {
			info, err := os.Stat(filepath.Join(s.Root(), file))
			if err != nil || info.Mode().Perm() != want&^fs.FileMode(mask) {
				t.Errorf("with umask %03o %q has mode %v (%v), want %v", mask, file, info.Mode(), err, want&^fs.FileMode(mask))
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailedSyncfs fails one sync of the lock files, after which the operating system
// takes them for written. A later sync is not believed: no power cut after it takes a hold
// that was acknowledged.
func TestFailedSyncfs(t *testing.T) {
	for _, again := range []bool{false, true} { // the start after it fails the same way
		root := t.TempDir()
		d := openDisk(t, root).withPower(t)
		d.mount = "mount 0"
		s, err := openOn(t, d)
		if err != nil {
			t.Fatal(err)
		}
		name := lock.MustParseName("x")
		if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "alice", `{"msg":"acknowledged"}`)}); err != nil {
			t.Fatal(err)
		}
		fail := func(_ int, op, _ string) error {
			if op == "syncfs" {
				return syscall.EIO
			}
			return nil
		}
		d.arm(fail)
		if _, err := s.makeCheckpoint(true); !errors.Is(err, syscall.EIO) {
			t.Fatalf("the checkpoint: %v, want EIO", err)
		}
		d.arm(nil)
		if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName("y")}, "bob", `{}`)}); !errors.Is(err, lock.ErrReadOnly) {
			t.Errorf("a change after it: %v, want %v", err, lock.ErrReadOnly)
		}
		_, _ = s.makeCheckpoint(true)
		_ = s.Close()
		start := func() {
			t.Helper()
			power := d.power
			d = openDisk(t, root)
			d.mount, d.power = "mount 0", power
		}
		if start(); again {
			d.arm(fail)
			if s, err := openOn(t, d); !errors.Is(err, syscall.EIO) {
				s.Close()
				t.Fatalf("the start: %v, want EIO", err)
			}
			start()
		}
		if s, err = openOn(t, d); err != nil {
			t.Fatal(err)
		}
		d.kill()
		_ = s.Close()
		d.loseUnsynced(t)
		d.mount = "mount 1"
		start()
		d.mount = "mount 1"
		if s, err = openOn(t, d); err != nil {
			t.Fatal(err)
		}
		if l := present(t.Context(), t, s, name); l.Holder != "alice" || l.Data.JSON() != `{"msg":"acknowledged"}` {
			t.Errorf("after a power cut the lock is %+v, want alice's hold", l)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
