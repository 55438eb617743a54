package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// TestStuckSubscriber has one subscriber of many that does not read its stream, and
// requires that nobody else notices.
func TestStuckSubscriber(t *testing.T) {
	const (
		subscribers = 1000
		connections = 20
		pairs       = 60  // Lock and Unlock, timed
		flood       = 400 // large events that only the stuck one asked for
		floodBytes  = 48 << 10
		// leeway is how much longer an operation may take while one is stuck.
		leeway = 4
	)
	d := start(t, delivered, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	// The others follow "job/**".
	watchers := make([]*watcher, subscribers-1)
	var running sync.WaitGroup
	for i := range connections {
		client := newClient(t, d.address)
		for j := i; j < len(watchers); j += connections {
			w := fromNow("job/**")
			watchers[j] = w
			running.Go(func() {
				if err := w.follow(ctx, client); ctx.Err() == nil {
					t.Errorf("a watch ended: %v", err)
				}
			})
		}
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	lockAndUnlock := func(name string, data *structpb.Struct) time.Duration {
		began := time.Now()
		if _, err := d.client.Lock(t.Context(), &pylokv1.LockRequest{Name: name, Data: data}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.client.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	// reached waits until all the others have been told everything.
	reached := func() time.Duration {
		began := time.Now()
		last := revision(t, d.client)
		for _, w := range watchers {
			w.awaitReached(t, last)
		}
		return time.Since(began)
	}
	measure := func() (typical, told time.Duration) {
		times := make([]time.Duration, pairs)
		for i := range times {
			times[i] = lockAndUnlock(fmt.Sprintf("job/%d", i), nil)
		}
		told = reached()
		slices.Sort(times)
		return times[pairs/2], told
	}
	lockAndUnlock("job/warm-up", nil)
	reached()
	warm := revision(t, d.client)
	alone, told := measure()

	// The stuck one follows everything and reads the first event only.
	conn, err := grpc.NewClient(d.address, append(dialOptions(), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin := revision(t, d.client)
	stream, err := pylokv1.NewLockServiceClient(conn).Watch(ctx, &pylokv1.WatchRequest{AfterRevision: begin})
	if err != nil {
		t.Fatal(err)
	}
	large, err := structpb.NewStruct(map[string]any{"padding": strings.Repeat("x", floodBytes)})
	if err != nil {
		t.Fatal(err)
	}
	before := memory(t, d.cmd.Process.Pid)
	for i := range flood / 2 {
		lockAndUnlock(fmt.Sprintf("noise/%d", i), large)
	}
	stuck, toldStuck := measure()
	isSlow := func() bool { return stuck > leeway*alone+20*time.Millisecond || toldStuck > leeway*told+slack }
	t.Logf("%d subscribers: Lock and Unlock take %v, and %v while one is stuck; all have been told %v and %v after the last; memory %s and %s, after %d MiB that the stuck one did not read",
		subscribers, alone, stuck, told.Round(time.Millisecond), toldStuck.Round(time.Millisecond), before, memory(t, d.cmd.Process.Pid), flood*floodBytes>>20)

	// Every one of the others saw every change.
	all, err := history(t.Context(), d.client, warm)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range watchers {
		if w.reached.Load() < revision(t, d.client) {
			t.Fatalf("subscriber %d has come to revision %d", i, w.reached.Load())
		}
	}
	// The stuck one goes on, where it stopped, by the journal.
	w := resumeAt("", begin)
	for w.after < revision(t, d.client) {
		response, err := stream.Recv()
		if err == nil {
			err = w.take(response.Event)
		}
		if err != nil {
			t.Fatalf("the stuck subscriber, going on after revision %d: %v", w.after, err)
		}
	}
	if w.resets == 0 {
		w.sawAll(t, all[slices.IndexFunc(all, func(e *pylokv1.Event) bool { return e.Revision > begin }):])
	}
	if isSlow() { // perhaps the machine is busier than at first
		again, toldAgain := measure()
		alone, told = max(alone, again), max(told, toldAgain)
		if all, err = history(t.Context(), d.client, warm); err != nil {
			t.Fatal(err)
		}
	}
	if isSlow() {
		t.Errorf("while a subscriber is stuck, Lock and Unlock take %v and the others are told everything after %v, else %v and %v; want at most %d times that", stuck, toldStuck, alone, told, leeway)
	}
	jobs := filter(all, "job/")
	cancel()
	running.Wait()
	for _, w := range watchers {
		// Those before came as changes or as the state at first.
		w.changes = slices.DeleteFunc(w.changes, func(e *pylokv1.Event) bool { return e.Revision <= warm })
		if len(w.changes) != len(jobs) || w.resets != 1 {
			t.Fatalf("a subscriber saw %d changes and %d resets, want %d and 1", len(w.changes), w.resets, len(jobs))
		}
	}
	watchers[0].sawAll(t, jobs)
}
