package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// writers make the changes that are delivered.
	writers = 16
	// window is how many changes the slowest subscriber may be behind before
	// the writers wait for it.
	window = 256
	// arrival is how long what has to come may take: subscribing, the last
	// deliveries, the first hand-over.
	arrival = time.Minute
)

// received counts the changes that one subscriber has got, on a cache line of its own.
type received struct {
	changes atomic.Int64
	_       [56]byte
}

// Deliveries has subscribers follow what writers change, on so many connections, and
// measures how fast the changes reach all of them. The writers wait for the slowest.
func Deliveries(ctx context.Context, t Target, subscribers, connections int, options Options) (run Run, err error) {
	if err := t.Callers(ctx, writers); err != nil {
		return Run{}, err
	}
	var following sync.WaitGroup
	defer following.Wait()
	ctx, cancel := context.WithCancelCause(ctx) // the cause is the first subscriber that stopped
	defer cancel(nil)
	var (
		prefix = options.Prefix + "watched-"
		got    = make([]received, subscribers)
		sent   atomic.Int64
		ready  = make(chan struct{}, subscribers)
	)
	behind := func() int64 {
		slowest := got[0].changes.Load()
		for i := range got {
			slowest = min(slowest, got[i].changes.Load())
		}
		return sent.Load() - slowest
	}
	for i := range got {
		following.Go(func() {
			err := t.Subscribe(ctx, i%connections, prefix,
				func() { ready <- struct{}{} },
				func(n int) { got[i].changes.Add(int64(n)) })
			cancel(fmt.Errorf("subscriber %d of %d stopped: %w", i+1, subscribers, err))
		})
	}
	timeout := time.After(arrival)
	for range got {
		select {
		case <-ready:
		case <-ctx.Done():
			return Run{}, context.Cause(ctx)
		case <-timeout:
			return Run{}, fmt.Errorf("%d subscribers were not ready after %v", subscribers, arrival)
		}
	}
	paced := func(do func(context.Context, int, string) error) Step {
		return func(ctx context.Context, caller int) error {
			for behind() > window && ctx.Err() == nil {
				time.Sleep(200 * time.Microsecond)
			}
			err := do(ctx, caller, fmt.Sprintf("%s%d", prefix, caller))
			sent.Add(1)
			return err
		}
	}
	watch, err := options.start()
	if err != nil {
		return Run{}, err
	}
	_, err = Repeat(ctx, writers, Options{Duration: options.Duration}, paced(t.Lock), paced(t.Unlock))
	if ctx.Err() != nil {
		return Run{}, context.Cause(ctx)
	}
	if err != nil {
		return Run{}, err
	}
	for timeout := time.Now().Add(arrival); behind() > 0; time.Sleep(time.Millisecond) {
		switch {
		case ctx.Err() != nil:
			return Run{}, context.Cause(ctx)
		case time.Now().After(timeout):
			return Run{}, errors.New("not every change has reached every subscriber")
		}
	}
	run.Count = sent.Load() * int64(subscribers)
	return run, watch.stop(&run)
}
