package client

import (
	"context"
	"errors"
	"iter"

	"google.golang.org/grpc"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// Watch yields every change, after a revision, of the locks that a pattern selects, in
// order, without gap or repeat, until ctx ends. A connection that breaks is made again,
// however long that takes, and the watch goes on after the last event.
//
// With after 0, and where the server no longer has all changes since, it begins with a
// Reset, a Locked for each held lock and a Synced. A Reset can come at any time, and
// again before the Synced if the connection breaks in between: it says to forget every
// lock you know. A Synced says that all changes up to its revision have been told; it
// comes again at least every 30 s while there is nothing else to tell.
//
// The last pair has the error that ended the watch: ctx's, a refusal such as
// lock.ErrInvalidArgument, or an UnreachableError when the server was never there.
func (c *Client) Watch(ctx context.Context, pattern string, after lock.Revision) iter.Seq2[lock.Event, error] {
	return func(yield func(lock.Event, error) bool) {
		at := position{after: after, whole: after > 0}
		delay := firstRetry
		for {
			told := false
			err := c.follow(ctx, pattern, at.after, func(e lock.Event) bool {
				at.pass(e)
				told, delay = true, firstRetry
				return yield(e, nil)
			})
			switch {
			case errors.Is(err, errEnough):
				return
			case ctx.Err() != nil:
				err = ctx.Err()
			case c.isPassing(err), told && !isRefusal(err): // a proxy can end a stream in many ways
				if sleep(ctx, jitter(delay)) {
					delay = min(2*delay, longestRetry)
					continue
				}
				err = ctx.Err()
			}
			yield(lock.Event{}, err)
			return
		}
	}
}

// errEnough: who ranges over a watch has had enough.
var errEnough = errors.New("the watch is not wanted any more")

// follow tells the events of one stream. It returns only with an error.
func (c *Client) follow(ctx context.Context, pattern string, after lock.Revision, tell func(lock.Event) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.service.Watch(ctx,
		&pylokv1.WatchRequest{Pattern: pattern, AfterRevision: uint64(after)},
		grpc.WaitForReady(c.reached.Load()))
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		c.reached.Store(true)
		event, err := eventFromProto(response.GetEvent())
		if err != nil {
			return err
		}
		if !tell(event) {
			return errEnough
		}
	}
}

// position is how far a watch has come.
type position struct {
	after lock.Revision // where to go on; 0: with the present state
	whole bool          // every change up to there has been told
}

// pass notes an event. From between a Reset and its Synced there is no going on.
func (p *position) pass(e lock.Event) {
	switch {
	case e.Type == lock.Reset:
		*p = position{}
	case e.Type == lock.Synced:
		*p = position{after: e.Revision, whole: true}
	case p.whole:
		p.after = e.Revision
	}
}
