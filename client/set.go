package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// Set is some Holds that AcquireSet took together, one of each lock. Each is a Hold like
// any other; what the Set adds is that they are renewed by one call and released by one.
// Every method may be called from many goroutines at once.
type Set struct {
	client *Client
	holds  []*Hold       // in name order
	life   time.Duration // as of each hold

	context    context.Context // until the first hold is lost, or the Set is released
	cancel     context.CancelCauseFunc
	keeping    context.Context // until all holds are over
	stop       context.CancelFunc
	background sync.WaitGroup

	mu       sync.Mutex
	standing int   // how many holds are not over
	untold   int   // how many are neither lost nor known to the server to be released
	first    *Hold // the first that was lost
	released bool  // each has been released
	warned   bool  // of a trouble that goes on
	asked    chan Ask
	atRisk   chan error
}

// WithChoice has AcquireSet take count of some names too, whichever are free first: a pool.
// It may be given several times.
func WithChoice(count int, names ...string) AcquireOption {
	return func(a *acquisition) { a.choices = append(a.choices, choice{count, names}) }
}

// AcquireSet takes several locks, all of names and some of each WithChoice, at most 64
// names together: all that it wants or none, in one step. What the options say counts for
// each hold. It keeps them as Acquire keeps one, and what is said there of ctx, of errors
// and of a caller that leaves is so here too.
//
//	set, err := c.AcquireSet(ctx, []string{"db/a", "db/b"}, client.WithWait(time.Minute))
//	slot, err := c.AcquireSet(ctx, nil, client.WithChoice(1, "patch/slot-1", "patch/slot-2"))
func (c *Client) AcquireSet(ctx context.Context, names []string, options ...AcquireOption) (*Set, error) {
	a, margin, err := newAcquisition(options)
	if err != nil {
		return nil, err
	}
	request, err := a.setRequest(names)
	if err != nil {
		return nil, err
	}
	begun := c.boottime()
	grant, err := c.LockSet(ctx, request)
	if err != nil {
		return nil, err
	}
	locks := grant.Locks
	abandoned := func(err error) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		if c.abandonSet(ctx, locks) != nil {
			unknown := &OutcomeUnknownError{RequestID: a.RequestID, Err: err}
			for i, l := range locks {
				if i == 0 {
					unknown.Name = l.Name
				} else {
					unknown.Others = append(unknown.Others, l.Name)
				}
			}
			return unknown
		}
		return err
	}
	if a.TTL > 0 && c.boottime()-begun >= (a.TTL-margin)/renewals {
		// As in Acquire: begin the leases anew.
		begun = c.boottime()
		answers, err := c.RenewSet(ctx, lock.RenewSetRequest{Holds: holdsOf(locks), TTL: a.TTL})
		if err != nil {
			return nil, abandoned(err)
		}
		for i, hold := range holdsOf(locks) {
			answer, err := answerFor(answers, hold)
			if isOver(err) {
				err = lostBy(hold, err)
			}
			if err != nil {
				return nil, abandoned(err)
			}
			locks[i] = answer.Lock
		}
	}
	set := newSet(ctx, c, locks, a.TTL, margin, begun)
	if !c.keeper.keep(set) {
		for _, hold := range set.holds {
			hold.end(errClosed)
		}
		set.wait()
		return nil, abandoned(errClosed)
	}
	set.mu.Lock()
	over := set.untold == 0 // before it was kept
	set.mu.Unlock()
	if over {
		c.keeper.forget(set)
	}
	return set, nil
}

// setRequest makes the request for a set of names.
func (a *acquisition) setRequest(names []string) (lock.SetRequest, error) {
	switch {
	case a.Shared:
		return lock.SetRequest{}, lock.Invalid("shared", "a set has no shared holds; use Acquire for each")
	case a.Tree:
		return lock.SetRequest{}, lock.Invalid("tree", "a set has no trees; use Acquire for each")
	case a.ReplaceStale:
		return lock.SetRequest{}, lock.Invalid("replace_stale", "a set replaces no stale hold; end it with Unlock before")
	}
	request := lock.SetRequest{
		Data: a.Data, Holder: a.Holder, TTL: a.TTL, Wait: a.Wait, RequestID: a.RequestID,
		ThroughFreeze: a.ThroughFreeze, Reason: a.Reason, OnExpiry: a.OnExpiry, RefuseManual: a.RefuseManual,
	}
	var err error
	if request.Names, err = parseNames(names); err != nil {
		return lock.SetRequest{}, err
	}
	for _, choice := range a.choices {
		names, err := parseNames(choice.names)
		if err != nil {
			return lock.SetRequest{}, err
		}
		request.Choices = append(request.Choices, lock.Choice{Names: names, Count: choice.count})
	}
	return request, nil
}

func parseNames(texts []string) (names []lock.Name, err error) {
	for _, text := range texts {
		name, err := lock.ParseName(text)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// newSet keeps locks as newHold keeps one.
func newSet(ctx context.Context, c *Client, locks []lock.Lock, ttl, margin, renewed time.Duration) *Set {
	s := &Set{
		client: c, life: ttl - margin, standing: len(locks), untold: len(locks),
		asked: make(chan Ask, maxAsks), atRisk: make(chan error, 1),
	}
	s.context, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.keeping, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	for _, l := range locks {
		s.holds = append(s.holds, newHold(ctx, c, l, ttl, margin, renewed, s))
	}
	if ttl > 0 {
		s.background.Go(s.renewAlways)
	}
	return s
}

// Holds returns the Holds of the Set, in name order, those that are over too. Each has its
// token, its data and its end, and may be updated and released by itself.
func (s *Set) Holds() []*Hold { return slices.Clone(s.holds) }

// Context returns the context of the Set. It ends when the first of the holds is lost, or
// with Release, and then context.Cause says why: a *LostError, which names the lock, or
// ErrReleased. A hold that was released by itself does not end it, unless it was the last.
// In all else it is as Hold.Context.
//
// The other holds stay, and are renewed, until Release, so that nobody else gets them while
// the work comes to its end.
func (s *Set) Context() context.Context { return s.context }

// Bind returns the context for the work that the locks protect, as Hold.Bind does.
func (s *Set) Bind(ctx context.Context) (work context.Context, cancel context.CancelFunc) {
	return bind(ctx, s.context)
}

// Done is closed when the Context ends.
func (s *Set) Done() <-chan struct{} { return s.context.Done() }

// Err returns nil while no hold is lost, then why the first one is, a *LostError, and
// ErrReleased when the Set was released before. Like Hold.Err it looks at the clock.
func (s *Set) Err() error {
	for _, hold := range s.holds {
		hold.Err() // ends it if its time is over
	}
	s.mu.Lock()
	first, released := s.first, s.released
	s.mu.Unlock()
	switch {
	case first != nil:
		return first.why()
	case released:
		return ErrReleased
	}
	return nil
}

// Lost returns why holds are over that were not released, in name order: nil if all stand
// or were released.
func (s *Set) Lost() (all []*LostError) {
	for _, hold := range s.holds {
		if lost, ok := errors.AsType[*LostError](hold.Err()); ok {
			all = append(all, lost)
		}
	}
	return all
}

// Asked returns the channel on which the Set tells what is asked of any of its Holds, each
// of which tells it too. It is as Hold.Asked, and closed when all holds are over.
func (s *Set) Asked() <-chan Ask { return s.asked }

// AtRisk returns the channel on which the Set warns before a loss: as Hold.AtRisk, once
// until all holds that stand are renewed again. It is closed when all holds are over.
func (s *Set) AtRisk() <-chan error { return s.atRisk }

// Release ends what stands of the Set in one step, as Hold.Release ends a hold. It returns
// nil if that was all of it, or had been released before; else the *LostError of each hold
// that was lost, joined, and, as Hold.Release does, what the server could not be told.
func (s *Set) Release(ctx context.Context, options ...ReleaseOption) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer cancel()
	lost, err := s.release(ctx, options...)
	if lost == nil || err == nil {
		return cmp.Or(lost, err)
	}
	return errors.Join(lost, err)
}

// release is Release for as long as ctx goes on. It returns apart what was lost and what
// may stay locked.
func (s *Set) release(ctx context.Context, options ...ReleaseOption) (lost, err error) {
	for _, hold := range s.holds {
		if hold.Err() == nil {
			hold.end(ErrReleased)
		}
	}
	s.wait()
	request := lock.UnlockRequest{}
	for _, option := range options {
		option(&request)
	}
	message := lock.UnlockSetRequest{Reason: request.Reason, Data: request.Data}
	var ending []*Hold
	var all, failures []error
	for _, hold := range s.holds {
		hold.releasing.Lock()
		defer hold.releasing.Unlock()
		switch {
		case !errors.Is(hold.why(), ErrReleased):
			all = append(all, hold.why())
		case !hold.released:
			ending = append(ending, hold)
			message.Holds = append(message.Holds, hold.ref())
		}
	}
	if len(ending) == 0 {
		return joined(all), nil
	}
	answers, unsent := s.client.UnlockSet(ctx, message)
	for _, hold := range ending {
		answer := unsent
		if unsent == nil {
			_, answer = answerFor(answers, hold.ref())
		}
		lost, err := hold.unlocked(answer)
		if lost != nil {
			all = append(all, lost)
		}
		if err != nil {
			failures = append(failures, err)
		}
	}
	if more := len(failures) - 1; unsent != nil && more > 0 {
		failures = []error{fmt.Errorf("%w; and so may %d more", failures[0], more)}
	}
	return joined(all), joined(failures)
}

// joined returns one error as it is, and several as errors.Join does.
func joined(all []error) error {
	if len(all) == 1 {
		return all[0]
	}
	return errors.Join(all...)
}

// wait waits for what goes on in the background, when all holds are over.
func (s *Set) wait() {
	s.background.Wait()
	for _, hold := range s.holds {
		hold.background.Wait()
	}
}

// ended notes that a hold is over. It is told of each once.
func (s *Set) ended(hold *Hold, why error) {
	s.mu.Lock()
	s.standing--
	if s.first == nil && errors.Is(why, ErrLost) {
		s.first = hold
		s.cancel(why)
	}
	if s.standing == 0 {
		s.released = s.first == nil
		s.cancel(why) // unless one was lost
		s.stop()
		close(s.asked)
		close(s.atRisk)
	}
	s.mu.Unlock()
}

// forget notes that there is nothing to release of one more hold.
func (s *Set) forget() {
	s.mu.Lock()
	s.untold--
	none := s.untold == 0
	s.mu.Unlock()
	if none {
		s.client.keeper.forget(s)
	}
}

// hear tells who receives of something that was asked.
func (s *Set) hear(ask Ask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.standing > 0 {
		push(s.asked, ask)
	}
}

// warn tells who receives of a hold that may be lost, once in a trouble.
func (s *Set) warn(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.standing > 0 && !s.warned {
		s.warned = true
		push(s.atRisk, why)
	}
}

// renewAlways renews the holds that stand until all are over.
func (s *Set) renewAlways() {
	for {
		var standing []*Hold
		next := time.Duration(1<<63 - 1)
		for _, hold := range s.holds {
			if hold.Err() == nil {
				standing = append(standing, hold)
				next = min(next, hold.leftOf(s.life/renewals))
			}
		}
		switch {
		case len(standing) == 0:
			return
		case next > 0:
			sleep(s.keeping, min(next, clockCheck))
		case !s.renew(standing):
			sleep(s.keeping, afterFailure(s.life))
		}
	}
}

// renew asks once for a renewal of some holds, and reports whether the server has answered
// for each, be it that it is over.
func (s *Set) renew(holds []*Hold) bool {
	request := lock.RenewSetRequest{TTL: holds[0].ttl}
	for _, hold := range holds {
		request.Holds = append(request.Holds, hold.ref())
	}
	var answers []lock.SetAnswer
	message, err := renewSetMessage(request)
	begun := s.client.boottime()
	if err == nil {
		var response *pylokv1.RenewSetResponse
		err = s.client.within(s.keeping, s.life/renewals, func(ctx context.Context) (err error) {
			response, err = s.client.service.RenewSet(ctx, message, grpc.WaitForReady(true))
			return err
		})
		if err == nil {
			answers, err = answersFromProto(response.GetAnswers())
		}
	}
	all := true
	for _, hold := range holds {
		answer, why := lock.SetAnswer{}, err
		if err == nil {
			answer, why = answerFor(answers, hold.ref())
		}
		switch {
		case why == nil:
			hold.begin(begun, answer.Lock)
		case isOver(why):
			s.background.Go(func() { hold.refused(why) })
		default:
			hold.failed(why)
			all = false
		}
	}
	if all {
		s.mu.Lock()
		s.warned = false
		s.mu.Unlock()
	}
	return all
}
