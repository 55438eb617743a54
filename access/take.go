package access

import (
	"context"
	"errors"
	"sync"

	"github.com/pylok/pylok/lock"
)

// Lock implements lock.Locks: it asks for Lock, with Tree for Freeze instead, and with
// ThroughFreeze for Freeze too. Who may Break may also overwrite the hold of another caller,
// of which a record is made.
//
// A wait ends when a new access file does not let the caller have the lock any more.
func (g *Guard) Lock(ctx context.Context, caller lock.Caller, request lock.LockRequest) (lock.Grant, error) {
	var grant lock.Grant
	var s sight
	var err error
	if request.Wait > 0 {
		grant, s, err = g.lockInLine(ctx, caller, request)
	} else {
		grant, s, err = g.lockNow(ctx, caller, request)
	}
	if err != nil {
		return lock.Grant{}, s.refusal(err)
	}
	g.recordGrant(s.caller, &request, grant)
	grant.Lock = s.lock(grant.Lock)
	return grant, nil
}

// lockNow is Lock without a wait, which is most of what is asked for.
func (g *Guard) lockNow(ctx context.Context, caller lock.Caller, request lock.LockRequest) (lock.Grant, sight, error) {
	p, caller, err := g.control.present(ctx, caller)
	s := sight{p, caller}
	if err == nil {
		err = g.mayTake(p, caller, &request)
	}
	if err != nil {
		return lock.Grant{}, s, err
	}
	request.MayBreak = mayBreak(p, caller, &request)
	grant, err := g.inner.Lock(ctx, caller, request)
	return grant, s, err
}

// lockInLine is Lock with a wait.
func (g *Guard) lockInLine(ctx context.Context, caller lock.Caller, request lock.LockRequest) (lock.Grant, sight, error) {
	may := func(p *Policy, c lock.Caller) error { return g.mayTake(p, c, &request) }
	return take(ctx, g, caller, true, may, func(ctx context.Context, p *Policy, c lock.Caller) (lock.Grant, error) {
		request.MayBreak = mayBreak(p, c, &request)
		return g.inner.Lock(ctx, c, request)
	})
}

// mayBreak reports whether an Overwrite may end the hold of another caller.
func mayBreak(p *Policy, c lock.Caller, r *lock.LockRequest) bool {
	return r.Overwrite && p != nil && p.Allows(c, Break, r.Name)
}

// mayTake returns the refusal of a request for a lock.
func (g *Guard) mayTake(p *Policy, c lock.Caller, r *lock.LockRequest) error {
	if !r.Tree { // which takes nobody's place
		if err := g.allow(p, c, Lock, r.Name); err != nil {
			return err
		}
	}
	if r.Tree || r.ThroughFreeze {
		return g.allow(p, c, Freeze, r.Name)
	}
	return nil
}

// LockSet implements lock.Locks: it asks for Lock, and with ThroughFreeze for Freeze too, of
// every name, those of the choices included.
//
// A wait ends when a new access file does not let the caller have one of them any more.
func (g *Guard) LockSet(ctx context.Context, caller lock.Caller, request lock.SetRequest) (lock.SetGrant, error) {
	may := func(p *Policy, c lock.Caller) error { return g.mayTakeSet(p, c, &request) }
	ask := func(ctx context.Context, _ *Policy, c lock.Caller) (lock.SetGrant, error) {
		return g.inner.LockSet(ctx, c, request)
	}
	grant, s, err := take(ctx, g, caller, request.Wait > 0, may, ask)
	if err != nil {
		return lock.SetGrant{}, s.refusal(err)
	}
	for _, l := range grant.Locks {
		if request.ThroughFreeze {
			g.recordAct(s.caller, Freeze, l.Name, throughFreeze, request.Reason)
		}
	}
	grant.Locks = s.locks(grant.Locks)
	return grant, nil
}

// mayTakeSet returns the refusal of a request for several locks: that of the first.
func (g *Guard) mayTakeSet(p *Policy, c lock.Caller, r *lock.SetRequest) error {
	mayTake := func(names []lock.Name) error {
		for _, n := range names {
			if err := g.mayTake(p, c, &lock.LockRequest{Name: n, ThroughFreeze: r.ThroughFreeze}); err != nil {
				return err
			}
		}
		return nil
	}
	err := mayTake(r.Names)
	for _, choice := range r.Choices {
		if err == nil {
			err = mayTake(choice.Names)
		}
	}
	return err
}

// take asks for locks if the rules let it, and as long as they do where it waits. It returns
// what the caller may view by the rules that hold in the end.
func take[Answer any](
	ctx context.Context, g *Guard, caller lock.Caller, waits bool,
	may func(*Policy, lock.Caller) error,
	ask func(context.Context, *Policy, lock.Caller) (Answer, error),
) (answer Answer, s sight, err error) {
	changed := g.control.untilChange() // before the policy, so that no change is missed
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = may(p, caller)
	}
	s = sight{p, caller}
	if err != nil {
		return answer, s, err
	}
	if !waits || p == nil {
		answer, err = ask(ctx, p, caller)
		return answer, s, err
	}
	w := &wait{guard: g, caller: caller, may: may}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.follow(changed)
	defer w.end()
	answer, err = ask(w.ctx, p, caller)
	if refusal, ok := errors.AsType[*lock.Error](context.Cause(w.ctx)); ok && errors.Is(err, context.Canceled) {
		err = refusal
	}
	if p, caller, err := g.control.present(ctx, caller); err == nil {
		s = sight{p, caller}
	}
	return answer, s, err
}

// wait is a request that stands in line, as long as the rules let it.
type wait struct {
	guard  *Guard
	caller lock.Caller
	may    func(*Policy, lock.Caller) error
	ctx    context.Context
	cancel context.CancelCauseFunc // with the refusal

	mu    sync.Mutex
	stop  func() bool // ends the following of the present policy
	ended bool
}

// follow asks the rules again when the policy changes.
func (w *wait) follow(changed context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.stop = context.AfterFunc(changed, w.again)
	}
}

func (w *wait) again() {
	if w.ctx.Err() != nil {
		return
	}
	changed := w.guard.control.untilChange()
	p, caller, err := w.guard.control.present(w.ctx, w.caller)
	if err == nil {
		err = w.may(p, caller)
	}
	if err != nil {
		w.cancel(err)
		return
	}
	w.follow(changed)
}

func (w *wait) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.stop()
	w.cancel(nil)
}
