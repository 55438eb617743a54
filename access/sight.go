package access

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pylok/pylok/lock"
)

// sight is what a caller may view by a policy. An answer about one lock tells of others that
// stand around it: of those that the caller may not view the bare fact is left.
type sight struct {
	policy *Policy
	caller lock.Caller
}

// sees reports whether the caller may view a lock.
func (s sight) sees(n lock.Name) bool { return s.policy.Allows(s.caller, View, n) }

// lock returns what the caller may know of a lock that it may view, or has.
func (s sight) lock(l lock.Lock) lock.Lock {
	l, _ = s.narrowed(l)
	return l
}

// locks returns what the caller may know of locks that it may view.
func (s sight) locks(locks []lock.Lock) []lock.Lock {
	isPlain := func(l lock.Lock) bool { return l.Situation == nil }
	if s.policy == nil || !slices.ContainsFunc(locks, func(l lock.Lock) bool { return !isPlain(l) }) {
		return locks
	}
	locks = slices.Clone(locks)
	for i := range locks {
		locks[i] = s.lock(locks[i])
	}
	return locks
}

// narrowed is lock, and reports whether something stands in the way, or the hold is at odds
// with something, that the caller may not view.
func (s sight) narrowed(l lock.Lock) (_ lock.Lock, isHidden bool) {
	if s.policy == nil || l.Situation == nil {
		return l, false
	}
	around := *l.Situation
	l.Situation = &around
	around.Waiting = s.waiters(around.Waiting, l.Name)
	if other := around.ConflictWith; !other.IsZero() && !s.sees(other) {
		around.Conflict, around.ConflictWith = "it is at odds with a lock that you may not view", lock.Name{}
		isHidden = true
	}
	if around.BlockedBy != nil {
		obstacle := *around.BlockedBy
		around.BlockedBy = &obstacle
		if other := obstacle.Lock.Name; !other.IsZero() && !s.sees(other) {
			obstacle.Lock, obstacle.Hidden = lock.Lock{}, true
			isHidden = true
		} else if !other.IsZero() {
			obstacle.Lock, _ = s.narrowed(obstacle.Lock)
		}
		if w := obstacle.Waiter; !s.mayKnow(w, l.Name) {
			isHidden = true
		}
		obstacle.Waiter = s.waiter(obstacle.Waiter, l.Name)
	}
	return l, isHidden
}

// waiters returns what the caller may know of those who wait for a lock.
func (s sight) waiters(all []lock.Waiter, wanted lock.Name) []lock.Waiter {
	if s.policy == nil {
		return all
	}
	all = slices.Clone(all)
	for i := range all {
		all[i] = s.waiter(all[i], wanted)
	}
	return all
}

// waiter returns what the caller may know of a request that waits for a lock, or that
// stands before those that do: its place and kind, who it is if it waits for something that
// the caller may view, and of its names those.
func (s sight) waiter(w lock.Waiter, wanted lock.Name) lock.Waiter {
	if s.policy == nil {
		return w
	}
	if !s.mayKnow(w, wanted) {
		return lock.Waiter{Place: w.Place, Shared: w.Shared, Tree: w.Tree}
	}
	w.Names = slices.DeleteFunc(slices.Clone(w.Names), func(n lock.Name) bool { return !s.sees(n) })
	return w
}

// mayKnow reports whether the caller may view something that a request waits for, which is
// the wanted lock alone where it has no names.
func (s sight) mayKnow(w lock.Waiter, wanted lock.Name) bool {
	if len(w.Names) == 0 {
		return s.sees(wanted)
	}
	return slices.ContainsFunc(w.Names, s.sees)
}

// refusal returns what the caller may know of a refusal: where it tells of a lock that the
// caller may not view, the reason.
func (s sight) refusal(err error) error {
	refused, ok := errors.AsType[*lock.Error](err)
	if s.policy == nil || !ok {
		return err
	}
	isHidden := slices.ContainsFunc(refused.Names, func(n lock.Name) bool { return !s.sees(n) })
	narrow := *refused
	if refused.Lock != nil {
		l, hides := s.narrowed(*refused.Lock)
		narrow.Lock = &l
		if !s.sees(l.Name) {
			narrow.Lock, isHidden = nil, true
		}
		isHidden = isHidden || hides && len(refused.Names) > 0 // it is about what is around
	}
	switch {
	case isHidden:
		narrow.Message, narrow.Names, narrow.Err = s.hiddenText(refused), nil, nil
	case narrow.Lock == nil || narrow.Lock.Situation == nil:
		return err
	}
	return &narrow
}

// hiddenText is a refusal's message where the caller may not view what it is about.
func (s sight) hiddenText(refused *lock.Error) string {
	if refused.Reason != lock.ErrLockHeld {
		return fmt.Sprintf("the request is refused with %s, because of a lock that you may not view", refused.Reason)
	}
	wanted := "the lock"
	if i := slices.IndexFunc(refused.Names, s.sees); i >= 0 {
		wanted = refused.Names[i].String()
	}
	return wanted + " cannot be had for now: a lock or a request that you may not view stands before you, such as a freeze; wait for it, or ask who may view more"
}

// answers returns what the caller may know of the answers about the holds of a set.
func (s sight) answers(answers []lock.SetAnswer, err error) ([]lock.SetAnswer, error) {
	if err != nil {
		return nil, s.refusal(err)
	}
	if s.policy == nil {
		return answers, nil
	}
	answers = slices.DeleteFunc(slices.Clone(answers), func(a lock.SetAnswer) bool { return !s.sees(a.Name) })
	for i := range answers {
		a := &answers[i]
		a.Lock, a.Next = s.lock(a.Lock), s.lock(a.Next)
		if a.Err != nil {
			a.Err = s.refusal(a.Err)
		}
	}
	return answers, nil
}
