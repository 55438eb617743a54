package client_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// failing is a server that answers every call with one status.
type failing struct {
	pylokv1.UnimplementedLockServiceServer
	answer *status.Status
}

func (s *failing) Status(context.Context, *pylokv1.StatusRequest) (*pylokv1.StatusResponse, error) {
	return nil, s.answer.Err()
}

func (s *failing) Watch(*pylokv1.WatchRequest, grpc.ServerStreamingServer[pylokv1.WatchResponse]) error {
	return s.answer.Err()
}

// refusal makes a status as the server does.
func refusal(t *testing.T, code codes.Code, message string, details ...protoadapt.MessageV1) *status.Status {
	t.Helper()
	s, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reason(name string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Domain: "pylok", Reason: name}
}

func TestRefusals(t *testing.T) {
	acquired := time.Date(2026, 11, 22, 18, 3, 11, 482e6, time.UTC)
	data, err := structpb.NewStruct(map[string]any{"msg": "canary", "data": map[string]any{"weight": 1.0}})
	if err != nil {
		t.Fatal(err)
	}
	leased := &pylokv1.Lock{
		Name:        "lb/x",
		State:       pylokv1.LockState_LOCK_STATE_LOCKED,
		Data:        data,
		Holder:      "alice@ci-7",
		Token:       42,
		Revision:    43,
		AcquireTime: timestamppb.New(acquired),
		Ttl:         durationpb.New(time.Minute),
		ExpireTime:  timestamppb.New(acquired.Add(time.Minute)),
		Waiters:     2,
	}
	wantLeased := &lock.Lock{
		Name:        lock.MustParseName("lb/x"),
		Data:        mustData(t, `{"data":{"weight":1},"msg":"canary"}`),
		Holder:      "alice@ci-7",
		Token:       42,
		Revision:    43,
		AcquireTime: acquired,
		TTL:         time.Minute,
		Deadline:    acquired.Add(time.Minute),
		Waiters:     2,
	}
	bounded := &pylokv1.Lock{
		Name:        "lb/x",
		State:       pylokv1.LockState_LOCK_STATE_LOCKED,
		Token:       7,
		Revision:    7,
		AcquireTime: timestamppb.New(acquired),
		ExpireTime:  timestamppb.New(acquired.Add(time.Hour)),
		Problem:     "it is empty",
	}
	wantBounded := &lock.Lock{
		Name:        lock.MustParseName("lb/x"),
		Token:       7,
		Revision:    7,
		AcquireTime: acquired,
		ExpireTime:  acquired.Add(time.Hour),
		Deadline:    acquired.Add(time.Hour),
		Problem:     "it is empty",
	}
	violations := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "ttl", Description: "too short"},
		{Field: "wait", Description: "too long"},
	}}
	for _, test := range []struct {
		name   string
		answer *status.Status
		want   lock.Error // but for Err
	}{
		{
			"LOCK_HELD with a lease",
			refusal(t, codes.FailedPrecondition, "it is held", reason("LOCK_HELD"), leased),
			lock.Error{Reason: lock.ErrLockHeld, Message: "it is held", Lock: wantLeased},
		},
		{
			"NOT_HOLDER with an expiry and a problem, details in another order",
			refusal(t, codes.FailedPrecondition, "not yours", bounded, reason("NOT_HOLDER")),
			lock.Error{Reason: lock.ErrNotHolder, Message: "not yours", Lock: wantBounded},
		},
		{
			"LOCK_HELD without its lock",
			refusal(t, codes.FailedPrecondition, "it is held", reason("LOCK_HELD")),
			lock.Error{Reason: lock.ErrLockHeld, Message: "it is held"},
		},
		{
			"LOCK_HELD with a lock that cannot be",
			refusal(t, codes.FailedPrecondition, "it is held", reason("LOCK_HELD"), &pylokv1.Lock{Name: "../x"}),
			lock.Error{Reason: lock.ErrLockHeld, Message: "it is held"},
		},
		{
			"NOT_LOCKED",
			refusal(t, codes.NotFound, "it is free", reason("NOT_LOCKED")),
			lock.Error{Reason: lock.ErrNotLocked, Message: "it is free"},
		},
		{
			"INVALID_NAME",
			refusal(t, codes.InvalidArgument, "no name", reason("INVALID_NAME"),
				&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name"}}}),
			lock.Error{Reason: lock.ErrInvalidName, Message: "no name", Field: "name"},
		},
		{
			"INVALID_ARGUMENT with two fields",
			refusal(t, codes.InvalidArgument, "ttl: too short", reason("INVALID_ARGUMENT"), violations),
			lock.Error{Reason: lock.ErrInvalidArgument, Message: "ttl: too short", Field: "ttl"},
		},
		{
			"DATA_TOO_LARGE",
			refusal(t, codes.ResourceExhausted, "too much", reason("DATA_TOO_LARGE")),
			lock.Error{Reason: lock.ErrDataTooLarge, Message: "too much"},
		},
		{
			"TOO_MANY_WAITERS",
			refusal(t, codes.ResourceExhausted, "too many", reason("TOO_MANY_WAITERS")),
			lock.Error{Reason: lock.ErrTooManyWaiters, Message: "too many"},
		},
		{
			"TOO_MANY_LOCKS",
			refusal(t, codes.ResourceExhausted, "too many", reason("TOO_MANY_LOCKS")),
			lock.Error{Reason: lock.ErrTooManyLocks, Message: "too many"},
		},
		{
			"STORE_READ_ONLY is not unreachable",
			refusal(t, codes.Unavailable, "disk full", reason("STORE_READ_ONLY")),
			lock.Error{Reason: lock.ErrReadOnly, Message: "disk full"},
		},
		{
			"OUTCOME_UNKNOWN is not unreachable",
			refusal(t, codes.Unavailable, "who knows", reason("OUTCOME_UNKNOWN")),
			lock.Error{Reason: lock.ErrOutcomeUnknown, Message: "who knows"},
		},
		{
			"SHUTTING_DOWN is not unreachable",
			refusal(t, codes.Unavailable, "bye", reason("SHUTTING_DOWN")),
			lock.Error{Reason: lock.ErrShuttingDown, Message: "bye"},
		},
		{
			"UNAUTHENTICATED",
			refusal(t, codes.Unauthenticated, "who are you", reason("UNAUTHENTICATED")),
			lock.Error{Reason: lock.ErrUnauthenticated, Message: "who are you"},
		},
		{
			"PERMISSION_DENIED",
			refusal(t, codes.PermissionDenied, "no", reason("PERMISSION_DENIED")),
			lock.Error{Reason: lock.ErrPermissionDenied, Message: "no"},
		},
		{
			"RATE_LIMITED",
			refusal(t, codes.ResourceExhausted, "slower", reason("RATE_LIMITED"), &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}),
			lock.Error{Reason: lock.ErrRateLimited, Message: "slower", RetryAfter: 1500 * time.Millisecond},
		},
		{
			"TOO_MANY_WATCHES",
			refusal(t, codes.ResourceExhausted, "too many", reason("TOO_MANY_WATCHES")),
			lock.Error{Reason: lock.ErrTooManyWatches, Message: "too many"},
		},
		{
			"a reason of a later server",
			refusal(t, codes.PermissionDenied, "no", reason("WRONG_MOON")),
			lock.Error{Reason: "WRONG_MOON", Message: "no"},
		},
		{
			"the code does not count, the reason does",
			refusal(t, codes.Internal, "odd", reason("LOCK_HELD")),
			lock.Error{Reason: lock.ErrLockHeld, Message: "odd"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, _ := serve(t, &failing{answer: test.answer})
			c := dial(t, address)
			check := func(t *testing.T, err error) {
				t.Helper()
				got, ok := errors.AsType[*lock.Error](err)
				if !ok {
					t.Fatalf("got the error %v, want a *lock.Error", err)
				}
				if !errors.Is(err, test.want.Reason) {
					t.Errorf("the error is not a %v", test.want.Reason)
				}
				if got := status.Code(err); got != test.answer.Code() {
					t.Errorf("the code underneath is %v, want %v", got, test.answer.Code())
				}
				got.Err = nil
				if !reflect.DeepEqual(*got, test.want) {
					t.Errorf("got  %+v (lock %+v)\nwant %+v (lock %+v)", *got, got.Lock, test.want, test.want.Lock)
				}
			}
			t.Run("call", func(t *testing.T) {
				_, err := c.Status(t.Context(), &pylokv1.StatusRequest{Name: "x"})
				check(t, err)
			})
			t.Run("stream", func(t *testing.T) {
				stream, err := c.Watch(t.Context(), &pylokv1.WatchRequest{})
				if err == nil {
					_, err = stream.Recv()
				}
				check(t, err)
			})
		})
	}
}

// TestNoRefusal has statuses that are not of the domain.
func TestNoRefusal(t *testing.T) {
	for _, test := range []struct {
		name        string
		answer      *status.Status
		unreachable bool
		is          error // nil: nothing in particular
	}{
		{"unavailable", status.New(codes.Unavailable, "LOCK_HELD"), true, nil},
		{
			"unavailable from a proxy with reasons of its own",
			refusal(t, codes.Unavailable, "x", &errdetails.ErrorInfo{Domain: "proxy", Reason: "LOCK_HELD"}), true, nil,
		},
		{"internal", status.New(codes.Internal, "LOCK_HELD"), false, nil},
		{"unimplemented", status.New(codes.Unimplemented, "unknown method"), false, nil},
		{"cancelled", status.New(codes.Canceled, "x"), false, context.Canceled},
		{"deadline", status.New(codes.DeadlineExceeded, "x"), false, context.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, _ := serve(t, &failing{answer: test.answer})
			_, err := dial(t, address).Status(t.Context(), &pylokv1.StatusRequest{Name: "x"})
			if got := status.Code(err); got != test.answer.Code() {
				t.Errorf("got code %v (%v), want %v", got, err, test.answer.Code())
			}
			if refused, ok := errors.AsType[*lock.Error](err); ok {
				t.Errorf("got a refusal: %+v", refused)
			}
			if _, ok := errors.AsType[*client.UnreachableError](err); ok != test.unreachable {
				t.Errorf("unreachable is %v, want %v", ok, test.unreachable)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got the error %v, want %v", err, test.is)
			}
		})
	}
}

// TestTooLargeToSend: data that gRPC does not let through to the service are as those
// that the service refuses. What else is too large is nobody's business.
func TestTooLargeToSend(t *testing.T) {
	address, stop := startServer()
	defer stop()
	c := dial(t, address)
	for _, size := range []int{70_000, 300_000, 3_000_000} {
		data, err := structpb.NewStruct(map[string]any{"x": strings.Repeat("y", size)})
		if err != nil {
			t.Fatal(err)
		}
		for method, call := range map[string]func() error{
			"Lock": func() error {
				_, err := c.Lock(t.Context(), &pylokv1.LockRequest{Name: "x", Data: data})
				return err
			},
			"Renew": func() error {
				_, err := c.Renew(t.Context(), &pylokv1.RenewRequest{Name: "x", Token: 1, Data: data})
				return err
			},
			"Unlock": func() error {
				_, err := c.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "x", Data: data})
				return err
			},
		} {
			err := call()
			_, ok := errors.AsType[*lock.Error](err)
			if size > 256<<10 && (!ok || !errors.Is(err, lock.ErrDataTooLarge) || !strings.Contains(err.Error(), fmt.Sprint(size)[:3])) {
				t.Errorf("%s of %d bytes: got %v, want DATA_TOO_LARGE", method, size, err)
			}
			if !ok {
				t.Errorf("%s of %d bytes: got %v, want a refusal", method, size, err)
			}
		}
	}
	_, err := c.List(t.Context(), &pylokv1.ListRequest{Pattern: strings.Repeat("x", 3_000_000)})
	if _, ok := errors.AsType[*lock.Error](err); ok || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("List: got %v, want the status as it is", err)
	}
}

func mustData(t *testing.T, text string) lock.Data {
	t.Helper()
	data, err := lock.ParseData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
