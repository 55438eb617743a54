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

// dataSync is the one row that is about the disk alone.
const dataSync = "fdatasync"

// among says who takes part in each row.
var among = map[string][]string{
	load.RowCycles:        {"pylok", "empty", "etcd", "redis", "files"},
	dataSync:              {"files"},
	load.RowHandOver:      {"pylok", "etcd", "redis"},
	load.RowReads:         {"pylok", "empty", "etcd", "redis", "files"},
	load.RowDeliveries:    {"pylok", "etcd", "redis"},
	load.RowOneConnection: {"pylok", "etcd"},
}

// measurements lists the rows in order.
func (s *settings) measurements() []load.Measurement {
	syncs := load.Measurement{Row: dataSync, Size: 1, Run: func(ctx context.Context, t load.Target, options load.Options) (load.Run, error) {
		return t.(*filesTarget).syncs(ctx, options)
	}}
	return slices.Insert(load.Measurements(s.callers, s.waiters, s.subscribers), len(s.callers), syncs)
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
			if slices.Contains(among[row.Row], c.name) {
				total += s.rounds
			}
		}
	}
	began := time.Now()
	for round := range s.rounds {
		for _, row := range rows {
			for i := range all {
				c := all[(i+round)%len(all)] // a different one first in each round
				if !slices.Contains(among[row.Row], c.name) {
					continue
				}
				done++
				fmt.Fprintf(progress, "%3d of %d, %v: %s %d, %s\n", done, total, time.Since(began).Round(time.Second), row.Row, row.Size, c.name)
				sample, err := measure(ctx, s, c, row)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err != nil {
					return fmt.Errorf("%s %d of %s: %w", row.Row, row.Size, c.name, err)
				}
				r.add(row.Row, row.Size, c.name, sample)
			}
		}
	}
	return nil
}

// measure measures one row of one contender once.
func measure(ctx context.Context, s *settings, c *contender, m load.Measurement) (sample, error) {
	run, err := m.Run(ctx, c.target, s.options(c.cpu))
	if err != nil {
		return sample{}, err
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
