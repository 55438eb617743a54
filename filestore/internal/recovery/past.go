package recovery

import (
	"slices"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// Past is what the journal and the snapshot say of one lock. A nil Past is that of a lock
// of which they say nothing.
type Past struct {
	Last lock.Event
	// Hold is the present or last hold, with the terms that it was renewed with.
	Hold lock.Lock
	// Extended: these terms are not those in the hold's file.
	Extended bool
	// ByFile: somebody else made the hold's file.
	ByFile bool
	// Edited: somebody has edited the hold's file, and its lock_token may be gone.
	Edited bool
	// File is the hold's; zero: not known.
	File journal.FileID

	tokens []lock.Token
	// versions is what the hold's file has said since the checkpoint: a power cut may
	// leave any of it, torn.
	versions []lock.Lock
	// byHand is what somebody wrote into the file and the server, or somebody, replaced
	// since the checkpoint: a power cut may bring it back.
	byHand []replaced
	// files is those that the lock has had since the checkpoint: a power cut may bring
	// back one of them, whatever it says by then, since the server writes its files again.
	files []hadFile
}

// hadFile is a file that a lock had, up to a revision.
type hadFile struct {
	journal.FileID
	until lock.Revision
}

// replaced is a version of a lock's file that another has taken the place of.
type replaced struct {
	lock.Lock
	at lock.Revision // of what replaced it
}

// Snapshot returns the past of a lock that a snapshot says is held.
func Snapshot(hold lock.Lock, byFile, edited, extended bool, file journal.FileID) *Past {
	return &Past{
		Last:     lock.Event{Revision: hold.Revision, Time: hold.AcquireTime, Type: lock.Locked, Lock: hold},
		Hold:     hold,
		Extended: extended,
		ByFile:   byFile,
		Edited:   edited,
		File:     file,
		tokens:   []lock.Token{hold.Token},
	}
}

// Add takes in the next event of the lock. Of a lock that is held after it, file is the
// hold's file. What the files said before the checkpoint, which is the last one before the
// event, no power cut brings back.
func (p *Past) Add(event lock.Event, file journal.FileID, checkpoint lock.Revision) {
	if p.IsHeld() && p.ByFile {
		p.byHand = append(p.byHand, replaced{p.Hold, event.Revision})
	}
	if p.IsHeld() {
		p.files = append(p.files, hadFile{p.File, event.Revision})
	}
	p.Last, p.Extended = event, false
	switch event.Type {
	case lock.Locked:
		p.Edited = false
		p.ByFile = event.Cause == lock.File
		p.tokens = append(p.tokens, event.Lock.Token)
	case lock.Updated:
		p.Edited = event.Cause == lock.File
		p.ByFile = p.ByFile && event.Cause == lock.File
	}
	for len(p.versions) > 0 && p.versions[0].Revision <= checkpoint {
		p.versions = p.versions[1:]
	}
	for len(p.files) > 0 && p.files[0].until <= checkpoint {
		p.files = p.files[1:]
	}
	for len(p.byHand) > 0 && p.byHand[0].at <= checkpoint {
		p.byHand = p.byHand[1:]
	}
	if event.Type == lock.Unlocked {
		return
	}
	p.Hold, p.File = event.Lock, file
	if event.Cause != lock.File {
		p.versions = append(p.versions, event.Lock)
	}
}

// Extend takes in the terms of a renewal.
func (p *Past) Extend(terms lock.Lock) {
	if terms.Token == p.Hold.Token {
		p.Hold.TTL, p.Hold.ExpireTime, p.Extended = terms.TTL, terms.ExpireTime, true
	}
}

// IsHeld reports whether the lock is held.
func (p *Past) IsHeld() bool { return p != nil && p.Last.Type != lock.Unlocked }

// had reports whether the lock has, or had since the checkpoint, a file.
func (p *Past) had(file journal.FileID) bool {
	if p == nil || file == (journal.FileID{}) {
		return false
	}
	return p.IsHeld() && p.File == file || slices.ContainsFunc(p.files, func(f hadFile) bool { return f.FileID == file })
}

func (p *Past) knows(token lock.Token) bool {
	return p != nil && token != 0 && slices.Contains(p.tokens, token)
}

// isOwn reports whether a file has the hold's token.
func (p *Past) isOwn(found Found) bool {
	return found.Token != 0 && found.Token == p.Hold.Token
}

// says reports whether a file says what the past does.
func (p *Past) says(found Found) bool {
	return p.Hold.Data == found.Data && p.Hold.Problem == found.Problem && p.Hold.Tree == p.isTree(found)
}

// isTree reports whether a file, as one of the hold's, stands for a tree.
func (p *Past) isTree(found Found) bool { return found.IsTree(p.Hold, found.Location) }

// LastFile is what the past knows of the hold's file.
func (p *Past) LastFile() (file journal.FileID, token lock.Token) {
	if !p.ByFile && !p.Edited {
		token = p.Hold.Token
	}
	return p.File, token
}
