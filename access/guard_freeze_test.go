package access_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/lock"
)

// TestGuardFreezer: who may freeze and not lock freezes, keeps that up and thaws; touches no
// hold that is no tree; and who may freeze a part cannot freeze all.
func TestGuardFreezer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [\"*\"], may: [freeze], locks: [\"prod/**\", \"_all/**\"]}\n", nil)
		ctx, ci := g.ci()
		name := lock.MustParseName
		g.lock(lock.LockRequest{Name: name("prod/web")})
		for _, n := range []string{"prod", "prod/web/a"} {
			grant, err := g.Lock(ctx, ci, lock.LockRequest{Name: name(n), Tree: true, TTL: time.Hour})
			if err != nil || !grant.Lock.Tree {
				t.Fatalf("freeze of %s: %+v, %v", n, grant, err)
			}
			token := grant.Lock.Token
			if _, err := g.Renew(ctx, ci, lock.RenewRequest{Name: name(n), Token: token}); err != nil {
				t.Errorf("renewal of the freeze of %s: %v", n, err)
			}
			if _, err := g.RenewSet(ctx, ci, lock.RenewSetRequest{Holds: []lock.HoldRef{{Name: name(n), Token: token}}}); err != nil {
				t.Errorf("renewal of the freeze of %s as a set: %v", n, err)
			}
			if l, err := g.Status(ctx, ci, name(n)); err != nil || !l.Tree {
				t.Errorf("status of %s: %+v, %v", n, l, err)
			}
			answer, err := g.HandOver(ctx, ci, lock.HandOverRequest{Name: name(n), Token: token, Caller: ci.Name})
			if err != nil {
				t.Fatalf("hand-over of the freeze of %s: %v", n, err)
			}
			if _, err := g.Unlock(ctx, ci, lock.UnlockRequest{Name: name(n), Token: answer.Lock.Token}); err != nil {
				t.Errorf("thaw of %s: %v", n, err)
			}
		}
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, lock.ErrPermissionDenied) {
				t.Errorf("%s: %v, want %v", what, err, lock.ErrPermissionDenied)
			}
		}
		_, err := g.Unlock(ctx, ci, lock.UnlockRequest{Name: name("prod/web")})
		refused("unlock of a hold that is no tree", err)
		_, err = g.Lock(ctx, ci, lock.LockRequest{Name: name("prod/x")})
		refused("lock", err)
		for _, n := range []string{"_all", "pro", "prod2"} {
			_, err = g.Lock(ctx, ci, lock.LockRequest{Name: name(n), Tree: true})
			refused("freeze of "+n, err)
		}
		g.change("  - {who: [\"*\"], may: [freeze], locks: [\"**\"]}\n")
		ctx, ci = g.ci()
		if _, err := g.Lock(ctx, ci, lock.LockRequest{Name: name("_all"), Tree: true}); err != nil {
			t.Errorf("freeze of all by who may: %v", err)
		}
	})
}

// TestGuardHandOver: to whom a hold may go.
func TestGuardHandOver(t *testing.T) {
	const callers = `callers:
  - {name: ci, token: %q, groups: [ci]}
  - {name: bob, token: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", groups: [ci]}
  - {name: view, token: "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"}
  - {unix: {group: ops}, groups: [ops]}
  - {unix: {}}
rules:
  - {who: ["*"], may: [view], locks: ["**"]}
  - {who: ["group:ci", "group:ops"], may: [lock], locks: ["prod/**"]}
  - {who: ["token:ci", "group:ops"], may: [lock, freeze], locks: ["**"]}
`
	for _, test := range []struct {
		to, name string
		tree     bool
		reason   lock.Reason // of the refusal
		warnings []string
	}{
		{to: "token:ci", name: "prod/x"},
		{to: "token:ci", name: "prod/x", tree: true},
		{to: "token:bob", name: "prod/x", warnings: []string{"has not heard of token:bob"}},
		{to: "token:bob", name: "prod/x", tree: true, reason: lock.ErrPermissionDenied},
		{to: "token:bob", name: "dev/x", reason: lock.ErrPermissionDenied},
		{to: "token:view", name: "prod/x", reason: lock.ErrPermissionDenied},
		{to: "unix:alice", name: "prod/x", warnings: []string{"depends on its proof", "has not heard of unix:alice"}},
		{to: "unix:alice", name: "prod", tree: true, warnings: []string{"depends on its proof", "has not heard of unix:alice"}},
		{to: "", name: "prod/x", reason: lock.ErrInvalidArgument},
		{to: "anonymous", name: "prod/x", reason: lock.ErrInvalidArgument},
		{to: "group:ci", name: "prod/x", reason: lock.ErrInvalidArgument},
		{to: "*", name: "prod/x", reason: lock.ErrInvalidArgument},
		{to: "token:nobody", name: "prod/x", reason: lock.ErrInvalidArgument},
		{to: "bob", name: "prod/x", reason: lock.ErrInvalidArgument},
	} {
		t.Run(fmt.Sprintf("%s to %q, a tree %t", test.name, test.to, test.tree), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, "  - {who: [\"*\"], may: [lock, freeze], locks: [\"**\"]}\n", nil)
				g.write(fmt.Sprintf(callers, g.hash))
				if err := g.control.Reload(); err != nil {
					t.Fatal(err)
				}
				ctx, ci := g.ci()
				n := lock.MustParseName(test.name)
				grant, err := g.Lock(ctx, ci, lock.LockRequest{Name: n, Tree: test.tree})
				if err != nil {
					t.Fatal(err)
				}
				answer, err := g.HandOver(ctx, ci, lock.HandOverRequest{Name: n, Token: grant.Lock.Token, Holder: "next", Caller: test.to})
				if test.reason != "" {
					if !errors.Is(err, test.reason) {
						t.Fatalf("got %+v, %v; want %v", answer, err, test.reason)
					}
					if now := g.status(n); now.Token != grant.Lock.Token {
						t.Errorf("what was refused has changed the hold to %+v", now)
					}
					return
				}
				if err != nil || answer.Lock.Caller != test.to || answer.Lock.Tree != test.tree || len(answer.Warnings) != len(test.warnings) {
					t.Fatalf("got %+v, %v; want the warnings %q", answer, err, test.warnings)
				}
				for i, want := range test.warnings {
					if !strings.Contains(answer.Warnings[i], want) {
						t.Errorf("warning %q, want %q", answer.Warnings[i], want)
					}
				}
			})
		})
	}
}

// TestGuardActs: what is done to others, or goes to others, is recorded with who, what and
// why, and freezes, thaws and hand-overs are in the log; what one does with one's own holds
// is not.
func TestGuardActs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, "  - {who: [\"*\"], may: [lock, break, freeze], locks: [\"**\"]}\n", nil)
		var log bytes.Buffer
		g.Guard = access.NewGuard(g.inner, g.control, access.GuardConfig{
			Record: func(r access.Record) { g.records = append(g.records, r) },
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		ctx, ci := g.ci()
		name := lock.MustParseName
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		acts := func(what string, want ...string) {
			t.Helper()
			var got []string
			for _, r := range g.records {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", r.Act, r.Verb, r.Name, r.To, r.Reason)))
				if !r.Allowed || r.Caller.Name != ci.Name || r.Time.IsZero() {
					t.Errorf("%s: the record %+v", what, r)
				}
			}
			for i := range got {
				got[i] = strings.Join(strings.Fields(got[i]), " ")
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: recorded are %q, want %q", what, got, want)
			}
			g.records = nil
		}
		logged := func(what string, words ...string) {
			t.Helper()
			for _, word := range words {
				if !strings.Contains(log.String(), word) {
					t.Errorf("%s: the log has no %q: %s", what, word, log.String())
				}
			}
			if len(words) == 0 && log.Len() > 0 {
				t.Errorf("%s: the log has %s", what, log.String())
			}
			log.Reset()
		}

		mine, err := g.Lock(ctx, ci, lock.LockRequest{Name: name("a"), TTL: time.Hour})
		must(err)
		_, err = g.Renew(ctx, ci, lock.RenewRequest{Name: name("a"), Token: mine.Lock.Token})
		must(err)
		_, err = g.Unlock(ctx, ci, lock.UnlockRequest{Name: name("a"), Token: mine.Lock.Token})
		must(err)
		set, err := g.LockSet(ctx, ci, lock.SetRequest{Names: []lock.Name{name("s/1"), name("s/2")}})
		must(err)
		_, err = g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Set: set.Locks[0].Set.ID})
		must(err)
		_, err = g.Ask(ctx, ci, lock.AskRequest{Name: g.take("asked").Name, Message: "m"})
		must(err)
		acts("one's own")
		logged("one's own")

		g.take("b")
		_, err = g.Unlock(ctx, ci, lock.UnlockRequest{Name: name("b"), Force: true, Reason: "stuck"})
		must(err)
		acts("a break", "break break b stuck")
		l1, l2 := g.take("b/1"), g.take("b/2")
		_, err = g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Holds: []lock.HoldRef{{Name: l1.Name, Token: l1.Token}, {Name: l2.Name, Token: l2.Token}, {Name: name("b/3"), Token: 1}}, Force: true, Reason: "stuck"})
		must(err)
		acts("a break of several", "break break b/1 stuck", "break break b/2 stuck")

		data, err := lock.NewData(map[string]any{"msg": "holiday"})
		must(err)
		frozen, err := g.Lock(ctx, ci, lock.LockRequest{Name: name("f"), Tree: true, Data: data})
		must(err)
		acts("a freeze", "freeze freeze f holiday")
		logged("a freeze", "level=INFO", "is frozen", "name=f", "by=token:ci", "reason=holiday")
		_, err = g.Lock(ctx, ci, lock.LockRequest{Name: name("f/x"), ThroughFreeze: true, Reason: "hot fix"})
		must(err)
		acts("through a freeze", "through-freeze freeze f/x hot fix")
		_, err = g.LockSet(ctx, ci, lock.SetRequest{Names: []lock.Name{name("f/y"), name("f/z")}, ThroughFreeze: true, Reason: "hot fix"})
		must(err)
		acts("a set through a freeze", "through-freeze freeze f/y hot fix", "through-freeze freeze f/z hot fix")
		_, err = g.Unlock(ctx, ci, lock.UnlockRequest{Name: name("f"), Token: frozen.Lock.Token, Reason: "over"})
		must(err)
		acts("a thaw", "thaw lock f over")
		logged("a thaw", "no more", "name=f", "by=token:ci", "reason=over")
		g.lock(lock.LockRequest{Name: name("f"), Tree: true})
		_, err = g.Unlock(ctx, ci, lock.UnlockRequest{Name: name("f"), Force: true, Reason: "now"})
		must(err)
		acts("a thaw by force", "break break f now", "thaw break f now")

		log.Reset()
		mine, err = g.Lock(ctx, ci, lock.LockRequest{Name: name("h")})
		must(err)
		_, err = g.HandOver(ctx, ci, lock.HandOverRequest{Name: name("h"), Token: mine.Lock.Token, Holder: "me again", Caller: ci.Name, Reason: "shift"})
		must(err)
		acts("a hand-over", "hand-over lock h token:ci shift")
		logged("a hand-over", "handed over", "name=h", "by=token:ci", "to=token:ci", "reason=shift")

		g.later(lock.LockRequest{Name: name("h"), Wait: time.Hour})
		_, err = g.Dismiss(ctx, ci, lock.DismissRequest{Name: name("h"), Place: status0(g, "h"), Reason: "not now"})
		must(err)
		acts("a dismissal", "dismiss break h unix:root not now")

		stale := func(n string) {
			t.Helper()
			g.lock(lock.LockRequest{Name: name(n), TTL: time.Second, OnExpiry: lock.Keep})
			time.Sleep(time.Minute)
			synctest.Wait()
			if !g.status(name(n)).Stale() {
				t.Fatalf("%s is not stale", n)
			}
		}
		stale("k/1")
		_, err = g.Unlock(ctx, ci, lock.UnlockRequest{Name: name("k/1"), Stale: true, Reason: "looked"})
		must(err)
		acts("a stale end", "end-stale lock k/1 looked")
		stale("k/2")
		_, err = g.Lock(ctx, ci, lock.LockRequest{Name: name("k/2"), ReplaceStale: true, Reason: "looked"})
		must(err)
		acts("a stale hold replaced", "replace-stale lock k/2 looked")
		_, err = g.Lock(ctx, ci, lock.LockRequest{Name: name("k/3"), ReplaceStale: true, Reason: "looked"})
		must(err)
		acts("no stale hold replaced")
	})
}

// TestGuardSetWaits: a set that waits leaves its lines when a new access file does not let
// its caller have one of the locks any more, the last as well as the first.
func TestGuardSetWaits(t *testing.T) {
	for _, last := range []string{"a/1", "a/2", "a/3"} {
		synctest.Test(t, func(t *testing.T) {
			const both = "  - {who: [\"*\"], may: [lock], locks: [\"a/1\", \"a/2\", \"a/3\"]}\n"
			g := newGuarded(t, both, nil)
			ctx, ci := g.ci()
			g.take("a/1")
			answer := make(chan error, 1)
			ctx, stop := context.WithCancel(ctx)
			defer stop()
			go func() {
				_, err := g.LockSet(ctx, ci, lock.SetRequest{
					Names:   []lock.Name{lock.MustParseName("a/1")},
					Choices: []lock.Choice{{Names: []lock.Name{lock.MustParseName("a/2"), lock.MustParseName("a/3")}, Count: 1}},
					Wait:    lock.WaitForever,
				})
				answer <- err
			}()
			synctest.Wait()
			g.change(both + "  - {who: [\"*\"], may: [view], locks: [\"b\"]}\n")
			synctest.Wait()
			select {
			case err := <-answer:
				t.Fatalf("it has left while it may lock all: %v", err)
			default:
			}
			g.change(strings.Replace(both, "\""+last+"\"", "\"other\"", 1))
			synctest.Wait()
			stop() // it has left by then
			if err := <-answer; !errors.Is(err, lock.ErrPermissionDenied) || !strings.Contains(err.Error(), last) {
				t.Errorf("without %s: %v, want %v", last, err, lock.ErrPermissionDenied)
			}
			synctest.Wait()
			if l := g.status(lock.MustParseName("a/1")); l.Waiters != 0 {
				t.Errorf("%d wait still", l.Waiters)
			}
		})
	}
}
