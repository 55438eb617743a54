package client

import (
	"context"
	"slices"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// A server that is older than this Client takes a request for what it takes no notice of,
// and grants a plain lock where a tree, a shared hold or one to keep was asked for. Its
// answer tells, for one that knows them has them in it.

// checkEcho returns an *UnsupportedError if the lock that a request was granted is not of
// the kind that it asked for; then it has been given back.
func (c *Client) checkEcho(ctx context.Context, name lock.Name, request *pylokv1.LockRequest, granted *pylokv1.Lock) error {
	what := ""
	switch {
	case request.GetTree() && !granted.GetTree():
		what = "tree locks"
	case request.GetShared() && !granted.GetShared():
		what = "shared holds"
	case isNotKept(request.GetOnExpiry(), granted):
		what = "on_expiry KEEP"
	default:
		return nil
	}
	var err error = &UnsupportedError{Address: c.address, What: what}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	if c.abandon(ctx, name, lock.Token(granted.GetToken())) != nil {
		return &OutcomeUnknownError{Name: name, RequestID: request.GetRequestId(), Err: err}
	}
	return err
}

// isNotKept reports whether a hold that was to be kept is one that will end.
func isNotKept(asked pylokv1.OnExpiry, granted *pylokv1.Lock) bool {
	return asked == pylokv1.OnExpiry_ON_EXPIRY_KEEP && granted.GetOnExpiry() != asked
}

// refusedForever returns why a request that would wait without an end was refused: err, or
// that the server does not know what that is.
func (c *Client) refusedForever(ctx context.Context, err error) error {
	info, failed := c.Info(ctx)
	if failed != nil || slices.Contains(info.Features, "set") {
		return err
	}
	return &UnsupportedError{Address: c.address, What: "waits without an end"}
}
