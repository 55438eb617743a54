// Package load drives a lock service the way its users do and measures it from
// where they stand. It knows nothing of which service that is: a Target does.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// GCPercent is for debug.SetGCPercent in a program that puts load on a server of the same
// machine. The heap of such a program is small; to collect it as often as Go does by
// itself takes a fifth of the CPU time that a call costs the caller.
const GCPercent = 400

// Target is a lock service seen through its own client. Callers are numbered from 0
// and stand for programs of their own: none is at two calls at once. What a service
// does not have is errors.ErrUnsupported.
type Target interface {
	// Callers makes callers 0 to n-1 ready.
	Callers(ctx context.Context, n int) error
	// Lock takes a lock for a caller and waits until it is granted.
	Lock(ctx context.Context, caller int, name string) error
	// Unlock releases the lock that the caller took last.
	Unlock(ctx context.Context, caller int, name string) error
	// Status reads one lock, held or free.
	Status(ctx context.Context, caller int, name string) error
	// Subscribe follows the locks whose names start with a prefix until ctx
	// ends, on a connection that all with its number share. It calls ready once
	// nothing that happens later is missed, and then changed with the number of
	// changes as they arrive: two for each Lock and Unlock.
	Subscribe(ctx context.Context, connection int, prefix string, ready func(), changed func(n int)) error
	// Close closes the connections.
	Close() error
}

// Options say how to measure.
type Options struct {
	// Prefix is what the name of every lock starts with.
	Prefix string
	// Duration is how long to go on.
	Duration time.Duration
	// CPU returns the CPU time that the server has taken so far. Nil: nobody
	// knows, as of a server on another machine.
	CPU func() (time.Duration, error)
}

// Run is what was measured.
type Run struct {
	// Count is how many cycles, requests, hand-overs or deliveries there were.
	Count int64
	// Elapsed is how long they took together.
	Elapsed time.Duration
	// CPU is what they took of the server's CPU time.
	CPU time.Duration
	// Latency is of each of them. Deliveries have none.
	Latency *Histogram
	// Steps is the latency of each step of a cycle.
	Steps []*Histogram
}

// PerSecond returns the rate.
func (r Run) PerSecond() float64 { return float64(r.Count) / r.Elapsed.Seconds() }

// stopwatch measures the time and the server's CPU time of a Run.
type stopwatch struct {
	options Options
	began   time.Time
	cpu     time.Duration
}

func (o Options) start() (w stopwatch, err error) {
	w.options = o
	if o.CPU != nil {
		w.cpu, err = o.CPU()
	}
	w.began = time.Now()
	return w, err
}

func (w stopwatch) stop(r *Run) error {
	r.Elapsed = time.Since(w.began)
	if w.options.CPU == nil {
		return nil
	}
	cpu, err := w.options.CPU()
	r.CPU = cpu - w.cpu
	return err
}

// Step is one request of a caller.
type Step func(ctx context.Context, caller int) error

// Repeat has callers go through the steps, each over and over and all at the same
// time. Every caller has done so once before the measuring begins.
func Repeat(ctx context.Context, callers int, options Options, steps ...Step) (Run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := Run{Latency: new(Histogram)}
	for range steps {
		run.Steps = append(run.Steps, new(Histogram))
	}
	var (
		warm, done sync.WaitGroup
		start      = make(chan struct{})
		stopped    atomic.Bool
		failed     = make(chan error, callers)
	)
	once := func(caller int, measured bool) error {
		began := time.Now()
		last := began
		for i, step := range steps {
			if err := step(ctx, caller); err != nil {
				return err
			}
			now := time.Now()
			if measured {
				run.Steps[i].Add(now.Sub(last))
			}
			last = now
		}
		if measured {
			run.Latency.Add(last.Sub(began))
		}
		return nil
	}
	warm.Add(callers)
	for caller := range callers {
		done.Go(func() {
			err := once(caller, false)
			warm.Done()
			<-start
			for err == nil {
				err = once(caller, true)
				if stopped.Load() {
					break
				}
			}
			if err != nil {
				failed <- err
				cancel() // the others' errors come of this
			}
		})
	}
	warm.Wait()
	watch, err := options.start()
	close(start)
	sleep(ctx, options.Duration)
	stopped.Store(true)
	done.Wait()
	run.Count = run.Latency.Count()
	err = errors.Join(context.Cause(ctx), err, watch.stop(&run))
	select {
	case first := <-failed:
		return run, first
	default:
		return run, err
	}
}

// Each does a step for each of the numbers from 0 to n-1, at most limit of them at a
// time. The first error ends it.
func Each(ctx context.Context, n, limit int, step Step) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		next    atomic.Int64
		workers sync.WaitGroup
	)
	for range min(n, limit) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				if err := step(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// sleep waits for so long, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Cycles is Lock and then Unlock, by callers that each have a lock of their own.
func Cycles(ctx context.Context, t Target, callers int, options Options) (Run, error) {
	if err := t.Callers(ctx, callers); err != nil {
		return Run{}, err
	}
	return Repeat(ctx, callers, options, options.ofOwn(t.Lock), options.ofOwn(t.Unlock))
}

// ofOwn makes a step of a request, which each caller has for a lock of its own.
func (o Options) ofOwn(request func(ctx context.Context, caller int, name string) error) Step {
	return func(ctx context.Context, caller int) error {
		return request(ctx, caller, fmt.Sprintf("%slock-%d", o.Prefix, caller))
	}
}

// Reads is Status of held locks, by callers that each read a lock of their own.
func Reads(ctx context.Context, t Target, callers int, options Options) (run Run, err error) {
	if err := t.Callers(ctx, callers); err != nil {
		return Run{}, err
	}
	if err := Each(ctx, callers, callers, options.ofOwn(t.Lock)); err != nil {
		return Run{}, err
	}
	if run, err = Repeat(ctx, callers, options, options.ofOwn(t.Status)); err != nil {
		return run, err
	}
	return run, Each(ctx, callers, callers, options.ofOwn(t.Unlock))
}
