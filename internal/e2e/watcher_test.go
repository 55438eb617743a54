package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// watcher follows the changes, and resumes after the last one when it is cut off.
type watcher struct {
	pattern string
	// after is the revision of the last event; to begin with 0, or where to
	// resume.
	after   uint64
	changes []*pylokv1.Event // every event that is a change, as it came
	state   held             // what the events have led to
	resets  int
	synced  bool // the state is whole
	streams int

	// reached is what the outside may look at while the watcher runs: the
	// highest revision up to which all has been told.
	reached atomic.Uint64
}

// follow watches until its stream ends, and returns why.
func (w *watcher) follow(ctx context.Context, client pylokv1.LockServiceClient) error {
	w.streams++
	if !w.synced {
		w.after = 0 // the last stream broke before the state was whole
	}
	stream, err := client.Watch(ctx, &pylokv1.WatchRequest{Pattern: w.pattern, AfterRevision: w.after})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := w.take(response.Event); err != nil {
			return err
		}
	}
}

// take takes in an event.
func (w *watcher) take(e *pylokv1.Event) error {
	w.state.apply(e)
	switch e.Type {
	case pylokv1.EventType_EVENT_TYPE_RESET:
		w.resets++
		w.synced = false
		return nil
	case pylokv1.EventType_EVENT_TYPE_SYNCED:
		if w.synced && e.Revision < w.after {
			return fmt.Errorf("SYNCED has revision %d after revision %d", e.Revision, w.after)
		}
		w.synced = true
		w.after = e.Revision
		w.reached.Store(w.after)
		return nil
	}
	if !w.synced {
		return nil // a lock that is held, no change
	}
	if e.Revision <= w.after {
		return fmt.Errorf("revision %d follows revision %d", e.Revision, w.after)
	}
	w.after = e.Revision
	w.changes = append(w.changes, e)
	w.reached.Store(w.after)
	return nil
}

// resumeAt makes a watcher that knows everything up to a revision.
func resumeAt(pattern string, after uint64) *watcher {
	return &watcher{pattern: pattern, after: after, state: make(held), synced: true}
}

// fromNow makes a watcher that first asks for the present state.
func fromNow(pattern string) *watcher { return &watcher{pattern: pattern, state: make(held)} }

// isCutOff reports whether a stream ended as one does that was cut off.
func isCutOff(err error) bool {
	code := status.Code(err)
	return err == io.EOF || code == codes.Canceled || code == codes.Unavailable || code == codes.DeadlineExceeded
}

// cutOffs follows with streams that are cut off at random, after a while or after
// some events, until stop is closed and at least n streams have been.
func (w *watcher) cutOffs(t *testing.T, client func() pylokv1.LockServiceClient, random *rand.Rand, n int, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			if w.streams >= n {
				return
			}
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(60))*time.Millisecond)
		err := w.follow(ctx, client())
		cancel()
		if !isCutOff(err) {
			t.Errorf("watch %q: %v", w.pattern, err)
			return
		}
	}
}

// catchUp follows until the watcher has come to a revision.
func (w *watcher) catchUp(t *testing.T, client pylokv1.LockServiceClient, to uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := client.Watch(ctx, &pylokv1.WatchRequest{Pattern: w.pattern, AfterRevision: w.after})
	for err == nil && w.after < to {
		var response *pylokv1.WatchResponse
		if response, err = stream.Recv(); err == nil {
			err = w.take(response.Event)
		}
	}
	if err != nil {
		t.Fatalf("watch %q has come to revision %d, want %d: %v", w.pattern, w.after, to, err)
	}
}

// awaitReached waits until a watcher that runs has come to a revision.
func (w *watcher) awaitReached(t *testing.T, to uint64) {
	t.Helper()
	if _, problem := within(t.Context(), patience, func() string {
		if got := w.reached.Load(); got < to {
			return fmt.Sprintf("watch %q has come to revision %d, want %d", w.pattern, got, to)
		}
		return ""
	}); problem != "" {
		t.Fatal(problem)
	}
}

// sawAll compares what a watcher saw with the history.
func (w *watcher) sawAll(t *testing.T, events []*pylokv1.Event) {
	t.Helper()
	saw := make(map[uint64]int)
	for _, e := range w.changes {
		saw[e.Revision]++
	}
	missing, last := 0, uint64(0)
	for _, e := range events {
		if e.Revision <= last {
			t.Fatalf("in the history revision %d follows revision %d", e.Revision, last)
		}
		last = e.Revision
		if saw[e.Revision] != 1 {
			missing++
			t.Logf("watch %q saw revision %d %d times", w.pattern, e.Revision, saw[e.Revision])
		}
		delete(saw, e.Revision)
	}
	if missing > 0 || len(saw) > 0 {
		t.Errorf("watch %q: %d of %d revisions were not seen exactly once, and %d are not in the history", w.pattern, missing, len(events), len(saw))
	}
	for i, e := range w.changes {
		if i < len(events) && !sameEvent(e, events[i]) {
			t.Errorf("watch %q tells\n\t%v, the history\n\t%v", w.pattern, e, events[i])
			return
		}
	}
}

// revision returns the server's.
func revision(t *testing.T, client pylokv1.LockServiceClient) uint64 {
	t.Helper()
	info, err := client.Info(t.Context(), &pylokv1.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return info.Revision
}

// aside runs something beside the test; the function that it returns stops it and
// waits for its end.
func aside(t *testing.T, run func(stop <-chan struct{})) (end func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		run(stop)
	}()
	end = sync.OnceFunc(func() {
		close(stop)
		<-ended
	})
	t.Cleanup(end)
	return end
}

// contextUntil returns a context that ends when stop is closed.
func contextUntil(t *testing.T, stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
