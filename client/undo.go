package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// undoWithin is how long a call that its caller has given up may take to find out
// whether it took the lock, and to release it.
const undoWithin = 5 * time.Second

// undoTTL is the ttl of a hold that must not come about: one that is granted only
// because somebody asked what became of an earlier request.
const undoTTL = time.Second

// OutcomeUnknownError says that a request for a lock, or for a set, failed and that it may
// be held: the answer is lost and nobody could be asked for it, or what was granted could
// not be given back. It is a lock.ErrOutcomeUnknown.
type OutcomeUnknownError struct {
	// Name is the lock's; of a set, that of the first it asked for.
	Name lock.Name
	// Others are, for a set, all other names it asked for, those of its choices included.
	Others []lock.Name
	// RequestID is that of the request. Lock, or LockSet, with the same one returns what
	// is held if anything is, else it takes it.
	RequestID string
	// Err is why the request failed.
	Err error
}

// Error says what may be held and how to find out.
func (e *OutcomeUnknownError) Error() string {
	what := e.Name.String()
	if n := len(e.Others); n > 0 {
		what = fmt.Sprintf("the set of %s and %d more", what, n)
	}
	return fmt.Sprintf("%v; %s may be locked by this request, and asking again with its request id %q tells", e.Err, what, e.RequestID)
}

// Is makes it a lock.ErrOutcomeUnknown.
func (e *OutcomeUnknownError) Is(target error) bool { return target == lock.ErrOutcomeUnknown }

// Unwrap returns Err.
func (e *OutcomeUnknownError) Unwrap() error { return e.Err }

// taking is a request for a lock or for a set that has been sent.
type taking interface {
	// mayHold asks whether anything that the request may have taken is held by its holder,
	// so that nobody sees a free lock come and go for nothing.
	mayHold(ctx context.Context) (bool, error)
	// undo sends the request again, as one that does not wait and whose hold would end
	// soon, and gives back what the server says that it has taken.
	undo(ctx context.Context) error
	// unknown returns the error for a request that failed with err and may hold something.
	unknown(err error) error
}

// settle makes sure that a request that failed holds nothing, or that its error says that
// it may. A caller that has left is waited for no longer than undoWithin.
func (c *Client) settle(ctx context.Context, t taking, err error) error {
	_, ended := errors.AsType[*endedError](err)
	ended = ended || ctx.Err() != nil
	switch {
	case !isOutcomeUnknown(err):
		return err
	case ended || isFault(err):
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		if undo(ctx, t, err) == nil {
			return err
		}
	}
	return t.unknown(err)
}

// undo releases what a request that ended with err may have taken.
//
// The server knows a request that it has granted by its id, and is asked by sending it
// again. It is asked first whether the request's holder has the lock at all: a request
// whose caller the server knows to be gone is not granted any more. It knows that when the
// request was cancelled on a connection that goes on.
func undo(ctx context.Context, t taking, err error) error {
	if _, cutOff := errors.AsType[*UnreachableError](err); !cutOff {
		if held, err := t.mayHold(ctx); err != nil || !held {
			return err
		}
	}
	err = t.undo(ctx)
	if isAnswer(err) {
		return nil // it has no hold
	}
	return err
}

// lockTaking is a taking of one lock.
type lockTaking struct {
	client  *Client
	name    lock.Name
	request *pylokv1.LockRequest
}

func (t *lockTaking) mayHold(ctx context.Context) (bool, error) {
	if !t.request.GetShared() {
		return t.client.isHeldBy(ctx, t.name, t.request.GetHolder())
	}
	for slot, err := range t.client.List(ctx, t.name.Slots().String()) {
		if err != nil || slot.Holder == t.request.GetHolder() {
			return err == nil, err
		}
	}
	return false, nil
}

func (t *lockTaking) undo(ctx context.Context) error {
	response, err := t.client.send(ctx, &pylokv1.LockRequest{
		Name:      t.request.GetName(),
		Holder:    t.request.GetHolder(),
		Expiry:    &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(undoTTL)},
		RequestId: t.request.GetRequestId(),
		Shared:    t.request.GetShared(),
		Limit:     t.request.GetLimit(),
	})
	if err != nil {
		return err
	}
	l, err := lockFromProto(response.GetLock())
	if err != nil {
		return err
	}
	return t.client.abandon(ctx, l.Name, l.Token)
}

func (t *lockTaking) unknown(err error) error {
	return &OutcomeUnknownError{Name: t.name, RequestID: t.request.GetRequestId(), Err: err}
}

// isHeldBy asks whether a holder, or nobody who gave a name, has a lock.
func (c *Client) isHeldBy(ctx context.Context, name lock.Name, holder string) (bool, error) {
	present, err := c.Status(ctx, name.String())
	return err == nil && present.Held() && present.Holder == holder, err
}

// setTaking is a taking of a set.
type setTaking struct {
	client  *Client
	names   []lock.Name // all, those of the choices included
	request *pylokv1.LockSetRequest
}

// mayHold asks for one name that the set has if it has any, and where it has none, for
// each of a choice.
func (t *setTaking) mayHold(ctx context.Context) (bool, error) {
	ask := t.names[:1]
	if len(t.request.GetNames()) == 0 {
		ask = t.names[:len(t.request.GetChoices()[0].GetNames())]
	}
	for _, name := range ask {
		held, err := t.client.isHeldBy(ctx, name, t.request.GetHolder())
		if held || err != nil {
			return held, err
		}
	}
	return false, nil
}

func (t *setTaking) undo(ctx context.Context) error {
	response, _, err := t.client.sendSet(ctx, &pylokv1.LockSetRequest{
		Names:     t.request.GetNames(),
		Choices:   t.request.GetChoices(),
		Holder:    t.request.GetHolder(),
		Expiry:    &pylokv1.LockSetRequest_Ttl{Ttl: durationpb.New(undoTTL)},
		RequestId: t.request.GetRequestId(),
	})
	if errors.Is(err, lock.ErrNotHolder) {
		return t.undoRest(ctx, err)
	}
	if err != nil {
		return err
	}
	locks, err := locksFromProto(response.GetLocks())
	if err != nil {
		return err
	}
	return t.client.abandonSet(ctx, locks)
}

// undoRest gives back what is left of a set that was granted and does not stand as a whole
// any more, as the refusal says.
func (t *setTaking) undoRest(ctx context.Context, err error) error {
	refusal, ok := errors.AsType[*lock.Error](err)
	if !ok || refusal.Lock == nil || refusal.Lock.Set.ID == 0 || refusal.Lock.Holder != t.request.GetHolder() {
		return errors.New("the server does not say what is left of the set")
	}
	_, err = t.client.UnlockSet(ctx, lock.UnlockSetRequest{
		Set:    refusal.Lock.Set.ID,
		Holder: t.request.GetHolder(),
		Reason: reasonLeft,
	})
	return err
}

func (t *setTaking) unknown(err error) error {
	return &OutcomeUnknownError{Name: t.names[0], Others: t.names[1:], RequestID: t.request.GetRequestId(), Err: err}
}

// reasonLeft is why a hold is released that nobody will get to see.
const reasonLeft = "the caller left before it could use the lock"

// abandon releases a hold that nobody will get to see.
func (c *Client) abandon(ctx context.Context, name lock.Name, token lock.Token) error {
	_, err := c.Unlock(ctx, lock.UnlockRequest{Name: name, Token: token, Reason: reasonLeft})
	if isOver(err) {
		return nil
	}
	return err
}

// abandonSet is abandon for the holds of a set.
func (c *Client) abandonSet(ctx context.Context, locks []lock.Lock) error {
	answers, err := c.UnlockSet(ctx, lock.UnlockSetRequest{Holds: holdsOf(locks), Reason: reasonLeft})
	for _, a := range answers {
		if err == nil && !isOver(a.Err) {
			err = a.Err
		}
	}
	return err
}

// holdsOf returns the holds that locks are.
func holdsOf(locks []lock.Lock) (holds []lock.HoldRef) {
	for _, l := range locks {
		holds = append(holds, lock.HoldRef{Name: l.Name, Token: l.Token})
	}
	return holds
}
