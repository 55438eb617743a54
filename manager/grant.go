package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pylok/pylok/lock"
)

// Lock grants a lock. A free one is granted at once, unless others wait for it, a tree covers
// it or shared holds of it stand. A held one is granted again to the RequestID and the caller
// that it was granted to, replaced where Overwrite or ReplaceStale allows it, and else waited
// for, first come, first served.
//
// A caller whose ctx has ended is never granted the lock; a grant whose caller
// leaves while it is being made durable is undone. A waiter whose grant the store cannot
// make for now (ErrReadOnly, ErrTooManyLocks) keeps its place, and is told so when its
// wait ends. Behind a store that hangs a request is answered with ErrReadOnly within a
// minute, and with ErrOutcomeUnknown where it was being granted the lock; a grant that
// then still comes about is undone.
//
// The errors are *Error with ErrLockHeld, ErrInvalidArgument, ErrDataTooLarge,
// ErrTooManyLocks, ErrTooManyWaiters, ErrReadOnly, ErrOutcomeUnknown or
// ErrShuttingDown, ctx's, and whatever the store comes upon.
func (m *Manager) Lock(ctx context.Context, caller lock.Caller, request lock.LockRequest) (lock.Grant, error) {
	request, err := m.checkLock(request)
	if err != nil {
		return lock.Grant{}, err
	}
	if request.Drain {
		if err := m.checkDrain(ctx, caller, &request); err != nil {
			return lock.Grant{}, err
		}
	}
	q, err := m.enter(ctx, request.Name)
	if err != nil {
		return lock.Grant{}, err
	}
	defer m.forget(q.alone...)
	grant, inLine, err := m.grantOrQueue(ctx, q, caller, request)
	if inLine == nil {
		return grant, err
	}
	locks, queued, err := m.await(inLine)
	if err == nil {
		err = m.tell(ctx, locks, caller.Actor(request.Holder), request.Confirm)
	}
	if err != nil {
		return lock.Grant{}, err
	}
	return lock.Grant{Lock: m.withHeldBelow(m.described(locks[0])), Queued: queued}, nil
}

// grantOrQueue is Lock up to where the request stands in line. The caller must hold the
// queue, which it passes on.
func (m *Manager) grantOrQueue(ctx context.Context, q *queue, caller lock.Caller, request lock.LockRequest) (lock.Grant, *call, error) {
	defer m.pass(q.alone...)
	if request.Shared {
		l, err := m.sharedAgain(ctx, q, caller, request.RequestID)
		if err != nil || l.Held() {
			return lock.Grant{Lock: l}, nil, err
		}
	}
	for {
		l, err := m.present(ctx, request.Name)
		if err != nil {
			return lock.Grant{}, nil, err
		}
		var notNow error // why those in line cannot be granted the free lock
		if !l.Held() {
			held, err := m.grantNext(q)
			if held {
				continue // it was free for those in line
			}
			notNow = err
		}
		isSame := !request.Shared && isAgain(l, caller, request.RequestID)
		isReplaced := !isSame && mayReplace(l, caller, &request)
		if isReplaced {
			if cover := m.cover(&request, q.name); cover != nil {
				return lock.Grant{}, nil, m.refusalOf(request.Name, cover, 0)
			}
		}
		switch {
		case isSame:
			m.adopt(l.Token)
			return lock.Grant{Lock: m.described(l)}, nil, nil

		case isReplaced, !l.Held() && notNow == nil && m.isClear(q, &request):
			broke, wasStale := l.Held() && !isOf(l, caller) && !l.Stale(), l.Stale()
			l, err := m.grant(ctx, q, caller, request, l)
			if errors.Is(err, lock.ErrConflict) {
				continue
			}
			if err == nil && ctx.Err() != nil {
				err = m.undo(ctx, q.alone, []lock.Lock{l}, caller.Actor(l.Holder))
				m.handOverSoon(q)
			}
			if err != nil {
				return lock.Grant{}, nil, err
			}
			return lock.Grant{Lock: m.described(l), Broke: broke, ReplacedStale: wasStale}, nil, nil

		case request.Wait == 0 && notNow != nil:
			return lock.Grant{}, nil, notNow

		case l.Held() && (request.Wait == 0 || request.RefuseManual && l.Manual()):
			return lock.Grant{}, nil, heldError(m.described(l), 0)
		}
		c, err := m.standInLine(ctx, caller, request, q.alone, nil)
		return lock.Grant{}, c, err
	}
}

// isAgain reports whether a hold is that of the caller's request, which was sent again.
func isAgain(l lock.Lock, caller lock.Caller, requestID string) bool {
	return l.Held() && requestID != "" && l.RequestID == requestID && l.Caller == caller.Owner() && !l.Stale()
}

// sharedAgain returns the shared hold of the caller's request, if that was sent again.
func (m *Manager) sharedAgain(ctx context.Context, q *queue, caller lock.Caller, requestID string) (lock.Lock, error) {
	if requestID == "" || m.special.Load() == 0 {
		return lock.Lock{}, nil
	}
	_, locks := m.store.List(ctx, q.name.Slots(), lock.Name{})
	for l, err := range locks {
		if err != nil {
			return lock.Lock{}, err
		}
		if isAgain(l, caller, requestID) {
			m.adopt(l.Token)
			return m.described(l), nil
		}
	}
	return lock.Lock{}, nil
}

// mayReplace reports whether a request replaces the hold l: to overwrite it, if it is
// anonymous or of the same holder, and no other caller's, unless the right to break holds
// lets it; or because it is stale and the request says that somebody has looked.
func mayReplace(l lock.Lock, caller lock.Caller, request *lock.LockRequest) bool {
	switch {
	case !l.Held():
		return false
	case request.ReplaceStale && l.Stale():
		return true
	}
	return request.Overwrite && (l.Holder == "" || l.Holder == request.Holder) && (isOf(l, caller) || request.MayBreak)
}

// cover is coverLocked for a request that has no place yet.
func (m *Manager) cover(request *lock.LockRequest, name lock.Name) *lock.Obstacle {
	if m.special.Load() == 0 || request.ThroughFreeze {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.coverLocked(nil, name)
}

// isClear reports whether a request for a free lock can be granted it at once: it is a plain
// one, and nothing else can be in the way. The caller must hold the queue.
func (m *Manager) isClear(q *queue, request *lock.LockRequest) bool {
	if request.Shared || request.Tree {
		return false
	}
	if q.length.Load() == 0 && m.special.Load() == 0 {
		return true // as a rule
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if request.ThroughFreeze && m.isBeingDrainedLocked(q.name) || !request.ThroughFreeze && m.coverLocked(nil, q.name) != nil {
		return false
	}
	return m.firstLocked(q, time.Now()) == nil && m.sharedLocked(q.name, 1) == 0
}

// standInLine gives the request a place in the lines of queues and has it decided, unless it
// could not be granted the locks anyway or too many wait. A request without a wait gets one
// too, until what is under way for the lock has ended. Who calls it ends by await what has
// begun here.
func (m *Manager) standInLine(ctx context.Context, caller lock.Caller, request lock.LockRequest, all []*queue, choices []choice) (*call, error) {
	w := &waiter{caller: caller, request: request, all: all, choices: choices, once: request.Wait == 0}
	queues := w.queues()
	if err := m.store.CheckSize(granting(caller, &request, longest(queues), lock.Lock{}).Lock); err != nil {
		return nil, err
	}
	c := &call{ctx: ctx, waiter: w, answer: make(chan answer, 1)}
	switch request.Wait {
	case 0:
		c.deadline = time.Now().Add(holdLimit)
	case lock.WaitForever:
	default:
		c.deadline = time.Now().Add(request.Wait)
	}
	if !w.once {
		c.bytes = bytesOf(caller, &request, queues)
	}
	if err := m.stand(c, queues); err != nil {
		return nil, err
	}
	m.walk(queues...)
	return c, nil
}

// longest returns the longest name of queues.
func longest(queues []*queue) (name lock.Name) {
	for _, q := range queues {
		if len(q.name.String()) > len(name.String()) {
			name = q.name
		}
	}
	return name
}

// stand gives a call its place: that of an earlier sending of the same request, else a new
// one at the end of the lines. An earlier sending is in line until its holds stand, so that
// one of a set is found in either place: errGranted says that it was in the other.
func (m *Manager) stand(c *call, queues []*queue) error {
	w := c.waiter
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running.Err() != nil {
		return shuttingDown()
	}
	for _, q := range queues {
		other := q.byRequest[w.key()]
		if w.request.RequestID == "" || other == nil {
			continue
		}
		if !other.wantsLike(w) {
			return lock.Invalid("request_id", fmt.Sprintf("the request %s waits already, for other locks: give each request an id of its own", lock.QuoteShort(w.request.RequestID)))
		}
		if w.once && !other.once && !other.granting {
			break // it is told at once what is in the way
		}
		if len(other.calls) >= maxCalls {
			return tooManyWaiters(fmt.Sprintf("the request %s waits for %s already and was sent %d times", lock.QuoteShort(w.request.RequestID), q.name, maxCalls))
		}
		if err := m.countLocked(c, queues); err != nil {
			return err
		}
		c.waiter = other
		other.calls = append(other.calls, c)
		return nil
	}
	if m.wasGrantedLocked(w) {
		return errGranted
	}
	if err := m.countLocked(c, queues); err != nil {
		return err
	}
	if w.request.RefuseManual {
		for _, q := range queues {
			if err := m.personAheadLocked(q); err != nil {
				m.uncountLocked(c)
				return err
			}
		}
	}
	w.calls = []*call{c}
	m.standLocked(w)
	if w.request.Drain {
		m.closeLocked(w)
	}
	return nil
}

// wantsLike reports whether a waiter wants the same locks as another.
func (w *waiter) wantsLike(other *waiter) bool {
	sameChoice := func(a, b choice) bool { return a.count == b.count && slices.Equal(a.queues, b.queues) }
	return slices.Equal(w.all, other.all) && slices.EqualFunc(w.choices, other.choices, sameChoice) && w.isSet() == other.isSet()
}

// personAheadLocked refuses who does not want to wait for a person because a request ahead in
// the line wants the lock without an end. The caller must hold mu.
func (m *Manager) personAheadLocked(q *queue) error {
	now := time.Now()
	for e := q.line.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		if r := &w.request; r.TTL == 0 && r.ExpireTime.IsZero() && w.alive(now) {
			return &lock.Error{
				Reason:  lock.ErrLockHeld,
				Message: fmt.Sprintf("%s waits for %s before this request and wants it without an end, and refuse_manual is set; nothing was waited for", describeWaiter(w).Who(), q.name),
			}
		}
	}
	return nil
}

// countLocked counts a call among those that wait, if there is room; leaveLine ends it. One
// that waits for no hold to end does not count. The caller must hold mu.
func (m *Manager) countLocked(c *call, queues []*queue) error {
	if c.waiter.once {
		return nil
	}
	for _, q := range queues {
		if q.waiting >= m.config.MaxWaiters {
			return tooManyWaiters(fmt.Sprintf("%s already has %d waiters, the most that may stand in line for one lock", q.name, q.waiting))
		}
	}
	switch {
	case m.waiting >= m.config.MaxWaitersTotal:
		return tooManyWaiters(fmt.Sprintf("%d requests wait for locks, the most that the server lets wait in all", m.waiting))
	case m.waitingBytes+c.bytes > m.config.MaxWaitingBytes:
		return tooManyWaiters(fmt.Sprintf("the requests that wait for locks have %d bytes of data, and with this one's they would be over the %d that the server keeps in all", m.waitingBytes, m.config.MaxWaitingBytes))
	}
	for _, q := range queues {
		q.waiting++
	}
	m.waiting++
	m.waitingBytes += c.bytes
	c.counted = queues
	return nil
}

// uncountLocked ends what countLocked has begun. The caller must hold mu.
func (m *Manager) uncountLocked(c *call) {
	if c.counted == nil {
		return
	}
	for _, q := range c.counted {
		q.waiting--
	}
	m.waiting--
	m.waitingBytes -= c.bytes
	c.counted = nil
}

// leaveLine is uncountLocked.
func (m *Manager) leaveLine(c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.uncountLocked(c)
}

// bytesOf is how many bytes a request keeps while it waits, about.
func bytesOf(caller lock.Caller, r *lock.LockRequest, queues []*queue) int {
	const spot = 64 // in a line
	n := r.Data.Size() + len(r.Holder) + len(r.RequestID) + len(r.Reason) + len(caller.Name)
	for i, q := range queues {
		n += len(q.name.String())
		if i > 0 {
			n += spot
		}
	}
	return n
}

// await waits for the answer to a call that stands in line, and returns the locks that it was
// granted and how long it waited.
func (m *Manager) await(c *call) ([]lock.Lock, time.Duration, error) {
	defer m.leaveLine(c)
	var ended <-chan time.Time // nil: it waits without an end
	if !c.deadline.IsZero() {
		timer := time.NewTimer(time.Until(c.deadline))
		defer timer.Stop()
		ended = timer.C
	}
	var err error
	select {
	case a := <-c.answer:
		return a.locks, a.queued, a.err
	case <-ended:
	case <-c.ctx.Done():
		err = c.ctx.Err()
	case <-m.running.Done():
		err = shuttingDown()
	}
	w := c.waiter
	if !m.withdraw(c) {
		a, ok := m.lateAnswer(c)
		if !ok {
			return nil, 0, &lock.Error{
				Reason:  lock.ErrOutcomeUnknown,
				Message: fmt.Sprintf("the wait ended while %s was being granted, and the grant has not ended for %v, maybe because the server's disk hangs; a grant that still comes about is undone. Ask again with the same request_id", w.what(), answerLimit),
				Err:     err,
			}
		}
		if a.err != errPutBack {
			return a.locks, a.queued, a.err
		}
	}
	if err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	obstacles := m.obstaclesLocked(w)
	m.mu.Unlock()
	if w.once && len(obstacles) == 0 {
		return nil, 0, stuck(longest(w.queues()))
	}
	return nil, 0, m.whyNot(w, obstacles)
}

// whyNot returns why a waiter is not granted what it wants: what the store cannot do for now,
// for it or for one ahead of it, if nothing is held that would be in the way besides; else
// the refusal because of obstacles.
func (m *Manager) whyNot(w *waiter, obstacles []obstacle) error {
	if len(obstacles) > 0 && obstacles[0].Kind != lock.ByWaiter {
		return m.refusal(w, obstacles)
	}
	m.mu.Lock()
	cause := w.again.cause
	m.mu.Unlock()
	for _, q := range w.queues() {
		if cause == nil {
			cause = m.notNow(q)
		}
	}
	if cause != nil {
		return cause
	}
	return m.refusal(w, obstacles)
}

// what says what a waiter waits for.
func (w *waiter) what() string {
	if !w.isSet() {
		return w.request.Name.String()
	}
	return fmt.Sprintf("a set of %d locks", len(w.queues()))
}

// answerLimit is how long a call whose wait has ended stays for the answer, when it is
// being granted the lock. The store alone can take so long.
const answerLimit = 5 * time.Second

// lateAnswer returns the answer to a call that withdrew while it was being granted the
// lock, if it comes in time; else the call is not granted the lock any more.
func (m *Manager) lateAnswer(c *call) (answer, bool) {
	timer := time.NewTimer(answerLimit)
	defer timer.Stop()
	select {
	case a := <-c.answer:
		return a, true
	case <-timer.C:
	}
	if m.abandon(c) {
		return answer{}, false
	}
	return <-c.answer, true
}

// granting is the change that grants a lock to the request, in place of the hold prev if
// there is one.
func granting(caller lock.Caller, r *lock.LockRequest, name lock.Name, prev lock.Lock) lock.Change {
	cause := lock.Request
	if prev.Held() && !isOf(prev, caller) && !prev.Stale() {
		cause = lock.Forced
	}
	return lock.Change{
		Type:   lock.Locked,
		Cause:  cause,
		Actor:  caller.Actor(r.Holder),
		Reason: r.Reason,
		Prev:   prev.Revision,
		Lock: lock.Lock{
			Name:       name,
			Data:       r.Data,
			Holder:     r.Holder,
			Caller:     caller.Owner(),
			TTL:        r.TTL,
			ExpireTime: r.ExpireTime,
			RequestID:  r.RequestID,
			Tree:       r.Tree,
			OnExpiry:   r.OnExpiry,
		},
	}
}

// grant commits a new hold for a request that did not stand in line, in place of the hold
// prev if there is one. The caller must hold the queue.
func (m *Manager) grant(ctx context.Context, q *queue, caller lock.Caller, request lock.LockRequest, prev lock.Lock) (lock.Lock, error) {
	change := granting(caller, &request, q.name, prev)
	var guards []lock.Guard
	if m.special.Load() > 0 {
		var err error
		m.mu.Lock()
		guards, err = m.guardsLocked(&request, q.name)
		change.Reason = m.throughLocked(&request, q.name)
		m.mu.Unlock()
		if err != nil {
			return lock.Lock{}, err
		}
	}
	events, err := m.commit(ctx, q.alone, nil, guards, change)
	if q.late != nil {
		q.late.untold = true
	}
	if err != nil {
		return lock.Lock{}, err
	}
	m.observe(events[0].Lock)
	return events[0].Lock, nil
}

// throughLocked returns the reason of a grant, which says so if it goes through a freeze. The
// caller must hold mu.
func (m *Manager) throughLocked(r *lock.LockRequest, names ...lock.Name) string {
	if !r.ThroughFreeze {
		return r.Reason
	}
	for _, name := range names {
		if cover := m.coverLocked(nil, name); cover != nil && cover.Kind == lock.ByTree {
			return fmt.Sprintf("through the freeze of %s: %s", cover.Lock.Name, r.Reason)
		}
	}
	return r.Reason
}

// grantNext grants a free lock to the first waiter who is still there, as far as a look at
// the lock alone decides that, and reports whether the lock is held now, if anybody was in
// line. An error means that the store cannot make the grant for now: those in line keep their
// places, and it is tried again. The caller must hold the queue.
func (m *Manager) grantNext(q *queue) (held bool, notNow error) {
	for q.length.Load() > 0 && m.running.Err() == nil && q.late == nil {
		l, err := m.present(context.Background(), q.name)
		if err == nil && l.Held() {
			return true, nil
		}
		w := m.next(q)
		if w == nil {
			break
		}
		queues := q.alone
		var locks []lock.Lock
		if err == nil {
			locks, err = m.grantAll(queues, w)
		} else {
			m.keepPlace(w, err)
		}
		switch {
		case q.late != nil:
			return false, stuck(q.name)
		case !staysInLine(w, err) && m.answer(queues, w, locks, err):
			return true, nil
		case forNow(err):
			return false, err
		}
	}
	return false, nil
}

// grantAll grants a waiter, who is granting, the locks of the queues, for a set those that
// were chosen. If that comes to nothing for now, the waiter keeps the place, also when the
// store panics. The caller must hold the queues.
func (m *Manager) grantAll(queues []*queue, w *waiter) (locks []lock.Lock, _ error) {
	outcome := error(lock.ErrConflict)
	defer func() {
		if !queues[0].isLateFor(w) {
			m.keepPlace(w, outcome)
		}
	}()
	changes, guards, err := m.grantsOf(queues, w)
	if err != nil {
		outcome = err
		return nil, err
	}
	events, err := m.commit(context.Background(), queues, w, guards, changes...)
	outcome = err
	if err != nil {
		return nil, err
	}
	for _, event := range events {
		m.observe(event.Lock)
		locks = append(locks, event.Lock)
	}
	return locks, nil
}

// grantsOf returns the changes that grant a waiter the locks of the queues, in the order of
// their names, and what has to stand besides.
func (m *Manager) grantsOf(queues []*queue, w *waiter) (changes []lock.Change, guards []lock.Guard, err error) {
	names := make([]lock.Name, len(queues))
	for i, q := range queues {
		names[i] = q.name
	}
	slices.SortFunc(names, lock.Name.Compare)
	reason := w.request.Reason
	if m.special.Load() > 0 {
		m.mu.Lock()
		guards, err = m.guardsLocked(&w.request, names...)
		reason = m.throughLocked(&w.request, names...)
		m.mu.Unlock()
		if err != nil {
			return nil, nil, err
		}
	}
	if w.request.Shared {
		m.mu.Lock()
		slot, err := m.freeSlotLocked(names[0])
		m.mu.Unlock()
		if err != nil {
			return nil, nil, err
		}
		guards = append(guards, lock.Guard{Name: names[0]}) // nobody has made its file meanwhile
		names[0] = slot
	}
	for _, name := range names {
		change := granting(w.caller, &w.request, name, lock.Lock{})
		change.Reason = reason
		if len(names) > 1 {
			change.Lock.Set.Size = len(names)
		}
		changes = append(changes, change)
	}
	return changes, guards, nil
}

// answer tells a waiter's callers what became of it, and reports whether the locks
// are now theirs. The caller must hold the queues.
func (m *Manager) answer(queues []*queue, w *waiter, locks []lock.Lock, err error) bool {
	callers := m.decide(w)
	if callers == 0 && err == nil {
		err = m.undo(w.calls[0].ctx, queues, locks, w.caller.Actor(w.request.Holder))
	}
	a := answer{err: err}
	if err == nil {
		m.deliver(locks[0].Token, callers)
		a.locks = locks
		if !w.once {
			a.queued = time.Since(w.since)
		}
	}
	for _, c := range w.calls {
		c.answer <- a
	}
	return err == nil
}

// queueOf returns the one of queues that a name's lock is decided in.
func queueOf(queues []*queue, name lock.Name) *queue {
	for _, q := range queues {
		if q.name == name.Base() {
			return q
		}
	}
	panic("manager: no queue is held for " + name.String())
}

// handOverSoon grants the lock to the next waiter in the background, when the queue is
// free.
func (m *Manager) handOverSoon(q *queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handOverSoonLocked(q)
}

// handOverSoonLocked is handOverSoon. The caller must hold mu.
func (m *Manager) handOverSoonLocked(q *queue) {
	if q.handingOver || m.running.Err() != nil || q.line.Len() == 0 {
		return
	}
	q.handingOver = true
	q.users++
	m.background.Go(func() {
		select {
		case <-q.sem:
		case <-m.running.Done():
			m.forget(q.alone...)
			return
		}
		m.mu.Lock()
		q.handingOver = false
		m.mu.Unlock()
		m.grantNext(q)
		m.leave(q.alone...)
	})
}
