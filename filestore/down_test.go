package filestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// TestChangedWhileDown kills the server before each operation of a change of a lock, in
// turn. Then somebody changes the lock's file as it was left, and the next start makes of
// it what any start makes of a file that was changed while no server ran.
func TestChangedWhileDown(t *testing.T) {
	name, beside := lock.MustParseName("dir/x"), lock.MustParseName("beside")
	const note = "note: by hand\n"
	const script = "msg: a script's\n"
	type outcome struct {
		held bool
		has  string // what is in the file
	}
	for _, others := range []struct {
		what string
		do   func(file string) error
		want outcome
	}{
		{"removed", os.Remove, outcome{}},
		{"edited in place", func(file string) error {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString(note)
			later := time.Now().Add(10 * time.Millisecond) // than the coarsest time stamps of a kernel
			return errors.Join(err, f.Close(), os.Chtimes(file, later, later))
		}, outcome{true, note}},
		{"replaced", func(file string) error {
			if _, err := os.Lstat(file); err != nil {
				return err
			}
			return errors.Join(os.WriteFile(file+"~", []byte(script), 0o644), os.Rename(file+"~", file))
		}, outcome{true, script}},
		{"made where it was free", func(file string) error {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			_, err = f.WriteString(script)
			return errors.Join(err, f.Close())
		}, outcome{true, script}},
	} {
		for _, change := range []struct {
			what string
			of   func(l lock.Lock) lock.Change
			two  bool // another lock is taken with it
		}{
			{"unlock", unlocked, false},
			{"update", func(l lock.Lock) lock.Change { return updated(l, `{"msg":"new"}`) }, false},
			{"overwrite", func(l lock.Lock) lock.Change { return locked(l, "bob", `{"msg":"another hold"}`) }, false},
			{"unlock beside a lock", unlocked, true},
			{"update beside a lock", func(l lock.Lock) lock.Change { return updated(l, `{"msg":"new"}`) }, true},
		} {
			for _, plain := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s during %s, plain %v", others.what, change.what, plain), func(t *testing.T) {
					for at, more := 1, true; more; at++ {
						root := t.TempDir()
						file := filepath.Join(root, fileOf(name))
						d := openDisk(t, root)
						d.plain = plain
						s := mustOpenOn(t, d)
						if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "alice", `{"msg":"old"}`)}); err != nil {
							t.Fatal(err)
						}
						before := present(t.Context(), t, s, name)
						var op string
						kill := d.killAt(at)
						d.arm(func(n int, what, of string) error {
							if n == at {
								op = what + " " + of
							}
							return kill(n, what, of)
						})
						changes := []lock.Change{change.of(before)}
						if change.two {
							changes = append(changes, locked(lock.Lock{Name: beside}, "bob", `{}`))
						}
						_, _ = s.Commit(t.Context(), changes)
						more = d.isKilled()
						d.kill()
						_ = s.Close()
						did := others.do(file) == nil
						d = openDisk(t, root)
						d.plain = plain
						s, err := openOn(t, d)
						if err != nil {
							t.Fatalf("killed before operation %d, %s: %v", at, op, err)
						}
						after := present(t.Context(), t, s, name)
						text, _ := os.ReadFile(file)
						if l := present(t.Context(), t, s, beside); !did && l.Held() != (change.two && after.Data != before.Data) {
							t.Errorf("killed before operation %d, %s: %v was done by half, the lock beside it is held %v", at, op, changes, l.Held())
						}
						if left := leftNew(t, root); len(left) > 0 {
							t.Errorf("killed before operation %d, %s: %v is left", at, op, left)
						}
						if err := s.Close(); err != nil {
							t.Error(err)
						}
						if did && (after.Held() != others.want.held || len(text) > 0 != others.want.held || !strings.Contains(string(text), others.want.has)) {
							t.Errorf("killed before operation %d, %s: held %v, the file has %q; want %+v", at, op, after.Held(), text, others.want)
						}
						if !did && after.Held() != (len(text) > 0) {
							t.Errorf("killed before operation %d, %s: held %v, the file has %q", at, op, after.Held(), text)
						}
					}
				})
			}
		}
	}
}

// TestKilledWhileDisplaced has a script put a file in a lock's place just before the server
// moves what is there, and kills the server before it could put that file back. The file is
// there after the next start, in its place or kept.
func TestKilledWhileDisplaced(t *testing.T) {
	name := lock.MustParseName("x")
	const script = "msg: a script's\n"
	for what, of := range map[string]func(l lock.Lock) lock.Change{
		"unlock":    unlocked,
		"update":    func(l lock.Lock) lock.Change { return updated(l, `{"msg":"new"}`) },
		"overwrite": func(l lock.Lock) lock.Change { return locked(l, "bob", `{"msg":"another hold"}`) },
	} {
		t.Run(what, func(t *testing.T) {
			for later, more := 1, true; more; later++ {
				root := t.TempDir()
				file := filepath.Join(root, fileOf(name))
				d := openDisk(t, root)
				s := mustOpenOn(t, d)
				if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "alice", `{"msg":"old"}`)}); err != nil {
					t.Fatal(err)
				}
				moves := 0
				d.arm(func(n int, op, of string) error {
					isMove := op == "rename" && strings.HasSuffix(of, takeSuffix) || op == "exchange"
					if isMove && moves == 0 {
						moves = n
						return errors.Join(os.Remove(file), os.WriteFile(file, []byte(script), 0o644))
					}
					if moves > 0 && n == moves+later {
						d.killed = true
						return errKilled
					}
					return nil
				})
				_, _ = s.Commit(t.Context(), []lock.Change{of(present(t.Context(), t, s, name))})
				more = d.isKilled()
				d.kill()
				_ = s.Close()
				s = mustOpenOn(t, openDisk(t, root))
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				kept, _ := filepath.Glob(filepath.Join(root, ownDir, "*"+keptSuffix))
				found := 0
				for _, file := range append(kept, file) {
					if text, err := os.ReadFile(file); err == nil && string(text) == script {
						found++
					}
				}
				if found != 1 || len(kept) > 1 {
					t.Errorf("killed %d operations later: the script's file is there %d times; kept are %v", later, found, kept)
				}
			}
		})
	}
}

// TestOneNameOnly has the system refuse hard links to files of other users
// (fs.protected_hardlinks), so that a file that was moved out cannot be linked back.
func TestOneNameOnly(t *testing.T) {
	name := lock.MustParseName("x")
	root := t.TempDir()
	file := filepath.Join(root, fileOf(name))
	protect := func(op, of string) error {
		if op == "link" && of == fileOf(name) {
			return syscall.EPERM
		}
		return nil
	}
	if err := os.WriteFile(file, []byte("msg: by hand\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := openDisk(t, root)
	s := mustOpenOn(t, d)
	before := present(t.Context(), t, s, name)
	taken := false
	d.arm(func(_ int, op, of string) error {
		if taken {
			d.killed = true
			return errKilled
		}
		taken = op == "rename" && strings.HasSuffix(of, takeSuffix)
		return protect(op, of)
	})
	_, _ = s.Commit(t.Context(), []lock.Change{unlocked(before)})
	d.kill()
	_ = s.Close()
	if _, err := os.Lstat(file); err == nil {
		t.Fatal("the file was not moved out")
	}
	d = openDisk(t, root)
	d.plain = true // nor can it be moved to a name that nobody has
	d.arm(func(_ int, op, of string) error { return protect(op, of) })
	s, err := openOn(t, d)
	if err != nil {
		t.Fatalf("the next start: %v", err)
	}
	if l := present(t.Context(), t, s, name); l.Token != before.Token {
		t.Errorf("the lock is %+v, want %+v", l, before)
	}
	d.mu.Lock()
	d.plain = false
	d.mu.Unlock()
	// While it serves: a script's file is moved out and back, and another's is not in its way.
	made := false
	d.arm(func(_ int, op, of string) error {
		switch {
		case op == "rename" && strings.HasSuffix(of, takeSuffix):
			return errors.Join(os.Remove(file), os.WriteFile(file, []byte("a: 1\n"), 0o644))
		case op == "rename" && of == fileOf(name) && !made:
			made = true
			return os.WriteFile(file, []byte("b: 2\n"), 0o644)
		}
		return protect(op, of)
	})
	if _, err := s.Commit(t.Context(), []lock.Change{unlocked(before)}); !errors.Is(err, lock.ErrConflict) {
		t.Errorf("unlock: %v, want a conflict", err)
	}
	d.arm(nil)
	kept, _ := filepath.Glob(filepath.Join(root, ownDir, "*"+keptSuffix))
	if text, err := os.ReadFile(file); err != nil || string(text) != "b: 2\n" || len(kept) != 1 {
		t.Errorf("in the place is %q, %v; kept are %v", text, err, kept)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
