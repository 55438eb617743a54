package main

import (
	"io"
	"slices"
	"sync"
	"time"
)

// mostLines and mostLineBytes bound what waits for a reader of the log.
const (
	mostLines     = 4096
	mostLineBytes = 4 << 20
)

// lines is a writer that no reader can hold up: who writes to it does not wait. Lines
// beyond its bounds are dropped, and so is what cannot be written; a line in their place
// says how many.
type lines struct {
	out io.Writer
	// note makes the line that says how many were dropped.
	note func(dropped int) []byte

	mu      sync.Mutex
	waiting []waitingLine
	bytes   int
	dropped int           // since the last of them
	more    chan struct{} // has an element when there are lines; closed by close
	closed  bool
	done    chan struct{} // closed when all is written that will be
}

// waitingLine is a line that is to be written.
type waitingLine struct {
	text []byte
	says int // how many lines were dropped; 0: it is a line that somebody wrote
}

// newLines returns a writer of lines to out.
func newLines(out io.Writer, note func(dropped int) []byte) *lines {
	l := &lines{out: out, note: note, more: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Write takes a line. It never fails.
func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return len(line), nil
	case len(l.waiting) >= mostLines || l.bytes+len(line) > mostLineBytes:
		l.dropped++
		return len(line), nil
	case l.dropped > 0:
		l.add(waitingLine{l.note(l.dropped), l.dropped})
		l.dropped = 0
	}
	l.add(waitingLine{text: slices.Clone(line)})
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(line), nil
}

// add puts a line behind the others. The caller must hold mu.
func (l *lines) add(line waitingLine) {
	l.waiting = append(l.waiting, line)
	l.bytes += len(line.text)
}

// run writes the lines.
func (l *lines) run() {
	defer close(l.done)
	for range l.more {
		for line, ok := l.next(); ok; line, ok = l.next() {
			if _, err := l.out.Write(line.text); err != nil {
				l.drop(max(line.says, 1))
			}
		}
	}
}

// next takes out the next line, if there is one.
func (l *lines) next() (line waitingLine, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return waitingLine{}, false
	}
	line, l.waiting = l.waiting[0], l.waiting[1:]
	l.bytes -= len(line.text)
	return line, true
}

func (l *lines) drop(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped += n
}

// close takes no more lines, and waits for those that are there to be written, but no
// longer than limit.
func (l *lines) close(limit time.Duration) {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		if l.dropped > 0 { // no line to come will say so
			l.add(waitingLine{l.note(l.dropped), l.dropped})
			l.dropped = 0
			select {
			case l.more <- struct{}{}:
			default:
			}
		}
		close(l.more)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-time.After(limit):
	}
}
