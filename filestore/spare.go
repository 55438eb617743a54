package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// mostWritten is how many of the files that the server wrote last keep their second
// name, by default, and so how many stand by to be written again.
const mostWritten = 1024

// restWritten is how many other files are written before one is written again: who is
// about to open a file by a name that goes at this moment has that long to do so.
const restWritten = 64

// mostSpare is the size, in bytes, up to which a file stands by.
const mostSpare = 4096

// mostOpen is how many of the files stay open until they are written again, which
// takes half as long then; or an eighth of the descriptors that the process may have, if
// that is fewer.
const mostOpen = 512

func mostOpenHere() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(mostOpen, limit.Cur/8))
}

// written is the files that the server wrote last, each under a second name besides
// its lock file's, NUMBER.new in .pylok. The second name tells a start after a crash
// that a file is the server's, and that what it says may be out of date.
//
// It also saves most of the work: when a hold is over its file has only that name
// left, and when its turn comes it is written again for another hold. To make a file
// and to forget it costs a file system about as much as all else that a hold asks of
// it; on one without a journal ten times as much (ext4 looks through all that was
// removed in the last minutes for a number that is not of these).
//
// Nobody can tell. A file that has another name still, that somebody has open, or
// whose owner, mode or attributes somebody changed, is let go instead. Who came upon
// the name before it went, and opens the file only after restWritten others have been
// written, would read another lock's.
type written struct {
	files    []writtenFile // the next to be written again first
	most     int           // of them
	open     int           // how many of them are
	mostOpen int
	last     uint64 // number given to a name
	// access is what the first one was made with.
	access access

	// durable is the revision up to which the lock files are durable.
	durable lock.Revision
	// busy is the files whose turn has come and which keep their name until they
	// are durable: because their batch is not answered, or because until then a
	// power cut may leave in their place what they said before.
	busy []writtenFile
}

// access is who may do what with a file, as far as it can be seen at a glance.
type access struct {
	mode       fs.FileMode
	uid, gid   uint32
	attributes int // bytes of their names
}

func accessOf(file disk.File, stat disk.Stat) (access, error) {
	attributes, err := file.Attributes()
	return access{stat.Mode, stat.UID, stat.GID, attributes}, err
}

type writtenFile struct {
	name     string
	file     disk.File     // nil: it is not open
	lock     lock.Name     // that it was written for last
	revision lock.Revision // of the lock
	inode    uint64
	again    bool // it has been written before that
}

// newFile is where the file with a number is written.
func newFile(number uint64) string { return fmt.Sprintf("%s/%d%s", ownDir, number, newSuffix) }

// writeNew writes a complete file for a lock, as of its revision, and returns its
// name in .pylok.
func (s *Store) writeNew(l lock.Lock, text []byte) (name string, p fingerprint, err error) {
	w := &s.written
	if len(w.files) >= min(restWritten, (w.most+1)/2) {
		oldest := w.files[0]
		w.files = w.files[1:]
		isAnswered := oldest.revision <= s.view.Load().revision
		if isAnswered {
			p, err := s.writeAgain(&oldest, text)
			if err == nil {
				oldest.lock, oldest.revision, oldest.again = l.Name, l.Revision, true
				s.keep(oldest)
				return oldest.name, p, nil
			}
			// A hold has it still, or it is not to be used again.
			s.complain(w.close(&oldest))
		}
		switch {
		case len(w.files)+1 < w.most:
			w.files = append(w.files, oldest) // its turn comes again
		case !isAnswered || oldest.again && oldest.revision > w.durable:
			w.busy = append(w.busy, oldest)
		default:
			if err := s.forget(oldest); err != nil {
				return "", fingerprint{}, err
			}
		}
	}
	w.last++
	name = newFile(w.last)
	file, err := s.work.create(name)
	if err != nil {
		return "", fingerprint{}, err
	}
	if w.access == (access{}) {
		var stat disk.Stat
		if stat, err = file.Stat(); err == nil {
			w.access, err = accessOf(file, stat)
		}
	}
	if err == nil {
		p, err = writeText(file, text)
	}
	if err != nil {
		return "", fingerprint{}, errors.Join(err, file.Close(), s.work.Remove(name))
	}
	w.open++
	s.keep(writtenFile{name: name, file: file, lock: l.Name, revision: l.Revision, inode: p.inode})
	return name, p, nil
}

// keep puts a file that has just been written behind the others.
func (s *Store) keep(file writtenFile) {
	w := &s.written
	if w.open > w.mostOpen {
		s.complain(w.close(&file))
	}
	w.files = append(w.files, file)
}

// close closes a file that is open.
func (w *written) close(file *writtenFile) error {
	if file.file == nil {
		return nil
	}
	err := file.file.Close()
	file.file = nil
	w.open--
	return err
}

// forget takes its second name from a file.
func (s *Store) forget(file writtenFile) error {
	s.complain(s.written.close(&file))
	if err := s.work.Remove(file.name); err != nil && !disk.IsAbsent(err) {
		return err
	}
	if e := find(s.locks, file.lock); e != nil && e.print.inode == file.inode {
		same := *e
		same.print.ctime = 0 // it is another now
		s.locks.ReplaceOrInsert(&same)
		s.stale = true
	}
	return nil
}

// forgetDurable takes the second names from the lock files that have become durable:
// from then on what a start finds there is what somebody wrote there.
func (s *Store) forgetDurable(durable lock.Revision) {
	w := &s.written
	w.durable = durable
	w.files = slices.DeleteFunc(w.files, func(file writtenFile) bool {
		if file.revision > durable {
			return false
		}
		stat, err := s.work.Lstat(file.name)
		if err != nil || stat.Links == 1 {
			return false // it stands by
		}
		s.complain(s.forget(file))
		return true
	})
	w.busy = slices.DeleteFunc(w.busy, func(file writtenFile) bool {
		if file.revision > durable {
			return false
		}
		s.complain(s.forget(file))
		return true
	})
}

// forgetAll removes all second names, once everything is durable.
func (s *Store) forgetAll() {
	for _, file := range slices.Concat(s.written.files, s.written.busy) {
		s.complain(s.forget(file))
	}
	s.complain(s.work.SyncDir(ownDir))
}

// batchFile says up to which revision the journal was durable when the committer
// began to make the files of its last batch. After a crash it tells a journal that
// lacks that batch alone, which nobody was told of, from one that lacks more: that
// was taken away, or is a copy from before.
const batchFile = ownDir + "/batch"

// beginBatch writes batchFile, before the batch makes its first file.
func (s *Store) beginBatch() error {
	last := s.journal.Last()
	if s.batch == nil {
		var err error
		if s.batch, err = disk.OpenRegular(s.work, batchFile, os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
			return err
		}
	} else if s.batchAfter == last {
		return nil
	}
	if _, err := s.batch.WriteAt(fmt.Appendf(nil, "%020d\n", last), 0); err != nil {
		return err
	}
	s.batchAfter = last
	return nil
}

// readBatchFile returns what batchFile says; 0: nothing.
func readBatchFile(fsys disk.FS) (lock.Revision, error) {
	text, err := readWhole(fsys, batchFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	// A power cut may have left anything.
	revision, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63)
	return lock.Revision(revision), nil
}

// errInUse: a file is not the server's alone.
var errInUse = errors.New("the file is in use")

// writeAgain writes a file that was written before, if no lock, and nobody else, has
// a use for it. It opens a file that is not open.
func (s *Store) writeAgain(w *writtenFile, text []byte) (fingerprint, error) {
	// By its name, which the one link that it has must be.
	stat, err := s.work.Lstat(w.name)
	if err != nil {
		return fingerprint{}, err
	}
	if stat.Inode != w.inode || stat.Links != 1 || stat.Size > mostSpare {
		return fingerprint{}, errInUse
	}
	if w.file == nil {
		file, err := s.work.OpenFile(w.name, os.O_RDWR, 0)
		if err != nil {
			return fingerprint{}, err
		}
		w.file = file
		s.written.open++
	}
	if w.file.IsOpenElsewhere() {
		return fingerprint{}, errInUse
	}
	if access, err := accessOf(w.file, stat); err != nil || access != s.written.access {
		return fingerprint{}, errors.Join(errInUse, err)
	}
	if stat.Size > int64(len(text)) {
		if err := w.file.Truncate(int64(len(text))); err != nil {
			return fingerprint{}, err
		}
	}
	return writeText(w.file, text)
}

// writeText writes a file and returns its fingerprint.
func writeText(file disk.File, text []byte) (fingerprint, error) {
	if _, err := file.WriteAt(text, 0); err != nil {
		return fingerprint{}, err
	}
	stat, err := file.Stat()
	if err != nil {
		return fingerprint{}, err
	}
	p := fingerprintOf(stat)
	p.ctime, p.fresh = 0, true
	return p, nil
}

// create makes an empty file in .pylok, in place of one that a crash left.
func (f *files) create(name string) (disk.File, error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	file, err := f.OpenFile(name, flags, filePerm)
	if errors.Is(err, fs.ErrExist) {
		if err = f.Remove(name); err == nil {
			file, err = f.OpenFile(name, flags, filePerm)
		}
	}
	return file, err
}
