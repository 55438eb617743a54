package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// take calls ask, which asks for a lock, stands in line for it as long as it is told,
// and then waits for the answer no longer than --timeout. It is told not to wait at
// first; where that does not do, and wait is not 0, take shows the person what it waits
// for. Both must ask with the same request_id.
func (p *program) take(ctx context.Context, c *client.Client, w wanted, wait time.Duration, ask func(wait time.Duration) error) error {
	err := ask(0)
	refusal, ok := errors.AsType[*lock.Error](err)
	if wait == 0 || !ok || refusal.Reason != lock.ErrLockHeld {
		return err
	}
	if w.refuseManual && !w.isSet() && lockIn(refusal).Manual() {
		return err
	}
	line := p.showLine(ctx, c, w, lockIn(refusal), wait)
	err = ask(wait)
	line.close()
	switch refusal, ok := errors.AsType[*lock.Error](err); {
	case ok && refusal.Reason == lock.ErrLockHeld && time.Since(line.since) < wait && !(w.refuseManual && lockIn(refusal).Manual()):
		// Not for the time, so the server says why, such as who put it out of the line.
		return refusedHold(exitHeld, printable(refusal.Message), p.style().facts(w.first(), lockIn(refusal)))
	case err == nil:
		p.say("got %s after waiting %s", w.what(), roughly(time.Since(line.since)))
	}
	return err
}

// lockIn returns the lock that a refusal has; it has no name where the caller may not view
// it.
func lockIn(refusal *lock.Error) lock.Lock {
	if refusal.Lock == nil {
		return lock.Lock{}
	}
	return *refusal.Lock
}

// refreshEvery is how often a terminal shows the line anew.
const refreshEvery = time.Second

// maxRows is the most rows that are shown: one that the terminal scrolled away could
// not be gone back to.
const maxRows = 12

// line shows a person who waits for locks what there is to know: on a terminal each
// second anew, in place; elsewhere once, and when a person's hold gets in the way.
type line struct {
	*program
	client *client.Client
	what   string    // is waited for
	names  []string  // of all that is waited for, first the one that is looked at
	since  time.Time // on this machine's clock
	wait   time.Duration
	told   map[lock.HoldRef]bool // the holds without an end that the person knows of

	shown   []int // the lengths of the rows that show it now, in columns
	atMost  int   // our place in the line is this one or a better one; 0: not known
	cancel  context.CancelFunc
	stopped chan struct{} // closed when nothing is shown any more
}

// Off the terminal there is a look only at times, for who waits long: the first after
// firstLook, each after twice as long as the one before, up to lastLook.
const (
	firstLook = time.Second
	lastLook  = 30 * time.Second
)

// mostLooks is how many locks of a set are looked at each time, to find one in the way.
const mostLooks = 8

// showLine begins to show what a waiter waits for; inTheWay is the lock that is in its way
// now.
func (p *program) showLine(ctx context.Context, c *client.Client, w wanted, inTheWay lock.Lock, wait time.Duration) *line {
	l := &line{
		program: p, client: c, what: w.what(), names: w.all(), since: time.Now(), wait: wait,
		told: map[lock.HoldRef]bool{}, stopped: make(chan struct{}),
	}
	l.lookFirst(inTheWay.Name.String())
	ctx, l.cancel = context.WithCancel(ctx)
	if !inForeground(p.stderr) || os.Getenv("TERM") == "dumb" {
		l.begin(inTheWay)
		go l.lookOut(ctx)
		return l
	}
	s := p.styleFor(p.stderr)
	job := controlJob()
	l.draw(s, s.facts(l.names[0], inTheWay))
	go func() {
		defer close(l.stopped)
		defer job.release()
		for {
			timer := time.NewTimer(refreshEvery)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			case <-job.stop:
				timer.Stop()
				l.write(l.over()) // the shell writes here now
				job.doStop()
			}
			l.refresh(ctx)
		}
	}()
	return l
}

// begin says once what is waited for.
func (l *line) begin(inTheWay lock.Lock) {
	s := l.styleFor(l.stderr)
	name := inTheWay.Name.String()
	switch {
	case inTheWay.Name.IsZero():
		l.say("waiting%s for %s: a lock that you may not view is in the way", upTo(l.wait), l.what)
	case !inTheWay.Held():
		l.say("waiting%s for %s: %s is free, and others came before", upTo(l.wait), l.what, name)
	case name == l.what:
		l.say("waiting%s for %s, held by %s", upTo(l.wait), l.what, s.heldBy(inTheWay))
	default:
		l.say("waiting%s for %s: %s is held by %s", upTo(l.wait), l.what, name, s.heldBy(inTheWay))
	}
	if inTheWay.Manual() { // that it has no end can be seen there
		l.told[holdRef(inTheWay)] = true
	}
}

// lookOut looks at times for a hold without an end, and says so once of each.
func (l *line) lookOut(ctx context.Context) {
	defer close(l.stopped)
	for next := firstLook; ; next = min(2*next, lastLook) {
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		request, cancel := context.WithTimeout(ctx, time.Duration(l.timeout))
		seen, err := l.look(request)
		cancel()
		if err != nil {
			continue
		}
		held := inTheWayOf(seen)
		if ref := holdRef(held); held.Manual() && !l.told[ref] {
			l.told[ref] = true
			l.say("still waiting for %s: %s is held by %s", l.what, held.Name, l.styleFor(l.stderr).heldBy(held))
		}
	}
}

// look returns a lock that is waited for and that cannot be had, of a set the first that
// is found.
func (l *line) look(ctx context.Context) (seen lock.Lock, err error) {
	for range min(len(l.names), mostLooks) {
		seen, err = l.client.Status(ctx, l.names[0])
		if err != nil || seen.Held() || seen.Situation != nil && seen.Situation.BlockedBy != nil {
			return seen, err
		}
		l.names = append(l.names[1:], l.names[0])
	}
	return seen, nil
}

// lookFirst has look begin at a name, if that is waited for.
func (l *line) lookFirst(name string) {
	if i := slices.Index(l.names, name); i > 0 {
		l.names = append(l.names[i:len(l.names):len(l.names)], l.names[:i]...)
	}
}

// inTheWayOf returns the hold that keeps a lock from being had: its own, or that of a tree
// or of who shares it.
func inTheWayOf(l lock.Lock) lock.Lock {
	if !l.Held() && l.Situation != nil && l.Situation.BlockedBy != nil {
		return l.Situation.BlockedBy.Lock
	}
	return l
}

func holdRef(l lock.Lock) lock.HoldRef { return lock.HoldRef{Name: l.Name, Token: l.Token} }

// close takes what is shown off the terminal.
func (l *line) close() {
	l.cancel()
	<-l.stopped
	l.write(l.over())
}

// refresh shows how things are now. In the background it is quiet.
func (l *line) refresh(ctx context.Context) {
	if !inForeground(l.stderr) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refreshEvery)
	defer cancel()
	seen, err := l.look(ctx)
	s := l.styleFor(l.stderr)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
	case err != nil:
		l.atMost = 0 // a server that has started again has a new line
		l.draw(s, row("server", "it does not answer; it is asked again"))
	default:
		l.draw(s, l.place(seen.Waiters)+s.facts(l.names[0], seen))
	}
}

// draw puts a text under a heading, in the place of the one before.
func (l *line) draw(s style, facts string) {
	waited := time.Since(l.since)
	text := fmt.Sprintf("waiting for %s, %s%s\n%s", l.what, roughly(waited), strings.Replace(upTo(l.wait), " up to", " of up to", 1), facts)
	var b strings.Builder
	b.WriteString(l.over())
	for row := range strings.Lines(text) {
		if len(l.shown) == maxRows {
			break
		}
		// One column stays free: a terminal may begin a new row after the last.
		s := style{width: max(s.width-1, 0)}
		row = s.cut(strings.TrimSuffix(row, "\n"))
		b.WriteString(row + "\x1b[K\n")
		l.shown = append(l.shown, utf8.RuneCountInString(row))
	}
	l.write(b.String())
}

// over returns what goes back over the rows that are shown, and forgets them. Of a
// terminal that has become narrower since, a row may take several. The keyboard's ^C may
// stand in the row after them.
func (l *line) over() string {
	width := l.styleFor(l.stderr).width
	rows := 0
	for _, length := range l.shown {
		rows++
		if width > 0 && length > width {
			rows += (length - 1) / width
		}
	}
	l.shown = nil
	if rows == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", rows)
}

// write sends text to the terminal, which may be gone.
func (l *line) write(text string) { _, _ = l.stderr.Write([]byte(text)) }

// place shows how many waiters there are, and what is known of our place among them.
// Whoever leaves the line may have stood before us or behind us, so the place is a
// bound; the first waiters that are counted can only be those before us and we.
func (l *line) place(waiters int) string {
	switch {
	case waiters == 0:
		l.atMost = 0
		return ""
	case l.atMost == 0 || waiters < l.atMost:
		l.atMost = waiters
	}
	if len(l.names) > 1 {
		return row("waiters", fmt.Sprintf("%d of %s", waiters, l.names[0]))
	}
	if l.atMost == 1 {
		return row("waiters", fmt.Sprintf("%d, you are next", waiters))
	}
	return row("waiters", fmt.Sprintf("%d, at most %d before you", waiters, l.atMost-1))
}

// facts are the rows on a lock that is in the way of who waits for name.
func (s style) facts(name string, l lock.Lock) string {
	if l.Name.IsZero() {
		return row("held", "a lock that you may not view is in the way")
	}
	which := "" // lock it is, where it is another one
	if l.Name.String() != name {
		which = row("by", l.Name.String())
	}
	if l.Held() {
		return which + s.holdRows(l) + s.endRow(l)
	}
	if l.Situation == nil || l.Situation.BlockedBy == nil {
		return row("free", "others came before")
	}
	o := l.Situation.BlockedBy
	hold := ""
	if o.Lock.Token != 0 { // it may be viewed
		hold = row("by", o.Lock.Name.String()) + s.holdRows(o.Lock) + s.endRow(o.Lock)
	}
	switch o.Kind {
	case lock.ByTree:
		return row("frozen", "a tree above it covers it") + hold
	case lock.ByShared:
		return row("shared", fmt.Sprintf("shared holds: %d", l.Situation.SharedHolds)) + hold
	default:
		return row("before", o.Waiter.Who())
	}
}

// endRow says of a hold that it has no end.
func (s style) endRow(l lock.Lock) string {
	switch {
	case l.Stale():
		return row("stale", "kept until somebody has looked")
	case l.Manual():
		return row("until", "somebody releases it")
	}
	return ""
}
