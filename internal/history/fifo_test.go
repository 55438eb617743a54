package history

import (
	"fmt"
	"slices"
	"time"
)

// fifo checks that waiters are served in the order they came, and that nobody who
// comes later is served before, as far as the order is known: a Status that shows as
// many waiters as requests can stand in line at all shows that all of these do. Who
// begins to call after that came later. It returns how many pairs of requests it
// compared.
func fifo(operations []*operation) (compared int, problems []string) {
	var waits, looks, grants []*operation
	places := make(map[string]int64) // when a request was first sent, by its id
	for _, o := range operations {
		switch {
		case o.kind == statusOp && o.outcome == done:
			looks = append(looks, o)
		case o.kind == lockOp && o.wait > 0:
			waits = append(waits, o)
		}
		if o.kind == lockOp && o.requestID != "" {
			if first, sent := places[o.requestID]; !sent || o.call < first {
				places[o.requestID] = o.call
			}
		}
		if o.kind == lockOp && o.outcome == done && !o.overwrite {
			grants = append(grants, o)
		}
	}
	// since is when a waiter surely stood in line.
	since := make(map[*operation]int64)
	for _, look := range looks {
		var could []*operation
		for _, w := range waits {
			if w.call <= look.ret && w.ret >= look.call {
				could = append(could, w)
			}
		}
		if len(could) == 0 || int(look.lock.waiters) != len(could) {
			continue
		}
		for _, w := range could {
			if at, known := since[w]; !known || look.ret < at {
				since[w] = look.ret
			}
		}
	}
	slices.SortFunc(grants, func(a, b *operation) int { return int(a.lock.token) - int(b.lock.token) })
	for first, at := range since {
		for _, later := range grants {
			came := later.call
			if later.requestID != "" {
				came = places[later.requestID]
			}
			if later == first || came <= at || later.requestID != "" && later.requestID == first.requestID || later.call > first.ret {
				continue
			}
			compared++
			// Until when the first surely wanted the lock and did not have it.
			until, how := first.alive, "still waited"
			switch {
			case first.outcome == done:
				if later.lock.token >= first.lock.token {
					continue
				}
				until, how = never, "was granted after it"
			case first.outcome == refused:
				until = min(until, first.call+int64(first.wait))
			}
			if later.ret < until || first.outcome == done {
				problems = append(problems, fmt.Sprintf("first in, first out: %v (called at %s) came after %v (called at %s, in line by %s), which %s",
					later, seconds(later.call), first, seconds(first.call), seconds(at), how))
			}
		}
	}
	return compared, problems
}

// increasing checks that no token is granted twice, and that a grant that was asked
// for after another was answered has a higher one, over all locks and daemons.
func increasing(operations []*operation, granted map[uint64]*operation) (problems []string) {
	var grants []*operation
	for _, o := range operations {
		if o.kind != lockOp || o.outcome != done {
			continue
		}
		by := granted[o.lock.token]
		switch {
		case by == nil || by.name != o.name, by != o && (o.requestID == "" || by.requestID != o.requestID):
			problems = append(problems, fmt.Sprintf("tokens: %v has the token of another grant: %v", o, by))
		case by == o:
			grants = append(grants, o)
		}
	}
	answered := slices.SortedFunc(slices.Values(grants), func(a, b *operation) int { return int(a.ret - b.ret) })
	asked := slices.SortedFunc(slices.Values(grants), func(a, b *operation) int { return int(a.call - b.call) })
	var highest *operation
	for _, o := range asked {
		for len(answered) > 0 && answered[0].ret < o.call {
			if highest == nil || answered[0].lock.token > highest.lock.token {
				highest = answered[0]
			}
			answered = answered[1:]
		}
		if highest != nil && highest.lock.token >= o.lock.token {
			problems = append(problems, fmt.Sprintf("tokens: %v was asked for after %v was answered", o, highest))
		}
	}
	return problems
}

// checkAll runs all checks. Pictures of violations go into files that the problems
// name.
func (e *evidence) checkAll(timeout time.Duration, picture func(name string) string) (compared int) {
	e.problems = append(e.problems, increasing(e.run.operations, e.granted)...)
	lines := make(map[place][]*operation)
	for _, o := range e.run.operations {
		at := place{o.generation, o.name}
		lines[at] = append(lines[at], o)
	}
	for _, name := range e.run.names {
		for i := range e.run.generations {
			at := place{i, name}
			n, problems := fifo(lines[at])
			compared += n
			e.problems = append(e.problems, problems...)
			operations := e.effective[at]
			if i == len(e.run.generations)-1 {
				continue // only read
			}
			result, visualize := e.models[at].check(operations, timeout)
			if result == "Ok" {
				continue
			}
			file := picture(fmt.Sprintf("%s-%d", at.name, at.generation))
			if err := visualize(file); err != nil {
				e.problem("drawing: %v", err)
			}
			e.problem("porcupine: %s: no order of the %d operations on %s in the life of daemon %d was found that the model allows; see %s", result, len(operations), at.name, at.generation, file)
		}
	}
	return compared
}
