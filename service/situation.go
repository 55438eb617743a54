package service

import (
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// situate describes what stands around a lock.
func (s *Service) situate(message *pylokv1.Lock, situation *lock.Situation) {
	for _, w := range situation.Waiting {
		message.Waiting = append(message.Waiting, waiterMessage(w))
	}
	message.SharedHolds = uint32(situation.SharedHolds)
	message.HeldBelow = uint32(situation.HeldBelow)
	message.Conflict = situation.Conflict
	if situation.BlockedBy != nil {
		message.BlockedBy = s.obstacleMessage(situation.BlockedBy)
	}
}

func (s *Service) obstacleMessage(o *lock.Obstacle) *pylokv1.Obstacle {
	message := &pylokv1.Obstacle{Kind: obstacleKinds[o.Kind]}
	switch {
	case o.Hidden:
		message.Lock = &pylokv1.Lock{State: pylokv1.LockState_LOCK_STATE_LOCKED}
	case o.Kind == lock.ByWaiter:
		message.Waiter = waiterMessage(o.Waiter)
	case o.Lock.Held():
		message.Lock = s.lockMessage(brief(o.Lock))
	}
	return message
}

var obstacleKinds = map[lock.ObstacleKind]pylokv1.ObstacleKind{
	lock.ByTree:   pylokv1.ObstacleKind_OBSTACLE_KIND_TREE,
	lock.ByShared: pylokv1.ObstacleKind_OBSTACLE_KIND_SHARED,
	lock.ByWaiter: pylokv1.ObstacleKind_OBSTACLE_KIND_WAITER,
}

func waiterMessage(w lock.Waiter) *pylokv1.Waiter {
	message := &pylokv1.Waiter{
		Place:     w.Place,
		Holder:    w.Holder,
		Caller:    w.Caller,
		SinceTime: timestampMessage(w.Since),
		UntilTime: timestampMessage(w.Until),
		Shared:    w.Shared,
		Tree:      w.Tree,
		Message:   w.Message,
	}
	for _, name := range w.Names {
		message.Names = append(message.Names, name.String())
	}
	return message
}

// brief returns what of a lock is shown where there is little room: of its data at most the
// key msg, and nothing of what stands around it.
func brief(l lock.Lock) lock.Lock {
	const mostProblem = 512
	l.Data, l.Warnings, l.Situation = messageOnly(l.Data), "", nil
	l.Problem = cut(l.Problem, mostProblem)
	return l
}
