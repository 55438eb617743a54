package service

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// A call begins with its headers, and gRPC waits for the request without an end: who
// never sends it would keep a call open, and a goroutine, for as long as the connection
// stands. So a call whose request does not arrive within a limit is cancelled. The limit
// begins before anything else looks at the call, in a tap, and ends where an interceptor
// sees the request.

// arrivals are the calls whose requests have not arrived yet. They are swept now and then,
// which costs a call less than a timer of its own, and forgets those that their clients
// have taken back.
type arrivals struct {
	limit time.Duration

	mu       sync.Mutex
	calls    map[*arrival]struct{}
	places   tally // those of each place
	sweeping bool  // a sweep is scheduled
}

// arrival is the context of a call whose request is to arrive.
type arrival struct {
	context.Context
	cancel context.CancelFunc
	began  time.Time
	place  place
}

// arrivalKey is the key of a call's *arrival in its context.
type arrivalKey struct{}

// Value implements context.Context.
func (a *arrival) Value(key any) any {
	if key == (arrivalKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// mostArrivals is how many calls of one place may have begun without their requests, at a
// time. Clients send these with the headers, as a rule.
const mostArrivals = 16384

// begin is a tap.ServerInHandle that limits the arrival of a call's request.
func (a *arrivals) begin(ctx context.Context, _ *tap.Info) (context.Context, error) {
	call := &arrival{began: time.Now(), place: placeOfCall(ctx)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.places.add(call.place, mostArrivals) {
		return nil, status.Errorf(codes.ResourceExhausted, "%d calls from %v have begun and not sent their requests, the most that one place may", mostArrivals, call.place)
	}
	call.Context, call.cancel = context.WithCancel(ctx)
	if a.calls == nil {
		a.calls = make(map[*arrival]struct{})
	}
	a.calls[call] = struct{}{}
	if !a.sweeping {
		a.sweeping = true
		time.AfterFunc(a.interval(), a.sweep)
	}
	return call, nil
}

// interval is the time between two sweeps.
func (a *arrivals) interval() time.Duration { return min(a.limit/8, 250*time.Millisecond) }

// sweep cancels the calls whose requests are late, and forgets those that are over.
func (a *arrivals) sweep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for call := range a.calls {
		if time.Since(call.began) >= a.limit {
			call.cancel()
		}
		if call.Err() != nil {
			a.forget(call)
		}
	}
	a.sweeping = len(a.calls) > 0
	if a.sweeping {
		time.AfterFunc(a.interval(), a.sweep)
	} else {
		a.calls = nil // a map that was large stays so
	}
}

// forget forgets a call, if it was not before. The caller must hold mu.
func (a *arrivals) forget(call *arrival) {
	if _, known := a.calls[call]; known {
		delete(a.calls, call)
		a.places.remove(call.place)
	}
}

// end ends the limit of a call whose request is here.
func (a *arrivals) end(ctx context.Context) {
	if call, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		a.mu.Lock()
		a.forget(call)
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
