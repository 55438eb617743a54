package lock

import (
	"container/heap"
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

const (
	// leaseCheck is how often the clocks are looked at while there are
	// leases: a wake from suspend, or a wall clock that was set, shows within
	// that time.
	leaseCheck = 100 * time.Millisecond
	// leaseRetry is how soon a lease is tried again that could not be ended.
	leaseRetry = time.Second
	// mostLeaseRetry is to what the pause grows, each time twice as long, where it
	// is the lock's file that cannot be changed: that is for people to mend.
	mostLeaseRetry = time.Minute
	// expiries is how many leases are ended at the same time, so that they
	// share the store's syncs.
	expiries = 256
)

// lease is the end of one hold.
type lease struct {
	name       Name
	token      Token
	revision   Revision      // of the lock when the terms were taken from it
	ttl        time.Duration // as committed; with ttl, end is on the boot clock
	expireTime time.Time     // as committed
	end        time.Duration // on the boot clock, or since the Unix epoch
	index      int           // in its heap; -1: taken out to be ended

	// Only who ends it uses these.
	pause  time.Duration // before it is tried again
	failed string        // why it could not be ended, as it was logged last
}

// leaseTable knows when holds end. Ttls run on the boot clock, which counts
// suspend and nobody sets; expire times are wall time. Each has its own heap.
type leaseTable struct {
	boottime func() time.Duration
	wake     chan struct{} // has an element when the next end may be sooner

	mu     sync.Mutex
	byName map[Name]*lease
	boot   leaseHeap
	wall   leaseHeap

	read    time.Duration // the last reading of the boot clock
	looking bool          // run looks again within leaseCheck
}

func newLeaseTable(boottime func() time.Duration) *leaseTable {
	return &leaseTable{
		boottime: boottime,
		wake:     make(chan struct{}, 1),
		byName:   make(map[Name]*lease),
	}
}

// observe takes note of a hold as it was committed. It begins a lease for a new
// hold or new terms and leaves one that runs alone. What it is told may be late: an
// older revision than the lease's says nothing, nor does the same one, whose terms
// may have been extended since.
func (lt *leaseTable) observe(l Lock) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	lt.note(l)
}

// follow is observe and drop for changes that were made, one after the other.
func (lt *leaseTable) follow(events []Event) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	for _, e := range events {
		if e.Type == Unlocked {
			lt.forget(e.Lock.Name, e.Lock.Token)
		} else {
			lt.note(e.Lock)
		}
	}
}

// note is observe for who has lt.mu.
func (lt *leaseTable) note(l Lock) {
	have := lt.byName[l.Name]
	if have != nil {
		if have.revision >= l.Revision {
			return
		}
		if have.token == l.Token && have.sameTerms(l) {
			have.revision = l.Revision
			return
		}
	}
	lt.begin(have, l)
}

// renew begins the lease of a hold anew, unless another hold has come meanwhile.
func (lt *leaseTable) renew(l Lock) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	have := lt.byName[l.Name]
	if have != nil && have.token > l.Token {
		return
	}
	lt.begin(have, l)
}

// sameTerms reports whether the lease is on the terms that the hold stands on.
func (l *lease) sameTerms(hold Lock) bool {
	return l.ttl == hold.TTL && l.expireTime.Equal(hold.ExpireTime)
}

// begin replaces have, which may be nil, by the lease of l, if it has one, from now on.
func (lt *leaseTable) begin(have *lease, l Lock) {
	if l.TTL == 0 && l.ExpireTime.IsZero() {
		if have != nil {
			lt.remove(have)
		}
		return
	}
	if have == nil || have.index < 0 || (have.ttl == 0) != (l.TTL == 0) {
		if have != nil {
			lt.remove(have)
		}
		have = &lease{name: l.Name, index: -1}
		lt.byName[l.Name] = have
	}
	have.token, have.revision, have.ttl, have.expireTime = l.Token, l.Revision, l.TTL, l.ExpireTime
	if l.TTL != 0 {
		have.end = lt.readBoot() + l.TTL
	} else {
		have.end = sinceEpoch(l.ExpireTime)
	}
	h := lt.heapOf(have)
	if have.index < 0 {
		heap.Push(h, have)
	} else {
		heap.Fix(h, have.index)
	}
	lt.wakeFor(have)
}

// readBoot reads the boot clock.
func (lt *leaseTable) readBoot() time.Duration {
	lt.read = lt.boottime()
	return lt.read
}

// wakeFor wakes run if the lease is the next to end, unless run looks in time anyway.
func (lt *leaseTable) wakeFor(l *lease) {
	if l.index != 0 || lt.looking && l.ttl != 0 && l.end-lt.read >= leaseCheck {
		return
	}
	select {
	case lt.wake <- struct{}{}:
	default:
	}
}

// sinceEpoch is the time since the Unix epoch, or the most that a Duration can say:
// UnixNano does not reach past the year 2262.
func sinceEpoch(t time.Time) time.Duration {
	switch seconds := t.Unix(); {
	case seconds < 0:
		return 0
	case seconds >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return time.Duration(t.UnixNano())
}

// drop ends the lease of a hold that is over.
func (lt *leaseTable) drop(name Name, token Token) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	lt.forget(name, token)
}

func (lt *leaseTable) forget(name Name, token Token) {
	if have := lt.byName[name]; have != nil && have.token <= token {
		lt.remove(have)
	}
}

func (lt *leaseTable) remove(have *lease) {
	if have.index >= 0 {
		heap.Remove(lt.heapOf(have), have.index)
		have.index = -1
	}
	delete(lt.byName, have.name)
}

func (lt *leaseTable) heapOf(l *lease) *leaseHeap {
	if l.ttl != 0 {
		return &lt.boot
	}
	return &lt.wall
}

// due reports whether the hold's end has come, by the terms that it stands on.
func (lt *leaseTable) due(l Lock) bool {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	have := lt.byName[l.Name]
	return have != nil && have.token == l.Token && have.sameTerms(l) && lt.left(have) <= 0
}

// left returns how long the lease has to go.
func (lt *leaseTable) left(l *lease) time.Duration {
	if l.ttl != 0 {
		return l.end - lt.readBoot()
	}
	return l.end - time.Duration(time.Now().UnixNano())
}

// deadline returns when the hold ends, in wall time, or the zero time.
func (lt *leaseTable) deadline(l Lock) time.Time {
	if l.TTL == 0 {
		return l.ExpireTime
	}
	lt.mu.Lock()
	defer lt.mu.Unlock()
	left := l.TTL
	if have := lt.byName[l.Name]; have != nil && have.token == l.Token && have.ttl != 0 {
		left = have.end - lt.readBoot()
	}
	return time.Now().UTC().Add(left).Truncate(time.Millisecond)
}

// takeDue takes out the leases whose end has come, or as many of them as are ended at
// the same time: nobody is to wait for the table while thousands are taken out. It
// returns how long it is to the next end; negative: there is none.
func (lt *leaseTable) takeDue() (ended []*lease, next time.Duration) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	next = -1
	for _, h := range []*leaseHeap{&lt.boot, &lt.wall} {
		for taken := 0; len(*h) > 0 && taken < expiries; taken++ {
			left := lt.left((*h)[0])
			if left > 0 {
				if next < 0 || left < next {
					next = left
				}
				break
			}
			ended = append(ended, heap.Pop(h).(*lease))
		}
	}
	lt.looking = next >= 0
	return ended, next
}

// retry puts back a lease that could not be ended, unless it is over by now.
func (lt *leaseTable) retry(l *lease) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	if lt.byName[l.name] == l && l.index < 0 {
		heap.Push(lt.heapOf(l), l)
		lt.wakeFor(l)
	}
}

// keep puts back a lease that was taken out to be ended and whose hold goes on: the
// wall clock was set back, or the hold stands on terms not yet heard of.
func (lt *leaseTable) keep(l *lease, hold Lock) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	switch {
	case lt.byName[l.name] != l || l.index >= 0: // renewed
	case l.sameTerms(hold):
		heap.Push(lt.heapOf(l), l)
		lt.wakeFor(l)
	default:
		lt.begin(l, hold)
	}
}

// run calls end for each lease whose end has come, until ctx ends.
func (lt *leaseTable) run(ctx context.Context, end func(context.Context, *lease) error) {
	slots := make(chan struct{}, expiries)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		ended, next := lt.takeDue()
		for _, l := range ended {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				defer func() { <-slots }()
				if err := end(ctx, l); err != nil && ctx.Err() == nil {
					l.pause = min(2*l.pause, mostLeaseRetry)
					if l.pause == 0 || !errors.Is(err, ErrLockFile) {
						l.pause = leaseRetry
					}
					time.AfterFunc(l.pause, func() { lt.retry(l) })
				}
			})
		}
		if len(ended) > 0 {
			continue // time has passed
		}
		var timer <-chan time.Time
		if next >= 0 {
			timer = time.After(min(next, leaseCheck))
		}
		select {
		case <-ctx.Done():
			return
		case <-lt.wake:
		case <-timer:
		}
	}
}

// expire ends a hold whose lease has run out, unless it was renewed meanwhile.
func (m *Manager) expire(ctx context.Context, ended *lease) error {
	t, err := m.enter(ctx, ended.name)
	if err != nil {
		return err
	}
	defer m.leave(t)
	for {
		l, err := m.present(ctx, ended.name)
		switch {
		case err != nil:
			return err
		case l.Token != ended.token:
			m.leases.drop(ended.name, ended.token)
			return nil
		case !m.leases.due(l):
			m.leases.keep(ended, l)
			return nil
		}
		err = m.endLease(ctx, t, l)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrConflict):
			if why := err.Error(); why != ended.failed {
				ended.failed = why
				m.config.Logger.Error("a lease ran out and the hold could not be ended; trying again", "name", l.Name, "token", l.Token, "error", err)
			}
			return err
		}
	}
}

// endLease commits the end of a hold whose deadline has passed, and grants the lock to
// the next in line. ErrConflict means that it has to be looked at again. The caller has
// the turn.
func (m *Manager) endLease(ctx context.Context, t *turn, l Lock) error {
	_, _, err := m.release(ctx, t, l, Change{Cause: Expired, Reason: "the lease ran out"})
	if errors.Is(err, ErrNotLocked) {
		return ErrConflict
	}
	if err == nil {
		m.config.Logger.Info("lease ran out", "name", l.Name, "holder", l.Holder, "token", l.Token)
	}
	return err
}

// leaseHeap is a heap.Interface, soonest end first.
type leaseHeap []*lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].end < h[j].end }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *leaseHeap) Push(x any) {
	l := x.(*lease)
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *leaseHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.index = -1
	return l
}
