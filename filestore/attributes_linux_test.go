package filestore

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/internal/isolate"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/locktest"
)

// TestWithoutAttributes has a store on a file system that marks nothing: it is a store like
// any other, also after a kill, and its directories stay, for nobody can tell who made them.
func TestWithoutAttributes(t *testing.T) {
	if !isolate.Enter(t, unix.CLONE_NEWNS) {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	memory := t.TempDir()
	if err := unix.Mount("ramfs", memory, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(memory, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Setxattr(memory, "user.x", []byte("y"), 0); err != unix.EOPNOTSUPP {
		t.Fatalf("ramfs: got %v for an attribute, want %v", err, unix.EOPNOTSUPP)
	}
	roots := 0
	newRoot := func() string {
		roots++
		return filepath.Join(memory, fmt.Sprint("root", roots))
	}
	t.Run("store", func(t *testing.T) {
		locktest.Test(t, func(t *testing.T) lock.Store {
			s, err := Open(t.Context(), Config{Root: newRoot(), PollInterval: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
	t.Run("kill", func(t *testing.T) {
		root := newRoot()
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		d := openDisk(t, root)
		killed := mustOpenOn(t, d)
		held := mustCommit(t, killed, locked(lock.Lock{Name: lock.MustParseName("held/x")}, "alice", `{}`))[0].Lock
		lockAndUnlock(t, killed, []string{"job/1/x", "job/2/x"})
		d.kill()
		_ = killed.Close()
		s, err := Open(t.Context(), Config{Root: root, emptyFor: time.Millisecond, PollInterval: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if l := present(t.Context(), t, s, held.Name); l.Token != held.Token || l.Holder != "alice" {
			t.Errorf("after a kill: got %+v, want %+v", l, held)
		}
		mustCommit(t, s, unlocked(held))
		for range 20 { // of polls, in which they could go
			lockAndUnlock(t, s, []string{"another/x"})
		}
		if got := directoriesOf(t, root); len(got) != 5 {
			t.Errorf("there are %q, want all that were made", got)
		}
	})
}
