package filestore_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
)

// outsideCase is something that others do to the files of a root, and what the
// store makes of it.
type outsideCase struct {
	name string
	// held, if set, is locked through the store first.
	held string
	do   func(t *testing.T, root string)
	want []wantEvent
}

type wantEvent struct {
	eventType lock.EventType
	name      string
	problem   bool
	sameToken bool // as the hold through the store
	data      string
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name+".lock")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOutsideChanges(t *testing.T) {
	cases := []outsideCase{
		{
			name: "created",
			do: func(t *testing.T, root string) {
				write(t, root, "x", "msg: by hand\nlock_token: 7\nlock_holder: mallory\n")
			},
			want: []wantEvent{{eventType: lock.Locked, name: "x", data: `{"msg":"by hand"}`}},
		},
		{
			name: "created in a new directory",
			do:   func(t *testing.T, root string) { write(t, root, "a/b/x", "msg: deep\n") },
			want: []wantEvent{{eventType: lock.Locked, name: "a/b/x", data: `{"msg":"deep"}`}},
		},
		{
			name: "touched",
			do:   func(t *testing.T, root string) { write(t, root, "x", "") },
			want: []wantEvent{{eventType: lock.Locked, name: "x", problem: true, data: `{}`}},
		},
		{
			name: "edited in place, the reserved keys too",
			held: "x",
			do: func(t *testing.T, root string) {
				write(t, root, "x", "msg: edited\nlock_token: 1\nlock_holder: mallory\n")
			},
			want: []wantEvent{{eventType: lock.Updated, name: "x", sameToken: true, data: `{"msg":"edited"}`}},
		},
		{
			name: "edited as editors do, by a new file with the old token",
			held: "x",
			do: func(t *testing.T, root string) {
				text, err := os.ReadFile(filepath.Join(root, "x.lock"))
				if err != nil {
					t.Fatal(err)
				}
				write(t, root, "x.lock.new~", string(text)+"zeal: great\n")
				if err := os.Rename(filepath.Join(root, "x.lock.new~.lock"), filepath.Join(root, "x.lock")); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Updated, name: "x", sameToken: true, data: `{"zeal":"great"}`}},
		},
		{
			name: "edited to the same size and modification time",
			held: "x",
			do: func(t *testing.T, root string) {
				file := filepath.Join(root, "x.lock")
				before, err := os.Stat(file)
				if err != nil {
					t.Fatal(err)
				}
				text := make([]byte, before.Size())
				copy(text, "a: b\n# ")
				for i := len("a: b\n# "); i < len(text); i++ {
					text[i] = '.'
				}
				write(t, root, "x", string(text))
				if err := os.Chtimes(file, before.ModTime(), before.ModTime()); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Updated, name: "x", sameToken: true, data: `{"a":"b"}`}},
		},
		{
			name: "made unreadable",
			held: "x",
			do:   func(t *testing.T, root string) { write(t, root, "x", "a: [") },
			want: []wantEvent{{eventType: lock.Updated, name: "x", problem: true, sameToken: true, data: `{}`}},
		},
		{
			name: "removed",
			held: "x",
			do: func(t *testing.T, root string) {
				if err := os.Remove(filepath.Join(root, "x.lock")); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Unlocked, name: "x", sameToken: true, data: `{}`}},
		},
		{
			name: "replaced by another lock's file",
			held: "x",
			do: func(t *testing.T, root string) {
				write(t, root, "spare~", "msg: other\nlock_token: 12345\n")
				if err := os.Rename(filepath.Join(root, "spare~.lock"), filepath.Join(root, "x.lock")); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Locked, name: "x", data: `{"msg":"other"}`}},
		},
		{
			name: "a directory moved out",
			held: "d/e/x",
			do: func(t *testing.T, root string) {
				if err := os.Rename(filepath.Join(root, "d"), filepath.Join(t.TempDir(), "d")); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Unlocked, name: "d/e/x", sameToken: true, data: `{}`}},
		},
		{
			name: "a directory moved in",
			do: func(t *testing.T, root string) {
				elsewhere := t.TempDir()
				write(t, elsewhere, "d/e/x", "msg: moved\n")
				if err := os.Rename(filepath.Join(elsewhere, "d"), filepath.Join(root, "d")); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Locked, name: "d/e/x", data: `{"msg":"moved"}`}},
		},
		{
			name: "a directory in another's place",
			held: "d/e/x",
			do: func(t *testing.T, root string) {
				elsewhere := t.TempDir()
				write(t, elsewhere, "d/e/x", "msg: moved\n")
				if err := os.Rename(filepath.Join(root, "d"), filepath.Join(elsewhere, "before")); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(filepath.Join(elsewhere, "d"), filepath.Join(root, "d")); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Locked, name: "d/e/x", data: `{"msg":"moved"}`}},
		},
		{
			name: "a symbolic link",
			do: func(t *testing.T, root string) {
				if err := os.Symlink("/etc/passwd", filepath.Join(root, "x.lock")); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Locked, name: "x", problem: true, data: `{}`}},
		},
		{
			name: "a directory in the file's place",
			do: func(t *testing.T, root string) {
				if err := os.Mkdir(filepath.Join(root, "x.lock"), 0o755); err != nil {
					t.Fatal(err)
				}
			},
			want: []wantEvent{{eventType: lock.Locked, name: "x", problem: true, data: `{}`}},
		},
		{
			name: "a named pipe",
			do:   makePipe,
			want: []wantEvent{{eventType: lock.Locked, name: "x", problem: true, data: `{}`}},
		},
		{
			name: "too large",
			do:   func(t *testing.T, root string) { write(t, root, "x", "a: "+string(make([]byte, lock.MaxFileBytes))) },
			want: []wantEvent{{eventType: lock.Locked, name: "x", problem: true, data: `{}`}},
		},
	}
	for _, how := range []struct {
		name   string
		config filestore.Config
	}{
		{"notified", filestore.Config{PollInterval: time.Hour}},
		{"polled", filestore.Config{PollInterval: 20 * time.Millisecond, NoNotify: true}},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					config := how.config
					config.Root = t.TempDir()
					c.run(t, config)
				})
			}
		})
	}
}

func (c outsideCase) run(t *testing.T, config filestore.Config) {
	s, err := filestore.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var held lock.Lock
	var after lock.Revision
	if !config.NoNotify { // once this is found the root is watched
		write(t, config.Root, "first", "")
		events, _, err := s.Events(ctx, lock.Pattern{}, 0, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		after = events[len(events)-1].Revision
	}
	if c.held != "" {
		events, err := s.Commit(ctx, []lock.Change{{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: lock.MustParseName(c.held), Holder: "alice"}}})
		if err != nil {
			t.Fatal(err)
		}
		held, after = events[0].Lock, events[0].Revision
	}
	c.do(t, config.Root)
	for _, want := range c.want {
		events, _, err := s.Events(ctx, lock.Pattern{}, after, time.Hour)
		if err != nil {
			t.Fatalf("waiting for %v %s: %v", want.eventType, want.name, err)
		}
		// An editor's steps may be seen one by one: the last counts.
		e := events[len(events)-1]
		for e.Lock.Data.JSON() != want.data || (e.Lock.Problem != "") != want.problem {
			events, _, err := s.Events(ctx, lock.Pattern{}, e.Revision, time.Hour)
			if err != nil {
				t.Fatalf("got %v of %s with data %s and problem %q, then %v; want %+v", e.Type, e.Lock.Name, e.Lock.Data.JSON(), e.Lock.Problem, err, want)
			}
			e = events[len(events)-1]
		}
		after = e.Revision
		if e.Type != want.eventType && !(c.held == "" && e.Type == lock.Updated) {
			t.Errorf("got %v, want %v", e.Type, want.eventType)
		}
		if e.Cause != lock.File || e.Lock.Name.String() != want.name {
			t.Errorf("got cause %v of %s, want file of %s", e.Cause, e.Lock.Name, want.name)
		}
		if got := held.Held() && e.Lock.Token == held.Token; got != want.sameToken {
			t.Errorf("got token %d after %d", e.Lock.Token, held.Token)
		}
		wantHolder := ""
		if want.sameToken {
			wantHolder = "alice"
		}
		if e.Lock.Holder != wantHolder {
			t.Errorf("got holder %q, want %q", e.Lock.Holder, wantHolder)
		}
		l, err := s.Get(ctx, e.Lock.Name)
		if e.Type == lock.Unlocked {
			if err != lock.ErrNotLocked {
				t.Errorf("Get: got %+v, %v, want ErrNotLocked", l, err)
			}
		} else if err != nil || l.Revision != e.Revision {
			t.Errorf("Get: got %+v, %v, want revision %d", l, err, e.Revision)
		}
	}
}

// TestReplacedFile: the history of a lock whose file others replace has the end of the
// one hold and the beginning of the next, and nobody is said to have made them; nor an
// edit.
func TestReplacedFile(t *testing.T) {
	root := t.TempDir()
	s, err := filestore.Open(t.Context(), filestore.Config{Root: root, PollInterval: 10 * time.Millisecond, NoNotify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	name := lock.MustParseName("x")
	made, err := s.Commit(ctx, []lock.Change{{Type: lock.Locked, Cause: lock.Request, Actor: "alice", Lock: lock.Lock{Name: name, Holder: "alice"}}})
	if err != nil {
		t.Fatal(err)
	}
	held := made[0].Lock
	write(t, root, "x", "msg: edited\n")
	edited, _, err := s.Events(ctx, lock.Pattern{}, held.Revision, time.Hour)
	if err != nil || len(edited) != 1 {
		t.Fatalf("an edit: got %+v, %v", edited, err)
	}
	write(t, root, "spare~", "msg: other\n")
	if err := os.Rename(filepath.Join(root, "spare~.lock"), filepath.Join(root, "x.lock")); err != nil {
		t.Fatal(err)
	}
	replaced, _, err := s.Events(ctx, lock.Pattern{}, edited[0].Revision, time.Hour)
	if err != nil || len(replaced) != 2 {
		t.Fatalf("another file: got %+v, %v; want two events", replaced, err)
	}
	if e := replaced[0]; e.Type != lock.Unlocked || e.Lock.Token != held.Token || e.Lock.Holder != "alice" || e.Lock.Data.JSON() != `{"msg":"edited"}` || e.Reason != "replaced by the hold with token 4" {
		t.Errorf("the end of the hold: got %+v", e)
	}
	if e := replaced[1]; e.Type != lock.Locked || e.Lock.Token != 4 || e.Lock.Holder != "" || e.Lock.Data.JSON() != `{"msg":"other"}` {
		t.Errorf("the next hold: got %+v", e)
	}
	for _, e := range append(edited, replaced...) {
		if e.Cause != lock.File || e.Actor != "" {
			t.Errorf("event %d is by %q, cause %v; want nobody and file", e.Revision, e.Actor, e.Cause)
		}
	}
}
