package limits

import (
	"context"

	"github.com/pylok/pylok/lock"
)

// Ask implements lock.Locks.
func (l *Limits) Ask(ctx context.Context, from lock.Caller, request lock.AskRequest) (lock.AskAnswer, error) {
	c, err := l.enter(&from)
	if err != nil {
		return lock.AskAnswer{}, err
	}
	defer c.end(asking)
	return l.inner.Ask(ctx, from, request)
}

// Dismiss implements lock.Locks.
func (l *Limits) Dismiss(ctx context.Context, from lock.Caller, request lock.DismissRequest) (lock.Waiter, error) {
	c, err := l.enter(&from)
	if err != nil {
		return lock.Waiter{}, err
	}
	defer c.end(asking)
	return l.inner.Dismiss(ctx, from, request)
}
