// Package pool makes files, and hands out again those that are no longer needed. To make
// a file and to forget it costs a file system about as much as all else that is done with a
// small one; on one without a journal ten times as much (ext4 looks through all that was
// removed in the last minutes for a number that is not of these).
//
// Nobody can tell. A file that has another name still, that somebody has open, or whose
// owner, mode or attributes somebody changed, is removed instead.
//
// BUG(pool): Who came upon a file's name before the file was returned, and opens it only
// after so many others have been returned as it rests, reads what it says by then.
package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pylok/pylok/filestore/internal/disk"
)

// Suffix is that of a new file's name, behind a number.
const Suffix = ".new"

const (
	// most is how many files stand by.
	most = 1024
	// mostBytes is the size up to which one does.
	mostBytes = 4096
	// filePerm: files are for whom the umask, or the directory's default ACL, lets have
	// them.
	filePerm = 0o666
)

// Config sets up a Pool.
type Config struct {
	// Dir is where the files are, which nobody else changes.
	Dir string
	// Rest is how many other files are returned before one is handed out again: who is
	// about to open a file by the name that it had has that long to do so. Default 64.
	Rest int
}

// Pool is the files that stand by. It is for one goroutine at a time.
type Pool struct {
	fsys   disk.FS
	config Config
	last   uint64 // number given to a name
	idle   []idle // the longest returned first
	fresh  access // of a file that has just been made; zero: none has been
}

// idle is a file that stands by.
type idle struct {
	name  string
	since uint64
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

// New returns a pool that has no files yet.
func New(fsys disk.FS, config Config) *Pool {
	if config.Rest == 0 {
		config.Rest = 64
	}
	return &Pool{fsys: fsys, config: config}
}

// Skip has the pool give out no number up to n.
func (p *Pool) Skip(n uint64) { p.last = max(p.last, n) }

// Name returns a name in the pool's directory that it has not given out before: a number
// and a suffix.
func (p *Pool) Name(suffix string) string {
	p.last++
	return fmt.Sprintf("%s/%d%s", p.config.Dir, p.last, suffix)
}

// Take returns the name of a file, to be moved away, that says text and nobody else has a
// part in. Of those that were returned, one since settled, as Return says, or before may
// be it.
func (p *Pool) Take(text []byte, settled uint64) (name string, stat disk.Stat, err error) {
	if len(p.idle) > p.config.Rest && p.idle[0].since <= settled {
		name = p.idle[0].name
		p.idle = p.idle[1:]
		if stat, err = p.writeAgain(name, text); err == nil {
			return name, stat, nil
		}
		if err := p.fsys.Remove(name); err != nil && !disk.IsAbsent(err) {
			return "", disk.Stat{}, err
		}
	}
	name = p.Name(Suffix)
	file, stat, err := create(p.fsys, name, text)
	if err != nil {
		return "", disk.Stat{}, err
	}
	if p.fresh == (access{}) {
		p.fresh, err = accessOf(file, stat)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", disk.Stat{}, errors.Join(err, p.fsys.Remove(name))
	}
	return name, stat, nil
}

// Return takes a file back that Take has made, whatever name in the directory it has now.
// It may be written again when all up to since is settled, as Take is told. It reports
// whether there is room for it.
func (p *Pool) Return(name string, since uint64) bool {
	if len(p.idle) >= most {
		return false
	}
	p.idle = append(p.idle, idle{name, since})
	return true
}

// Clear removes the files.
func (p *Pool) Clear() error {
	var errs []error
	for _, file := range p.idle {
		if err := p.fsys.Remove(file.name); !disk.IsAbsent(err) {
			errs = append(errs, err)
		}
	}
	p.idle = nil
	return errors.Join(errs...)
}

// errInUse: somebody else has a part in a file.
var errInUse = errors.New("the file is in use")

// writeAgain writes over a file that was returned, if nobody else has a part in it.
func (p *Pool) writeAgain(name string, text []byte) (disk.Stat, error) {
	file, err := p.fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return disk.Stat{}, err
	}
	stat, err := p.write(file, text)
	return stat, errors.Join(err, file.Close())
}

func (p *Pool) write(file disk.File, text []byte) (disk.Stat, error) {
	// Another name may have been given to it at any time.
	stat, err := file.Stat()
	if err != nil || !stat.Mode.IsRegular() || stat.Links != 1 || stat.Size > mostBytes {
		return disk.Stat{}, errors.Join(errInUse, err)
	}
	if err := file.Lease(); err != nil {
		return disk.Stat{}, err
	}
	// No look at a file tells of its access control list.
	if access, err := accessOf(file, stat); err != nil || access != p.fresh {
		return disk.Stat{}, errors.Join(errInUse, err)
	}
	if stat.Size > int64(len(text)) {
		if err := file.Truncate(int64(len(text))); err != nil {
			return disk.Stat{}, err
		}
	}
	return write(file, text)
}

// Make makes a file as Take does, of a name, in place of one that a crash left.
func Make(fsys disk.FS, name string, text []byte) (disk.Stat, error) {
	file, stat, err := create(fsys, name, text)
	if err != nil {
		return disk.Stat{}, err
	}
	if err := file.Close(); err != nil {
		return disk.Stat{}, errors.Join(err, fsys.Remove(name))
	}
	return stat, nil
}

// create makes a file that says text and is marked.
func create(fsys disk.FS, name string, text []byte) (disk.File, disk.Stat, error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	file, err := fsys.OpenFile(name, flags, filePerm)
	if errors.Is(err, fs.ErrExist) {
		if err = fsys.Remove(name); err == nil {
			file, err = fsys.OpenFile(name, flags, filePerm)
		}
	}
	if err != nil {
		return nil, disk.Stat{}, err
	}
	stat, err := write(file, text)
	if err != nil {
		return nil, disk.Stat{}, errors.Join(err, file.Close(), fsys.Remove(name))
	}
	file.MarkMade(stat)
	return file, stat, nil
}

// write writes a file, and looks at it: by its size and times it is known from then on.
func write(file disk.File, text []byte) (disk.Stat, error) {
	if _, err := file.WriteAt(text, 0); err != nil {
		return disk.Stat{}, err
	}
	return file.Stat()
}
