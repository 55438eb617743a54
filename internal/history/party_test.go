package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// demand is a request for locks of any kind: it may be sent more than once. Its id is its
// holder, its request id and in its data, so that the history and those who look at a line
// tell of it.
type demand struct {
	id      string
	names   []string
	choices []some
	isSet   bool
	shared  bool
	limit   int
	tree    bool
	drain   bool
	through bool
	keep    bool
	ttl     time.Duration
	wait    time.Duration

	sendings []*act
}

// some are some of several locks.
type some struct {
	names []string
	count int
}

// all returns all the names that a demand is about.
func (d *demand) all() []string {
	names := slices.Clone(d.names)
	for _, c := range d.choices {
		names = append(names, c.names...)
	}
	return names
}

// size returns how many holds it wants.
func (d *demand) size() int {
	n := len(d.names)
	for _, c := range d.choices {
		n += c.count
	}
	return n
}

// String describes the demand.
func (d *demand) String() string {
	text := fmt.Sprintf("%s wants %v", d.id, d.names)
	for _, c := range d.choices {
		text += fmt.Sprintf(" and %d of %v", c.count, c.names)
	}
	for _, is := range []struct {
		word string
		is   bool
	}{
		{"shared", d.shared}, {fmt.Sprint("limit ", d.limit), d.limit > 0}, {"tree", d.tree},
		{"drain", d.drain}, {"through", d.through}, {"keep", d.keep}, {fmt.Sprint("ttl ", d.ttl), d.ttl > 0},
		{fmt.Sprint("wait ", d.wait), d.wait > 0},
	} {
		if is.is {
			text += ", " + is.word
		}
	}
	for _, a := range d.sendings {
		text += fmt.Sprintf("; sent %s to %s: %s %s", seconds(a.call), seconds(a.ret), a.outcome, a.reason)
	}
	return text
}

// These a party has besides.
const (
	handOverOp kind = "HandOver"
	listOp     kind = "List"
)

// hold is one hold, by name and token.
type hold struct {
	name  string
	token uint64
}

// act is one call that a guest made. Times are those of clock.
type act struct {
	id         string // in the reason of the request, or its data
	generation int
	kind       kind
	demand     *demand // of a lockOp
	holds      []hold  // that it ends, renews or hands over
	force      bool    // of an unlockOp
	stale      bool    // of an unlockOp

	call, ret, alive int64

	outcome outcome
	reason  string
	locks   []*pylokv1.Lock // of the answer, those for which it was done
	refused []hold          // of an unlockOp or renewOp for several: those for which it was not
}

// String describes the act.
func (a *act) String() string {
	if a.demand != nil {
		return a.demand.String()
	}
	return fmt.Sprintf("%s %s %v force %v stale %v, %s to %s: %s %s", a.id, a.kind, a.holds, a.force, a.stale, seconds(a.call), seconds(a.ret), a.outcome, a.reason)
}

// partySettings say what a party is like.
type partySettings struct {
	seed     uint64
	duration time.Duration
	guests   int
	names    []string
	largest  int           // of the sets
	kinds    bool          // trees and shared holds besides sets
	shared   int           // percent of the demands for one lock, of these; 0: 40
	keep     int           // percent of the demands for holds to keep
	late     int           // percent of what holders do is a renewal that is too late
	endless  bool          // no hold has an end, and those who look see all locks at once
	disturb  int           // percent of the calls
	life     time.Duration // of a server, on average; 0: until the end
}

// party is many guests who want locks of all kinds, and what they have seen.
type party struct {
	partySettings
	server server

	mu       sync.Mutex
	current  *generation
	changed  chan struct{} // closed when current changes
	started  []*generation
	acts     []*act
	demands  map[string]*demand
	problems []string
	history  []*pylokv1.Event
}

func (p *party) problem(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// newParty holds a party on a server.
func newParty(ctx context.Context, s partySettings, on server) (*party, error) {
	p := &party{partySettings: s, server: on, changed: make(chan struct{}), demands: make(map[string]*demand)}
	random := rand.New(rand.NewPCG(s.seed, 0))
	if err := p.open(); err != nil {
		return nil, err
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	time.AfterFunc(s.duration, cancel)
	var working sync.WaitGroup
	guests := make([]*guest, s.guests)
	for i := range guests {
		guests[i] = &guest{party: p, number: i + 1, random: rand.New(rand.NewPCG(s.seed, uint64(i+1)))}
		working.Go(func() { guests[i].work(work) })
	}
	for i := range 2 {
		g := &guest{party: p, number: s.guests + 1 + i, random: rand.New(rand.NewPCG(s.seed, uint64(s.guests+1+i)))}
		working.Go(func() { g.look(work) })
	}
	cleaner := &guest{party: p, number: s.guests + 3, random: rand.New(rand.NewPCG(s.seed, uint64(s.guests+3)))}
	working.Go(func() { cleaner.clean(work) })
	var err error
	for s.life > 0 && err == nil {
		pause(work, s.life/2+time.Duration(random.Int64N(int64(s.life))))
		if work.Err() != nil {
			break
		}
		if err = p.end(random.IntN(3) > 0); err == nil {
			err = p.open()
		}
	}
	working.Wait()
	if err != nil {
		return nil, err
	}
	p.last(ctx, guests, cleaner)
	return p, errors.Join(p.readHistory(ctx), p.end(false))
}

// open starts a server.
func (p *party) open() error {
	g := &generation{number: len(p.started), doomed: never, ended: never}
	g.exec = clock()
	var err error
	if g.address, err = p.server.start(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = append(p.started, g)
	p.serve(g)
	return nil
}

// serve says which server serves. The caller must hold mu.
func (p *party) serve(g *generation) {
	p.current = g
	close(p.changed)
	p.changed = make(chan struct{})
}

// end ends the server under its guests.
func (p *party) end(kill bool) error {
	p.mu.Lock()
	g := p.current
	p.mu.Unlock()
	how := p.server.stop
	if kill {
		how = p.server.kill
	}
	g.doomed = clock()
	err := how()
	g.over.Store(true)
	g.ended = clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve(nil)
	return err
}

// readHistory reads all that the servers have written down.
func (p *party) readHistory(ctx context.Context) error {
	l, err := dial(p.current)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	for token := ""; ; {
		page, err := l.History(ctx, &pylokv1.HistoryRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return err
		}
		p.history = append(p.history, page.GetEvents()...)
		if token = page.GetNextPageToken(); token == "" {
			return nil
		}
	}
}

// lastWait is how long a guest waits who wants locks when all others let go soon.
const lastWait = 20 * time.Second

// last sees that nothing is stuck: everybody wants locks once more, and lets go of them at
// once, so everybody gets them.
func (p *party) last(ctx context.Context, guests []*guest, cleaner *guest) {
	cleaned, cancel := context.WithCancel(ctx)
	var cleaning sync.WaitGroup
	cleaning.Go(func() {
		for cleaner.connect(cleaned) {
			cleaner.cleanOnce(cleaned, true)
			pause(cleaned, 20*time.Millisecond)
		}
		cleaner.close()
	})
	var working sync.WaitGroup
	for _, g := range guests {
		working.Go(func() {
			defer g.close()
			g.holds = nil
			if !g.connect(ctx) {
				return
			}
			d := g.demand()
			d.wait = lastWait
			a := g.send(ctx, d, 0)
			if a.outcome != done {
				text := ""
				if l, err := g.link.List(ctx, &pylokv1.ListRequest{}); err == nil {
					text = fmt.Sprint(l.GetLocks())
				}
				p.problem("stuck: with everybody letting go, %v; held are %s", d, text)
				return
			}
			for _, l := range a.locks {
				g.do(ctx, &act{kind: unlockOp, holds: []hold{{l.GetName(), l.GetToken()}}}, 0)
			}
		})
	}
	working.Wait()
	cancel()
	cleaning.Wait()
}

// guest does at random what clients do.
type guest struct {
	party  *party
	number int
	random *rand.Rand
	count  int

	generation *generation
	link       *link
	holds      [][]hold // what it was granted together
}

func (g *guest) chance(percent int) bool { return g.random.IntN(100) < percent }

// connect makes sure that the guest is connected to the server that serves.
func (g *guest) connect(ctx context.Context) bool {
	for {
		g.party.mu.Lock()
		current, changed := g.party.current, g.party.changed
		g.party.mu.Unlock()
		switch {
		case current != nil && current == g.generation && g.link != nil:
			return ctx.Err() == nil
		case current != nil:
			g.close()
			var err error
			if g.link, err = dial(current); err != nil {
				g.party.problem("dial: %v", err)
				return false
			}
			g.generation = current
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (g *guest) close() {
	if g.link != nil {
		g.link.conn.Close()
		g.link = nil
	}
}

// work goes on until ctx ends.
func (g *guest) work(ctx context.Context) {
	defer g.close()
	for g.connect(ctx) {
		if len(g.holds) > 0 && g.chance(75) {
			g.asHolder(ctx)
		} else {
			g.want(ctx)
		}
		pause(ctx, time.Duration(g.random.Int64N(int64(4*time.Millisecond))))
	}
}

// demand returns a random demand.
func (g *guest) demand() *demand {
	g.count++
	d := &demand{id: fmt.Sprintf("g%d-d%d", g.number, g.count)}
	names := slices.Clone(g.party.names)
	g.random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	n := 1 + g.random.IntN(min(4, g.party.largest))
	if g.chance(10) {
		n = 1 + g.random.IntN(g.party.largest)
	}
	switch {
	case g.party.kinds && g.chance(55):
		d.names = names[:1]
		switch {
		case g.chance(cmp.Or(g.party.shared, 40)):
			d.shared = true
			if g.chance(50) {
				d.limit = 1 + g.random.IntN(3)
			}
		case g.chance(30):
			d.tree = true
			d.drain = g.chance(50)
		}
	case g.chance(15):
		d.names = names[:1]
	default:
		d.isSet = true
		d.names, names = names[:n], names[n:]
		left := g.party.largest - n
		for left > 1 && len(names) > 1 && g.chance(45) {
			size := min(2+g.random.IntN(5), left, len(names))
			d.choices = append(d.choices, some{names[:size], 1 + g.random.IntN(min(2, size))})
			names, left = names[size:], left-size
		}
		if len(d.choices) > 0 && g.chance(40) {
			d.names = nil
		}
	}
	if !d.tree {
		d.through = g.party.kinds && g.chance(5)
		d.keep = g.chance(g.party.keep)
	}
	if d.ttl = one(g.random, ttls...); g.party.endless {
		d.ttl = 0
	}
	d.wait = one(g.random, 0, 50*time.Millisecond, 200*time.Millisecond, 500*time.Millisecond, time.Second, 2*time.Second)
	if d.drain && d.wait == 0 {
		d.wait = 300 * time.Millisecond
	}
	return d
}

// want wants locks, and asks again where it does not know what became of that.
func (g *guest) want(ctx context.Context) {
	d := g.demand()
	for range 3 {
		a := g.send(ctx, d, g.party.disturb)
		switch {
		case a.outcome == done:
			var granted []hold
			for _, l := range a.locks {
				granted = append(granted, hold{l.GetName(), l.GetToken()})
			}
			g.holds = append(g.holds, granted)
			return
		case a.outcome == refused || !g.chance(70) || !g.connect(ctx):
			return
		}
	}
}

// send sends a demand.
func (g *guest) send(ctx context.Context, d *demand, disturb int) *act {
	a := &act{kind: lockOp, demand: d}
	g.party.mu.Lock()
	g.party.demands[d.id] = d
	d.sendings = append(d.sendings, a)
	g.party.mu.Unlock()
	return g.do(ctx, a, disturb)
}

// asHolder uses what was granted.
func (g *guest) asHolder(ctx context.Context) {
	i := g.random.IntN(len(g.holds))
	granted := g.holds[i]
	drop := func() { g.holds = slices.Delete(g.holds, i, i+1) }
	if g.chance(g.party.late) {
		pause(ctx, ttls[0]+50*time.Millisecond)
		if g.connect(ctx) {
			g.do(ctx, &act{kind: renewOp, holds: granted[:1]}, 0)
		}
		drop()
		return
	}
	switch n := g.random.IntN(100); {
	case n < 62:
		a := g.do(ctx, &act{kind: unlockOp, holds: granted}, g.party.disturb)
		if a.outcome == unknown && g.chance(50) && g.connect(ctx) {
			g.do(ctx, &act{kind: unlockOp, holds: granted}, 0)
		}
		drop()
	case n < 70: // one of them
		j := g.random.IntN(len(granted))
		g.do(ctx, &act{kind: unlockOp, holds: granted[j : j+1]}, g.party.disturb)
		if rest := slices.Delete(slices.Clone(granted), j, j+1); len(rest) > 0 {
			g.holds[i] = rest
		} else {
			drop()
		}
	case n < 81 && !g.party.endless:
		g.do(ctx, &act{kind: renewOp, holds: granted}, g.party.disturb)
	case n < 92:
		j := g.random.IntN(len(granted))
		old := granted[j]
		a := g.do(ctx, &act{kind: handOverOp, holds: granted[j : j+1]}, g.party.disturb)
		if a.outcome != done {
			drop()
			return
		}
		granted = slices.Clone(granted)
		granted[j].token = a.locks[0].GetToken()
		g.holds[i] = granted
		if g.chance(50) { // the old one is over
			g.do(ctx, &act{kind: one(g.random, unlockOp, renewOp, handOverOp), holds: []hold{old}}, 0)
		}
	case n < 95: // it crashes, so to speak
		drop()
	default:
		pause(ctx, time.Duration(g.random.IntN(50))*time.Millisecond)
	}
}

// look looks at one lock after the other until ctx ends.
func (g *guest) look(ctx context.Context) {
	defer g.close()
	for g.connect(ctx) {
		if g.party.endless {
			g.do(ctx, &act{kind: listOp}, 0)
		} else {
			g.do(ctx, &act{kind: statusOp, holds: []hold{{name: one(g.random, g.party.names...)}}}, 0)
		}
		pause(ctx, 2*time.Millisecond)
	}
}

// clean ends what is stale, and breaks a hold now and then.
func (g *guest) clean(ctx context.Context) {
	defer g.close()
	for g.connect(ctx) {
		g.cleanOnce(ctx, false)
		pause(ctx, 30*time.Millisecond)
	}
}

// cleanOnce looks at all that is held; in the end it breaks what was held when it looked.
func (g *guest) cleanOnce(ctx context.Context, all bool) {
	page, err := g.link.List(ctx, &pylokv1.ListRequest{PageSize: 1000})
	if err != nil {
		return
	}
	for _, l := range page.GetLocks() {
		ref := []hold{{l.GetName(), l.GetToken()}}
		switch {
		case l.GetStaleTime() != nil:
			g.do(ctx, &act{kind: unlockOp, holds: ref, stale: true}, 0)
		case all || g.chance(3):
			g.do(ctx, &act{kind: unlockOp, holds: ref, force: true}, 0)
		}
	}
}

// do makes a call, maybe disturbs it, and records what came of it.
func (g *guest) do(ctx context.Context, a *act, disturb int) *act {
	g.count++
	a.id, a.generation = fmt.Sprintf("g%d-%d", g.number, g.count), g.generation.number
	ctx, cancel := context.WithTimeout(ctx, watchdog)
	defer cancel()
	disturbed := make(chan int64, 1)
	var timer *time.Timer
	swallow := false
	if g.chance(disturb) {
		within := 2 * time.Millisecond
		if a.demand != nil {
			within = max(within, a.demand.wait)
		}
		how := cancel
		switch n := g.random.IntN(10); {
		case n < 6:
		case n < 8:
			how = g.link.cut
		default:
			swallow = true
		}
		if !swallow {
			timer = time.AfterFunc(time.Duration(g.random.Int64N(int64(within))), func() {
				before := clock()
				how()
				disturbed <- before
			})
		}
	}
	g.link.swallow.Store(swallow)
	a.call = clock()
	err := g.call(ctx, a)
	a.ret = clock()
	g.link.swallow.Store(false)
	a.alive = a.ret
	if timer != nil && !timer.Stop() {
		a.alive = min(a.ret, <-disturbed)
	}
	g.conclude(a, err)
	if swallow && a.outcome == unknown {
		a.alive = a.call
	}
	if g.generation.over.Load() {
		a.alive = min(a.alive, g.generation.doomed)
	}
	g.party.mu.Lock()
	g.party.acts = append(g.party.acts, a)
	g.party.mu.Unlock()
	if a.outcome == unknown && !g.generation.over.Load() {
		pause(ctx, 5*time.Millisecond)
	}
	return a
}

func isKeep(keep bool) pylokv1.OnExpiry {
	if keep {
		return pylokv1.OnExpiry_ON_EXPIRY_KEEP
	}
	return pylokv1.OnExpiry_ON_EXPIRY_RELEASE
}

// call sends the act.
func (g *guest) call(ctx context.Context, a *act) error {
	refs := func() (refs []*pylokv1.HoldRef) {
		for _, h := range a.holds {
			refs = append(refs, &pylokv1.HoldRef{Name: h.name, Token: h.token})
		}
		return refs
	}
	answered := func(answers []*pylokv1.SetAnswer) {
		for _, answer := range answers {
			if answer.GetReason() == "" {
				a.locks = append(a.locks, answer.GetLock())
			} else {
				a.refused = append(a.refused, hold{answer.GetName(), answer.GetToken()})
			}
		}
	}
	several := len(a.holds) > 1
	switch d := a.demand; a.kind {
	case lockOp:
		reason := ""
		if d.through {
			reason = "on purpose"
		}
		if d.isSet {
			r := &pylokv1.LockSetRequest{
				Names: d.names, Data: idData(d.id), Holder: d.id, RequestId: d.id,
				ThroughFreeze: d.through, Reason: reason, OnExpiry: isKeep(d.keep),
			}
			for _, c := range d.choices {
				r.Choices = append(r.Choices, &pylokv1.Choice{Names: c.names, Count: uint32(c.count)})
			}
			if d.ttl > 0 {
				r.Expiry = &pylokv1.LockSetRequest_Ttl{Ttl: durationpb.New(d.ttl)}
			}
			if d.wait > 0 {
				r.Wait = durationpb.New(d.wait)
			}
			answer, err := g.link.LockSet(ctx, r)
			a.locks = answer.GetLocks()
			return err
		}
		r := &pylokv1.LockRequest{
			Name: d.names[0], Data: idData(d.id), Holder: d.id, RequestId: d.id,
			Shared: d.shared, Limit: uint32(d.limit), Tree: d.tree, Drain: d.drain,
			ThroughFreeze: d.through, Reason: reason, OnExpiry: isKeep(d.keep),
		}
		if d.ttl > 0 {
			r.Expiry = &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(d.ttl)}
		}
		if d.wait > 0 {
			r.Wait = durationpb.New(d.wait)
		}
		answer, err := g.link.Lock(ctx, r)
		if err == nil {
			a.locks = []*pylokv1.Lock{answer.GetLock()}
		}
		return err
	case unlockOp:
		if several {
			answer, err := g.link.UnlockSet(ctx, &pylokv1.UnlockSetRequest{Holds: refs(), Reason: a.id, Force: a.force})
			answered(answer.GetAnswers())
			return err
		}
		answer, err := g.link.Unlock(ctx, &pylokv1.UnlockRequest{Name: a.holds[0].name, Token: a.holds[0].token, Reason: a.id, Force: a.force, Stale: a.stale})
		if err == nil {
			a.locks = []*pylokv1.Lock{answer.GetLock()}
		}
		return err
	case renewOp:
		ttl := durationpb.New(ttls[len(a.id)%len(ttls)])
		if several {
			answer, err := g.link.RenewSet(ctx, &pylokv1.RenewSetRequest{Holds: refs(), Expiry: &pylokv1.RenewSetRequest_Ttl{Ttl: ttl}})
			answered(answer.GetAnswers())
			return err
		}
		answer, err := g.link.Renew(ctx, &pylokv1.RenewRequest{Name: a.holds[0].name, Token: a.holds[0].token, Expiry: &pylokv1.RenewRequest_Ttl{Ttl: ttl}})
		if err == nil {
			a.locks = []*pylokv1.Lock{answer.GetLock()}
		}
		return err
	case handOverOp:
		answer, err := g.link.HandOver(ctx, &pylokv1.HandOverRequest{Name: a.holds[0].name, Token: a.holds[0].token, Holder: a.id, Data: idData(a.id), RequestId: a.id})
		if err == nil {
			a.locks = []*pylokv1.Lock{answer.GetLock()}
		}
		return err
	case statusOp:
		answer, err := g.link.Status(ctx, &pylokv1.StatusRequest{Name: a.holds[0].name})
		if err == nil {
			a.locks = []*pylokv1.Lock{answer.GetLock()}
		}
		return err
	case listOp:
		answer, err := g.link.List(ctx, &pylokv1.ListRequest{PageSize: 1000})
		a.locks = answer.GetLocks()
		return err
	}
	panic("no such call: " + a.kind)
}

// conclude notes what an answer tells.
func (g *guest) conclude(a *act, err error) {
	if err == nil {
		a.outcome = done
		return
	}
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			a.reason = info.GetReason()
		}
	}
	switch {
	case slices.Contains([]string{"LOCK_HELD", "NOT_HOLDER", "NOT_LOCKED", "SHUTTING_DOWN"}, a.reason):
		a.outcome = refused
	case a.reason == "OUTCOME_UNKNOWN",
		a.reason == "" && (s.Code() == codes.Unavailable || s.Code() == codes.Canceled),
		errors.Is(err, context.Canceled):
		a.outcome = unknown
	default:
		a.outcome = unknown
		g.party.problem("%v: %v", a, strings.TrimSpace(err.Error()))
	}
}
