package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// HandOver has a hold go on under another holder, without a gap; the answer has the new
// holder's token, and the old one is refused from then on. A Hold that has it is lost, and
// its LostError.To says to whom. An empty RequestID is filled in, so that the request can
// be sent again. NoTree is for the server to say and not sent.
func (c *Client) HandOver(ctx context.Context, request lock.HandOverRequest) (lock.HandOverAnswer, error) {
	request.RequestID = cmp.Or(request.RequestID, rand.Text())
	message, err := handOverMessage(request)
	if err != nil {
		return lock.HandOverAnswer{}, err
	}
	var response *pylokv1.HandOverResponse
	err = c.retry(ctx, time.Time{}, true, func(bool) (err error) {
		response, err = c.service.HandOver(ctx, message)
		return err
	})
	if err != nil {
		return lock.HandOverAnswer{}, err
	}
	l, err := lockFromProto(response.GetLock())
	return lock.HandOverAnswer{Lock: l, Warnings: response.GetWarnings()}, err
}

// Ask asks the holder of a lock to let go. It is sent again only if it certainly never
// arrived, lest the holder is asked twice.
func (c *Client) Ask(ctx context.Context, request lock.AskRequest) (lock.AskAnswer, error) {
	message := &pylokv1.AskRequest{
		Name:    request.Name.String(),
		Token:   uint64(request.Token),
		Message: request.Message,
		Holder:  request.Holder,
	}
	var response *pylokv1.AskResponse
	err := c.retry(ctx, time.Time{}, false, func(bool) (err error) {
		response, err = c.service.Ask(ctx, message)
		return err
	})
	if err != nil {
		return lock.AskAnswer{}, err
	}
	l, err := lockFromProto(response.GetLock())
	return lock.AskAnswer{Lock: l, Heard: response.GetHeard()}, err
}

// Dismiss puts a waiter out of the line, and returns it as it was. Where the answer was
// lost and nobody waits at that place, it is done: then nothing but the place is known.
func (c *Client) Dismiss(ctx context.Context, request lock.DismissRequest) (lock.Waiter, error) {
	message := &pylokv1.DismissRequest{
		Name:   request.Name.String(),
		Place:  request.Place,
		Holder: request.Holder,
		Reason: request.Reason,
	}
	var response *pylokv1.DismissResponse
	err := c.retry(ctx, time.Time{}, true, func(again bool) (err error) {
		response, err = c.service.Dismiss(ctx, message)
		if again && isOver(err) {
			response, err = &pylokv1.DismissResponse{Waiter: &pylokv1.Waiter{Place: request.Place}}, nil
		}
		return err
	})
	if err != nil {
		return lock.Waiter{}, err
	}
	return waiterFromProto(response.GetWaiter())
}
