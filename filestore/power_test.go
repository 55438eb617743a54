package filestore

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

var (
	powerCuts = flag.Int("powercuts", 100, "how many power cuts to simulate")
	powerSeed = flag.Uint64("powerseed", 0, "of the first power cut; 0: another at each run")
)

// TestPowerCuts cuts the power at random moments of a store at work, restarts in
// what may be left, sometimes with another crash in the middle, and holds the store
// to every answer that it gave.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	first := *powerSeed
	if first == 0 {
		first = rand.Uint64()
	}
	cuts := 0
	for seed := first; seed != first+uint64(*powerCuts); seed++ {
		found, cut := runPowerCut(t, seed, "")
		if len(found) > 0 {
			t.Errorf("-powerseed=%d -powercuts=1:\n\t%s", seed, strings.Join(found, "\n\t"))
		}
		if cut {
			cuts++
		}
		if t.Failed() && len(found) > 20 {
			break
		}
	}
	if cuts < *powerCuts/2 {
		t.Errorf("in %d of %d runs the power was cut during the work; the test wants more", cuts, *powerCuts)
	}
}

// TestPowerCutsOnLyingDisk is the proof that TestPowerCuts would notice: on a disk
// that only says that it has synced, answers must turn out to be wrong.
func TestPowerCutsOnLyingDisk(t *testing.T) {
	for _, lying := range []string{"datasync", "syncfs"} {
		t.Run(lying, func(t *testing.T) {
			t.Parallel()
			const most = 200
			for seed := range uint64(most) {
				found, _ := runPowerCut(t, seed, lying)
				for _, what := range found {
					if strings.Contains(what, "want one of") {
						t.Logf("found after %d power cuts: %s", seed+1, what)
						return
					}
				}
			}
			t.Errorf("%d power cuts on a disk that does not sync, and no answer was wrong", most)
		})
	}
}

// runPowerCut runs one power cut and returns what is wrong afterwards.
func runPowerCut(t *testing.T, seed uint64, lying string) (found []string, cut bool) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	root, err := os.MkdirTemp(t.TempDir(), "root-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	d := openDisk(t, root).withPower(t)
	d.mount, d.lying = "mount 0", lying
	b := newLedger()
	if random.IntN(2) == 0 {
		d.history = Retention{Age: 1, Bytes: 1} // as little as possible
		b.pruned = true
	}
	history := d.history
	b.byHand = writeByHand(t, root, random)
	s, err := openOn(t, d)
	if err != nil {
		return []string{fmt.Sprintf("the first start: %v", err)}, false
	}
	for name := range b.byHand {
		l := present(t.Context(), t, s, name)
		if l.Caller != "" {
			found = append(found, fmt.Sprintf("%v, whose file somebody made, is %v", name, stateOf(l)))
		}
		b.possible[name] = []state{stateOf(l)}
	}
	if random.IntN(2) == 0 { // begin with something that was there before a clean stop
		work(t, &world{Store: s, disk: d, ledger: b}, random.Uint64())
		if err := s.Close(); err != nil {
			return []string{fmt.Sprintf("a clean stop: %v", err)}, false
		}
		power := d.power
		d = openDisk(t, root)
		d.mount, d.lying, d.history, d.power = "mount 0", lying, history, power
		if s, err = openOn(t, d); err != nil {
			return []string{fmt.Sprintf("a clean start: %v", err)}, false
		}
	}
	d.arm(d.killAt(1 + random.IntN(300)))
	work(t, &world{Store: s, disk: d, ledger: b}, random.Uint64())
	cut = d.isKilled()
	d.kill()
	_ = s.Close()
	d.cutPower(t, random)

	// The starts after it, until one is not cut short too.
	for mount, crashes := 1, 0; ; crashes++ {
		spare := d.power.spare
		d = openDisk(t, root)
		d.mount, d.lying, d.history = fmt.Sprintf("mount %d", mount), lying, history
		d.power = &power{spare: spare, spares: 1000 * (crashes + 1), files: make(map[uint64]*unsynced)}
		again := crashes < 3 && random.IntN(2) == 0
		if again {
			d.arm(d.killAt(1 + random.IntN(60)))
		}
		s, err = openOn(t, d)
		if err != nil && !d.isKilled() {
			d.FS.Close()
			return []string{fmt.Sprintf("the start on mount %d: %v", mount, err)}, cut
		}
		if !again {
			break
		}
		d.kill()
		if err == nil {
			_ = s.Close()
		} else {
			d.FS.Close()
		}
		if random.IntN(2) == 0 { // else the process alone was killed
			d.cutPower(t, random)
			mount++
		}
	}
	found = append(found, b.violations(t, s)...)
	if err := s.Close(); err != nil {
		found = append(found, fmt.Sprintf("Close: %v", err))
	}
	return found, cut
}

// TestPowerCutInSet cuts the power at every operation of a commit that grants a set, in
// place of holds and where none is, and of one that gives it back: all of it is there
// afterwards, or nothing.
func TestPowerCutInSet(t *testing.T) {
	for _, giveBack := range []bool{false, true} {
		t.Run(map[bool]string{false: "granted", true: "given back"}[giveBack], func(t *testing.T) {
			t.Parallel()
			const cuts = 4 // at each operation
			for at := 1; ; at++ {
				for seed := range uint64(cuts) {
					found, cut := cutInSet(t, rand.New(rand.NewPCG(seed, uint64(at))), at, giveBack)
					if len(found) > 0 {
						t.Errorf("at operation %d, seed %d:\n\t%s", at, seed, strings.Join(found, "\n\t"))
					}
					if !cut {
						return
					}
				}
			}
		})
	}
}

// cutInSet cuts the power at an operation of a commit. It returns what is wrong afterwards,
// and whether the commit has as many operations.
func cutInSet(t *testing.T, random *rand.Rand, at int, giveBack bool) (found []string, cut bool) {
	t.Helper()
	root, err := os.MkdirTemp(t.TempDir(), "root-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	d := openDisk(t, root).withPower(t)
	d.mount = "mount 0"
	s := mustOpenOn(t, d)
	b := newLedger()
	commit := func(changes ...lock.Change) {
		t.Helper()
		if err := b.commit(t, s, d, changes...); err != nil && !d.isKilled() {
			t.Fatal(err)
		}
	}
	set := func() (grants, ends []lock.Change) {
		for _, text := range []string{"a", "a/b", "a/_+1", "new/dir/c", "d", "z"} {
			l := present(t.Context(), t, s, lock.MustParseName(text))
			c := locked(l, "of the set", `{"msg":"taken together"}`)
			c.Lock.Set.Size = 6
			grants, ends = append(grants, c), append(ends, unlocked(l))
		}
		return grants, ends
	}
	commit(locked(lock.Lock{Name: lock.MustParseName("a/b")}, "alice", `{}`))
	commit(locked(lock.Lock{Name: lock.MustParseName("z")}, "bob", `{}`))
	if random.IntN(2) == 0 {
		if _, err := s.makeCheckpoint(true); err != nil {
			t.Fatal(err)
		}
	}
	if giveBack {
		grants, _ := set()
		commit(grants...)
	}
	grants, ends := set()
	d.arm(d.killAt(at))
	if giveBack {
		commit(ends...)
	} else {
		commit(grants...)
	}
	cut = d.isKilled()
	d.kill()
	_ = s.Close()
	d.cutPower(t, random)
	d = openDisk(t, root)
	d.mount = "mount 1"
	s = mustOpenOn(t, d)
	defer s.Close()
	return b.violations(t, s), cut
}

// writeByHand writes some of the lock files of workers before there is a server.
func writeByHand(t *testing.T, root string, random *rand.Rand) map[lock.Name]bool {
	t.Helper()
	written := make(map[lock.Name]bool)
	for worker := range workers {
		for _, name := range namesOf(worker) {
			if random.IntN(3) > 0 {
				continue
			}
			path := filepath.Join(root, fileOf(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, fmt.Appendf(nil, "who: by hand # of %v\n%s", name, []string{"", "lock_caller: unix:mallory\n"}[random.IntN(2)]), 0o644); err != nil {
				t.Fatal(err)
			}
			written[name] = true
		}
	}
	return written
}

const workers = 4

// namesOf returns the locks that a worker changes, and nobody else.
func namesOf(worker int) []lock.Name {
	names := []lock.Name{lock.MustParseName(fmt.Sprintf("a/%d", worker)), lock.MustParseName(fmt.Sprintf("deep/%d/down", worker))}
	for _, member := range []string{"a", "b", "c/_+1"} {
		names = append(names, lock.MustParseName(fmt.Sprintf("set/%d/%s", worker, member)))
	}
	return names
}

// work changes locks from a few goroutines, each with locks of its own, until the
// disk is killed or enough is done.
func work(t *testing.T, w *world, seed uint64) {
	t.Helper()
	var running sync.WaitGroup
	for i := range workers {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		names := namesOf(i)
		running.Go(func() {
			for n := 0; n < 40 && !w.disk.isKilled(); n++ {
				workOnce(t, w, random, names, fmt.Sprintf("%d.%d", i, n))
			}
		})
	}
	running.Wait()
}

func workOnce(t *testing.T, w *world, random *rand.Rand, names []lock.Name, mark string) {
	t.Helper()
	size := random.IntN(300)
	if random.IntN(16) == 0 {
		size *= 50 // several blocks
	}
	data := fmt.Sprintf(`{"mark":%q,"msg":%q}`, mark, strings.Repeat("x", size))
	next := func(name lock.Name) lock.Change {
		l := present(t.Context(), t, w.Store, name)
		switch kind := random.IntN(9); {
		case !l.Held(), kind == 0:
			c := locked(l, "holder "+mark, data)
			c.Lock.Tree, c.Lock.OnExpiry = random.IntN(8) == 0, lock.OnExpiry(random.IntN(8)/7)
			return c
		case kind == 8: // the rest stays
			c := updated(l, l.Data.JSON())
			if c.Lock.Tree = !c.Lock.Tree; l.OnExpiry == lock.Keep {
				c.Lock.Tree, c.Lock.StaleTime, c.Cause = l.Tree, l.AcquireTime.Add(time.Minute), lock.Expired
			}
			return c
		case kind == 6:
			return extended(l, time.Duration(1+random.IntN(3600))*time.Second)
		case kind < 3:
			return updated(l, data)
		}
		return unlocked(l)
	}
	switch random.IntN(12) {
	case 0:
		_, _ = w.makeCheckpoint(random.IntN(3) == 0)
	case 1, 2:
		_ = w.commit(t, next(names[0]), next(names[1]))
	case 3, 4:
		if l := present(t.Context(), t, w.Store, names[0]); l.Held() {
			changes := handOver(l, "next "+mark, data)
			if random.IntN(2) == 0 { // with another lock's change between the two
				changes = slices.Insert(changes, 1, next(names[1]))
			}
			_ = w.commit(t, changes...)
		}
	case 5, 6: // a set, granted or given back
		var changes []lock.Change
		var held []lock.Change
		for _, name := range names {
			if random.IntN(4) == 0 {
				continue
			}
			l := present(t.Context(), t, w.Store, name)
			if l.Held() {
				held = append(held, unlocked(l))
			}
			changes = append(changes, locked(l, "set "+mark, data))
		}
		for i := range changes {
			changes[i].Lock.Set.Size = len(changes)
		}
		if len(held) > 1 && random.IntN(2) == 0 {
			changes = held
		}
		if len(changes) > 1 {
			_ = w.commit(t, changes...)
		}
	default:
		_ = w.commit(t, next(names[random.IntN(len(names))]))
	}
}
