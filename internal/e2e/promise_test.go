package e2e

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// hold is a hold as clients know it.
type hold struct {
	token, revision uint64
	op              string // what its data is from
	ttl             time.Duration
}

// promise is what clients have been told of a root so far, and what therefore must
// be there whatever happened since.
type promise struct {
	holds    map[string]hold
	revision uint64 // the highest that anybody has seen
}

// outcome counts what a check has looked at.
type outcome struct{ acked, doubt, late, happened, mended int }

func (o *outcome) add(other outcome) {
	o.acked += other.acked
	o.doubt += other.doubt
	o.late += other.late
	o.happened += other.happened
	o.mended += other.mended
}

// check compares what the clients of a load were told with what a daemon that was
// started again says, and returns each difference in words. What it finds is the
// promise from then on.
func (p *promise) check(ctx context.Context, d *daemon, l *load) (problems []string, o outcome, err error) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	o.acked, o.doubt, o.late = len(l.acked), len(l.doubt), l.late
	o.mended = d.mended()
	if l.fault != "" {
		complain("a client got an answer that nobody should get: %s", l.fault)
	}
	locks, err := list(ctx, d.client)
	if err != nil {
		return nil, o, err
	}
	events, err := history(ctx, d.client, p.revision)
	if err != nil {
		return nil, o, err
	}

	// Lock by lock, whatever the history says.
	highest := p.revision
	last := make(map[string]operation) // acknowledged, by name
	ttls := make(map[uint64]time.Duration)
	for _, h := range p.holds {
		ttls[h.token] = h.ttl
	}
	seen := make(map[uint64]operation)
	for _, op := range l.acked {
		if op.kind == extend {
			ttls[op.token] = op.ttl
			continue
		}
		if op.kind == grant {
			ttls[op.token] = op.ttl
		}
		if op.revision <= p.revision {
			complain("%v was acknowledged when revision %d had been given out before", op, p.revision)
		}
		if twin, ok := seen[op.revision]; ok {
			complain("%v and %v have one revision", op, twin)
		}
		seen[op.revision] = op
		highest = max(highest, op.revision)
		if op.revision > last[op.name].revision {
			last[op.name] = op
		}
	}
	for i := range loadNames {
		name := loadName(i)
		op, changed := last[name]
		want, isHeld := p.holds[name]
		if changed {
			isHeld = op.kind != unlock
			want = hold{op.token, op.revision, op.id, 0}
		}
		got := locks[name]
		if fits(got, want, isHeld, ttls[want.token]) || inDoubt(l.doubt, got, want, name, ttls) {
			continue
		}
		complain("%s: acknowledged was held=%t %+v with ttl %v, last by %v; there is token %d, revision %d, ttl %v, data of %s, problem %q", name, isHeld, want, ttls[want.token], op, got.GetToken(), got.GetRevision(), got.GetTtl().AsDuration(), opOf(got), got.GetProblem())
	}

	// Change by change.
	doubt := make(map[string]operation)
	for _, op := range l.doubt {
		doubt[op.id] = op
	}
	state := make(held)
	for name, h := range p.holds {
		state[name] = &pylokv1.Lock{Token: h.token}
	}
	var before uint64
	var replaced *pylokv1.Event // the event before, if it ends a hold that another replaces
	for _, e := range events {
		if e.Revision <= before {
			complain("in the history revision %d follows %d", e.Revision, before)
		}
		before = e.Revision
		if held := state[e.Lock.GetName()]; e.Type == pylokv1.EventType_EVENT_TYPE_LOCKED && held != nil {
			complain("revision %d locks %s, which token %d has", e.Revision, e.Lock.GetName(), held.GetToken())
		}
		if replaced != nil && (e.Type != pylokv1.EventType_EVENT_TYPE_LOCKED || e.Lock.GetName() != replaced.Lock.GetName()) {
			complain("revision %d ends a hold that another replaces, and revision %d is another event", replaced.Revision, e.Revision)
		}
		state.apply(e)
		replaced = nil
		if e.Type == pylokv1.EventType_EVENT_TYPE_UNLOCKED && e.Reason == fmt.Sprintf("replaced by the hold with token %d", e.Revision+1) {
			replaced = e
			continue
		}
		op, ok := seen[e.Revision]
		delete(seen, e.Revision)
		if !ok {
			if op, ok = doubt[mark(e)]; ok {
				o.happened++
				delete(doubt, mark(e))
			}
		}
		if !ok && e.Type == pylokv1.EventType_EVENT_TYPE_UNLOCKED && e.Cause == pylokv1.EventCause_EVENT_CAUSE_FILE {
			// The removal of the file outlived the cut, the line that
			// says who asked for it did not.
			if i := slices.IndexFunc(l.doubt, func(op operation) bool { return op.kind == unlock && op.name == e.Lock.GetName() }); i >= 0 {
				o.happened++
				delete(doubt, l.doubt[i].id)
				continue
			}
		}
		if !ok || op.id != mark(e) || op.name != e.Lock.GetName() || op.kind == grant != (e.Type == pylokv1.EventType_EVENT_TYPE_LOCKED) {
			complain("the history has an event that nobody asked for: revision %d, %v of %s by cause %v, data of %s", e.Revision, e.Type, e.Lock.GetName(), e.Cause, opOf(e.Lock))
		}
	}
	if replaced != nil {
		complain("revision %d ends a hold that another replaces, and nothing follows", replaced.Revision)
	}
	for _, op := range seen {
		complain("the history does not have %v", op)
	}
	for name := range mapsUnion(state, locks) {
		if a, b := state[name].GetToken(), locks[name].GetToken(); a != b {
			complain("%s: token %d by the history, token %d by List", name, a, b)
		}
	}

	// File by file.
	files, err := readFiles(d.root)
	if err != nil {
		return nil, o, err
	}
	problems = append(problems, locks.disagreements(files)...)
	for name, file := range files {
		if token := fmt.Sprint(file.whole["lock_token"]); token != fmt.Sprint(locks[name].GetToken()) {
			complain("%s has token %d and a lock file with token %s", name, locks[name].GetToken(), token)
		}
	}
	for _, pattern := range []string{"*.new", "*.move", "*.take"} {
		leftovers, err := filepath.Glob(filepath.Join(d.root, ".pylok", pattern))
		if err != nil {
			return nil, o, err
		}
		for _, file := range leftovers {
			complain("the start has left %s behind", file)
		}
	}

	info, err := d.client.Info(ctx, &pylokv1.InfoRequest{})
	if err != nil {
		return nil, o, err
	}
	if info.Revision < highest {
		complain("the revision is %d, after %d had been given out", info.Revision, highest)
	}
	p.revision = info.Revision
	p.holds = make(map[string]hold)
	for name, l := range locks {
		p.holds[name] = hold{l.Token, l.Revision, l.Data.GetFields()["op"].GetStringValue(), l.Ttl.AsDuration()}
	}
	return problems, o, nil
}

// mended returns how many lock files the start has brought in line, as far as its log
// has been read.
func (d *daemon) mended() int { return strings.Count(d.log.String(), "mending a lock file") }

// mark returns the id of the operation that an event is of.
func mark(e *pylokv1.Event) string {
	if e.Type == pylokv1.EventType_EVENT_TYPE_UNLOCKED {
		return e.Reason
	}
	return e.Lock.GetData().GetFields()["op"].GetStringValue()
}

// fits reports whether a lock is as it was acknowledged.
func fits(got *pylokv1.Lock, want hold, isHeld bool, ttl time.Duration) bool {
	if got == nil || !isHeld {
		return got == nil && !isHeld
	}
	return got.Token == want.token && got.Revision == want.revision && opOf(got) == want.op &&
		got.Ttl.AsDuration() == ttl && got.Problem == ""
}

// inDoubt reports whether a lock is as one of the operations of unknown outcome
// would have left it. The terms of a renewal may be of a client that was told, or of
// one that was not.
func inDoubt(doubt []operation, got *pylokv1.Lock, want hold, name string, ttls map[uint64]time.Duration) bool {
	return slices.ContainsFunc(doubt, func(op operation) bool {
		if op.name != name {
			return false
		}
		switch op.kind {
		case unlock:
			return got == nil
		case grant:
			return got != nil && opOf(got) == op.id && got.Token > want.revision && got.Ttl.AsDuration() == op.ttl
		case update:
			return got != nil && opOf(got) == op.id && got.Token == op.token && got.Revision > want.revision && got.Ttl.AsDuration() == ttls[op.token]
		default:
			return got != nil && fits(got, want, true, op.ttl)
		}
	})
}

func opOf(l *pylokv1.Lock) string { return l.GetData().GetFields()["op"].GetStringValue() }

func mapsUnion(a, b held) held {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
