package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// limitedFor returns the answer to a caller who asks too often.
func limitedFor(t *testing.T, after time.Duration) error {
	return refusal(t, codes.ResourceExhausted, "too often", reason("RATE_LIMITED"), &errdetails.RetryInfo{RetryDelay: durationpb.New(after)}).Err()
}

// A call that the server has no time for is made again when it says, if there is patience
// for that; it changed nothing, so that goes for every call.
func TestRateLimited(t *testing.T) {
	const after = 3 * time.Second
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		if _, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "me"}); err != nil { // and the server is there
			t.Fatal(err)
		}
		refuse := func(n int, after time.Duration) (asked *int) {
			asked = new(int)
			b.beforeCalls(func(string) error {
				if *asked++; *asked <= n {
					return limitedFor(t, after)
				}
				return nil
			})
			return asked
		}
		for _, test := range []struct {
			name string
			call func() error
		}{
			{"Status", func() error { _, err := c.Status(t.Context(), "x"); return err }},
			{"Info", func() error { _, err := c.Info(t.Context()); return err }},
			{"List", func() error {
				for _, err := range c.List(t.Context(), "") {
					return err
				}
				return nil
			}},
			{"Unlock", func() error {
				_, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Holder: "me"})
				return err
			}},
			{"Lock", func() error { _, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "me"}); return err }},
		} {
			refuse(1<<30, time.Millisecond)
			begun := time.Now()
			err := test.call()
			if took := time.Since(begun); !errors.Is(err, lock.ErrRateLimited) || took < 8*time.Second || took > 10*time.Second {
				t.Errorf("%s for ever: %v after %v, want RATE_LIMITED when patience is over", test.name, err, took)
			}
			asked := refuse(1<<30, time.Hour)
			begun = time.Now()
			err = test.call()
			if took := time.Since(begun); !errors.Is(err, lock.ErrRateLimited) || took > 0 || *asked != 1 {
				t.Errorf("%s for an hour: %v after %v and %d calls, want RATE_LIMITED at once", test.name, err, took, *asked)
			}
			refuse(2, after)
			begun = time.Now()
			err = test.call()
			if took := time.Since(begun); err != nil || took < 2*after || took > 2*after+time.Second {
				t.Errorf("%s twice: %v after %v, want none after %v", test.name, err, took, 2*after)
			}
		}
	})
}

// Where nothing was known of an earlier sending, a server that has no time does not end
// the asking.
func TestRateLimitedAfterALoss(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		b.afterOne("Lock", b.network.cut)
		asked := 0
		b.beforeCalls(func(method string) error {
			if asked++; asked == 2 {
				return limitedFor(t, time.Second)
			}
			return nil
		})
		grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x})
		if err != nil || grant.Lock.Token != 1 || asked != 3 {
			t.Errorf("got %v, %v after %d calls, want the hold of the first", grant, err, asked)
		}
	})
}

// Holds outlive a server that has no time for their renewals, as long as their lease lasts.
func TestHoldOutlivesRateLimits(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithTTL(30*time.Second))
		limited := 0
		b.beforeCalls(func(method string) error {
			if limited++; method == "Renew" && limited%8 != 0 {
				return limitedFor(t, time.Second)
			}
			return nil
		})
		time.Sleep(10 * time.Minute)
		if err := hold.Err(); err != nil {
			t.Errorf("the hold is over: %v", err)
		}
		b.beforeCalls(nil)
		if err := hold.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A watch that the server has no time for begins when it has; one that it has no room for
// is refused, but a Hold goes on asking.
func TestNoRoomForWatches(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		answerWatches := func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.noWatch = err
		}
		watch := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			for _, err := range c.Watch(ctx, "", 0) {
				return err
			}
			return nil
		}
		answerWatches(limitedFor(t, time.Second))
		begun := time.Now()
		if err := watch(); !errors.Is(err, lock.ErrRateLimited) || time.Since(begun) > 11*time.Second {
			t.Errorf("%v after %v, want RATE_LIMITED when patience is over", err, time.Since(begun))
		}
		time.AfterFunc(5*time.Second, func() { answerWatches(nil) })
		if err := watch(); err != nil {
			t.Errorf("when there is time again: %v", err)
		}
		answerWatches(refusal(t, codes.ResourceExhausted, "no room", reason("TOO_MANY_WATCHES")).Err())
		if err := watch(); !errors.Is(err, lock.ErrTooManyWatches) {
			t.Errorf("without room: %v, want TOO_MANY_WATCHES", err)
		}
		hold := b.acquire(c, "x", client.WithTTL(0))
		time.Sleep(time.Hour)
		answerWatches(nil)
		b.commit("x", lock.Unlocked, lock.Forced, "eve", "a test")
		time.Sleep(11 * time.Second)
		lost, ok := errors.AsType[*client.LostError](hold.Err())
		if !ok || lost.Actor != "eve" {
			t.Errorf("got %v, want that eve broke the hold", hold.Err())
		}
	})
}
