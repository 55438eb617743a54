package filestore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
)

func mustOpen(t *testing.T, root string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(t.Context(), filestore.Config{Root: root, PollInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *filestore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustLock(t *testing.T, s lock.Store, name, data string) lock.Lock {
	t.Helper()
	d, err := lock.ParseData([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	events, err := s.Commit(t.Context(), []lock.Change{{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{
		Name: lock.MustParseName(name), Data: d, Holder: "alice", Caller: "unix:alice", TTL: time.Minute, RequestID: "r-" + name,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return events[0].Lock
}

// TestSnapshot opens a root again with a snapshot that is whole, damaged, missing
// or ahead of the journal, after others have changed some of the files. What the
// store makes of the files is the same each time, as long as there is a journal.
func TestSnapshot(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, root string)
		lost bool // nothing but the files is left
	}{
		{name: "whole", do: func(*testing.T, string) {}},
		{name: "missing", do: func(t *testing.T, root string) { remove(t, filepath.Join(root, ".pylok/snapshot")) }},
		{name: "damaged", do: func(t *testing.T, root string) {
			file := filepath.Join(root, ".pylok/snapshot")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text[len(text)/2] ^= 1
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "ahead of the journal", lost: true, do: func(t *testing.T, root string) {
			if err := os.RemoveAll(filepath.Join(root, ".pylok/journal")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, "byhand", "msg: by hand\n")
			s := mustOpen(t, root)
			want := map[string]lock.Lock{}
			for _, name := range []string{"same", "deep/same", "edited", "removed", "replaced", "extended"} {
				want[name] = mustLock(t, s, name, `{"msg":"`+name+`"}`)
			}
			extended := want["extended"]
			extended.TTL = time.Hour
			if _, err := s.Commit(t.Context(), []lock.Change{{Type: lock.Extended, Prev: extended.Revision, Lock: extended}}); err != nil {
				t.Fatal(err)
			}
			want["extended"] = extended
			byhand, err := s.Get(t.Context(), lock.MustParseName("byhand"))
			if err != nil {
				t.Fatal(err)
			}
			want["byhand"] = byhand
			mustClose(t, s)

			write(t, root, "edited", readFile(t, root, "edited")+"zeal: great\n")
			remove(t, filepath.Join(root, "removed.lock"))
			remove(t, filepath.Join(root, "replaced.lock"))
			write(t, root, "replaced", "msg: other\n")
			write(t, root, "created", "msg: created\n")
			test.do(t, root)

			s = mustOpen(t, root)
			defer mustClose(t, s)
			after, _ := s.List(t.Context(), lock.Pattern{}, lock.Name{})
			for name, was := range want {
				got, err := s.Get(t.Context(), was.Name)
				sameHold := err == nil && got.Token == was.Token
				switch {
				case name == "removed":
					if err != lock.ErrNotLocked {
						t.Errorf("removed: got %+v, %v", got, err)
					}
				case name == "replaced" || test.lost:
					if err != nil || sameHold || got.Holder != "" || got.Caller != "" || got.Token <= byhand.Token {
						t.Errorf("%s: got %+v, %v, want an anonymous hold with a new token", name, got, err)
					}
				case name == "edited":
					if !sameHold || got.Data == was.Data || got.Holder != "alice" || got.Caller != "unix:alice" {
						t.Errorf("edited: got %+v, %v, want the hold with other data", got, err)
					}
				default:
					if err != nil || got != was {
						t.Errorf("%s:\n got %+v, %v\nwant %+v", name, got, err, was)
					}
				}
			}
			created, err := s.Get(t.Context(), lock.MustParseName("created"))
			if err != nil || created.Token == 0 || created.Revision > after {
				t.Errorf("created: got %+v, %v, as of %d", created, err, after)
			}
			l := mustLock(t, s, "next", `{}`)
			for name, was := range want {
				if l.Token <= was.Token {
					t.Errorf("the next token is %d and that of %s was %d", l.Token, name, was.Token)
				}
			}
		})
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSnapshotOfAdopted adopts many files: if it crashes then, the next start has a
// snapshot.
func TestSnapshotOfAdopted(t *testing.T) {
	root := t.TempDir()
	for i := range 10_000 {
		write(t, root, fmt.Sprintf("pool-%d/server-%d", i%10, i), "msg: by hand\n")
	}
	s := mustOpen(t, root)
	defer mustClose(t, s)
	const patience = time.Minute // it is written while the store works
	for began := time.Now(); ; {
		_, err := os.Stat(filepath.Join(root, ".pylok/snapshot"))
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("%v after a start that read every file: %v", patience, err)
		}
		<-time.After(time.Millisecond)
	}
}
