package filestore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/recovery"
	"github.com/pylok/pylok/filestore/internal/suspects"
	"github.com/pylok/pylok/lock"
)

// foundOf is a file of a lock as package recovery takes it.
func (r *restart) foundOf(name lock.Name, f lockFile) recovery.Found {
	root := cmp.Or(r.before.Path, r.files.root) // as the last server wrote it
	return recovery.Found{
		Content:  f.Content,
		Exists:   f.exists(),
		Unread:   f.unread,
		ID:       f.print.id(),
		Mtime:    f.mtime,
		Ctime:    time.Unix(0, f.print.ctime),
		Ours:     r.written[f.print.inode],
		Text:     f.text,
		Location: (&files{root: root}).location(name),
	}
}

// judge decides what becomes of a lock whose file was found.
func (r *restart) judge(name lock.Name, f lockFile) recovery.Verdict {
	past, found := r.past[name], r.foundOf(name, f)
	v := r.Judge(past, found, r.asides[hashOf(name)])
	if (v.Remedy == recovery.Adopt || v.Remedy == recovery.Tell) && r.mayBeOurs(name, found) {
		found.Ours = r.isMade(fileOf(name))
		v = r.Judge(past, found, r.asides[hashOf(name)])
	}
	return v
}

// mayBeOurs reports whether a file may be one that a power cut left of a change that nobody
// was told of, or has brought back. The file of another lock, which is held, is not: the
// last server would not have written it for this one, so that somebody has moved it here;
// but where this one has changed since the checkpoint, it may have had that file before.
func (r *restart) mayBeOurs(name lock.Name, found recovery.Found) bool {
	if r.Intact || !r.Unheard || !found.Exists || found.Ours {
		return false
	}
	if r.holders == nil {
		r.holders = make(map[journal.FileID]lock.Name)
		r.locks.Ascend(func(e *entry) bool {
			if r.past[e.lock.Name] == nil {
				r.holders[r.fileOf(e.print.id(), r.snapshotAt)] = e.lock.Name
			}
			return true
		})
		for name, past := range r.past {
			if past.IsHeld() {
				r.holders[past.File] = name
			}
		}
		delete(r.holders, journal.FileID{})
	}
	holder, isHeld := r.holders[found.ID]
	past := r.past[name]
	return !isHeld || holder == name || past != nil && past.Last.Revision > r.Checkpoint
}

// isMade reports whether a file is one that a server made.
func (r *restart) isMade(file string) bool {
	f, err := disk.OpenRegular(r.files, file, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	stat, err := f.Stat()
	return err == nil && f.IsMade(stat)
}

// compareAll calls act with the verdict on every lock that has a file or a history,
// but for those whose files are as the snapshot knows them.
func (r *restart) compareAll(ctx context.Context, act func(lock.Name, lockFile, recovery.Verdict) error) error {
	suspects, unreadable, err := r.findSuspects(ctx)
	if err != nil {
		return err
	}
	r.read = len(suspects)
	seen := make(map[lock.Name]bool, len(suspects))
	for _, s := range suspects {
		seen[s.name] = true
	}
	err = r.readAll(suspects, func(name lock.Name, found lockFile) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.noteToken(found.Token)
		r.pastOf(name)
		return act(name, found, r.judge(name, found))
	})
	if err != nil {
		return err
	}
	for _, name := range slices.SortedFunc(maps.Keys(r.past), lock.Name.Compare) {
		if seen[name] {
			continue
		}
		found := lockFile{}
		v := r.judge(name, found)
		hidden := slices.ContainsFunc(unreadable, func(dir string) bool { return strings.HasPrefix(name.String(), dir) })
		if past := r.past[name]; hidden && past.IsHeld() {
			v = recovery.Verdict{Remedy: recovery.Keep, Lock: past.Hold}
			found = lastFile(past)
		}
		if err := act(name, found, v); err != nil {
			return err
		}
	}
	return nil
}

// unread is a lock whose file has to be read.
type unread struct {
	name  lock.Name
	known *entry // by the snapshot; nil: nothing
}

// findSuspects lists all directories and finds the lock files that are not as the
// snapshot knows them, or that the journal has something to say of. The locks of the
// snapshot that have no file get a history. unreadable is directories, with a slash,
// that could not be read.
func (r *restart) findSuspects(ctx context.Context) (toRead []unread, unreadable []string, err error) {
	var mu sync.Mutex
	var present []*entry // whose files are there
	strays, err := r.files.walk(func(l listing) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var known []*entry
		var unlike []unread
		probe := new(entry) // for all of them: an entry is large
		for _, file := range l.locks {
			probe.key = file.name.String()
			e, found := r.locks.Get(probe)
			if found {
				known = append(known, e)
			}
			if r.past[file.name] != nil || !r.isAsKnown(e, file.base, l.at) {
				unlike = append(unlike, unread{file.name, e})
			}
		}
		mu.Lock()
		defer mu.Unlock()
		present = append(present, known...)
		toRead = append(toRead, unlike...)
		r.dirs[l.dir] = l.Directory
		return nil
	}, func(dir string, err error) {
		unreadable = append(unreadable, dir+"/")
		mu.Lock()
		defer mu.Unlock()
		r.dirs[dir] = suspects.Directory{Fresh: true} // the poller is to try again
		r.unlisted[dir] = err
		r.complaints.Unreadable(dir, err)
	})
	if err != nil {
		return nil, nil, err
	}
	if strays > 0 {
		r.config.Logger.Info("files that are no lock files are left alone", "count", strays)
	}
	if len(present) < r.locks.Len() {
		seen := make(map[*entry]bool, len(present))
		for _, e := range present {
			seen[e] = true
		}
		r.locks.Ascend(func(e *entry) bool {
			if !seen[e] {
				r.pastOf(e.lock.Name)
			}
			return true
		})
	}
	slices.SortFunc(toRead, func(a, b unread) int { return a.name.Compare(b.name) })
	return toRead, unreadable, nil
}

// isAsKnown reports whether a file is as the snapshot knows it.
func (r *restart) isAsKnown(e *entry, base string, at disk.Dir) bool {
	if e == nil || !e.print.isKnown() {
		return false
	}
	now, err := at.Lstat(base)
	return err == nil && e.print.matches(fingerprintOf(now)) && !r.written[now.Inode]
}

// readChunk is how many files a processor reads at a time.
const readChunk = 64

// readAll reads the files of suspects, on all processors, and calls take with each in
// turn.
func (r *restart) readAll(suspects []unread, take func(lock.Name, lockFile) error) error {
	type chunk struct {
		suspects []unread
		found    []lockFile
		err      error
		done     chan struct{} // closed when all of it is read
	}
	read := func(c *chunk) {
		defer close(c.done)
		held := r.files.Hold()
		defer held.Drop()
		here := files{FS: held, root: r.files.root}
		for _, s := range c.suspects {
			found, err := here.read(s.name, s.known)
			if err != nil {
				c.err = fmt.Errorf("looking at the lock file of %s: %w", s.name, err)
				return
			}
			c.found = append(c.found, found)
		}
	}
	var reading []*chunk // in order
	defer func() {
		for _, c := range reading { // after an error
			<-c.done
		}
	}()
	for rest := suspects; len(rest) > 0 || len(reading) > 0; {
		for len(rest) > 0 && len(reading) <= runtime.GOMAXPROCS(0) {
			n := min(readChunk, len(rest))
			c := &chunk{suspects: rest[:n], done: make(chan struct{})}
			rest = rest[n:]
			reading = append(reading, c)
			go read(c)
		}
		c := reading[0]
		reading = reading[1:]
		<-c.done
		for i, found := range c.found {
			if err := take(c.suspects[i].name, found); err != nil {
				return err
			}
		}
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// lastFile is what a past knows of the hold's file.
func lastFile(past *recovery.Past) (f lockFile) {
	id, token := past.LastFile()
	f.print, f.Token = fingerprint{inode: id.Inode, birth: id.Birth}, token
	return f
}
