package service

import (
	"fmt"
	"hash/maphash"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/document/wiredoc"
	"github.com/pylok/pylok/lock"
)

// Messages become requests. What a field alone can break is found here; the manager
// knows the limits.

func (s *Service) lockRequest(request *pylokv1.LockRequest) (lock.LockRequest, error) {
	name, err := lock.ParseName(request.GetName())
	if err != nil {
		return lock.LockRequest{}, err
	}
	if err := checkData(request); err != nil {
		return lock.LockRequest{}, err
	}
	data, err := requestedData(request)
	if err != nil {
		return lock.LockRequest{}, err
	}
	ttl, expire, err := expiryOf(request)
	if err != nil {
		return lock.LockRequest{}, err
	}
	wait, err := waitOf(request)
	if err != nil {
		return lock.LockRequest{}, err
	}
	onExpiry, err := onExpiryOf(request.GetOnExpiry())
	if err != nil {
		return lock.LockRequest{}, err
	}
	// Who waits keeps what there is to wait with, and not the message's own copy of it,
	// which may be many times as large.
	request.Data = nil
	request.ProtoReflect().SetUnknown(nil)
	return lock.LockRequest{
		Name:          name,
		Data:          data,
		Holder:        request.GetHolder(),
		TTL:           ttl,
		ExpireTime:    expire,
		Wait:          wait,
		RequestID:     request.GetRequestId(),
		Overwrite:     request.GetOverwrite(),
		Shared:        request.GetShared(),
		Limit:         int(request.GetLimit()),
		Tree:          request.GetTree(),
		Drain:         request.GetDrain(),
		ThroughFreeze: request.GetThroughFreeze(),
		ReplaceStale:  request.GetReplaceStale(),
		Reason:        request.GetReason(),
		OnExpiry:      onExpiry,
		RefuseManual:  request.GetRefuseManual(),
		Confirm:       s.confirm,
	}, nil
}

func (s *Service) lockResponse(grant lock.Grant) *pylokv1.LockResponse {
	return &pylokv1.LockResponse{Lock: s.lockMessage(grant.Lock), Queued: durationMessage(grant.Queued)}
}

func (s *Service) unlockRequest(request *pylokv1.UnlockRequest) (lock.UnlockRequest, error) {
	name, err := lock.ParseName(request.GetName())
	if err != nil {
		return lock.UnlockRequest{}, err
	}
	data, err := replacementOf(request)
	if err != nil {
		return lock.UnlockRequest{}, err
	}
	return lock.UnlockRequest{
		Name:   name,
		Token:  lock.Token(request.GetToken()),
		Holder: request.GetHolder(),
		Force:  request.GetForce(),
		Reason: request.GetReason(),
		Data:   data,
		Stale:  request.GetStale(),
	}, nil
}

func (s *Service) unlockResponse(release lock.Release) *pylokv1.UnlockResponse {
	response := &pylokv1.UnlockResponse{Lock: s.lockMessage(release.Lock), Revision: uint64(release.Revision)}
	if release.Next.Held() {
		response.Next = s.lockMessage(release.Next)
	}
	return response
}

func (s *Service) renewRequest(request *pylokv1.RenewRequest) (lock.RenewRequest, error) {
	name, err := lock.ParseName(request.GetName())
	if err != nil {
		return lock.RenewRequest{}, err
	}
	ttl, expire, err := expiryOf(request)
	if err != nil {
		return lock.RenewRequest{}, err
	}
	data, err := replacementOf(request)
	if err != nil {
		return lock.RenewRequest{}, err
	}
	return lock.RenewRequest{
		Name:       name,
		Token:      lock.Token(request.GetToken()),
		TTL:        ttl,
		ExpireTime: expire,
		Data:       data,
		Holder:     request.GetHolder(),
	}, nil
}

func (s *Service) renewResponse(l lock.Lock) *pylokv1.RenewResponse {
	return &pylokv1.RenewResponse{Lock: s.lockMessage(l)}
}

func (s *Service) statusRequest(request *pylokv1.StatusRequest) (lock.Name, error) {
	return lock.ParseName(request.GetName())
}

func (s *Service) statusResponse(l lock.Lock) *pylokv1.StatusResponse {
	return &pylokv1.StatusResponse{Lock: s.lockMessage(l)}
}

// expiryOf reads the oneof expiry. To the manager a zero means that there is none,
// so here is where one that was sent is refused.
func expiryOf(request interface {
	GetTtl() *durationpb.Duration
	GetExpireTime() *timestamppb.Timestamp
}) (ttl time.Duration, expire time.Time, err error) {
	if sent := request.GetTtl(); sent != nil {
		ttl, err = durationOf("ttl", sent)
		if err == nil && ttl == 0 {
			err = lock.Invalid("ttl", "0s is no lease; leave ttl out for a hold that does not end by itself")
		}
	}
	if sent := request.GetExpireTime(); sent != nil {
		expire, err = timeOf("expire_time", sent)
	}
	return ttl, expire, err
}

// waitOf reads how long a request may wait. To the manager the longest duration that there
// is means without an end, so here one that was sent is made shorter: it is beyond every
// limit still.
func waitOf(request interface {
	GetWait() *durationpb.Duration
	GetWaitForever() bool
}) (time.Duration, error) {
	if !request.GetWaitForever() {
		wait, err := durationOf("wait", request.GetWait())
		return min(wait, lock.WaitForever-1), err
	}
	if request.GetWait() != nil {
		return 0, lock.Invalid("wait", "give wait or wait_forever, not both")
	}
	return lock.WaitForever, nil
}

// onExpiryOf reads what becomes of a hold whose time is over.
func onExpiryOf(sent pylokv1.OnExpiry) (lock.OnExpiry, error) {
	switch sent {
	case pylokv1.OnExpiry_ON_EXPIRY_UNSPECIFIED, pylokv1.OnExpiry_ON_EXPIRY_RELEASE:
		return lock.End, nil
	case pylokv1.OnExpiry_ON_EXPIRY_KEEP:
		return lock.Keep, nil
	}
	return 0, lock.Invalid("on_expiry", fmt.Sprintf("this server knows no on_expiry %d", sent))
}

func historyQuery(request *pylokv1.HistoryRequest) (q lock.HistoryQuery, err error) {
	if q.Pattern, err = lock.ParsePattern(request.GetPattern()); err != nil {
		return q, err
	}
	if q.AfterTime, err = timeOf("after_time", request.GetAfterTime()); err != nil {
		return q, err
	}
	if q.BeforeTime, err = timeOf("before_time", request.GetBeforeTime()); err != nil {
		return q, err
	}
	for cause, sent := range eventCauses {
		if sent == request.GetCause() {
			q.Cause = cause
		}
	}
	if q.Cause == 0 && request.GetCause() != pylokv1.EventCause_EVENT_CAUSE_UNSPECIFIED {
		return q, lock.Invalid("cause", fmt.Sprintf("this server knows no cause %d", request.GetCause()))
	}
	q.After, q.Actor, q.NewestFirst = lock.Revision(request.GetAfterRevision()), request.GetActor(), request.GetNewestFirst()
	return q, nil
}

// timeOf returns the time of a field, and the zero Time for one that is not set, which is
// why that time itself is refused.
func timeOf(field string, sent *timestamppb.Timestamp) (t time.Time, err error) {
	switch {
	case sent == nil:
		return t, nil
	case sent.CheckValid() != nil:
		err = lock.Invalid(field, fmt.Sprintf("%d seconds and %d nanos are no time of the years 1 to 9999", sent.GetSeconds(), sent.GetNanos()))
	case sent.AsTime().IsZero():
		err = lock.Invalid(field, fmt.Sprintf("%s is past by far", sent.AsTime().Format(time.RFC3339)))
	}
	return sent.AsTime(), err
}

// durationOf reads a duration. One that time.Duration cannot hold becomes the
// longest that it can, which is beyond every limit.
func durationOf(field string, sent *durationpb.Duration) (time.Duration, error) {
	if sent == nil {
		return 0, nil
	}
	if sent.CheckValid() != nil {
		return 0, lock.Invalid(field, fmt.Sprintf("%d seconds and %d nanos are no duration: nanos has the sign of seconds, and both are within 10,000 years", sent.GetSeconds(), sent.GetNanos()))
	}
	return sent.AsDuration(), nil
}

// replacementOf reads data that is left as it is when nothing was sent.
func replacementOf(request withData) (*lock.Data, error) {
	if err := checkData(request); err != nil {
		return nil, err
	}
	if request.GetData() == nil {
		return nil, nil
	}
	data, err := dataOf(request.GetData())
	return &data, err
}

// dataOf reads a document.
func dataOf(sent *structpb.Struct) (lock.Data, error) {
	mapping, err := wiredoc.FromStruct(sent)
	if err != nil {
		return lock.Data{}, lock.Invalid("data", err.Error())
	}
	return lock.NewData(mapping)
}

// What the locks answer becomes messages.

// lockMessage describes a lock.
func (s *Service) lockMessage(l lock.Lock) *pylokv1.Lock {
	return s.lockMessageAt(l, l.AcquireTime)
}

// lockMessageAt is lockMessage for a lock whose lease began anew at a time, as far
// as is known.
func (s *Service) lockMessageAt(l lock.Lock, renewed time.Time) *pylokv1.Lock {
	message := &pylokv1.Lock{
		Name:        l.Name.String(),
		State:       pylokv1.LockState_LOCK_STATE_UNLOCKED,
		Holder:      l.Holder,
		Token:       uint64(l.Token),
		Revision:    uint64(l.Revision),
		AcquireTime: timestampMessage(l.AcquireTime),
		Ttl:         durationMessage(l.TTL),
		ExpireTime:  timestampMessage(expireTime(l, renewed)),
		Waiters:     uint32(l.Waiters),
		Problem:     l.Problem,
		Caller:      l.Caller,
	}
	if l.Held() {
		message.State = pylokv1.LockState_LOCK_STATE_LOCKED
		message.LockFileLocation = s.lockFileLocation(l.Name)
		message.Tree = l.Tree
		message.Shared = l.Shared()
		message.StaleTime = timestampMessage(l.StaleTime)
		message.OnExpiry = pylokv1.OnExpiry_ON_EXPIRY_RELEASE
		if l.OnExpiry == lock.Keep {
			message.OnExpiry = pylokv1.OnExpiry_ON_EXPIRY_KEEP
		}
		if l.Set.Size != 0 {
			message.Set = &pylokv1.SetRef{Id: uint64(l.Set.ID), Size: uint32(l.Set.Size)}
		}
	}
	if l.Situation != nil {
		s.situate(message, l.Situation)
	}
	if l.Warnings != "" {
		message.Warnings = strings.Split(l.Warnings, "\n")
	}
	if !l.Data.IsEmpty() {
		message.Data = s.structMessage(l.Data)
	}
	return message
}

// structMessage returns a document as a message, which is shared: it must not be changed.
func (s *Service) structMessage(data lock.Data) *structpb.Struct {
	return s.documents.get(data, maphash.Comparable(s.seed, data), func() (*structpb.Struct, bool) {
		return wiredoc.ToStruct(data.Map()), data.Size() <= maxRecentBytes
	})
}

// expireTime returns when the hold ends unless it is renewed, or the zero time.
func expireTime(l lock.Lock, renewed time.Time) time.Time {
	switch {
	case l.Stale():
		return time.Time{}
	case !l.Deadline.IsZero():
		return l.Deadline
	case !l.ExpireTime.IsZero():
		return l.ExpireTime
	case l.TTL != 0:
		return renewed.Add(l.TTL)
	}
	return time.Time{}
}

func (s *Service) lockFileLocation(name lock.Name) string {
	if s.directory == "" {
		return ""
	}
	return s.directory + filepath.FromSlash(name.String()) + lock.FileSuffix
}

func (s *Service) eventMessage(e lock.Event) *pylokv1.Event {
	message := &pylokv1.Event{
		Revision: uint64(e.Revision),
		Time:     timestampMessage(e.Time),
		Type:     eventTypes[e.Type],
		Cause:    eventCauses[e.Cause],
		Actor:    e.Actor,
		Reason:   e.Reason,

		PreviousToken: uint64(e.Previous),
	}
	switch e.Type {
	case lock.Reset, lock.Synced:
	case lock.Unlocked:
		// The event has the hold that ended; the lock after it is free, and
		// nothing will expire.
		message.Lock = s.lockMessageAt(e.Lock, e.Time)
		message.Lock.State = pylokv1.LockState_LOCK_STATE_UNLOCKED
		message.Lock.LockFileLocation = ""
		message.Lock.ExpireTime = nil
		message.Lock.OnExpiry = pylokv1.OnExpiry_ON_EXPIRY_UNSPECIFIED
	default:
		message.Lock = s.lockMessageAt(e.Lock, e.Time)
	}
	return message
}

var eventTypes = map[lock.EventType]pylokv1.EventType{
	lock.Locked:   pylokv1.EventType_EVENT_TYPE_LOCKED,
	lock.Updated:  pylokv1.EventType_EVENT_TYPE_UPDATED,
	lock.Unlocked: pylokv1.EventType_EVENT_TYPE_UNLOCKED,
	lock.Reset:    pylokv1.EventType_EVENT_TYPE_RESET,
	lock.Synced:   pylokv1.EventType_EVENT_TYPE_SYNCED,
	lock.Asked:    pylokv1.EventType_EVENT_TYPE_ASKED,
}

var eventCauses = map[lock.Cause]pylokv1.EventCause{
	lock.Request: pylokv1.EventCause_EVENT_CAUSE_REQUEST,
	lock.Forced:  pylokv1.EventCause_EVENT_CAUSE_FORCED,
	lock.Expired: pylokv1.EventCause_EVENT_CAUSE_EXPIRED,
	lock.File:    pylokv1.EventCause_EVENT_CAUSE_FILE,
}

func timestampMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func durationMessage(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
