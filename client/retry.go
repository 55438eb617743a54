package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pylok/pylok/lock"
)

// DefaultPatience is how long a Client waits for a server that has gone away, unless its
// Options say otherwise.
const DefaultPatience = 10 * time.Second

// The pauses between two sendings: each is twice as long as the one before.
const (
	firstRetry   = 50 * time.Millisecond
	longestRetry = time.Second
)

// retry sends a request until the server has answered it or ctx ends, or until the server
// has been away for as long as the Client's patience; one that stands in line, until its
// wait is over. A server that says that the caller asks too often is asked again likewise,
// after the time that it says. A request that is not repeatable is sent again only when the
// one before certainly changed nothing. The parameter again of send says that an earlier
// sending may have been carried out.
func (c *Client) retry(ctx context.Context, waitEnd time.Time, repeatable bool, send func(again bool) error) error {
	waits := time.Now().Before(waitEnd)
	var unknown error       // of an earlier sending that may have been carried out
	var awaySince time.Time // zero: it is not away
	var delay time.Duration
	for {
		sent := time.Now()
		err := send(unknown != nil)
		switch away := c.isAway(err); {
		case isRateLimited(err):
		case !away:
			switch {
			case err == nil, unknown == nil, isAnswer(err):
				return err
			case isRefusal(err):
				return unknown // "nothing changed" is about the last sending alone
			}
			return fmt.Errorf("%w; %w", unknown, err)
		case isOutcomeUnknown(err) && !repeatable:
			return err
		case isOutcomeUnknown(err):
			unknown = err
		}
		if awaySince.IsZero() || time.Since(sent) > c.patience { // else it stood in line with a server that was there
			awaySince, delay = time.Now(), firstRetry
		}
		end := awaySince.Add(c.patience)
		if waits {
			end = waitEnd
		}
		pause := retryAfter(err) + jitter(delay)
		if time.Now().Add(retryAfter(err) + delay).After(end) {
			left := time.Until(waitEnd)
			if left <= 0 {
				return cmp.Or(unknown, err)
			}
			pause = left // and once more at the end
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("%w; %w", cmp.Or(unknown, err), ctx.Err())
		}
		delay = min(2*delay, longestRetry)
	}
}

// isRateLimited reports whether the server wants to be asked again later.
func isRateLimited(err error) bool { return errors.Is(err, lock.ErrRateLimited) }

// retryAfter returns how long a server that refused a request wants not to be asked again.
func retryAfter(err error) time.Duration {
	if refusal, ok := errors.AsType[*lock.Error](err); ok && isRateLimited(err) {
		return max(refusal.RetryAfter, 0)
	}
	return 0
}

// isAway reports whether an error comes of a server that has answered before and is away
// or about to be. It takes note of a server that answers, and tells OnTrouble of both.
func (c *Client) isAway(err error) bool {
	unreachable, gone := errors.AsType[*UnreachableError](err)
	answered := err == nil || isRefusal(err)
	if answered || gone && unreachable.Sent {
		c.reached.Store(true)
	}
	away := gone && c.reached.Load() || errors.Is(err, lock.ErrOutcomeUnknown) || errors.Is(err, lock.ErrShuttingDown)
	switch {
	case away:
		c.trouble(err)
	case answered:
		c.trouble(nil)
	}
	return away
}

// trouble tells OnTrouble of an error, or of the end of trouble, where that is news.
func (c *Client) trouble(err error) {
	if c.onTrouble == nil || c.inTrouble.Load() == (err != nil) {
		return
	}
	c.telling.Lock()
	defer c.telling.Unlock()
	if c.inTrouble.Swap(err != nil) != (err != nil) {
		c.onTrouble(err)
	}
}

func isRefusal(err error) bool {
	_, refused := errors.AsType[*lock.Error](err)
	return refused
}

// isAnswer reports whether err tells what has become of a request, however often it was
// sent: a refusal for what the lock or the request is, not for how the server is doing.
func isAnswer(err error) bool {
	refusal, refused := errors.AsType[*lock.Error](err)
	if !refused {
		return false
	}
	switch refusal.Reason {
	case lock.ErrLockHeld, lock.ErrNotHolder, lock.ErrNotLocked, lock.ErrTooManyWaiters, lock.ErrTooManyLocks,
		lock.ErrInvalidName, lock.ErrInvalidArgument, lock.ErrDataTooLarge:
		return true
	}
	return false
}

// isOutcomeUnknown reports whether a request that failed may have been carried out.
func isOutcomeUnknown(err error) bool {
	unreachable, gone := errors.AsType[*UnreachableError](err)
	ended, left := errors.AsType[*endedError](err)
	return gone && unreachable.Sent || left && ended.sent || errors.Is(err, lock.ErrOutcomeUnknown) || isFault(err)
}

// isFault reports whether the server, or what is in between, failed in a way that it
// has no reason for.
func isFault(err error) bool { return status.Code(err) == codes.Internal && !isRefusal(err) }

// isOver reports whether a request with a token was refused because the hold is over.
func isOver(err error) bool {
	return errors.Is(err, lock.ErrNotHolder) || errors.Is(err, lock.ErrNotLocked)
}

// jitter keeps clients that lost the same server from coming back in step.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

// sleep reports false when ctx ends before d has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
