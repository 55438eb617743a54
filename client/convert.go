package client

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// lockFromProto returns the lock that a message tells of.
func lockFromProto(message *pylokv1.Lock) (lock.Lock, error) {
	name, err := lock.ParseName(message.GetName())
	if err != nil {
		return lock.Lock{}, fmt.Errorf("the server sent a lock that cannot be: %w", err)
	}
	data, err := lock.NewData(message.GetData().AsMap())
	if err != nil {
		return lock.Lock{}, fmt.Errorf("the server sent data of %s that cannot be: %w", name, err)
	}
	l := lock.Lock{
		Name:        name,
		Data:        data,
		Holder:      message.GetHolder(),
		Token:       lock.Token(message.GetToken()),
		Revision:    lock.Revision(message.GetRevision()),
		AcquireTime: timeFromProto(message.GetAcquireTime()),
		TTL:         message.GetTtl().AsDuration(),
		Problem:     message.GetProblem(),
		Waiters:     int(message.GetWaiters()),
		Deadline:    timeFromProto(message.GetExpireTime()),
	}
	if l.TTL == 0 {
		l.ExpireTime = l.Deadline
	}
	return l, nil
}

// timeFromProto returns the zero time for an unset one.
func timeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
