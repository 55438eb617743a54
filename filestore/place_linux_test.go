package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// asOther, in the environment, is the root that TestOneFileFailsForReal serves as
// another user.
const asOther = "PYLOK_TEST_OTHER_USER"

// nobody is the user and group of who may not do everything.
const nobody = 65534

// TestOneFileFailsForReal makes lock files that the server's user cannot change, as real
// file systems have them. Each answers so and stays held; all others work; a restart goes on.
func TestOneFileFailsForReal(t *testing.T) {
	if root := os.Getenv(asOther); root != "" {
		serveAsOther(t, root)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user, immutable ones and mounts; TestOneFileFails is for everybody")
	}
	root, err := os.MkdirTemp("", "pylok-files-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	if err := errors.Join(os.Chown(root, nobody, nobody), os.Chmod(root, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"sticky", "closed", "mount"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", filepath.Join(root, "mount"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(root, "mount"), unix.MNT_DETACH)
	if err := errors.Join(os.Chmod(filepath.Join(root, "sticky"), os.ModeSticky|0o777), os.Chmod(filepath.Join(root, "mount"), 0o777)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "hidden"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"sticky/s", "closed/c", "mount/m", "immutable"} {
		name := filepath.Join(root, file+".lock")
		if err := os.WriteFile(name, []byte("expire: '2020-01-01 00:00:00'\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	immutable := filepath.Join(root, "immutable.lock")
	if err := os.Chown(immutable, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chattr", "+i", immutable).CombinedOutput(); err != nil {
		t.Fatalf("chattr: %v: %s", err, out)
	}
	defer exec.Command("chattr", "-i", immutable).Run()

	test := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^TestOneFileFailsForReal$", "-test.v")
	test.Dir = "/"
	test.Env = append(os.Environ(), asOther+"="+root)
	test.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := test.CombinedOutput(); err != nil {
		t.Errorf("as another user: %v\n%s", err, out)
	}
}

// serveAsOther is TestOneFileFailsForReal in the other user's process.
func serveAsOther(t *testing.T, root string) {
	config := Config{Root: root, NoNotify: true, Health: func(err error) {
		if err != nil {
			t.Errorf("health: %v", err)
		}
	}}
	stuck := []string{"sticky/s", "closed/c", "mount/m", "immutable"}
	tokens := make(map[string]lock.Token)
	for start := range 2 {
		s, err := Open(t.Context(), config)
		if err != nil {
			t.Fatalf("start %d: %v", start, err)
		}
		for _, text := range stuck {
			name := lock.MustParseName(text)
			l := present(t.Context(), t, s, name)
			if !l.Held() || tokens[text] != 0 && l.Token != tokens[text] {
				t.Errorf("start %d: %s is %+v, want the hold with token %d", start, text, l, tokens[text])
				continue
			}
			tokens[text] = l.Token
			for what, change := range map[string]lock.Change{"unlock": unlocked(l), "update": updated(l, `{"a":1}`)} {
				if _, err := s.Commit(t.Context(), []lock.Change{change}); !errors.Is(err, lock.ErrLockFile) {
					t.Errorf("start %d: %s of %s: %v, want %v", start, what, text, err, lock.ErrLockFile)
				} else if start == 0 {
					t.Logf("%s: %v", what, err)
				}
				if got := settled(t, s, name); got != l {
					t.Errorf("start %d: after %s %s is %+v, want %+v", start, what, text, got, l)
				}
			}
		}
		for _, text := range []string{"closed/new", "mount/new"} {
			_, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName(text)}, "bob", `{}`)})
			if !errors.Is(err, lock.ErrLockFile) {
				t.Errorf("start %d: lock of %s: %v, want %v", start, text, err, lock.ErrLockFile)
			} else if start == 0 {
				t.Logf("lock: %v", err)
			}
		}
		// The expiry of such a file is tried, and tried again, and stops nobody.
		m, err := manager.New(s, manager.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			name := lock.MustParseName(fmt.Sprintf("good/%d", i))
			g, err := m.Lock(context.Background(), lock.Caller{}, lock.LockRequest{Name: name, Holder: "bob"})
			if err != nil {
				t.Fatalf("start %d: %v", start, err)
			}
			if _, err := m.Unlock(context.Background(), lock.Caller{}, lock.UnlockRequest{Name: name, Token: g.Lock.Token}); err != nil {
				t.Fatalf("start %d: %v", start, err)
			}
		}
		for _, text := range stuck {
			if l := present(t.Context(), t, s, lock.MustParseName(text)); l.Token != tokens[text] {
				t.Errorf("start %d: %s is %+v, want the hold with token %d", start, text, l, tokens[text])
			}
		}
		m.Close()
		if err := s.Close(); err != nil {
			t.Fatalf("stop %d: %v", start, err)
		}
		var findings []string
		if err := Check(t.Context(), Config{Root: root}, func(finding string) { findings = append(findings, finding) }); err != nil {
			t.Fatal(err)
		}
		if len(findings) != 1 || !strings.Contains(findings[0], "the directory hidden cannot be read") {
			t.Errorf("start %d: Check finds %q, want the directory that cannot be read", start, findings)
		}
	}
}
