package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// pageSize is how many locks or events are asked for at a time: the most.
const pageSize = 1000

// Info describes a server, and whom it takes you for.
type Info struct {
	// Version is that of the server program.
	Version string
	// Root is the absolute path of the directory with the lock files; empty when
	// the server keeps no files.
	Root string
	// Store is a word for what keeps the locks, such as file or memory.
	Store string
	// Revision is that of the last change.
	Revision lock.Revision
	// StartTime is when the server started, by its clock.
	StartTime time.Time
	// Caller is who the server says that you are: the authenticated name. Anonymous, or
	// empty: you proved nothing.
	Caller string
	// Proof is how the name was proved: socket, token, oidc or certificate; empty: not at
	// all.
	Proof string
	// Groups are those that the server's access file puts you in, sorted.
	Groups []string
	// Features is what the server can do that older ones cannot, sorted: ask, dismiss,
	// hand-over, keep, set, shared and tree.
	Features []string
}

// Lock takes a lock; it is the call underneath Acquire, for holds that are not to be
// renewed from here. An empty RequestID is filled in. The wait counts from now, also
// when the request is sent again, which it is until its end; Grant.Queued is that of the sending that was
// answered. Actor is for the server to say and not sent.
//
// A call that returns an error holds nothing: where ctx ends and the lock may have
// been granted at that moment, the server is asked, and the hold released, for up to
// 5 s. Where the server gives no answer, the error is an *OutcomeUnknownError: then the
// lock may be held.
func (c *Client) Lock(ctx context.Context, request lock.LockRequest) (lock.Grant, error) {
	message, err := lockMessage(request)
	if err != nil {
		return lock.Grant{}, err
	}
	response, err := c.lock(ctx, request.Name, message)
	if err != nil {
		return lock.Grant{}, err
	}
	l, err := lockFromProto(response.GetLock())
	return lock.Grant{Lock: l, Queued: response.GetQueued().AsDuration()}, err
}

// LockMessage is Lock with the messages of the contract, for programs that show them.
func (c *Client) LockMessage(ctx context.Context, request *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	name, err := lock.ParseName(request.GetName())
	if err != nil {
		return nil, err
	}
	return c.lock(ctx, name, proto.CloneOf(request))
}

// lock is LockMessage with a request that it may change.
func (c *Client) lock(ctx context.Context, name lock.Name, request *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	request.RequestId = cmp.Or(request.GetRequestId(), rand.Text())
	response, err := c.send(ctx, request)
	switch {
	case errors.Is(err, lock.ErrLockHeld) && request.GetWaitForever():
		return nil, c.refusedForever(ctx, err)
	case err != nil:
		return nil, c.settle(ctx, &lockTaking{c, name, request}, err)
	}
	return response, c.checkEcho(ctx, name, request, response.GetLock())
}

// send sends the request for a lock, which has a request id, until it is answered. It
// changes the request's wait.
func (c *Client) send(ctx context.Context, request *pylokv1.LockRequest) (response *pylokv1.LockResponse, err error) {
	waitEnd := endOfWait(request)
	first := true // as it was asked for, lest a refusal speaks of another wait
	err = c.retry(ctx, waitEnd, true, func(bool) (err error) {
		if !first && !request.GetWaitForever() {
			request.Wait = durationpb.New(max(time.Until(waitEnd), 0))
		}
		first = false
		response, err = c.service.Lock(ctx, request)
		return err
	})
	return response, err
}

// waiting is a request that may stand in line.
type waiting interface {
	GetWait() *durationpb.Duration
	GetWaitForever() bool
}

// endOfWait returns when the wait of a request that is sent now is over.
func endOfWait(request waiting) time.Time {
	if request.GetWaitForever() {
		return time.Now().Add(lock.WaitForever)
	}
	return time.Now().Add(request.GetWait().AsDuration())
}

// Unlock ends a hold: with the request's Token exactly that one, and so never that of
// another job of the same Holder. Where the answer was lost and the hold of the request's Token is
// found to be over, it is done: then nothing but the name and the token of Release.Lock
// is known. Actor is for the server to say and not sent.
func (c *Client) Unlock(ctx context.Context, request lock.UnlockRequest) (lock.Release, error) {
	message := unlockMessage(request)
	var response *pylokv1.UnlockResponse
	err := c.retry(ctx, time.Time{}, request.Token != 0, func(again bool) (err error) {
		response, err = c.service.Unlock(ctx, message)
		if again && isOver(err) {
			response, err = nil, nil
		}
		return err
	})
	if err != nil {
		return lock.Release{}, err
	}
	if response == nil {
		return lock.Release{Lock: lock.Lock{Name: request.Name, Token: request.Token}}, nil
	}
	return releaseFromProto(response)
}

// Renew keeps a hold longer, or changes its data. lock.ErrNotHolder and
// lock.ErrNotLocked mean that the hold is over. Actor is for the server to say and not
// sent.
func (c *Client) Renew(ctx context.Context, request lock.RenewRequest) (lock.Lock, error) {
	message, err := renewMessage(request)
	if err != nil {
		return lock.Lock{}, err
	}
	var response *pylokv1.RenewResponse
	err = c.retry(ctx, time.Time{}, true, func(bool) (err error) {
		response, err = c.service.Renew(ctx, message)
		return err
	})
	if err != nil {
		return lock.Lock{}, err
	}
	return lockFromProto(response.GetLock())
}

// Status returns a lock as it stands. One that is free has only its name.
func (c *Client) Status(ctx context.Context, name string) (lock.Lock, error) {
	var response *pylokv1.StatusResponse
	err := c.retry(ctx, time.Time{}, true, func(bool) (err error) {
		response, err = c.service.Status(ctx, &pylokv1.StatusRequest{Name: name})
		return err
	})
	if err != nil {
		return lock.Lock{}, err
	}
	return lockFromProto(response.GetLock())
}

// List yields the held locks that a pattern selects, in name order, page by page: a
// lock that is taken or released meanwhile may be there or not. A sequence that yields
// an error ends with it.
func (c *Client) List(ctx context.Context, pattern string) iter.Seq2[lock.Lock, error] {
	return pages(func(token string) (page []*pylokv1.Lock, next string, err error) {
		err = c.retry(ctx, time.Time{}, true, func(bool) error {
			response, err := c.service.List(ctx, &pylokv1.ListRequest{Pattern: pattern, PageSize: pageSize, PageToken: token})
			page, next = response.GetLocks(), response.GetNextPageToken()
			return err
		})
		return page, next, err
	}, lockFromProto)
}

// History yields the past changes that q asks for, as far back as they are kept. A
// sequence that yields an error ends with it.
func (c *Client) History(ctx context.Context, q lock.HistoryQuery) iter.Seq2[lock.Event, error] {
	return pages(func(token string) (page []*pylokv1.Event, next string, err error) {
		request := historyMessage(q)
		request.PageSize, request.PageToken = pageSize, token
		err = c.retry(ctx, time.Time{}, true, func(bool) error {
			response, err := c.service.History(ctx, request)
			page, next = response.GetEvents(), response.GetNextPageToken()
			return err
		})
		return page, next, err
	}, eventFromProto)
}

// pages yields what is on the pages that read returns, until there is no next one.
func pages[M, T any](read func(token string) (page []M, next string, err error), convert func(M) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for token := ""; ; {
			page, next, err := read(token)
			if err != nil {
				yield(none, err)
				return
			}
			for _, message := range page {
				entry, err := convert(message)
				if !yield(entry, err) || err != nil {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}

// Info describes the server.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var response *pylokv1.InfoResponse
	err := c.retry(ctx, time.Time{}, true, func(bool) (err error) {
		response, err = c.service.Info(ctx, &pylokv1.InfoRequest{})
		return err
	})
	if err != nil {
		return Info{}, err
	}
	return Info{
		Version:   response.GetVersion(),
		Root:      response.GetRoot(),
		Store:     response.GetStore(),
		Revision:  lock.Revision(response.GetRevision()),
		StartTime: timeFromProto(response.GetStartTime()),
		Caller:    response.GetCaller(),
		Proof:     response.GetProof(),
		Groups:    response.GetGroups(),
		Features:  response.GetFeatures(),
	}, nil
}
