package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

var duration = flag.Duration("duration", 15*time.Second, "how long locks are changed from two directions at once")

// TestTwoDirections changes the same locks through the service and through their
// files, and requires that in the end everybody has the same picture.
func TestTwoDirections(t *testing.T) {
	const pollInterval = time.Second
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	root, stopFile := t.TempDir(), filepath.Join(t.TempDir(), "stop")
	d := start(t, delivered, root, "--poll-interval", pollInterval.String())
	if _, err := d.client.Lock(t.Context(), &pylokv1.LockRequest{Name: "first"}); err != nil {
		t.Fatal(err)
	}
	first := revision(t, d.client)

	steady, resumed, numbered := fromNow(""), fromNow(""), resumeAt("", first)
	client := newClient(t, d.address)
	endSteady := aside(t, func(stop <-chan struct{}) {
		ctx, cancel := contextUntil(t, stop)
		defer cancel()
		if err := steady.follow(ctx, client); ctx.Err() == nil {
			t.Errorf("the watch ended: %v", err)
		}
	})
	var endResumed []func()
	for _, w := range []*watcher{resumed, numbered} {
		client, random := newClient(t, d.address), rand.New(rand.NewPCG(random.Uint64(), 0))
		endResumed = append(endResumed, aside(t, func(stop <-chan struct{}) {
			w.cutOffs(t, func() pylokv1.LockServiceClient { return client }, random, 0, stop)
		}))
	}

	scripts := []*exec.Cmd{
		exec.Command("/usr/bin/python3", "testdata/original.py", root, stopFile, fmt.Sprint(random.Uint32())),
		exec.Command("/bin/bash", "testdata/files.sh", root, stopFile),
	}
	ended := make(chan string, len(scripts))
	for _, script := range scripts {
		go func() {
			output, err := script.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v\n%s", script, err, output)
			}
			ended <- fmt.Sprintf("%s: %s", filepath.Base(script.Args[1]), output)
		}()
	}
	l := startLoad(t, d.address, 6, nil, random)
	<-time.After(*duration)
	l.stop()
	if err := os.WriteFile(stopFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range scripts {
		t.Log(<-ended)
	}
	if l.fault != "" {
		t.Errorf("a client got an answer that nobody should get: %s", l.fault)
	}
	if len(l.doubt) > 0 {
		t.Errorf("no operation should be of unknown outcome: %v", l.doubt)
	}

	took := settle(t, d)
	if limit := 2*pollInterval + slack; took > limit {
		t.Errorf("List and the files agree %v after the last change, want within %v", took, limit)
	}
	last := revision(t, d.client)
	for { // what a file's text does not show is found within the same time
		<-time.After(2 * pollInterval)
		now := revision(t, d.client)
		if now == last {
			break
		}
		last = now
	}
	steady.awaitReached(t, last)
	endSteady()
	for _, end := range endResumed {
		end()
	}
	resumed.catchUp(t, d.client, last)
	numbered.catchUp(t, d.client, last)
	if got := revision(t, d.client); got != last {
		t.Errorf("the revision is %d, and was %d when all was quiet", got, last)
	}
	locks, err := list(t.Context(), d.client)
	if err != nil {
		t.Fatal(err)
	}
	for who, w := range map[string]*watcher{"a watcher": steady, "a watcher that was cut off": resumed} {
		if problems := w.state.differences(locks, who, "List"); len(problems) > 0 {
			t.Error(cut(problems))
		}
	}
	all, err := history(t.Context(), d.client, first)
	if err != nil {
		t.Fatal(err)
	}
	numbered.sawAll(t, all)
	byHistory := held{"first": locks["first"]}
	causes := make(map[pylokv1.EventCause]int)
	for _, e := range all {
		byHistory.apply(e)
		causes[e.Cause]++
	}
	if problems := byHistory.differences(locks, "the history", "List"); len(problems) > 0 {
		t.Error(cut(problems))
	}
	t.Logf("%v: %d changes, %v, %d acknowledged operations; List and the files agreed %v after the last change; %d held locks, resumed %d times",
		*duration, len(all), causes, len(l.acked), took.Round(time.Millisecond), len(locks), resumed.streams)
}
