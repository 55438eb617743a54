package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// Watch yields every change, after a revision, of the locks that a pattern selects, in
// order, without gap or repeat, until ctx ends. A pattern that is one name selects that
// lock's shared holds too. A connection that breaks is made again,
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
	return c.watch(ctx, &pylokv1.WatchRequest{Pattern: pattern, AfterRevision: uint64(after)})
}

// watch is Watch with the message of the contract for its request.
func (c *Client) watch(ctx context.Context, request *pylokv1.WatchRequest) iter.Seq2[lock.Event, error] {
	return func(yield func(lock.Event, error) bool) {
		for message, err := range c.WatchMessages(ctx, request) {
			var event lock.Event
			if err == nil {
				event, err = eventFromProto(message)
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// WatchMessages is Watch with the messages of the contract, for programs that show them.
func (c *Client) WatchMessages(ctx context.Context, request *pylokv1.WatchRequest) iter.Seq2[*pylokv1.Event, error] {
	return func(yield func(*pylokv1.Event, error) bool) {
		request := proto.CloneOf(request)
		whole := request.GetAfterRevision() > 0 // every change up to there has been told
		there := c.reached.Load()               // the server has answered, or told something
		anyTold := false                        // something has been told, by any stream
		opened := time.Now()
		delay := firstRetry
		refused := ""       // the bearer token that a stream ended with
		wasRefused := false // at once
		for again := false; ; again = true {
			told := false
			ctx, attempt := c.bearer.begin(ctx, refused)
			begun := time.Now()
			err := c.follow(ctx, request, again, func(event *pylokv1.Event) bool {
				switch event.GetType() {
				case pylokv1.EventType_EVENT_TYPE_RESET: // from here to the Synced there is no going on
					request.AfterRevision, whole = 0, false
				case pylokv1.EventType_EVENT_TYPE_SYNCED:
					request.AfterRevision, whole = event.GetRevision(), true
				case pylokv1.EventType_EVENT_TYPE_ASKED: // is no change
				default:
					if whole {
						request.AfterRevision = event.GetRevision()
					}
				}
				there, told, anyTold, delay = true, true, true, firstRetry
				return yield(event, nil)
			})
			switch {
			case errors.Is(err, errEnough):
				return
			case c.bearer.renewed(ctx, attempt, err): // it may have gone on for as long as its token
				atOnce := !told && time.Since(begun) < time.Second
				if !atOnce || !wasRefused {
					refused, wasRefused = attempt.token, atOnce
					continue
				}
			case ctx.Err() != nil:
				err = ctx.Err()
			case there && c.isAway(err), told && !isRefusal(err): // a proxy can end a stream in many ways
				c.trouble(err)
				if sleep(ctx, jitter(delay)) {
					delay = min(2*delay, longestRetry)
					continue
				}
				err = ctx.Err()
			case isRateLimited(err) && (anyTold || time.Since(opened)+retryAfter(err) < c.patience),
				anyTold && errors.Is(err, lock.ErrTooManyWatches): // such as those of the connection that was lost
				if sleep(ctx, retryAfter(err)+jitter(delay)) {
					delay = min(2*delay, longestRetry)
					continue
				}
				err = ctx.Err()
			}
			yield(nil, err)
			return
		}
	}
}

// errEnough: who ranges over a watch has had enough.
var errEnough = errors.New("the watch is not wanted any more")

// follow tells the events of one stream. It returns only with an error, and with patient
// not because there is no server.
func (c *Client) follow(ctx context.Context, request *pylokv1.WatchRequest, patient bool, tell func(*pylokv1.Event) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.service.Watch(ctx, request, grpc.WaitForReady(patient))
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		c.isAway(nil)
		if !tell(response.GetEvent()) {
			return errEnough
		}
	}
}
