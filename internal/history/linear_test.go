package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// stepOp is what an act did to several locks in one step, or saw of them.
type stepOp struct {
	what     string
	revision uint64     // the last of the step; 0: it changed nothing
	before   uint64     // that before its first
	taken    []hold     // granted
	ended    []hold     // held before, and not after
	over     []hold     // these were not held
	seen     *[6]uint64 // the tokens of all, as they were
}

// sixLocks are the tokens of six locks, and the revision of their last change.
type sixLocks struct {
	tokens   [6]uint64
	revision uint64
}

// sixModel is the sequential specification of six locks: what a set does, it does at once.
func sixModel(names []string) porcupine.Model {
	index := func(name string) int { return slices.Index(names, name) }
	return porcupine.Model{
		Init: func() any { return sixLocks{} },
		Step: func(state, input, _ any) (bool, any) {
			s, o := state.(sixLocks), input.(*stepOp)
			if o.revision != 0 && o.before != s.revision {
				return false, s
			}
			for _, h := range o.over {
				if s.tokens[index(h.name)] == h.token {
					return false, s
				}
			}
			for _, h := range o.ended {
				i := index(h.name)
				if s.tokens[i] != h.token {
					return false, s
				}
				s.tokens[i] = 0
			}
			for _, h := range o.taken {
				i := index(h.name)
				if s.tokens[i] != 0 {
					return false, s
				}
				s.tokens[i] = h.token
			}
			if o.seen != nil && *o.seen != s.tokens {
				return false, s
			}
			s.revision = max(s.revision, o.revision)
			return true, s
		},
		DescribeOperation: func(input, _ any) string { return input.(*stepOp).what },
		DescribeState:     func(state any) string { return fmt.Sprint(state) },
	}
}

// steps returns what the acts of a party did, with the history's help where the guests do
// not know it.
func (p *party) steps() []porcupine.Operation {
	var operations []porcupine.Operation
	add := func(o *stepOp, call, ret int64) {
		operations = append(operations, porcupine.Operation{ClientId: 0, Input: o, Output: o, Call: call, Return: ret})
	}
	latest := func(sent []*act) int64 { // by when one of them was answered, or none can take effect any more
		answered, last := int64(never), int64(always)
		for _, a := range sent {
			answered = min(answered, a.before())
			last = max(last, p.started[a.generation].ended)
		}
		return min(answered, last)
	}
	acts := make(map[string]*act)
	for _, a := range p.acts {
		acts[a.id] = a
	}
	ended := make(map[*act]*stepOp)
	taken := make(map[*demand]*stepOp)
	last := uint64(0) // revision of the step before
	for i, event := range p.history {
		l := event.GetLock()
		ref := hold{l.GetName(), l.GetToken()}
		id := l.GetData().GetFields()["op"].GetStringValue()
		if i > 0 {
			last = p.history[i-1].GetRevision()
		}
		switch {
		case event.GetPreviousToken() != 0: // with the event before
			before := uint64(0)
			if i > 1 {
				before = p.history[i-2].GetRevision()
			}
			a := acts[id]
			add(&stepOp{what: a.String(), revision: event.GetRevision(), before: before, ended: []hold{{l.GetName(), event.GetPreviousToken()}}, taken: []hold{ref}}, a.call, latest([]*act{a}))
		case event.GetType() == pylokv1.EventType_EVENT_TYPE_LOCKED:
			d := p.demands[id]
			if o := taken[d]; o != nil && len(o.taken) == d.size() { // it was granted before, and that was undone
				add(o, d.sendings[0].call, latest(d.sendings))
				taken[d] = nil
			}
			if taken[d] == nil {
				taken[d] = &stepOp{what: d.String(), before: last}
			}
			taken[d].taken = append(taken[d].taken, ref)
			taken[d].revision = event.GetRevision()
		case event.GetReason() == undoneReason:
			if d := p.demands[id]; d != nil {
				add(&stepOp{what: "undone: " + d.String(), revision: event.GetRevision(), before: last, ended: []hold{ref}}, d.sendings[0].call, p.started[d.sendings[len(d.sendings)-1].generation].ended)
			}
		default:
			if a := acts[event.GetReason()]; a != nil {
				if ended[a] == nil {
					ended[a] = &stepOp{what: a.String(), over: a.refused, before: last}
				}
				ended[a].ended = append(ended[a].ended, ref)
				ended[a].revision = event.GetRevision()
			}
		}
	}
	for d, o := range taken {
		add(o, d.sendings[0].call, latest(d.sendings))
	}
	for a, o := range ended {
		add(o, a.call, latest([]*act{a}))
	}
	for _, a := range p.acts {
		switch {
		case a.outcome != done && a.reason != "NOT_HOLDER" && a.reason != "NOT_LOCKED":
		case a.kind == unlockOp && ended[a] == nil:
			over := a.refused
			if a.outcome == refused {
				over = a.holds
			}
			add(&stepOp{what: a.String(), over: over}, a.call, a.ret)
		case a.kind == listOp:
			seen := new([6]uint64)
			for _, l := range a.locks {
				seen[slices.Index(p.names, l.GetName())] = l.GetToken()
			}
			add(&stepOp{what: fmt.Sprint("List ", *seen), seen: seen}, a.call, a.ret)
		}
	}
	return operations
}

// TestSetsLinearizable: what guests see of up to six locks that they take together could
// have been seen if each step was made at one moment.
func TestSetsLinearizable(t *testing.T) {
	build(t)
	s := partySettings{
		seed: *seedFlag, duration: *durationFlag / 20, guests: 12,
		names: numbered("l", 6), largest: 6, endless: true, disturb: 6, life: time.Second,
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano())
	}
	if result := linearize(t, s, &daemon{root: filepath.Join(t.TempDir(), "root")}); result != porcupine.Ok {
		t.Errorf("seed %d: %s", s.seed, result)
	}
}

// TestSetsLinearizableCanFail: where a set is granted one by one, it shows.
func TestSetsLinearizableCanFail(t *testing.T) {
	for attempt := range uint64(attempts) {
		s := partySettings{
			seed: attempt + 1, duration: 500 * time.Millisecond, guests: 12,
			names: numbered("l", 6), largest: 6, endless: true,
		}
		if linearize(t, s, &local{open: inMemory(), with: func(l lock.Locks) lock.Locks { return oneByOne{l} }}) == porcupine.Illegal {
			return
		}
	}
	t.Error("nothing was found")
}

// linearize holds a party and looks for an order of what was seen.
func linearize(t *testing.T, s partySettings, on server) porcupine.CheckResult {
	t.Helper()
	p, err := newParty(t.Context(), s, on)
	if err != nil {
		t.Fatalf("seed %d: %v", s.seed, err)
	}
	for _, problem := range p.problems {
		t.Error(problem)
	}
	operations := p.steps()
	spec := sixModel(p.names)
	result, info := porcupine.CheckOperationsVerbose(spec, operations, checkTimeout)
	t.Logf("%d steps of %d calls: %s", len(operations), len(p.acts), result)
	if result == porcupine.Illegal {
		path := filepath.Join(t.ArtifactDir(), "violation.html")
		if err := porcupine.VisualizePath(spec, info, path); err == nil {
			t.Logf("see %s", path)
		}
	}
	return result
}

// page is what readers and writers share. It has two places, so that a reader beside a
// writer sees that.
type page struct {
	mu   sync.Mutex
	left int
	copy int
}

func (p *page) set(place *int, value int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*place = value
}

func (p *page) get(place *int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *place
}

// pageOp is a read or a write.
type pageOp struct {
	write bool
	value int
}

// pageModel is a register.
var pageModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, _ any) (bool, any) {
		o := input.(pageOp)
		if o.write {
			return true, o.value
		}
		return o.value == state.(int), state
	},
}

// turn is a step of a lock that many may share, or one has alone.
type turn struct {
	revision uint64
	before   uint64 // the revision of the step before it
	shared   bool
	ends     bool
	what     string
}

// sharers are who has the lock, and the revision of the last change.
type sharers struct {
	readers, writers int
	revision         uint64
}

// sharedModel is a lock that many readers have, or one writer.
var sharedModel = porcupine.Model{
	Init: func() any { return sharers{} },
	Step: func(state, input, _ any) (bool, any) {
		s, o := state.(sharers), input.(turn)
		ok := o.before == s.revision
		s.revision = o.revision
		switch {
		case o.ends && o.shared:
			s.readers--
		case o.ends:
			s.writers--
		case o.shared:
			s.readers++
		default:
			s.writers++
		}
		return ok && s.readers >= 0 && s.writers >= 0 && (s.writers == 0 || s.writers == 1 && s.readers == 0), s
	},
	DescribeOperation: func(input, _ any) string { return input.(turn).what },
}

// turns returns what the acts of readers and writers did to their lock.
func (p *party) turns() (operations []porcupine.Operation) {
	revisions := make(map[string]uint64) // of ends, by act
	shared := make(map[uint64]bool)      // by token
	before := make(map[uint64]uint64)    // the revision before each
	last := uint64(0)
	for _, event := range p.history {
		before[event.GetRevision()], last = last, event.GetRevision()
		if event.GetType() == pylokv1.EventType_EVENT_TYPE_UNLOCKED {
			revisions[event.GetReason()] = event.GetRevision()
		}
	}
	for _, a := range p.acts {
		if a.kind == lockOp && a.outcome == done {
			shared[a.locks[0].GetToken()] = a.demand.shared
		}
	}
	for _, a := range p.acts {
		var o turn
		switch {
		case a.kind == lockOp && a.outcome == done:
			o = turn{a.locks[0].GetToken(), before[a.locks[0].GetToken()], a.demand.shared, false, a.String()}
		case a.kind == unlockOp && a.outcome == done:
			o = turn{revisions[a.id], before[revisions[a.id]], shared[a.holds[0].token], true, a.String()}
		default:
			continue
		}
		operations = append(operations, porcupine.Operation{Input: o, Output: o, Call: a.call, Return: a.ret})
	}
	return operations
}

// TestReadersAndWriters: 200 readers and 20 writers at random. No reader sees half of what
// a writer wrote, all of them read what was written last, and no writer starves.
func TestReadersAndWriters(t *testing.T) {
	for _, problem := range readAndWrite(t, 3+int(*durationFlag/time.Minute), &local{open: inMemory()}) {
		t.Error(problem)
	}
}

// TestReadersAndWritersCanFail has readers beside writers.
func TestReadersAndWritersCanFail(t *testing.T) {
	problems := readAndWrite(t, 2, &local{open: inMemory(), with: func(l lock.Locks) lock.Locks { return readsBeside{l} }})
	for _, want := range []string{"a reader saw", "readers and one writer: Illegal"} {
		if !slices.ContainsFunc(problems, func(problem string) bool { return strings.HasPrefix(problem, want) }) {
			t.Errorf("there is no problem that begins with %q in %q", want, problems)
		}
	}
}

// readsBeside takes shared holds of another lock.
type readsBeside struct{ lock.Locks }

// Lock implements lock.Locks.
func (o readsBeside) Lock(ctx context.Context, caller lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	if r.Shared {
		r.Name = lock.MustParseName("beside")
	}
	return o.Locks.Lock(ctx, caller, r)
}

// readAndWrite has readers and writers go on, each so many times, and returns what is wrong.
func readAndWrite(t *testing.T, times int, on server) []string {
	t.Helper()
	const readers, writers = 200, 20
	p := &party{
		partySettings: partySettings{seed: *seedFlag, names: []string{"conf/app"}},
		server:        on,
		changed:       make(chan struct{}),
		demands:       make(map[string]*demand),
	}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	var pg page
	var mu sync.Mutex
	var operations []porcupine.Operation
	var working sync.WaitGroup
	for i := range readers + writers {
		isWriter := i%((readers+writers)/writers) == 0
		g := &guest{party: p, number: i + 1, random: rand.New(rand.NewPCG(*seedFlag, uint64(i)))}
		working.Go(func() {
			defer g.close()
			if !g.connect(t.Context()) {
				return
			}
			for round := range times {
				pause(t.Context(), time.Duration(g.random.Int64N(int64(100*time.Millisecond))))
				g.count++
				d := &demand{id: fmt.Sprintf("g%d-d%d", g.number, g.count), names: p.names, shared: !isWriter, ttl: time.Minute, wait: watchdog}
				a := g.send(t.Context(), d, 0)
				if a.outcome != done {
					p.problem("starved: %v", d)
					return
				}
				o := pageOp{write: isWriter, value: round*1000 + i + 1}
				call := clock()
				if isWriter {
					pg.set(&pg.left, o.value)
					pause(t.Context(), time.Millisecond)
					pg.set(&pg.copy, o.value)
				} else {
					o.value = pg.get(&pg.left)
					pause(t.Context(), time.Millisecond)
					if other := pg.get(&pg.copy); other != o.value {
						p.problem("a reader saw %d and %d", o.value, other)
					}
				}
				ret := clock()
				mu.Lock()
				operations = append(operations, porcupine.Operation{ClientId: i, Input: o, Output: o, Call: call, Return: ret})
				mu.Unlock()
				g.do(t.Context(), &act{kind: unlockOp, holds: []hold{{a.locks[0].GetName(), a.locks[0].GetToken()}}}, 0)
			}
		})
	}
	looker := &guest{party: p, number: readers + writers + 1, random: rand.New(rand.NewPCG(*seedFlag, 1000))}
	watch, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	looking.Go(func() { looker.look(watch) })
	working.Wait()
	cancel()
	looking.Wait()
	if err := p.readHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.end(false); err != nil {
		t.Fatal(err)
	}
	r := p.check()
	if result := porcupine.CheckOperationsTimeout(pageModel, operations, checkTimeout); result != porcupine.Ok {
		r.problem("reads and writes: %s", result)
	}
	if result := porcupine.CheckOperationsTimeout(sharedModel, p.turns(), checkTimeout); result != porcupine.Ok {
		r.problem("readers and one writer: %s", result)
	}
	t.Logf("%d reads and writes; %d seen in line, %d pairs compared", len(operations), r.stood, r.overtakes)
	return r.problems
}
