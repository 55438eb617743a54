package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/load"
	"github.com/pylok/pylok/lock"
)

// What can be measured.
const (
	maxBenchSize     = 4096 // callers, waiters or subscribers
	minBenchDuration = 50 * time.Millisecond
	maxBenchDuration = 2 * time.Minute // well below the ttl of the holds
)

func (p *program) benchCommand() *cobra.Command {
	b := &bencher{
		program:     p,
		callers:     sizes{1, 16, 64, 256},
		waiters:     sizes{1, 16, 256},
		subscribers: sizes{1, 100},
		duration:    duration(3 * time.Second),
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast the server is, by putting load on it",
		Long: `Measure how fast the server is, seen from here, by putting load on it: as much as it
takes. Think twice where others work with it. The changes go into its history, where
they may push out older ones, and to whoever watches everything.

Lock+Unlock is a cycle, by callers that each have a lock of their own; LOCK is the
first half of it. A hand-over is from before the holder of a lock asks to release it
until a waiter in line has been told that it has it; each hold lasts 2 ms. Status is
a read of a held lock. Watch is a change that is delivered to a subscriber; 16 callers
make the changes, and each subscriber has a connection. Callers and waiters share one.

The locks' names start with --prefix and a random part. All are released in the end,
also after Ctrl-C, and each has a ttl of 10 minutes, so that a bench that was killed
leaves nothing for good. With -o json, each row is an object; times are in seconds.`,
		Example: `  pylok bench
  pylok bench --address locks.example.com:5625 --tls --callers 64 --duration 10s`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().Var(&b.callers, "callers", "take, release and read locks with so many callers at a time")
	cmd.Flags().Var(&b.waiters, "waiters", "hand a lock over with so many in line for it")
	cmd.Flags().Var(&b.subscribers, "subscribers", "deliver changes to so many subscribers")
	cmd.Flags().Var(&b.duration, "duration", "how long to measure each of them")
	cmd.Flags().StringVar(&b.prefix, "prefix", "bench/", "what the names of the locks start with, as `TEXT`")
	for _, flag := range []string{"callers", "waiters", "subscribers", "duration", "prefix"} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions))
	}
	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, _ []string) error {
		defer debug.SetGCPercent(debug.SetGCPercent(load.GCPercent))
		return b.bench(ctx, c)
	})
	return cmd
}

// sizes is a flag's value: numbers of callers and the like, with commas between.
type sizes []int

// Set implements pflag.Value.
func (s *sizes) Set(text string) (err error) {
	*s, err = load.ParseSizes(text, maxBenchSize)
	return err
}

// String implements pflag.Value.
func (s *sizes) String() string {
	var texts []string
	for _, n := range *s {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, ",")
}

// Type implements pflag.Value; it is the word that --help shows.
func (s *sizes) Type() string { return "N,N..." }

// bencher measures a server.
type bencher struct {
	*program
	callers, waiters, subscribers sizes
	duration                      duration
	prefix                        string

	rows   []load.Measurement
	target *load.Pylok
}

// bench measures one row after the other, and releases what is left when one of them
// fails or the person has enough.
func (b *bencher) bench(ctx context.Context, c *client.Client) error {
	options := load.Options{
		Prefix:   b.prefix + strings.ToLower(rand.Text()[:8]) + "-",
		Duration: time.Duration(b.duration),
	}
	if b.prefix == "" {
		return usagef("--prefix must not be empty: it tells everybody what these locks are")
	}
	if _, err := lock.ParseName(options.Prefix + "watched-0000"); err != nil { // no name is longer
		return usagef("--prefix %s: %v", b.prefix, err)
	}
	if options.Duration < minBenchDuration || options.Duration > maxBenchDuration {
		return usagef("--duration is %s; give %s to %s", formatDuration(options.Duration), formatDuration(minBenchDuration), formatDuration(maxBenchDuration))
	}
	// A sign of life, before there is any talk of load.
	_, err := call(ctx, b.program, c.Service().Info, &pylokv1.InfoRequest{})
	if err != nil {
		return err
	}
	if b.target, err = load.NewPylok(ownHolder(), b.dial); err != nil {
		return err
	}
	defer b.target.Close()
	b.rows = load.Measurements(b.callers, b.waiters, b.subscribers)
	b.say("putting load on the server at %s, %d times %s; the locks start with %s, and all their changes go into its history",
		b.address, len(b.rows), &b.duration, options.Prefix)
	err = b.measure(ctx, options)
	if left := b.release(ctx, options.Prefix); left != nil {
		b.say("locks that start with %s may still be held; each ends by itself within %s", options.Prefix, formatDuration(load.TTL))
		if err == nil {
			err = left
		}
	}
	return err
}

// release releases all locks of this run, also when ctx has ended.
func (b *bencher) release(ctx context.Context, prefix string) error {
	ctx, cancel := b.withTimeout(context.WithoutCancel(ctx), 0)
	defer cancel()
	return b.target.Release(ctx, prefix)
}

// measure prints each row when it has been measured.
func (b *bencher) measure(ctx context.Context, options load.Options) error {
	if b.output == textOutput {
		if err := b.write([]byte(b.line("WHAT", "AT", "A SECOND", "P50", "P99", "LOCK P50", "LOCK P99"))); err != nil {
			return err
		}
	}
	for _, m := range b.rows {
		run, err := m.Run(ctx, b.target, options)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", m.Row, load.At(m.Row, m.Size), err)
		}
		fields, err := structpb.NewStruct(benchFields(m, run))
		if err != nil {
			return err
		}
		if err := b.printOne(fields, func(style) string { return b.row(m, run) }); err != nil {
			return err
		}
	}
	return nil
}

// row shows what was measured.
func (b *bencher) row(m load.Measurement, run load.Run) string {
	quantile := func(h *load.Histogram, q float64) string { return load.FormatDuration(h.Quantile(q)) }
	rate, p50, p99, lockP50, lockP99 := "-", "-", "-", "-", "-"
	if hasRate(m) {
		rate = load.FormatCount(run.PerSecond())
	}
	if run.Latency != nil {
		p50, p99 = quantile(run.Latency, 0.5), quantile(run.Latency, 0.99)
	}
	if m.Row == load.RowCycles {
		lockP50, lockP99 = quantile(run.Steps[0], 0.5), quantile(run.Steps[0], 0.99)
	}
	return b.line(m.Row, load.At(m.Row, m.Size), rate, p50, p99, lockP50, lockP99)
}

// line is a line of the table. The rows are printed one by one, so the columns of
// figures are as wide as any figure is.
func (b *bencher) line(what, at, rate, p50, p99, lockP50, lockP99 string) string {
	whatWidth, atWidth := 0, 0
	for _, m := range b.rows {
		whatWidth = max(whatWidth, len(m.Row))
		atWidth = max(atWidth, len(load.At(m.Row, m.Size)))
	}
	return fmt.Sprintf("%-*s  %-*s  %9s  %7s  %7s  %8s  %8s\n", whatWidth, what, atWidth, at, rate, p50, p99, lockP50, lockP99)
}

// benchFields is a row for programs.
func benchFields(m load.Measurement, run load.Run) map[string]any {
	fields := map[string]any{"what": m.Row, "at": m.Size, "count": run.Count, "seconds": run.Elapsed.Seconds()}
	if hasRate(m) {
		fields["perSecond"] = run.PerSecond()
	}
	if run.Latency != nil {
		fields["p50"] = run.Latency.Quantile(0.5).Seconds()
		fields["p99"] = run.Latency.Quantile(0.99).Seconds()
	}
	if m.Row == load.RowCycles {
		fields["lockP50"] = run.Steps[0].Quantile(0.5).Seconds()
		fields["lockP99"] = run.Steps[0].Quantile(0.99).Seconds()
	}
	return fields
}

// hasRate reports whether a row's rate tells something: that of hand-overs is the
// rate of the holds between them.
func hasRate(m load.Measurement) bool { return m.Row != load.RowHandOver }
