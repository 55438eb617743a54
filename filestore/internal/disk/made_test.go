package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// RemoveDir removes what MkdirAll made, whoever asks, and nothing that people made, changed
// or use.
func TestRemoveDir(t *testing.T) {
	made := func(tree FS, _ string) error { return tree.MkdirAll("a/b", 0o700) }
	and := func(change func(dir string) error) func(FS, string) error {
		return func(tree FS, root string) error {
			return errors.Join(made(tree, root), change(filepath.Join(root, "a/b")))
		}
	}
	for _, test := range []struct {
		name string
		do   func(tree FS, root string) error
		want error
	}{
		{"made by the server", made, nil},
		{"made twice", func(tree FS, root string) error { return errors.Join(made(tree, root), made(tree, root)) }, nil},
		{"made by somebody", func(_ FS, root string) error { return os.MkdirAll(filepath.Join(root, "a/b"), 0o700) }, ErrNotMade},
		{"there before it was to be made", func(tree FS, root string) error {
			return errors.Join(os.MkdirAll(filepath.Join(root, "a/b"), 0o700), made(tree, root))
		}, ErrNotMade},
		{"with another mode", and(func(dir string) error { return os.Chmod(dir, 0o770) }), ErrNotMade},
		{"with the set-group-ID bit", and(func(dir string) error { return os.Chmod(dir, 0o700|os.ModeSetgid) }), ErrNotMade},
		{"with another attribute", and(func(dir string) error { return unix.Setxattr(dir, "user.x", []byte("y"), 0) }), ErrNotMade},
		{"with a file", and(func(dir string) error { return os.WriteFile(dir+"/x", nil, 0o600) }), unix.ENOTEMPTY},
		{"with a directory", and(func(dir string) error { return os.Mkdir(dir+"/x", 0o700) }), unix.ENOTEMPTY},
		{"moved away", and(func(dir string) error { return os.Rename(dir, dir+"-moved") }), unix.ENOENT},
		{"with a file in its place", and(func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) }), unix.ENOTDIR},
		{"with a link in its place", and(func(dir string) error { return errors.Join(os.Rename(dir, dir+"-moved"), os.Symlink("b-moved", dir)) }), unix.ELOOP},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree, root := newTree(t)
			must(t, test.do(tree, root))
			later, err := Open(root) // as a start after a crash
			must(t, err)
			defer later.Close()
			if err := later.RemoveDir("a/b"); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if isThere := exists(t, filepath.Join(root, "a/b")); isThere != (test.want != nil && test.want != unix.ENOENT) {
				t.Errorf("after %v it is there: %t", test.want, isThere)
			}
			if !exists(t, filepath.Join(root, "a")) {
				t.Error("the directory above it is gone")
			}
		})
	}
}

// A directory that is held, and was removed, is let go by Forget.
func TestForget(t *testing.T) {
	tree, _ := newTree(t)
	must(t, tree.MkdirAll("a", 0o700))
	must(t, create(t, tree, "a/x"))
	tree.Release()
	tree.Forget("a")
	tree.Forget("b")
	if held := tree.(*osRoot).held; held["a"] != nil || len(held) > 0 {
		t.Errorf("held are %v", held)
	}
}
