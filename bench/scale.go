package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/load"
	"github.com/pylok/pylok/lock"
)

const (
	scaleCallers = 64
	fillers      = 256 // callers that make the locks
	idleFactor   = 10  // the idle server is measured so many times longer
	// A server that has just taken a great many locks is given a rest before it is
	// stopped and measured: it reads each new file once, when that is 2 s old.
	many = 100_000
	rest = time.Minute
	// cycleRounds is how often the cycles are measured, in turn with those of
	// another server, which holds the least number of locks.
	cycleRounds = 5
	// besideCallers make the cycles beside others, of whom a connection has othersEach.
	besideCallers = 16
	othersEach    = 100
)

// lockScale is what was found with so many held locks.
type lockScale struct {
	Locks  int     `json:"locks"`
	Fill   float64 `json:"fill_seconds"` // for those that were not there yet
	Cycles sample  `json:"cycles"`       // the median round
	// Against is the cycles a second over those with the least locks, round by round.
	Against      []float64 `json:"cycles_against_least"`
	Status       sample    `json:"status"`
	List         sample    `json:"list"`     // 100 locks that share a prefix
	ListAll      sample    `json:"list_all"` // 100 locks that share none
	RSS          int64     `json:"rss"`
	RSSEmpty     int64     `json:"rss_empty"` // after the same work without held locks
	BytesPerLock float64   `json:"bytes_per_lock"`
	StartClean   float64   `json:"start_clean_seconds"`
	StartKilled  float64   `json:"start_killed_seconds"`
	IdleCores    float64   `json:"idle_cores"` // CPU seconds a second, with nothing to do but to poll
}

// leaseScale is what was found with so many leases.
type leaseScale struct {
	Leases int     `json:"leases"`
	TTL    float64 `json:"ttl"`
	Renew  sample  `json:"renew"`
	Cores  float64 `json:"cores"` // CPU seconds a second
}

// besideScale is what was found beside so many others who use names of their own.
type besideScale struct {
	What   string `json:"what"` // holds, watches or waiters
	Others int    `json:"others"`
	Cycles sample `json:"cycles"` // the median round
	// Against is the cycles a second over those of a server without others, round by
	// round.
	Against      []float64 `json:"cycles_against_none"`
	BytesOfOther float64   `json:"bytes_of_other"` // RSS of the server that one takes
}

// lockScale returns what was found with n locks, or nil.
func (r *report) lockScale(n int) *lockScale {
	for i := range r.Locks {
		if r.Locks[i].Locks == n {
			return &r.Locks[i]
		}
	}
	return nil
}

// measureScale measures how the cost grows. The root with the locks stays when the
// run is cut short, and the next one goes on with it.
func measureScale(ctx context.Context, s *settings, dir string, r *report, progress io.Writer) error {
	sc := &scaler{settings: s, root: filepath.Join(s.dir, "scale-root"), log: filepath.Join(dir, "log"), progress: progress}
	if err := sc.measureEmpty(ctx, filepath.Join(dir, "empty-root")); err != nil {
		return err
	}
	for _, n := range s.locks {
		found, err := sc.measureLocks(ctx, n)
		if errors.Is(err, errMoreLocks) {
			fmt.Fprintf(progress, "%s locks are left out: the root of the run before has more already; remove %s to begin anew\n", load.FormatCount(float64(n)), sc.root)
			continue
		}
		if err != nil {
			return fmt.Errorf("with %s locks (the root %s stays for the next run): %w", load.FormatCount(float64(n)), sc.root, err)
		}
		r.Locks = append(r.Locks, found)
	}
	if !s.keep {
		fmt.Fprintf(progress, "removing %s\n", sc.root)
		if err := removeRoot(sc.root); err != nil {
			return err
		}
	}
	for _, n := range s.leases {
		found, err := sc.measureLeases(ctx, filepath.Join(dir, fmt.Sprintf("lease-root-%d", n)), n)
		if err != nil {
			return fmt.Errorf("with %s leases: %w", load.FormatCount(float64(n)), err)
		}
		r.Leases = append(r.Leases, found)
	}
	for _, what := range []string{"holds", "watches", "waiters"} {
		for _, n := range s.others {
			found, err := sc.measureBeside(ctx, filepath.Join(dir, fmt.Sprintf("%s-root-%d", what, n)), what, n)
			if err != nil {
				return fmt.Errorf("beside %s %s: %w", load.FormatCount(float64(n)), what, err)
			}
			r.Beside = append(r.Beside, found)
		}
	}
	return nil
}

// scaler measures one daemon after the other.
type scaler struct {
	*settings
	root, log string
	progress  io.Writer
	empty     int64 // RSS of a daemon that has worked and holds nothing

	server *process
	target *load.Pylok
}

// start starts the daemon and returns how long it took until it served.
func (sc *scaler) start(ctx context.Context, root string) (time.Duration, error) {
	began := time.Now()
	server, address, err := startPylokd(ctx, sc.settings, root, sc.log)
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	sc.server = server
	sc.target, err = load.NewPylok(pylokHolder, func() (*client.Client, error) {
		return client.Dial(address, client.Options{})
	})
	if err == nil {
		_, err = sc.target.Service.Info(ctx, &pylokv1.InfoRequest{})
	}
	return took, err
}

// stop ends the daemon, if one runs.
func (sc *scaler) stop(end func(*process) error) error {
	server := sc.server
	if server == nil {
		return nil
	}
	sc.server = nil
	var err error
	if sc.target != nil {
		err = sc.target.Close()
	}
	return errors.Join(err, end(server))
}

func (sc *scaler) options() load.Options {
	return sc.settings.options(sc.server.cpu)
}

// measureEmpty finds the memory of a daemon that has worked and holds no locks.
func (sc *scaler) measureEmpty(ctx context.Context, root string) (err error) {
	defer func() { err = errors.Join(err, sc.stop((*process).stop)) }()
	if _, err := sc.start(ctx, root); err != nil {
		return err
	}
	if _, err := load.Cycles(ctx, sc.target, scaleCallers, sc.options()); err != nil {
		return err
	}
	sc.empty, err = sc.server.rss()
	return err
}

// errMoreLocks: the root already has more locks than are wanted.
var errMoreLocks = errors.New("more locks")

func (sc *scaler) measureLocks(ctx context.Context, n int) (found lockScale, err error) {
	defer func() { err = errors.Join(err, sc.stop((*process).stop)) }()
	found = lockScale{Locks: n, RSSEmpty: sc.empty}
	if _, err := sc.start(ctx, sc.root); err != nil {
		return found, err
	}
	began := time.Now()
	if err := sc.fill(ctx, n); err != nil {
		return found, err
	}
	found.Fill = time.Since(began).Seconds()
	if err := sc.restAfter(ctx, n); err != nil {
		return found, err
	}
	if err := sc.stop((*process).stop); err != nil {
		return found, err
	}
	ready, err := sc.start(ctx, sc.root)
	if err != nil {
		return found, err
	}
	found.StartClean = ready.Seconds()
	if err := sc.measureCycles(ctx, &found); err != nil {
		return found, err
	}
	for _, m := range []struct {
		into *sample
		run  func() (load.Run, error)
	}{
		{&found.Status, func() (load.Run, error) { return load.Reads(ctx, sc.target, scaleCallers, sc.options()) }},
		{&found.List, func() (load.Run, error) { return sc.list(ctx, "scale/000/lock-00000*", min(n, 100)) }},
		{&found.ListAll, func() (load.Run, error) { return sc.list(ctx, "**/lock-00000*", min(n, 100)) }},
	} {
		run, err := m.run()
		if err != nil {
			return found, err
		}
		*m.into = sampleOf(run)
	}
	fmt.Fprintf(sc.progress, "%s locks: the idle server, %v\n", load.FormatCount(float64(n)), idleFactor*sc.duration())
	if found.IdleCores, err = sc.idle(ctx); err != nil {
		return found, err
	}
	if found.RSS, err = sc.server.rss(); err != nil {
		return found, err
	}
	found.BytesPerLock = float64(found.RSS-found.RSSEmpty) / float64(n)
	if err := sc.stop((*process).kill); err != nil {
		return found, err
	}
	ready, err = sc.start(ctx, sc.root)
	found.StartKilled = ready.Seconds()
	return found, err
}

// measureCycles measures the cycles beside the held locks, in turn with those of another
// server that holds the least number of locks: minutes later the machine may be another.
func (sc *scaler) measureCycles(ctx context.Context, found *lockScale) (err error) {
	least := sc.another("least-root")
	defer func() { err = errors.Join(err, least.stop((*process).stop), removeRoot(least.root)) }()
	if _, err := least.start(ctx, least.root); err != nil {
		return err
	}
	if err := least.fill(ctx, sc.locks[0]); err != nil {
		return err
	}
	found.Cycles, found.Against, err = sc.cyclesAgainst(ctx, least, scaleCallers)
	return err
}

// another returns a scaler for another server, on a root of its own.
func (sc *scaler) another(root string) *scaler {
	return &scaler{settings: sc.settings, root: filepath.Join(filepath.Dir(sc.log), root), log: sc.log, progress: sc.progress}
}

// cyclesAgainst measures the cycles of two servers in turn. It returns the median round
// of sc, and its rates over those of the other, round by round.
func (sc *scaler) cyclesAgainst(ctx context.Context, other *scaler, callers int) (median sample, against []float64, err error) {
	var rounds []sample
	for range cycleRounds {
		var pair [2]sample
		for i, of := range []*scaler{sc, other} {
			run, err := load.Cycles(ctx, of.target, callers, of.options())
			if err != nil {
				return median, nil, err
			}
			pair[i] = sampleOf(run)
		}
		rounds = append(rounds, pair[0])
		against = append(against, pair[0].PerSecond/pair[1].PerSecond)
	}
	slices.SortFunc(rounds, func(a, b sample) int { return cmp.Compare(a.PerSecond, b.PerSecond) })
	return rounds[len(rounds)/2], against, nil
}

// beginOther has one hold a name, begin to watch it, or wait for it while it is held, by the
// word for many of them. What waits ends with ctx.
var beginOther = map[string]func(ctx context.Context, service pylokv1.LockServiceClient, name string) error{
	"holds": func(ctx context.Context, service pylokv1.LockServiceClient, name string) error {
		_, err := service.Lock(ctx, &pylokv1.LockRequest{Name: name})
		return err
	},
	"watches": func(ctx context.Context, service pylokv1.LockServiceClient, name string) error {
		stream, err := service.Watch(ctx, &pylokv1.WatchRequest{Pattern: name})
		for synced := false; err == nil && !synced; {
			var response *pylokv1.WatchResponse
			response, err = stream.Recv()
			synced = response.GetEvent().GetType() == pylokv1.EventType_EVENT_TYPE_SYNCED
		}
		return err
	},
	"waiters": func(ctx context.Context, service pylokv1.LockServiceClient, name string) error {
		_, err := service.Lock(ctx, &pylokv1.LockRequest{Name: name})
		if err != nil {
			return err
		}
		go service.Lock(ctx, &pylokv1.LockRequest{Name: name, Wait: durationpb.New(time.Hour)})
		for {
			response, err := service.Status(ctx, &pylokv1.StatusRequest{Name: name})
			if err != nil || response.GetLock().GetWaiters() > 0 {
				return err
			}
		}
	},
}

// measureBeside measures the cycles beside n others, each with a name of its own at which
// nothing happens, in turn with those of a server without.
func (sc *scaler) measureBeside(ctx context.Context, root, what string, n int) (found besideScale, err error) {
	defer func() { err = errors.Join(err, sc.stop((*process).stop)) }()
	fmt.Fprintf(sc.progress, "%s %s\n", load.FormatCount(float64(n)), what)
	if _, err := sc.start(ctx, root); err != nil {
		return found, err
	}
	none := sc.another("none-root")
	defer func() { err = errors.Join(err, none.stop((*process).stop), removeRoot(none.root)) }()
	if _, err := none.start(ctx, none.root); err != nil {
		return found, err
	}
	others, end := context.WithCancel(ctx)
	defer end()
	before, err := sc.server.rss()
	if err != nil {
		return found, err
	}
	err = load.Each(ctx, n, scaleCallers, func(_ context.Context, i int) error {
		service, err := sc.target.Connection(1 + i/othersEach)
		if err != nil {
			return err
		}
		return beginOther[what](others, service, fmt.Sprintf("quiet/%d", i))
	})
	if err != nil {
		return found, err
	}
	after, err := sc.server.rss()
	if err != nil {
		return found, err
	}
	found.What, found.Others, found.BytesOfOther = what, n, float64(after-before)/float64(n)
	found.Cycles, found.Against, err = sc.cyclesAgainst(ctx, none, besideCallers)
	return found, err
}

// scaleName returns the name of the lock with a number: 1,000 to a directory.
func scaleName(i int) string { return fmt.Sprintf("scale/%03d/lock-%07d", i/1000, i) }

// fill takes locks until n are held, those of an earlier run included.
func (sc *scaler) fill(ctx context.Context, n int) error {
	most := slices.Max(sc.locks)
	var failed error
	// What is held is a run from 0 on, but for the last ones, which were taken
	// at the same time.
	held := sort.Search(most, func(i int) bool {
		response, err := sc.target.Service.Status(ctx, &pylokv1.StatusRequest{Name: scaleName(i)})
		failed = errors.Join(failed, err)
		return response.GetLock().GetState() != pylokv1.LockState_LOCK_STATE_LOCKED
	})
	switch {
	case failed != nil:
		return failed
	case held > n:
		return errMoreLocks
	}
	first := max(0, held-2*fillers)
	fmt.Fprintf(sc.progress, "%s locks: taking %s\n", load.FormatCount(float64(n)), load.FormatCount(float64(n-first)))
	return load.Each(ctx, n-first, fillers, func(ctx context.Context, i int) error {
		_, err := sc.target.Take(ctx, scaleName(first+i), 0)
		if errors.Is(err, lock.ErrLockHeld) {
			err = nil
		}
		return err
	})
}

// list measures List of a pattern that selects so many locks.
func (sc *scaler) list(ctx context.Context, pattern string, want int) (load.Run, error) {
	return load.Repeat(ctx, 1, sc.options(), func(ctx context.Context, _ int) error {
		response, err := sc.target.Service.List(ctx, &pylokv1.ListRequest{Pattern: pattern})
		if err == nil && len(response.GetLocks()) != want {
			err = fmt.Errorf("List of %s has %d locks, not %d", pattern, len(response.GetLocks()), want)
		}
		return err
	})
}

// idle returns how many cores the server takes with nothing to do.
func (sc *scaler) idle(ctx context.Context) (cores float64, err error) {
	before, err := sc.server.cpu()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := sleep(ctx, idleFactor*sc.duration()); err != nil {
		return 0, err
	}
	after, err := sc.server.cpu()
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}

// sleep waits for so long, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restAfter gives the server a rest when it has just taken n locks, if these are many.
func (sc *scaler) restAfter(ctx context.Context, n int) error {
	if n < many {
		return nil
	}
	fmt.Fprintf(sc.progress, "%s locks: a rest of %v\n", load.FormatCount(float64(n)), rest)
	return sleep(ctx, rest)
}

// measureLeases has n leases renewed at a third of their ttl.
func (sc *scaler) measureLeases(ctx context.Context, root string, n int) (found leaseScale, err error) {
	defer func() { err = errors.Join(err, sc.stop((*process).stop)) }()
	fmt.Fprintf(sc.progress, "%s leases: taking them\n", load.FormatCount(float64(n)))
	if _, err := sc.start(ctx, root); err != nil {
		return found, err
	}
	tokens := make([]uint64, n)
	err = load.Each(ctx, n, fillers, func(ctx context.Context, i int) (err error) {
		// A long ttl first: taking all of them may last longer than theirs.
		tokens[i], err = sc.target.Take(ctx, scaleName(i), time.Hour)
		return err
	})
	if err != nil {
		return found, err
	}
	if err := sc.restAfter(ctx, n); err != nil {
		return found, err
	}
	renew := func(ttl *durationpb.Duration) load.Step {
		return func(ctx context.Context, i int) error {
			request := &pylokv1.RenewRequest{Name: scaleName(i), Token: tokens[i]}
			if ttl != nil {
				request.Expiry = &pylokv1.RenewRequest_Ttl{Ttl: ttl}
			}
			_, err := sc.target.Service.Renew(ctx, request)
			return err
		}
	}
	period := sc.ttl / 3
	fmt.Fprintf(sc.progress, "%s leases: renewing each every %v\n", load.FormatCount(float64(n)), period)
	options := sc.options()
	options.Duration = period + period/10 // each at least once
	if _, err := load.Pace(ctx, n, fillers, period, options, renew(durationpb.New(sc.ttl))); err != nil {
		return found, err
	}
	options.Duration = max(idleFactor*sc.duration(), options.Duration)
	run, err := load.Pace(ctx, n, fillers, period, options, renew(nil))
	if err != nil {
		return found, err
	}
	return leaseScale{
		Leases: n,
		TTL:    sc.ttl.Seconds(),
		Renew:  sampleOf(run),
		Cores:  run.CPU.Seconds() / run.Elapsed.Seconds(),
	}, nil
}

// printScale writes how the cost grows.
func (r *report) printScale(w io.Writer) {
	fmt.Fprintf(w, "\npylok alone, %d callers, %v s each.\n\n", scaleCallers, r.Seconds)
	t := newTable(w, "held locks", "cycles a second", "against the least", "Status a second", "List of 100, one prefix", "List of 100, anywhere", "RSS", "bytes a lock", "start to ready", "after kill -9", "idle, cores")
	for _, l := range r.Locks {
		t.row(load.FormatCount(float64(l.Locks)), load.FormatCount(l.Cycles.PerSecond), spreadOf(l.Against).format(times), load.FormatCount(l.Status.PerSecond),
			duration(l.List.P50), duration(l.ListAll.P50), mebibytes(float64(l.RSS)), load.FormatCount(l.BytesPerLock),
			duration(l.StartClean), duration(l.StartKilled), fmt.Sprintf("%.3f", l.IdleCores))
	}
	t.Flush()
	fmt.Fprintln(w)
	t = newTable(w, "leases", "ttl", "renewals a second", "p50", "p99", "server, cores", "server CPU for each")
	for _, l := range r.Leases {
		t.row(load.FormatCount(float64(l.Leases)), fmt.Sprintf("%v s", l.TTL), fmt.Sprintf("%.1f", l.Renew.PerSecond),
			duration(l.Renew.P50), duration(l.Renew.P99), fmt.Sprintf("%.3f", l.Cores), duration(l.Renew.CPU))
	}
	t.Flush()
	fmt.Fprintf(w, "\n%d callers.\n\n", besideCallers)
	t = newTable(w, "beside", "cycles a second", "against none", "server CPU s for 1,000", "RSS for each of them")
	for _, l := range r.Beside {
		t.row(load.FormatCount(float64(l.Others))+" "+l.What, load.FormatCount(l.Cycles.PerSecond), spreadOf(l.Against).format(times),
			fmt.Sprintf("%.3g", l.Cycles.CPU*1000), load.FormatCount(l.BytesOfOther))
	}
	t.Flush()
}
