package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// errorDomain marks the ErrorInfo details that are pylok's own.
const errorDomain = "pylok"

// UnreachableError says that the server gave no answer: nothing listens there, it
// could not be connected to in time, or the connection was lost.
type UnreachableError struct {
	// Address is the server's, as it was given to Dial.
	Address string
	// Sent says that the request may have reached the server before the
	// connection was lost, so that what it asked for may have been done.
	Sent bool
	// Err is the gRPC status underneath.
	Err error

	mismatch error // ErrServerSpeaksTLS or another of its kind; nil: none is known
}

// Error names the address and the cause.
func (e *UnreachableError) Error() string {
	if e.mismatch != nil {
		return fmt.Sprintf("cannot talk to the server at %s: %v", e.Address, e.mismatch)
	}
	cause := status.Convert(e.Err).Message()
	// gRPC wraps what the dialer said into words of its own.
	if _, dialing, ok := strings.Cut(cause, "Error while dialing: "); ok {
		cause = strings.TrimSuffix(dialing, `"`)
	}
	if e.Sent {
		return fmt.Sprintf("lost the connection to the server at %s: %s", e.Address, cause)
	}
	return fmt.Sprintf("cannot reach a server at %s: %s", e.Address, cause)
}

// Mismatch returns what keeps a server that is there from being talked to: ErrServerSpeaksTLS
// or another of its kind, with the particulars. Nil: nothing of that kind is known.
func (e *UnreachableError) Mismatch() error {
	if e == nil {
		return nil
	}
	return e.mismatch
}

// Is makes it what is known of why there is no connection.
func (e *UnreachableError) Is(target error) bool { return errors.Is(e.mismatch, target) }

// Unwrap returns the gRPC status.
func (e *UnreachableError) Unwrap() error { return e.Err }

// UnsupportedError says that the server is older than this Client and cannot do what was
// asked of it. Nothing has changed: a lock that such a server has granted otherwise than it
// was asked for has been given back.
type UnsupportedError struct {
	// Address is the server's, as it was given to Dial.
	Address string
	// What is what it does not know, such as "LockSet" or "tree locks".
	What string
	// Err is the gRPC status underneath; nil when the server's answer told.
	Err error
}

// Error names the server and what it cannot do.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the server at %s does not know %s: it is older than this client, and nothing was done", e.Address, e.What)
}

// Unwrap returns Err.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// unsupported makes of a status that says that the server does not know a method the
// error that the package promises. Others it returns as they are.
func unsupported(err error, address, method string) error {
	if status.Code(err) != codes.Unimplemented || isRefusal(err) {
		return err
	}
	return &UnsupportedError{Address: address, What: path.Base(method), Err: err}
}

// endedError is a call that ended with its context, here or on the server's side.
type endedError struct {
	ended error // context.Canceled or context.DeadlineExceeded
	sent  bool  // the request may have reached the server
	err   error // the gRPC status
}

func (e *endedError) Error() string   { return e.ended.Error() }
func (e *endedError) Unwrap() []error { return []error{e.ended, e.err} }

// domainError makes of a gRPC status the error that it stands for; sent says
// whether the request went out to a server. This is the one place for it, as
// service/errors.go is for the other way. It goes by code and reason, never by
// message.
func domainError(err error, address string, sent bool) error {
	answer, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	refusal := &lock.Error{Message: answer.Message(), Err: err}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain {
				refusal.Reason = lock.Reason(detail.GetReason())
			}
		case *errdetails.RetryInfo:
			refusal.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			if violations := detail.GetFieldViolations(); len(violations) > 0 && refusal.Field == "" {
				refusal.Field = violations[0].GetField()
			}
		case *pylokv1.Lock:
			// A lock that this client cannot read is as one that was not sent:
			// the reason and the message still stand.
			if l, err := lockFromProto(detail); err == nil {
				refusal.Lock = &l
			}
		}
	}
	switch {
	case refusal.Reason != "":
		return refusal
	case answer.Code() == codes.Unavailable,
		answer.Code() == codes.DeadlineExceeded && !sent:
		return &UnreachableError{Address: address, Sent: sent, Err: err}
	case answer.Code() == codes.DeadlineExceeded:
		return &endedError{context.DeadlineExceeded, sent, err}
	case answer.Code() == codes.Canceled:
		return &endedError{context.Canceled, sent, err}
	}
	return err
}

// domainErrors gives calls with one answer the errors that the package promises. A call
// whose bearer token the server does not take is made once more, if there is a new one.
func domainErrors(address string, security *security, bearer *bearer) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, response any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		call := func(refused string) (*attempt, error) {
			ctx, attempt := bearer.begin(ctx, refused)
			var server peer.Peer // its Addr is set when the request went out
			err := invoke(ctx, method, request, response, connection, append(options[:len(options):len(options)], grpc.Peer(&server))...)
			if err != nil && attempt.err != nil {
				return attempt, attempt.err
			}
			return attempt, domainError(err, address, server.Addr != nil)
		}
		attempt, err := call("")
		if bearer.renewed(ctx, attempt, err) {
			_, err = call(attempt.token)
		}
		if status.Code(err) == codes.ResourceExhausted && !isRefusal(err) {
			err = tooLarge(request, err)
		}
		return security.explain(unsupported(err, address, method))
	}
}

// largestFile is how many bytes a lock file has at most.
const largestFile = 64 << 10

// tooLarge returns the refusal that the service has for data of that size, of which it
// did not see the request: gRPC refused it before. Other requests have err.
func tooLarge(request any, err error) error {
	r, ok := request.(interface{ GetData() *structpb.Struct })
	if !ok || proto.Size(r.GetData()) <= largestFile {
		return err
	}
	what := "a set"
	if named, ok := request.(interface{ GetName() string }); ok {
		what = named.GetName()
	}
	return &lock.Error{
		Reason: lock.ErrDataTooLarge,
		Message: fmt.Sprintf("the data for %s are too large to send, %d bytes; a lock file has at most %d: keep the bulk elsewhere and lock with a link to it",
			what, proto.Size(r.GetData()), largestFile),
		Err: err,
	}
}

// domainStreamErrors gives calls with a stream of answers the errors that the
// package promises.
func domainStreamErrors(address string, security *security) grpc.StreamClientInterceptor {
	return func(ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		stream, err := open(ctx, description, connection, method, options...)
		if attempt, ok := ctx.Value(attemptKey{}).(*attempt); err != nil && ok && attempt.err != nil {
			return nil, attempt.err
		}
		if err != nil {
			return nil, security.explain(domainError(err, address, false))
		}
		return &errorStream{stream, address}, nil
	}
}

// errorStream is a stream whose errors are those that the package promises.
type errorStream struct {
	grpc.ClientStream
	address string
}

// RecvMsg implements grpc.ClientStream.
func (s *errorStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if errors.Is(err, io.EOF) {
		return err
	}
	return domainError(err, s.address, true)
}
