package filestore

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/lock"
)

// openResting opens a store in a new root that writes a file again when so many others
// have rested.
func openResting(t *testing.T, rest int) *Store {
	t.Helper()
	d := openDisk(t, t.TempDir())
	config := Config{Root: d.root, NoNotify: true, journal: d.journal, rest: rest}.withDefaults()
	s, err := open(t.Context(), config, d.root, d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cycle takes a lock, calls held with the path of its file, and releases it.
func cycle(t *testing.T, s *Store, name string, held func(file string)) (inode uint64) {
	t.Helper()
	events := mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName(name)}, "somebody", fmt.Sprintf(`{"name":%q}`, name)))
	file := filepath.Join(s.Root(), name+".lock")
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	if held != nil {
		held(file)
	}
	mustCommit(t, s, unlocked(present(t.Context(), t, s, events[0].Lock.Name)))
	return info.Sys().(*syscall.Stat_t).Ino
}

func mustCommit(t *testing.T, s *Store, changes ...lock.Change) []lock.Event {
	t.Helper()
	events, err := s.Commit(t.Context(), changes)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// A file whose hold is over is written again when its turn comes, so that a store at
// work does not make files.
func TestFilesAreWrittenAgain(t *testing.T) {
	const rest = 4
	s := openResting(t, rest)
	var inodes []uint64
	for i := range 10 * rest {
		inodes = append(inodes, cycle(t, s, fmt.Sprintf("dir%d/x", i%3), func(file string) {
			want := fmt.Sprintf("name: dir%d/x\n", i%3)
			text, err := os.ReadFile(file)
			if err != nil || len(text) < len(want) || string(text[len(text)-len(want):]) != want {
				t.Errorf("hold %d: the file says\n%s(%v), want it to end in\n%s", i, text, err, want)
			}
		}))
	}
	for i := rest + 1; i < len(inodes); i++ {
		if inodes[i] != inodes[i-rest-1] {
			t.Errorf("hold %d has inode %d, hold %d had %d; want the same", i, inodes[i], i-rest-1, inodes[i-rest-1])
		}
	}
	if got := len(leftNew(t, s.Root())); got != rest+1 {
		t.Errorf("%d files stand by, want %d", got, rest+1)
	}
	for i := range 3 * rest {
		name := fmt.Sprint("held", i)
		mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName(name)}, "somebody", `{}`))
		mustCommit(t, s, updated(present(t.Context(), t, s, lock.MustParseName(name)), `{"n":1}`))
		if info, err := os.Lstat(filepath.Join(s.Root(), name+".lock")); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("the file of %s has another name (%v)", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left := leftNew(t, s.Root()); len(left) > 0 {
		t.Errorf("the clean stop leaves %v", left)
	}
}

// What somebody else has a part in is not written again, and what they have of it
// stays as it was.
func TestFilesOfOthersAreNotWrittenAgain(t *testing.T) {
	for _, c := range []struct {
		what string
		// do returns a check of what they have in the end; nil: nothing, and
		// another file may have the inode's number.
		do func(t *testing.T, file string) (check func())
	}{
		{"open for reading", func(t *testing.T, file string) func() {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				defer f.Close()
				if after, err := io.ReadAll(f); err != nil || string(after) != string(before) {
					t.Errorf("who has the file open reads\n%s(%v), want\n%s", after, err, before)
				}
			}
		}},
		{"open for writing", func(t *testing.T, file string) func() {
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		}},
		{"mapped", func(t *testing.T, file string) func() {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			text, err := unix.Mmap(int(f.Fd()), 0, 16, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			before := string(text)
			return func() {
				if after := string(text); after != before {
					t.Errorf("who has the file mapped reads %q, want %q", after, before)
				}
				unix.Munmap(text)
			}
		}},
		{"open in another process", func(t *testing.T, file string) func() {
			tail := exec.Command("tail", "-f", file)
			out, err := tail.StdoutPipe()
			if err == nil {
				err = tail.Start()
			}
			if err == nil { // it has the file open once it has shown of it
				_, err = io.ReadFull(out, make([]byte, 1))
			}
			if err != nil {
				t.Fatal(err)
			}
			return func() { tail.Process.Kill(); tail.Wait() }
		}},
		{"linked", func(t *testing.T, file string) func() {
			copied := filepath.Join(filepath.Dir(file), "copy")
			if err := os.Link(file, copied); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(copied)
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				if after, err := os.ReadFile(copied); err != nil || string(after) != string(before) {
					t.Errorf("the link says\n%s(%v), want\n%s", after, err, before)
				}
			}
		}},
		{"of another mode", func(t *testing.T, file string) func() {
			if err := os.Chmod(file, 0o600); err != nil {
				t.Fatal(err)
			}
			return nil
		}},
		{"with an attribute", func(t *testing.T, file string) func() {
			if err := unix.Setxattr(file, "user.note", []byte("mine"), 0); err != nil {
				t.Fatal(err)
			}
			return nil
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			const rest = 2
			mode := os.FileMode(0o666) &^ umask()
			s := openResting(t, rest)
			var check func()
			theirs := cycle(t, s, "theirs", func(file string) { check = c.do(t, file) })
			for i := range 4 * rest {
				got := cycle(t, s, fmt.Sprint("other", i), func(file string) {
					info, err := os.Lstat(file)
					if err != nil || info.Mode() != mode {
						t.Errorf("the file of hold %d has mode %v (%v), want %v", i, info.Mode(), err, mode)
					}
					if _, err := unix.Getxattr(file, "user.note", nil); err != unix.ENODATA {
						t.Errorf("the attribute of another's file is on that of hold %d: %v", i, err)
					}
				})
				if got == theirs && check != nil {
					t.Errorf("hold %d has the file", i)
				}
			}
			if check != nil {
				check()
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A journal that was put back from a copy does not know the latest holds. Their
// files are not taken for what a crash left of grants that nobody was told of.
func TestOlderJournalDestroysNothing(t *testing.T) {
	for _, mount := range []string{"", "after a power cut"} {
		t.Run("mount "+mount, func(t *testing.T) {
			d := openDisk(t, t.TempDir())
			s := mustOpenOn(t, d)
			mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("early")}, "somebody", `{}`))
			segment := filepath.Join(d.root, journalDir, "00000000000000000000.jsonl")
			copied, err := os.ReadFile(segment)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"late", "later"} {
				mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName(name)}, "somebody", `{}`))
			}
			d.kill()
			_ = s.Close()
			if err := os.WriteFile(segment, copied, 0o600); err != nil {
				t.Fatal(err)
			}
			d = openDisk(t, d.root)
			d.mount = mount
			if s, err := openOn(t, d); err == nil {
				s.Close()
				t.Fatal("a journal that is too short is believed")
			}
			d = openDisk(t, d.root)
			d.mount, d.accept = mount, true
			s = mustOpenOn(t, d)
			for _, name := range []string{"early", "late", "later"} {
				if l := present(t.Context(), t, s, lock.MustParseName(name)); !l.Held() {
					t.Errorf("%s is free", name)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Somebody moved the file of a hold while no server ran: a crash did not do that.
func TestMovedFileStays(t *testing.T) {
	d := openDisk(t, t.TempDir())
	s := mustOpenOn(t, d)
	mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("a")}, "somebody", `{}`))
	d.kill()
	_ = s.Close()
	if err := os.Rename(filepath.Join(d.root, "a.lock"), filepath.Join(d.root, "b.lock")); err != nil {
		t.Fatal(err)
	}
	s = mustOpenOn(t, openDisk(t, d.root))
	if l := present(t.Context(), t, s, lock.MustParseName("b")); !l.Held() || l.Holder != "" {
		t.Errorf("b is %v, want an anonymous hold", stateOf(l))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A start writes a hold's file anew after a power cut. What somebody writes into that file
// before the next start is an edit all the same.
func TestEditOfMendedFile(t *testing.T) {
	d := openDisk(t, t.TempDir())
	s := mustOpenOn(t, d)
	x := lock.MustParseName("x")
	token := mustCommit(t, s, locked(lock.Lock{Name: x}, "alice", `{"n":1}`))[0].Lock.Token
	d.kill()
	_ = s.Close()
	file := filepath.Join(d.root, fileOf(x))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for mount, text := range []string{"", "n: 2\n", "n: 3\n"} {
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		d = openDisk(t, d.root)
		d.mount = fmt.Sprint("mount ", mount)
		s = mustOpenOn(t, d)
		if l := present(t.Context(), t, s, x); l.Token != token || l.Holder != "alice" || l.Data.JSON() != fmt.Sprintf(`{"n":%d}`, mount+1) {
			t.Errorf("after %q the lock is %+v, want the hold with token %d", text, l, token)
		}
		inTime(t, "the snapshot", func() error { // which knows the file
			for mount == 0 {
				if _, err := os.Lstat(filepath.Join(d.root, snapshotFile)); err == nil {
					break
				}
				runtime.Gosched()
			}
			return nil
		})
		mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName(fmt.Sprint("other", mount))}, "bob", `{}`))
		d.kill()
		_ = s.Close()
	}
}
