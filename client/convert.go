package client

import (
	"fmt"
	"math"
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
		Tree:        message.GetTree(),
		Set:         lock.SetRef{ID: lock.Token(message.GetSet().GetId()), Size: int(message.GetSet().GetSize())},
		StaleTime:   timeFromProto(message.GetStaleTime()),
		Waiters:     int(message.GetWaiters()),
		Deadline:    timeFromProto(message.GetExpireTime()),
	}
	if message.GetOnExpiry() == pylokv1.OnExpiry_ON_EXPIRY_KEEP {
		l.OnExpiry = lock.Keep
	}
	if l.TTL == 0 {
		l.ExpireTime = l.Deadline
	}
	l.Situation, err = situationFromProto(message)
	return l, err
}

// situationFromProto returns what stands around the lock that a message tells of; nil:
// nothing.
func situationFromProto(message *pylokv1.Lock) (*lock.Situation, error) {
	if len(message.GetWaiting()) == 0 && message.GetSharedHolds() == 0 && message.GetHeldBelow() == 0 &&
		message.GetBlockedBy() == nil && message.GetConflict() == "" {
		return nil, nil
	}
	s := &lock.Situation{
		SharedHolds: int(message.GetSharedHolds()),
		HeldBelow:   int(message.GetHeldBelow()),
		Conflict:    message.GetConflict(),
	}
	for _, sent := range message.GetWaiting() {
		w, err := waiterFromProto(sent)
		if err != nil {
			return nil, err
		}
		s.Waiting = append(s.Waiting, w)
	}
	if sent := message.GetBlockedBy(); sent != nil {
		o := &lock.Obstacle{Kind: obstacleKinds[sent.GetKind()]}
		var err error
		if sent.GetLock().GetName() != "" {
			o.Lock, err = lockFromProto(sent.GetLock())
		} else {
			o.Hidden = sent.GetLock() != nil
		}
		if err == nil && sent.GetWaiter() != nil {
			o.Waiter, err = waiterFromProto(sent.GetWaiter())
		}
		if err != nil {
			return nil, err
		}
		s.BlockedBy = o
	}
	return s, nil
}

// waiterFromProto returns the waiter that a message tells of.
func waiterFromProto(message *pylokv1.Waiter) (lock.Waiter, error) {
	w := lock.Waiter{
		Place:   message.GetPlace(),
		Holder:  message.GetHolder(),
		Caller:  message.GetCaller(),
		Since:   timeFromProto(message.GetSinceTime()),
		Until:   timeFromProto(message.GetUntilTime()),
		Shared:  message.GetShared(),
		Tree:    message.GetTree(),
		Message: message.GetMessage(),
	}
	for _, text := range message.GetNames() {
		name, err := lock.ParseName(text)
		if err != nil {
			return lock.Waiter{}, fmt.Errorf("the server sent a waiter that cannot be: %w", err)
		}
		w.Names = append(w.Names, name)
	}
	return w, nil
}

var obstacleKinds = map[pylokv1.ObstacleKind]lock.ObstacleKind{
	pylokv1.ObstacleKind_OBSTACLE_KIND_TREE:   lock.ByTree,
	pylokv1.ObstacleKind_OBSTACLE_KIND_SHARED: lock.ByShared,
	pylokv1.ObstacleKind_OBSTACLE_KIND_WAITER: lock.ByWaiter,
}

// locksFromProto returns the locks that messages tell of.
func locksFromProto(messages []*pylokv1.Lock) (locks []lock.Lock, err error) {
	for _, message := range messages {
		l, err := lockFromProto(message)
		if err != nil {
			return nil, err
		}
		locks = append(locks, l)
	}
	return locks, nil
}

// answersFromProto returns what became of the holds of a set.
func answersFromProto(messages []*pylokv1.SetAnswer) (answers []lock.SetAnswer, err error) {
	for _, message := range messages {
		name, err := lock.ParseName(message.GetName())
		if err != nil {
			return nil, fmt.Errorf("the server sent an answer that cannot be: %w", err)
		}
		a := lock.SetAnswer{
			HoldRef:  lock.HoldRef{Name: name, Token: lock.Token(message.GetToken())},
			Revision: lock.Revision(message.GetRevision()),
		}
		if message.GetLock() != nil {
			if a.Lock, err = lockFromProto(message.GetLock()); err != nil {
				return nil, err
			}
		}
		if message.GetNext() != nil {
			if a.Next, err = lockFromProto(message.GetNext()); err != nil {
				return nil, err
			}
		}
		if message.GetReason() != "" {
			refusal := &lock.Error{Reason: lock.Reason(message.GetReason()), Message: message.GetMessage()}
			if message.GetLock() != nil {
				refusal.Lock = &a.Lock
			}
			a.Err = refusal
		}
		answers = append(answers, a)
	}
	return answers, nil
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
		Previous: lock.Token(message.GetPreviousToken()),
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
	pylokv1.EventType_EVENT_TYPE_ASKED:    lock.Asked,
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

// lockMessage makes the message of a request.
func lockMessage(request lock.LockRequest) (*pylokv1.LockRequest, error) {
	limit, err := countMessage("limit", request.Limit)
	if err != nil {
		return nil, err
	}
	message := &pylokv1.LockRequest{
		Name:          request.Name.String(),
		Holder:        request.Holder,
		RequestId:     request.RequestID,
		Overwrite:     request.Overwrite,
		Shared:        request.Shared,
		Limit:         limit,
		Tree:          request.Tree,
		Drain:         request.Drain,
		ThroughFreeze: request.ThroughFreeze,
		Reason:        request.Reason,
		OnExpiry:      onExpiryMessage(request.OnExpiry),
		ReplaceStale:  request.ReplaceStale,
		RefuseManual:  request.RefuseManual,
	}
	message.Wait, message.WaitForever = waitMessage(request.Wait)
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
		Stale:  request.Stale,
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

// lockSetMessage makes the message of a request.
func lockSetMessage(request lock.SetRequest) (*pylokv1.LockSetRequest, error) {
	message := &pylokv1.LockSetRequest{
		Names:         texts(request.Names),
		Holder:        request.Holder,
		RequestId:     request.RequestID,
		ThroughFreeze: request.ThroughFreeze,
		Reason:        request.Reason,
		OnExpiry:      onExpiryMessage(request.OnExpiry),
		RefuseManual:  request.RefuseManual,
	}
	message.Wait, message.WaitForever = waitMessage(request.Wait)
	for _, choice := range request.Choices {
		count, err := countMessage("choices.count", choice.Count)
		if err != nil {
			return nil, err
		}
		message.Choices = append(message.Choices, &pylokv1.Choice{Names: texts(choice.Names), Count: count})
	}
	if !request.Data.IsEmpty() {
		message.Data = wiredoc.ToStruct(request.Data.Map())
	}
	switch {
	case request.TTL != 0 && !request.ExpireTime.IsZero():
		return nil, errTwoExpiries
	case request.TTL != 0:
		message.Expiry = &pylokv1.LockSetRequest_Ttl{Ttl: durationpb.New(request.TTL)}
	case !request.ExpireTime.IsZero():
		message.Expiry = &pylokv1.LockSetRequest_ExpireTime{ExpireTime: timestamppb.New(request.ExpireTime)}
	}
	return message, nil
}

func unlockSetMessage(request lock.UnlockSetRequest) *pylokv1.UnlockSetRequest {
	message := &pylokv1.UnlockSetRequest{
		Holds:  holdMessages(request.Holds),
		Set:    uint64(request.Set),
		Holder: request.Holder,
		Force:  request.Force,
		Reason: request.Reason,
	}
	if request.Data != nil {
		message.Data = wiredoc.ToStruct((*request.Data).Map())
	}
	return message
}

func renewSetMessage(request lock.RenewSetRequest) (*pylokv1.RenewSetRequest, error) {
	message := &pylokv1.RenewSetRequest{Holds: holdMessages(request.Holds), Holder: request.Holder}
	switch {
	case request.TTL != 0 && !request.ExpireTime.IsZero():
		return nil, errTwoExpiries
	case request.TTL != 0:
		message.Expiry = &pylokv1.RenewSetRequest_Ttl{Ttl: durationpb.New(request.TTL)}
	case !request.ExpireTime.IsZero():
		message.Expiry = &pylokv1.RenewSetRequest_ExpireTime{ExpireTime: timestamppb.New(request.ExpireTime)}
	}
	return message, nil
}

func handOverMessage(request lock.HandOverRequest) (*pylokv1.HandOverRequest, error) {
	message := &pylokv1.HandOverRequest{
		Name:      request.Name.String(),
		Token:     uint64(request.Token),
		Holder:    request.Holder,
		Caller:    request.Caller,
		Reason:    request.Reason,
		RequestId: request.RequestID,
		From:      request.From,
	}
	given := 0
	if request.TTL != 0 {
		given++
		message.Expiry = &pylokv1.HandOverRequest_Ttl{Ttl: durationpb.New(request.TTL)}
	}
	if !request.ExpireTime.IsZero() {
		given++
		message.Expiry = &pylokv1.HandOverRequest_ExpireTime{ExpireTime: timestamppb.New(request.ExpireTime)}
	}
	if request.Never {
		given++
		message.Expiry = &pylokv1.HandOverRequest_Never{Never: true}
	}
	if given > 1 {
		return nil, lock.Invalid("ttl", "give one of ttl, expire_time and never")
	}
	if request.Data != nil {
		message.Data = wiredoc.ToStruct((*request.Data).Map())
	}
	return message, nil
}

// waitMessage returns what a message says of a wait.
func waitMessage(wait time.Duration) (_ *durationpb.Duration, forever bool) {
	if wait == lock.WaitForever {
		return nil, true
	}
	return durationpb.New(wait), false
}

func onExpiryMessage(o lock.OnExpiry) pylokv1.OnExpiry {
	if o == lock.Keep {
		return pylokv1.OnExpiry_ON_EXPIRY_KEEP
	}
	return pylokv1.OnExpiry_ON_EXPIRY_UNSPECIFIED
}

// countMessage checks a number that a message has no sign and 32 bits for.
func countMessage(field string, n int) (uint32, error) {
	if n < 0 || n > math.MaxInt32 {
		return 0, lock.Invalid(field, fmt.Sprintf("%d cannot be", n))
	}
	return uint32(n), nil
}

func holdMessages(holds []lock.HoldRef) (messages []*pylokv1.HoldRef) {
	for _, hold := range holds {
		messages = append(messages, &pylokv1.HoldRef{Name: hold.Name.String(), Token: uint64(hold.Token)})
	}
	return messages
}

func texts(names []lock.Name) (texts []string) {
	for _, name := range names {
		texts = append(texts, name.String())
	}
	return texts
}

// errTwoExpiries is what a message cannot say.
var errTwoExpiries = lock.Invalid("ttl", "give ttl or expire_time, not both")
