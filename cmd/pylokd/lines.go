package main

import (
	"io"
	"slices"
	"sync"
	"time"
)

// maxLines and maxLineBytes bound what waits for a reader of the log.
const (
	maxLines     = 4096
	maxLineBytes = 4 << 20
)

// lines is a writer with a queue that no reader can hold up: Write does not block. Lines
// beyond its bounds are dropped, and so is what cannot be written; a line in their place
// says how many.
type lines struct {
	out io.Writer
	// note makes the line that says how many were dropped.
	note func(dropped int) []byte

	mu      sync.Mutex
	queue   []queuedLine
	bytes   int           // in the queue
	dropped int           // since the last note
	more    chan struct{} // has an element when the queue is not empty; closed by close
	closed  bool
	done    chan struct{} // closed when run has ended
}

// queuedLine is a line that is to be written.
type queuedLine struct {
	text    []byte
	dropped int // how many lines it stands for, where it is a note
}

// newLines returns a writer of lines to out.
func newLines(out io.Writer, note func(dropped int) []byte) *lines {
	l := &lines{out: out, note: note, more: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Write queues a line. It never fails.
func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return len(line), nil
	case len(l.queue) >= maxLines || l.bytes+len(line) > maxLineBytes:
		l.dropped++
		return len(line), nil
	case l.dropped > 0:
		l.addLocked(queuedLine{l.note(l.dropped), l.dropped})
		l.dropped = 0
	}
	l.addLocked(queuedLine{text: slices.Clone(line)})
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(line), nil
}

// addLocked puts a line at the end of the queue. The caller must hold mu.
func (l *lines) addLocked(line queuedLine) {
	l.queue = append(l.queue, line)
	l.bytes += len(line.text)
}

// run writes the lines, until close.
func (l *lines) run() {
	defer close(l.done)
	for range l.more {
		for line, ok := l.next(); ok; line, ok = l.next() {
			if _, err := l.out.Write(line.text); err != nil {
				l.drop(max(line.dropped, 1))
			}
		}
	}
}

// next takes the next line out of the queue, if there is one.
func (l *lines) next() (line queuedLine, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return queuedLine{}, false
	}
	line, l.queue = l.queue[0], l.queue[1:]
	l.bytes -= len(line.text)
	return line, true
}

// drop counts n lines more as dropped.
func (l *lines) drop(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped += n
}

// close takes no more lines, and waits until those in the queue are written, but no longer
// than limit.
func (l *lines) close(limit time.Duration) {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		if l.dropped > 0 { // no line to come will say so
			l.addLocked(queuedLine{l.note(l.dropped), l.dropped})
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
