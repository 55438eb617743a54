package filestore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
)

// TestWarnings: what somebody writes over the server's keys is told as long as it
// stands there, over restarts too; the file is left alone until the server has
// something to write.
func TestWarnings(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "x.lock")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var s *filestore.Store
	reopen := func() {
		t.Helper()
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if s, err = filestore.Open(ctx, filestore.Config{Root: root, PollInterval: 10 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	defer func() { s.Close() }()
	name := lock.MustParseName("x")
	get := func(name lock.Name) lock.Lock {
		t.Helper()
		l, err := s.Get(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	commit := func(kind lock.EventType, l lock.Lock) lock.Lock {
		t.Helper()
		events, err := s.Commit(ctx, []lock.Change{{Type: kind, Cause: lock.Request, Prev: l.Revision, Lock: l}})
		if err != nil {
			t.Fatal(err)
		}
		if events[0].Lock.Warnings != "" {
			t.Errorf("the event %+v has warnings", events[0])
		}
		return events[0].Lock
	}
	edit := func(pairs ...string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		edited := strings.NewReplacer(pairs...).Replace(string(text))
		if edited == string(text) {
			t.Fatalf("there is nothing to edit in\n%s", text)
		}
		writeAtOnce(t, root, "x", edited)
		return edited
	}
	// wantSoon waits for warnings, which come without an event.
	wantSoon := func(what, want, text string) {
		t.Helper()
		for get(name).Warnings != want {
			if ctx.Err() != nil {
				t.Fatalf("%s: got the warnings %q, want %q", what, get(name).Warnings, want)
			}
			time.Sleep(time.Millisecond)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("%s: the server has written the file:\n%s(%v), want\n%s", what, got, err, text)
		}
		_, locks := s.List(ctx, lock.Pattern{}, lock.Name{})
		for l, err := range locks {
			if l.Name == name && l.Warnings != want {
				t.Errorf("%s: List has the warnings %q, %v; want %q", what, l.Warnings, err, want)
			}
		}
	}

	held := commit(lock.Locked, lock.Lock{Name: name, Holder: "alice", TTL: time.Hour})
	if got := get(name); got.Warnings != "" {
		t.Errorf("a new hold has the warnings %q", got.Warnings)
	}
	const holder = "lock_holder: mallory does not count; it is alice"
	text := edit("lock_holder: alice", "lock_holder: mallory")
	wantSoon("an edit", holder, text)
	if l := get(name); l.Holder != "alice" || l.Token != held.Token || l.Revision != held.Revision {
		t.Errorf("an edit of the server's keys has made the lock %+v", l)
	}

	// Other terms are the server's own doing, and write no file.
	extended := get(name)
	extended.TTL = 2 * time.Hour
	if _, err := s.Commit(ctx, []lock.Change{{Type: lock.Extended, Cause: lock.Request, Prev: extended.Revision, Lock: extended}}); err != nil {
		t.Fatal(err)
	}
	wantSoon("a renewal", holder, text)
	for range 2 { // the second time the file is as the snapshot knows it
		reopen()
		wantSoon("a restart", holder, text)
	}

	// With the user's own keys, and while no server runs.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = nil
	text = edit("lock_action: lock", "lock_action: wait\nnote: mine")
	reopen()
	const all = "lock_action: wait does not count; it is lock\n" + holder
	wantSoon("an edit while no server ran", all, text)

	updated := get(name)
	updated.Data, _ = lock.NewData(map[string]any{"note": "mine"})
	commit(lock.Updated, updated)
	if got := get(name); got.Warnings != "" {
		t.Errorf("after the server has written the file there are the warnings %q", got.Warnings)
	}
	if got, err := os.ReadFile(file); err != nil || !strings.Contains(string(got), "lock_holder: alice\nlock_token: 1\nlock_ttl: 2h\nnote: mine\n") {
		t.Errorf("the server has written\n%s%v", got, err)
	}

	// The end of a hold, and the next one, have nothing of it.
	text = edit("lock_holder: alice", "lock_holder: mallory")
	wantSoon("an edit", holder, text)
	commit(lock.Locked, lock.Lock{Name: name, Holder: "bob", Revision: get(name).Revision})
	events, _, err := s.Events(ctx, lock.Pattern{}, updated.Revision, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Lock.Warnings != "" {
			t.Errorf("the event %+v has warnings", e)
		}
	}
	if got := get(name); got.Warnings != "" {
		t.Errorf("the next hold has the warnings %q", got.Warnings)
	}

	// A file that somebody makes is anonymous, whatever it says.
	writeAtOnce(t, root, "made", "lock_holder: mallory\nmsg: mine\n")
	if _, _, err := s.Events(ctx, lock.Pattern{}, get(name).Revision, time.Hour); err != nil {
		t.Fatal(err)
	}
	if got, want := get(lock.MustParseName("made")).Warnings, "lock_holder: mallory does not count; there is none"; got != want {
		t.Errorf("a file made by hand has the warnings %q, want %q", got, want)
	}
}

// writeAtOnce writes a lock file in its place, of which nobody sees less than all. It
// must not become shorter.
func writeAtOnce(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name+".lock")
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(file+".tmp", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".tmp", file); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stat, err := f.Stat()
	if err == nil && stat.Size() > int64(len(text)) {
		t.Fatalf("%s would become shorter", file)
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
}
