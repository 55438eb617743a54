package service

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// setBytes is how much the locks in an answer about a set may take in all until they are
// made brief: gRPC clients take 4 MiB by default, and 64 locks with all of their data and
// of their waiters would be many times that.
const setBytes = pageBytes

func (s *Service) lockSetRequest(request *pylokv1.LockSetRequest) (r lock.SetRequest, err error) {
	total := len(request.GetNames())
	for _, c := range request.GetChoices() {
		total += len(c.GetNames())
	}
	if total > lock.MaxSetNames { // before a look at each
		return r, lock.Invalid("names", fmt.Sprintf("there are %d names in all; at most %d are allowed", total, lock.MaxSetNames))
	}
	if r.Names, err = namesOf("names", request.GetNames()); err != nil {
		return r, err
	}
	for i, sent := range request.GetChoices() {
		c := lock.Choice{Count: int(sent.GetCount())}
		if c.Names, err = namesOf(fmt.Sprintf("choices[%d].names", i), sent.GetNames()); err != nil {
			return r, err
		}
		switch {
		case len(c.Names) == 0:
			return r, lock.Invalid(fmt.Sprintf("choices[%d].names", i), "it is empty; give the names to choose from")
		case c.Count == 0:
			c.Count = 1
		}
		r.Choices = append(r.Choices, c)
	}
	if err := checkData(request); err != nil {
		return r, err
	}
	if r.Data, err = requestedData(request); err != nil {
		return r, err
	}
	if r.TTL, r.ExpireTime, err = expiryOf(request); err != nil {
		return r, err
	}
	if r.Wait, err = waitOf(request); err != nil {
		return r, err
	}
	if r.OnExpiry, err = onExpiryOf(request.GetOnExpiry()); err != nil {
		return r, err
	}
	// As in lockRequest, for who waits.
	request.Data = nil
	request.ProtoReflect().SetUnknown(nil)
	r.Holder = request.GetHolder()
	r.RequestID = request.GetRequestId()
	r.ThroughFreeze = request.GetThroughFreeze()
	r.Reason = request.GetReason()
	r.RefuseManual = request.GetRefuseManual()
	r.Confirm = s.confirm
	return r, nil
}

// namesOf reads the names of a field.
func namesOf(field string, sent []string) ([]lock.Name, error) {
	names := make([]lock.Name, len(sent))
	for i, text := range sent {
		name, err := lock.ParseName(text)
		if err != nil {
			return nil, lock.InField(fmt.Sprintf("%s[%d]", field, i), err)
		}
		names[i] = name
	}
	return names, nil
}

func (s *Service) lockSetResponse(grant lock.SetGrant) *pylokv1.LockSetResponse {
	response := &pylokv1.LockSetResponse{Queued: durationMessage(grant.Queued)}
	room := setBytes
	for _, l := range grant.Locks {
		response.Locks = append(response.Locks, s.lockMessageWithin(&room, l))
	}
	return response
}

// lockMessageWithin is lockMessage, and takes of the room, until one does not fit: that and
// those after it are brief. Small ones are not counted, for all that there can be take less
// than clients have besides, and to count takes longer than to encode them.
func (s *Service) lockMessageWithin(room *int, l lock.Lock) *pylokv1.Lock {
	const small = 512 // bytes of JSON, which are at most six times as many on the wire
	if l.Situation == nil && l.Warnings == "" && l.Data.Size() <= small {
		return s.lockMessage(l)
	}
	if *room > 0 {
		message := s.lockMessage(l)
		if *room -= proto.Size(message); *room >= 0 {
			return message
		}
	}
	return s.lockMessage(brief(l))
}

// holdsOf reads the holds of a request about a set.
func holdsOf(sent []*pylokv1.HoldRef) ([]lock.HoldRef, error) {
	if len(sent) > lock.MaxSetNames { // before a look at each
		return nil, lock.Invalid("holds", fmt.Sprintf("there are %d; at most %d are allowed", len(sent), lock.MaxSetNames))
	}
	holds := make([]lock.HoldRef, len(sent))
	for i, h := range sent {
		name, err := lock.ParseName(h.GetName())
		switch {
		case err != nil:
			return nil, lock.InField(fmt.Sprintf("holds[%d].name", i), err)
		case h.GetToken() == 0:
			return nil, lock.Invalid(fmt.Sprintf("holds[%d].token", i), "give the token of the hold; Lock and Status return it")
		}
		holds[i] = lock.HoldRef{Name: name, Token: lock.Token(h.GetToken())}
	}
	return holds, nil
}

func (s *Service) unlockSetRequest(request *pylokv1.UnlockSetRequest) (r lock.UnlockSetRequest, err error) {
	if r.Holds, err = holdsOf(request.GetHolds()); err != nil {
		return r, err
	}
	if r.Data, err = replacementOf(request); err != nil {
		return r, err
	}
	r.Set = lock.Token(request.GetSet())
	r.Holder = request.GetHolder()
	r.Force = request.GetForce()
	r.Reason = request.GetReason()
	return r, nil
}

// askUnlockSet asks for the end of the holds of a set.
func askUnlockSet(locks lock.Locks, ctx context.Context, caller lock.Caller, r lock.UnlockSetRequest) ([]lock.SetAnswer, error) {
	return withoutFaults(locks.UnlockSet(ctx, caller, r))
}

func (s *Service) unlockSetResponse(answers []lock.SetAnswer) *pylokv1.UnlockSetResponse {
	return &pylokv1.UnlockSetResponse{Answers: s.setAnswerMessages(answers)}
}

func (s *Service) renewSetRequest(request *pylokv1.RenewSetRequest) (r lock.RenewSetRequest, err error) {
	if r.Holds, err = holdsOf(request.GetHolds()); err != nil {
		return r, err
	}
	r.TTL, r.ExpireTime, err = expiryOf(request)
	r.Holder = request.GetHolder()
	return r, err
}

// askRenewSet asks to keep the holds of a set longer.
func askRenewSet(locks lock.Locks, ctx context.Context, caller lock.Caller, r lock.RenewSetRequest) ([]lock.SetAnswer, error) {
	return withoutFaults(locks.RenewSet(ctx, caller, r))
}

func (s *Service) renewSetResponse(answers []lock.SetAnswer) *pylokv1.RenewSetResponse {
	return &pylokv1.RenewSetResponse{Answers: s.setAnswerMessages(answers)}
}

// withoutFaults returns answers, or the first error in them that is no refusal: it has no
// reason to put in an answer, and is for the log.
func withoutFaults(answers []lock.SetAnswer, err error) ([]lock.SetAnswer, error) {
	for _, a := range answers {
		if err == nil && a.Err != nil && refusedBy(a.Err) == nil {
			err = a.Err
		}
	}
	return answers, err
}

func (s *Service) setAnswerMessages(answers []lock.SetAnswer) []*pylokv1.SetAnswer {
	room := setBytes
	messages := make([]*pylokv1.SetAnswer, len(answers))
	for i, a := range answers {
		message := &pylokv1.SetAnswer{Name: a.Name.String(), Token: uint64(a.Token), Revision: uint64(a.Revision)}
		if a.Err != nil {
			refused := refusedBy(a.Err)
			message.Reason, message.Message = string(refused.Reason), cut(refused.Message, maxMessageBytes)
			if a.Lock.Name.IsZero() && refused.Lock != nil {
				a.Lock = *refused.Lock
			}
		}
		if !a.Lock.Name.IsZero() {
			message.Lock = s.lockMessageWithin(&room, a.Lock)
		}
		if a.Next.Held() {
			message.Next = s.lockMessageWithin(&room, a.Next)
		}
		messages[i] = message
	}
	return messages
}
