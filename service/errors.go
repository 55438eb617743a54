package service

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// Domain is the domain of every google.rpc.ErrorInfo that the service sends.
const Domain = "pylok"

// internalText is all that a caller sees of a fault in the server.
const internalText = "internal error; the server's log has the cause"

// maxStatusBytes bounds a status with its details. It travels in the trailers, in
// base64 and with its message a second time, and clients other than Go's take no
// more than 8 KiB of them: Python's drops the whole answer above.
const maxStatusBytes = 4 << 10

// refusals is how each reason goes over the wire, and a sentence for a store that
// gave the reason alone.
var refusals = map[lock.Reason]struct {
	code codes.Code
	text string
}{
	lock.ErrLockHeld:         {codes.FailedPrecondition, "the lock is held by somebody else"},
	lock.ErrNotHolder:        {codes.FailedPrecondition, "the hold is not yours"},
	lock.ErrNotLocked:        {codes.NotFound, "the lock is free"},
	lock.ErrInvalidName:      {codes.InvalidArgument, "the name breaks a rule for names"},
	lock.ErrInvalidArgument:  {codes.InvalidArgument, "the request breaks a rule"},
	lock.ErrDataTooLarge:     {codes.ResourceExhausted, "the lock file would be larger than 64 KiB"},
	lock.ErrTooManyWaiters:   {codes.ResourceExhausted, "the queue for the lock is full; ask again later"},
	lock.ErrTooManyLocks:     {codes.ResourceExhausted, "the server holds as many locks as it may; unlock some"},
	lock.ErrLockFile:         {codes.FailedPrecondition, "the server cannot change the lock file; nothing changed"},
	lock.ErrReadOnly:         {codes.Unavailable, "the server's disk is full or failing; nothing changed"},
	lock.ErrOutcomeUnknown:   {codes.Unavailable, "the change may or may not have been made; ask again with the same request_id"},
	lock.ErrUnauthenticated:  {codes.Unauthenticated, "the caller's proof is wrong or over"},
	lock.ErrPermissionDenied: {codes.PermissionDenied, "the rules do not allow the caller to do this"},
	lock.ErrRateLimited:      {codes.ResourceExhausted, "the caller asks more often than it may; ask again later"},
	lock.ErrTooManyWatches:   {codes.ResourceExhausted, "there are as many watches as may be; end some"},
	lock.ErrShuttingDown:     {codes.Unavailable, "the server is shutting down; ask again when it is back"},
}

// statusError is an error as the caller sees it, with the cause for the log.
type statusError struct {
	status *status.Status
	reason lock.Reason // "": none
	cause  error
}

// Error returns the cause's text, which is not for callers.
func (e *statusError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *statusError) Unwrap() error { return e.cause }

// GRPCStatus returns what goes over the wire.
func (e *statusError) GRPCStatus() *status.Status { return e.status }

// statusError gives an error of the locks its gRPC status. The request is asked
// for the name of the lock.
func (s *Service) statusError(err error, request any) error {
	if refused := refusedBy(err); refused != nil {
		return &statusError{status: s.refusal(refused, request), reason: refused.Reason, cause: err}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return &statusError{status: status.New(codes.Canceled, "the caller cancelled the call"), cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &statusError{status: status.New(codes.DeadlineExceeded, "the call's deadline has passed"), cause: err}
	}
	return internalError(err)
}

// internalError hides a fault in the server from the caller.
func internalError(cause error) error {
	return &statusError{status: status.New(codes.Internal, internalText), cause: cause}
}

// refusedBy returns the refusal that an error is, or nil for one that is none, or
// that refusals does not know.
func refusedBy(err error) *lock.Error {
	refused, ok := errors.AsType[*lock.Error](err)
	if !ok {
		reason, _ := errors.AsType[lock.Reason](err)
		refused = &lock.Error{Reason: reason, Message: refusals[reason].text}
	}
	if _, known := refusals[refused.Reason]; !known {
		return nil
	}
	return refused
}

// refusal makes the status of a request that the domain refused.
func (s *Service) refusal(refused *lock.Error, request any) *status.Status {
	info := &errdetails.ErrorInfo{
		Reason:   string(refused.Reason),
		Domain:   Domain,
		Metadata: errorMetadata(refused, request),
	}
	details := []protoadapt.MessageV1{info}
	switch refused.Reason {
	case lock.ErrInvalidName, lock.ErrInvalidArgument, lock.ErrDataTooLarge:
		details = append(details, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{
				Field:       refused.Field,
				Description: strings.TrimPrefix(refused.Message, refused.Field+": "),
			}},
		})
	}
	if refused.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(refused.RetryAfter)})
	}
	with := func(message string, l *pylokv1.Lock) (made *status.Status, fits bool) {
		made = status.New(refusals[refused.Reason].code, message)
		if l == nil {
			made = withDetails(made, details)
		} else {
			made = withDetails(made, append(details, l))
		}
		return made, proto.Size(made.Proto()) <= maxStatusBytes
	}
	message, l := refused.Message, (*pylokv1.Lock)(nil)
	if refused.Lock != nil {
		if whole, fits := with(message, s.lockMessage(*refused.Lock)); fits {
			return whole
		}
		l = s.lockMessage(brief(*refused.Lock))
	}
	made, fits := with(message, l)
	if !fits {
		message = cut(message, maxMessageBytes)
		made, fits = with(message, l)
	}
	if !fits && l != nil {
		l.Data, l.LockFileLocation = nil, "" // the texts that are left have limits of their own
		made, _ = with(message, l)
	}
	return made
}

// maxMessageBytes bounds a sentence where there is little room.
const maxMessageBytes = 1 << 10

// cut returns a text, or as much of it as there may be.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// messageOnly is what is left of data that are too large for a status: why the lock
// is held, as far as that is a line.
func messageOnly(data lock.Data) lock.Data {
	const mostBytes = 512
	msg := data.String("msg")
	if msg == "" || len(msg) > mostBytes {
		return lock.Data{}
	}
	data, _ = lock.NewData(map[string]any{"msg": msg}) // what was in one Data fits in another
	return data
}

// errorMetadata says in ErrorInfo which lock it is about and who holds it.
func errorMetadata(refused *lock.Error, request any) map[string]string {
	fields := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			fields[key] = value
		}
	}
	if l := refused.Lock; l != nil {
		set("name", l.Name.String())
		set("holder", l.Holder)
		if l.Held() {
			set("token", strconv.FormatUint(uint64(l.Token), 10))
		}
		return fields
	}
	if refused.Reason == lock.ErrInvalidName {
		return nil // it may be anything, and the message quotes it
	}
	if named, ok := request.(interface{ GetName() string }); ok {
		set("name", named.GetName())
	}
	return fields
}

func withDetails(s *status.Status, details []protoadapt.MessageV1) *status.Status {
	detailed, err := s.WithDetails(details...)
	if err != nil { // only for a status that is OK, or a message that is not valid
		return s
	}
	return detailed
}
