package service

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"
)

// A call begins with its headers, and gRPC waits for the request without an end: who
// never sends it would keep a call open, and a goroutine, for as long as the connection
// stands. So a call whose request does not arrive within a limit is cancelled. The limit
// begins before anything else looks at the call, in a tap, and ends where an interceptor
// sees the request.

// arrivals are the calls whose requests are to arrive. They are looked through now and
// then, which costs a call less than a timer of its own, and forgets one that its client
// has taken back.
type arrivals struct {
	limit time.Duration

	mu      sync.Mutex
	calls   map[*arrival]struct{}
	looking bool // a look at them will come
}

// arrival is that of one request, and the context of its call.
type arrival struct {
	context.Context
	cancel context.CancelFunc
	began  time.Time
}

// arrivalKey is where a call's context has its *arrival.
type arrivalKey struct{}

// Value implements context.Context.
func (a *arrival) Value(key any) any {
	if key == (arrivalKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// begin is a tap.ServerInHandle that limits the arrival of a call's request.
func (a *arrivals) begin(ctx context.Context, _ *tap.Info) (context.Context, error) {
	one := &arrival{began: time.Now()}
	one.Context, one.cancel = context.WithCancel(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls = make(map[*arrival]struct{})
	}
	a.calls[one] = struct{}{}
	if !a.looking {
		a.looking = true
		time.AfterFunc(a.pause(), a.look)
	}
	return one, nil
}

// pause is the time between two looks.
func (a *arrivals) pause() time.Duration { return min(a.limit/8, 250*time.Millisecond) }

// look cancels the calls whose requests are late, and forgets those that are over.
func (a *arrivals) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for one := range a.calls {
		if time.Since(one.began) >= a.limit {
			one.cancel()
		}
		if one.Err() != nil {
			delete(a.calls, one)
		}
	}
	a.looking = len(a.calls) > 0
	if a.looking {
		time.AfterFunc(a.pause(), a.look)
	} else {
		a.calls = nil // a map keeps the room of its largest size
	}
}

// end ends the limit of a call whose request is here.
func (a *arrivals) end(ctx context.Context) {
	if one, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		a.mu.Lock()
		delete(a.calls, one)
		a.mu.Unlock()
	}
}

func (a *arrivals) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	a.end(ctx)
	return handler(ctx, request)
}

func (a *arrivals) stream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(service, &arrivingStream{stream, a})
}

type arrivingStream struct {
	grpc.ServerStream
	arrivals *arrivals
}

// RecvMsg implements grpc.ServerStream.
func (s *arrivingStream) RecvMsg(message any) error {
	err := s.ServerStream.RecvMsg(message)
	s.arrivals.end(s.Context())
	return err
}
