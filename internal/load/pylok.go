package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// TTL is that of the holds: longer than any measurement, and after a run that was
// killed the end of what it held.
const TTL = 10 * time.Minute

const (
	// inLine is how long a caller stands in line: longer than all others who are
	// there take.
	inLine = 5 * time.Minute
	// releasers is how many locks Release releases at a time.
	releasers = 16
)

// Pylok is a pylok server as a Target. A hold has a lease, a holder and data; its file
// is about 400 bytes long. All callers share one connection.
type Pylok struct {
	// Service is the connection that the callers share.
	Service pylokv1.LockServiceClient

	dial   func() (*client.Client, error)
	holder string
	data   *structpb.Struct
	token  []uint64 // of each caller's hold

	mu      sync.Mutex
	clients []*client.Client // by the number of the connection; the callers' is number 0
}

// NewPylok returns the server that dial connects to, for callers who all have the
// name holder.
func NewPylok(holder string, dial func() (*client.Client, error)) (*Pylok, error) {
	data, err := structpb.NewStruct(map[string]any{
		"data": map[string]any{"kind": "load test", "program": "pylok bench", "status": "RUNNING"},
		"msg":  "A load test of the server holds this lock for a moment and releases it by itself: see pylok bench --help",
	})
	if err != nil {
		return nil, err
	}
	p := &Pylok{dial: dial, holder: holder, data: data}
	if p.Service, err = p.Connection(0); err != nil {
		return nil, err
	}
	return p, nil
}

// Connection returns the connection with a number; number 0 is the callers'.
func (p *Pylok) Connection(number int) (pylokv1.LockServiceClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.clients) <= number {
		c, err := p.dial()
		if err != nil {
			return nil, err
		}
		p.clients = append(p.clients, c)
	}
	return p.clients[number].Service(), nil
}

// Callers implements Target.
func (p *Pylok) Callers(_ context.Context, n int) error {
	if n > len(p.token) {
		p.token = append(p.token, make([]uint64, n-len(p.token))...)
	}
	return nil
}

// Lock implements Target.
func (p *Pylok) Lock(ctx context.Context, caller int, name string) error {
	request := p.request(name, TTL)
	request.Wait = durationpb.New(inLine)
	response, err := p.Service.Lock(ctx, request)
	p.token[caller] = response.GetLock().GetToken()
	return err
}

// Take takes a lock for nobody in particular, without waiting, and returns its
// token. With ttl 0 the hold has no lease.
func (p *Pylok) Take(ctx context.Context, name string, ttl time.Duration) (token uint64, err error) {
	response, err := p.Service.Lock(ctx, p.request(name, ttl))
	return response.GetLock().GetToken(), err
}

func (p *Pylok) request(name string, ttl time.Duration) *pylokv1.LockRequest {
	request := &pylokv1.LockRequest{Name: name, Data: p.data, Holder: p.holder}
	if ttl != 0 {
		request.Expiry = &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(ttl)}
	}
	return request
}

// Unlock implements Target.
func (p *Pylok) Unlock(ctx context.Context, caller int, name string) error {
	_, err := p.Service.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: p.token[caller]})
	return err
}

// Status implements Target.
func (p *Pylok) Status(ctx context.Context, _ int, name string) error {
	_, err := p.Service.Status(ctx, &pylokv1.StatusRequest{Name: name})
	return err
}

// Subscribe implements Target.
func (p *Pylok) Subscribe(ctx context.Context, connection int, prefix string, ready func(), changed func(n int)) error {
	service, err := p.Connection(connection)
	if err != nil {
		return err
	}
	stream, err := service.Watch(ctx, &pylokv1.WatchRequest{Pattern: startingWith(prefix)})
	if err != nil {
		return err
	}
	for synced := false; ; {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		switch response.GetEvent().GetType() {
		case pylokv1.EventType_EVENT_TYPE_RESET:
			if synced {
				return fmt.Errorf("the watch of %s was reset: changes were missed", startingWith(prefix))
			}
		case pylokv1.EventType_EVENT_TYPE_SYNCED:
			if !synced {
				synced = true
				ready()
			}
		default:
			if synced {
				changed(1)
			}
		}
	}
}

// startingWith is the pattern for the names that start with prefix.
func startingWith(prefix string) string { return prefix + "**" }

// Release releases every lock whose name starts with prefix: what a run that was cut
// short has left. It is asked for on the callers' connection, so that the server knows
// already of each of their requests whether its caller is still there.
func (p *Pylok) Release(ctx context.Context, prefix string) error {
	var held []*pylokv1.Lock
	for request := (&pylokv1.ListRequest{Pattern: startingWith(prefix)}); ; {
		page, err := p.Service.List(ctx, request)
		if err != nil {
			return err
		}
		held = append(held, page.GetLocks()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			break
		}
	}
	return Each(ctx, len(held), releasers, func(ctx context.Context, i int) error {
		_, err := p.Service.Unlock(ctx, &pylokv1.UnlockRequest{Name: held[i].GetName(), Token: held[i].GetToken()})
		if errors.Is(err, lock.ErrNotLocked) || errors.Is(err, lock.ErrNotHolder) {
			return nil // the server has undone the grant
		}
		return err
	})
}

// Close implements Target.
func (p *Pylok) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, c := range p.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
