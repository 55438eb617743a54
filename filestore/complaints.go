package filestore

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// repeatAfter is when what is still wrong is logged again.
	repeatAfter = time.Hour
	// restAfter is how long what is well again may go wrong again without a line.
	restAfter = time.Minute
	// mostPlaces is how many places are logged one by one where the same is wrong.
	mostPlaces = 100
)

// complaints logs what goes wrong again and again: once for each thing and place, again
// when its cause changes, when it is well again and every hour, with how often it was.
type complaints struct {
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

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, about: make(map[complaint]*complained), count: make(map[string]int)}
}

// bad notes that something is wrong at a place, because of err.
func (c *complaints) bad(what, place string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cause := reasonOf(err)
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
		c.log.Warn(what, attributes(about, "error", cause, "times", t.times)...)
	}
}

// well notes that something is not wrong at a place.
func (c *complaints) well(what, place string) {
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

// forget notes that a place is not there any more.
func (c *complaints) forget(what, place string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.about[complaint{what, place}]; t != nil {
		c.drop(complaint{what, place}, t)
	}
}

// tidy drops what has been well for some time.
func (c *complaints) tidy(now time.Time) {
	for about, t := range c.about {
		if t.cause == "" && now.Sub(t.at) >= restAfter {
			c.drop(about, t)
		}
	}
}

func (c *complaints) drop(about complaint, t *complained) {
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
	unreadableDirectory = "a directory cannot be read; its locks are as they were known, and what changes in it stays unseen"
	noDescriptors       = "lock files cannot be read now; they are read again later"
	noNotifications     = "no notifications of directories; polling alone finds changes in them"
	noCheckpoint        = "no checkpoint could be made; a start after a crash takes longer"
	notTakenIn          = "what others did to lock files cannot be taken in; it is looked at again later"
	notCleaned          = "cleaning up"
	notReserved         = "revisions cannot be reserved; when those are used up that are, no change will be made"
	notMarkedOutside    = "the mark outside the root cannot be written; an older copy of the root may not be told from it"
)

// unreadable notes that a directory cannot be read.
func (c *complaints) unreadable(dir string, err error) {
	if isOurs(err) {
		c.bad(noDescriptors, "", err)
	} else {
		c.bad(unreadableDirectory, dir, err)
	}
}

// result notes what came of something that goes wrong at no place of its own.
func (c *complaints) result(what string, err error) {
	if err == nil {
		c.well(what, "")
	} else {
		c.bad(what, "", err)
	}
}
