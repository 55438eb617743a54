package access_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/access/bearer"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// guarded is a guard before the rules of package manager, on locks in memory.
type guarded struct {
	*access.Guard
	t       *testing.T
	inner   lock.Locks
	control *access.Control
	file    string
	records []access.Record
	token   string // of ci
	hash    string // of token
}

// noteInMemory is an access.Note.
type noteInMemory struct{ text []byte }

func (n *noteInMemory) Load() ([]byte, error)  { return n.text, nil }
func (n *noteInMemory) Save(text []byte) error { n.text = slices.Clone(text); return nil }

// rulesFor is an access file in which ci, who has a token, may do something.
func rulesFor(hash, rules string) string {
	return fmt.Sprintf("callers:\n  - {name: ci, token: %q, groups: [ci]}\nrules:\n%s", hash, rules)
}

func newGuarded(t *testing.T, rules string, note access.Note) *guarded {
	t.Helper()
	store := memstore.New(memstore.Config{})
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{t: t, inner: m, file: filepath.Join(t.TempDir(), "access.yaml")}
	token, hash := bearer.New()
	g.token, g.hash = token, hash
	g.write(rulesFor(hash, rules))
	if g.control, err = access.NewControl(access.Config{File: g.file}); err != nil {
		t.Fatal(err)
	}
	g.Guard = access.NewGuard(m, g.control, access.GuardConfig{
		Record: func(r access.Record) { g.records = append(g.records, r) },
		Note:   note,
	})
	t.Cleanup(func() {
		m.Close()
		store.Close()
	})
	return g
}

func (g *guarded) write(text string) {
	g.t.Helper()
	if err := os.WriteFile(g.file, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// change gives ci other rules.
func (g *guarded) change(rules string) {
	g.t.Helper()
	text, err := os.ReadFile(g.file)
	if err != nil {
		g.t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "rules:\n")
	g.write(before + "rules:\n" + rules)
	if err := g.control.Reload(); err != nil {
		g.t.Fatal(err)
	}
}

// ci returns the context and the caller of somebody with the token.
func (g *guarded) ci() (context.Context, lock.Caller) {
	g.t.Helper()
	ctx := access.WithEvidence(g.t.Context(), &access.Evidence{Bearer: g.token})
	caller, err := g.control.Identify(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	return ctx, caller
}

// take takes a lock past the guard.
func (g *guarded) take(name string) lock.Lock {
	g.t.Helper()
	grant, err := g.inner.Lock(g.t.Context(), lock.Caller{Name: "unix:root"}, lock.LockRequest{Name: lock.MustParseName(name), Holder: "root"})
	if err != nil {
		g.t.Fatal(err)
	}
	return grant.Lock
}

// requests are all requests about one lock, or about some of which it is one, and the verbs
// that each needs.
var requests = []struct {
	what  string
	needs []access.Verb
	ask   func(context.Context, lock.Locks, lock.Caller, lock.Name) error
}{
	{"lock", may(access.Lock), locking(lock.LockRequest{})},
	{"lock and wait", may(access.Lock), locking(lock.LockRequest{Wait: time.Millisecond})},
	{"lock, shared", may(access.Lock), locking(lock.LockRequest{Shared: true})},
	{"lock in place of a stale hold", may(access.Lock), locking(lock.LockRequest{ReplaceStale: true, Reason: "looked"})},
	{"lock through a freeze", may(access.Lock, access.Freeze), locking(lock.LockRequest{ThroughFreeze: true, Reason: "hot fix"})},
	{"freeze", may(access.Freeze), locking(lock.LockRequest{Tree: true})},
	{"freeze and drain", may(access.Freeze), locking(lock.LockRequest{Tree: true, Drain: true, Wait: time.Millisecond})},
	{"lock a set, first", may(access.Lock), lockingSet(func(n lock.Name) lock.SetRequest { return lock.SetRequest{Names: []lock.Name{n, fine}} })},
	{"lock a set, last", may(access.Lock), lockingSet(func(n lock.Name) lock.SetRequest { return lock.SetRequest{Names: []lock.Name{fine, n}} })},
	{"lock one of a pool", may(access.Lock), lockingSet(func(n lock.Name) lock.SetRequest {
		return lock.SetRequest{Choices: []lock.Choice{{Names: []lock.Name{fine, n}, Count: 1}}}
	})},
	{"lock one of the second pool", may(access.Lock), lockingSet(func(n lock.Name) lock.SetRequest {
		return lock.SetRequest{Choices: []lock.Choice{{Names: []lock.Name{fine}, Count: 1}, {Names: []lock.Name{n}, Count: 1}}}
	})},
	{"lock a set through a freeze", may(access.Lock, access.Freeze), lockingSet(func(n lock.Name) lock.SetRequest {
		return lock.SetRequest{Names: []lock.Name{fine, n}, ThroughFreeze: true, Reason: "hot fix"}
	})},
	{"renew", may(access.Lock), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.Renew(ctx, c, lock.RenewRequest{Name: n, Token: 1, TTL: time.Hour})
		return err
	}},
	{"renew a set", may(access.Lock), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.RenewSet(ctx, c, lock.RenewSetRequest{Holds: []lock.HoldRef{{Name: fine, Token: 99}, {Name: n, Token: 1}}, TTL: time.Hour})
		return err
	}},
	{"unlock", may(access.Lock), unlocking(lock.UnlockRequest{Token: 1})},
	{"unlock, stale", may(access.Lock), unlocking(lock.UnlockRequest{Stale: true, Reason: "looked"})},
	{"break", may(access.Break), unlocking(lock.UnlockRequest{Force: true, Reason: "stuck"})},
	{"unlock a set", may(access.Lock), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.UnlockSet(ctx, c, lock.UnlockSetRequest{Holds: []lock.HoldRef{{Name: fine, Token: 99}, {Name: n, Token: 1}}})
		return err
	}},
	{"break a set", may(access.Break), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.UnlockSet(ctx, c, lock.UnlockSetRequest{Holds: []lock.HoldRef{{Name: fine, Token: 99}, {Name: n, Token: 1}}, Force: true, Reason: "stuck"})
		return err
	}},
	{"hand over", may(access.Lock), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.HandOver(ctx, c, lock.HandOverRequest{Name: n, Token: 1, Caller: c.Name})
		return err
	}},
	{"ask", may(access.Lock), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.Ask(ctx, c, lock.AskRequest{Name: n, Message: "let go"})
		return err
	}},
	{"dismiss", may(access.Break), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.Dismiss(ctx, c, lock.DismissRequest{Name: n, Place: 1, Reason: "stuck"})
		return err
	}},
	{"status", may(access.View), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.Status(ctx, c, n)
		return err
	}},
	{"list", may(access.View), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, _, _, err := l.List(ctx, c, lock.MustParsePattern(n.String()), lock.Name{}, 10)
		return err
	}},
	{"history", may(access.View), func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		_, err := l.History(ctx, c, lock.HistoryQuery{Pattern: lock.MustParsePattern(n.String())}, 0, 10)
		return err
	}},
	{"watch", may(access.View), watching(func(n lock.Name) lock.WatchRequest {
		return lock.WatchRequest{Pattern: lock.MustParsePattern(n.String())}
	})},
	{"watch with shared holds", may(access.View), watching(func(n lock.Name) lock.WatchRequest {
		return lock.WatchRequest{Pattern: lock.MustParsePattern(n.String()).WithSlots()}
	})},
	{"watch as the holder", may(access.View), watching(func(n lock.Name) lock.WatchRequest {
		return lock.WatchRequest{Pattern: lock.MustParsePattern(n.String()), Token: 1}
	})},
}

// fine is a lock that whoever may lock something in prod may lock.
var fine = lock.MustParseName("prod/fine")

func may(verbs ...access.Verb) []access.Verb { return verbs }

func locking(r lock.LockRequest) func(context.Context, lock.Locks, lock.Caller, lock.Name) error {
	return func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		r := r
		r.Name, r.Holder = n, "x"
		_, err := l.Lock(ctx, c, r)
		return err
	}
}

func lockingSet(of func(lock.Name) lock.SetRequest) func(context.Context, lock.Locks, lock.Caller, lock.Name) error {
	return func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		r := of(n)
		r.Holder = "x"
		_, err := l.LockSet(ctx, c, r)
		return err
	}
}

func unlocking(r lock.UnlockRequest) func(context.Context, lock.Locks, lock.Caller, lock.Name) error {
	return func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		r := r
		r.Name = n
		_, err := l.Unlock(ctx, c, r)
		return err
	}
}

func watching(of func(lock.Name) lock.WatchRequest) func(context.Context, lock.Locks, lock.Caller, lock.Name) error {
	return func(ctx context.Context, l lock.Locks, c lock.Caller, n lock.Name) error {
		for _, err := range l.Watch(ctx, c, of(n)) {
			return err
		}
		return nil
	}
}

// TestGuardAsks: each request is refused unless rules allow its verbs, in the same words
// whether the lock is held or free, and what is refused is recorded. A refusal names the
// lock that it is for and no other.
func TestGuardAsks(t *testing.T) {
	for _, verbs := range [][]access.Verb{{access.View}, {access.Lock}, {access.Break}, {access.Freeze}, {access.Admin}, {access.Lock, access.Freeze}} {
		word := strings.Trim(strings.ReplaceAll(fmt.Sprint(verbs), " ", ", "), "[]")
		rules := fmt.Sprintf("  - {who: [\"group:ci\"], may: [%s], locks: [\"prod/**\"]}\n", word)
		if verbs[0] == access.Admin {
			rules = "  - {who: [\"group:ci\"], may: [admin]}\n"
		}
		for _, request := range requests {
			t.Run(word+" "+request.what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newGuarded(t, rules, nil)
					ctx, ci := g.ci()
					refusals := 0
					for _, name := range []lock.Name{lock.MustParseName("prod/x"), lock.MustParseName("dev/x")} {
						lacks := func(need access.Verb) bool { return need != access.View && !slices.Contains(verbs, need) }
						lacking := verbs[0] == access.Admin || slices.ContainsFunc(request.needs, lacks)
						want := lacking || strings.HasPrefix(name.String(), "dev/")
						var texts []string
						for range 2 { // free, then held
							before := g.revision()
							err := request.ask(ctx, g, ci, name)
							denied := errors.Is(err, lock.ErrPermissionDenied)
							if denied != want {
								t.Errorf("%s %s by one who may %s: %v; want refused: %t", request.what, name, word, err, want)
							}
							if denied {
								texts = append(texts, err.Error())
							}
							if denied && g.revision() != before {
								t.Errorf("%s %s by one who may %s has changed something", request.what, name, word)
							}
							if denied && !lacking && strings.Contains(err.Error(), fine.String()) {
								t.Errorf("%s %s by one who may %s: the refusal names another lock: %v", request.what, name, word, err)
							}
							if l := g.status(name); !l.Held() && l.Situation == nil {
								g.take(name.String())
							}
						}
						if distinct := slices.Compact(slices.Clone(texts)); len(distinct) > 1 {
							t.Errorf("the refusals differ: %q", distinct)
						}
						refusals += len(texts)
					}
					recorded := slices.DeleteFunc(slices.Clone(g.records), func(r access.Record) bool { return r.Allowed })
					if len(recorded) != refusals {
						t.Errorf("%d refusals are recorded, want %d: %+v", len(recorded), refusals, recorded)
					}
				})
			})
		}
	}
}

func (g *guarded) revision() lock.Revision {
	g.t.Helper()
	revision, err := g.inner.Revision(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	return revision
}

func (g *guarded) status(name lock.Name) lock.Lock {
	g.t.Helper()
	l, err := g.inner.Status(g.t.Context(), lock.Caller{}, name)
	if err != nil {
		g.t.Fatal(err)
	}
	return l
}

// TestGuardFilters: lists, histories and watches of wider patterns have what may be viewed,
// and nothing of the rest.
func TestGuardFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [\"*\"], may: [view], locks: [\"a/**\", \"c/x\"]}\n", nil)
		ctx, ci := g.ci()
		names := []string{"a/1", "a/2", "b/1", "b/2", "c/x", "c/y"}
		visible := []string{"a/1", "a/2", "c/x"}
		for _, name := range names {
			g.take(name)
		}
		for _, pattern := range []string{"", "**", "*/*", "c/*", "b/*"} {
			p := lock.MustParsePattern(pattern)
			var want, listed, past []string
			for _, name := range visible {
				if p.MatchText(name) {
					want = append(want, name)
				}
			}
			for after, more := (lock.Name{}), true; more; {
				var page []lock.Lock
				var err error
				if page, _, more, err = g.List(ctx, ci, p, after, 2); err != nil {
					t.Fatal(err)
				}
				for _, l := range page {
					after = l.Name
					listed = append(listed, l.Name.String())
				}
			}
			for from, more := lock.Revision(0), true; more; {
				page, err := g.History(ctx, ci, lock.HistoryQuery{Pattern: p}, from, 2)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page.Events {
					past = append(past, e.Lock.Name.String())
				}
				from, more = page.Next, page.Next != 0
			}
			if !slices.Equal(listed, want) || !slices.Equal(past, want) {
				t.Errorf("of %q: the list has %q and the history %q, want %q", pattern, listed, past, want)
			}
		}

		next, stop := iter.Pull2(g.Watch(ctx, ci, lock.WatchRequest{}))
		defer stop()
		var told []string
		for len(told) == 0 || !strings.HasPrefix(told[len(told)-1], "synced") {
			e, err, _ := next()
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, e.Type.String()+" "+e.Lock.Name.String())
		}
		if want := []string{"reset ", "locked a/1", "locked a/2", "locked c/x", "synced "}; !slices.Equal(told, want) {
			t.Errorf("the watch begins with %q, want %q", told, want)
		}
		g.take("b/3")
		g.take("a/3")
		if e, err, _ := next(); err != nil || e.Lock.Name.String() != "a/3" {
			t.Errorf("the watch tells %+v, %v; want a/3 alone", e, err)
		}
	})
}

// TestGuardWatchOverReload: a watch goes on when the rules change, with the state anew where
// they let the caller see another set; one of a name that may not be viewed any more ends,
// and so does that of a caller who is nobody any more.
func TestGuardWatchOverReload(t *testing.T) {
	const (
		seesA  = "  - {who: [\"*\"], may: [view], locks: [\"a/**\"]}\n"
		seesAB = "  - {who: [\"*\"], may: [view], locks: [\"a/**\", \"b/**\"]}\n"
		others = "  - {who: [\"*\"], may: [view], locks: [\"a/**\"]}\n  - {who: [\"*\"], may: [lock], locks: [\"a/x\"]}\n"
	)
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, seesA, nil)
		ctx, ci := g.ci()
		g.take("a/1")
		g.take("b/1")
		next, stop := iter.Pull2(g.Watch(ctx, ci, lock.WatchRequest{}))
		defer stop()
		want := func(when string, want ...string) {
			t.Helper()
			var got []string
			for range want {
				e, err, ok := next()
				if err != nil || !ok {
					t.Fatalf("%s: %v after %q", when, err, got)
				}
				got = append(got, strings.TrimSpace(e.Type.String()+" "+e.Lock.Name.String()))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %q, want %q", when, got, want)
			}
		}
		want("at first", "reset", "locked a/1", "synced")
		g.change(seesAB)
		want("it sees more", "reset", "locked a/1", "locked b/1", "synced")
		g.take("b/2")
		want("it sees more", "locked b/2")
		g.change(others)
		want("it sees less", "reset", "locked a/1", "synced")
		g.change(others + "  - {who: [\"*\"], may: [break], locks: [\"a/x\"]}\n")
		want("it sees the same", "synced")
		g.take("a/2")
		want("it sees the same", "locked a/2")
		g.write("callers: []\nrules: []\n")
		if err := g.control.Reload(); err != nil {
			t.Fatal(err)
		}
		if _, err, _ := next(); !errors.Is(err, lock.ErrUnauthenticated) {
			t.Errorf("without a caller: %v, want %v", err, lock.ErrUnauthenticated)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, seesAB, nil)
		ctx, ci := g.ci()
		next, stop := iter.Pull2(g.Watch(ctx, ci, lock.WatchRequest{Pattern: lock.MustParsePattern("b/1")}))
		defer stop()
		for range 2 {
			if _, err, _ := next(); err != nil {
				t.Fatal(err)
			}
		}
		g.change(seesA)
		if _, err, _ := next(); !errors.Is(err, lock.ErrPermissionDenied) {
			t.Errorf("of a name that may not be viewed any more: %v, want %v", err, lock.ErrPermissionDenied)
		}
	})
}

// TestGuardResume: who goes on from before the present rules, also over a restart, has the
// state anew, and who goes on from after has the changes alone.
func TestGuardResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		note := &noteInMemory{}
		g := newGuarded(t, "  - {who: [\"*\"], may: [view], locks: [\"a/**\"]}\n", note)
		ctx, ci := g.ci()
		first := func(after lock.Revision) lock.EventType {
			t.Helper()
			for e, err := range g.Watch(ctx, ci, lock.WatchRequest{After: after}) {
				if err != nil {
					t.Fatal(err)
				}
				return e.Type
			}
			return 0
		}
		g.take("b/1")
		first(0)
		early := lock.Revision(g.take("a/1").Token)
		if got := first(early - 1); got != lock.Reset {
			t.Errorf("from before the rules the watch begins with %v", got)
		}
		late := lock.Revision(g.take("a/2").Token)
		if got := first(early); got != lock.Locked {
			t.Errorf("the watch begins with %v, want the change after it", got)
		}
		g.change("  - {who: [\"*\"], may: [view], locks: [\"**\"]}\n")
		if got := first(late); got != lock.Reset {
			t.Errorf("from before other rules the watch begins with %v", got)
		}
		g.Guard = access.NewGuard(g.inner, g.control, access.GuardConfig{Note: note}) // a restart
		later := lock.Revision(g.take("b/2").Token)
		g.take("b/3")
		if got := first(later); got != lock.Locked {
			t.Errorf("after a restart with the same rules the watch begins with %v", got)
		}
		if got := first(late); got != lock.Reset {
			t.Errorf("after a restart, from before the rules, the watch begins with %v", got)
		}
	})
}

// TestGuardOverwrite: who may break may overwrite the hold of another caller with the same
// holder, and nobody else.
func TestGuardOverwrite(t *testing.T) {
	for verb, want := range map[string]bool{"lock": false, "lock, break": true} {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t, "  - {who: [\"*\"], may: ["+verb+"], locks: [\"**\"]}\n", nil)
			ctx, ci := g.ci()
			held := g.take("x")
			_, err := g.Lock(ctx, ci, lock.LockRequest{Name: held.Name, Holder: held.Holder, Overwrite: true})
			if want != (err == nil) {
				t.Errorf("overwrite by one who may %s: %v", verb, err)
			}
			if want && (len(g.records) != 1 || g.records[0].Verb != access.Break || !g.records[0].Allowed || g.records[0].Name != "x" || g.records[0].Caller.Name != ci.Name) {
				t.Errorf("an overwrite that breaks a hold is recorded as %+v", g.records)
			}
			if _, err := g.Lock(ctx, ci, lock.LockRequest{Name: held.Name, Holder: held.Holder, Overwrite: true}); want && (err != nil || len(g.records) != 1) {
				t.Errorf("an overwrite of one's own hold: %v, recorded as %+v", err, g.records)
			}
		})
	}
}

// TestGuardActorAtReset: who took a lock without a proof is anonymous in the state that a
// watch begins with, whatever it calls itself.
func TestGuardActorAtReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [anonymous, \"*\"], may: [lock], locks: [\"**\"]}\n", nil)
		ctx, ci := g.ci()
		if _, err := g.Lock(t.Context(), lock.Caller{Name: lock.Anonymous}, lock.LockRequest{Name: lock.MustParseName("x"), Holder: "github:owner/repo"}); err != nil {
			t.Fatal(err)
		}
		for e, err := range g.Watch(ctx, ci, lock.WatchRequest{}) {
			if err != nil || e.Type == lock.Synced {
				break
			}
			if e.Type == lock.Locked && e.Actor != lock.Anonymous {
				t.Errorf("the hold is by %q, want %q", e.Actor, lock.Anonymous)
			}
		}
	})
}
