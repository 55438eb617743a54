// Package recovery decides what becomes of a lock when a store starts, by what its
// journal says and what its file does. It looks at nothing and changes nothing.
//
// Up to the checkpoint the files are right: where they differ from the journal, somebody
// changed them while no server ran. After it the journal is right about the files that the
// server wrote, since a power cut may have undone that. A file that the journal does not
// know is somebody's, and never destroyed.
package recovery

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// Start is what is the same for all locks of a start.
type Start struct {
	// Checkpoint is the revision up to which the lock files are durable.
	Checkpoint lock.Revision
	// End is the last revision of the journal.
	End lock.Revision
	// Intact: no file has lost what was written to it.
	Intact bool
	// Unsynced: the files may lose it although they show it.
	Unsynced bool
	// Unheard: there may be files of changes that are not in the journal, since nobody
	// was told of them. There are none after a clean stop.
	Unheard bool
}

// Found is a file as a start found it. The zero Found is that there is none.
type Found struct {
	lockfile.Content
	Exists bool
	// Unread: what the file says is not known, as the Problem says.
	Unread bool
	ID     journal.FileID
	// Mtime is when it was written, and Ctime when it, or its name, was changed.
	Mtime, Ctime time.Time
	// Ours: a server made the file, and it is not that of another lock that is held.
	Ours bool
	// Text is what a regular file that could be read says.
	Text []byte
	// Location is what the server writes into the file of this lock as its place.
	Location string
}

// Aside is a file that the last server has left in its own directory: it had moved it out
// of the lock's place.
type Aside struct {
	Found
	Name string
	// Alone: nothing was to take its place.
	Alone bool
}

// Remedy is what is done about a lock whose file and past are compared.
type Remedy uint8

const (
	Nothing Remedy = iota // the lock is free, and so says everything
	Keep                  // the hold stands, and so does its file
	Rewrite               // the hold stands; its file is written again
	PutBack               // the hold stands; its file gets its place again
	Remove                // the lock is free; its file is removed
	Tell                  // others changed the file: that becomes an event
	Adopt                 // others made the file: it becomes an anonymous hold
)

// Verdict is what becomes of a lock.
type Verdict struct {
	Remedy Remedy
	Why    string         // in words, for people; empty: all is well
	Lock   lock.Lock      // the hold, for Keep, Rewrite and PutBack; the lock after, for Tell
	Event  lock.EventType // for Tell and Adopt
	Aside  string         // for PutBack: the name of the file
}

// Consequence says what the start does.
func (v Verdict) Consequence() string {
	switch v.Remedy {
	case Rewrite:
		return fmt.Sprintf("it will be written again, with token %d", v.Lock.Token)
	case PutBack:
		return fmt.Sprintf("it will be put back, with token %d", v.Lock.Token)
	case Remove:
		return "it will be removed"
	}
	switch v.Event {
	case lock.Unlocked:
		return fmt.Sprintf("the hold with token %d will be over", v.Lock.Token)
	case lock.Updated:
		return fmt.Sprintf("the hold with token %d will have its data", v.Lock.Token)
	}
	return "it will be an anonymous hold with a new token"
}

// timeGrain is what an event's time is rounded down by.
const timeGrain = time.Millisecond

// Judge decides what becomes of a lock by its past, which may be nil, its file, and the
// files that were moved out of its place.
func (s Start) Judge(past *Past, found Found, asides []Aside) Verdict {
	v := lockCase{Start: s, Past: past, found: found, recent: past != nil && past.Last.Revision > s.Checkpoint}.judge(asides)
	if v.Remedy == Keep && s.Unsynced && past != nil && !past.ByFile && past.Last.Revision > s.Checkpoint {
		v.Remedy, v.Why = Rewrite, "the last server could not make the lock file durable"
	}
	return v
}

// lockCase is a lock that is judged.
type lockCase struct {
	Start
	*Past
	found  Found
	recent bool // its last change is not known to be durable
}

// judge is Judge for files that are what they show.
func (c lockCase) judge(asides []Aside) Verdict {
	var aside string
	var changed bool
	if c.IsHeld() && (!c.found.Exists || !c.isAsHeld(c.found) || c.isOtherwiseStale()) {
		aside, changed = c.movedOut(asides)
	}
	found := c.found
	switch {
	case !found.Exists && !c.IsHeld():
		return Verdict{}

	case !found.Exists && c.recent && !c.ByFile:
		return c.rewrite("the lock file of a recent hold is missing")

	case aside != "" && !changed:
		return Verdict{Remedy: PutBack, Why: "the lock was being changed when the server stopped", Lock: c.Hold, Aside: aside}

	case !found.Exists:
		return Verdict{Remedy: Tell, Why: "the lock file was removed while no server ran", Lock: c.Hold, Event: lock.Unlocked}

	case !c.IsHeld() && c.isUnheard():
		return Verdict{Remedy: Remove, Why: "the lock was being granted or released when the server stopped"}

	case c.IsHeld() && !c.isAsHeld(found) && !changed && c.isUnheard():
		return c.rewrite("the lock file was being written when the server stopped")

	case found.Unread && c.IsHeld() && c.recent && !c.ByFile:
		return c.rewrite("the lock file of a recent hold cannot be read")

	case found.Unread && c.IsHeld(): // what it says is found when it can be read
		return Verdict{Remedy: Keep, Lock: c.Hold}

	case c.IsHeld():
		return c.judgeHold()

	case c.recent && (c.knows(found.Token) && !found.Mtime.After(c.Last.Time.Add(timeGrain)) || c.isTorn() || c.isBack() || c.had(found.ID)):
		return Verdict{Remedy: Remove, Why: "the lock file of a released hold came back"}

	case c.Past == nil && found.Token != 0:
		return adopt("the lock file is of no hold that the history knows")
	}
	return adopt("the lock file was made while no server ran")
}

// judgeHold is judge for a lock that is held by its past and has a file.
func (c lockCase) judgeHold() Verdict {
	own := c.isOwn(c.found)
	switch {
	case c.isAsHeld(c.found) && c.recent && !c.Edited && c.isOtherwiseStale():
		return c.rewrite("the lock file of a hold that became stale does not say so")

	case c.isAsHeld(c.found):
		return Verdict{Remedy: Keep, Lock: c.Hold}

	case own && c.recent && !c.ByFile:
		return c.rewrite("the lock file does not have the latest data of a recent hold")

	case !own && c.recent && !c.ByFile && c.knows(c.found.Token), c.isBack():
		return c.rewrite("the lock file is that of a hold before")

	case c.isTorn(), c.isBehind():
		return c.rewrite("the lock file of a recent hold is half written")

	case own, c.isSameFile(c.found), c.ByFile && !c.knows(c.found.Token):
		edited := c.Hold.WithData(c.found.Data)
		edited.Problem, edited.Tree = c.found.Problem, c.isTree(c.found)
		return Verdict{Remedy: Tell, Why: "the lock file was edited while no server ran", Lock: edited, Event: lock.Updated}
	}
	return adopt("the lock file was replaced while no server ran")
}

func (c lockCase) rewrite(why string) Verdict {
	return Verdict{Remedy: Rewrite, Why: why, Lock: c.Hold}
}

func adopt(why string) Verdict { return Verdict{Remedy: Adopt, Why: why, Event: lock.Locked} }

// isAsHeld reports whether a file says what the past does.
func (c lockCase) isAsHeld(found Found) bool {
	isOf := c.isOwn(found) || c.ByFile || c.isSameFile(found) || c.Edited && c.File == (journal.FileID{})
	return isOf && c.says(found)
}

// isOtherwiseStale reports whether the file is the hold's as the server has written it before
// the hold became stale, or for a change that the past does not know; or somebody has
// edited that line, which means nothing.
func (c lockCase) isOtherwiseStale() bool {
	return c.isOwn(c.found) && !c.ByFile && c.found.Problem == "" && !c.found.StaleTime.Equal(c.Hold.StaleTime)
}

// isSameFile reports whether a file is certainly the hold's, be it edited. The server
// writes its files again for other holds, and a power cut may bring back what they said:
// so of one that was written since the checkpoint only a text without a token counts.
func (c lockCase) isSameFile(found Found) bool {
	return c.File != (journal.FileID{}) && c.File == found.ID && (c.Intact || !c.recent || found.Token == 0)
}

// isUnheard reports whether the file is of a change that the journal does not have, since
// nobody was told of it: its token is one that only such a change can have been given, and
// it says what the server writes in this place. After a power cut it may say anything; then
// it is one that a server made, and not the hold's own.
func (c lockCase) isUnheard() bool {
	switch {
	case !c.Unheard:
		return false
	case lock.Revision(c.found.Token) > c.End:
		return c.found.Ours || c.found.isWritten()
	case c.Intact || !c.found.Ours:
		return false
	case !c.IsHeld():
		return true
	case c.File == (journal.FileID{}):
		return !c.found.Mtime.After(c.latest())
	}
	return c.File != c.found.ID
}

// isBehind reports whether the file is the hold's own, and a power cut has left of it what
// it said before, or a mixture: nobody has written to it since the server has, or it has
// bytes that were never written, which nobody leaves who edits it. By its time alone it
// cannot be told on a machine that is slow to write.
func (c lockCase) isBehind() bool {
	if !c.recent || c.ByFile || c.File == (journal.FileID{}) || c.File != c.found.ID {
		return false
	}
	return !c.found.Mtime.After(c.latest()) || !c.Intact && bytes.IndexByte(c.found.Text, 0) >= 0
}

// latest is when the server has written the hold's file, or removed that of the last one,
// at the latest.
func (c lockCase) latest() time.Time {
	latest := c.Last.Time.Add(timeGrain)
	if c.IsHeld() {
		latest = latest.Add(time.Second) // the file is written after the event's time
	}
	return latest
}

// isWritten reports whether the file says what the server writes there, to the byte.
func (f Found) isWritten() bool {
	l := lock.Lock{
		Data: f.Data, Token: f.Token, Holder: f.Holder, Caller: f.Caller, AcquireTime: f.AcquireTime,
		TTL: f.TTL, ExpireTime: f.ExpireTime, RequestID: f.RequestID,
		Tree: f.Tree, Set: f.Set, OnExpiry: f.OnExpiry, StaleTime: f.StaleTime,
	}
	return f.Problem == "" && bytes.Equal(f.Text, lockfile.Append(nil, l, f.Location))
}

// movedOut returns where the last server moved the file of a hold that the journal knows,
// for a change that it does not know; empty: nowhere. It also reports whether somebody has
// changed since then what that server left in the place: removed the file that took it, or
// edited it.
func (c lockCase) movedOut(asides []Aside) (name string, changed bool) {
	if found := c.found; found.Exists && !found.Ours && !(found.isWritten() && (c.isOwn(found) || lock.Revision(found.Token) > c.End)) {
		return "", false // it was replaced
	}
	for _, aside := range asides {
		switch {
		case !aside.Exists || !c.isFileOf(aside):
		case !c.found.Exists:
			return aside.Name, !aside.Alone
		case c.found.Ours && !c.Intact && (aside.Alone || c.found.Mtime.After(aside.Ctime)):
			// Two changes that nobody was told of, one after the other: the next batch
			// makes files before the journal has the last one for good. That the file is
			// younger than the first of them tells of no edit.
			return "", false
		default: // when the one took the place of the other
			return aside.Name, c.found.Mtime.After(aside.Ctime)
		}
	}
	return "", false
}

// isFileOf reports whether a file that was moved out of the lock's place is the hold's.
func (c lockCase) isFileOf(aside Aside) bool {
	if c.File == (journal.FileID{}) {
		return c.isAsHeld(aside.Found)
	}
	return c.File == aside.ID || aside.Alone && c.isOwn(aside.Found)
}

// IsSomebodys reports whether a file that was moved out of the place of a lock with a past
// is none that a server made or knew as the hold's.
func (s Start) IsSomebodys(past *Past, aside Found) bool {
	if !aside.Exists || aside.Token != 0 || aside.Ours {
		return false
	}
	c := lockCase{Start: s, Past: past, recent: past != nil && past.Last.Revision > s.Checkpoint}
	return past == nil || !c.isSameFile(aside) && !c.says(aside)
}

// isTorn reports whether the file is what a power cut left of a file that the server wrote
// for the lock since the checkpoint: it is not younger than the past, and each byte is what
// was written there or was never written. Lock files are not synced one by one.
func (c lockCase) isTorn() bool {
	if c.Intact || c.found.Token != 0 || c.found.Text == nil || c.found.Mtime.After(c.latest()) {
		return false
	}
	return slices.ContainsFunc(c.versions, func(l lock.Lock) bool {
		return l.Revision > c.Checkpoint && isTornOf(c.found.Text, lockfile.Append(nil, l, c.found.Location))
	})
}

// isTornOf reports whether text is what is left of a file that was being written.
func isTornOf(text, written []byte) bool {
	if len(text) > len(written) {
		return false
	}
	for i, c := range text {
		if c != 0 && c != written[i] {
			return false
		}
	}
	return len(text) < len(written) || bytes.IndexByte(text, 0) >= 0
}

// isBack reports whether the file is one that somebody wrote and the server has removed or
// replaced since the checkpoint: it is not younger than that, and says the same.
func (c lockCase) isBack() bool {
	if c.Last.Cause == lock.File || c.found.Mtime.After(c.Last.Time.Add(timeGrain)) {
		return false
	}
	return slices.ContainsFunc(c.byHand, func(before replaced) bool {
		return before.at > c.Checkpoint && before.Data == c.found.Data && before.Problem == c.found.Problem && before.Tree == c.found.IsTree(before.Lock, c.found.Location)
	})
}
