package access

import (
	"context"

	"github.com/pylok/pylok/lock"
)

// Ask implements lock.Locks: it asks for Lock.
func (g *Guard) Ask(ctx context.Context, caller lock.Caller, request lock.AskRequest) (lock.AskAnswer, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.allow(p, caller, Lock, request.Name)
	}
	if err != nil {
		return lock.AskAnswer{}, err
	}
	s := sight{p, caller}
	answer, err := g.inner.Ask(ctx, caller, request)
	if err != nil {
		return lock.AskAnswer{}, s.refusal(err)
	}
	answer.Lock = s.lock(answer.Lock)
	return answer, nil
}

// Dismiss implements lock.Locks: it asks for Break.
func (g *Guard) Dismiss(ctx context.Context, caller lock.Caller, request lock.DismissRequest) (lock.Waiter, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.allow(p, caller, Break, request.Name)
	}
	if err != nil {
		return lock.Waiter{}, err
	}
	s := sight{p, caller}
	waiter, err := g.inner.Dismiss(ctx, caller, request)
	if err != nil {
		return lock.Waiter{}, s.refusal(err)
	}
	g.recordDismissal(caller, &request, waiter)
	return s.waiter(waiter, request.Name), nil
}
