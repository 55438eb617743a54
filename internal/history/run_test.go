package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// server is what is checked. Between an end and the next start nothing of it runs.
type server interface {
	// start starts it on the state that the last one left.
	start() (address string, err error)
	// kill ends it at once.
	kill() error
	// stop ends it cleanly.
	stop() error
}

// daemon is the real pylokd in a process of its own.
type daemon struct {
	root    string
	process *process
}

func (d *daemon) start() (string, error) {
	var err error
	if d.process, err = startProcess(d.root); err != nil {
		return "", err
	}
	return d.process.address, nil
}

func (d *daemon) kill() error { return d.process.signal(syscall.SIGKILL) }
func (d *daemon) stop() error { return d.process.signal(syscall.SIGTERM) }

// generation is one daemon from its start to its end.
type generation struct {
	number  int
	address string
	exec    int64 // it was not started before that
	doomed  int64 // it was surely whole until then
	ended   int64 // by then it was over
	over    atomic.Bool
	opening map[string]*operation // the first look at each lock
}

// settings say what a run does.
type settings struct {
	seed     uint64
	duration time.Duration
	clients  int
	locks    int
	disturb  int           // percent of the calls
	life     time.Duration // of a daemon, on average; 0: until the end
}

// run is a workload and what it has seen.
type run struct {
	settings
	server server
	names  []string

	mu          sync.Mutex
	current     *generation   // nil: none serves
	changed     chan struct{} // closed when current changes
	generations []*generation
	operations  []*operation
	tokens      map[string][]uint64 // that clients have seen lately, by name
	stopped     int64               // the clients surely went on until then
	problems    []string
	history     []*pylokv1.Event
}

// newRun runs a workload on a server and collects its history.
func newRun(ctx context.Context, s settings, on server) (*run, error) {
	r := &run{settings: s, server: on, changed: make(chan struct{}), tokens: make(map[string][]uint64)}
	for i := range s.locks {
		r.names = append(r.names, fmt.Sprintf("h/%d", i))
	}
	random := rand.New(rand.NewPCG(s.seed, 0))
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	r.stopped = never
	time.AfterFunc(s.duration, func() {
		r.mu.Lock()
		r.stopped = clock()
		r.mu.Unlock()
		cancel()
	})
	var working sync.WaitGroup
	for i := range s.clients {
		working.Go(func() { newClient(r, i+1).work(work) })
	}
	working.Go(func() { newClient(r, s.clients+1).look(work) })
	var err error
	for s.life > 0 && err == nil {
		pause(work, s.life/2+time.Duration(random.Int64N(int64(s.life))))
		if work.Err() != nil {
			break
		}
		if err = r.end(random.IntN(3) > 0); err == nil {
			err = r.open(ctx)
		}
	}
	<-work.Done()
	working.Wait()
	if err != nil {
		return nil, err
	}
	// A last daemon closes all histories and tells its own.
	if err := errors.Join(r.end(true), r.open(ctx)); err != nil {
		return nil, err
	}
	err = errors.Join(r.readHistory(ctx), r.awaitExpiries(ctx))
	return r, errors.Join(err, r.end(false))
}

// open starts a daemon and looks at all locks before the clients come.
func (r *run) open(ctx context.Context) error {
	g := &generation{number: len(r.generations), opening: make(map[string]*operation)}
	if n := len(r.generations); n > 0 {
		for g.exec = clock(); g.exec <= r.generations[n-1].ended; {
			g.exec = clock()
		}
	}
	var err error
	if g.address, err = r.server.start(); err != nil {
		return err
	}
	c := newClient(r, 0)
	c.generation = g
	if c.link, err = dial(g); err != nil {
		return err
	}
	defer c.close()
	for _, name := range r.names {
		o := &operation{id: fmt.Sprintf("open-%d", g.number), kind: statusOp, name: name, generation: g.number, call: clock()}
		err := c.call(ctx, o)
		o.ret = clock()
		if err != nil {
			return fmt.Errorf("the first Status after a start: %w", err)
		}
		o.outcome = done
		g.opening[name] = o
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generations = append(r.generations, g)
	r.serve(g)
	return nil
}

// serve says which daemon serves. The caller holds r.mu.
func (r *run) serve(g *generation) {
	r.current = g
	close(r.changed)
	r.changed = make(chan struct{})
}

// serving returns the daemon that serves, once there is one, or nil when ctx ends.
func (r *run) serving(ctx context.Context) *generation {
	for {
		r.mu.Lock()
		g, changed := r.current, r.changed
		r.mu.Unlock()
		if g != nil {
			return g
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// end ends the daemon that serves, under its clients.
func (r *run) end(kill bool) error {
	r.mu.Lock()
	g := r.current
	r.mu.Unlock()
	how := r.server.stop
	if kill {
		how = r.server.kill
	}
	g.doomed = clock()
	err := how()
	g.over.Store(true)
	g.ended = clock()
	r.mu.Lock()
	r.serve(nil)
	r.mu.Unlock()
	return err
}

// readHistory reads all that the daemons have written down.
func (r *run) readHistory(ctx context.Context) error {
	l, err := dial(r.current)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	for token := ""; ; {
		page, err := l.History(ctx, &pylokv1.HistoryRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return err
		}
		r.history = append(r.history, page.GetEvents()...)
		if token = page.GetNextPageToken(); token == "" {
			return nil
		}
	}
}

// awaitExpiries waits until every hold with a ttl is over, with nobody there to ask
// for its lock.
func (r *run) awaitExpiries(ctx context.Context) error {
	l, err := dial(r.current)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, name := range r.names {
		for {
			response, err := l.Status(ctx, &pylokv1.StatusRequest{Name: name})
			if err != nil {
				return fmt.Errorf("waiting for %s to expire: %w", name, err)
			}
			if response.GetLock().GetTtl() == nil {
				break
			}
			pause(ctx, 10*time.Millisecond)
		}
	}
	return nil
}

// look looks at one lock after the other until ctx ends.
func (c *client) look(ctx context.Context) {
	defer c.close()
	ticker := time.NewTicker(3 * time.Millisecond)
	defer ticker.Stop()
	for i := 0; ctx.Err() == nil && c.connect(ctx); i++ {
		o := &operation{kind: statusOp, name: c.run.names[i%len(c.run.names)]}
		c.do(ctx, o)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// calm are the locks whose waiters seldom leave in an unknown way, so that their
// queues are known.
func (r *run) calm(name string) bool { return name[len(name)-1]%2 == 0 }

func (r *run) record(o *operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operations = append(r.operations, o)
}

func (r *run) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// remembered is how many tokens of a lock clients remember; all but one are stale.
const remembered = 6

func (r *run) sawToken(name string, token uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.tokens[name]
	if len(seen) > 0 && seen[len(seen)-1] >= token {
		return
	}
	if len(seen) == remembered {
		seen = seen[1:]
	}
	r.tokens[name] = append(seen, token)
}

// someToken is a token of a lock, most often a stale one; 0: none is known.
func (r *run) someToken(random *rand.Rand, name string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seen := r.tokens[name]; len(seen) > 0 {
		return one(random, seen...)
	}
	return 0
}
