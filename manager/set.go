package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pylok/pylok/lock"
)

// LockSet grants several locks, all or none, in one commit. The request stands in the lines
// of all its names while it waits.
//
// The errors are those of Lock; ErrNotHolder if the request is sent again and not all of its
// holds stand.
func (m *Manager) LockSet(ctx context.Context, caller lock.Caller, request lock.SetRequest) (lock.SetGrant, error) {
	all, choices, err := checkSetNames(&request)
	if err != nil {
		return lock.SetGrant{}, err
	}
	each := lock.LockRequest{
		Name:          all[0], // for the check; the set itself has no name
		Data:          request.Data,
		Holder:        request.Holder,
		TTL:           request.TTL,
		ExpireTime:    request.ExpireTime,
		Wait:          request.Wait,
		RequestID:     request.RequestID,
		ThroughFreeze: request.ThroughFreeze,
		Reason:        request.Reason,
		OnExpiry:      request.OnExpiry,
		RefuseManual:  request.RefuseManual,
	}
	if each, err = m.checkLock(each); err != nil {
		return lock.SetGrant{}, err
	}
	each.Name = lock.Name{}
	byName := m.useQueues(all)
	defer m.forget(slices.Collect(maps.Values(byName))...)
	queues := func(names []lock.Name) (queues []*queue) {
		for _, name := range names {
			queues = append(queues, byName[name])
		}
		return queues
	}
	wanted := make([]choice, len(choices))
	for i, c := range choices {
		wanted[i] = choice{queues(c.Names), c.Count}
	}
	names := slices.SortedFunc(slices.Values(request.Names), lock.Name.Compare)
	inLine, err := m.standInLine(ctx, caller, each, queues(names), wanted)
	for errors.Is(err, errGranted) {
		if locks, err := m.setAgain(ctx, caller, &request, all); err != nil || locks != nil {
			return lock.SetGrant{Locks: locks}, err
		}
		inLine, err = m.standInLine(ctx, caller, each, queues(names), wanted)
	}
	if err != nil {
		return lock.SetGrant{}, err
	}
	locks, queued, err := m.await(inLine)
	if err == nil {
		err = m.tell(ctx, locks, caller.Actor(request.Holder), request.Confirm)
	}
	if err != nil {
		return lock.SetGrant{}, err
	}
	grant := lock.SetGrant{Queued: queued}
	for _, l := range locks {
		grant.Locks = append(grant.Locks, m.described(l))
	}
	return grant, nil
}

// checkSetNames holds the names of a set to their limits, and returns all of them, in name
// order, and the choices, each with a count.
func checkSetNames(r *lock.SetRequest) (all []lock.Name, choices []lock.Choice, err error) {
	all = slices.Clone(r.Names)
	for _, c := range r.Choices {
		if c.Count == 0 {
			c.Count = 1
		}
		switch {
		case len(c.Names) == 0:
			return nil, nil, lock.Invalid("choices", "a choice is empty; give the names to choose from")
		case c.Count < 0 || c.Count > len(c.Names):
			return nil, nil, lock.Invalid("choices", fmt.Sprintf("%d of %d names cannot be had", c.Count, len(c.Names)))
		}
		all = append(all, c.Names...)
		choices = append(choices, c)
	}
	switch {
	case len(all) == 0:
		return nil, nil, lock.Invalid("names", "give the names of the locks to take, or choices")
	case len(all) > lock.MaxSetNames:
		return nil, nil, lock.Invalid("names", fmt.Sprintf("there are %d names in all; at most %d are allowed", len(all), lock.MaxSetNames))
	}
	slices.SortFunc(all, lock.Name.Compare)
	for i, name := range all {
		if name.IsZero() {
			_, err := lock.ParseName("")
			return nil, nil, err
		}
		if err := name.CheckWanted(); err != nil {
			return nil, nil, lock.InField("names", err)
		}
		if i > 0 && name == all[i-1] {
			return nil, nil, lock.Invalid("names", fmt.Sprintf("%s is there twice; a name can be in one place alone", lock.QuoteShort(name.String())))
		}
	}
	return all, choices, nil
}

// useQueues returns the queues of names, each with one user more.
func (m *Manager) useQueues(names []lock.Name) map[lock.Name]*queue {
	m.mu.Lock()
	defer m.mu.Unlock()
	queues := make(map[lock.Name]*queue, len(names))
	for _, name := range names {
		queues[name] = m.queueLocked(name)
	}
	return queues
}

// errGranted: holds of a set that was sent again stand, or stood a moment ago.
var errGranted = errors.New("the set was granted before")

// wasGrantedLocked reports whether a hold stands of the request of a waiter for a set: it is
// sent again after it was granted. The caller must hold mu.
func (m *Manager) wasGrantedLocked(w *waiter) bool {
	return w.isSet() && w.request.RequestID != "" && slices.ContainsFunc(w.queues(), func(q *queue) bool {
		return isAgain(m.heldLocked(q.name), w.caller, w.request.RequestID)
	})
}

// setAgain returns the holds of the caller's request, if that was granted before and was sent
// again, or an error, if not all of them stand; nothing, if they are over because nobody
// could be told of them.
func (m *Manager) setAgain(ctx context.Context, caller lock.Caller, r *lock.SetRequest, all []lock.Name) ([]lock.Lock, error) {
	locked, err := m.enterAll(ctx, all) // they may be about to be given back
	if err != nil {
		return nil, err
	}
	defer m.leave(locked...)
	var stand []lock.Lock
	for _, name := range all {
		l, err := m.present(ctx, name)
		if err != nil {
			return nil, err
		}
		if isAgain(l, caller, r.RequestID) {
			stand = append(stand, l)
		}
	}
	if len(stand) == 0 {
		return nil, nil
	}
	wanted := len(r.Names)
	for _, c := range r.Choices {
		wanted += max(c.Count, 1)
	}
	size := max(stand[0].Set.Size, 1)
	switch {
	case size != wanted:
		return nil, lock.Invalid("request_id", fmt.Sprintf("the request %s was granted %d locks, and is sent again for %d; give each request an id of its own", lock.QuoteShort(r.RequestID), size, wanted))
	case len(stand) < size && m.areUntold(stand):
		if err := m.endUntold(ctx, locked, stand, caller.Actor(r.Holder)); err != nil {
			return nil, err
		}
		for _, l := range stand { // the others are given back already
			m.adopt(l.Token)
		}
		return nil, nil
	case len(stand) < size:
		l := m.described(stand[0])
		return nil, &lock.Error{
			Reason:  lock.ErrNotHolder,
			Message: fmt.Sprintf("of the %d locks that the request %s was granted, only %s stand; release them, and look at what the others protect", size, lock.QuoteShort(r.RequestID), namesOf(stand)),
			Lock:    &l,
			Names:   all,
		}
	}
	for i, l := range stand {
		m.adopt(l.Token)
		stand[i] = m.described(l)
	}
	return stand, nil
}

// areUntold reports whether nobody was told of holds, which are to be ended.
func (m *Manager) areUntold(holds []lock.Lock) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !slices.ContainsFunc(holds, func(l lock.Lock) bool {
		_, untold := m.untold[l.Token]
		return !untold
	})
}

// namesOf lists the names of locks.
func namesOf(locks []lock.Lock) string {
	text := locks[0].Name.String()
	for _, l := range locks[1:] {
		text += ", " + l.Name.String()
	}
	return text
}

// UnlockSet ends several holds, as far as they still stand and are the caller's, in one
// commit, and answers for each in name order.
//
// The errors are *Error with ErrInvalidArgument, ErrNotLocked, if nothing of a set stands,
// ErrReadOnly, ErrLockFile, ErrOutcomeUnknown or ErrShuttingDown, and ctx's.
func (m *Manager) UnlockSet(ctx context.Context, caller lock.Caller, request lock.UnlockSetRequest) ([]lock.SetAnswer, error) {
	if err := checkText("holder", request.Holder, maxHolderBytes); err != nil {
		return nil, err
	}
	if err := checkReason(request.Reason, request.Force, "ending somebody else's hold (force)"); err != nil {
		return nil, err
	}
	holds := request.Holds
	if request.Set != 0 {
		if len(holds) > 0 {
			return nil, lock.Invalid("set", "give holds or a set, not both")
		}
		var err error
		if holds, err = m.membersOf(ctx, request.Set); err != nil {
			return nil, err
		}
	}
	holds, names, err := checkHolds(holds)
	if err != nil {
		return nil, err
	}
	queues, err := m.enterAll(ctx, names)
	if err != nil {
		return nil, err
	}
	defer m.leave(queues...)
	for {
		answers, changes, err := m.endsOf(ctx, caller, &request, holds)
		if err != nil {
			return nil, err
		}
		if len(changes) == 0 {
			return answers, nil
		}
		events, err := m.commit(ctx, queues, nil, nil, changes...)
		if errors.Is(err, lock.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i := range answers {
			if answers[i].Err != nil {
				continue
			}
			l := &answers[i].Lock
			answers[i].Revision = events[0].Revision
			events = events[1:]
			m.leases.Drop(l.Name, l.Token)
			m.over(l.Name)
		}
		return answers, nil
	}
}

// membersOf returns the holds that still stand of a set.
func (m *Manager) membersOf(ctx context.Context, id lock.Token) (holds []lock.HoldRef, err error) {
	_, locks := m.store.List(ctx, lock.Pattern{}, lock.Name{})
	for l, err := range locks {
		if err != nil {
			return nil, err
		}
		if l.Set.ID == id && len(holds) < lock.MaxSetNames {
			holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
		}
	}
	if len(holds) == 0 {
		return nil, &lock.Error{Reason: lock.ErrNotLocked, Message: fmt.Sprintf("nothing of the set %d is held", id)}
	}
	return holds, nil
}

// checkHolds holds the holds of a request to their limits, and returns them in name order.
func checkHolds(holds []lock.HoldRef) (sorted []lock.HoldRef, names []lock.Name, err error) {
	switch {
	case len(holds) == 0:
		return nil, nil, lock.Invalid("holds", "give the names and tokens of the holds")
	case len(holds) > lock.MaxSetNames:
		return nil, nil, lock.Invalid("holds", fmt.Sprintf("there are %d; at most %d are allowed", len(holds), lock.MaxSetNames))
	}
	sorted = slices.SortedFunc(slices.Values(holds), func(a, b lock.HoldRef) int { return a.Name.Compare(b.Name) })
	for i, h := range sorted {
		switch {
		case h.Name.IsZero():
			_, err := lock.ParseName("")
			return nil, nil, err
		case h.Token == 0:
			return nil, nil, lock.Invalid("holds", fmt.Sprintf("%s has no token; Lock and Status return it", h.Name))
		case i > 0 && h.Name == sorted[i-1].Name:
			return nil, nil, lock.Invalid("holds", fmt.Sprintf("%s is there twice", h.Name))
		}
		names = append(names, h.Name)
	}
	return sorted, names, nil
}

// endsOf returns what becomes of each hold, and the changes that end those that may be. The
// caller must hold the queues.
func (m *Manager) endsOf(ctx context.Context, caller lock.Caller, r *lock.UnlockSetRequest, holds []lock.HoldRef) (answers []lock.SetAnswer, changes []lock.Change, err error) {
	for _, h := range holds {
		answer := lock.SetAnswer{HoldRef: h}
		l, err := m.present(ctx, h.Name)
		if err != nil {
			return nil, nil, err
		}
		answer.Lock = m.described(l)
		unlock := lock.UnlockRequest{Name: h.Name, Token: h.Token, Holder: r.Holder, Force: r.Force, Reason: r.Reason, Data: r.Data}
		if r.Set != 0 && l.Caller == "" && l.Token == h.Token {
			unlock.Token = 0 // the tokens are not the caller's to know, so the holder counts
		}
		if r.Set != 0 && r.May != nil {
			answer.Err = r.May(h.Name)
		}
		if answer.Err == nil {
			answer.Err = m.mayUnlock(l, caller, unlock)
		}
		if answer.Err == nil {
			changes = append(changes, m.endOf(l, caller, &unlock))
		}
		answers = append(answers, answer)
	}
	return answers, changes, nil
}

// endOf is the change that ends the hold l as a request asks that may.
func (m *Manager) endOf(l lock.Lock, caller lock.Caller, r *lock.UnlockRequest) lock.Change {
	change := lock.Change{
		Cause:  lock.Request,
		Actor:  caller.Actor(r.Holder),
		Reason: r.Reason,
		Lock:   l,
	}
	if r.Force && !l.Stale() && (r.Holder == "" || r.Holder != l.Holder || !isOf(l, caller)) {
		change.Cause = lock.Forced
	}
	if change.Cause == lock.Request {
		change.Actor = actorOf(caller, r.Holder, l)
	}
	if r.Data != nil {
		change.Lock.Data = *r.Data
	}
	return ending(l, change)
}

// RenewSet begins the leases of several holds anew, and answers for each in name order.
//
// The errors are *Error with ErrInvalidArgument, ErrReadOnly, ErrLockFile, ErrOutcomeUnknown
// or ErrShuttingDown, and ctx's.
func (m *Manager) RenewSet(ctx context.Context, caller lock.Caller, request lock.RenewSetRequest) ([]lock.SetAnswer, error) {
	if err := checkText("holder", request.Holder, maxHolderBytes); err != nil {
		return nil, err
	}
	if err := checkExpiry(request.TTL, &request.ExpireTime); err != nil {
		return nil, err
	}
	holds, names, err := checkHolds(request.Holds)
	if err != nil {
		return nil, err
	}
	queues, err := m.enterAll(ctx, names)
	if err != nil {
		return nil, err
	}
	answers, over, err := m.renewAll(ctx, queues, caller, &request, holds)
	if err != nil {
		return nil, err
	}
	for _, i := range over { // what is left to say takes time and decides nothing
		answers[i].Err = m.overError(ctx, answers[i].Name, answers[i].Token)
	}
	return answers, nil
}

// renewAll is RenewSet up to where there is nothing to renew: over has which of the answers
// are for locks that are free. The caller must hold the queues, which it leaves.
func (m *Manager) renewAll(ctx context.Context, queues []*queue, caller lock.Caller, r *lock.RenewSetRequest, holds []lock.HoldRef) (answers []lock.SetAnswer, over []int, err error) {
	defer m.leave(queues...)
	for {
		answers, over = nil, nil
		var changes []lock.Change
		var next []lock.Lock // whose leases begin anew
		for i, h := range holds {
			answer := lock.SetAnswer{HoldRef: h}
			q := queueOf(queues, h.Name)
			l, err := m.renewable(ctx, q, caller, lock.RenewRequest{Name: h.Name, Token: h.Token})
			switch refused := (*lock.Error)(nil); {
			case errors.As(err, &refused) && refused.Reason == lock.ErrNotHolder:
				answer.Err = err
				if refused.Lock != nil {
					answer.Lock = *refused.Lock
				}
			case err != nil:
				return nil, nil, err
			case !l.Held():
				answer.Lock = l
				over = append(over, i)
			default:
				m.adopt(l.Token)
				renewed, isNew := withTerms(l, r.TTL, r.ExpireTime)
				if !isNew && l.TTL == 0 {
					answer.Lock, answer.Err = m.described(l), nothingToRenew(l)
					break
				}
				if haveOtherTerms(renewed, l) {
					changes = append(changes, lock.Change{Type: lock.Extended, Cause: lock.Request, Actor: actorOf(caller, r.Holder, l), Prev: l.Revision, Lock: renewed})
				}
				answer.Lock = renewed
				next = append(next, renewed)
			}
			answers = append(answers, answer)
		}
		if len(changes) > 0 {
			_, err := m.commit(ctx, queues, nil, nil, changes...)
			if errors.Is(err, lock.ErrConflict) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
		}
		for _, l := range next {
			m.leases.Renew(l)
		}
		for i := range answers {
			if answers[i].Err == nil && answers[i].Lock.Held() {
				answers[i].Lock = m.described(answers[i].Lock)
			}
		}
		return answers, over, nil
	}
}
