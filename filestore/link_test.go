package filestore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

// TestOneFileIsOneLock: a symbolic link to a directory gives no file a second name.
func TestOneFileIsOneLock(t *testing.T) {
	s, _ := openHooked(t, Config{Root: t.TempDir()})
	mustCommit(t, s, locked(lock.Lock{Name: lock.MustParseName("real/x")}, "alice", `{}`))
	if err := os.Symlink("real", filepath.Join(s.Root(), "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link/x", "link/y", "link/below/y"} {
		err := mustFail(t, s, locked(lock.Lock{Name: lock.MustParseName(name)}, "bob", `{}`))
		if !errors.Is(err, lock.ErrInvalidName) || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("locking %s: got %v, want %v that tells of the link", name, err, lock.ErrInvalidName)
		}
	}
	if _, err := os.Lstat(filepath.Join(s.Root(), "real/y.lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made through the link: %v", err)
	}

	// Nor does one that takes the place of the directory.
	if err := errors.Join(
		os.Rename(filepath.Join(s.Root(), "real"), filepath.Join(s.Root(), "moved")),
		os.Symlink("moved", filepath.Join(s.Root(), "real")),
	); err != nil {
		t.Fatal(err)
	}
	await(t, s, "real/x", func(l lock.Lock) bool { return !l.Held() })
	await(t, s, "moved/x", lock.Lock.Held)
}
