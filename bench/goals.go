package main

import (
	"fmt"
	"io"

	"github.com/pylok/pylok/internal/load"
)

// goal is a line of what pylok must show on 2 CPUs.
type goal struct {
	what    string
	asked   string // how much
	found   string // empty: not measured
	reached bool
}

// lockSlack is how much longer Lock may take than an empty call and an fdatasync.
const lockSlack = 60e-6

// goals compares the report with what is asked.
func (r *report) goals() (all []goal) {
	add := func(what string) *goal {
		all = append(all, goal{what: what})
		return &all[len(all)-1]
	}
	for _, callers := range []int{1, 16, 64, 256} {
		r.faster(add("durable Lock+Unlock cycles a second against etcd, "+load.FormatSize(callers, "caller")), load.RowCycles, callers, "etcd", 1.3)
	}
	for _, callers := range []int{16, 64, 256} {
		r.faster(add("requests a second of those cycles against empty calls, "+load.FormatSize(callers, "caller")), load.RowCycles, callers, "empty", 0.6)
	}

	g := add("p50 of Lock at 1 caller: an empty call, one fdatasync and 60 µs")
	lock, call, sync := r.row(load.RowCycles, 1, "pylok"), r.row(load.RowReads, 1, "empty"), r.row(dataSync, 1, "files")
	if lock != nil && call != nil && sync != nil {
		// Round by round: the disk's mood changes.
		var over []float64
		for i := range min(len(lock.Rounds), len(call.Rounds), len(sync.Rounds)) {
			over = append(over, lock.Rounds[i].FirstP50-call.Rounds[i].P50-sync.Rounds[i].P50)
		}
		g.asked = fmt.Sprintf("%s + %s + 60 µs", duration(call.spread(p50).median), duration(sync.spread(p50).median))
		g.found = fmt.Sprintf("%s, which is %s over the two", lock.spread(firstP50).format(duration), spreadOf(over).format(duration))
		g.reached = spreadOf(over).median <= lockSlack
	}
	r.faster(add("Status requests a second against empty calls, 64 callers"), load.RowReads, 64, "empty", 0.9)

	r.below(add("release to the next waiter running, p50, 16 waiters"), load.RowHandOver, 16, p50, 1e-3)
	r.below(add("server CPU for each event delivered to 1,000 subscribers"), load.RowDeliveries, 1000, cpu, 10e-6)
	return append(all, r.scaleGoals()...)
}

// faster fills in a goal that asks for so many times a peer's rate.
func (r *report) faster(g *goal, what string, size int, peer string, least float64) {
	g.asked = fmt.Sprintf("%.3g times or more", least)
	own, other := r.row(what, size, "pylok"), r.row(what, size, peer)
	if own == nil || other == nil {
		return
	}
	s := ratio(own, other, perSecond)
	g.found, g.reached = s.format(times), s.median >= least
}

// below fills in a goal that asks for a time to be at most so many seconds.
func (r *report) below(g *goal, what string, size int, of func(sample) float64, most float64) {
	g.asked = duration(most) + " or less"
	if row := r.row(what, size, "pylok"); row != nil {
		s := row.spread(of)
		g.found, g.reached = s.format(duration), s.median <= most
	}
}

// scaleGoals are those of a run with -scale.
func (r *report) scaleGoals() (all []goal) {
	const locks, leases, watches = 1_000_000, 100_000, 5_000
	memory := goal{what: "1,000,000 held locks: memory for each", asked: "1 KiB or less"}
	rate := goal{what: "1,000,000 held locks: cycles a second against 1,000 held", asked: "0.9 times or more"}
	ready := goal{what: "1,000,000 held locks: start to ready", asked: "10 s or less"}
	if most := r.lockScale(locks); most != nil {
		memory.found, memory.reached = load.FormatCount(most.BytesPerLock)+" bytes", most.BytesPerLock <= 1024
		slowest := max(most.StartClean, most.StartKilled)
		ready.found = fmt.Sprintf("%s; after kill -9 %s", duration(most.StartClean), duration(most.StartKilled))
		ready.reached = slowest <= 10
		if len(r.Locks) > 1 && r.Locks[0].Locks == 1000 {
			against := spreadOf(most.Against)
			rate.found, rate.reached = against.format(times), against.median >= 0.9
		}
	}
	renewing := goal{what: "100,000 leases at ttl 30 s, renewed at a third: server CPU", asked: "half a core or less"}
	for _, scale := range r.Leases {
		if scale.Leases == leases && scale.TTL == 30 {
			renewing.found, renewing.reached = fmt.Sprintf("%.2f cores", scale.Cores), scale.Cores <= 0.5
		}
	}
	watched := goal{what: "cycles a second beside 5,000 watches of other names against none, 16 callers", asked: "0.9 times or more"}
	for _, scale := range r.Beside {
		if scale.What == "watches" && scale.Others == watches {
			against := spreadOf(scale.Against)
			watched.found, watched.reached = against.format(times), against.median >= 0.9
		}
	}
	return []goal{memory, rate, ready, renewing, watched}
}

// printGoals writes what pylok must show and whether it does.
func (r *report) printGoals(w io.Writer) {
	t := newTable(w, "what pylok must show, on 2 CPUs", "asked", "found", "reached")
	for _, g := range r.goals() {
		reached := "not measured"
		switch {
		case g.found != "" && g.reached:
			reached = "yes"
		case g.found != "":
			reached = "no"
		}
		t.row(g.what, g.asked, g.found, reached)
	}
	t.Flush()
}
