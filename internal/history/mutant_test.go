package history

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pylok/pylok/filestore"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// inProcess is a server within the test, whose service a test can make worse.
type inProcess struct {
	root string
	with func(pylokv1.LockServiceServer) pylokv1.LockServiceServer

	store   *filestore.Store
	manager *manager.Manager
	server  *grpc.Server
	served  chan error
}

func (s *inProcess) start() (string, error) {
	var err error
	if s.store, err = filestore.Open(context.Background(), filestore.Config{Root: s.root}); err != nil {
		return "", err
	}
	if s.manager, err = manager.New(s.store, manager.Config{}); err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.server = grpc.NewServer()
	pylokv1.RegisterLockServiceServer(s.server, s.with(service.New(s.manager, service.Config{Root: s.root})))
	s.served = make(chan error, 1)
	go func() { s.served <- s.server.Serve(listener) }()
	return listener.Addr().String(), nil
}

// kill implements server as well as a part of a process can.
func (s *inProcess) kill() error { return s.stop() }

func (s *inProcess) stop() error {
	s.manager.Close()
	s.server.Stop()
	return errors.Join(<-s.served, s.store.Close())
}

// intact is the service as it is.
func intact(s pylokv1.LockServiceServer) pylokv1.LockServiceServer { return s }

// tokenUnchecked is a service whose Unlock takes any token for the right one. What
// it answers does not give it away.
type tokenUnchecked struct{ pylokv1.LockServiceServer }

// Unlock implements pylokv1.LockServiceServer.
func (s tokenUnchecked) Unlock(ctx context.Context, request *pylokv1.UnlockRequest) (*pylokv1.UnlockResponse, error) {
	token := request.GetToken()
	if token != 0 {
		request.Token, request.Force = 0, true
	}
	response, err := s.LockServiceServer.Unlock(ctx, request)
	if err == nil && token != 0 {
		response.Lock.Token = token
	}
	return response, err
}

// expiresEarly is a service whose leases are shorter than it says, the long ones by
// far.
type expiresEarly struct{ pylokv1.LockServiceServer }

func shorter(ttl *durationpb.Duration) *durationpb.Duration {
	return durationpb.New(100*time.Millisecond + (ttl.AsDuration()-ttls[0])/10)
}

// longer undoes shorter.
func longer(ttl *durationpb.Duration) *durationpb.Duration {
	for _, whole := range ttls {
		if proto.Equal(shorter(durationpb.New(whole)), ttl) {
			return durationpb.New(whole)
		}
	}
	return ttl
}

// Lock implements pylokv1.LockServiceServer.
func (s expiresEarly) Lock(ctx context.Context, request *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	if ttl := request.GetTtl(); ttl != nil {
		request.Expiry = &pylokv1.LockRequest_Ttl{Ttl: shorter(ttl)}
	}
	response, err := s.LockServiceServer.Lock(ctx, request)
	if ttl := response.GetLock().GetTtl(); ttl != nil {
		response.Lock.Ttl = longer(ttl)
	}
	return response, err
}

// Renew implements pylokv1.LockServiceServer.
func (s expiresEarly) Renew(ctx context.Context, request *pylokv1.RenewRequest) (*pylokv1.RenewResponse, error) {
	if ttl := request.GetTtl(); ttl != nil {
		request.Expiry = &pylokv1.RenewRequest_Ttl{Ttl: shorter(ttl)}
	}
	response, err := s.LockServiceServer.Renew(ctx, request)
	if ttl := response.GetLock().GetTtl(); ttl != nil {
		response.Lock.Ttl = longer(ttl)
	}
	return response, err
}

// Status implements pylokv1.LockServiceServer.
func (s expiresEarly) Status(ctx context.Context, request *pylokv1.StatusRequest) (*pylokv1.StatusResponse, error) {
	response, err := s.LockServiceServer.Status(ctx, request)
	if ttl := response.GetLock().GetTtl(); ttl != nil {
		response.Lock.Ttl = longer(ttl)
	}
	return response, err
}

// unfair is a service that forgets where a waiter stood: after each 20 ms it goes to
// the end of the line.
type unfair struct{ pylokv1.LockServiceServer }

// Lock implements pylokv1.LockServiceServer.
func (s unfair) Lock(ctx context.Context, request *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	end := time.Now().Add(request.GetWait().AsDuration())
	for {
		left := time.Until(end)
		if left > 20*time.Millisecond {
			request.Wait = durationpb.New(20 * time.Millisecond)
		} else if request.Wait != nil {
			request.Wait = durationpb.New(max(left, 0))
		}
		response, err := s.LockServiceServer.Lock(ctx, request)
		if err == nil || left <= 20*time.Millisecond || ctx.Err() != nil || !errors.Is(err, lock.ErrLockHeld) {
			return response, err
		}
	}
}

// ghost is a service that says of every release by token that the ghost made it.
type ghost struct{ pylokv1.LockServiceServer }

// Unlock implements pylokv1.LockServiceServer.
func (s ghost) Unlock(ctx context.Context, request *pylokv1.UnlockRequest) (*pylokv1.UnlockResponse, error) {
	if request.GetToken() != 0 {
		request.Holder = "ghost"
	}
	return s.LockServiceServer.Unlock(ctx, request)
}

// stillNext is a service whose Unlock takes the hold that ended for the next.
type stillNext struct{ pylokv1.LockServiceServer }

// Unlock implements pylokv1.LockServiceServer.
func (s stillNext) Unlock(ctx context.Context, request *pylokv1.UnlockRequest) (*pylokv1.UnlockResponse, error) {
	response, err := s.LockServiceServer.Unlock(ctx, request)
	if err == nil {
		response.Next = response.Lock
	}
	return response, err
}

// attempts is how often a workload may miss a guard that is taken out: what it does is
// left to chance.
const attempts = 8

// TestChecksCanFail runs the checks on services with a guard taken out.
func TestChecksCanFail(t *testing.T) {
	for _, test := range []struct {
		name string
		with func(pylokv1.LockServiceServer) pylokv1.LockServiceServer
		want string // a problem that begins so; empty: none at all
	}{
		{"intact", intact, ""},
		{"token unchecked", func(s pylokv1.LockServiceServer) pylokv1.LockServiceServer { return tokenUnchecked{s} }, "porcupine: Illegal"},
		{"expiry early", func(s pylokv1.LockServiceServer) pylokv1.LockServiceServer { return expiresEarly{s} }, "porcupine: Illegal"},
		{"unfair", func(s pylokv1.LockServiceServer) pylokv1.LockServiceServer { return unfair{s} }, "first in, first out"},
		{"a ghost", func(s pylokv1.LockServiceServer) pylokv1.LockServiceServer { return ghost{s} }, "history: it is by somebody else"},
		{"the next is the last", func(s pylokv1.LockServiceServer) pylokv1.LockServiceServer { return stillNext{s} }, "history: the hold that it says comes next"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pictures := t.TempDir()
			t.Setenv("TMPDIR", pictures)
			var problems []string
			for attempt := range uint64(attempts) {
				e := observe(t, settings{
					seed:     attempt + 1,
					duration: 2500 * time.Millisecond,
					clients:  16,
					locks:    4,
					disturb:  5,
					life:     1500 * time.Millisecond,
				}, &inProcess{root: t.TempDir(), with: test.with})
				problems = e.problems
				found := 0
				for _, problem := range problems {
					if test.want != "" && strings.HasPrefix(problem, test.want) {
						found++
					}
				}
				switch {
				case test.want == "" && len(problems) > 0:
					t.Fatalf("got problems: %q", problems)
				case test.want == "":
					return
				case found > 0:
					drawn, _ := filepath.Glob(filepath.Join(pictures, "*", "*.html"))
					if strings.HasPrefix(test.want, "porcupine") && len(drawn) == 0 {
						t.Error("there is no picture of the violation")
					}
					t.Logf("attempt %d: %d problems, of which %d begin with %q, such as: %s", attempt+1, len(problems), found, test.want, problems[0])
					return
				}
			}
			t.Errorf("got no problem that begins with %q; the last ones are %q", test.want, problems)
		})
	}
}
