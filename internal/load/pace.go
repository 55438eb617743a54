package load

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Pace does a step for the numbers from 0 to n-1, over and over, each of them once
// in a period and all spread evenly over it, whether or not the service keeps up. At
// most limit steps are open at a time; the rest then come late.
func Pace(ctx context.Context, n, limit int, period time.Duration, options Options, step Step) (Run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		run    = Run{Latency: new(Histogram)}
		due    = make(chan int, limit)
		failed = make(chan error, limit)
		open   sync.WaitGroup
	)
	for range min(limit, n) {
		open.Go(func() {
			for i := range due {
				began := time.Now()
				if err := step(ctx, i); err != nil {
					failed <- err
					cancel()
					return
				}
				run.Latency.Add(time.Since(began))
			}
		})
	}
	watch, err := options.start()
	if err != nil {
		close(due)
		return run, err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for next := 0; ctx.Err() == nil; {
		elapsed := time.Since(watch.began)
		if elapsed >= options.Duration {
			break
		}
		for until := int(float64(n) * elapsed.Seconds() / period.Seconds()); next < until && ctx.Err() == nil; next++ {
			select {
			case due <- next % n:
			case <-ctx.Done():
			}
		}
		<-tick.C
	}
	close(due)
	open.Wait()
	run.Count = run.Latency.Count()
	err = errors.Join(context.Cause(ctx), watch.stop(&run))
	select {
	case first := <-failed:
		return run, first
	default:
		return run, err
	}
}
