package access

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/pylok/pylok/lock"
)

// errRulesChanged ends a watch of the inner Locks when the rules are others.
var errRulesChanged = errors.New("the rules have changed")

// Watch implements lock.Locks: it has the changes of locks that the caller may view. When
// that becomes another set, with a new access file, the watch goes on with a Reset and the
// present state, and so does one that goes on from a revision before that. It ends with
// ErrUnauthenticated when the caller's proof does, and with ErrPermissionDenied when a name
// may not be viewed any more.
func (g *Guard) Watch(ctx context.Context, caller lock.Caller, request lock.WatchRequest) iter.Seq2[lock.Event, error] {
	return func(yield func(lock.Event, error) bool) {
		err := g.watch(ctx, caller, request, func(e lock.Event) bool { return yield(e, nil) })
		if err != nil {
			yield(lock.Event{}, err)
		}
	}
}

// watch is Watch with the yield function of its events; nil: that does not want more.
func (g *Guard) watch(ctx context.Context, caller lock.Caller, request lock.WatchRequest, yield func(lock.Event) bool) error {
	var before *Policy // that was obeyed so far, and the caller as it knew it
	var then lock.Caller
	after := request.After
	for first := true; ; first = false {
		changed := g.control.untilChange() // before the policy, so that no change is missed
		policy, now, err := g.control.present(ctx, caller)
		if err != nil {
			return err
		}
		since, err := g.since(ctx, policy)
		if err != nil {
			return err
		}
		switch {
		case first && after <= since, // what it knows was seen by other rules
			!first && !policy.SeesSame(now, before, then):
			after = 0
		}
		before, then = policy, now
		visible, err := g.visible(policy, now, request.Pattern)
		if err != nil {
			return err
		}
		after, err = g.watchBy(ctx, policy, changed, now, lock.WatchRequest{Pattern: visible, After: after, Token: request.Token}, yield)
		if !errors.Is(err, errRulesChanged) {
			return err
		}
	}
}

// watchBy watches as long as a policy holds, and returns up to where. Its error is
// errRulesChanged when the policy does not hold any more, and nil when yield wants no more.
func (g *Guard) watchBy(ctx context.Context, policy *Policy, changed context.Context, caller lock.Caller, request lock.WatchRequest, yield func(lock.Event) bool) (after lock.Revision, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if end := caller.ExpireTime; !end.IsZero() {
		over := &lock.Error{
			Reason:  lock.ErrUnauthenticated,
			Message: fmt.Sprintf("the proof of who watches was valid until %s; watch again with a new one", end.UTC().Format(time.RFC3339)),
		}
		timer := time.AfterFunc(time.Until(end), func() { cancel(over) })
		defer timer.Stop()
	}
	defer context.AfterFunc(changed, func() { cancel(errRulesChanged) })()
	after = request.After
	whole := after != 0 // after is a revision to go on from
	for e, err := range g.inner.Watch(ctx, caller, request) {
		if cause := context.Cause(ctx); err != nil && cause != nil && ctx.Err() != nil {
			return after, cause
		}
		if err != nil {
			return after, err
		}
		// Up to the revision at which other rules begin, and no further, watches tell of
		// changes by the rules before.
		if g.control.Policy() != policy {
			return after, errRulesChanged
		}
		switch e.Type {
		case lock.Reset:
			whole, after = false, 0
		case lock.Synced:
			whole = true
		}
		if e.Type == lock.Locked && e.Cause == 0 && e.Lock.Caller == "" && policy != nil {
			e.Actor = lock.Anonymous // a holder is no name that an entry gives
		}
		if whole {
			after = e.Revision
		}
		if !yield(e) {
			return after, nil
		}
	}
	return after, context.Cause(ctx)
}
