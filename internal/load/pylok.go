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
)

// ttl is that of the holds, longer than any measurement.
const ttl = 10 * time.Minute

// Pylok is a pylok server as a Target. A hold has a lease and the data of the
// original library's example; its file is about 400 bytes long. All callers share
// one connection.
type Pylok struct {
	// Service is the connection that the callers share.
	Service pylokv1.LockServiceClient

	dial  func() (*client.Client, error)
	data  *structpb.Struct
	wait  *durationpb.Duration
	token []uint64 // of each caller's hold

	mu      sync.Mutex
	clients []*client.Client // by the number of the connection; the callers' is number 0
}

// NewPylok returns the server that dial connects to.
func NewPylok(dial func() (*client.Client, error)) (*Pylok, error) {
	data, err := structpb.NewStruct(map[string]any{
		"contact_email": "billyjenkins@example.com",
		"data":          map[string]any{"backend": "App1", "server": "server-cluster3w1-2", "status": "MAINT"},
		"msg":           "Locking App1 on server-cluster3w1-2 for canary deployment",
	})
	if err != nil {
		return nil, err
	}
	p := &Pylok{dial: dial, data: data, wait: durationpb.New(time.Minute)}
	if p.Service, err = p.connection(0); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Pylok) connection(number int) (pylokv1.LockServiceClient, error) {
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
	request := p.request(name, ttl)
	request.Wait = p.wait
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
	request := &pylokv1.LockRequest{Name: name, Data: p.data, Holder: "alice@ci-7"}
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
	service, err := p.connection(connection)
	if err != nil {
		return err
	}
	stream, err := service.Watch(ctx, &pylokv1.WatchRequest{Pattern: prefix + "**"})
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
				return fmt.Errorf("the watch of %s** was reset: changes were missed", prefix)
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
