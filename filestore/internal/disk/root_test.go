package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// newTree returns a tree in a new directory, and that directory.
func newTree(t *testing.T) (Held, string) {
	t.Helper()
	root := t.TempDir()
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
