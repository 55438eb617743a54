package lease

import (
	"container/heap"
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/pylok/pylok/lock"
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

// Lease is the end of one hold, which is to be ended when it has come.
type Lease struct {
	Name   lock.Name
	Token  lock.Token
	Failed string // why it could not be ended, for who ends it; empty at first

	revision   lock.Revision // of the lock when the terms were taken from it
	ttl        time.Duration // as committed; with ttl, end is on the boot clock
	expireTime time.Time     // as committed
	end        time.Duration // on the boot clock, or since the Unix epoch
	index      int           // in its heap; -1: taken out to be ended
	pause      time.Duration // before it is tried again; Run's
}

// Table knows when holds end. Ttls run on the boot clock, which counts suspend and
// nobody sets; expire times are wall time. Each has its own heap. All methods may be
// called from many goroutines at once.
type Table struct {
	boottime func() time.Duration
	wake     chan struct{} // has an element when the next end may be sooner

	mu     sync.Mutex
	byName map[lock.Name]*Lease
	boot   leaseHeap
	wall   leaseHeap

	read    time.Duration // the last reading of the boot clock
	looking bool          // Run looks again within leaseCheck
}

// NewTable returns an empty Table whose ttls run on the clock boottime, such as
// [Clock.Now].
func NewTable(boottime func() time.Duration) *Table {
	return &Table{
		boottime: boottime,
		wake:     make(chan struct{}, 1),
		byName:   make(map[lock.Name]*Lease),
	}
}

// Observe takes note of a hold as it was committed. It begins a lease for a new
// hold or new terms and leaves one that runs alone. What it is told may be late: an
// older revision than the lease's says nothing, nor does the same one, whose terms
// may have been extended since.
func (lt *Table) Observe(l lock.Lock) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	lt.noteLocked(l)
}

// Follow is Observe and Drop for changes that were made, one after the other.
func (lt *Table) Follow(events []lock.Event) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	for _, e := range events {
		if e.Type == lock.Unlocked {
			lt.dropLocked(e.Lock.Name, e.Lock.Token)
		} else {
			lt.noteLocked(e.Lock)
		}
	}
}

// noteLocked is Observe. The caller must hold mu.
func (lt *Table) noteLocked(l lock.Lock) {
	have := lt.byName[l.Name]
	if have != nil {
		if have.revision >= l.Revision {
			return
		}
		if have.Token == l.Token && !l.Stale() && have.sameTerms(l) {
			have.revision = l.Revision
			return
		}
	}
	lt.beginLocked(have, l)
}

// Renew begins the lease of a hold anew, unless another hold has come meanwhile.
func (lt *Table) Renew(l lock.Lock) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	have := lt.byName[l.Name]
	if have != nil && have.Token > l.Token {
		return
	}
	lt.beginLocked(have, l)
}

// sameTerms reports whether the lease is on the terms that the hold stands on.
func (l *Lease) sameTerms(hold lock.Lock) bool {
	return l.ttl == hold.TTL && l.expireTime.Equal(hold.ExpireTime)
}

// beginLocked replaces have, which may be nil, by the lease of l, if it has one, from now
// on. The caller must hold mu.
func (lt *Table) beginLocked(have *Lease, l lock.Lock) {
	if l.TTL == 0 && l.ExpireTime.IsZero() || l.Stale() {
		if have != nil {
			lt.removeLocked(have)
		}
		return
	}
	if have == nil || have.index < 0 || (have.ttl == 0) != (l.TTL == 0) {
		if have != nil {
			lt.removeLocked(have)
		}
		have = &Lease{Name: l.Name, index: -1}
		lt.byName[l.Name] = have
	}
	have.Token, have.revision, have.ttl, have.expireTime = l.Token, l.Revision, l.TTL, l.ExpireTime
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

// readBoot reads the boot clock. The caller must hold mu.
func (lt *Table) readBoot() time.Duration {
	lt.read = lt.boottime()
	return lt.read
}

// wakeFor wakes Run if the lease is the next to end, unless Run looks in time anyway. The
// caller must hold mu.
func (lt *Table) wakeFor(l *Lease) {
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

// Drop ends the lease of a hold that is over.
func (lt *Table) Drop(name lock.Name, token lock.Token) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	lt.dropLocked(name, token)
}

// dropLocked is Drop. The caller must hold mu.
func (lt *Table) dropLocked(name lock.Name, token lock.Token) {
	if have := lt.byName[name]; have != nil && have.Token <= token {
		lt.removeLocked(have)
	}
}

// removeLocked takes a lease out of its heap and forgets it. The caller must hold mu.
func (lt *Table) removeLocked(have *Lease) {
	if have.index >= 0 {
		heap.Remove(lt.heapOf(have), have.index)
		have.index = -1
	}
	delete(lt.byName, have.Name)
}

func (lt *Table) heapOf(l *Lease) *leaseHeap {
	if l.ttl != 0 {
		return &lt.boot
	}
	return &lt.wall
}

// Due reports whether the hold's end has come, by the terms that it stands on.
func (lt *Table) Due(l lock.Lock) bool {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	have := lt.byName[l.Name]
	return have != nil && have.Token == l.Token && have.sameTerms(l) && lt.left(have) <= 0
}

// left returns how long the lease has to go. The caller must hold mu.
func (lt *Table) left(l *Lease) time.Duration {
	if l.ttl != 0 {
		return l.end - lt.readBoot()
	}
	return l.end - time.Duration(time.Now().UnixNano())
}

// Deadline returns when the hold ends, in wall time, or the zero time.
func (lt *Table) Deadline(l lock.Lock) time.Time {
	switch {
	case l.Stale():
		return time.Time{}
	case l.TTL == 0:
		return l.ExpireTime
	}
	lt.mu.Lock()
	defer lt.mu.Unlock()
	left := l.TTL
	if have := lt.byName[l.Name]; have != nil && have.Token == l.Token && have.ttl != 0 {
		left = have.end - lt.readBoot()
	}
	return time.Now().UTC().Add(left).Truncate(time.Millisecond)
}

// takeDue takes out the leases whose end has come, or as many of them as are ended at
// the same time: nobody is to wait for the table while thousands are taken out. It
// returns how long it is to the next end; negative: there is none.
func (lt *Table) takeDue() (ended []*Lease, next time.Duration) {
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
			ended = append(ended, heap.Pop(h).(*Lease))
		}
	}
	lt.looking = next >= 0
	return ended, next
}

// retry puts back a lease that could not be ended, unless it is over by now.
func (lt *Table) retry(l *Lease) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	if lt.byName[l.Name] == l && l.index < 0 {
		heap.Push(lt.heapOf(l), l)
		lt.wakeFor(l)
	}
}

// Keep puts back a lease that was taken out to be ended and whose hold goes on: the
// wall clock was set back, or the hold stands on terms not yet heard of.
func (lt *Table) Keep(l *Lease, hold lock.Lock) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	switch {
	case lt.byName[l.Name] != l || l.index >= 0: // renewed
	case l.sameTerms(hold):
		heap.Push(lt.heapOf(l), l)
		lt.wakeFor(l)
	default:
		lt.beginLocked(l, hold)
	}
}

// Run calls end for each lease whose end has come, up to 256 at the same time, until ctx
// ends. A lease for which end returns an error is tried again after a second; where that
// is lock.ErrLockFile the pause grows to a minute.
func (lt *Table) Run(ctx context.Context, end func(context.Context, *Lease) error) {
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
					if l.pause == 0 || !errors.Is(err, lock.ErrLockFile) {
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

// leaseHeap is a heap.Interface, soonest end first.
type leaseHeap []*Lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].end < h[j].end }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *leaseHeap) Push(x any) {
	l := x.(*Lease)
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
