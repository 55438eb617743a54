package filestore

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// edits are ways to overwrite a lock file in place, so that its lock_token is gone.
var edits = map[string]string{
	"a note":      "note: x\n",
	"nothing":     "",
	"broken YAML": "note: [x\n",
	"a comment":   "# hands off\n",
	"a caller":    "lock_caller: unix:mallory\n",
}

// TestEditInPlace overwrites the file of a hold while the store is open, or while it is
// not: the hold goes on over restarts, with its token, holder and lease. What does not go
// on is a file that has taken its place, whatever it says.
func TestEditInPlace(t *testing.T) {
	for name, text := range edits {
		for _, seen := range []bool{true, false} { // by a store that is open
			for _, clean := range []bool{true, false} {
				for _, then := range []string{"", "power cut", "copied", "replaced"} {
					if !seen && then != "" {
						continue
					}
					t.Run(fmt.Sprintf("%s, seen %v, clean stop %v, %s", name, seen, clean, then), func(t *testing.T) {
						t.Parallel()
						testEditInPlace(t, text, seen, clean, then)
					})
				}
			}
		}
	}
}

func testEditInPlace(t *testing.T, text string, seen, clean bool, then string) {
	p := newServed(t)
	s := p.mustOpen(t)
	x := lock.MustParseName("deep/x")
	grant := locked(lock.Lock{Name: x}, "alice", `{"msg":"mine"}`)
	grant.Lock.TTL, grant.Lock.ExpireTime, grant.Lock.RequestID = time.Hour, time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond), "r"
	events, err := s.Commit(t.Context(), []lock.Change{grant})
	if err != nil {
		t.Fatal(err)
	}
	want := events[0].Lock
	longer := lock.Change{Type: lock.Extended, Cause: lock.Request, Prev: want.Revision, Lock: want}
	longer.Lock.ExpireTime = want.ExpireTime.Add(time.Hour)
	file := filepath.Join(p.root, fileOf(x))
	overwrite := func() {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if seen {
		overwrite()
		if err := s.inspect([]lock.Name{x}); err != nil {
			t.Fatal(err)
		}
	}
	longer.Prev = present(t.Context(), t, s, x).Revision
	if _, err := s.Commit(t.Context(), []lock.Change{longer}); err != nil {
		t.Fatal(err)
	}
	p.end(t, s, clean)
	if !seen {
		overwrite()
	}
	sameHold := then != "replaced"
	switch then {
	case "copied":
		copyTree(t, p.root, p.root+".copy")
		mustRemoveAll(t, p.root)
		if err := os.Rename(p.root+".copy", p.root); err != nil {
			t.Fatal(err)
		}
	case "replaced":
		if err := os.WriteFile(file+"~", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+"~", file); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		p.disk = openDisk(t, p.root)
		if then == "power cut" {
			p.disk.mount = fmt.Sprint("mount ", round)
		}
		s, err := open(t.Context(), p.config(), p.disk.root, p.disk)
		if err != nil {
			t.Fatal(err)
		}
		got := present(t.Context(), t, s, x)
		isSame := got.Token == want.Token && got.Holder == "alice" && got.Caller == "unix:alice" && got.RequestID == "r" && got.TTL == time.Hour && got.ExpireTime.Equal(longer.Lock.ExpireTime)
		if isSame != sameHold || !got.Held() || got.Data == want.Data {
			t.Errorf("round %d: got %+v; want the same hold: %v, with other data", round, got, sameHold)
		}
		if now, err := os.ReadFile(file); err != nil || string(now) != text {
			t.Errorf("round %d: the file says %q (%v)", round, now, err)
		}
		p.end(t, s, clean)
	}
}

// TestEditInHiddenDirectory starts where the directory of an edited file cannot be read:
// the hold goes on, also when it can be read again.
func TestEditInHiddenDirectory(t *testing.T) {
	for name, text := range edits {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, clean stop %v", name, clean), func(t *testing.T) {
				p := newServed(t)
				s := p.mustOpen(t)
				want := hold(t, s, "deep/x")
				file := filepath.Join(p.root, fileOf(want.Name))
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := s.inspect([]lock.Name{want.Name}); err != nil {
					t.Fatal(err)
				}
				p.end(t, s, clean)
				for range 2 {
					p.disk = openDisk(t, p.root)
					p.disk.arm(func(_ int, op, name string) error {
						if strings.HasPrefix(name, "deep") {
							return fs.ErrPermission
						}
						return nil
					})
					s, err := open(t.Context(), p.config(), p.disk.root, p.disk)
					if err != nil {
						t.Fatal(err)
					}
					wantSame := func(what string) {
						t.Helper()
						if got := present(t.Context(), t, s, want.Name); got.Token != want.Token || got.Holder != want.Holder {
							t.Errorf("%s: got %+v, want the same hold as %+v", what, got, want)
						}
					}
					wantSame("hidden")
					p.disk.arm(nil)
					if err := s.inspect([]lock.Name{want.Name}); err != nil {
						t.Fatal(err)
					}
					wantSame("visible again")
					p.end(t, s, clean)
				}
			})
		}
	}
}

// TestOlderThanHistory holds locks for longer than the history is kept: they are known
// after a restart, from the snapshot. A copy of a lock file from then, which is put back,
// is somebody's new file.
func TestOlderThanHistory(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean stop %v", clean), func(t *testing.T) {
			p := newServed(t)
			config := p.config()
			config.History = Retention{Age: time.Hour, Bytes: 16 << 10}
			open := func() *Store {
				t.Helper()
				p.disk = openDisk(t, p.root)
				s, err := open(t.Context(), config, p.disk.root, p.disk)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			put(t, p.root, "hand", []byte("msg: by hand\n"), 0)
			s := open()
			want := []lock.Lock{hold(t, s, "held"), hold(t, s, "edited"), present(t.Context(), t, s, lock.MustParseName("hand"))}
			put(t, p.root, "edited", []byte("note: x\n"), 0)
			if err := s.inspect([]lock.Name{want[1].Name}); err != nil {
				t.Fatal(err)
			}
			released := hold(t, s, "released")
			copied := readFile(t, p.root, "released")
			if _, err := s.Commit(t.Context(), []lock.Change{unlocked(released)}); err != nil {
				t.Fatal(err)
			}
			for s.journal.Kept() <= released.Revision+1 {
				highest := grant(t, s, "x", 50)
				if _, err := s.makeCheckpoint(false); err != nil {
					t.Fatal(err)
				}
				if highest > 100_000 {
					t.Fatal("the journal is not pruned")
				}
			}
			highest := grant(t, s, "x", 1)
			p.end(t, s, clean)
			put(t, p.root, "released", copied, -time.Hour)
			for range 2 {
				s = open()
				for _, w := range want {
					if got := present(t.Context(), t, s, w.Name); got.Token != w.Token || got.Holder != w.Holder {
						t.Errorf("%v is %+v, want the same hold as %+v", w.Name, got, w)
					}
				}
				back := present(t.Context(), t, s, released.Name)
				if back.Token <= highest || back.Holder != "" || back.Caller != "" || back.RequestID != "" {
					t.Errorf("the copy is %+v, want an anonymous hold with a token above %d", back, highest)
				}
				p.end(t, s, clean)
			}
			if err := os.Remove(filepath.Join(p.root, snapshotFile)); err != nil {
				t.Fatal(err)
			}
			p.wantRefused(t, snapshotFile, "backup")
		})
	}
}
