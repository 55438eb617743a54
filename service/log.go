package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/pylok/pylok/access"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// maxLoggedBytes is how much of a text from a request a log line shows.
const maxLoggedBytes = 256

// LogCalls returns an Interceptor that logs a line for each finished call, successes at
// level debug, refusals at info, those of who asks, of limits and of a failing store at warn,
// faults at error, and one for each stream that begins at debug: who asked for what, how it
// ended and how long it took. What the locks hold, and tokens, are not in it.
func LogCalls(logger *slog.Logger) Interceptor {
	log := callLog{logger}
	return Interceptor{log.unary, log.stream}
}

// callLog has the interceptors that LogCalls returns.
type callLog struct{ logger *slog.Logger }

func (c callLog) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	began := time.Now()
	response, err := handler(ctx, request)
	c.finished(ctx, info.FullMethod, request, began, err)
	return response, err
}

func (c callLog) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	began := time.Now()
	logged := &loggedStream{ServerStream: stream, log: c, method: info.FullMethod}
	err := handler(service, logged)
	c.finished(stream.Context(), info.FullMethod, logged.request, began, err)
	return err
}

// loggedStream notes the first message from the client.
type loggedStream struct {
	grpc.ServerStream
	log     callLog
	method  string
	request any
}

// RecvMsg implements grpc.ServerStream.
func (s *loggedStream) RecvMsg(message any) error {
	err := s.ServerStream.RecvMsg(message)
	if err == nil && s.request == nil {
		s.request = message
		ctx := s.Context()
		if s.log.logger.Enabled(ctx, slog.LevelDebug) {
			s.log.logger.LogAttrs(ctx, slog.LevelDebug, "stream began", callAttrs(ctx, s.method, message)...)
		}
	}
	return err
}

// finished writes the line of a call. Only a fault in the server shows its text: the
// reason says what there is to say of a refusal, and its text may quote data.
func (c callLog) finished(ctx context.Context, method string, request any, began time.Time, err error) {
	code := status.Code(err)
	level := levelOf(code, err)
	if !c.logger.Enabled(ctx, level) {
		return
	}
	attrs := append(callAttrs(ctx, method, request),
		slog.String("code", code.String()),
		slog.Duration("duration", time.Since(began)))
	if known, ok := errors.AsType[*statusError](err); ok && known.reason != "" {
		attrs = append(attrs, slog.String("reason", string(known.reason)))
	}
	if code == codes.Internal {
		attrs = append(attrs, slog.String("error", err.Error()))
	} else if refused, ok := errors.AsType[*lock.Error](err); ok && refused.Err != nil {
		attrs = append(attrs, slog.String("error", refused.Err.Error()))
	}
	if panicked, ok := errors.AsType[*panicError](err); ok {
		attrs = append(attrs, slog.String("stack", string(panicked.stack)))
	}
	c.logger.LogAttrs(ctx, level, "call finished", attrs...)
}

// levelOf returns the level of the line of a call. Success is quiet, for the history
// has every change; refusals are the callers' affair; the rest is the operator's.
func levelOf(code codes.Code, err error) slog.Level {
	switch code {
	case codes.OK:
		return slog.LevelDebug
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	case codes.Unavailable, codes.ResourceExhausted, codes.Unauthenticated, codes.PermissionDenied:
		if errors.Is(err, lock.ErrShuttingDown) {
			return slog.LevelInfo
		}
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// callAttrs says who asked for what.
func callAttrs(ctx context.Context, method string, request any) []slog.Attr {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("method", method))
	add := func(key, text string) {
		if len(text) > maxLoggedBytes {
			text = text[:maxLoggedBytes] + "..."
		}
		if text != "" {
			attrs = append(attrs, slog.String(key, text))
		}
	}
	if r, ok := request.(interface{ GetName() string }); ok {
		add("name", r.GetName())
	}
	add("names", namesAsked(request))
	if r, ok := request.(interface{ GetPattern() string }); ok {
		add("pattern", r.GetPattern())
	}
	if r, ok := request.(interface{ GetHolder() string }); ok {
		add("holder", r.GetHolder())
	}
	caller, _ := callerOf(ctx)
	add("caller", caller.Name)
	add("proof", caller.Proof)
	if p, ok := peer.FromContext(ctx); ok {
		from := p.Addr.String()
		if p.Addr.Network() == "unix" {
			from = access.EvidenceOf(ctx).Peer // the socket: who connects has no address
		}
		add("peer", from)
	}
	return attrs
}

// namesAsked returns the names of a request about a set with blanks between, as many as a
// line shows.
func namesAsked(request any) string {
	var b strings.Builder
	add := func(name string) {
		if b.Len() <= maxLoggedBytes {
			b.WriteString(name)
			b.WriteByte(' ')
		}
	}
	switch r := request.(type) {
	case *pylokv1.LockSetRequest:
		for _, name := range r.GetNames() {
			add(name)
		}
		for _, c := range r.GetChoices() {
			for _, name := range c.GetNames() {
				add(name)
			}
		}
	case interface{ GetHolds() []*pylokv1.HoldRef }:
		for _, h := range r.GetHolds() {
			add(h.GetName())
		}
	}
	return strings.TrimSuffix(b.String(), " ")
}

// panicError is a panic in a handler.
type panicError struct {
	value any
	stack []byte
}

// Error says what was panicked with.
func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// recovered returns the error that a call ends with whose handler panicked.
func recovered(value any) error {
	return internalError(&panicError{value: value, stack: debug.Stack()})
}
