package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

const (
	// auditQueue is how many lines wait for the disk; more are dropped, and counted in
	// the file.
	auditQueue = 4096
	// refusalsASecond and refusalsAtOnce are how many refusals are written; more are
	// dropped likewise, lest who is refused fill the disk.
	refusalsASecond, refusalsAtOnce = 50, 1000
	// maxAuditText is how long a text in a line may be.
	maxAuditText = 512
	// auditGrace is how long Close waits for the disk.
	auditGrace = 500 * time.Millisecond
)

// Audit writes what was refused, and each Act, to a file that
// it appends to: one JSON object a line. It never holds anybody up: what the disk does not
// take in time is dropped, and a line says how many were. The nil Audit writes nothing.
type Audit struct {
	path     string
	logger   *slog.Logger
	refusals *rate.Limiter

	lines chan auditLine
	ended chan struct{} // closed when the last line is written

	mu      sync.Mutex
	reopen  bool // the file is to be opened anew, and the queue had no room to say so
	closed  bool
	dropped int // since the file said so last
	total   int // ever

	file   io.WriteCloser // only the writer uses these
	torn   bool           // the file ends within a line
	broken bool           // the last line could not be written
}

// auditLine is one object of the file, or with reopen the order to open it anew.
type auditLine struct {
	Time    time.Time `json:"time"`
	Caller  string    `json:"caller,omitempty"`
	Proof   string    `json:"proof,omitempty"`
	Peer    string    `json:"peer,omitempty"`
	Verb    string    `json:"verb,omitempty"`
	Name    string    `json:"name,omitempty"`
	Act     Act       `json:"act,omitempty"`
	To      string    `json:"to,omitempty"`
	Allowed bool      `json:"allowed"`
	Reason  string    `json:"reason,omitempty"`

	reopen bool
}

// OpenAudit opens the file, which is made with mode 0600 if it is not there. An empty path:
// no audit, nil.
func OpenAudit(path string, logger *slog.Logger) (*Audit, error) {
	if path == "" {
		return nil, nil
	}
	a := &Audit{
		path:     path,
		logger:   logger,
		refusals: rate.NewLimiter(refusalsASecond, refusalsAtOnce),
		lines:    make(chan auditLine, auditQueue),
		ended:    make(chan struct{}),
	}
	file, err := openAuditFile(path)
	if err != nil {
		return nil, err
	}
	a.file, a.torn = file, isTorn(path)
	go a.write()
	return a, nil
}

func openAuditFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the audit file: %w", err)
	}
	return f, nil
}

// isTorn reports whether a file ends within a line, as one that the disk had no room for.
func isTorn(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // lest a pipe hang
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	last := []byte{0}
	_, err = f.ReadAt(last, info.Size()-1)
	return err == nil && last[0] != '\n'
}

// Record writes what somebody asked for.
func (a *Audit) Record(r Record) {
	if a == nil {
		return
	}
	verb := ""
	if r.Verb != 0 {
		verb = r.Verb.String()
	}
	a.add(auditLine{
		Time:    r.Time.UTC().Truncate(time.Millisecond),
		Caller:  short(r.Caller.Name),
		Proof:   r.Caller.Proof,
		Peer:    short(r.Caller.Peer),
		Verb:    verb,
		Name:    short(r.Name),
		Act:     r.Act,
		To:      short(r.To),
		Allowed: r.Allowed,
		Reason:  short(r.Reason),
	})
}

func short(text string) string {
	if len(text) > maxAuditText {
		return text[:maxAuditText] + "..."
	}
	return text
}

// add queues a line, or counts it as dropped.
func (a *Audit) add(line auditLine) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	if line.Allowed || a.refusals.Allow() {
		select {
		case a.lines <- line:
			return
		default:
		}
	}
	a.dropped++
	a.total++
}

// Reopen opens the file anew, as after it was moved away, once the lines that wait are
// written.
func (a *Audit) Reopen() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	select {
	case a.lines <- auditLine{reopen: true}:
	default:
		a.reopen = true
	}
}

// isToReopen reports whether the queue had no room for the order to open the file anew.
func (a *Audit) isToReopen() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	is := a.reopen
	a.reopen = false
	return is
}

// Dropped returns how many lines were dropped, ever.
func (a *Audit) Dropped() int {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// Close writes the lines that wait, unless that takes long, and closes the file.
func (a *Audit) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.lines)
	}
	a.mu.Unlock()
	select {
	case <-a.ended:
		return nil
	case <-time.After(auditGrace):
		return errors.New("the audit file's disk hangs; the last lines may be missing")
	}
}

// write writes lines until the last.
func (a *Audit) write() {
	defer close(a.ended)
	for line := range a.lines {
		if line.reopen || a.isToReopen() {
			a.openAnew()
		}
		if !line.reopen {
			a.writeLine(line)
		}
	}
	a.tellDropped()
	if err := a.file.Close(); err != nil {
		a.fail(err)
	}
}

func (a *Audit) writeLine(line auditLine) {
	a.tellDropped()
	if !a.append(line) {
		a.drop(1, 1)
	}
}

// tellDropped writes how many lines were dropped since the file said so last.
func (a *Audit) tellDropped() {
	a.mu.Lock()
	dropped := a.dropped
	a.dropped = 0
	a.mu.Unlock()
	if dropped > 0 && !a.append(map[string]any{"time": time.Now().UTC().Truncate(time.Millisecond), "dropped": dropped}) {
		a.drop(dropped, 0)
	}
}

func (a *Audit) openAnew() {
	file, err := openAuditFile(a.path)
	if err != nil {
		a.fail(err)
		return
	}
	if err := a.file.Close(); err != nil {
		a.fail(err)
	}
	a.file, a.broken, a.torn = file, false, isTorn(a.path)
	a.logger.Info("the audit file was opened anew", "file", a.path)
}

// drop counts lines that the file does not have, and of them those that nobody has counted.
func (a *Audit) drop(lines, anew int) {
	a.mu.Lock()
	a.dropped += lines
	a.total += anew
	a.mu.Unlock()
}

// append writes one object, and reports whether it could.
func (a *Audit) append(object any) bool {
	written := 0
	text, err := json.Marshal(object)
	if err == nil {
		text = append(text, '\n')
		if a.torn { // what is there of that line must not spoil this one
			text = append([]byte("\n"), text...)
		}
		written, err = a.file.Write(text)
		if written > 0 {
			a.torn = text[written-1] != '\n'
		}
	}
	if err != nil {
		a.fail(err)
		return written == len(text)-1 && written > 0 // all but the end of the line
	}
	a.broken = false
	return true
}

// fail says once that the file cannot be written.
func (a *Audit) fail(err error) {
	if !a.broken {
		a.logger.Error("the audit file cannot be written; lines are dropped until it can", "file", a.path, "error", err)
	}
	a.broken = true
}
