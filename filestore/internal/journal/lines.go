package journal

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// lines reads a file of lines. A line that is handed out has its newline, and is valid
// until the next.
type lines struct {
	ctx    context.Context
	r      *io.SectionReader
	read   int64 // bytes
	buffer []byte
}

// Sizes of what is read at a time, in bytes: of one line, and of many, for which it grows.
const (
	lineBytes      = 1 << 10
	firstReadBytes = 32 << 10
)

// text reads what is between two offsets.
func (l *lines) text(from, to int64) ([]byte, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	n := int(to - from)
	if cap(l.buffer) < n {
		l.buffer = make([]byte, n)
	}
	l.read += int64(n)
	_, err := l.r.ReadAt(l.buffer[:n], from)
	return l.buffer[:n], err
}

// at returns the line that begins at an offset.
func (l *lines) at(offset int64) ([]byte, error) {
	for size := int64(lineBytes); ; size *= 4 {
		end := min(offset+size, l.r.Size())
		if offset >= end {
			return nil, fmt.Errorf("there is no line at byte %d", offset)
		}
		text, err := l.text(offset, end)
		if err != nil {
			return nil, err
		}
		if n := bytes.IndexByte(text, '\n') + 1; n > 0 {
			return text[:n], nil
		}
		if end == l.r.Size() {
			return nil, fmt.Errorf("the line at byte %d has no end", offset)
		}
	}
}

// forward calls take with the lines that begin at the offset from, which is the beginning
// of one, and before to, and where they begin.
func (l *lines) forward(from, to int64, take func(line []byte, offset int64) error) error {
	for size := int64(firstReadBytes); from < to; {
		text, err := l.text(from, min(from+size, l.r.Size()))
		if err != nil {
			return err
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1]
		if len(whole) == 0 && from+size >= l.r.Size() {
			return nil // half a line
		}
		if len(whole) == 0 || size < readBytes {
			size *= 2
		}
		for line := range bytes.Lines(whole) {
			if from >= to {
				return nil
			}
			if err := take(line, from); err != nil {
				return err
			}
			from += int64(len(line))
		}
	}
	return nil
}

// backward is forward, the last line first.
func (l *lines) backward(from, to int64, take func(line []byte, offset int64) error) error {
	// The last line may end behind to.
	if 0 < to && to < l.r.Size() {
		last, err := l.at(to - 1)
		if err != nil {
			return err
		}
		to += int64(len(last)) - 1
	}
	for size := int64(firstReadBytes); from < to; {
		begin := max(from, to-size)
		text, err := l.text(begin, to)
		if err != nil {
			return err
		}
		if begin > from {
			// The first line is cut off, unless it happens to begin there.
			cut := bytes.IndexByte(text, '\n') + 1
			if cut == 0 || cut == len(text) {
				size *= 2 // a long line
				continue
			}
			begin, text = begin+int64(cut), text[cut:]
		}
		if to = begin; size < readBytes {
			size *= 2
		}
		for text = text[:bytes.LastIndexByte(text, '\n')+1]; len(text) > 0; {
			start := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
			if err := take(text[start:], begin+int64(start)); err != nil {
				return err
			}
			text = text[:start]
		}
	}
	return nil
}
