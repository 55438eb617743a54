package client

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/document/wiredoc"
	"github.com/pylok/pylok/lock"
)

// lockFromProto returns the lock that a message tells of.
func lockFromProto(message *pylokv1.Lock) (lock.Lock, error) {
	name, err := lock.ParseName(message.GetName())
	if err != nil {
		return lock.Lock{}, fmt.Errorf("the server sent a lock that cannot be: %w", err)
	}
	mapping, err := wiredoc.FromStruct(message.GetData())
	if err != nil {
		return lock.Lock{}, fmt.Errorf("the server sent data of %s that cannot be: %w", name, err)
	}
	data, err := lock.NewData(mapping)
	if err != nil {
		return lock.Lock{}, fmt.Errorf("the server sent data of %s that cannot be: %w", name, err)
	}
	l := lock.Lock{
		Name:        name,
		Data:        data,
		Holder:      message.GetHolder(),
		Caller:      message.GetCaller(),
		Token:       lock.Token(message.GetToken()),
		Revision:    lock.Revision(message.GetRevision()),
		AcquireTime: timeFromProto(message.GetAcquireTime()),
		TTL:         message.GetTtl().AsDuration(),
		Problem:     message.GetProblem(),
		Warnings:    strings.Join(message.GetWarnings(), "\n"),
		Waiters:     int(message.GetWaiters()),
		Deadline:    timeFromProto(message.GetExpireTime()),
	}
	if l.TTL == 0 {
		l.ExpireTime = l.Deadline
	}
	return l, nil
}

// releaseFromProto returns what a response of Unlock tells.
func releaseFromProto(message *pylokv1.UnlockResponse) (lock.Release, error) {
	l, err := lockFromProto(message.GetLock())
	if err != nil {
		return lock.Release{}, err
	}
	r := lock.Release{Lock: l, Revision: lock.Revision(message.GetRevision())}
	if message.GetNext() != nil {
		r.Next, err = lockFromProto(message.GetNext())
	}
	return r, err
}

// timeFromProto returns the zero time for an unset one.
func timeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// eventFromProto returns the event that a message tells of. A type or a cause of a
// later server is zero.
func eventFromProto(message *pylokv1.Event) (lock.Event, error) {
	e := lock.Event{
		Revision: lock.Revision(message.GetRevision()),
		Time:     timeFromProto(message.GetTime()),
		Type:     eventTypes[message.GetType()],
		Cause:    eventCauses[message.GetCause()],
		Actor:    message.GetActor(),
		Reason:   message.GetReason(),
	}
	var err error
	if message.GetLock() != nil {
		e.Lock, err = lockFromProto(message.GetLock())
	}
	return e, err
}

var eventTypes = map[pylokv1.EventType]lock.EventType{
	pylokv1.EventType_EVENT_TYPE_RESET:    lock.Reset,
	pylokv1.EventType_EVENT_TYPE_LOCKED:   lock.Locked,
	pylokv1.EventType_EVENT_TYPE_UPDATED:  lock.Updated,
	pylokv1.EventType_EVENT_TYPE_UNLOCKED: lock.Unlocked,
	pylokv1.EventType_EVENT_TYPE_SYNCED:   lock.Synced,
}

var eventCauses = map[pylokv1.EventCause]lock.Cause{
	pylokv1.EventCause_EVENT_CAUSE_REQUEST: lock.Request,
	pylokv1.EventCause_EVENT_CAUSE_FORCED:  lock.Forced,
	pylokv1.EventCause_EVENT_CAUSE_EXPIRED: lock.Expired,
	pylokv1.EventCause_EVENT_CAUSE_FILE:    lock.File,
}

// historyMessage makes the message of a query, without what is of a page.
func historyMessage(q lock.HistoryQuery) *pylokv1.HistoryRequest {
	request := &pylokv1.HistoryRequest{
		Pattern:       q.Pattern.String(),
		AfterRevision: uint64(q.After),
		NewestFirst:   q.NewestFirst,
		Actor:         q.Actor,
	}
	if !q.AfterTime.IsZero() {
		request.AfterTime = timestamppb.New(q.AfterTime)
	}
	if !q.BeforeTime.IsZero() {
		request.BeforeTime = timestamppb.New(q.BeforeTime)
	}
	for sent, cause := range eventCauses {
		if cause == q.Cause {
			request.Cause = sent
		}
	}
	return request
}

// lockMessage makes the message of a request, without its wait.
func lockMessage(request lock.LockRequest) (*pylokv1.LockRequest, error) {
	message := &pylokv1.LockRequest{
		Name:      request.Name.String(),
		Holder:    request.Holder,
		Wait:      durationpb.New(request.Wait),
		RequestId: request.RequestID,
		Overwrite: request.Overwrite,
	}
	if !request.Data.IsEmpty() {
		message.Data = wiredoc.ToStruct(request.Data.Map())
	}
	switch {
	case request.TTL != 0 && !request.ExpireTime.IsZero():
		return nil, errTwoExpiries
	case request.TTL != 0:
		message.Expiry = &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(request.TTL)}
	case !request.ExpireTime.IsZero():
		message.Expiry = &pylokv1.LockRequest_ExpireTime{ExpireTime: timestamppb.New(request.ExpireTime)}
	}
	return message, nil
}

func unlockMessage(request lock.UnlockRequest) *pylokv1.UnlockRequest {
	message := &pylokv1.UnlockRequest{
		Name:   request.Name.String(),
		Token:  uint64(request.Token),
		Holder: request.Holder,
		Force:  request.Force,
		Reason: request.Reason,
	}
	if request.Data != nil {
		message.Data = wiredoc.ToStruct((*request.Data).Map())
	}
	return message
}

func renewMessage(request lock.RenewRequest) (*pylokv1.RenewRequest, error) {
	message := &pylokv1.RenewRequest{Name: request.Name.String(), Token: uint64(request.Token), Holder: request.Holder}
	switch {
	case request.TTL != 0 && !request.ExpireTime.IsZero():
		return nil, errTwoExpiries
	case request.TTL != 0:
		message.Expiry = &pylokv1.RenewRequest_Ttl{Ttl: durationpb.New(request.TTL)}
	case !request.ExpireTime.IsZero():
		message.Expiry = &pylokv1.RenewRequest_ExpireTime{ExpireTime: timestamppb.New(request.ExpireTime)}
	}
	if request.Data != nil {
		message.Data = wiredoc.ToStruct((*request.Data).Map())
	}
	return message, nil
}

// errTwoExpiries is what a message cannot say.
var errTwoExpiries = lock.Invalid("ttl", "give ttl or expire_time, not both")
