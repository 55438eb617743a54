// Package complaints logs what goes wrong again and again: once for each thing and place,
// again when its cause changes, when it is well again and every hour, with how often it was.
package complaints

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
)

const (
	// repeatAfter is when what is still wrong is logged again.
	repeatAfter = time.Hour
	// restAfter is how long what is well again may go wrong again without a line.
	restAfter = time.Minute
	// mostPlaces is how many places are logged one by one where the same is wrong.
	mostPlaces = 100
)

// Log is what has been complained of in a log. Its methods may be called at any time by
// anybody.
type Log struct {
	log  *slog.Logger
	open atomic.Int32 // things that are wrong

	mu    sync.Mutex
	about map[complaint]*complained
	count map[string]int // of them, by what is wrong
}

// complaint is that something is wrong at a place, which is a directory in the root, or
// empty.
type complaint struct{ what, place string }

type complained struct {
	cause  string    // now; empty: it is well
	logged string    // what the log says
	at     time.Time // of that line
	times  int       // that it was wrong, since it was well
}

// New returns a Log that writes to log.
func New(log *slog.Logger) *Log {
	return &Log{log: log, about: make(map[complaint]*complained), count: make(map[string]int)}
}

// Bad notes that something is wrong at a place, because of err. A line in the log has
// details too, as slog takes them.
func (c *Log) Bad(what, place string, err error, details ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cause := disk.ReasonOf(err)
	about := complaint{what, place}
	if c.about[about] == nil && place != "" && c.count[what] >= mostPlaces {
		about.place, cause = "", "in more places"
	}
	now := time.Now()
	t := c.about[about]
	if t == nil {
		c.tidy(now)
		t = &complained{}
		c.about[about] = t
		c.count[what]++
	}
	if t.cause == "" {
		c.open.Add(1)
		t.times = 0
	}
	t.cause = cause
	t.times++
	switch age := now.Sub(t.at); {
	case t.logged == cause && age < repeatAfter:
	case t.logged == "" && !t.at.IsZero() && age < restAfter:
	default:
		t.logged, t.at = cause, now
		c.log.Warn(what, attributes(about, append([]any{"error", cause, "times", t.times}, details...)...)...)
	}
}

// Well notes that something is not wrong at a place.
func (c *Log) Well(what, place string) {
	if c.open.Load() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	about := complaint{what, place}
	t := c.about[about]
	if t == nil || t.cause == "" {
		return
	}
	c.open.Add(-1)
	t.cause = ""
	if t.logged != "" {
		t.logged, t.at = "", time.Now()
		c.log.Info("no longer: "+what, attributes(about, "times", t.times)...)
	}
}

// Forget notes that a place is not there any more.
func (c *Log) Forget(what, place string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.about[complaint{what, place}]; t != nil {
		c.drop(complaint{what, place}, t)
	}
}

// tidy drops what has been well for some time.
func (c *Log) tidy(now time.Time) {
	for about, t := range c.about {
		if t.cause == "" && now.Sub(t.at) >= restAfter {
			c.drop(about, t)
		}
	}
}

func (c *Log) drop(about complaint, t *complained) {
	delete(c.about, about)
	c.count[about.what]--
	if t.cause != "" {
		c.open.Add(-1)
	}
}

func attributes(about complaint, more ...any) []any {
	if about.place == "" {
		return more
	}
	return append([]any{"directory", about.place}, more...)
}

// What goes wrong again and again.
const (
	UnreadableDirectory = "a directory cannot be read; its locks are as they were known, and what changes in it stays unseen"
	NoDescriptors       = "lock files cannot be read now; they are read again later"
	NoNotifications     = "no notifications of directories; polling alone finds changes in them"
	NoIndex             = "the history cannot be indexed; to ask for what happened to one lock takes longer"
	NoCheckpoint        = "no checkpoint could be made; a start after a crash takes longer"
	NotTakenIn          = "what others did to lock files cannot be taken in; it is looked at again later"
	NotCleaned          = "cleaning up"
	NotReserved         = "revisions cannot be reserved; when those are used up that are, no change will be made"
	NotMarkedOutside    = "the mark outside the root cannot be written; an older copy of the root may not be told from it"
)

// Unreadable notes that a directory cannot be read.
func (c *Log) Unreadable(dir string, err error) {
	if disk.IsExhausted(err) {
		c.Bad(NoDescriptors, "", err)
	} else {
		c.Bad(UnreadableDirectory, dir, err)
	}
}

// Result notes what came of something that goes wrong at no place of its own.
func (c *Log) Result(what string, err error) {
	if err == nil {
		c.Well(what, "")
	} else {
		c.Bad(what, "", err)
	}
}
