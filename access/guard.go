package access

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/pylok/pylok/lock"
)

// Guard is the lock.Locks that doors open on: it asks the rules of the access file first,
// before anything is looked up, and leaves out of lists, watches and histories what the
// caller may not view. What it refuses is an *lock.Error with ErrPermissionDenied that is
// the same whether a lock is held or free.
type Guard struct {
	inner   lock.Locks
	control *Control
	config  GuardConfig

	mu  sync.Mutex
	era *era // of the policy that was last seen; nil: none
}

// GuardConfig sets up a Guard. The zero value of each field stands for its default.
type GuardConfig struct {
	// Record is told of every refusal, and of every hold that was broken. It must not
	// wait for anything. Default: nobody is told.
	Record func(Record)
	// Note keeps, over restarts, since when which rules hold. Default: nothing does; then
	// watches that were begun before a restart may go on after a change of the rules that
	// was made meanwhile, without the locks that may be viewed since.
	Note Note
	// Logger is told when the Note cannot be read or saved. Default: nothing is logged.
	Logger *slog.Logger
}

// Note is a short text that is kept over restarts.
type Note interface {
	// Load returns the text; empty: there is none.
	Load() ([]byte, error)
	// Save replaces it.
	Save(text []byte) error
}

// Record is what somebody asked for and whether it was allowed.
type Record struct {
	Time    time.Time
	Caller  lock.Caller
	Verb    Verb
	Name    string // of the lock, or a pattern; empty: it concerned none
	Allowed bool
	Reason  string // the caller's, for what was allowed; else the refusal
}

var _ lock.Locks = (*Guard)(nil)

// NewGuard returns the guard of inner by the rules of control.
func NewGuard(inner lock.Locks, control *Control, config GuardConfig) *Guard {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Guard{inner: inner, control: control, config: config}
}

// allowed returns the caller as the present policy knows it, or the refusal of what that
// does not allow.
func (g *Guard) allowed(ctx context.Context, caller lock.Caller, v Verb, n lock.Name) (lock.Caller, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.allow(p, caller, v, n)
	}
	return caller, err
}

// allow returns the refusal of what the policy does not allow.
func (g *Guard) allow(p *Policy, caller lock.Caller, v Verb, n lock.Name) error {
	if p.Allows(caller, v, n) {
		return nil
	}
	err := p.Denied(caller, v, n)
	g.record(caller, v, n.String(), false, err.Error())
	return err
}

func (g *Guard) record(caller lock.Caller, v Verb, name string, allowed bool, reason string) {
	if g.config.Record != nil {
		g.config.Record(Record{time.Now(), caller, v, name, allowed, reason})
	}
}

// Lock implements lock.Locks: it asks for Lock. Who may Break may also overwrite the hold of
// another caller, of which a record is made.
//
// A wait ends when a new access file does not let the caller lock any more.
func (g *Guard) Lock(ctx context.Context, caller lock.Caller, request lock.LockRequest) (lock.Grant, error) {
	changed := g.control.untilChange() // before the policy, so that no change is missed
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.allow(p, caller, Lock, request.Name)
	}
	if err != nil {
		return lock.Grant{}, err
	}
	request.MayBreak = request.Overwrite && p != nil && p.Allows(caller, Break, request.Name)
	grant, err := g.lock(ctx, changed, p, caller, request)
	if err == nil && grant.Broke {
		g.record(caller, Break, request.Name.String(), true, "overwritten")
	}
	return grant, err
}

// lock asks for a lock that the policy allows.
func (g *Guard) lock(ctx, changed context.Context, p *Policy, caller lock.Caller, request lock.LockRequest) (lock.Grant, error) {
	if request.Wait <= 0 || p == nil {
		return g.inner.Lock(ctx, caller, request)
	}
	w := &wait{guard: g, caller: caller, name: request.Name}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.follow(changed)
	defer w.end()
	grant, err := g.inner.Lock(w.ctx, caller, request)
	if refusal, ok := errors.AsType[*lock.Error](context.Cause(w.ctx)); ok && errors.Is(err, context.Canceled) {
		err = refusal
	}
	return grant, err
}

// wait is a request that stands in line, as long as the rules let it.
type wait struct {
	guard  *Guard
	caller lock.Caller
	name   lock.Name
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
	if _, err := w.guard.allowed(w.ctx, w.caller, Lock, w.name); err != nil {
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

// Unlock implements lock.Locks: it asks for Lock, and with Force, whoever has the hold, for
// Break.
func (g *Guard) Unlock(ctx context.Context, caller lock.Caller, request lock.UnlockRequest) (lock.Release, error) {
	verb := Lock
	if request.Force {
		verb = Break
	}
	caller, err := g.allowed(ctx, caller, verb, request.Name)
	if err != nil {
		return lock.Release{}, err
	}
	release, err := g.inner.Unlock(ctx, caller, request)
	if err == nil && request.Force {
		g.record(caller, Break, request.Name.String(), true, request.Reason)
	}
	return release, err
}

// Renew implements lock.Locks: it asks for Lock.
func (g *Guard) Renew(ctx context.Context, caller lock.Caller, request lock.RenewRequest) (lock.Lock, error) {
	caller, err := g.allowed(ctx, caller, Lock, request.Name)
	if err != nil {
		return lock.Lock{}, err
	}
	return g.inner.Renew(ctx, caller, request)
}

// Status implements lock.Locks: it asks for View.
func (g *Guard) Status(ctx context.Context, caller lock.Caller, name lock.Name) (lock.Lock, error) {
	caller, err := g.allowed(ctx, caller, View, name)
	if err != nil {
		return lock.Lock{}, err
	}
	return g.inner.Status(ctx, caller, name)
}

// visible narrows a pattern to what the caller may view. Where it is one name, and that
// may not be viewed, it refuses: an empty answer would say that the lock is free.
func (g *Guard) visible(p *Policy, caller lock.Caller, pattern lock.Pattern) (lock.Pattern, error) {
	if pattern.IsName() {
		name, err := lock.ParseName(pattern.String())
		if err == nil {
			err = g.allow(p, caller, View, name)
		}
		return pattern, err
	}
	return pattern.Where(p.Sees(caller)), nil
}

// List implements lock.Locks: it has the locks that the caller may view.
func (g *Guard) List(ctx context.Context, caller lock.Caller, p lock.Pattern, after lock.Name, limit int) ([]lock.Lock, lock.Revision, bool, error) {
	policy, caller, err := g.control.present(ctx, caller)
	if err == nil {
		p, err = g.visible(policy, caller, p)
	}
	if err != nil {
		return nil, 0, false, err
	}
	return g.inner.List(ctx, caller, p, after, limit)
}

// History implements lock.Locks: it has the events of locks that the caller may view.
func (g *Guard) History(ctx context.Context, caller lock.Caller, q lock.HistoryQuery, from lock.Revision, limit int) (lock.HistoryPage, error) {
	policy, caller, err := g.control.present(ctx, caller)
	if err == nil {
		q.Pattern, err = g.visible(policy, caller, q.Pattern)
	}
	if err != nil {
		return lock.HistoryPage{}, err
	}
	return g.inner.History(ctx, caller, q, from, limit)
}

// Revision implements lock.Locks. It counts everybody's changes.
func (g *Guard) Revision(ctx context.Context) (lock.Revision, error) { return g.inner.Revision(ctx) }

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

// era is since when a policy holds.
type era struct {
	policy *Policy
	since  lock.Revision // what was told up to there may be by other rules
}

// since returns up to which revision changes may have been told by other rules than the
// policy's, which is the present one.
func (g *Guard) since(ctx context.Context, policy *Policy) (lock.Revision, error) {
	next, isNew, err := g.eraOf(ctx, policy)
	if err != nil {
		return 0, err
	}
	if isNew { // not with mu held, for the disk may hang
		g.keepEra(keptEra{policy.Digest(), next.since})
	}
	return next.since, nil
}

// eraOf returns the era of the present policy, and whether it begins now.
func (g *Guard) eraOf(ctx context.Context, policy *Policy) (_ *era, isNew bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.era != nil && g.era.policy == policy {
		return g.era, false, nil
	}
	next := &era{policy: policy}
	kept, isKept := keptEra{}, true
	if g.era == nil {
		kept, isKept = g.keptEra()
	}
	switch {
	case g.era == nil && isKept && kept.digest == policy.Digest():
		next.since = kept.since
	case g.era == nil && !isKept && policy == nil: // there were never any rules
	default:
		if next.since, err = g.inner.Revision(ctx); err != nil {
			return nil, false, err
		}
		isNew = true
	}
	g.era = next
	return next, isNew, nil
}
