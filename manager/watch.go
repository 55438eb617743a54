package manager

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"time"

	"github.com/pylok/pylok/lock"
)

// syncedEvery is how often a quiet watch is told how far it is. The service promises 30 s.
const syncedEvery = 25 * time.Second

// Status returns the lock as it stands. One that is free has only its name.
func (m *Manager) Status(ctx context.Context, caller lock.Caller, name lock.Name) (lock.Lock, error) {
	l, err := m.present(ctx, name)
	if err != nil {
		return lock.Lock{}, err
	}
	return m.withHeldBelow(m.describedFor(l, mostWaitingInStatus)), nil
}

// List returns up to limit held locks that p selects and that come after the name
// after, in name order, all as of the revision that is returned too, and whether
// there are more.
func (m *Manager) List(ctx context.Context, caller lock.Caller, p lock.Pattern, after lock.Name, limit int) (page []lock.Lock, revision lock.Revision, more bool, err error) {
	revision, locks := m.store.List(ctx, p, after)
	for l, err := range locks {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, 0, false, err
		}
		if len(page) == limit {
			return page, revision, true, nil
		}
		page = append(page, m.withHeldBelow(m.described(l)))
	}
	return page, revision, false, nil
}

// Revision returns the store's present revision.
func (m *Manager) Revision(ctx context.Context) (lock.Revision, error) {
	return m.store.Revision(ctx)
}

// Watch yields every change of the locks that p selects after a revision, in
// order, without gap or repeat, until ctx ends or Close. With after 0, and where
// the store no longer has all changes after it, it begins with a Reset, a Locked
// for each held lock and a Synced. A Synced comes too when the changes have been told
// that had been made when the watch began, however many are made meanwhile, and then at
// least every 30 s while nothing else does; its revision is one to go on from.
//
// A watch of one name with the token of a hold of the caller's tells also what is asked of
// its holder.
//
// The last pair has the error that ended the watch: ctx's, ErrShuttingDown or what
// the store came upon.
func (m *Manager) Watch(ctx context.Context, caller lock.Caller, request lock.WatchRequest) iter.Seq2[lock.Event, error] {
	return func(yield func(lock.Event, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(m.running, func() { cancel(shuttingDown()) })()
		ears := m.listen(ctx, caller, &request)
		defer ears.close()
		err := m.watch(ctx, ears, request.Pattern, request.After, func(e lock.Event) bool { return yield(e, nil) })
		if errors.Is(err, errStopped) {
			return
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		yield(lock.Event{}, err)
	}
}

// errStopped: who ranges over a watch has had enough.
var errStopped = errors.New("the watch is not wanted any more")

// watch is Watch with the yield function that a goroutine of its own would have.
// It returns only with an error.
func (m *Manager) watch(ctx context.Context, ears *ears, p lock.Pattern, after lock.Revision, yield func(lock.Event) bool) error {
	reset := after == 0
	past, err := m.store.Revision(ctx) // up to there it is the past that is told
	if err != nil {
		return err
	}
	syncedDue := true      // as soon as that has been told
	lastTold := time.Now() // when anything was yielded
	tell := func(e lock.Event) bool {
		lastTold = time.Now()
		return yield(e)
	}
	synced := func() bool {
		syncedDue = false
		return tell(lock.Event{Type: lock.Synced, Revision: after, Time: now()})
	}
	for {
		if reset {
			var err error
			if after, err = m.tellAll(ctx, p, tell); err != nil {
				return err
			}
			reset, syncedDue, past = false, true, after
		}
		if (syncedDue && after == past || time.Since(lastTold) >= syncedEvery) && !synced() {
			return errStopped
		}
		for _, event := range ears.hear() {
			if !tell(event) {
				return errStopped
			}
		}
		wait := time.Until(lastTold.Add(syncedEvery))
		if syncedDue {
			wait = 0 // the past is there
		}
		events, until, err := ears.events(ctx, m.store, p, after, wait)
		switch {
		case err == errAsked:
			continue
		case errors.Is(err, lock.ErrCompacted):
			reset = true
			continue
		case err != nil:
			return err
		}
		for _, event := range events {
			after = event.Revision
			if !tell(event) {
				return errStopped
			}
			if syncedDue && after >= past && !synced() {
				return errStopped
			}
		}
		after = until
		if syncedDue && after >= past && !synced() {
			return errStopped
		}
	}
}

// tellAll yields a Reset and the present state, and returns its revision.
func (m *Manager) tellAll(ctx context.Context, p lock.Pattern, tell func(lock.Event) bool) (lock.Revision, error) {
	if !tell(lock.Event{Type: lock.Reset, Time: now()}) {
		return 0, errStopped
	}
	revision, locks := m.store.List(ctx, p, lock.Name{})
	for l, err := range locks {
		if err != nil {
			return 0, err
		}
		l := m.described(l)
		l.Warnings, l.Waiters, l.Situation = "", 0, nil // as in every event
		if !tell(lock.Event{Type: lock.Locked, Revision: l.Revision, Time: l.AcquireTime, Lock: l, Actor: cmp.Or(l.Caller, lock.Claimed(l.Holder))}) {
			return 0, errStopped
		}
	}
	return revision, ctx.Err()
}

// now is the wall clock as it is kept: UTC, to the millisecond.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
