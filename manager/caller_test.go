package manager_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

var (
	unixAlice = lock.Caller{Name: "unix:alice"}
	unixBob   = lock.Caller{Name: "unix:bob"}
	nobody    = lock.Caller{}                     // callers are not told apart
	anonymous = lock.Caller{Name: lock.Anonymous} // they are, and this one has no proof
)

// TestHoldOfAnother has each request that would end, keep or replace a hold made by its
// caller and by others, with every proof of old: the right token, holder and request id.
// None of those counts for another caller; a hold that no caller is known of follows them.
func TestHoldOfAnother(t *testing.T) {
	requests := map[string]func(lock.Locks, lock.Caller, lock.Lock) error{
		"renew": func(m lock.Locks, c lock.Caller, l lock.Lock) error {
			_, err := m.Renew(t.Context(), c, lock.RenewRequest{Name: l.Name, Token: l.Token, Holder: l.Holder})
			return err
		},
		"unlock by token": func(m lock.Locks, c lock.Caller, l lock.Lock) error {
			_, err := m.Unlock(t.Context(), c, lock.UnlockRequest{Name: l.Name, Token: l.Token})
			return err
		},
		"unlock by holder": func(m lock.Locks, c lock.Caller, l lock.Lock) error {
			_, err := m.Unlock(t.Context(), c, lock.UnlockRequest{Name: l.Name, Holder: l.Holder})
			return err
		},
		"overwrite": func(m lock.Locks, c lock.Caller, l lock.Lock) error {
			_, err := m.Lock(t.Context(), c, lock.LockRequest{Name: l.Name, Holder: l.Holder, Overwrite: true})
			return err
		},
		"request id": func(m lock.Locks, c lock.Caller, l lock.Lock) error {
			_, err := m.Lock(t.Context(), c, lock.LockRequest{Name: l.Name, Holder: l.Holder, RequestID: l.RequestID})
			return err
		},
	}
	callers := []lock.Caller{unixAlice, unixBob, nobody, anonymous}
	for what, ask := range requests {
		for _, taker := range callers {
			for _, asker := range callers {
				for _, holder := range []string{"job", ""} {
					if what == "request id" && holder == "" {
						continue
					}
					synctest.Test(t, func(t *testing.T) {
						m := manage(t, open(t))
						grant, err := m.Lock(t.Context(), taker, lock.LockRequest{Name: nameA, Holder: holder, TTL: time.Hour, RequestID: "r1"})
						if err != nil {
							t.Fatal(err)
						}
						if grant.Lock.Caller != taker.Owner() {
							t.Errorf("the hold is of %q, want %q", grant.Lock.Caller, taker.Owner())
						}
						want := taker.Owner() == "" || taker.Name == asker.Name
						if what == "request id" {
							want = taker.Owner() == asker.Owner()
						}
						err = ask(m, asker, grant.Lock)
						if want != (err == nil) {
							t.Errorf("%s, taken by %q as %q, asked by %q: %v, want success: %t", what, taker.Name, holder, asker.Name, err, want)
						}
						if err == nil {
							return
						}
						refused := lock.ErrNotHolder
						if what == "overwrite" || what == "request id" {
							refused = lock.ErrLockHeld
						}
						if !errors.Is(err, refused) || !strings.Contains(err.Error(), taker.Owner()) {
							t.Errorf("%s by %q: %v; want %v that names %q", what, asker.Name, err, refused, taker.Owner())
						}
						if now := status(t, m, nameA); now.Token != grant.Lock.Token || now.Caller != taker.Owner() {
							t.Errorf("%s by %q changed the hold to %+v", what, asker.Name, now)
						}
					})
				}
			}
		}
	}
}

// TestCallerIsNotSufficient: jobs of one caller do not release each other's holds without
// the token.
func TestCallerIsNotSufficient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		if _, err := m.Lock(t.Context(), unixAlice, lock.LockRequest{Name: nameA, Holder: "job 1"}); err != nil {
			t.Fatal(err)
		}
		_, err := m.Unlock(t.Context(), unixAlice, lock.UnlockRequest{Name: nameA, Holder: "job 2"})
		if !errors.Is(err, lock.ErrNotHolder) {
			t.Errorf("job 2 releases job 1's hold: %v", err)
		}
		_, err = m.Lock(t.Context(), unixAlice, lock.LockRequest{Name: nameA, Holder: "job 2", Overwrite: true})
		if !errors.Is(err, lock.ErrLockHeld) {
			t.Errorf("job 2 overwrites job 1's hold: %v", err)
		}
	})
}

// TestBreakAnothers: force, and overwrite with the right to break, end the hold of another
// caller, and the history says forced and who it was.
func TestBreakAnothers(t *testing.T) {
	for name, ask := range map[string]func(lock.Locks) error{
		"force": func(m lock.Locks) error {
			_, err := m.Unlock(t.Context(), unixBob, lock.UnlockRequest{Name: nameA, Holder: "job", Force: true, Reason: "stuck"})
			return err
		},
		"overwrite": func(m lock.Locks) error {
			_, err := m.Lock(t.Context(), unixBob, lock.LockRequest{Name: nameA, Holder: "job", Overwrite: true, MayBreak: true})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, open(t))
				if _, err := m.Lock(t.Context(), unixAlice, lock.LockRequest{Name: nameA, Holder: "job"}); err != nil {
					t.Fatal(err)
				}
				if err := ask(m); err != nil {
					t.Fatal(err)
				}
				page, err := m.History(t.Context(), unixBob, lock.HistoryQuery{Cause: lock.Forced}, 0, 1)
				if err != nil || len(page.Events) != 1 || page.Events[0].Actor != "unix:bob" || page.Events[0].Lock.Caller != "unix:alice" || page.Events[0].Type != lock.Unlocked {
					t.Errorf("the history says %+v, %v; want that unix:bob broke the hold of unix:alice", page.Events, err)
				}
			})
		})
	}
}

// TestRequestIDsOfTwoCallers: requests of two callers with one id are two places in line,
// and two sendings of one caller's are one.
func TestRequestIDsOfTwoCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "carol"})
		request := lock.LockRequest{Name: nameA, Holder: "job", Wait: time.Hour, RequestID: "r1"}
		for _, caller := range []lock.Caller{unixAlice, unixBob, nobody, unixAlice} {
			go m.Lock(t.Context(), caller, request)
			synctest.Wait()
		}
		if got := status(t, m, nameA).Waiters; got != 3 {
			t.Errorf("%d wait, want 3", got)
		}
		if _, err := m.Unlock(t.Context(), nobody, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
			t.Fatal(err)
		}
		if now := status(t, m, nameA); now.Caller != "unix:alice" || now.Waiters != 2 {
			t.Errorf("granted to %q, and %d wait; want unix:alice, and 2", now.Caller, now.Waiters)
		}
	})
}

// TestNobodyPassesForACaller: a holder is a text that anybody may write, and no event calls
// somebody who has proved nothing by a name that others prove.
func TestNobodyPassesForACaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, open(t))
		ctx := t.Context()
		for _, holder := range []string{unixAlice.Name, "Unix:alice", "token:ci", "cert:x", "oidc:x y"} {
			grant, err := m.Lock(ctx, nobody, lock.LockRequest{Name: nameA, Holder: holder})
			if err != nil {
				t.Fatal(err)
			}
			token := grant.Lock.Token
			for e, err := range m.Watch(ctx, nobody, lock.WatchRequest{}) {
				if err != nil || e.Actor != "" && e.Actor != lock.Anonymous {
					t.Errorf("a watch begins with an event of %q, %v", e.Actor, err)
				}
				if e.Type == lock.Synced {
					break
				}
			}
			if _, err := m.Renew(ctx, nobody, lock.RenewRequest{Name: nameA, Token: token, TTL: time.Hour}); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Unlock(ctx, nobody, lock.UnlockRequest{Name: nameA, Token: token}); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Lock(ctx, unixBob, lock.LockRequest{Name: nameA}); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Unlock(ctx, nobody, lock.UnlockRequest{Name: nameA, Holder: holder, Force: true, Reason: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		page, err := m.History(ctx, nobody, lock.HistoryQuery{}, 0, 100)
		if err != nil || len(page.Events) != 20 {
			t.Fatalf("%d events, %v", len(page.Events), err)
		}
		for _, e := range page.Events {
			if e.Actor != lock.Anonymous && e.Lock.Caller == "" || e.Type == lock.Unlocked && e.Actor != lock.Anonymous {
				t.Errorf("%v of %q is by %q", e.Type, e.Lock.Holder, e.Actor)
			}
		}
	})
}
