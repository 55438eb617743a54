package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pylok/pylok/internal/load"
)

// What is measured. These are the rows of the report.
const (
	cycles     = "Lock+Unlock"
	reads      = "Status"
	handOver   = "hand-over"
	watch      = "Watch"
	watchOne   = "Watch, one connection"
	dataSync   = "fdatasync"
	sharedFrom = 1000 // subscribers from which a shared connection is measured too
)

// measurement is a row of the report, for all contenders that can be measured so.
type measurement struct {
	what  string
	size  int // callers, waiters or subscribers
	among []string
	run   func(ctx context.Context, c *contender, options load.Options) (load.Run, error)
}

// measurements lists the rows in order.
func (s *settings) measurements() (all []measurement) {
	for _, callers := range s.callers {
		all = append(all, measurement{cycles, callers, []string{"pylok", "empty", "etcd", "redis", "files"},
			func(ctx context.Context, c *contender, options load.Options) (load.Run, error) {
				return load.Cycles(ctx, c.target, callers, options)
			}})
	}
	all = append(all, measurement{dataSync, 1, []string{"files"},
		func(ctx context.Context, c *contender, options load.Options) (load.Run, error) {
			return c.target.(*filesTarget).syncs(ctx, options)
		}})
	for _, waiters := range s.waiters {
		all = append(all, measurement{handOver, waiters, []string{"pylok", "etcd", "redis"},
			func(ctx context.Context, c *contender, options load.Options) (load.Run, error) {
				return load.HandOver(ctx, c.target, waiters, options)
			}})
	}
	for _, callers := range s.callers {
		all = append(all, measurement{reads, callers, []string{"pylok", "empty", "etcd", "redis", "files"},
			func(ctx context.Context, c *contender, options load.Options) (load.Run, error) {
				return load.Reads(ctx, c.target, callers, options)
			}})
	}
	for _, subscribers := range s.subscribers {
		all = append(all, measurement{watch, subscribers, []string{"pylok", "etcd", "redis"},
			func(ctx context.Context, c *contender, options load.Options) (load.Run, error) {
				return load.Deliveries(ctx, c.target, subscribers, subscribers, options)
			}})
		if subscribers >= sharedFrom {
			all = append(all, measurement{watchOne, subscribers, []string{"pylok", "etcd"},
				func(ctx context.Context, c *contender, options load.Options) (load.Run, error) {
					return load.Deliveries(ctx, c.target, subscribers, 1, options)
				}})
		}
	}
	return all
}

// compare measures all contenders in turn, round by round.
func compare(ctx context.Context, s *settings, dir string, r *report, progress io.Writer) (err error) {
	all, err := startContenders(ctx, s, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopContenders(all)) }()
	for _, c := range all {
		r.Contenders = append(r.Contenders, contenderReport{Name: c.name, About: c.about})
	}
	rows := s.measurements()
	total, done := 0, 0
	for _, row := range rows {
		for _, c := range all {
			if slices.Contains(row.among, c.name) {
				total += s.rounds
			}
		}
	}
	began := time.Now()
	for round := range s.rounds {
		for _, row := range rows {
			for i := range all {
				c := all[(i+round)%len(all)] // a different one first in each round
				if !slices.Contains(row.among, c.name) {
					continue
				}
				done++
				fmt.Fprintf(progress, "%3d of %d, %v: %s %d, %s\n", done, total, time.Since(began).Round(time.Second), row.what, row.size, c.name)
				sample, err := measure(ctx, s, c, row)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err != nil {
					return fmt.Errorf("%s %d of %s: %w", row.what, row.size, c.name, err)
				}
				r.add(row.what, row.size, c.name, sample)
			}
		}
	}
	return nil
}

// measure measures one row of one contender once.
func measure(ctx context.Context, s *settings, c *contender, m measurement) (sample, error) {
	run, err := m.run(ctx, c, load.Options{Duration: s.duration(), CPU: c.cpu})
	if err != nil {
		return sample{}, err
	}
	if run.Count == 0 {
		return sample{}, errors.New("nothing happened in the time; give it more -seconds")
	}
	result := sampleOf(run)
	result.RSS, err = c.rss()
	return result, err
}

// sampleOf returns the figures of a run.
func sampleOf(run load.Run) sample {
	result := sample{
		Count:     run.Count,
		PerSecond: run.PerSecond(),
		CPU:       run.CPU.Seconds() / float64(run.Count),
	}
	if run.Latency != nil {
		result.P50 = run.Latency.Quantile(0.5).Seconds()
		result.P99 = run.Latency.Quantile(0.99).Seconds()
	}
	if len(run.Steps) > 0 {
		result.FirstP50 = run.Steps[0].Quantile(0.5).Seconds()
	}
	return result
}
