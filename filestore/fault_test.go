package filestore

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

var allFaults = flag.Bool("allfaults", false, "fail each operation in each way, not in one of them")

// faultCase is work during which the disk fails.
type faultCase struct {
	name string
	// work is done while the disk fails, in a store that holds a, b and c since
	// the last checkpoint and d after it.
	work func(t *testing.T, w *world)
	// opening: the disk fails from the opening of the store on.
	opening bool
}

// world is a store in a test, with its disk and what is known of it.
type world struct {
	*Store
	disk   *testDisk
	ledger *ledger
}

func (w *world) get(t *testing.T, name string) lock.Lock {
	t.Helper()
	return present(t.Context(), t, w.Store, lock.MustParseName(name))
}

func (w *world) commit(t *testing.T, changes ...lock.Change) error {
	t.Helper()
	return w.ledger.commit(t, w.Store, w.disk, changes...)
}

func (w *world) mustCommit(t *testing.T, changes ...lock.Change) {
	t.Helper()
	if err := w.commit(t, changes...); err != nil {
		t.Fatal(err)
	}
}

var faultCases = []faultCase{
	{name: "open", opening: true, work: func(*testing.T, *world) {}},
	{name: "lock", work: func(t *testing.T, w *world) {
		_ = w.commit(t, locked(w.get(t, "deep/down/x"), "xen", `{"msg":"new"}`))
		_ = w.commit(t, locked(w.get(t, "y"), "yan", `{}`))
	}},
	{name: "replace", work: func(t *testing.T, w *world) {
		_ = w.commit(t, locked(w.get(t, "a"), "anna", `{"msg":"replaced"}`))
		_ = w.commit(t, locked(w.get(t, "d"), "dora", `{"msg":"replaced"}`))
	}},
	{name: "update", work: func(t *testing.T, w *world) {
		_ = w.commit(t, updated(w.get(t, "a"), `{"msg":"updated"}`))
		_ = w.commit(t, updated(w.get(t, "d"), `{"msg":"updated"}`))
	}},
	{name: "extend", work: func(t *testing.T, w *world) {
		_ = w.commit(t, extended(w.get(t, "a"), time.Hour))
		_ = w.commit(t, extended(w.get(t, "d"), time.Hour))
	}},
	{name: "unlock", work: func(t *testing.T, w *world) {
		_ = w.commit(t, unlocked(w.get(t, "a")))
		_ = w.commit(t, unlocked(w.get(t, "d")))
	}},
	{name: "two locks", work: func(t *testing.T, w *world) {
		_ = w.commit(t, locked(w.get(t, "x"), "xen", `{"n":1}`), locked(w.get(t, "y"), "xen", `{"n":2}`))
		_ = w.commit(t, locked(w.get(t, "a"), "xen", `{"n":3}`), unlocked(w.get(t, "b")), updated(w.get(t, "d"), `{"n":4}`))
	}},
	{name: "hand over", work: func(t *testing.T, w *world) {
		_ = w.commit(t, handOver(w.get(t, "a"), "anna", `{"msg":"handed over"}`)...)
		_ = w.commit(t, handOver(w.get(t, "d"), "dora", `{"msg":"handed over"}`)...)
	}},
	{name: "hand over two locks, and more", work: func(t *testing.T, w *world) {
		a, d := handOver(w.get(t, "a"), "xen", `{"n":1}`), handOver(w.get(t, "d"), "xen", `{"n":2}`)
		_ = w.commit(t, a[0], d[0], unlocked(w.get(t, "b")), d[1], locked(w.get(t, "x"), "xen", `{"n":3}`), a[1])
	}},
	{name: "two locks, one of them taken", work: func(t *testing.T, w *world) {
		const text = "msg: mine\n"
		if err := os.WriteFile(filepath.Join(w.Root(), "taken.lock"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		taken := lock.MustParseName("taken")
		w.ledger.outside[taken] = text
		_ = w.commit(t, locked(w.get(t, "x"), "xen", `{"n":1}`), locked(lock.Lock{Name: taken}, "xen", `{"n":2}`))
		// It is another's, whatever became of us.
		w.ledger.possible[taken] = []state{{data: mustData(t, `{"msg":"mine"}`), token: anyToken}}
	}},
	{name: "a set", work: func(t *testing.T, w *world) {
		var grants, ends []lock.Change
		for _, name := range []string{"a", "d", "deep/er/x", "y", "y/_+1"} {
			c := locked(w.get(t, name), "the set", `{"n":1}`)
			c.Lock.Set.Size = 5
			grants = append(grants, c)
		}
		_ = w.commit(t, grants...)
		for _, c := range grants {
			if l := w.get(t, c.Lock.Name.String()); l.Held() {
				ends = append(ends, unlocked(l))
			}
		}
		_ = w.commit(t, ends...)
	}},
	{name: "a freeze, and a hold becomes stale", work: func(t *testing.T, w *world) {
		freeze := locked(w.get(t, "x"), "xen", `{}`)
		freeze.Lock.Tree = true
		_ = w.commit(t, freeze)
		if l := w.get(t, "x"); l.Held() {
			thaw := updated(l, `{}`)
			thaw.Lock.Tree = false
			_ = w.commit(t, thaw)
		}
		stale := updated(w.get(t, "d"), `{"msg":"recent"}`)
		stale.Lock.StaleTime = stale.Lock.AcquireTime.Add(time.Minute)
		_ = w.commit(t, stale)
	}},
	{name: "lock and unlock again", work: func(t *testing.T, w *world) {
		for range 3 {
			_ = w.commit(t, locked(w.get(t, "x"), "xen", `{}`))
			if l := w.get(t, "x"); l.Held() {
				_ = w.commit(t, unlocked(l))
			}
		}
	}},
	{name: "close", work: func(t *testing.T, w *world) {
		_ = w.commit(t, unlocked(w.get(t, "b")))
		_ = w.Close()
	}},
}

func mustData(t testing.TB, text string) lock.Data {
	t.Helper()
	data, err := lock.ParseData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// prepare makes the store that a faultCase begins with. It is not closed cleanly
// before an opening that fails.
func prepare(t *testing.T, root string, opening bool) *world {
	t.Helper()
	d := openDisk(t, root)
	w := &world{Store: mustOpenOn(t, d), disk: d, ledger: newLedger()}
	for _, name := range []string{"a", "b", "c"} {
		w.mustCommit(t, locked(w.get(t, name), "holder of "+name, `{"msg":"first","n":1}`))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.disk = openDisk(t, root)
	w.Store = mustOpenOn(t, w.disk)
	w.mustCommit(t, locked(w.get(t, "d"), "holder of d", `{"msg":"recent"}`))
	w.mustCommit(t, locked(w.get(t, "gone"), "nobody", `{"msg":"recent"}`))
	w.mustCommit(t, unlocked(w.get(t, "gone")))
	if opening {
		w.disk.kill()
		_ = w.Close()
		// What a power cut could do, and a start has to mend.
		file := filepath.Join(root, "d.lock")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		w.disk = openDisk(t, root)
		w.disk.mount = "another"
	}
	return w
}

// runFault does a case's work with a fault, and checks the root afterwards. It
// reports whether the fault came about.
func runFault(t *testing.T, c faultCase, what string, fault func(d *testDisk) func(int, string, string) error) bool {
	t.Helper()
	root := t.TempDir()
	w := prepare(t, root, c.opening)
	came := false
	failing := fault(w.disk)
	w.disk.arm(func(n int, op, name string) error {
		err := failing(n, op, name)
		if err != nil && !came {
			came = true
			what = fmt.Sprintf("%s: operation %d, %s of %s: %v", what, n, op, name, err)
		}
		return err
	})
	opened := true
	if c.opening {
		s, err := openOn(t, w.disk)
		if opened = err == nil; opened {
			w.Store = s
		} else {
			w.disk.FS.Close()
		}
	}
	if opened {
		c.work(t, w)
		w.disk.arm(nil)
		_ = w.Close()
	}
	mount := w.disk.mount
	w.disk = openDisk(t, root)
	w.disk.mount = mount
	s, err := openOn(t, w.disk)
	if err != nil {
		t.Errorf("%s: the next start: %v", what, err)
		return came
	}
	w.ledger.check(t, what, s)
	if err := s.Close(); err != nil {
		t.Errorf("%s: Close: %v", what, err)
	}
	return came
}

// TestFaults fails each operation of each case, once and from then on.
func TestFaults(t *testing.T) {
	errnos := []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EMFILE}
	type fault = func(d *testDisk, n int) func(int, string, string) error
	faults := map[string]fault{
		"killed": (*testDisk).killAt,
		"EIO from then on": func(_ *testDisk, n int) func(int, string, string) error {
			return func(now int, _, _ string) error {
				if now >= n {
					return syscall.EIO
				}
				return nil
			}
		},
	}
	if *allFaults {
		for _, errno := range errnos {
			faults[errno.Error()] = func(_ *testDisk, n int) func(int, string, string) error { return failAt(n, errno) }
		}
	} else {
		turn := rand.IntN(len(errnos))
		faults["once"] = func(_ *testDisk, n int) func(int, string, string) error {
			return failAt(n, errnos[(n+turn)%len(errnos)])
		}
	}
	for _, c := range faultCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, fault := range faults {
				t.Run(name, func(t *testing.T) {
					n := 1
					for runFault(t, c, fmt.Sprintf("%s, %s", c.name, name), func(d *testDisk) func(int, string, string) error { return fault(d, n) }) {
						n++
					}
					if n < 4 {
						t.Errorf("there were %d operations to fail; the test wants some", n-1)
					}
				})
			}
		})
	}
}
