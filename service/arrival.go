package service

import (
	"context"
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

// arrivalKey is where a call's context has its *time.Timer.
type arrivalKey struct{}

// limitArrival returns a tap that cancels calls whose requests do not arrive in time.
func limitArrival(limit time.Duration) tap.ServerInHandle {
	return func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(limit, func() {
			cancel(status.Errorf(codes.Canceled, "the request did not arrive within %v", limit))
		})
		return context.WithValue(ctx, arrivalKey{}, timer), nil
	}
}

// arrived ends the limit of a call whose request is here.
func arrived(ctx context.Context) {
	if timer, ok := ctx.Value(arrivalKey{}).(*time.Timer); ok {
		timer.Stop()
	}
}

func arrivedUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	arrived(ctx)
	return handler(ctx, request)
}

func arrivedStream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(service, arrivingStream{stream})
}

type arrivingStream struct{ grpc.ServerStream }

// RecvMsg implements grpc.ServerStream.
func (s arrivingStream) RecvMsg(message any) error {
	err := s.ServerStream.RecvMsg(message)
	arrived(s.Context())
	return err
}
