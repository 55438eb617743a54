package journal

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pylok/pylok/filestore/internal/disk"
)

// memory is a disk.FS that forgets nothing that a test wants to see. It has what a
// journal needs.
type memory struct {
	mu    sync.Mutex
	files map[string]*content
	// before is called before each operation; what it returns is the
	// operation's error. A *shortWrite makes a WriteAt that stops in the middle.
	before func(op, name string) error
	lying  bool // Datasync does nothing
}

// content is the content of a file: what is there, and what a power cut leaves.
type content struct {
	text, durable []byte
	dirty         [][2]int // what a sync has to write; a failed one forgets it
}

// shortWrite lets n bytes of a WriteAt through before it fails.
type shortWrite struct {
	n   int
	err error
}

func (e *shortWrite) Error() string { return e.err.Error() }
func (e *shortWrite) Unwrap() error { return e.err }

func newMemory() *memory { return &memory{files: make(map[string]*content)} }

// clone is another memory with the same files.
func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	other := newMemory()
	for name, c := range m.files {
		other.files[name] = &content{bytes.Clone(c.text), bytes.Clone(c.durable), slices.Clone(c.dirty)}
	}
	return other
}

// afterPowerCut is a clone without anything that was not made durable.
func (m *memory) afterPowerCut() *memory {
	other := m.clone()
	for _, c := range other.files {
		c.text, c.dirty = bytes.Clone(c.durable), nil
	}
	return other
}

// segments returns the names of the journal's segments, oldest first.
func (m *memory) segments() (names []string) {
	for name := range m.files {
		if strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (m *memory) last(t *testing.T) *content {
	t.Helper()
	names := m.segments()
	if len(names) == 0 {
		t.Fatal("the journal has no segment")
	}
	return m.files[names[len(names)-1]]
}

func (m *memory) start(op, name string) error {
	if m.before == nil {
		return nil
	}
	if err := m.before(op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (m *memory) OpenFile(name string, flag int, _ fs.FileMode) (disk.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	if err := m.start(op, name); err != nil {
		return nil, err
	}
	c := m.files[name]
	switch {
	case c == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	case c != nil && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrExist}
	case c == nil:
		c = &content{}
		m.files[name] = c
	case flag&os.O_TRUNC != 0:
		c.text, c.dirty = nil, append(c.dirty, [2]int{0, len(c.text)})
	}
	return &memoryFile{memory: m, name: name, content: c}, nil
}

func (m *memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.start("remove", name); err != nil {
		return err
	}
	if m.files[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(m.files, name)
	return nil
}

func (m *memory) MkdirAll(name string, _ fs.FileMode) error { return m.start("mkdir", name) }
func (m *memory) RemoveDir(name string) error               { return m.start("rmdir", name) }
func (m *memory) SyncDir(name string) error                 { return m.start("syncdir", name) }
func (m *memory) Sync() error                               { panic("no part of the journal") }
func (m *memory) Link(string, string) error                 { panic("no part of the journal") }
func (m *memory) Rename(string, string) error               { panic("no part of the journal") }
func (m *memory) Exchange(string, string) error             { panic("no part of the journal") }
func (m *memory) RenameNew(string, string) error            { panic("no part of the journal") }
func (m *memory) Lstat(string) (disk.Stat, error)           { panic("no part of the journal") }
func (m *memory) Whereabouts() error                        { return nil }
func (m *memory) TryShare() error                           { panic("no part of the journal") }
func (m *memory) Mount() string                             { return "" }
func (m *memory) Close() error                              { return nil }
func (m *memory) Hold() disk.Held                           { panic("no part of the journal") }

func (m *memory) OpenDir(name string) (disk.Dir, error) {
	if err := m.start("opendir", name); err != nil {
		return nil, err
	}
	return memoryDir{m, name}, nil
}

type memoryDir struct {
	*memory
	name string
}

func (memoryDir) Fd() int { return -1 }

func (d memoryDir) List() (entries []fs.DirEntry, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.files {
		if dir, base := path.Split(name); strings.TrimSuffix(dir, "/") == d.name {
			entries = append(entries, memoryEntry(base))
		}
	}
	return entries, nil
}

type memoryEntry string

func (e memoryEntry) Name() string             { return string(e) }
func (memoryEntry) IsDir() bool                { return false }
func (memoryEntry) Type() fs.FileMode          { return 0 }
func (memoryEntry) Info() (fs.FileInfo, error) { panic("not asked for") }

type memoryFile struct {
	*memory
	name    string
	content *content
	read    int
}

func (f *memoryFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, int64(f.read))
	f.read += n
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *memoryFile) Stat() (disk.Stat, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return disk.Stat{Size: int64(len(f.content.text))}, nil
}

func (f *memoryFile) ReadAt(b []byte, offset int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.start("read", f.name); err != nil {
		return 0, err
	}
	n := 0
	if offset < int64(len(f.content.text)) {
		n = copy(b, f.content.text[offset:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memoryFile) WriteAt(b []byte, offset int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.start("write", f.name)
	if pathError, ok := err.(*fs.PathError); ok {
		short, ok := pathError.Err.(*shortWrite)
		if !ok {
			return 0, err
		}
		b = b[:min(short.n, len(b))]
	}
	f.resize(max(len(f.content.text), int(offset)+len(b)))
	copy(f.content.text[offset:], b)
	f.content.dirty = append(f.content.dirty, [2]int{int(offset), int(offset) + len(b)})
	return len(b), err
}

func (f *memoryFile) resize(size int) {
	f.content.dirty = append(f.content.dirty, [2]int{min(size, len(f.content.text)), size})
	if size <= len(f.content.text) {
		f.content.text = bytes.Clone(f.content.text[:size])
		return
	}
	f.content.text = append(f.content.text, make([]byte, size-len(f.content.text))...)
}

func (f *memoryFile) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.start("truncate", f.name); err != nil {
		return err
	}
	f.resize(int(size))
	return nil
}

func (f *memoryFile) Allocate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.start("allocate", f.name); err != nil {
		return err
	}
	f.resize(max(len(f.content.text), int(size)))
	return nil
}

func (f *memoryFile) Datasync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dirty := f.content.dirty
	f.content.dirty = nil // also if it fails, as on Linux
	if err := f.start("datasync", f.name); err != nil {
		return err
	}
	if f.lying {
		return nil
	}
	durable := make([]byte, len(f.content.text))
	copy(durable, f.content.durable)
	for _, r := range dirty {
		if r[0] < len(durable) {
			copy(durable[r[0]:min(r[1], len(durable))], f.content.text[r[0]:])
		}
	}
	f.content.durable = durable
	return nil
}

func (f *memoryFile) TryLock() error           { panic("not asked for") }
func (f *memoryFile) Attributes() (int, error) { panic("not asked for") }
func (f *memoryFile) MarkMade(disk.Stat)       { panic("not asked for") }
func (f *memoryFile) IsMade(disk.Stat) bool    { panic("not asked for") }
func (f *memoryFile) Lease() error             { panic("not asked for") }
func (f *memoryFile) Close() error             { return nil }
