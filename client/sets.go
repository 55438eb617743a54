package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// LockSet takes several locks, all or none; it is the call underneath AcquireSet. What is
// said of Lock, of its wait and its request id, and of a caller that leaves, is so here
// too: a call that returns an error holds nothing, unless that is an *OutcomeUnknownError.
func (c *Client) LockSet(ctx context.Context, request lock.SetRequest) (lock.SetGrant, error) {
	message, err := lockSetMessage(request)
	if err != nil {
		return lock.SetGrant{}, err
	}
	response, err := c.lockSet(ctx, message)
	if err != nil {
		return lock.SetGrant{}, err
	}
	locks, err := locksFromProto(response.GetLocks())
	return lock.SetGrant{Locks: locks, Queued: response.GetQueued().AsDuration()}, err
}

// LockSetMessage is LockSet with the messages of the contract, for programs that show them.
func (c *Client) LockSetMessage(ctx context.Context, request *pylokv1.LockSetRequest) (*pylokv1.LockSetResponse, error) {
	return c.lockSet(ctx, proto.CloneOf(request))
}

// lockSet is LockSetMessage with a request that it may change.
func (c *Client) lockSet(ctx context.Context, request *pylokv1.LockSetRequest) (*pylokv1.LockSetResponse, error) {
	asked := request.GetNames()
	for _, choice := range request.GetChoices() {
		asked = append(asked[:len(asked):len(asked)], choice.GetNames()...)
	}
	var names []lock.Name
	for _, text := range asked {
		name, err := lock.ParseName(text)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, lock.Invalid("names", "a set needs at least one name or choice")
	}
	request.RequestId = cmp.Or(request.GetRequestId(), rand.Text())
	taking := &setTaking{c, names, request}
	response, again, err := c.sendSet(ctx, request)
	switch {
	case again && errors.Is(err, lock.ErrNotHolder): // it was granted, and a part of it is lost already
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		if taking.undoRest(ctx, err) != nil {
			err = taking.unknown(err)
		}
		return nil, err
	case err != nil:
		return nil, c.settle(ctx, taking, err)
	}
	return response, nil
}

// sendSet sends the request for a set, which has a request id, until it is answered, and
// says whether an earlier sending may have been carried out. It changes the request's wait.
func (c *Client) sendSet(ctx context.Context, request *pylokv1.LockSetRequest) (response *pylokv1.LockSetResponse, again bool, err error) {
	waitEnd := endOfWait(request)
	first := true
	err = c.retry(ctx, waitEnd, true, func(mayBeDone bool) (err error) {
		again = mayBeDone
		if !first && !request.GetWaitForever() {
			request.Wait = durationpb.New(max(time.Until(waitEnd), 0))
		}
		first = false
		response, err = c.service.LockSet(ctx, request)
		return err
	})
	return response, again, err
}

// UnlockSet ends several holds, as far as they still stand, in one step, and answers for
// each in name order: SetAnswer.Err is what Unlock would have returned. Where the answer
// was lost and a hold is found to be over, it is done, as for Unlock.
func (c *Client) UnlockSet(ctx context.Context, request lock.UnlockSetRequest) ([]lock.SetAnswer, error) {
	message := unlockSetMessage(request)
	var response *pylokv1.UnlockSetResponse
	mayBeDone := false
	err := c.retry(ctx, time.Time{}, true, func(again bool) (err error) {
		response, err = c.service.UnlockSet(ctx, message)
		mayBeDone = again
		return err
	})
	if err != nil {
		return nil, err
	}
	answers, err := answersFromProto(response.GetAnswers())
	for i, a := range answers {
		if mayBeDone && isOver(a.Err) {
			answers[i] = lock.SetAnswer{HoldRef: a.HoldRef, Lock: lock.Lock{Name: a.Name, Token: a.Token}}
		}
	}
	return answers, err
}

// RenewSet keeps several holds longer, and answers for each in name order: SetAnswer.Err is
// what Renew would have returned.
func (c *Client) RenewSet(ctx context.Context, request lock.RenewSetRequest) ([]lock.SetAnswer, error) {
	message, err := renewSetMessage(request)
	if err != nil {
		return nil, err
	}
	var response *pylokv1.RenewSetResponse
	err = c.retry(ctx, time.Time{}, true, func(bool) (err error) {
		response, err = c.service.RenewSet(ctx, message)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answersFromProto(response.GetAnswers())
}

// answerFor returns the answer for a hold, and an error if there is none.
func answerFor(answers []lock.SetAnswer, hold lock.HoldRef) (lock.SetAnswer, error) {
	for _, a := range answers {
		if a.HoldRef == hold {
			return a, a.Err
		}
	}
	return lock.SetAnswer{}, errNoAnswer
}

// errNoAnswer is of a server that leaves out a hold that it was asked about.
var errNoAnswer = errors.New("the server's answer says nothing of this hold")
