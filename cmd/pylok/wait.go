package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	if wait == 0 || !ok || refusal.Reason != lock.ErrLockHeld || refusal.Lock == nil {
		return err
	}
	if w.refuseManual && !w.isSet() && refusal.Lock.Manual() {
		return err
	}
	line := p.showLine(ctx, c, w, *refusal.Lock, wait)
	err = ask(wait)
	line.close()
	if err == nil {
		p.say("got %s after waiting %s", w.what(), roughly(time.Since(line.since)))
	}
	return err
}

// refreshEvery is how often a terminal shows the line anew.
const refreshEvery = time.Second

// maxRows is the most rows that are shown: one that the terminal scrolled away could
// not be gone back to.
const maxRows = 12

// line shows a person who waits for a lock what there is to know: on a terminal each
// second anew, in place, otherwise once.
type line struct {
	*program
	client *client.Client
	name   string
	since  time.Time // on this machine's clock
	wait   time.Duration

	shown   []int // the lengths of the rows that show it now, in columns
	atMost  int   // our place in the line is this one or a better one; 0: not known
	cancel  context.CancelFunc
	stopped chan struct{} // closed when nothing is shown any more; nil: nothing is
}

// showLine begins to show what a waiter waits for; inTheWay is the lock that is in its way
// now.
func (p *program) showLine(ctx context.Context, c *client.Client, w wanted, inTheWay lock.Lock, wait time.Duration) *line {
	l := &line{program: p, client: c, name: inTheWay.Name.String(), since: time.Now(), wait: wait}
	s := p.styleFor(p.stderr)
	what := w.what()
	if !inForeground(p.stderr) || os.Getenv("TERM") == "dumb" {
		switch {
		case !inTheWay.Held():
			p.say("waiting%s for %s: %s is free, and others came before", upTo(wait), what, inTheWay.Name)
		case inTheWay.Name.String() == what:
			p.say("waiting%s for %s, held by %s", upTo(wait), what, s.heldBy(inTheWay))
		default:
			p.say("waiting%s for %s: %s is held by %s", upTo(wait), what, inTheWay.Name, s.heldBy(inTheWay))
		}
		return l
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.stopped = make(chan struct{})
	job := controlJob()
	l.draw(s, s.facts(inTheWay))
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

// close takes what is shown off the terminal.
func (l *line) close() {
	if l.stopped == nil {
		return
	}
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
	held, err := l.client.Status(ctx, l.name)
	s := l.styleFor(l.stderr)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
	case err != nil:
		l.atMost = 0 // a server that has started again has a new line
		l.draw(s, row("server", "it does not answer; it is asked again"))
	default:
		l.draw(s, l.place(held.Waiters)+s.facts(held))
	}
}

// draw puts a text under a heading, in the place of the one before.
func (l *line) draw(s style, facts string) {
	waited := time.Since(l.since)
	text := fmt.Sprintf("waiting for %s, %s%s\n%s", l.name, roughly(waited), strings.Replace(upTo(l.wait), " up to", " of up to", 1), facts)
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
	if l.atMost == 1 {
		return row("waiters", fmt.Sprintf("%d, you are next", waiters))
	}
	return row("waiters", fmt.Sprintf("%d, at most %d before you", waiters, l.atMost-1))
}

// facts are the rows on a lock that is in the way.
func (s style) facts(l lock.Lock) string {
	if l.Held() {
		return s.holdRows(l)
	}
	if l.Situation == nil || l.Situation.BlockedBy == nil {
		return row("free", "others came before")
	}
	switch o := l.Situation.BlockedBy; o.Kind {
	case lock.ByTree:
		return row("frozen", o.Lock.Name.String()) + s.holdRows(o.Lock)
	case lock.ByShared:
		return row("shared", fmt.Sprintf("%d shared holds stand, such as that of %s", l.Situation.SharedHolds, holderOf(o.Lock.Holder)))
	default:
		return row("before", o.Waiter.Who())
	}
}
