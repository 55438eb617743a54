package filestore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

var ownCycles = flag.Int("cycles", 400, "how many holds TestOwnChanges takes, changes and releases")

// plainDisk cannot exchange two names.
type plainDisk struct{ disk.FS }

func (plainDisk) Exchange(string, string) error  { return errors.ErrUnsupported }
func (plainDisk) RenameNew(string, string) error { return errors.ErrUnsupported }

func (d plainDisk) Hold() disk.Held { return plainHeld{plainDisk{d.FS}, d.FS.Hold()} }

type plainHeld struct {
	plainDisk
	held disk.Held
}

func (h plainHeld) Release()          { h.held.Release() }
func (h plainHeld) Drop()             { h.held.Drop() }
func (h plainHeld) Forget(dir string) { h.held.Forget(dir) }

// TestOwnChanges has the poller, inotify and who follows files look on as fast as they can
// while the server changes them: nothing that it does is taken for somebody else's doing.
func TestOwnChanges(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			root := t.TempDir()
			config := Config{Root: root, PollInterval: time.Millisecond, journal: smallJournal, checkpointEvery: 20 * time.Millisecond, Health: func(err error) {
				if err != nil {
					t.Errorf("health: %v", err)
				}
			}}.withDefaults()
			absolute, fsys, err := openRoot(root)
			if err != nil {
				t.Fatal(err)
			}
			if plain {
				fsys = plainDisk{fsys}
			}
			s, err := open(t.Context(), config, absolute, fsys)
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.Background()
			var working sync.WaitGroup
			const workers = 8
			for w := range workers {
				working.Go(func() {
					names := []lock.Name{lock.MustParseName(fmt.Sprintf("a/x%d", w)), lock.MustParseName(fmt.Sprintf("b/y%d", w))}
					for n := range *ownCycles / workers {
						name := names[n%2]
						for _, next := range []func(lock.Lock) lock.Change{
							func(l lock.Lock) lock.Change { return locked(l, "alice", `{"a":1}`) },
							func(l lock.Lock) lock.Change { return updated(l, fmt.Sprintf(`{"n":%d}`, n)) },
							func(l lock.Lock) lock.Change { return extended(l, time.Hour) },
							func(l lock.Lock) lock.Change { return locked(l, "bob", `{"b":1}`) },
							unlocked,
						} {
							if _, err := s.Commit(ctx, []lock.Change{next(present(ctx, t, s, name))}); err != nil {
								t.Errorf("%s: %v", name, err)
								return
							}
						}
						if n%16 == 0 {
							if l := settled(t, s, name); l.Held() {
								t.Errorf("%s is held after its release: %+v", name, l)
							}
						}
					}
				})
			}
			working.Wait()
			// This one is.
			if err := os.WriteFile(filepath.Join(root, "by-hand.lock"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			settled(t, s, lock.MustParseName("by-hand"))
			var after lock.Revision
			var byHand []lock.Event
			for after < s.view.Load().revision {
				events, _, err := s.Events(ctx, lock.Pattern{}, after, time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range events {
					if after = e.Revision; e.Cause == lock.File {
						byHand = append(byHand, e)
					}
				}
			}
			if len(byHand) != 1 || byHand[0].Lock.Name.String() != "by-hand" {
				t.Errorf("changes by hand are %+v, want one, of by-hand", byHand)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if left := leftNew(t, root); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}
