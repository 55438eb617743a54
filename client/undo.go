package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// undoWithin is how long a call that its caller has given up may take to find out
// whether it took the lock, and to release it.
const undoWithin = 5 * time.Second

// undoTTL is the ttl of a hold that must not come about: one that is granted only
// because somebody asked what became of an earlier request.
const undoTTL = time.Second

// OutcomeUnknownError says that a request for a lock failed and that the lock may be held:
// the answer is lost and nobody could be asked for it, or what was granted could not be
// given back. It is a lock.ErrOutcomeUnknown.
type OutcomeUnknownError struct {
	// Name is the lock's.
	Name lock.Name
	// RequestID is that of the request. Lock with the same one returns the hold if
	// there is one, else it takes the lock.
	RequestID string
	// Err is why the request failed.
	Err error
}

// Error says what may be held and how to find out.
func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("%v; %s may be locked by this request, and asking again with its request id %q tells", e.Err, e.Name, e.RequestID)
}

// Is makes it a lock.ErrOutcomeUnknown.
func (e *OutcomeUnknownError) Is(target error) bool { return target == lock.ErrOutcomeUnknown }

// Unwrap returns Err.
func (e *OutcomeUnknownError) Unwrap() error { return e.Err }

// settle makes sure that a request for a lock that failed holds nothing, or that its
// error says that it may. A caller that has left is waited for no longer than
// undoWithin.
func (c *Client) settle(ctx context.Context, name lock.Name, request *pylokv1.LockRequest, err error) error {
	_, ended := errors.AsType[*endedError](err)
	ended = ended || ctx.Err() != nil
	switch {
	case !isOutcomeUnknown(err):
		return err
	case ended || isFault(err):
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		if c.undo(ctx, name, request, err) == nil {
			return err
		}
	}
	return &OutcomeUnknownError{Name: name, RequestID: request.GetRequestId(), Err: err}
}

// undo releases what a request that ended with err may have taken.
//
// The server knows a request that it has granted by its id, and is asked by sending it
// again. It is asked first whether the request's holder has the lock at all, so that
// nobody sees a free one come and go: a request whose caller the server knows to be gone
// is not granted any more. It knows that when the request was cancelled on a connection
// that goes on.
func (c *Client) undo(ctx context.Context, name lock.Name, request *pylokv1.LockRequest, err error) error {
	if _, cutOff := errors.AsType[*UnreachableError](err); !cutOff {
		present, err := c.Status(ctx, name.String())
		if err != nil || !present.Held() || present.Holder != request.Holder {
			return err
		}
	}
	response, err := c.send(ctx, &pylokv1.LockRequest{
		Name:      request.GetName(),
		Holder:    request.GetHolder(),
		Expiry:    &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(undoTTL)},
		RequestId: request.GetRequestId(),
	})
	switch {
	case isAnswer(err):
		return nil // it has no hold
	case err != nil:
		return err
	}
	return c.abandon(ctx, name, lock.Token(response.GetLock().GetToken()))
}

// abandon releases a hold that nobody will get to see.
func (c *Client) abandon(ctx context.Context, name lock.Name, token lock.Token) error {
	_, err := c.Unlock(ctx, lock.UnlockRequest{
		Name:   name,
		Token:  token,
		Reason: "the caller left before it could use the lock",
	})
	if isOver(err) {
		return nil
	}
	return err
}
