package filestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pylok/pylok/lock"
)

// healthTold notes what Config.Health is told.
type healthTold struct {
	mu   sync.Mutex
	told []error
}

func (h *healthTold) tell(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, err)
}

// last returns what was told last, and how often anything was.
func (h *healthTold) last() (err error, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.told) == 0 {
		return nil, 0
	}
	return h.told[len(h.told)-1], len(h.told)
}

// openHealthy opens a store in a new root that holds a and b, and watches its health.
func openHealthy(t *testing.T) (*world, *healthTold) {
	t.Helper()
	h := new(healthTold)
	d := openDisk(t, t.TempDir())
	config := Config{Root: d.root, NoNotify: true, Health: h.tell, journal: d.journal}.withDefaults()
	s, err := open(t.Context(), config, d.root, d)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Store: s, disk: d, ledger: newLedger()}
	w.mustCommit(t, locked(w.get(t, "a"), "alice", `{"n":1}`))
	w.mustCommit(t, locked(w.get(t, "b"), "bob", `{"n":2}`))
	return w, h
}

// reopen checks the root as the next start finds it.
func (w *world) reopen(t *testing.T) {
	t.Helper()
	_ = w.Close()
	s := mustOpenOn(t, openDisk(t, w.disk.root))
	w.ledger.check(t, "after a restart", s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// fails makes all operations of some kinds fail.
func fails(err error, kinds ...string) func(int, string, string) error {
	return func(_ int, op, _ string) error {
		for _, kind := range kinds {
			if op == kind {
				return err
			}
		}
		return nil
	}
}

// TestFullDisk: on a full disk nothing is locked, whatever is held can be released,
// and with room again all is as before.
func TestFullDisk(t *testing.T) {
	w, h := openHealthy(t)
	for n := range 40 {
		w.mustCommit(t, locked(w.get(t, fmt.Sprintf("many/%d", n)), "carol", `{"msg":"held when the disk fills up"}`))
	}
	w.disk.arm(fails(syscall.ENOSPC, "create", "allocate", "mkdir"))
	for _, change := range []lock.Change{locked(w.get(t, "new"), "carol", `{}`), locked(w.get(t, "a"), "carol", `{}`), updated(w.get(t, "b"), `{"n":3}`)} {
		if err := w.commit(t, change); !errors.Is(err, lock.ErrReadOnly) {
			t.Errorf("%v %v on a full disk: got error %v, want ErrReadOnly", change.Type, change.Lock.Name, err)
		}
	}
	if err, n := h.last(); !errors.Is(err, syscall.ENOSPC) || n != 1 {
		t.Errorf("health was told %d times, at last %v; want ENOSPC once", n, err)
	}
	released := 0
	for n := range 40 {
		err := w.commit(t, unlocked(w.get(t, fmt.Sprintf("many/%d", n))))
		if err == nil {
			released++
		} else if !errors.Is(err, lock.ErrReadOnly) {
			t.Fatalf("a release on a full disk: %v", err)
		}
	}
	// The reserve of this test's journal is 512 bytes; that of a server 256 KiB.
	if released < 2 {
		t.Errorf("%d locks could be released on a full disk", released)
	}
	if l := w.get(t, "a"); l.Holder != "alice" || l.Data != mustData(t, `{"n":1}`) {
		t.Errorf("a is %+v after what was refused", l)
	}
	w.disk.arm(nil)
	w.mustCommit(t, locked(w.get(t, "new"), "carol", `{}`))
	if err, n := h.last(); err != nil || n != 2 {
		t.Errorf("with room again health was told %d times, at last %v; want two, and nil", n, err)
	}
	w.reopen(t)
}

// TestFailedSync: after a sync that failed nothing is written any more, what is
// known stays readable, and the next start finds a possible state.
func TestFailedSync(t *testing.T) {
	w, h := openHealthy(t)
	w.disk.arm(fails(syscall.EIO, "datasync"))
	if err := w.commit(t, locked(w.get(t, "new"), "carol", `{"n":1}`), unlocked(w.get(t, "a"))); !errors.Is(err, lock.ErrOutcomeUnknown) {
		t.Errorf("a commit whose sync fails: got error %v, want ErrOutcomeUnknown", err)
	}
	if err, n := h.last(); !errors.Is(err, syscall.EIO) || n != 1 {
		t.Errorf("health was told %d times, at last %v; want EIO once", n, err)
	}
	w.disk.arm(func(_ int, op, name string) error { // the disk seems well again
		switch op {
		case "create", "write", "link", "rename", "remove", "truncate", "allocate", "datasync":
			t.Errorf("%s of %s after a sync that failed", op, name)
		}
		return nil
	})
	for _, change := range []lock.Change{locked(lock.Lock{Name: lock.MustParseName("other")}, "carol", `{}`), unlocked(w.get(t, "b")), updated(w.get(t, "b"), `{}`), extended(w.get(t, "b"), 1)} {
		if err := w.commit(t, change); !errors.Is(err, lock.ErrReadOnly) {
			t.Errorf("%v %v after a failed sync: got error %v, want ErrReadOnly", change.Type, change.Lock.Name, err)
		}
	}
	if l := w.get(t, "b"); l.Holder != "bob" {
		t.Errorf("b is %+v, want it as it was", l)
	}
	if l := w.get(t, "new"); l.Held() {
		t.Errorf("new is %+v; readers see what was not made durable", l)
	}
	w.reopen(t)
}

// TestOutsideChangeOnFullDisk: when somebody removed a lock's file and that cannot
// be written down, nobody is told to try again at once for ever.
func TestOutsideChangeOnFullDisk(t *testing.T) {
	w, _ := openHealthy(t)
	if err := os.Remove(filepath.Join(w.Root(), "a.lock")); err != nil {
		t.Fatal(err)
	}
	w.disk.arm(fails(syscall.ENOSPC, "write", "create", "allocate"))
	err := w.commit(t, updated(w.get(t, "a"), `{"n":9}`))
	if errors.Is(err, lock.ErrConflict) && w.get(t, "a").Held() || err == nil {
		t.Errorf("got error %v, and Get does not show what stood in the way", err)
	}
	w.disk.arm(nil)
	if err := w.commit(t, updated(w.get(t, "a"), `{"n":9}`)); !errors.Is(err, lock.ErrConflict) {
		t.Errorf("with room again: got error %v, want ErrConflict", err)
	}
	if w.get(t, "a").Held() {
		t.Error("with room again a is still held")
	}
	w.ledger.possible[lock.MustParseName("a")] = []state{{}}
	w.reopen(t)
}

// A full store takes as many locks as it lets go, hands over what it has, and says how
// many it has.
func TestMaxLocksInOneBatch(t *testing.T) {
	d := openDisk(t, t.TempDir())
	s, err := open(t.Context(), Config{Root: d.root, NoNotify: true, MaxLocks: 4}.withDefaults(), d.root, d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := func(n int) lock.Lock { return lock.Lock{Name: lock.MustParseName(fmt.Sprint("lock-", n))} }
	for n := range 2 {
		mustCommit(t, s, locked(name(n), "", `{}`))
	}
	hold := present(t.Context(), t, s, name(0).Name)
	mustCommit(t, s, unlocked(hold), locked(name(2), "", `{}`), locked(name(3), "", `{}`))
	_, err = s.Commit(t.Context(), []lock.Change{locked(name(4), "", `{}`), locked(name(5), "", `{}`)})
	if !errors.Is(err, lock.ErrTooManyLocks) || !strings.Contains(err.Error(), "3 locks are held, the most that this server allows is 4") {
		t.Errorf("the fifth of 4 locks: %v, want %v with the number", err, lock.ErrTooManyLocks)
	}
	mustCommit(t, s, locked(name(4), "", `{}`))
	mustCommit(t, s, handOver(present(t.Context(), t, s, name(4).Name), "next", `{}`)...)
}
