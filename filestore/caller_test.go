package filestore_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// TestCaller: whose a hold is stays with it, over renewals, restarts and edits of its file,
// and nobody makes a hold somebody's by writing so into a file.
func TestCaller(t *testing.T) {
	root := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const alice = "github:o/r@refs/heads/main run 7"
	s := mustOpen(t, root)
	defer func() { s.Close() }()
	name := lock.MustParseName("x")
	want := func(when string, name lock.Name, caller string) lock.Lock {
		t.Helper()
		l, err := s.Get(ctx, name)
		if err != nil || l.Caller != caller {
			t.Fatalf("%s: the hold is of %q (%v), want %q", when, l.Caller, err, caller)
		}
		return l
	}
	commit := func(kind lock.EventType, l lock.Lock) {
		t.Helper()
		events, err := s.Commit(ctx, []lock.Change{{Type: kind, Cause: lock.Request, Prev: l.Revision, Lock: l}})
		if err != nil {
			t.Fatal(err)
		}
		if kind != lock.Extended && events[0].Lock.Caller != l.Caller {
			t.Errorf("the event is of a hold of %q, want %q", events[0].Lock.Caller, l.Caller)
		}
	}
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, root)
	}
	commit(lock.Locked, lock.Lock{Name: name, Holder: "job", Caller: alice, TTL: time.Hour})
	file := filepath.Join(root, "x.lock")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "lock_caller: \""+alice+"\"\n") && !strings.Contains(string(text), "lock_caller: "+alice+"\n") {
		t.Fatalf("the file does not say whose the hold is: %v\n%s", err, text)
	}
	l := want("taken", name, alice)
	l.TTL = 2 * time.Hour
	commit(lock.Extended, l)
	reopen()
	l = want("opened again", name, alice)
	l.Data, _ = lock.NewData(map[string]any{"msg": "on it"})
	commit(lock.Updated, l)
	reopen()
	want("with other data", name, alice)

	edited := strings.ReplaceAll(string(text), alice, "unix:mallory") + "msg: edited\n"
	for _, running := range []bool{true, false} {
		before := want("before an edit", name, alice)
		if !running {
			edited += "more: true\n"
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0) // in place: the same file
		if err == nil {
			_, err = f.WriteString(edited)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if !running {
			s = mustOpen(t, root)
		}
		for l := before; l.Revision == before.Revision; {
			if _, _, err := s.Events(ctx, lock.Pattern{}, before.Revision, time.Second); err != nil {
				t.Fatal(err)
			}
			l = want("edited", name, alice)
		}
	}

	made := lock.MustParseName("made")
	writeAtOnce(t, root, "made", "lock_caller: unix:alice\nlock_holder: alice\n")
	for {
		if _, err := s.Get(ctx, made); err == nil {
			break
		} else if _, _, err := s.Events(ctx, lock.Pattern{}, want("", name, alice).Revision, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	want("made by hand", made, "")
	reopen()
	want("made by hand, opened again", made, "")
}
