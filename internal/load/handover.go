package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// holdFor is how long a hold lasts in HandOver: long enough for the one before it to
// be back in line, so that there is always the same number of waiters.
const holdFor = 2 * time.Millisecond

// HandOver has callers pass one lock on, one of them holding it and the others in
// line. What is measured is the time from before the holder asks to release the lock
// until a waiter that was in line then has been told that it is its own.
func HandOver(ctx context.Context, t Target, waiters int, options Options) (Run, error) {
	name := options.Prefix + "contended"
	if err := t.Callers(ctx, waiters+1); err != nil {
		return Run{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := Run{Latency: new(Histogram)}
	var (
		began     = time.Now()
		released  atomic.Int64 // when the last release began, ns after began
		measuring atomic.Bool
		stopped   atomic.Bool
		failed    = make(chan error, waiters+1)
		callers   sync.WaitGroup
	)
	pass := func(caller int) error {
		asked := time.Since(began)
		if err := t.Lock(ctx, caller, name); err != nil {
			return err
		}
		granted := time.Since(began)
		if !stopped.Load() {
			last := time.Duration(released.Load())
			if measuring.Load() && asked+holdFor/2 < last { // it was in line when the lock was released
				run.Latency.Add(granted - last)
			}
			time.Sleep(holdFor)
		}
		released.Store(int64(time.Since(began)))
		return t.Unlock(ctx, caller, name)
	}
	for caller := range waiters + 1 {
		callers.Go(func() {
			for !stopped.Load() {
				if err := pass(caller); err != nil {
					failed <- err
					cancel() // the others' errors come of this
					return
				}
			}
		})
	}
	sleep(ctx, max(options.Duration/4, time.Duration(waiters)*holdFor)) // until all are in line
	watch, err := options.start()
	measuring.Store(true)
	sleep(ctx, options.Duration)
	for limit := time.Now().Add(arrival); run.Latency.Count() == 0 && ctx.Err() == nil && time.Now().Before(limit); {
		sleep(ctx, holdFor) // a slow service shows one hand-over at least
	}
	err = errors.Join(context.Cause(ctx), err, watch.stop(&run))
	if run.Count = run.Latency.Count(); run.Count == 0 && err == nil {
		err = fmt.Errorf("no waiter got the lock in %v", options.Duration+arrival)
	}
	stopped.Store(true)
	callers.Wait() // those in line get the lock and give it back
	select {
	case first := <-failed:
		return run, first
	default:
		return run, err
	}
}
