package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
)

var cuts = flag.Int("cuts", 30, "how many power cuts to make")

// hurried is pylokd that does all day long what it otherwise does now and then:
// checkpoints, snapshots, and new segments of the journal.
var hurried = &program{name: "pylokd-hurried", race: true, edits: []edit{
	{"filestore/checkpoint.go", "const checkpointEvery = 30 * time.Second", "const checkpointEvery = 20 * time.Millisecond"},
	{"filestore/snapshot.go", "snapshotChanges = 10_000", "snapshotChanges = 20"},
	{"filestore/internal/journal/journal.go", "cmp.Or(config.SegmentBytes, 64<<20)", "cmp.Or(config.SegmentBytes, 128<<10)"},
}}

// The guards, each taken out of a program of its own.
var (
	unsynced = &program{name: "pylokd-unsynced", edits: []edit{
		{"filestore/internal/disk/root.go", "return unix.Fdatasync(f.fd)", "return nil"},
	}}
	unreplayed = &program{name: "pylokd-unreplayed", edits: []edit{
		{"filestore/recover.go", "\tif r.Intact {\n", "\tif r.Intact = true; r.Intact {\n"},
	}}
)

// cutter cuts the power of a daemon under load, again and again.
type cutter struct {
	volume  *volume
	random  *rand.Rand
	root    string
	roots   int
	promise promise
	total   outcome
	started int // cuts during a start
	longest time.Duration
}

func newCutter(t *testing.T) *cutter {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &cutter{volume: newVolume(t), random: rand.New(rand.NewPCG(seed, 0))}
	c.newRoot(t)
	return c
}

// newRoot goes on with an empty root, so that the volume does not become full.
func (c *cutter) newRoot(t *testing.T) {
	if c.root != "" {
		if err := os.RemoveAll(c.root); err != nil {
			t.Fatal(err)
		}
	}
	c.roots++
	c.root = filepath.Join(c.volume.dir, fmt.Sprintf("root-%d", c.roots))
	c.promise = promise{}
}

// again has a daemon serve clients, cuts the power, starts the daemon again, and
// returns what is not as the clients were told. After that the daemon is gone and
// the volume mounted.
func (c *cutter) again(t *testing.T, p *program) (problems []string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	d, err := tryStart(t, p, c.root)
	if err != nil {
		return []string{err.Error()}
	}
	l := startLoad(t, d.address, 8+c.random.IntN(9), c.promise.holds, c.random)
	stopWriting := c.writeBack(l)
	goal := int64(1) << c.random.IntN(11)
	goal += c.random.Int64N(goal)
	l.await(goal, patience)
	// Let the cut come at any point of what the daemon does.
	time.Sleep(time.Duration(c.random.IntN(3000)) * time.Microsecond)
	flags := cutNoFlush
	if dice := c.random.IntN(8); dice < 2 {
		flags = dice // cutFlush, cutLogFlush
	}
	l.dead.Store(true)
	if err := c.volume.cut(flags); err != nil {
		t.Fatal(err)
	}
	if c.random.IntN(2) == 0 {
		d.kill()
	}
	l.stop() // each client ends by itself at the latest at its next operation
	d.kill()
	stopWriting()
	c.remount(t)

	for c.random.IntN(3) == 0 { // the power comes back, and goes again
		c.started++
		d := launch(t, p.path(t), c.root)
		time.Sleep(time.Duration(c.random.IntN(60)) * time.Millisecond)
		if err := c.volume.cut(flags); err != nil {
			t.Fatal(err)
		}
		d.kill()
		c.remount(t)
	}

	predicted, err := c.predict(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	began := time.Now()
	if d, err = tryStart(t, p, c.root); err != nil {
		return []string{err.Error()}
	}
	c.longest = max(c.longest, time.Since(began))
	problems, o, err := c.promise.check(ctx, d, l)
	if err != nil {
		return append(problems, err.Error())
	}
	if _, problem := within(ctx, slack, func() string {
		if o.mended = d.mended(); o.mended != len(predicted) {
			return fmt.Sprintf("Check foretold %d lock files to be mended, and the start mended %d; it foretold:\n%s", len(predicted), o.mended, strings.Join(predicted, "\n"))
		}
		return ""
	}); problem != "" {
		problems = append(problems, problem)
	}
	c.total.add(o)
	if c.random.IntN(2) == 0 {
		d.stop(t)
	}
	d.kill()
	return problems
}

// predict has Check say which lock files the next start will mend.
func (c *cutter) predict(ctx context.Context) (mended []string, err error) {
	err = filestore.Check(ctx, filestore.Config{Root: c.root, StateDir: c.root + ".state"}, func(sentence string) {
		if strings.HasSuffix(sentence, "; it will be removed") || strings.Contains(sentence, "; it will be written again") || strings.Contains(sentence, "; it will be put back") {
			mended = append(mended, sentence)
		}
	})
	return mended, err
}

// remount lets the file system recover.
func (c *cutter) remount(t *testing.T) {
	c.volume.unmount(t)
	c.volume.mount(t, []string{"", "data=writeback", "noauto_da_alloc", "commit=1"}[c.random.IntN(4)])
}

// writeBack makes this and that durable while clients work.
func (c *cutter) writeBack(l *load) (stop func()) {
	random := rand.New(rand.NewPCG(c.random.Uint64(), 0))
	if random.IntN(3) == 0 {
		return func() {}
	}
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stopped:
				return
			case <-time.After(time.Duration(random.IntN(5000)) * time.Microsecond):
			}
			file := filepath.Join(c.root, loadName(random.IntN(loadNames))+".lock")
			c.volume.writeBack(file, random.IntN(4) == 0)
		}
	}()
	return func() {
		close(stopped)
		<-ended
	}
}

// TestPowerCuts cuts the power of a daemon under load and requires that all that
// was acknowledged is there after the next start.
func TestPowerCuts(t *testing.T) {
	c := newCutter(t)
	began := time.Now()
	done := 0
	for i := range *cuts {
		if i%10 == 9 {
			c.newRoot(t)
		}
		ok := t.Run(fmt.Sprintf("cut-%d", i+1), func(t *testing.T) {
			if problems := c.again(t, []*program{delivered, hurried}[i/2%2]); len(problems) > 0 {
				t.Error(cut(problems))
			}
		})
		if !ok {
			break
		}
		done++
	}
	c.volume.unmount(t)
	c.volume.check(t)
	t.Logf("%d cuts and %d more during a start, in %v: %d acknowledged operations, %d in doubt (%d answered after the cut) of which %d had happened, %d lock files mended; the slowest start took %v",
		done, c.started, time.Since(began).Round(time.Second), c.total.acked, c.total.doubt, c.total.late, c.total.happened, c.total.mended, c.longest.Round(time.Millisecond))
}

// TestPowerCutsFindLosses takes out what guards against power cuts, and requires
// that the test above notices.
func TestPowerCutsFindLosses(t *testing.T) {
	for _, p := range []*program{unsynced, unreplayed} {
		t.Run(p.name, func(t *testing.T) {
			c := newCutter(t)
			const most = 20
			for i := range most {
				var problems []string
				t.Run(fmt.Sprintf("cut-%d", i+1), func(t *testing.T) { problems = c.again(t, p) })
				if len(problems) > 0 {
					t.Logf("cut %d has shown it, with %d problems:\n%s", i+1, len(problems), cut(problems[:1]))
					return
				}
			}
			t.Errorf("%d cuts and no loss, want some: the test cannot fail", most)
		})
	}
}
