package filestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inTime calls do and fails if that hangs.
func inTime[T any](t *testing.T, what string, do func() T) T {
	t.Helper()
	const patience = time.Minute // it takes milliseconds, or hangs for ever
	done := make(chan T, 1)
	go func() { done <- do() }()
	select {
	case result := <-done:
		return result
	case <-time.After(patience):
		t.Fatalf("%s hangs", what)
		panic("unreachable")
	}
}

// TestOwnDirectoryOfOthers: the server's own directory counts only if nobody else can have
// written what is in it.
func TestOwnDirectoryOfOthers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(own string) error
		words  []string
	}{
		"writable for all":     {func(own string) error { return os.Chmod(own, 0o777) }, []string{"0777", "chmod"}},
		"writable for a group": {func(own string) error { return os.Chmod(own, 0o770) }, []string{"0770", "chmod"}},
		"of another user":      {func(own string) error { return os.Chown(own, 12345, -1) }, []string{"user 12345"}},
		"with a pipe for a format": {func(own string) error {
			return errors.Join(os.Remove(filepath.Join(own, "format")), syscall.Mkfifo(filepath.Join(own, "format"), 0o666))
		}, []string{".pylok/format", "not a regular file"}},
		"with a link for a format": {func(own string) error {
			return errors.Join(os.Rename(filepath.Join(own, "format"), own+".format"), os.Symlink(own+".format", filepath.Join(own, "format")))
		}, []string{".pylok/format", "symbolic link"}},
		"a link": {func(own string) error {
			return errors.Join(os.Rename(own, own+".moved"), os.Symlink(own+".moved", own))
		}, []string{".pylok"}},
		"a pipe": {func(own string) error { return errors.Join(os.RemoveAll(own), syscall.Mkfifo(own, 0o666)) }, []string{"directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newServed(t)
			s := p.mustOpen(t)
			hold(t, s, "x")
			p.end(t, s, true)
			if err := test.change(filepath.Join(p.root, ownDir)); errors.Is(err, fs.ErrPermission) {
				t.Skipf("only root can give a file to somebody else: %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
			err := inTime(t, "Open", func() error {
				s, err := Open(t.Context(), p.config())
				if err == nil {
					s.Close()
				}
				return err
			})
			said := inTime(t, "Check", func() string {
				var said []string
				err := Check(t.Context(), p.config(), func(finding string) { said = append(said, finding) })
				if err != nil {
					said = append(said, err.Error())
				}
				return strings.Join(said, "\n")
			})
			if err == nil {
				t.Fatal("it is opened")
			}
			for _, word := range test.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("Open does not say %q: %v", word, err)
				}
				if !strings.Contains(said, word) {
					t.Errorf("Check does not say %q: %s", word, said)
				}
			}
		})
	}
}

// TestPipesAmongOwnFiles puts a named pipe, and a link to itself, in the place of each of
// the server's own files: neither Open nor Check waits for who writes into it.
func TestPipesAmongOwnFiles(t *testing.T) {
	for _, name := range []string{"snapshot", "daemon", "floor", "batch", "breaks.jsonl", "1.new", "journal/00000000000000000000.jsonl", "floor.new", "snapshot.writing", "daemon.new"} {
		for kind, make := range map[string]func(file string) error{
			"pipe": func(file string) error { return syscall.Mkfifo(file, 0o666) },
			"link": func(file string) error { return os.Symlink(filepath.Base(file), file) },
		} {
			t.Run(kind+" for "+name, func(t *testing.T) {
				p := newServed(t)
				s := p.mustOpen(t)
				hold(t, s, "x")
				p.end(t, s, true)
				file := filepath.Join(p.root, ownDir, filepath.FromSlash(name))
				mustRemoveAll(t, file)
				if err := make(file); err != nil {
					t.Fatal(err)
				}
				inTime(t, "Check", func() error { return Check(t.Context(), p.config(), func(string) {}) })
				err := inTime(t, "Open", func() error {
					s, err := Open(t.Context(), p.config())
					if err == nil {
						hold(t, s, "y")
						err = s.Close()
					}
					return err
				})
				if err != nil && !strings.Contains(err.Error(), name) {
					t.Errorf("the message does not name %s: %v", name, err)
				}
			})
		}
	}
}
