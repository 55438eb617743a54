package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// client does at random what clients do, good and bad.
type client struct {
	run    *run
	number int
	random *rand.Rand
	count  int // of its operations

	generation *generation
	link       *link
	holds      map[string]view // what it believes to hold, by name
}

func newClient(r *run, number int) *client {
	return &client{
		run:    r,
		number: number,
		random: rand.New(rand.NewPCG(r.seed, uint64(number))),
		holds:  make(map[string]view),
	}
}

func (c *client) String() string { return fmt.Sprintf("c%d", c.number) }

// work goes on until ctx ends.
func (c *client) work(ctx context.Context) {
	defer c.close()
	for ctx.Err() == nil && c.connect(ctx) {
		c.something(ctx)
		pause(ctx, time.Duration(c.random.Int64N(int64(4*time.Millisecond))))
	}
}

// connect makes sure that the client is connected to the daemon that serves.
func (c *client) connect(ctx context.Context) bool {
	g := c.run.serving(ctx)
	if g == nil || g == c.generation {
		return g != nil
	}
	c.close()
	var err error
	if c.link, err = dial(g); err != nil {
		c.run.problem("dial: %v", err)
		return false
	}
	c.generation = g
	return true
}

func (c *client) close() {
	if c.link != nil {
		c.link.conn.Close()
		c.link = nil
	}
}

// one picks one of several by chance.
func one[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

func (c *client) chance(percent int) bool { return c.random.IntN(100) < percent }

// something does one thing, and what follows from it.
func (c *client) something(ctx context.Context) {
	name := one(c.random, c.run.names...)
	if len(c.holds) > 0 && c.chance(70) {
		held := make([]string, 0, len(c.holds))
		for name := range c.holds {
			held = append(held, name)
		}
		slices.Sort(held)
		name = one(c.random, held...)
	}
	if hold, ok := c.holds[name]; ok {
		c.asHolder(ctx, name, hold)
	} else {
		c.asOther(ctx, name)
	}
}

// asHolder uses a hold.
func (c *client) asHolder(ctx context.Context, name string, hold view) {
	switch n := c.random.IntN(100); {
	case n < 50:
		o := c.do(ctx, &operation{kind: unlockOp, name: name, token: hold.token, holder: hold.holder})
		if o.outcome == unknown && c.chance(60) { // again, as the contract says
			c.connect(ctx)
			c.do(ctx, &operation{kind: unlockOp, name: name, token: hold.token, holder: hold.holder})
		}
		delete(c.holds, name)
	case n < 55:
		c.do(ctx, &operation{kind: unlockOp, name: name, holder: hold.holder})
		delete(c.holds, name)
	case n < 72:
		o := &operation{kind: renewOp, name: name, token: hold.token, data: c.chance(50)}
		if hold.ttl == 0 && !o.data || c.chance(20) {
			o.ttl = c.ttl()
		}
		if c.do(ctx, o); o.outcome == refused {
			delete(c.holds, name)
		} else if o.outcome == done {
			c.holds[name] = o.lock
		}
	case n < 78:
		c.take(ctx, &operation{kind: lockOp, name: name, holder: hold.holder, overwrite: true, ttl: c.anyTTL(), wait: c.wait()})
	case n < 84:
		c.do(ctx, &operation{kind: statusOp, name: name})
	case hold.ttl == 0 && n < 97:
		c.do(ctx, &operation{kind: unlockOp, name: name, token: hold.token, holder: hold.holder})
		delete(c.holds, name)
	default: // it crashes, so to speak: the hold stays behind
		delete(c.holds, name)
	}
}

// asOther wants a lock, or disturbs those who hold it.
func (c *client) asOther(ctx context.Context, name string) {
	holder := c.String()
	switch n := c.random.IntN(100); {
	case n < 10:
		holder = ""
	case n < 25:
		holder = "team"
	}
	switch n := c.random.IntN(100); {
	case n < 66:
		c.take(ctx, &operation{kind: lockOp, name: name, holder: holder, ttl: c.anyTTL(), wait: c.wait(), overwrite: c.chance(8)})
	case n < 74:
		c.do(ctx, &operation{kind: statusOp, name: name})
	case n < 84:
		if token := c.run.someToken(c.random, name); token != 0 {
			c.do(ctx, &operation{kind: unlockOp, name: name, token: token, holder: holder, force: c.chance(20)})
		}
	case n < 89:
		if token := c.run.someToken(c.random, name); token != 0 {
			c.do(ctx, &operation{kind: renewOp, name: name, token: token, data: true, holder: holder})
		}
	case n < 94:
		c.do(ctx, &operation{kind: unlockOp, name: name, holder: holder})
	default:
		c.do(ctx, &operation{kind: unlockOp, name: name, holder: holder, force: true})
	}
}

// take locks, and sends the request again where it does not know what became of it,
// and now and then where it does.
func (c *client) take(ctx context.Context, o *operation) {
	if c.chance(80) {
		o.requestID = fmt.Sprintf("%s-r%d", c, c.count)
	}
	for range 4 {
		again := *o
		c.do(ctx, &again)
		switch {
		case again.outcome == done:
			c.holds[o.name] = again.lock
		case again.outcome == refused:
			delete(c.holds, o.name)
		}
		if o.requestID == "" || again.outcome == refused || again.outcome == done && !c.chance(8) || !c.connect(ctx) {
			return
		}
	}
}

// ttls are those of all leases.
var ttls = []time.Duration{150 * time.Millisecond, 250 * time.Millisecond, 400 * time.Millisecond, time.Second}

func (c *client) ttl() time.Duration { return one(c.random, ttls...) }

func (c *client) anyTTL() time.Duration {
	if c.chance(35) {
		return 0
	}
	return c.ttl()
}

func (c *client) wait() time.Duration {
	return one(c.random, 0, 0, 30*time.Millisecond, 200*time.Millisecond, 500*time.Millisecond, time.Second)
}

// do makes the call of an operation, maybe disturbs it, and records what came of it.
func (c *client) do(ctx context.Context, o *operation) *operation {
	c.count++
	o.id, o.client, o.generation = fmt.Sprintf("%s-%d", c, c.count), c.number, c.generation.number
	ctx, cancel := context.WithTimeout(ctx, watchdog)
	defer cancel()
	disturbed := make(chan int64, 1)
	disturb := func(within time.Duration, how func()) *time.Timer {
		return time.AfterFunc(time.Duration(c.random.Int64N(int64(within))), func() {
			before := clock()
			how()
			disturbed <- before
		})
	}
	within := 2 * time.Millisecond
	percent := c.run.disturb
	if o.wait > 0 {
		within = o.wait
		if c.run.calm(o.name) {
			percent /= 4
		}
	}
	var timer *time.Timer
	var swallow bool
	if c.chance(percent) {
		switch n := c.random.IntN(10); {
		case n < 5:
			timer = disturb(within, cancel)
		case n < 7:
			timer = disturb(within, c.link.cut)
		default:
			swallow = true
		}
	}
	if swallow {
		c.link.swallow.Store(true)
	}
	o.call = clock()
	err := c.call(ctx, o)
	o.ret = clock()
	if swallow {
		c.link.swallow.Store(false)
	}
	o.alive = o.ret
	if timer != nil && !timer.Stop() {
		o.alive = min(o.ret, <-disturbed)
	}
	c.conclude(o, err)
	if swallow && o.outcome == unknown {
		o.alive = o.call
	}
	c.run.record(o)
	if o.outcome == unknown && !c.generation.over.Load() {
		pause(ctx, 5*time.Millisecond) // it may be stopping
	}
	return o
}

// pause is a pace, not an order of things: nothing depends on it.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// call sends the operation. The operation's id goes into the history.
func (c *client) call(ctx context.Context, o *operation) error {
	switch o.kind {
	case lockOp:
		request := &pylokv1.LockRequest{
			Name: o.name, Data: idData(o.id), Holder: o.holder,
			RequestId: o.requestID, Overwrite: o.overwrite,
		}
		if o.ttl != 0 {
			request.Expiry = &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(o.ttl)}
		}
		if o.wait != 0 {
			request.Wait = durationpb.New(o.wait)
		}
		response, err := c.link.Lock(ctx, request)
		o.lock = viewOf(response.GetLock())
		return err
	case unlockOp:
		response, err := c.link.Unlock(ctx, &pylokv1.UnlockRequest{
			Name: o.name, Token: o.token, Holder: o.holder, Force: o.force, Reason: o.id,
		})
		o.lock, o.revision, o.next = viewOf(response.GetLock()), response.GetRevision(), response.GetNext().GetToken()
		return err
	case renewOp:
		request := &pylokv1.RenewRequest{Name: o.name, Token: o.token, Holder: o.holder}
		if o.ttl != 0 {
			request.Expiry = &pylokv1.RenewRequest_Ttl{Ttl: durationpb.New(o.ttl)}
		}
		if o.data {
			request.Data = idData(o.id)
		}
		response, err := c.link.Renew(ctx, request)
		o.lock = viewOf(response.GetLock())
		return err
	case statusOp:
		response, err := c.link.Status(ctx, &pylokv1.StatusRequest{Name: o.name})
		o.lock = viewOf(response.GetLock())
		return err
	}
	panic("no such call: " + o.kind)
}

// conclude notes what an answer tells.
func (c *client) conclude(o *operation, err error) {
	if err == nil {
		o.outcome = done
		if o.lock.token != 0 {
			c.run.sawToken(o.name, o.lock.token)
		}
		return
	}
	s := status.Convert(err)
	o.text = s.Message()
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			o.reason = detail.GetReason()
		case *pylokv1.Lock:
			o.lock = viewOf(detail)
		}
	}
	switch {
	case o.reason == "LOCK_HELD", o.reason == "NOT_HOLDER", o.reason == "NOT_LOCKED", o.reason == "SHUTTING_DOWN":
		o.outcome = refused
	case o.reason == "OUTCOME_UNKNOWN",
		o.reason == "" && (s.Code() == codes.Unavailable || s.Code() == codes.Canceled):
		o.outcome = unknown
	default:
		o.outcome = unknown
		c.run.problem("%v: %v", o, err)
	}
}

// idData is the data that says which operation wrote it.
func idData(id string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"op": structpb.NewStringValue(id)}}
}

func viewOf(l *pylokv1.Lock) view {
	if l.GetState() != pylokv1.LockState_LOCK_STATE_LOCKED {
		return view{waiters: l.GetWaiters()}
	}
	return view{
		token:   l.GetToken(),
		holder:  l.GetHolder(),
		data:    l.GetData().GetFields()["op"].GetStringValue(),
		ttl:     l.GetTtl().AsDuration(),
		waiters: l.GetWaiters(),
	}
}
