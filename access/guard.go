package access

import (
	"context"
	"log/slog"
	"sync"

	"github.com/pylok/pylok/lock"
)

// Guard is the lock.Locks that doors open on: it asks the rules of the access file first,
// before anything is looked up, leaves out of lists, watches and histories what the caller
// may not view, and of what stands around a lock all but that it does. What it refuses is an *lock.Error with ErrPermissionDenied that is
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
	// Record is told of every refusal, and of every Act. It must not wait for anything.
	// Default: nobody is told.
	Record func(Record)
	// Note keeps, over restarts, since when which rules hold. Default: nothing does; then
	// watches that were begun before a restart may go on after a change of the rules that
	// was made meanwhile, without the locks that may be viewed since.
	Note Note
	// Logger is told of freezes, their ends and hand-overs that were asked for, and when
	// the Note cannot be read or saved. Default: nothing is logged.
	Logger *slog.Logger
}

// Note is a short text that is kept over restarts.
type Note interface {
	// Load returns the text; empty: there is none.
	Load() ([]byte, error)
	// Save replaces it.
	Save(text []byte) error
}

var _ lock.Locks = (*Guard)(nil)

// NewGuard returns the guard of inner by the rules of control.
func NewGuard(inner lock.Locks, control *Control, config GuardConfig) *Guard {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Guard{inner: inner, control: control, config: config}
}

// allow returns the refusal of what the policy does not allow.
func (g *Guard) allow(p *Policy, caller lock.Caller, v Verb, n lock.Name) error {
	if p.allows(caller, Question{Verb: v, Name: n}) {
		return nil
	}
	err := p.Denied(caller, v, n)
	g.record(caller, v, n.String(), err.Error())
	return err
}

// Status implements lock.Locks: it asks for View.
func (g *Guard) Status(ctx context.Context, caller lock.Caller, name lock.Name) (lock.Lock, error) {
	p, caller, err := g.control.present(ctx, caller)
	if err == nil {
		err = g.allow(p, caller, View, name)
	}
	if err != nil {
		return lock.Lock{}, err
	}
	l, err := g.inner.Status(ctx, caller, name)
	return sight{p, caller}.lock(l), err
}

// visible narrows a pattern to what the caller may view. Where it is one name, and that
// may not be viewed, it refuses: an empty answer would say that the lock is free.
func (g *Guard) visible(p *Policy, caller lock.Caller, pattern lock.Pattern) (lock.Pattern, error) {
	if pattern.IsName() || pattern.HasSlots() { // who may view the lock may view its slots
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
	page, revision, more, err := g.inner.List(ctx, caller, p, after, limit)
	return sight{policy, caller}.locks(page), revision, more, err
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
