package limits

import (
	"context"

	"github.com/pylok/pylok/lock"
)

// HandOver implements lock.Locks. The hold counts for the caller who has it from then on, and
// who must have room for it; where it is no caller's, for whom it counted before.
func (l *Limits) HandOver(ctx context.Context, from lock.Caller, request lock.HandOverRequest) (lock.HandOverAnswer, error) {
	k, _ := keyOf(&from)
	if request.Caller != "" {
		k = key{name: request.Caller, proved: true}
	}
	to := l.callers.use(k)
	defer to.leave() // this one, whoever it is in the end
	owner := l.holds.useOwner(request.Token)
	if owner != nil {
		defer owner.leave()
	}
	if request.Caller == "" && owner != nil {
		to = owner
	}
	hand := func(inner lock.Locks, ctx context.Context, from lock.Caller, request lock.HandOverRequest) (lock.HandOverAnswer, error) {
		reserved := 0
		if owner != to {
			var err error
			if reserved, err = l.reserve(to, 1, false); err != nil && !l.isHandedOver(ctx, from, to, &request) {
				return lock.HandOverAnswer{}, l.refuseHolds(err)
			}
		}
		answer, err := inner.HandOver(ctx, from, request)
		if err != nil {
			l.holds.asked(to, reserved, 0)
			return answer, err
		}
		l.holds.ended(request.Token)
		l.holds.asked(to, reserved, answer.Lock.Token)
		return answer, nil
	}
	return keep(ctx, l, from, []lock.Token{request.Token}, request, hand)
}

// isHandedOver reports whether the request was answered before and is sent again.
func (l *Limits) isHandedOver(ctx context.Context, from lock.Caller, to *caller, request *lock.HandOverRequest) bool {
	present, err := l.inner.Status(ctx, from, request.Name)
	return err == nil && l.isAgain(to, present, request.RequestID)
}
