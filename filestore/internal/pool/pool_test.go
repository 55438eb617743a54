package pool

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/internal/isolate"
)

// newPool returns a pool in a new directory, and that directory.
func newPool(t *testing.T, rest int) (*Pool, disk.FS, string) {
	t.Helper()
	root := isolate.AttributesDir(t)
	if err := os.Mkdir(filepath.Join(root, "own"), 0o700); err != nil {
		t.Fatal(err)
	}
	fsys, err := disk.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fsys.Close(); err != nil {
			t.Error(err)
		}
	})
	return New(fsys, Config{Dir: "own", Rest: rest}), fsys, root
}

// take takes a file and checks what it says.
func take(t *testing.T, p *Pool, root, text string, settled uint64) (name string, stat disk.Stat) {
	t.Helper()
	name, stat, err := p.Take([]byte(text), settled)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != text {
		t.Errorf("the file says %q (%v), want %q", got, err, text)
	}
	if stat.Size != int64(len(text)) || stat.Links != 1 {
		t.Errorf("the file has %d bytes and %d names, want %d and 1", stat.Size, stat.Links, len(text))
	}
	return name, stat
}

func giveBack(t *testing.T, p *Pool, name string, since uint64) {
	t.Helper()
	if !p.Return(name, since) {
		t.Fatal("there is no room for the file")
	}
}

// left returns how many files there are.
func left(t *testing.T, root string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "own"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A file is handed out again once so many others have been returned, the longest returned
// first, and nothing is left of what it said.
func TestTakeAgain(t *testing.T) {
	const rest = 3
	p, _, root := newPool(t, rest)
	var inodes []uint64
	for i := range 20 {
		name, stat := take(t, p, root, fmt.Sprintf("text %d%*s\n", i, i%7, ""), uint64(i))
		inodes = append(inodes, stat.Inode)
		giveBack(t, p, name, uint64(i))
	}
	for i := rest + 1; i < len(inodes); i++ {
		if inodes[i] != inodes[i-rest-1] {
			t.Errorf("file %d is inode %d, want %d", i, inodes[i], inodes[i-rest-1])
		}
	}
	if got := left(t, root); got != rest+1 {
		t.Errorf("%d files stand by, want %d", got, rest+1)
	}
	if err := p.Clear(); err != nil || left(t, root) != 0 {
		t.Errorf("Clear leaves %d files (%v)", left(t, root), err)
	}
}

// What a file was returned for has to be settled.
func TestTakeWaitsUntilSettled(t *testing.T) {
	p, _, root := newPool(t, 1)
	first, _ := take(t, p, root, "a", 0)
	second, _ := take(t, p, root, "b", 0)
	giveBack(t, p, first, 7)
	giveBack(t, p, second, 8)
	if name, _ := take(t, p, root, "c", 6); name == first || name == second {
		t.Errorf("%s is handed out before 7 is settled", name)
	}
	if name, _ := take(t, p, root, "d", 7); name != first {
		t.Errorf("got %s once 7 is settled, want %s", name, first)
	}
}

// A file that somebody else has a part in is not handed out again, and goes.
func TestTakeLeavesOthersAlone(t *testing.T) {
	for what, do := range map[string]func(t *testing.T, file string){
		"another name": func(t *testing.T, file string) {
			if err := os.Link(file, filepath.Join(t.TempDir(), "link")); err != nil {
				t.Fatal(err)
			}
		},
		"open": func(t *testing.T, file string) {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		},
		"another mode": func(t *testing.T, file string) {
			if err := os.Chmod(file, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"an attribute": func(t *testing.T, file string) {
			if err := unix.Setxattr(file, "user.note", []byte("mine"), 0); err != nil {
				t.Fatal(err)
			}
		},
		"large": func(t *testing.T, file string) {
			if err := os.WriteFile(file, make([]byte, mostBytes+1), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func(t *testing.T, file string) {
			if err := os.Rename(file, file+"~"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("x", file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			p, _, root := newPool(t, 1)
			first, _ := take(t, p, root, "a", 0)
			second, _ := take(t, p, root, "b", 0)
			giveBack(t, p, first, 0)
			giveBack(t, p, second, 0)
			do(t, filepath.Join(root, first))
			if name, _ := take(t, p, root, "c", 0); name == first || name == second {
				t.Errorf("got %s, want a new file", name)
			}
			if _, err := os.Lstat(filepath.Join(root, first)); err == nil {
				t.Error("the file is still there")
			}
		})
	}
}

// A file that was made is marked, written again or not; a copy is not.
func TestMade(t *testing.T) {
	p, fsys, root := newPool(t, 1)
	isMade := func(name string) bool {
		f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		stat, err := f.Stat()
		return err == nil && f.IsMade(stat)
	}
	first, _ := take(t, p, root, "a", 0)
	if !isMade(first) {
		t.Fatal("a new file is not marked")
	}
	second, _ := take(t, p, root, "b", 0)
	giveBack(t, p, first, 0)
	giveBack(t, p, second, 0)
	if name, _ := take(t, p, root, "c", 0); name != first || !isMade(name) {
		t.Errorf("got %s, marked: %v; want %s, marked", name, isMade(name), first)
	}
	value := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(root, first), "user.pylok.made", value)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(root, "own/copy")
	if err := os.WriteFile(copied, []byte("c"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(copied, "user.pylok.made", value[:n], 0); err != nil {
		t.Fatal(err)
	}
	if isMade("own/copy") {
		t.Error("a copy with all attributes counts as made")
	}
}
