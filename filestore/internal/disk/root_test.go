package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/internal/isolate"
)

// newTree returns a tree in a new directory, and that directory.
func newTree(t *testing.T) (Held, string) {
	t.Helper()
	root := isolate.AttributesDir(t)
	fsys, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	held := fsys.Hold()
	t.Cleanup(func() {
		held.Drop()
		if err := fsys.Close(); err != nil {
			t.Error(err)
		}
	})
	return held, root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fsys FS, name string) error {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	return err
}

func exists(t *testing.T, name string) bool {
	t.Helper()
	_, err := os.Lstat(name)
	return err == nil
}

// What others do to directories that are held counts from the next Release on.
func TestHeldDirectoriesAreLookedForAgain(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(t *testing.T, root string)
		want string // where a/b/new is then, below root; empty: it cannot be made
	}{
		{"nothing", func(*testing.T, string) {}, "a/b/new"},
		{"another directory has its place", func(t *testing.T, root string) {
			must(t, os.Rename(filepath.Join(root, "a/b"), filepath.Join(root, "away")))
			must(t, os.Mkdir(filepath.Join(root, "a/b"), 0o700))
		}, "a/b/new"},
		{"another directory has the place of the one above", func(t *testing.T, root string) {
			must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "away")))
			must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o700))
		}, "a/b/new"},
		{"it was moved away", func(t *testing.T, root string) {
			must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "away")))
		}, ""},
		{"a file has its place", func(t *testing.T, root string) {
			must(t, os.Remove(filepath.Join(root, "a/b/old")))
			must(t, os.Remove(filepath.Join(root, "a/b")))
			must(t, os.WriteFile(filepath.Join(root, "a/b"), nil, 0o600))
		}, ""},
		{"a link in the tree leads to it", func(t *testing.T, root string) {
			must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "away")))
			must(t, os.Symlink("away", filepath.Join(root, "a")))
		}, ""},
		{"a link out of the tree leads to it", func(t *testing.T, root string) {
			outside := t.TempDir()
			must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(outside, "a")))
			must(t, os.Symlink(filepath.Join(outside, "a"), filepath.Join(root, "a")))
		}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			tree, root := newTree(t)
			must(t, tree.MkdirAll("a/b", 0o700))
			must(t, create(t, tree, "a/b/old"))
			tree.Release()
			must(t, func() error { _, err := tree.Lstat("a/b/old"); return err }()) // it is held again
			tree.Release()
			c.do(t, root)
			err := create(t, tree, "a/b/new")
			if c.want == "" {
				if err == nil {
					t.Error("a/b/new could be made")
				}
				return
			}
			if err != nil || !exists(t, filepath.Join(root, c.want)) {
				t.Errorf("a/b/new is not at %s (%v)", c.want, err)
			}
		})
	}
}

// However many directories are used, few stay open.
func TestHeldDirectoriesAreFew(t *testing.T) {
	tree, _ := newTree(t)
	held := tree.(*osRoot)
	for turn := range 3 {
		for i := range 2 * mostHeld {
			dir := fmt.Sprintf("d%d-%d", turn, i)
			must(t, tree.MkdirAll(dir, 0o700))
			must(t, create(t, tree, dir+"/x"))
			if n := len(held.held); n > mostHeld {
				t.Fatalf("%d directories are held, want at most %d", n, mostHeld)
			}
		}
		tree.Release()
		if n := len(held.held); n != mostAfter {
			t.Errorf("after Release %d directories are held, want %d", n, mostAfter)
		}
	}
	tree.Drop()
	if n := len(held.held); n > 0 {
		t.Errorf("after Drop %d directories are held", n)
	}
}

// A directory that was removed meanwhile is not mistaken for one that lacks a file.
func TestHeldDirectoryThatWasRemoved(t *testing.T) {
	tree, root := newTree(t)
	must(t, tree.MkdirAll("a", 0o700))
	must(t, create(t, tree, "a/x"))
	must(t, os.RemoveAll(filepath.Join(root, "a")))
	if err := create(t, tree, "a/x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("creating a file in a removed directory: %v, want %v", err, os.ErrNotExist)
	}
	must(t, os.Mkdir(filepath.Join(root, "a"), 0o700))
	if err := create(t, tree, "a/x"); err != nil || !exists(t, filepath.Join(root, "a/x")) {
		t.Errorf("the directory is there again, and creating a file in it: %v", err)
	}
}

// Nothing is reached through a symbolic link, one that stays in the tree neither.
func TestNoSymbolicLinks(t *testing.T) {
	held, root := newTree(t)
	plain, err := Open(root)
	must(t, err)
	defer plain.Close()
	must(t, os.MkdirAll(filepath.Join(root, "real/sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "real/x"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(root, "x"), nil, 0o600))
	must(t, os.Symlink("real", filepath.Join(root, "link")))
	must(t, os.Symlink("../real", filepath.Join(root, "real/up")))
	for _, above := range []string{"link", "real/up", "link/sub"} {
		for name, tree := range map[string]FS{"plain": plain, "held": held} {
			for what, err := range map[string]error{
				"OpenFile": create(t, tree, above+"/new"),
				"Lstat":    func() error { _, err := tree.Lstat(above + "/x"); return err }(),
				"OpenDir":  func() error { _, err := tree.OpenDir(above); return err }(),
				"MkdirAll": tree.MkdirAll(above+"/new", 0o700),
				"Link":     tree.Link("x", above+"/new"),
				"Rename":   tree.Rename("x", above+"/new"),
				"Remove":   tree.Remove(above + "/x"),
				"SyncDir":  tree.SyncDir(above),
			} {
				if !errors.Is(err, unix.ELOOP) {
					t.Errorf("%s, %s through %s: got %v, want %v", name, what, above, err, unix.ELOOP)
				}
			}
		}
	}
	if exists(t, filepath.Join(root, "real/new")) || !exists(t, filepath.Join(root, "real/x")) {
		t.Error("something was done through a link")
	}
}

// A file in place of a directory is told from a link, and from nothing.
func TestMkdirAll(t *testing.T) {
	tree, root := newTree(t)
	must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	if err := tree.MkdirAll("file/a", 0o700); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: got %v, want %v", err, unix.ENOTDIR)
	}
	for range 2 {
		must(t, tree.MkdirAll("a/b/c", 0o750))
		must(t, tree.MkdirAll(".", 0o700))
	}
	stat, err := tree.Lstat("a/b/c")
	must(t, err)
	if stat.Mode != os.ModeDir|0o750 {
		t.Errorf("the directory has mode %v", stat.Mode)
	}
}
