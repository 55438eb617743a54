package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// pausedDisk calls before ahead of each sync of a file.
type pausedDisk struct {
	disk.FS
	before atomic.Pointer[func()]
}

type pausedFile struct {
	disk.File
	disk *pausedDisk
}

func (d *pausedDisk) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return pausedFile{f, d}, nil
}

func (f pausedFile) Datasync() error {
	if before := f.disk.before.Load(); before != nil {
		(*before)()
	}
	return f.File.Datasync()
}

// TestNotifiedDuringBatch changes lock files while that looks like nothing: a batch has
// done its work on the files and is not yet told to readers, and now the files are again
// as the readers know them.
func TestNotifiedDuringBatch(t *testing.T) {
	for _, test := range []struct {
		name string
		held bool // before
		do   func(file string) error
		want lock.EventType // after that of the batch
	}{
		{"removed before it is told", false, os.Remove, lock.Unlocked},
		{"brought back before its end is told", true, func(file string) error { return os.Rename(file+".kept", file) }, lock.Locked},
	} {
		t.Run(test.name, func(t *testing.T) {
			root, fsys, err := openRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			d := &pausedDisk{FS: fsys}
			s, err := open(t.Context(), Config{Root: root, NoNotify: true, PollInterval: time.Hour}.withDefaults(), root, d)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for i := range 20 {
				name := lock.MustParseName(fmt.Sprint("x", i))
				file := filepath.Join(root, fileOf(name))
				change := locked(lock.Lock{Name: name}, "somebody", `{}`)
				if test.held {
					l := mustCommit(t, s, change)[0].Lock
					if err := os.Link(file, file+".kept"); err != nil {
						t.Fatal(err)
					}
					change = unlocked(l)
				}
				isDone := func() bool {
					_, err := os.Lstat(file)
					return (err == nil) != test.held
				}
				done, goOn := make(chan struct{}), make(chan struct{})
				pause := sync.OnceFunc(func() {
					close(done)
					<-goOn
				})
				pauseWhenDone := func() {
					if isDone() {
						pause()
					}
				}
				d.before.Store(&pauseWhenDone)
				var batch []lock.Event
				var work sync.WaitGroup
				work.Go(func() {
					events, err := s.Commit(t.Context(), []lock.Change{change})
					for errors.Is(err, lock.ErrConflict) { // the first poll has seen it without its other name
						events, err = s.Commit(t.Context(), []lock.Change{change})
					}
					if batch = events; err != nil {
						t.Error(err)
					}
				})
				<-done
				if err := test.do(file); err != nil {
					t.Fatal(err)
				}
				work.Go(func() {
					if err := notified(s, name); err != nil {
						t.Error(err)
					}
				})
				for range 100 { // most likely it begins while the batch is not over
					runtime.Gosched()
				}
				close(goOn)
				work.Wait()
				if t.Failed() {
					return
				}
				// The poller may have been first, and its finding still on its way.
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				var events []lock.Event
				for after := batch[0].Revision - 1; len(events) < 2; after = events[len(events)-1].Revision {
					more, _, err := s.feed.Events(ctx, lock.Pattern{}, after, time.Hour)
					if err != nil {
						t.Fatalf("round %d: after %+v: %v", i, events, err)
					}
					events = append(events, more...)
				}
				cancel()
				if len(events) != 2 || events[1].Type != test.want || events[1].Cause != lock.File || events[1].Lock.Name != name {
					t.Fatalf("round %d: got %+v, want that of the batch and then %v by cause file", i, events, test.want)
				}
			}
		})
	}
}

// notified does what is done where a notification names a lock.
func notified(s *Store, name lock.Name) error {
	return s.inspect(inspector{s}.ChangedByOthers([]lock.Name{name}))
}
