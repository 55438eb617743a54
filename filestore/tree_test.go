package filestore_test

import (
	"bytes"
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

// hands is a store, and somebody who works on its files.
type hands struct {
	t    *testing.T
	ctx  context.Context
	root string
	*filestore.Store
}

func newHands(t *testing.T) *hands {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	h := &hands{t: t, ctx: ctx, root: filepath.Join(t.TempDir(), "root")}
	h.open()
	t.Cleanup(func() {
		cancel()
		h.Close()
	})
	return h
}

func (h *hands) open() {
	h.t.Helper()
	s, err := filestore.Open(h.ctx, filestore.Config{Root: h.root, PollInterval: 10 * time.Millisecond})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Store = s
}

func (h *hands) close() {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hands) reopen() {
	h.t.Helper()
	h.close()
	h.open()
}

// moveRoot has the root go on at another place.
func (h *hands) moveRoot() {
	h.t.Helper()
	h.close()
	before := h.root
	h.root += "-moved"
	if err := os.Rename(before, h.root); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

func (h *hands) get(name string) lock.Lock {
	h.t.Helper()
	l, err := h.Get(h.ctx, lock.MustParseName(name))
	if err != nil {
		h.t.Fatalf("Get(%s): %v", name, err)
	}
	return l
}

func (h *hands) grant(l lock.Lock) lock.Lock {
	h.t.Helper()
	events, err := h.Commit(h.ctx, []lock.Change{{Type: lock.Locked, Cause: lock.Request, Lock: l}})
	if err != nil {
		h.t.Fatal(err)
	}
	return events[0].Lock
}

func (h *hands) read(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.root, name+".lock"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// write writes a lock's file, and in one step that of a hold.
func (h *hands) write(name, text string) {
	h.t.Helper()
	if stat, err := os.Stat(filepath.Join(h.root, name+".lock")); err == nil && int(stat.Size()) > len(text) {
		text += strings.Repeat("\n", int(stat.Size())-len(text))
	}
	writeAtOnce(h.t, h.root, name, text)
}

// next does something to the files and returns the one event that comes of it.
func (h *hands) next(do func()) lock.Event {
	h.t.Helper()
	after, err := h.Revision(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	do()
	events, _, err := h.Events(h.ctx, lock.Pattern{}, after, time.Hour)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(events) != 1 {
		h.t.Fatalf("got %d events, want 1: %+v", len(events), events)
	}
	return events[0]
}

// edited returns a file with some of its lines replaced.
func (h *hands) edited(name string, pairs ...string) string {
	h.t.Helper()
	text := h.read(name)
	edited := strings.NewReplacer(pairs...).Replace(text)
	if edited == text {
		h.t.Fatalf("there is nothing to edit in\n%s", text)
	}
	return edited
}

func (h *hands) wantTree(what string, e lock.Event, kind lock.EventType, name string, tree bool) {
	h.t.Helper()
	if e.Type != kind || e.Cause != lock.File || e.Lock.Name.String() != name || e.Lock.Tree != tree {
		h.t.Errorf("%s: got the event %+v, want %v of %s by file, a tree: %v", what, e, kind, name, tree)
	}
	if got := h.get(name); got.Tree != tree || got.Token != e.Lock.Token {
		h.t.Errorf("%s: Get shows %+v, want a tree: %v", what, got, tree)
	}
}

// TestScopeByHand: the line lock_scope: tree makes a tree of a hold, whoever writes it, and
// whether or not a server runs then.
func TestScopeByHand(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "served", false: "not served"}[running], func(t *testing.T) {
			t.Parallel()
			h := newHands(t)
			next := func(name, text string) lock.Event {
				t.Helper()
				return h.next(func() {
					if running {
						h.write(name, text)
						return
					}
					h.close()
					write(t, h.root, name, text)
					h.open()
				})
			}
			h.wantTree("a new file", next("prod", "msg: holiday\nlock_scope: tree\n"), lock.Locked, "prod", true)
			token := h.get("prod").Token
			h.wantTree("the line taken out", next("prod", "msg: holiday\n"), lock.Updated, "prod", false)
			h.wantTree("the line put in again", next("prod", "msg: still\nlock_scope: \"tree\"\n"), lock.Updated, "prod", true)
			if l := h.get("prod"); l.Token != token || l.Data.JSON() != `{"msg":"still"}` || l.Warnings != "" {
				t.Errorf("after the edits the hold is %+v, want that with token %d", l, token)
			}
			broken := next("prod", "msg: [still\nlock_scope: tree\n")
			if h.wantTree("a slip of the pen", broken, lock.Updated, "prod", true); broken.Lock.Problem == "" {
				t.Errorf("a file that is no YAML has no problem: %+v", broken)
			}
			h.wantTree("without the slip, and the line", next("prod", "msg: still\n"), lock.Updated, "prod", false)
			h.wantTree("another scope", next("prod", "msg: now\nlock_scope: branch\n"), lock.Updated, "prod", false)
			if got := h.get("prod").Warnings; got != "lock_scope: branch does not count; there is none" {
				t.Errorf("another scope has the warnings %q", got)
			}

			// In a file that the server has written.
			held := h.grant(lock.Lock{Name: lock.MustParseName("db"), Holder: "alice", TTL: time.Hour, Tree: true})
			if !strings.Contains(h.read("db"), "\nlock_scope: tree\n") {
				t.Errorf("the server writes of a tree\n%s", h.read("db"))
			}
			h.wantTree("the server's line taken out", next("db", h.edited("db", "lock_scope: tree\n", "")), lock.Updated, "db", false)
			h.wantTree("and put in", next("db", h.edited("db", "lock_token:", "lock_scope: tree\nlock_token:")), lock.Updated, "db", true)
			if l := h.get("db"); l.Token != held.Token || l.TTL != time.Hour || l.Holder != "alice" || l.Warnings != "" {
				t.Errorf("after the edits the hold is %+v, want that of alice with token %d", l, held.Token)
			}

			// A copy is of no tree; nor is the hold that somebody copies over another.
			h.wantTree("a copy", next("copy", h.read("db")), lock.Locked, "copy", false)
			const copied = "lock_scope: tree does not count; the file is a copy"
			if got := h.get("copy").Warnings; !strings.Contains(got, copied) {
				t.Errorf("the copy has the warnings %q, want %q", got, copied)
			}
			h.grant(lock.Lock{Name: lock.MustParseName("plain"), Holder: "bob"})
			h.wantTree("a copy over another", next("plain", h.edited("db", "lock_holder", "a: 1\nlock_holder")), lock.Updated, "plain", false)
			if got := h.get("plain").Warnings; !strings.Contains(got, copied) {
				t.Errorf("the copy over another has the warnings %q, want %q", got, copied)
			}
			// Put back to where it was it is one, without its hold.
			text := h.read("db")
			h.end("db", running)
			h.wantTree("put back", next("db", text), lock.Locked, "db", true)
		})
	}
}

// end removes a lock's file, which ends its hold.
func (h *hands) end(name string, running bool) {
	h.t.Helper()
	e := h.next(func() {
		if !running {
			h.close()
			defer h.open()
		}
		if err := os.Remove(filepath.Join(h.root, name+".lock")); err != nil {
			h.t.Fatal(err)
		}
	})
	if e.Type != lock.Unlocked || e.Lock.Name.String() != name {
		h.t.Errorf("the removal of %s makes the event %+v", name, e)
	}
}

// TestTreeOfMovedRoot: a tree stays one when its root goes on at another place, also where
// its file, which names the first, is read anew; and an edit counts there.
func TestTreeOfMovedRoot(t *testing.T) {
	h := newHands(t)
	h.grant(lock.Lock{Name: lock.MustParseName("prod"), Holder: "alice", Tree: true})
	h.grant(lock.Lock{Name: lock.MustParseName("plain"), Holder: "bob"})
	write(t, h.root, "by-hand", h.edited("prod", "/prod.lock", "/by-hand.lock"))
	h.reopen()
	before, err := h.Revision(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.moveRoot()
		for _, name := range []string{"prod", "by-hand"} {
			if err := os.Chtimes(filepath.Join(h.root, name+".lock"), time.Time{}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		h.reopen()
		if now, err := h.Revision(h.ctx); err != nil || now != before || !h.get("prod").Tree || !h.get("by-hand").Tree {
			t.Fatalf("in the moved root, at revision %d (before: %d), %v, the trees are %+v and %+v", now, before, err, h.get("prod"), h.get("by-hand"))
		}
	}
	e := h.next(func() { h.write("plain", h.edited("plain", "lock_token", "lock_scope: tree\nlock_token")) })
	h.wantTree("an edit in the moved root", e, lock.Updated, "plain", true)
	e = h.next(func() { h.write("prod", h.edited("prod", "lock_scope: tree\n", "")) })
	h.wantTree("another", e, lock.Updated, "prod", false)
}

// TestReservedByHand: what somebody writes there of sets and stale holds does not count.
func TestReservedByHand(t *testing.T) {
	h := newHands(t)
	e := h.next(func() {
		h.write("x", "lock_stale: \"2026-11-22T19:03:11.482Z\"\nlock_set: 41/3\nlock_on_expiry: keep\n")
	})
	l := h.get("x")
	if e.Lock.Stale() || e.Lock.Set != (lock.SetRef{}) || e.Lock.OnExpiry != lock.End || l.Stale() {
		t.Errorf("the hold is %+v, want one that is neither stale nor kept nor of a set", e.Lock)
	}
	want := "lock_on_expiry: keep does not count; there is none\nlock_set: 41/3 does not count; there is none\nlock_stale: 2026-11-22T19:03:11.482Z does not count; there is none"
	if l.Warnings != want {
		t.Errorf("the warnings are %q, want %q", l.Warnings, want)
	}

	stale := h.grant(lock.Lock{Name: lock.MustParseName("y"), Holder: "alice", OnExpiry: lock.Keep, StaleTime: time.Date(2026, 11, 22, 19, 3, 11, 482e6, time.UTC), Set: lock.SetRef{ID: 1, Size: 2}})
	if text := h.read("y"); !strings.Contains(text, "lock_on_expiry: keep\n") || !strings.Contains(text, "lock_set: 1/2\nlock_stale: \"2026-11-22T19:03:11.482Z\"\n") {
		t.Errorf("the server writes of a stale hold of a set\n%s", text)
	}
	e = h.next(func() {
		h.write("y", h.edited("y", "lock_stale: \"2026-11-22T19:03:11.482Z\"\n", "", "lock_on_expiry: keep", "lock_on_expiry: release", "lock_set: 1/2", "lock_set: 7/9\na: 1"))
	})
	if e.Type != lock.Updated || !e.Lock.Stale() || e.Lock.Set != stale.Set || e.Lock.OnExpiry != lock.Keep || e.Lock.Token != stale.Token {
		t.Errorf("the edited hold is %+v, want it as stale as before", e)
	}
	want = "lock_on_expiry: release does not count; it is keep\nlock_set: 7/9 does not count; it is 1/2"
	if got := h.get("y").Warnings; got != want {
		t.Errorf("the warnings are %q, want %q", got, want)
	}
}

// TestFormat: a root gets the second format with the first hold that needs it, and keeps
// it; one without such holds stays as it is.
func TestFormat(t *testing.T) {
	first, second := "pylok root, format 1\n", "pylok root, format 2\n"
	for _, test := range []struct {
		name string
		do   func(h *hands)
		want string
	}{
		{"plain holds and sets", func(h *hands) {
			h.grant(lock.Lock{Name: lock.MustParseName("a"), Holder: "alice", TTL: time.Hour, Set: lock.SetRef{Size: 2}})
			h.next(func() { h.write("b", "msg: mine\nlock_on_expiry: keep\nlock_stale: now\n") })
		}, first},
		{"a copy of a tree", func(h *hands) {
			h.next(func() { h.write("b", "lock_scope: tree\nlock_file_location: /elsewhere.lock\n") })
		}, first},
		{"a tree", func(h *hands) { h.grant(lock.Lock{Name: lock.MustParseName("a"), Tree: true}) }, second},
		{"a shared hold", func(h *hands) { h.grant(lock.Lock{Name: lock.MustParseName("a/_+1")}) }, second},
		{"a hold that is kept", func(h *hands) { h.grant(lock.Lock{Name: lock.MustParseName("a"), OnExpiry: lock.Keep}) }, second},
		{"a stale one", func(h *hands) { h.grant(lock.Lock{Name: lock.MustParseName("a"), StaleTime: time.Now()}) }, second},
		{"a tree by hand", func(h *hands) { h.next(func() { h.write("b", "lock_scope: tree\n") }) }, second},
		{"a tree by an edit", func(h *hands) {
			h.grant(lock.Lock{Name: lock.MustParseName("a")})
			h.next(func() {
				h.write("a", h.edited("a", "lock_token", "lock_scope: tree\nlock_token"))
			})
		}, second},
		{"a shared hold by hand", func(h *hands) { h.next(func() { write(h.t, h.root, "a/_+by-hand", "") }) }, second},
		{"a tree by hand while no server ran", func(h *hands) {
			h.close()
			write(h.t, h.root, "b", "lock_scope: tree\n")
			h.open()
		}, second},
		{"a shared hold of a server before, which took it for a plain one", func(h *hands) {
			h.grant(lock.Lock{Name: lock.MustParseName("a/_+1")})
			h.close()
			if err := os.WriteFile(filepath.Join(h.root, ".pylok/format"), []byte(first), 0o600); err != nil {
				h.t.Fatal(err)
			}
			h.open()
		}, second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHands(t)
			want := func(what, want string) {
				t.Helper()
				if text, err := os.ReadFile(filepath.Join(h.root, ".pylok/format")); err != nil || !bytes.Equal(text, []byte(want)) {
					t.Errorf("%s the root says %q, %v; want %q", what, text, err, want)
				}
			}
			want("a new one:", first)
			test.do(h)
			want("with it", test.want)
			h.reopen()
			want("after a restart", test.want)
		})
	}
}

// TestSetInTheWay: of a set of which one member cannot have its file nothing is left, and
// all of it is granted when it can.
func TestSetInTheWay(t *testing.T) {
	blocks := map[string]struct {
		make, remove func(h *hands)
		want         error
	}{
		"a file where its directory is to be": {
			func(h *hands) { h.put("m", "") }, func(h *hands) { h.take("m") }, lock.ErrInvalidName,
		},
		"a directory in its place": {
			func(h *hands) {
				if err := os.MkdirAll(filepath.Join(h.root, "m/n.lock/in-it"), 0o755); err != nil {
					h.t.Fatal(err)
				}
			}, func(h *hands) {
				if err := os.RemoveAll(filepath.Join(h.root, "m/n.lock")); err != nil {
					h.t.Fatal(err)
				}
			}, lock.ErrConflict,
		},
		"somebody's file in its place": {
			func(h *hands) {
				if err := os.MkdirAll(filepath.Join(h.root, "m"), 0o755); err != nil {
					h.t.Fatal(err)
				}
				h.put("m/n.lock", "msg: mine\n")
			}, func(h *hands) { h.take("m/n.lock") }, lock.ErrConflict,
		},
		"a symbolic link on the way": {
			func(h *hands) {
				if err := os.Symlink(".", filepath.Join(h.root, "m")); err != nil {
					h.t.Fatal(err)
				}
			}, func(h *hands) { h.take("m") }, lock.ErrInvalidName,
		},
	}
	for name, block := range blocks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHands(t)
			former := h.grant(lock.Lock{Name: lock.MustParseName("b"), Holder: "former"})
			before := h.read("b")
			var set []lock.Change
			for _, name := range []string{"a", "b", "m/n", "new/dir/x", "z/_+1"} {
				c := lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: lock.MustParseName(name), Holder: "set", Set: lock.SetRef{Size: 5}}}
				if name == "b" {
					c.Prev = former.Revision
				}
				set = append(set, c)
			}
			free := func(what string) {
				t.Helper()
				for _, name := range []string{"a", "new/dir/x", "z/_+1"} {
					if l, err := h.Get(h.ctx, lock.MustParseName(name)); !errors.Is(err, lock.ErrNotLocked) {
						t.Errorf("%s %s is held: %+v, %v", what, name, l, err)
					}
					if _, err := os.Lstat(filepath.Join(h.root, name+".lock")); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s there is something in the place of %s: %v", what, name, err)
					}
				}
				if l := h.get("b"); l != former || h.read("b") != before {
					t.Errorf("%s b is %+v, want %+v; its file is\n%s", what, l, former, h.read("b"))
				}
			}
			block.make(h)
			for range 3 {
				if _, err := h.Commit(h.ctx, set); !errors.Is(err, block.want) {
					t.Fatalf("with %s the set gets %v, want %v", name, err, block.want)
				}
				free("after a refusal")
			}
			block.remove(h)
			for {
				events, err := h.Commit(h.ctx, set)
				if errors.Is(err, lock.ErrConflict) && h.ctx.Err() == nil { // it has not yet been seen to be gone
					continue
				}
				if err != nil || len(events) != 5 || events[4].Lock.Set != (lock.SetRef{ID: events[0].Lock.Token, Size: 5}) {
					t.Fatalf("with nothing in the way the set gets %+v, %v", events, err)
				}
				break
			}
			h.reopen()
			if l := h.get("z/_+1"); l.Set.Size != 5 || l.Holder != "set" {
				t.Errorf("after a restart a member of the set is %+v", l)
			}
		})
	}
}

// put makes a file, by its path in the root.
func (h *hands) put(file, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.root, file), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// take removes what put has made.
func (h *hands) take(file string) {
	h.t.Helper()
	if err := os.Remove(filepath.Join(h.root, file)); err != nil {
		h.t.Fatal(err)
	}
}
