package access

import (
	"context"
	"fmt"

	"github.com/pylok/pylok/lock"
)

// Unlock implements lock.Locks: it asks for Lock, also with Stale, or for Freeze where the
// hold is a tree; and with Force, whoever has the hold, for Break.
func (g *Guard) Unlock(ctx context.Context, caller lock.Caller, request lock.UnlockRequest) (lock.Release, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.mayEnd(ctx, p, caller, request.Name, request.Force, request.Stale)
	}
	if err != nil {
		return lock.Release{}, err
	}
	s := sight{p, caller}
	release, err := g.inner.Unlock(ctx, caller, request)
	if err != nil {
		return lock.Release{}, s.refusal(err)
	}
	g.recordEnd(caller, release.Lock, request.Force, request.Stale, request.Reason)
	release.Lock, release.Next = s.lock(release.Lock), s.lock(release.Next)
	return release, nil
}

// Renew implements lock.Locks: it asks for Lock, or for Freeze where the hold is a tree.
func (g *Guard) Renew(ctx context.Context, caller lock.Caller, request lock.RenewRequest) (lock.Lock, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.mayKeep(ctx, p, caller, request.Name)
	}
	if err != nil {
		return lock.Lock{}, err
	}
	s := sight{p, caller}
	l, err := g.inner.Renew(ctx, caller, request)
	if err != nil {
		return lock.Lock{}, s.refusal(err)
	}
	return s.lock(l), nil
}

// UnlockSet implements lock.Locks: it asks of every hold what Unlock asks. Of a Set the
// caller does not know the names: the answers have those that it may view.
func (g *Guard) UnlockSet(ctx context.Context, caller lock.Caller, request lock.UnlockSetRequest) ([]lock.SetAnswer, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err != nil {
		return nil, err
	}
	for _, hold := range request.Holds {
		if err := g.mayEnd(ctx, p, caller, hold.Name, request.Force, false); err != nil {
			return nil, err
		}
	}
	if request.Set != 0 && p != nil {
		verb := Lock // of a set no hold is a tree
		if request.Force {
			verb = Break
		}
		request.May = func(n lock.Name) error { return g.allow(p, caller, verb, n) }
	}
	answers, err := g.inner.UnlockSet(ctx, caller, request)
	for _, a := range answers {
		if a.Err == nil {
			g.recordEnd(caller, a.Lock, request.Force, false, request.Reason)
		}
	}
	seen, err := sight{p, caller}.answers(answers, err)
	if err == nil && len(seen) == 0 { // as if there were no such set
		return nil, &lock.Error{Reason: lock.ErrNotLocked, Message: fmt.Sprintf("nothing of the set %d is held", request.Set)}
	}
	return seen, err
}

// RenewSet implements lock.Locks: it asks of every hold what Renew asks.
func (g *Guard) RenewSet(ctx context.Context, caller lock.Caller, request lock.RenewSetRequest) ([]lock.SetAnswer, error) {
	p, caller, err := g.control.present(ctx, caller)
	for _, hold := range request.Holds {
		if err == nil {
			err = g.mayKeep(ctx, p, caller, hold.Name)
		}
	}
	if err != nil {
		return nil, err
	}
	answers, err := g.inner.RenewSet(ctx, caller, request)
	return sight{p, caller}.answers(answers, err)
}

// mayEnd returns the refusal of a request to end a hold.
func (g *Guard) mayEnd(ctx context.Context, p *Policy, c lock.Caller, n lock.Name, force, stale bool) error {
	switch {
	case force:
		return g.allow(p, c, Break, n)
	case stale:
		return g.allow(p, c, Lock, n)
	}
	return g.mayKeep(ctx, p, c, n)
}

// mayKeep returns the refusal of a request about the caller's own hold.
func (g *Guard) mayKeep(ctx context.Context, p *Policy, c lock.Caller, n lock.Name) error {
	may := func(v Verb) bool { return p.allows(c, Question{Verb: v, Name: n}) }
	if ok, err := g.mayHold(ctx, c, n, may); ok || err != nil {
		return err
	}
	return g.allow(p, c, Lock, n)
}

// mayHold reports whether somebody with some rights to a lock may have the hold of it that
// stands. Who may Freeze and not Lock may have a tree: only for such a one the lock is looked
// up before the answer is known, and that one may view it.
func (g *Guard) mayHold(ctx context.Context, asker lock.Caller, n lock.Name, may func(Verb) bool) (bool, error) {
	if may(Lock) {
		return true, nil
	}
	if !may(Freeze) {
		return false, nil
	}
	l, err := g.inner.Status(ctx, asker, n)
	return l.Tree, err
}
