package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// hookedDisk calls hook before it opens or describes a file, and fails with its error.
type hookedDisk struct {
	disk.FS
	hook *atomic.Pointer[func(op, name string) error]
}

func (d hookedDisk) call(op, name string) error {
	if hook := d.hook.Load(); hook != nil {
		if err := (*hook)(op, name); err != nil {
			return &fs.PathError{Op: op, Path: name, Err: err}
		}
	}
	return nil
}

// on sets the hook.
func (d hookedDisk) on(hook func(op, name string) error) { d.hook.Store(&hook) }

func (d hookedDisk) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	if err := d.call("open", name); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return hookedFile{f, d, name}, nil
}

func (d hookedDisk) Lstat(name string) (disk.Stat, error) {
	if err := d.call("lstat", name); err != nil {
		return disk.Stat{}, err
	}
	return d.FS.Lstat(name)
}

func (d hookedDisk) OpenDir(name string) (disk.Dir, error) {
	if err := d.call("opendir", name); err != nil {
		return nil, err
	}
	return d.FS.OpenDir(name)
}

// Hold implements disk.FS.
func (d hookedDisk) Hold() disk.Held { return heldHookedDisk{d} }

type heldHookedDisk struct{ hookedDisk }

func (heldHookedDisk) Release()      {}
func (heldHookedDisk) Drop()         {}
func (heldHookedDisk) Forget(string) {}

type hookedFile struct {
	disk.File
	disk hookedDisk
	name string
}

func (f hookedFile) Read(b []byte) (int, error) {
	if err := f.disk.call("read", f.name); err != nil {
		return 0, err
	}
	return f.File.Read(b)
}

// openHooked opens a store that polls often, on a disk with a hook.
func openHooked(t *testing.T, config Config) (*Store, hookedDisk) {
	t.Helper()
	return openHookedWith(t, config, nil)
}

// openHookedWith is openHooked with a hook from the start on.
func openHookedWith(t *testing.T, config Config, hook func(op, name string) error) (*Store, hookedDisk) {
	t.Helper()
	root, fsys, err := openRoot(config.Root)
	if err != nil {
		t.Fatal(err)
	}
	d := hookedDisk{fsys, new(atomic.Pointer[func(op, name string) error])}
	if hook != nil {
		d.on(hook)
	}
	config.NoNotify, config.PollInterval = true, 10*time.Millisecond
	s, err := open(t.Context(), config.withDefaults(), root, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.hook.Store(nil)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, d
}

// handWrite writes lock files as somebody does by hand: each is there as a whole.
func handWrite(t *testing.T, root string, texts map[string]string) {
	t.Helper()
	for name, text := range texts {
		file := filepath.Join(root, name)
		if err := os.WriteFile(file+".tmp", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".tmp", file+lock.FileSuffix); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until a lock is as it should be.
func await(t *testing.T, s *Store, name string, is func(lock.Lock) bool) lock.Lock {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		after := s.view.Load().revision
		l := present(ctx, t, s, lock.MustParseName(name))
		if is(l) {
			return l
		}
		if _, _, err := s.Events(ctx, lock.Pattern{}, after, time.Hour); err != nil {
			t.Fatalf("%s is %+v, and then nothing comes: %v", name, l, err)
		}
	}
}

// TestFileThatCannotBeRead: a file that cannot be read is the trouble of its lock, which
// is held, and of nobody else.
func TestFileThatCannotBeRead(t *testing.T) {
	for _, op := range []string{"lstat", "open", "read"} {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ESTALE} {
			t.Run(op+" "+errno.Error(), func(t *testing.T) {
				t.Parallel()
				h := new(healthTold)
				s, d := openHooked(t, Config{Root: t.TempDir(), Health: h.tell})
				held := mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("held")}, "alice", `{"n":1}`))[0].Lock
				d.on(func(at, name string) error {
					if at == op && (name == "bad.lock" || name == "held.lock") {
						return errno
					}
					return nil
				})
				texts := map[string]string{"bad": "n: 7\n"}
				for i := range 20 {
					texts[fmt.Sprint("good-", i)] = "n: 1\n"
				}
				handWrite(t, s.Root(), texts)
				if err := os.Chtimes(filepath.Join(s.Root(), "held.lock"), time.Time{}, time.Now()); err != nil { // it is looked at
					t.Fatal(err)
				}
				for i := range 20 {
					await(t, s, fmt.Sprint("good-", i), func(l lock.Lock) bool { return l.Data.JSON() == `{"n":1}` })
				}
				isTold := func(l lock.Lock) bool { return l.Held() && strings.Contains(l.Problem, errno.Error()) }
				bad := await(t, s, "bad", isTold)
				if l := await(t, s, "held", isTold); l.Token != held.Token || l.Holder != "alice" {
					t.Errorf("the hold of alice is now %+v", l)
				}
				if op == "lstat" { // nor changed
					for _, l := range []lock.Lock{bad, present(t.Context(), t, s, held.Name)} {
						if err := mustFail(t, s, unlocked(l)); !errors.Is(err, lock.ErrLockFile) {
							t.Errorf("unlocking %s: got %v, want %v", l.Name, err, lock.ErrLockFile)
						}
					}
				}
				d.hook.Store(nil) // it can be read again
				if l := await(t, s, "bad", func(l lock.Lock) bool { return l.Problem == "" }); l.Token != bad.Token || l.Data.JSON() != `{"n":7}` {
					t.Errorf("the file that can be read again is %+v, was %+v", l, bad)
				}
				if l := await(t, s, "held", func(l lock.Lock) bool { return l.Problem == "" }); l.Token != held.Token || l.Holder != "alice" || l.Data != held.Data {
					t.Errorf("the hold of alice is %+v, was %+v", l, held)
				}
				if err, n := h.last(); n > 0 {
					t.Errorf("health was told %d times, at last %v", n, err)
				}
			})
		}
	}
}

// TestStartWithWhatCannotBeRead: a file, or a directory, that cannot be read when the server
// starts is the trouble of its lock, which stays held as it was.
func TestStartWithWhatCannotBeRead(t *testing.T) {
	for _, bad := range []struct{ op, name string }{
		{"lstat", "dir/x.lock"}, {"open", "dir/x.lock"}, {"read", "dir/x.lock"}, {"opendir", "dir"},
	} {
		for _, closed := range []string{"clean", "power cut"} {
			t.Run(bad.op+", "+closed, func(t *testing.T) {
				t.Parallel()
				root := t.TempDir()
				d := openDisk(t, root)
				before := mustOpenOn(t, d)
				x := mustCommit(t, before, locked(lock.Lock{Name: lock.MustParseName("dir/x")}, "alice", `{"n":1}`))[0].Lock
				y := mustCommit(t, before, locked(lock.Lock{Name: lock.MustParseName("y")}, "bob", `{"n":2}`))[0].Lock
				if closed != "clean" {
					d.kill()
				}
				_ = before.Close()
				if closed == "clean" { // it has to be looked at
					write := []byte("n: 1\nlock_holder: alice\nlock_token: 1\n")
					if err := os.WriteFile(filepath.Join(root, "dir/x.lock"), write, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				s, hooked := openHookedWith(t, Config{Root: root}, func(op, name string) error {
					if op == bad.op && name == bad.name {
						return syscall.EIO
					}
					return nil
				})
				for _, want := range []lock.Lock{x, y} {
					if l := present(t.Context(), t, s, want.Name); l.Token != want.Token || l.Holder != want.Holder {
						t.Errorf("the hold %+v has become %+v", want, l)
					}
				}
				hooked.hook.Store(nil)
				l := await(t, s, "dir/x", func(l lock.Lock) bool { return l.Problem == "" && l.Data == x.Data })
				if l.Token != x.Token || l.Holder != "alice" {
					t.Errorf("the hold of alice has become %+v", l)
				}
				_, err := s.Commit(t.Context(), []lock.Change{unlocked(l)})
				for errors.Is(err, lock.ErrConflict) { // it is looked at, and so known, only now
					_, err = s.Commit(t.Context(), []lock.Change{unlocked(present(t.Context(), t, s, l.Name))})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestNoDescriptors: that the process has no more descriptors says nothing of a file. It
// is looked at again when it has.
func TestNoDescriptors(t *testing.T) {
	h := new(healthTold)
	s, d := openHooked(t, Config{Root: t.TempDir(), Health: h.tell})
	held := mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("held")}, "alice", `{"n":1}`))[0].Lock
	tried := make(chan struct{}, 1)
	d.on(func(op, name string) error {
		if op != "lstat" && strings.HasSuffix(name, lock.FileSuffix) {
			select {
			case tried <- struct{}{}:
			default:
			}
			return syscall.EMFILE
		}
		return nil
	})
	handWrite(t, s.Root(), map[string]string{"new": "n: 2\n"})
	if err := os.WriteFile(filepath.Join(s.Root(), "held.lock"), []byte("n: 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-tried
	}
	if err := mustFail(t, s, locked(lock.Lock{Name: lock.MustParseName("new")}, "bob", `{}`)); !errors.Is(err, lock.ErrReadOnly) {
		t.Errorf("locking what has a file that cannot be read: %v, want %v", err, lock.ErrReadOnly)
	}
	if l := present(t.Context(), t, s, held.Name); l.Revision != held.Revision || l.Problem != "" {
		t.Errorf("the hold of alice has become %+v", l)
	}
	if err, n := h.last(); n > 0 {
		t.Errorf("health was told %d times, at last %v", n, err)
	}
	d.hook.Store(nil)
	await(t, s, "new", func(l lock.Lock) bool { return l.Data.JSON() == `{"n":2}` })
	if l := await(t, s, "held", func(l lock.Lock) bool { return l.Data.JSON() == `{"n":3}` }); l.Token != held.Token {
		t.Errorf("the hold of alice has become %+v", l)
	}
}

func mustFail(t *testing.T, s *Store, changes ...lock.Change) error {
	t.Helper()
	events, err := s.Commit(t.Context(), changes)
	if err == nil {
		t.Fatalf("%+v was committed", events)
	}
	return err
}

// TestReadBesideTheCommitter: while somebody's file is read and parsed, however long that
// takes, other locks change, whoever came upon the file.
func TestReadBesideTheCommitter(t *testing.T) {
	for _, test := range []struct {
		name   string
		comeBy func(t *testing.T, s *Store) // comes upon big.lock
	}{
		{"polling", func(*testing.T, *Store) {}},
		{"a refused commit", func(t *testing.T, s *Store) {
			if err := mustFail(t, s, locked(lock.Lock{Name: lock.MustParseName("big")}, "bob", `{}`)); !errors.Is(err, lock.ErrConflict) {
				t.Error(err)
			}
			if l := present(t.Context(), t, s, lock.MustParseName("big")); !l.Held() {
				t.Error("what stood in the way is not seen")
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, d := openHooked(t, Config{Root: t.TempDir()})
			reading, goOn := make(chan struct{}, 100), make(chan struct{})
			d.on(func(op, name string) error {
				if op == "read" && name == "big.lock" {
					reading <- struct{}{}
					<-goOn
				}
				return nil
			})
			handWrite(t, s.Root(), map[string]string{"big": "a: [" + strings.Repeat("b: 1,", 13_000) + "]\n"})
			done := make(chan struct{})
			go func() {
				defer close(done)
				test.comeBy(t, s)
			}()
			<-reading
			for i := range 100 {
				l := mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName(fmt.Sprint("other-", i%3))}, "carol", `{}`))[0].Lock
				mustCommit(t, s, unlocked(l))
			}
			if l := present(t.Context(), t, s, lock.MustParseName("big")); l.Held() {
				t.Errorf("the test waits for a file that has been read: %+v", l)
			}
			close(goOn)
			<-done
			await(t, s, "big", lock.Lock.Held)
		})
	}
}

// TestChangedWhileItIsRead: what has been read of a file does not count any more once it
// or its lock has changed.
func TestChangedWhileItIsRead(t *testing.T) {
	s, d := openHooked(t, Config{Root: t.TempDir()})
	reading, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	d.on(func(op, name string) error {
		if op == "read" && name == "x.lock" && once.CompareAndSwap(false, true) {
			close(reading)
			<-goOn
		}
		return nil
	})
	handWrite(t, s.Root(), map[string]string{"x": "n: 1\n"})
	<-reading
	handWrite(t, s.Root(), map[string]string{"x": "n: 2\n"})
	close(goOn)
	await(t, s, "x", func(l lock.Lock) bool { return l.Data.JSON() == `{"n":2}` })
	events, _, err := s.Events(t.Context(), lock.Pattern{}, 0, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Lock.Data.JSON() != `{"n":2}` {
			t.Errorf("got %+v of a file that had changed when it was taken in", e)
		}
	}
}
