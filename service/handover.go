package service

import (
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func (s *Service) handOverRequest(request *pylokv1.HandOverRequest) (r lock.HandOverRequest, err error) {
	if r.Name, err = lock.ParseName(request.GetName()); err != nil {
		return r, err
	}
	if r.TTL, r.ExpireTime, err = expiryOf(request); err != nil {
		return r, err
	}
	if sent, ok := request.GetExpiry().(*pylokv1.HandOverRequest_Never); ok {
		if r.Never = sent.Never; !r.Never {
			return r, lock.Invalid("never", "it is false, which says nothing; leave it out for the expiry that the hold has")
		}
	}
	if r.Data, err = replacementOf(request); err != nil {
		return r, err
	}
	r.Token = lock.Token(request.GetToken())
	r.Holder = request.GetHolder()
	r.Caller = request.GetCaller()
	r.From = request.GetFrom()
	r.Reason = request.GetReason()
	r.RequestID = request.GetRequestId()
	return r, nil
}

func (s *Service) handOverResponse(answer lock.HandOverAnswer) *pylokv1.HandOverResponse {
	return &pylokv1.HandOverResponse{Lock: s.lockMessage(answer.Lock), Warnings: answer.Warnings}
}

func (s *Service) askRequest(request *pylokv1.AskRequest) (r lock.AskRequest, err error) {
	r.Name, err = lock.ParseName(request.GetName())
	r.Token = lock.Token(request.GetToken())
	r.Message = request.GetMessage()
	r.Holder = request.GetHolder()
	return r, err
}

func (s *Service) askResponse(answer lock.AskAnswer) *pylokv1.AskResponse {
	return &pylokv1.AskResponse{Lock: s.lockMessage(answer.Lock), Heard: answer.Heard}
}

func (s *Service) dismissRequest(request *pylokv1.DismissRequest) (r lock.DismissRequest, err error) {
	r.Name, err = lock.ParseName(request.GetName())
	r.Place = request.GetPlace()
	r.Holder = request.GetHolder()
	r.Reason = request.GetReason()
	return r, err
}

func (s *Service) dismissResponse(w lock.Waiter) *pylokv1.DismissResponse {
	return &pylokv1.DismissResponse{Waiter: waiterMessage(w)}
}
