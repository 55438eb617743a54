package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// operation is what a client asked for.
type operation struct {
	kind     kind
	name     string
	id       string // marks its event: in data, or as the reason
	ttl      time.Duration
	token    uint64 // of the hold that it is about; for an acknowledged grant, the new one
	revision uint64 // when acknowledged; 0 for extend
}

type kind string

const (
	grant  kind = "lock"
	update kind = "renew with data"
	extend kind = "renew"
	unlock kind = "unlock"
)

func (o operation) String() string {
	return fmt.Sprintf("%s of %s (%s, token %d, revision %d, ttl %v)", o.kind, o.name, o.id, o.token, o.revision, o.ttl)
}

// load is clients that lock, overwrite, renew and unlock as fast as they can, until
// they are stopped or do not know what became of an operation.
type load struct {
	done     atomic.Int64 // operations acknowledged
	dead     atomic.Bool  // the server's machine has no power any more
	progress chan struct{}
	stopped  chan struct{}
	clients  sync.WaitGroup

	mu    sync.Mutex
	acked []operation // in an order that each client agrees with
	doubt []operation
	late  int    // of those in doubt, the ones answered after the cut
	fault string // an answer that nobody should get
}

// loadNames is how many locks the clients fight for.
const loadNames = 50

func loadName(i int) string { return fmt.Sprintf("dir%d/sub/lock-%d", i%3, i) }

// startLoad starts clients. They go on with the holds that there are.
func startLoad(t *testing.T, address string, clients int, holds map[string]hold, random *rand.Rand) *load {
	t.Helper()
	l := &load{stopped: make(chan struct{}), progress: make(chan struct{}, 1)}
	mine := make([]map[string]uint64, clients)
	for i := range mine {
		mine[i] = make(map[string]uint64)
	}
	for name, h := range holds {
		mine[random.IntN(clients)][name] = h.token
	}
	for i := range clients {
		c := &loadClient{
			load:   l,
			random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64())),
			client: newClient(t, address),
			holder: []string{"crew", "", fmt.Sprintf("client-%d", i)}[i%3],
			holds:  mine[i],
			ids:    fmt.Sprintf("%x-%d", random.Uint64(), i),
		}
		l.clients.Go(c.run)
	}
	return l
}

// stop stops the clients and waits for them.
func (l *load) stop() {
	close(l.stopped)
	l.clients.Wait()
}

// await waits until so many operations have been acknowledged, or no client works
// any more, or it takes too long.
func (l *load) await(n int64, limit time.Duration) {
	timeout := time.After(limit)
	for l.done.Load() < n {
		select {
		case <-l.progress:
		case <-timeout:
			return
		}
	}
}

type loadClient struct {
	*load
	random *rand.Rand
	client pylokv1.LockServiceClient
	holder string
	holds  map[string]uint64 // tokens of holds that may still be there
	ids    string
	n      int
}

func (c *loadClient) run() {
	for {
		select {
		case <-c.stopped:
			return
		default:
		}
		o, err := c.operate()
		if !c.record(o, err) {
			return
		}
	}
}

// record notes what came of an operation, and reports whether the client knows.
func (c *loadClient) record(o operation, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		select {
		case c.progress <- struct{}{}:
		default:
		}
	}()
	switch reason := reasonOf(err); {
	case err == nil && c.dead.Load():
		// A machine without power answers nobody. This one does: when ext4 is
		// shut down while it converts an extent that fdatasync waits for,
		// fdatasync succeeds and the extent is lost.
		c.late++
		c.doubt = append(c.doubt, o)
		return false
	case err == nil:
		c.acked = append(c.acked, o)
		c.done.Add(1)
		return true
	case reason == "LOCK_HELD" || reason == "NOT_HOLDER" || reason == "NOT_LOCKED":
		if o.kind != grant {
			delete(c.holds, o.name)
		}
		return true
	case reason == "STORE_READ_ONLY": // nothing changed, it says
		return false
	case c.dead.Load() || status.Code(err) == codes.Unavailable || status.Code(err) == codes.Canceled:
		c.doubt = append(c.doubt, o)
		return false
	default:
		c.doubt = append(c.doubt, o)
		c.fault = fmt.Sprintf("%v: %v", o, err)
		return false
	}
}

// reasonOf returns the reason that an error has for programs.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

// operate does one thing.
func (c *loadClient) operate() (operation, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.n++
	o := operation{name: loadName(c.random.IntN(loadNames)), id: fmt.Sprintf("%s-%d", c.ids, c.n)}
	o.token = c.holds[o.name]
	switch dice := c.random.IntN(100); {
	case o.token == 0 && dice < 10:
		o.kind = unlock
		response, err := c.client.Unlock(ctx, &pylokv1.UnlockRequest{Name: o.name, Force: true, Holder: c.holder, Reason: o.id})
		if err == nil {
			o.revision, o.token = response.Revision, response.Lock.Token
		}
		return o, err
	case o.token == 0:
		o.kind = grant
		request := &pylokv1.LockRequest{Name: o.name, Holder: c.holder, RequestId: o.id, Data: c.data(o.id), Overwrite: dice < 60}
		if dice%2 == 0 {
			o.ttl = c.ttl()
			request.Expiry = &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(o.ttl)}
		}
		response, err := c.client.Lock(ctx, request)
		if err == nil {
			o.token, o.revision = response.Lock.Token, response.Lock.Revision
			c.holds[o.name] = o.token
		}
		return o, err
	case dice < 35:
		o.kind = update
		response, err := c.client.Renew(ctx, &pylokv1.RenewRequest{Name: o.name, Token: o.token, Data: c.data(o.id)})
		if err == nil {
			o.revision = response.Lock.Revision
			o.ttl = response.Lock.Ttl.AsDuration()
		}
		return o, err
	case dice < 55:
		o.kind, o.ttl = extend, c.ttl()
		_, err := c.client.Renew(ctx, &pylokv1.RenewRequest{Name: o.name, Token: o.token, Expiry: &pylokv1.RenewRequest_Ttl{Ttl: durationpb.New(o.ttl)}})
		return o, err
	default:
		o.kind = unlock
		delete(c.holds, o.name)
		response, err := c.client.Unlock(ctx, &pylokv1.UnlockRequest{Name: o.name, Token: o.token, Reason: o.id})
		if err == nil {
			o.revision = response.Revision
		}
		return o, err
	}
}

// ttl returns a time that no test lasts and that tells one renewal from another.
func (c *loadClient) ttl() time.Duration {
	return time.Hour + time.Duration(c.random.IntN(1e6))*time.Millisecond
}

// data returns a document, some of one block of a disk and some of several.
func (c *loadClient) data(id string) *structpb.Struct {
	size := c.random.IntN(200)
	if c.random.IntN(5) == 0 {
		size = c.random.IntN(16 << 10)
	}
	data, err := structpb.NewStruct(map[string]any{"op": id, "padding": strings.Repeat("x", size), "size": size})
	if err != nil {
		panic(err) // it has only strings and numbers
	}
	return data
}
