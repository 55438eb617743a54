// Bench measures pylok and what people use in its place, side by side on one machine.
// Run it from the top of the repository:
//
//	go run -C bench .
//
// docs/performance.md says what each row means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pylok/pylok/internal/load"
)

func main() {
	if server := os.Getenv(childEnv); server != "" {
		if err := runChild(server, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	debug.SetGCPercent(load.GCPercent)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once, and the kernel its servers
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil:
		return
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	os.Exit(1)
}

// settings are the flags.
type settings struct {
	// rounds is how often everything is measured; seconds is how long each
	// measurement goes on.
	rounds  int
	seconds float64
	// only are the contenders that take part; the others are the numbers of
	// those that do something at the same time.
	only                          []string
	callers, waiters, subscribers []int
	// dir is where the data goes, jsonFile where the report goes too.
	dir, jsonFile string
	// pylokd is the daemon's program, built for the run if it is not given;
	// pylokdArgs are flags for it.
	pylokd     string
	pylokdArgs []string

	// scale measures how the cost grows too: with that many locks, that many leases
	// with a ttl, and beside that many others. keep leaves the root with the locks for
	// the next run to go on with.
	scale                 bool
	locks, leases, others []int
	ttl                   time.Duration
	keep                  bool
}

func (s *settings) duration() time.Duration {
	return time.Duration(s.seconds * float64(time.Second))
}

// options say how to measure a server whose CPU time is known.
func (s *settings) options(cpu func() (time.Duration, error)) load.Options {
	return load.Options{Prefix: "bench/", Duration: s.duration(), CPU: cpu}
}

func (s *settings) wants(contender string) bool { return slices.Contains(s.only, contender) }

func parse(args []string, stderr io.Writer) (*settings, error) {
	s := new(settings)
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&s.rounds, "rounds", 5, "measure everything `N` times, the contenders in turn; 0: only what -scale asks for")
	flags.Float64Var(&s.seconds, "seconds", 3, "measure for so many `SECONDS` at a time")
	only := flags.String("only", "pylok,empty,etcd,redis,files", "the `CONTENDERS` that take part")
	callers := flags.String("callers", "1,16,64,256", "the numbers of concurrent `CALLERS`")
	waiters := flags.String("waiters", "1,16,256", "the numbers of `WAITERS` for one lock")
	subscribers := flags.String("subscribers", "1,100,1000", "the numbers of `SUBSCRIBERS` of Watch")
	flags.StringVar(&s.dir, "dir", "data", "put the data into `DIR`, made if it is missing; its disk is what is measured")
	flags.StringVar(&s.jsonFile, "json", "", "write the report to `FILE` too, as JSON with every round")
	flags.StringVar(&s.pylokd, "pylokd", "", "the daemon's `PROGRAM`; built from this tree if not given")
	pylokdArgs := flags.String("pylokd-args", "", "more `FLAGS` for the daemon, separated by spaces")
	flags.BoolVar(&s.scale, "scale", false, "then measure how pylok's cost grows with the number of locks, of leases, and of others")
	locks := flags.String("locks", "1000,100000,1000000", "with -scale: the numbers of held `LOCKS`, increasing")
	leases := flags.String("leases", "1,10000,100000", "with -scale: the numbers of `LEASES`, renewed at a third of their ttl")
	others := flags.String("others", "10,5000", "with -scale: the numbers of `OTHERS` who hold names of their own, watch them, or wait for them")
	flags.DurationVar(&s.ttl, "ttl", 30*time.Second, "with -scale: the leases' `TTL`")
	flags.BoolVar(&s.keep, "keep", false, "with -scale: leave the root with the locks in DIR; the next run goes on with it, as it does after one that was cut short")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	s.only = strings.Split(*only, ",")
	s.pylokdArgs = strings.Fields(*pylokdArgs)
	for _, name := range s.only {
		if !slices.ContainsFunc(starters, func(st starter) bool { return st.name == name }) {
			return nil, fmt.Errorf("-only has %q; there are pylok, empty, etcd, redis and files", name)
		}
	}
	for _, list := range []struct {
		into       *[]int
		flag, text string
		most       int
	}{
		{&s.callers, "-callers", *callers, 4096},
		{&s.waiters, "-waiters", *waiters, 4096},
		{&s.subscribers, "-subscribers", *subscribers, 4096},
		{&s.locks, "-locks", *locks, 2_000_000},
		{&s.leases, "-leases", *leases, 1_000_000},
		{&s.others, "-others", *others, 100_000},
	} {
		var err error
		if *list.into, err = load.ParseSizes(list.text, list.most); err != nil {
			return nil, fmt.Errorf("%s: %w", list.flag, err)
		}
	}
	switch {
	case s.rounds < 0 || s.rounds > 100 || s.rounds == 0 && !s.scale:
		return nil, fmt.Errorf("-rounds is %d; give 1 to 100, or 0 with -scale", s.rounds)
	case s.seconds < 0.05 || s.seconds > 120:
		return nil, fmt.Errorf("-seconds is %v; give 0.05 to 120", s.seconds)
	case !slices.IsSorted(s.locks):
		return nil, errors.New("-locks must increase: one root is filled step by step")
	case s.ttl < time.Second || s.ttl > time.Hour:
		return nil, fmt.Errorf("-ttl is %v; give 1s to 1h", s.ttl)
	}
	return s, nil
}

// run is the benchmark.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return err
	}
	work, err := os.MkdirTemp(s.dir, "run-")
	if err != nil {
		return err
	}
	defer os.Remove(s.dir) // if nothing else is in it
	defer os.RemoveAll(work)
	machine, err := describeMachine(s.dir)
	if err != nil {
		return err
	}
	if machine.FileSystem == "tmpfs" {
		fmt.Fprintf(stderr, "bench: %s is in memory, so nothing here is durable and the figures mean nothing; give a directory on a disk with -dir\n", s.dir)
	}
	if s.pylokd == "" && (s.scale || s.wants("pylok")) {
		if s.pylokd, err = buildPylokd(ctx, work); err != nil {
			return err
		}
	}
	report := &report{Machine: machine, Rounds: s.rounds, Seconds: s.seconds}
	if s.rounds > 0 {
		err = compare(ctx, s, work, report, stderr)
	}
	if err == nil && s.scale {
		err = measureScale(ctx, s, work, report, stderr)
	}
	// What has been measured is shown also when the run was cut short.
	report.print(stdout)
	if s.jsonFile != "" {
		err = errors.Join(err, report.writeJSON(s.jsonFile))
	}
	return err
}
