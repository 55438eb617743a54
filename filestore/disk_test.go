package filestore

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

// errKilled is what a process that has been killed would see, if it saw anything.
var errKilled = errors.New("the process has been killed")

// testDisk is a real directory that fails when it is told to, and that knows what a
// power cut could leave of it. Its syncs only forget what a power cut could undo.
//
// The model of a power cut: directory entries are lost in the reverse order of their
// making, none from before the last sync; the content of a file that was not synced
// is there, in part, or not at all, in blocks.
type testDisk struct {
	disk.FS
	root string

	mu sync.Mutex
	// fault is asked before each operation, numbered from 1; what it returns is
	// the operation's error. Polling does not count.
	fault  func(n int, op, name string) error
	count  int
	killed bool
	// polling: the store is open. What the poller does from then on fails, so
	// that the operations of a test are always the same.
	polling bool
	mount   string // in place of the real one; empty: the real one
	plain   bool   // two names cannot be exchanged
	lying   string // datasync or syncfs: that only says that it has synced

	// Of the store's configuration.
	history Retention
	journal journal.Config
	accept  bool // a restored copy

	power *power // nil: no power cut is going to happen
}

// power is what a power cut could undo.
type power struct {
	spare   string            // a directory for what is overwritten or removed
	spares  int               // files in it
	names   map[uint64]uint32 // how many of them are names of an inode
	entries []func()          // undo the changes of directory entries since the last sync
	files   map[uint64]*unsynced
	dropped map[uint64]*unsynced // those of them that no sync saves any more
}

// unsynced is a file that has been written to since it was synced last. A power cut
// may leave blocks of any of what it said since.
type unsynced struct{ before [][]byte }

// openDisk opens a root without a store.
func openDisk(t *testing.T, dir string) *testDisk {
	t.Helper()
	root, fsys, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &testDisk{FS: fsys, root: root, journal: smallJournal}
}

// withPower makes the disk ready for a power cut.
func (d *testDisk) withPower(t *testing.T) *testDisk {
	t.Helper()
	d.power = &power{spare: t.TempDir(), files: make(map[uint64]*unsynced)}
	return d
}

// arm sets the fault and counts from 1 again.
func (d *testDisk) arm(fault func(n int, op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.count = fault, 0
}

// operations returns how many there have been since arm.
func (d *testDisk) operations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// kill lets nothing through any more.
func (d *testDisk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killed = true
}

func (d *testDisk) isKilled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.killed
}

// killAt is a fault that kills the process before its n-th operation.
func (d *testDisk) killAt(at int) func(int, string, string) error {
	return func(n int, _, _ string) error {
		if n >= at {
			d.killed = true
			return errKilled
		}
		return nil
	}
}

// failAt is a fault of one operation.
func failAt(at int, err error) func(int, string, string) error {
	return func(n int, _, _ string) error {
		if n == at {
			return err
		}
		return nil
	}
}

// step is asked before each operation. d.mu is held until the operation is done.
func (d *testDisk) step(op, name string) error {
	if d.killed {
		return &fs.PathError{Op: op, Path: name, Err: errKilled}
	}
	d.count++
	if d.fault == nil {
		return nil
	}
	if err := d.fault(d.count, op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (d *testDisk) path(name string) string { return filepath.Join(d.root, name) }

func (d *testDisk) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	if err := d.step(op, name); err != nil {
		return nil, err
	}
	_, statErr := d.FS.Lstat(name)
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		d.undo(func() { os.Remove(d.path(name)) })
	}
	return &testFile{File: f, disk: d, name: name}, nil
}

func (d *testDisk) Lstat(name string) (disk.Stat, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	isOwn := name == ownDir || strings.HasPrefix(name, ownDir+"/")
	if !isOwn && !strings.HasSuffix(name, lock.FileSuffix) { // only the poller asks for directories
		d.polling = true
		return disk.Stat{}, &fs.PathError{Op: "lstat", Path: name, Err: syscall.EIO}
	}
	if err := d.step("lstat", name); err != nil {
		return disk.Stat{}, err
	}
	stat, err := d.FS.Lstat(name)
	return d.hideNames(stat), err
}

// hideNames leaves out the names that keep has given a file.
func (d *testDisk) hideNames(stat disk.Stat) disk.Stat {
	if d.power != nil {
		stat.Links -= d.power.names[stat.Inode]
	}
	return stat
}

func (d *testDisk) OpenDir(name string) (disk.Dir, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.polling {
		return nil, &fs.PathError{Op: "opendir", Path: name, Err: syscall.EIO}
	}
	if err := d.step("opendir", name); err != nil {
		return nil, err
	}
	return d.FS.OpenDir(name)
}

func (d *testDisk) MkdirAll(name string, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("mkdir", name); err != nil {
		return err
	}
	var missing []string
	for dir := name; dir != "."; dir = filepath.Dir(dir) {
		if _, err := d.FS.Lstat(dir); err != nil {
			missing = append(missing, dir)
		}
	}
	err := d.FS.MkdirAll(name, perm)
	for _, dir := range slices.Backward(missing) {
		d.undo(func() { os.Remove(d.path(dir)) })
	}
	return err
}

// RemoveDir fails: the poller removes directories.
func (d *testDisk) RemoveDir(name string) error {
	return &fs.PathError{Op: "rmdir", Path: name, Err: syscall.EIO}
}

func (d *testDisk) Link(oldName, newName string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("link", newName); err != nil {
		return err
	}
	err := d.FS.Link(oldName, newName)
	if err == nil {
		d.undo(func() { os.Remove(d.path(newName)) })
	}
	return err
}

func (d *testDisk) Rename(oldName, newName string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("rename", newName); err != nil {
		return err
	}
	spare := d.keep(newName)
	err := d.FS.Rename(oldName, newName)
	if err == nil {
		d.undo(func() {
			os.Rename(d.path(newName), d.path(oldName))
			if spare != "" {
				os.Link(spare, d.path(newName))
			}
		})
	}
	return err
}

func (d *testDisk) RenameNew(oldName, newName string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plain {
		return errors.ErrUnsupported
	}
	if err := d.step("rename", newName); err != nil {
		return err
	}
	err := d.FS.RenameNew(oldName, newName)
	if err == nil {
		d.undo(func() { os.Rename(d.path(newName), d.path(oldName)) })
	}
	return err
}

func (d *testDisk) Exchange(a, b string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plain {
		return errors.ErrUnsupported
	}
	if err := d.step("exchange", b); err != nil {
		return err
	}
	err := d.FS.Exchange(a, b)
	if err == nil {
		d.undo(func() { unix.Renameat2(unix.AT_FDCWD, d.path(a), unix.AT_FDCWD, d.path(b), unix.RENAME_EXCHANGE) })
	}
	return err
}

func (d *testDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("remove", name); err != nil {
		return err
	}
	spare := d.keep(name)
	err := d.FS.Remove(name)
	if err == nil && spare != "" {
		d.undo(func() { os.Link(spare, d.path(name)) })
	}
	return err
}

// keep gives a file that is about to go another name, and returns that.
func (d *testDisk) keep(name string) (spare string) {
	if d.power == nil {
		return ""
	}
	d.power.spares++
	spare = filepath.Join(d.power.spare, strconv.Itoa(d.power.spares))
	if os.Link(d.path(name), spare) != nil {
		return ""
	}
	if stat, err := d.FS.Lstat(name); err == nil {
		if d.power.names == nil {
			d.power.names = make(map[uint64]uint32)
		}
		d.power.names[stat.Inode]++
	}
	return spare
}

func (d *testDisk) undo(f func()) {
	if d.power != nil {
		d.power.entries = append(d.power.entries, f)
	}
}

// SyncDir makes all entries durable: what comes later in a file system's own
// journal does not come without what was before.
func (d *testDisk) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("syncdir", name); err != nil {
		return err
	}
	if d.power != nil {
		d.power.entries = nil
	}
	return nil
}

func (d *testDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("syncfs", "."); err != nil {
		if d.power != nil && errors.Is(err, syscall.EIO) { // what it did not write it takes for written
			d.power.dropped = maps.Clone(d.power.files)
		}
		return err
	}
	if d.power != nil && d.lying != "syncfs" {
		d.power.entries = nil
		clear(d.power.files)
		maps.Copy(d.power.files, d.power.dropped)
	}
	return nil
}

// Hold returns the disk itself: each of its operations is one.
func (d *testDisk) Hold() disk.Held { return heldTestDisk{d} }

type heldTestDisk struct{ *testDisk }

func (heldTestDisk) Release()      {}
func (heldTestDisk) Drop()         {}
func (heldTestDisk) Forget(string) {}

func (d *testDisk) Mount() string {
	if d.mount != "" {
		return d.mount
	}
	return d.FS.Mount()
}

// cutPower leaves in the root what a power cut could leave. The store must have
// been killed and closed before.
func (d *testDisk) cutPower(t *testing.T, random *rand.Rand) {
	t.Helper()
	lost := random.IntN(len(d.power.entries) + 1)
	if random.IntN(4) == 0 {
		lost = 0
	}
	alone := random.IntN(2) == 0 // each is lost or kept on its own
	for i, undo := range slices.Backward(d.power.entries) {
		if i < len(d.power.entries)-lost {
			break
		}
		if !alone || random.IntN(2) == 0 {
			undo()
		}
	}
	err := filepath.WalkDir(d.root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		u := d.power.files[inode]
		if u == nil {
			return nil
		}
		delete(d.power.files, inode) // its other names are the same file
		now, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		block := 4096 // what file systems write at a time
		if strings.HasPrefix(name, d.path(journalDir)) {
			block = 64
		}
		if err := os.WriteFile(name, u.torn(now, block, random), 0o600); err != nil {
			return err
		}
		return os.Chtimes(name, time.Time{}, info.ModTime())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// loseUnsynced is the power cut that takes the content of every file that was not synced,
// and no entry of a directory.
func (d *testDisk) loseUnsynced(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(d.root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		u := cmp.Or(d.power.dropped[inode], d.power.files[inode])
		if u == nil {
			return nil
		}
		return os.WriteFile(name, u.before[0], 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// torn is what may be left of a file.
func (u *unsynced) torn(now []byte, block int, random *rand.Rand) []byte {
	before := u.before[random.IntN(len(u.before))]
	kind := random.IntN(5)
	switch kind {
	case 0:
		return now
	case 1:
		return before
	}
	size := len(now)
	if random.IntN(2) == 0 {
		size = len(before)
	}
	// What was written comes in its order, until the power goes, or in any.
	first := 0
	for first < min(len(now), len(before)) && now[first] == before[first] {
		first++
	}
	until := first + random.IntN(max(len(bytes.TrimRight(now, "\x00"))-first, 0)+1)
	text := make([]byte, size)
	for at := 0; at < size; at += block {
		from := now
		if kind == 2 && at >= until || kind > 2 && random.IntN(2) == 0 {
			from = before
		}
		if at < len(from) {
			copy(text[at:min(at+block, size)], from[at:])
		}
	}
	return text
}

type testFile struct {
	disk.File
	disk *testDisk
	name string
}

// changes notes what the file is like before it is written to.
func (f *testFile) changes() {
	p := f.disk.power
	if p == nil {
		return
	}
	stat, err := f.File.Stat()
	if err != nil {
		return
	}
	u := p.files[stat.Inode]
	if u == nil {
		u = &unsynced{}
		p.files[stat.Inode] = u
	}
	const most = 8
	if strings.HasPrefix(f.name, journalDir) && len(u.before) > 0 || len(u.before) == most {
		return // it only grows
	}
	before := make([]byte, stat.Size)
	if stat.Size > 0 {
		// By the descriptor, if it may: nobody else can open a file with a lease.
		if _, err := f.File.ReadAt(before, 0); errors.Is(err, syscall.EBADF) {
			before, err = os.ReadFile(f.disk.path(f.name))
			if err != nil {
				return
			}
		}
	}
	u.before = append(u.before, before)
}

func (f *testFile) step(op string) error { return f.disk.step(op, f.name) }

func (f *testFile) Read(b []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.step("read"); err != nil {
		return 0, err
	}
	return f.File.Read(b)
}

func (f *testFile) ReadAt(b []byte, offset int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.step("read"); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, offset)
}

func (f *testFile) WriteAt(b []byte, offset int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	wasKilled := f.disk.killed
	f.changes()
	if err := f.step("write"); err != nil {
		n := 0
		if !wasKilled { // half of it is there, as of a real disk's
			n, _ = f.File.WriteAt(b[:len(b)/2], offset)
		}
		return n, err
	}
	return f.File.WriteAt(b, offset)
}

func (f *testFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.step("truncate"); err != nil {
		return err
	}
	f.changes()
	return f.File.Truncate(size)
}

func (f *testFile) Allocate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.step("allocate"); err != nil {
		return err
	}
	f.changes()
	return f.File.Allocate(size)
}

// Datasync takes a while, in which other operations go on: what they write is not
// synced by it, and a power cut in the middle leaves anything.
func (f *testFile) Datasync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.step("datasync"); err != nil {
		return err
	}
	p := f.disk.power
	if p == nil || f.disk.lying == "datasync" {
		return nil
	}
	stat, err := f.File.Stat()
	if err != nil {
		return err
	}
	syncing := p.files[stat.Inode]
	delete(p.files, stat.Inode)
	f.disk.mu.Unlock()
	for range 20 {
		runtime.Gosched()
	}
	f.disk.mu.Lock()
	if !f.disk.killed {
		return nil
	}
	if syncing != nil {
		if later := p.files[stat.Inode]; later != nil {
			syncing.before = append(syncing.before, later.before...)
		}
		p.files[stat.Inode] = syncing
	}
	return &fs.PathError{Op: "datasync", Path: f.name, Err: errKilled}
}

func (f *testFile) Stat() (disk.Stat, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.step("stat"); err != nil {
		return disk.Stat{}, err
	}
	stat, err := f.File.Stat()
	return f.disk.hideNames(stat), err
}

func (f *testFile) TryLock() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.step("flock"); err != nil {
		return err
	}
	return f.File.TryLock()
}

// leftNew returns the server's own files that should be gone.
func leftNew(t *testing.T, root string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, ownDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, newSuffix) || strings.HasSuffix(name, moveSuffix) || strings.HasSuffix(name, takeSuffix) {
			names = append(names, name)
		}
	}
	return names
}
