package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

func sameEvent(a, b *pylokv1.Event) bool {
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	for _, e := range []*pylokv1.Event{a, b} {
		if e.Lock != nil {
			e.Lock = comparable(e.Lock)
		}
	}
	return proto.Equal(a, b)
}

// TestWatchResumes cuts watchers off at random while changes go on, and resumes
// them after the last event.
func TestWatchResumes(t *testing.T) {
	const streams = 200
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	root := t.TempDir()
	d := start(t, delivered, root, "--poll-interval", "100ms")
	if _, err := d.client.Lock(t.Context(), &pylokv1.LockRequest{Name: "first"}); err != nil {
		t.Fatal(err)
	}
	first := revision(t, d.client)
	l := startLoad(t, d.address, 4, nil, random)
	endFiles := aside(t, func(stop <-chan struct{}) { changeFiles(t, root, stop) })

	watchers := []*watcher{resumeAt("", first), resumeAt("dir1/**", first), fromNow("")}
	var ends []func()
	for _, w := range watchers {
		client := newClient(t, d.address)
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		ends = append(ends, aside(t, func(stop <-chan struct{}) {
			w.cutOffs(t, func() pylokv1.LockServiceClient { return client }, random, streams, stop)
		}))
	}
	began := time.Now()
	for _, end := range ends {
		end()
	}
	endFiles()
	l.stop()
	settle(t, d)
	last := revision(t, d.client)
	now, err := list(t.Context(), d.client)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range watchers {
		w.catchUp(t, d.client, last)
	}
	all, err := history(t.Context(), d.client, first)
	if err != nil {
		t.Fatal(err)
	}
	watchers[0].sawAll(t, all)
	watchers[1].sawAll(t, filter(all, "dir1/"))
	if problems := watchers[2].state.differences(now, "the events", "List"); len(problems) > 0 {
		t.Error(cut(problems))
	}
	for _, w := range watchers[:2] {
		if w.resets > 0 {
			t.Errorf("watch %q was reset %d times, and the journal has everything", w.pattern, w.resets)
		}
	}
	seen := make(map[uint64]bool)
	for _, e := range watchers[0].changes {
		seen[e.Revision] = true
	}
	for _, op := range l.acked {
		if op.kind != extend && !seen[op.revision] {
			t.Errorf("no watcher saw %v", op)
		}
	}
	t.Logf("%d streams and more for each of %d watchers in %v, %d changes, %d of them acknowledged to clients", streams, len(watchers), time.Since(began).Round(time.Millisecond), len(all), len(l.acked))
}

func filter(events []*pylokv1.Event, prefix string) (some []*pylokv1.Event) {
	for _, e := range events {
		if strings.HasPrefix(e.Lock.Name, prefix) {
			some = append(some, e)
		}
	}
	return some
}

// changeFiles creates, edits and removes some of the load's lock files.
func changeFiles(t *testing.T, root string, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(random.IntN(4)) * time.Millisecond):
		}
		file := filepath.Join(root, loadName(random.IntN(loadNames))+".lock")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Error(err)
			return
		}
		if random.IntN(2) == 0 {
			os.Remove(file) // perhaps it is not there
		} else if err := os.WriteFile(file, fmt.Appendf(nil, "by: hand\nn: %d\n", i), 0o644); err != nil {
			t.Error(err)
			return
		}
	}
}

// settle waits until what List says is what is in the files.
func settle(t *testing.T, d *daemon) time.Duration {
	t.Helper()
	took, problem := within(t.Context(), patience, func() string {
		files, err := readFiles(d.root)
		if err != nil {
			return err.Error()
		}
		locks, err := list(t.Context(), d.client)
		if err != nil {
			return err.Error()
		}
		return cut(locks.disagreements(files))
	})
	if problem != "" {
		t.Fatalf("after %v List and the files still differ:\n%s", took, problem)
	}
	return took
}

// TestWatchResumesAcrossKills kills the daemon again and again while clients change
// locks and watchers follow.
func TestWatchResumesAcrossKills(t *testing.T) {
	const kills = 20
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	root := t.TempDir()
	d := start(t, delivered, root)
	if _, err := d.client.Lock(t.Context(), &pylokv1.LockRequest{Name: loadName(0), Holder: "crew"}); err != nil {
		t.Fatal(err)
	}
	first := revision(t, d.client)
	if _, err := d.client.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: loadName(0), Holder: "crew"}); err != nil {
		t.Fatal(err)
	}
	var client atomic.Pointer[pylokv1.LockServiceClient] // of the daemon that runs
	client.Store(&d.client)
	watchers := []*watcher{resumeAt("", first), fromNow("")}
	var ends []func()
	for _, w := range watchers {
		ends = append(ends, aside(t, func(stop <-chan struct{}) {
			ctx, cancel := contextUntil(t, stop)
			defer cancel()
			for ctx.Err() == nil {
				if err := w.follow(ctx, *client.Load()); !isCutOff(err) {
					t.Errorf("watch %q: %v", w.pattern, err)
					return
				}
				<-time.After(10 * time.Millisecond)
			}
		}))
	}

	promise := &promise{revision: first + 1}
	var total outcome
	for i := range kills {
		l := startLoad(t, d.address, 8, promise.holds, random)
		l.await(1+random.Int64N(150), patience)
		time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
		d.kill()
		l.stop()
		d = start(t, delivered, root)
		client.Store(&d.client)
		problems, o, err := promise.check(t.Context(), d, l)
		if err != nil {
			t.Fatal(err)
		}
		if len(problems) > 0 {
			t.Fatalf("after kill %d:\n%s", i+1, cut(problems))
		}
		total.add(o)
	}

	last := revision(t, d.client)
	for _, w := range watchers {
		w.awaitReached(t, last)
	}
	for _, end := range ends {
		end()
	}
	all, err := history(t.Context(), d.client, first)
	if err != nil {
		t.Fatal(err)
	}
	watchers[0].sawAll(t, all)
	if watchers[0].resets > 0 {
		t.Errorf("a watcher was reset %d times, and the journal has everything", watchers[0].resets)
	}
	now, err := list(t.Context(), d.client)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range watchers[1:] {
		if problems := w.state.differences(now, "the events", "List"); len(problems) > 0 {
			t.Error(cut(problems))
		}
	}
	t.Logf("%d kills: %d changes, %d acknowledged operations, %d in doubt of which %d had happened, %d lock files mended, %d and %d streams",
		kills, len(all), total.acked, total.doubt, total.happened, total.mended, watchers[0].streams, watchers[1].streams)
}
