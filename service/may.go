package service

import (
	"context"
	"fmt"

	"github.com/pylok/pylok/access"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// May implements pylokv1.LockServiceServer. It asks the rules and never the locks.
func (s *Service) May(ctx context.Context, message *pylokv1.MayRequest) (*pylokv1.MayResponse, error) {
	return handle(ctx, s, message, (*Service).mayQuestion, s.askMay, (*Service).mayResponse)
}

func (s *Service) askMay(_ lock.Locks, ctx context.Context, c lock.Caller, q access.Question) (access.Answer, error) {
	if err := s.admit(c); err != nil {
		return access.Answer{}, err
	}
	if s.config.May == nil {
		return (*access.Policy)(nil).May(c, q)
	}
	return s.config.May(ctx, c, q)
}

var verbs = map[pylokv1.Verb]access.Verb{
	pylokv1.Verb_VERB_VIEW:   access.View,
	pylokv1.Verb_VERB_LOCK:   access.Lock,
	pylokv1.Verb_VERB_BREAK:  access.Break,
	pylokv1.Verb_VERB_FREEZE: access.Freeze,
	pylokv1.Verb_VERB_ADMIN:  access.Admin,
}

func (s *Service) mayQuestion(request *pylokv1.MayRequest) (q access.Question, err error) {
	switch verb, known := verbs[request.GetVerb()]; {
	case request.GetVerb() == pylokv1.Verb_VERB_UNSPECIFIED:
		return q, lock.Invalid("verb", "it is not set; say what is to be done")
	case !known:
		return q, lock.Invalid("verb", fmt.Sprintf("this server knows no verb %d", request.GetVerb()))
	default:
		q.Verb = verb
	}
	q.As = request.GetAs()
	if q.Verb != access.Admin {
		q.Name, err = lock.ParseName(request.GetName())
	} else if request.GetName() != "" {
		err = lock.Invalid("name", "admin concerns the server and no lock; leave the name out")
	}
	return q, err
}

func (s *Service) mayResponse(answer access.Answer) *pylokv1.MayResponse {
	return &pylokv1.MayResponse{Allowed: answer.Allowed, Caller: answer.Caller, Groups: answer.Groups, Why: answer.Why}
}
