package limits

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/pylok/pylok/lock"
)

// Config says how much one caller may have, and all together. A zero means that there is
// no such limit, unless it says otherwise.
type Config struct {
	// Rate is how many requests a second a caller may make from other machines; who is
	// on this one has the processor anyway. Renewals and releases of what the caller
	// holds count among themselves, so that no holder loses a lease because others of
	// the same name or address ask for much.
	Rate float64
	// Burst is how many of them may come at once. Default: those of one second.
	Burst int
	// MaxCalls is how many calls of a caller may be open, waits and watches included;
	// renewals and releases of what it holds count among themselves.
	MaxCalls int
	// MaxWaits is how many calls of a caller may wait for locks, and MaxWaitingBytes
	// what these may have the server keep.
	MaxWaits, MaxWaitingBytes int
	// MaxWatches is how many watches of a caller may be open, MaxWatchesTotal how many
	// of all callers.
	MaxWatches, MaxWatchesTotal int
	// MaxScans is how many calls of List and History of a caller work at a time; those
	// beyond wait for one of them to end.
	MaxScans int
	// MaxHolds is how many locks a caller may hold.
	MaxHolds int
	// MaxCallers is how many callers are told apart; those beyond are one caller
	// together. Default 65,536, which take 30 MB.
	MaxCallers int
	// Follow tells of all holds, also those that no caller may see. Default: the Locks
	// that New is given.
	Follow lock.Locks
	// Logger is told when Follow fails. Default: nothing is logged.
	Logger *slog.Logger
}

// Limits is a lock.Locks that asks another one as far as its callers' limits go. A request
// beyond them is refused with ErrRateLimited, ErrTooManyWaiters, ErrTooManyWatches or
// ErrTooManyLocks, and changes nothing.
type Limits struct {
	inner   lock.Locks
	config  Config
	callers *callers
	holds   holds

	current struct{ waits, waitingBytes, watches, scans atomic.Int64 }
	refused struct{ rate, calls, waits, watches, holds atomic.Uint64 }

	stop       context.CancelFunc
	background sync.WaitGroup
}

var _ lock.Locks = (*Limits)(nil)

// Open is what is open now, of all callers.
type Open struct {
	// Calls are all calls, Waits those that wait for locks or are about to, Watches
	// those that watch, and Scans those of List and History that work.
	Calls, Waits, Watches, Scans int
	// WaitingBytes are what the waits have the server keep.
	WaitingBytes int
	// Holds are the locks that are held, as far as Config.Follow has told.
	Holds int
	// Callers are those that are told apart now.
	Callers int
}

// Refused counts the requests that were refused, by the limit that they were beyond.
type Refused struct {
	Rate, Calls, Waits, Watches, Holds uint64
}

// Stats are what is counted.
type Stats struct {
	Open    Open
	Refused Refused // since New
}

// New returns the limits before other Locks. Close ends what it begins.
func New(inner lock.Locks, config Config) *Limits {
	if config.Burst == 0 {
		config.Burst = max(int(config.Rate), 1)
	}
	if config.MaxCallers == 0 {
		config.MaxCallers = 65536
	}
	if config.Follow == nil {
		config.Follow = inner
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Limits{inner: inner, config: config, callers: newCallers(config.MaxCallers)}
	l.holds = holds{callers: l.callers, by: make(map[lock.Token]*caller), released: make(map[lock.Token]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.background.Go(func() { l.holds.follow(ctx, config.Follow, config.Logger) })
	l.background.Go(func() { l.forgetAlways(ctx) })
	return l
}

// Close ends the work in the background. Calls go on.
func (l *Limits) Close() {
	l.stop()
	l.background.Wait()
}

// forgetAlways gives back, after a flood, the memory of the callers that it came from.
func (l *Limits) forgetAlways(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.callers.forget()
		}
	}
}

// Stats returns what is counted, for metrics.
func (l *Limits) Stats() Stats {
	known, calls := l.callers.count()
	return Stats{
		Open: Open{
			Calls:        calls,
			Waits:        int(l.current.waits.Load()),
			WaitingBytes: int(l.current.waitingBytes.Load()),
			Watches:      int(l.current.watches.Load()),
			Scans:        int(l.current.scans.Load()),
			Holds:        l.holds.count(),
			Callers:      known,
		},
		Refused: Refused{
			Rate:    l.refused.rate.Load(),
			Calls:   l.refused.calls.Load(),
			Waits:   l.refused.waits.Load(),
			Watches: l.refused.watches.Load(),
			Holds:   l.refused.holds.Load(),
		},
	}
}

// retryCalls is when to ask again who has too many calls open.
const retryCalls = time.Second

// enter begins a call that asks for something, as far as the caller's rate and its open
// calls allow; its end ends it.
func (l *Limits) enter(from *lock.Caller) (*caller, error) {
	k, isRemote := keyOf(from)
	c := l.callers.locked(k)
	return c, l.begin(c, asking, isRemote)
}

// begin begins a call of a caller whose shard's mu is held, and gives that back.
func (l *Limits) begin(c *caller, which lane, isRemote bool) error {
	open := c.calls[which]
	if l.config.MaxCalls > 0 && open >= l.config.MaxCalls {
		c.shard.mu.Unlock()
		l.refused.calls.Add(1)
		return &lock.Error{
			Reason:     lock.ErrRateLimited,
			Message:    fmt.Sprintf("%s has %d calls open, the most that one caller may at a time; nothing changed, ask again when some have ended", c.who, open),
			RetryAfter: retryCalls,
		}
	}
	if l.config.Rate > 0 && isRemote {
		if c.rates[which] == nil {
			c.rates[which] = rate.NewLimiter(rate.Limit(l.config.Rate), l.config.Burst)
		}
		if now := time.Now(); !c.rates[which].AllowN(now, 1) {
			missing := 1 - c.rates[which].TokensAt(now)
			c.shard.mu.Unlock()
			l.refused.rate.Add(1)
			after := max(time.Duration(math.Ceil(missing/l.config.Rate*1000))*time.Millisecond, time.Millisecond)
			return &lock.Error{
				Reason:     lock.ErrRateLimited,
				Message:    fmt.Sprintf("%s asks more often than the %g times a second that one caller may; nothing changed, ask again in %v", c.who, l.config.Rate, after),
				RetryAfter: after,
			}
		}
	}
	c.calls[which]++
	c.uses++
	c.shard.mu.Unlock()
	return nil
}

// end ends a call that begin has begun.
func (c *caller) end(which lane) {
	c.shard.mu.Lock()
	c.calls[which]--
	c.uses--
	c.shard.mu.Unlock()
}

// Admit counts a request of a caller that asks nothing of the Locks, such as who it is taken
// for, and refuses one beyond the caller's rate and open calls.
func (l *Limits) Admit(from lock.Caller) error {
	c, err := l.enter(&from)
	if err == nil {
		c.end(asking)
	}
	return err
}

// Lock implements lock.Locks.
func (l *Limits) Lock(ctx context.Context, from lock.Caller, request lock.LockRequest) (lock.Grant, error) {
	c, err := l.enter(&from)
	if err != nil {
		return lock.Grant{}, err
	}
	defer c.end(asking)
	if request.Wait > 0 {
		bytes := len(request.Name.String()) + request.Data.Size() + len(request.Holder) + len(request.RequestID)
		if err := l.beginWait(c, bytes); err != nil {
			return lock.Grant{}, err
		}
		defer l.endWait(c, bytes)
	}
	reserved, err := l.mayHold(ctx, c, from, &request)
	if err != nil {
		return lock.Grant{}, err
	}
	grant, err := l.inner.Lock(ctx, from, request)
	var token lock.Token // zero: none was granted
	if err == nil {
		token = grant.Lock.Token
	}
	l.holds.asked(c, reserved, token)
	return grant, err
}

func (l *Limits) beginWait(c *caller, bytes int) error {
	most, mostBytes := l.config.MaxWaits, l.config.MaxWaitingBytes
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	var message string
	switch {
	case most > 0 && c.waits >= most:
		message = fmt.Sprintf("%d requests of %s wait for locks, the most that may of one caller; ask again later", c.waits, c.who)
	case mostBytes > 0 && c.waitingBytes+bytes > mostBytes:
		message = fmt.Sprintf("the requests of %s that wait for locks have %d bytes of data, and with this one's they would be over the %d that the server keeps for one caller; ask again later, or with less data", c.who, c.waitingBytes, mostBytes)
	default:
		c.waits++
		c.waitingBytes += bytes
		l.current.waits.Add(1)
		l.current.waitingBytes.Add(int64(bytes))
		return nil
	}
	l.refused.waits.Add(1)
	return &lock.Error{Reason: lock.ErrTooManyWaiters, Message: message}
}

func (l *Limits) endWait(c *caller, bytes int) {
	c.shard.mu.Lock()
	c.waits--
	c.waitingBytes -= bytes
	c.shard.mu.Unlock()
	l.current.waits.Add(-1)
	l.current.waitingBytes.Add(-int64(bytes))
}

// mayHold says whether a caller may be granted another lock, as reserve does. What gives the
// caller no more than it has goes always: the request of a hold that it has, which is sent
// again, and one that takes the place of a hold of its own.
func (l *Limits) mayHold(ctx context.Context, c *caller, from lock.Caller, request *lock.LockRequest) (reserved int, err error) {
	reserved, err = l.reserve(c, 1, request.Wait > 0)
	if err == nil || request.RequestID == "" && !request.Overwrite && !request.ReplaceStale {
		return reserved, l.refuseHolds(err)
	}
	if request.Shared {
		page, _, _, listErr := l.inner.List(ctx, from, request.Name.Slots(), lock.Name{}, mostSlots)
		if listErr == nil && slices.ContainsFunc(page, func(have lock.Lock) bool { return l.isAgain(c, have, request.RequestID) }) {
			return 0, nil
		}
		return 0, l.refuseHolds(err)
	}
	present, statusErr := l.inner.Status(ctx, from, request.Name)
	replaces := (request.Overwrite || request.ReplaceStale) && present.Held() && l.holds.isOf(c, present.Token)
	if statusErr == nil && (replaces || l.isAgain(c, present, request.RequestID)) {
		return 0, nil
	}
	return 0, l.refuseHolds(err)
}

// mostSlots is how many shared holds are looked at for the one of a request that is sent
// again.
const mostSlots = 1000

// isAgain reports whether a lock is a caller's hold that a request was granted before.
func (l *Limits) isAgain(c *caller, present lock.Lock, requestID string) bool {
	return requestID != "" && present.Held() && present.RequestID == requestID && l.holds.isOf(c, present.Token)
}

// reserve says whether a caller may be granted some locks more. A request that does not wait
// reserves its places among the holds, so that many at once are no way around the limit; one
// that waits, which may be for something that another of the same caller has to release,
// does not: a caller may go over the limit by those.
func (l *Limits) reserve(c *caller, more int, waits bool) (reserved int, err error) {
	held, ok := l.holds.reserve(c, l.config.MaxHolds, more, !waits)
	switch {
	case ok && waits:
		return 0, nil
	case ok:
		return more, nil
	}
	message := fmt.Sprintf("%s holds %d locks, the most that one caller may at a time; unlock some", c.who, held)
	if held < l.config.MaxHolds {
		message = fmt.Sprintf("%s holds %d locks, and with %d more it would have, or be about to have, more than the %d that one caller may at a time; unlock some", c.who, held, more, l.config.MaxHolds)
	}
	return 0, &lock.Error{Reason: lock.ErrTooManyLocks, Message: message}
}

// refuseHolds counts a refusal, if it is one.
func (l *Limits) refuseHolds(err error) error {
	if err != nil {
		l.refused.holds.Add(1)
	}
	return err
}

// keep asks for the renewal or the release of what the caller holds, or what may be its own.
func keep[Request, Answer any](ctx context.Context, l *Limits, from lock.Caller, holds []lock.Token, request Request, ask func(lock.Locks, context.Context, lock.Caller, Request) (Answer, error)) (answer Answer, err error) {
	k, isRemote := keyOf(&from)
	c := l.callers.use(k)
	defer c.leave()
	which := keeping
	for _, token := range holds {
		if token == 0 || !l.holds.mayBeOf(c, token, !k.proved) {
			which = asking
		}
	}
	if len(holds) == 0 {
		which = asking
	}
	c.shard.mu.Lock()
	if err := l.begin(c, which, isRemote); err != nil {
		return answer, err
	}
	defer c.end(which)
	return ask(l.inner, ctx, from, request)
}

// Unlock implements lock.Locks.
func (l *Limits) Unlock(ctx context.Context, from lock.Caller, request lock.UnlockRequest) (lock.Release, error) {
	release, err := keep(ctx, l, from, []lock.Token{request.Token}, request, lock.Locks.Unlock)
	if err == nil {
		l.holds.ended(release.Lock.Token)
	}
	return release, err
}

// Renew implements lock.Locks.
func (l *Limits) Renew(ctx context.Context, from lock.Caller, request lock.RenewRequest) (lock.Lock, error) {
	return keep(ctx, l, from, []lock.Token{request.Token}, request, lock.Locks.Renew)
}

// Status implements lock.Locks.
func (l *Limits) Status(ctx context.Context, from lock.Caller, name lock.Name) (lock.Lock, error) {
	c, err := l.enter(&from)
	if err != nil {
		return lock.Lock{}, err
	}
	defer c.end(asking)
	return l.inner.Status(ctx, from, name)
}

// List implements lock.Locks.
func (l *Limits) List(ctx context.Context, from lock.Caller, p lock.Pattern, after lock.Name, limit int) (page []lock.Lock, revision lock.Revision, more bool, err error) {
	c, err := l.enter(&from)
	if err != nil {
		return nil, 0, false, err
	}
	defer c.end(asking)
	done, err := l.scan(ctx, c)
	if err != nil {
		return nil, 0, false, err
	}
	defer done()
	return l.inner.List(ctx, from, p, after, limit)
}

// History implements lock.Locks.
func (l *Limits) History(ctx context.Context, from lock.Caller, q lock.HistoryQuery, after lock.Revision, limit int) (lock.HistoryPage, error) {
	c, err := l.enter(&from)
	if err != nil {
		return lock.HistoryPage{}, err
	}
	defer c.end(asking)
	done, err := l.scan(ctx, c)
	if err != nil {
		return lock.HistoryPage{}, err
	}
	defer done()
	return l.inner.History(ctx, from, q, after, limit)
}

// scan waits until another scan of the caller may work.
func (l *Limits) scan(ctx context.Context, c *caller) (done func(), err error) {
	if l.config.MaxScans == 0 {
		l.current.scans.Add(1)
		return func() { l.current.scans.Add(-1) }, nil
	}
	c.shard.mu.Lock()
	if c.scanning == nil {
		c.scanning = make(chan struct{}, l.config.MaxScans)
	}
	scanning := c.scanning
	c.shard.mu.Unlock()
	select {
	case scanning <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l.current.scans.Add(1)
	return func() {
		l.current.scans.Add(-1)
		<-scanning
	}, nil
}

// Watch implements lock.Locks.
func (l *Limits) Watch(ctx context.Context, from lock.Caller, request lock.WatchRequest) iter.Seq2[lock.Event, error] {
	return func(yield func(lock.Event, error) bool) {
		c, err := l.enter(&from)
		if err != nil {
			yield(lock.Event{}, err)
			return
		}
		defer c.end(asking)
		if err := l.beginWatch(c); err != nil {
			yield(lock.Event{}, err)
			return
		}
		defer l.endWatch(c)
		l.inner.Watch(ctx, from, request)(yield)
	}
}

func (l *Limits) beginWatch(c *caller) error {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	all := l.current.watches.Add(1)
	var message string
	switch most, total := l.config.MaxWatches, l.config.MaxWatchesTotal; {
	case most > 0 && c.watches >= most:
		message = fmt.Sprintf("%s has %d watches open, the most that one caller may; end some, or watch a pattern instead of many names", c.who, c.watches)
	case total > 0 && all > int64(total):
		message = fmt.Sprintf("%d watches are open, the most that the server keeps in all; ask again later", all-1)
	default:
		c.watches++
		return nil
	}
	l.current.watches.Add(-1)
	l.refused.watches.Add(1)
	return &lock.Error{Reason: lock.ErrTooManyWatches, Message: message}
}

func (l *Limits) endWatch(c *caller) {
	c.shard.mu.Lock()
	c.watches--
	c.shard.mu.Unlock()
	l.current.watches.Add(-1)
}

// Revision implements lock.Locks.
func (l *Limits) Revision(ctx context.Context) (lock.Revision, error) { return l.inner.Revision(ctx) }
