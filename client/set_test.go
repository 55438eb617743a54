package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// acquireSet takes db/a, db/b and db/c.
func (b *bubble) acquireSet(c *client.Client, options ...client.AcquireOption) *client.Set {
	b.t.Helper()
	set, err := c.AcquireSet(b.t.Context(), []string{"db/c", "db/a", "db/b"}, append([]client.AcquireOption{client.WithTTL(30 * time.Second)}, options...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { set.Release(context.Background()) })
	return set
}

// held returns which locks are held, blank-separated.
func (b *bubble) held() string {
	b.t.Helper()
	page, _, _, err := b.manager.List(context.Background(), lock.Caller{}, lock.Pattern{}, lock.Name{}, 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, l := range page {
		names = append(names, l.Name.String())
	}
	return strings.Join(names, " ")
}

// setGoesOn checks that no hold of a set is lost.
func setGoesOn(t *testing.T, set *client.Set) {
	t.Helper()
	if err := set.Err(); err != nil || set.Context().Err() != nil || set.Lost() != nil {
		t.Fatalf("the set is over: %v, %v, %v", err, context.Cause(set.Context()), set.Lost())
	}
}

// TestSet: several locks are kept by one call each time, and released by one.
func TestSet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		begun := time.Now()
		set, err := c.AcquireSet(t.Context(), []string{"db/b", "db/a"}, client.WithTTL(30*time.Second),
			client.WithChoice(2, "slot/3", "slot/2", "slot/1"), client.WithChoice(1, "spare"), client.WithData(mustData(t, `{"msg":"patch"}`)))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		var tokens []lock.Token
		for _, hold := range set.Holds() {
			names = append(names, hold.Lock().Name.String())
			tokens = append(tokens, hold.Token())
			if got := hold.Lock().Data.JSON(); got != `{"msg":"patch"}` || hold.Lock().TTL != 30*time.Second {
				t.Errorf("got the lock %+v", hold.Lock())
			}
		}
		if got := strings.Join(names, " "); got != b.held() || len(names) != 5 || !strings.HasPrefix(got, "db/a db/b slot/") || names[4] != "spare" {
			t.Errorf("got %s, and %s is held", got, b.held())
		}
		if !slices.Equal(tokens, []lock.Token{1, 2, 3, 4, 5}) {
			t.Errorf("got the tokens %v", tokens)
		}
		work, cancel := set.Bind(t.Context())
		defer cancel()
		time.Sleep(20*time.Minute + time.Second)
		setGoesOn(t, set)
		for _, hold := range set.Holds() {
			goesOn(t, hold)
		}
		var want []time.Time
		for i := range 133 {
			want = append(want, begun.Add(time.Duration(i+1)*9*time.Second))
		}
		if got := b.callsOf("RenewSet"); !slices.Equal(got, want) {
			t.Errorf("got %d renewals at %v, want %d every 9 s", len(got), got, len(want))
		}
		if got := len(b.callsOf("Renew")); got > 0 {
			t.Errorf("the holds were renewed %d times by themselves", got)
		}
		for range 2 {
			if err := set.Release(t.Context(), client.WithReason("patched")); err != nil {
				t.Errorf("Release: %v", err)
			}
			if err := set.Err(); err != client.ErrReleased || context.Cause(work) != client.ErrReleased || set.Lost() != nil {
				t.Errorf("got %v, %v and %v, want ErrReleased", err, context.Cause(work), set.Lost())
			}
		}
		for _, hold := range set.Holds() {
			if err := hold.Release(t.Context()); err != nil {
				t.Errorf("Release of one: %v", err)
			}
		}
		if got := b.held(); got != "" {
			t.Errorf("%s is still held", got)
		}
		if unlocks, sets := len(b.callsOf("Unlock")), len(b.callsOf("UnlockSet")); unlocks != 0 || sets != 1 {
			t.Errorf("it was released by %d calls of Unlock and %d of UnlockSet, want one of UnlockSet", unlocks, sets)
		}
		for e := range c.History(t.Context(), lock.HistoryQuery{NewestFirst: true}) {
			if e.Type != lock.Unlocked || e.Reason != "patched" {
				t.Errorf("got the event %+v, want the reason of the release", e)
			}
			break
		}
		if _, asked := <-set.Asked(); asked {
			t.Error("Asked goes on after the end")
		}
		if _, warned := <-set.AtRisk(); warned {
			t.Error("AtRisk warned")
		}
	})
}

// TestSetLosesOne: the work is told of the first that is lost; the others stay until the
// release.
func TestSetLosesOne(t *testing.T) {
	for _, test := range []struct {
		name    string
		noWatch bool
		lose    func(b *bubble)
		says    string
	}{
		{"broken", false, func(b *bubble) { b.commit("db/b", lock.Unlocked, lock.Forced, "bob", "in the way") },
			"lost db/b (token 2): it was broken by bob: in the way"},
		{"its file removed", false, func(b *bubble) { b.commit("db/b", lock.Unlocked, lock.File, "", "") },
			"lost db/b (token 2): its lock file was removed or replaced"},
		{"stale", false, func(b *bubble) { b.becomeStale("db/b") },
			"lost db/b (token 2): the lease ran out before it was renewed; the lock stays held, stale, until somebody has looked"},
		{"released by somebody, and only renewals to tell", true, func(b *bubble) { b.commit("db/b", lock.Unlocked, lock.Request, "bob", "") },
			"lost db/b (token 2): db/b is not locked"},
		{"stale, and only renewals to tell", true, func(b *bubble) { b.becomeStale("db/b") },
			"lost db/b (token 2): the lease ran out before it was renewed; the lock stays held, stale, until somebody has looked"},
		{"left out of the answers", true, func(b *bubble) {
			b.alterAnswers(func(response any) {
				if response, ok := response.(*pylokv1.RenewSetResponse); ok {
					response.Answers = slices.DeleteFunc(response.Answers, func(a *pylokv1.SetAnswer) bool { return a.GetName() == "db/b" })
				}
			})
		}, "lost db/b (token 2): it could not be renewed in time: the server's answer says nothing of this hold"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				if test.noWatch {
					b.noWatch = refusal(t, codes.PermissionDenied, "no", reason("PERMISSION_DENIED")).Err()
				}
				c, _ := b.client()
				set := b.acquireSet(c)
				work, cancel := set.Bind(t.Context())
				defer cancel()
				time.Sleep(time.Minute)
				synctest.Wait()
				test.lose(b)
				if test.noWatch {
					time.Sleep(28 * time.Second)
				}
				synctest.Wait()
				lost, ok := errors.AsType[*client.LostError](set.Err())
				if !ok || context.Cause(work) == nil || !errors.Is(context.Cause(set.Context()), client.ErrLost) {
					t.Fatalf("got %v, and the work's end %v; want a LostError", set.Err(), context.Cause(work))
				}
				says(t, lost, test.says)
				if all := set.Lost(); len(all) != 1 || all[0] != lost {
					t.Errorf("got %v lost, want %v alone", all, lost)
				}
				holds := set.Holds()
				if isLost(t, holds[1]) != lost {
					t.Errorf("the hold says %v and the set %v", holds[1].Err(), lost)
				}
				time.Sleep(time.Hour)
				goesOn(t, holds[0])
				goesOn(t, holds[2])
				if err := set.Release(t.Context()); err != error(lost) {
					t.Errorf("Release returned %v, want %v", err, lost)
				}
				if got := b.held(); got != "" && got != "db/b" {
					t.Errorf("%s is held", got)
				}
			})
		})
	}
	t.Run("one and then all", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			set := b.acquireSet(c)
			synctest.Wait()
			b.commit("db/c", lock.Unlocked, lock.Forced, "bob", "")
			synctest.Wait()
			b.commit("db/a", lock.Unlocked, lock.Forced, "bob", "")
			b.commit("db/b", lock.Unlocked, lock.Forced, "bob", "")
			synctest.Wait()
			if lost, ok := errors.AsType[*client.LostError](set.Err()); !ok || lost.Name.String() != "db/c" {
				t.Errorf("got %v, want the first that was lost", set.Err())
			}
			if got := len(set.Lost()); got != 3 {
				t.Errorf("got %d lost, want 3", got)
			}
			says(t, set.Release(t.Context()), "lost db/a (token 1): it was broken by bob\nlost db/b (token 2): it was broken by bob\nlost db/c (token 3): it was broken by bob")
			before := len(b.callsOf("RenewSet"))
			time.Sleep(time.Hour)
			if got := len(b.callsOf("RenewSet")); got != before {
				t.Error("it goes on to be renewed")
			}
			if _, open := <-set.Asked(); open {
				t.Error("Asked goes on")
			}
		})
	})
}

// TestSetReleasesOne: a hold that is released by itself is no loss, and the last ends the
// set.
func TestSetReleasesOne(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		set := b.acquireSet(c)
		for i, hold := range set.Holds() {
			if err := hold.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			if i < 2 {
				time.Sleep(time.Hour)
				setGoesOn(t, set)
				goesOn(t, set.Holds()[i+1])
			}
		}
		if err := set.Err(); err != client.ErrReleased || set.Context().Err() == nil {
			t.Errorf("got %v, want ErrReleased", err)
		}
		if err := set.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if got := b.held(); got != "" {
			t.Errorf("%s is held", got)
		}
	})
}

// TestSetWithoutServer: all of it is over when its lease is; what Release cannot tell the
// server, it says, and another Release tells.
func TestSetWithoutServer(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		set := b.acquireSet(c)
		time.Sleep(50 * time.Second)
		b.stop()
		time.Sleep(20 * time.Second)
		setGoesOn(t, set)
		says(t, set.Release(t.Context()), "db/a may stay locked for up to 30s: ")
		if err := set.Release(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "; and so may 2 more") {
			t.Errorf("got %v, want all three", err)
		}
		b.start()
		time.Sleep(5 * time.Second)
		if err := set.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if got := b.held(); got != "" {
			t.Errorf("%s is held", got)
		}
		set = b.acquireSet(c)
		b.stop()
		time.Sleep(time.Minute)
		if got := len(set.Lost()); got != 3 {
			t.Errorf("%d are lost, want 3", got)
		}
		says(t, set.Err(), "it could not be renewed in time: ")
		b.start()
	})
}

// TestSetAfterALongWait: the leases of a set that stood in line begin anew, and one that is
// lost by then takes the rest with it.
func TestSetAfterALongWait(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("one lost ", lost), func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				c, _ := b.client()
				grant, err := c.Lock(t.Context(), lock.LockRequest{Name: lock.MustParseName("db/b")})
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Minute, func() {
					if _, err := b.manager.Unlock(context.Background(), lock.Caller{}, lock.UnlockRequest{Name: grant.Lock.Name, Token: grant.Lock.Token}); err != nil {
						t.Error(err)
					}
				})
				if lost {
					b.beforeOne("RenewSet", func() { b.commit("db/b", lock.Unlocked, lock.Forced, "bob", "") })
				}
				set, err := c.AcquireSet(t.Context(), []string{"db/a", "db/b", "db/c"}, client.WithWait(lock.WaitForever), client.WithTTL(30*time.Second))
				if lost {
					if e, ok := errors.AsType[*client.LostError](err); !ok || e.Name.String() != "db/b" || errors.Is(err, lock.ErrOutcomeUnknown) {
						t.Errorf("got %v, want the loss of db/b", err)
					}
				} else if err != nil {
					t.Fatal(err)
				} else {
					setGoesOn(t, set)
					if err := set.Release(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if got := b.held(); got != "" {
					t.Errorf("%s is held", got)
				}
			})
		})
	}
}

// TestSetLeft: a caller who leaves takes nothing along, also where a part of what was
// granted is lost already.
func TestSetLeft(t *testing.T) {
	names := []lock.Name{lock.MustParseName("db/a"), lock.MustParseName("db/b"), lock.MustParseName("db/c")}
	for _, test := range []struct {
		name string
		end  func(b *bubble, cancel func())
	}{
		{"cancelled", func(_ *bubble, cancel func()) { cancel() }},
		{"cut off and cancelled", func(b *bubble, cancel func()) { b.network.cut(); cancel() }},
		{"one broken", func(b *bubble, cancel func()) { b.commit("db/b", lock.Unlocked, lock.Forced, "bob", ""); cancel() }},
		{"one broken and the answer lost", func(b *bubble, _ func()) {
			b.commit("db/b", lock.Unlocked, lock.Forced, "bob", "")
			b.network.cut()
		}},
		{"all broken", func(b *bubble, cancel func()) {
			for _, name := range names {
				b.commit(name.String(), lock.Unlocked, lock.Forced, "bob", "")
			}
			cancel()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				c, _ := b.client()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				b.afterOne("LockSet", func() { test.end(b, cancel); time.Sleep(time.Second) })
				_, err := c.LockSet(ctx, lock.SetRequest{Names: names, Holder: "alice"})
				if err == nil || errors.Is(err, lock.ErrOutcomeUnknown) {
					t.Errorf("got %v, want an error that says that nothing is held", err)
				}
				time.Sleep(time.Minute)
				if got := b.held(); got != "" {
					t.Errorf("%s is held", got)
				}
			})
		})
	}
	t.Run("and nobody to ask", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			ctx, cancel := context.WithCancel(t.Context())
			b.afterOne("LockSet", func() { b.network.silence(); cancel() })
			_, err := c.LockSet(ctx, lock.SetRequest{Names: names, RequestID: "mine"})
			unknown, ok := errors.AsType[*client.OutcomeUnknownError](err)
			if !ok || unknown.Name != names[0] || !slices.Equal(unknown.Others, names[1:]) || unknown.RequestID != "mine" {
				t.Fatalf("got %v, want an OutcomeUnknownError", err)
			}
			says(t, err, `the set of db/a and 2 more may be locked by this request, and asking again with its request id "mine" tells`)
			b.network.cut()
			other, _ := b.client()
			grant, err := other.LockSet(t.Context(), lock.SetRequest{Names: names, RequestID: "mine"})
			if err != nil || len(grant.Locks) != 3 || grant.Locks[0].Token != 1 {
				t.Errorf("asked again: got %+v, %v; want the same holds", grant.Locks, err)
			}
			time.Sleep(time.Minute)
		})
	})
}

// TestSetCalls: the calls underneath, whose answers are lost.
func TestSetCalls(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		y := lock.MustParseName("y")
		b.afterOne("LockSet", b.network.cut)
		grant, err := c.LockSet(t.Context(), lock.SetRequest{Names: []lock.Name{y, x}, Holder: "alice", TTL: time.Minute})
		if err != nil || len(grant.Locks) != 2 || grant.Locks[0].Name != x || grant.Locks[0].Token != 1 || grant.Locks[1].Token != 2 {
			t.Fatalf("LockSet: got %+v, %v", grant, err)
		}
		holds := []lock.HoldRef{{Name: y, Token: 2}, {Name: x, Token: 1}}
		b.afterOne("RenewSet", b.network.cut)
		answers, err := c.RenewSet(t.Context(), lock.RenewSetRequest{Holds: holds, TTL: time.Hour})
		if err != nil || len(answers) != 2 || answers[0].Err != nil || answers[1].Err != nil || answers[1].Lock.TTL != time.Hour {
			t.Errorf("RenewSet: got %+v, %v", answers, err)
		}
		holds[0].Token = 7
		answers, err = c.RenewSet(t.Context(), lock.RenewSetRequest{Holds: holds, TTL: time.Hour})
		if err != nil || len(answers) != 2 || answers[0].Err != nil || !errors.Is(answers[1].Err, lock.ErrNotHolder) {
			t.Errorf("RenewSet: got %+v, %v; want one that is not held", answers, err)
		}
		if refusal, ok := errors.AsType[*lock.Error](answers[1].Err); !ok || refusal.Message == "" || refusal.Lock == nil || refusal.Lock.Token != 2 {
			t.Errorf("got the refusal %+v", answers[1].Err)
		}
		answers, err = c.UnlockSet(t.Context(), lock.UnlockSetRequest{Holds: holds})
		if err != nil || answers[0].Revision != 3 || answers[0].Err != nil || !errors.Is(answers[1].Err, lock.ErrNotHolder) || answers[1].Revision != 0 {
			t.Errorf("UnlockSet: got %+v, %v", answers, err)
		}
		b.afterOne("UnlockSet", b.network.cut)
		answers, err = c.UnlockSet(t.Context(), lock.UnlockSetRequest{Holds: []lock.HoldRef{{Name: y, Token: 2}}})
		if err != nil || len(answers) != 1 || answers[0].Err != nil || answers[0].Lock.Name != y || answers[0].Revision != 0 {
			t.Errorf("UnlockSet: got %+v, %v; want it done", answers, err)
		}
		if got := b.held(); got != "" {
			t.Errorf("%s is held", got)
		}
		for what, request := range map[string]lock.SetRequest{
			"nothing":      {},
			"two expiries": {Names: []lock.Name{x}, TTL: time.Second, ExpireTime: time.Now().Add(time.Hour)},
			"count":        {Choices: []lock.Choice{{Names: []lock.Name{x}, Count: -1}}},
			"no name":      {Names: []lock.Name{{}}},
		} {
			if _, err := c.LockSet(t.Context(), request); !errors.Is(err, lock.ErrInvalidArgument) && !errors.Is(err, lock.ErrInvalidName) {
				t.Errorf("%s: got %v, want a refusal", what, err)
			}
		}
		for what, option := range map[string]client.AcquireOption{
			"shared": client.WithShared(), "tree": client.WithDrain(), "replace_stale": client.WithReplaceStale("I looked"),
			"name": client.WithChoice(1, "///"),
		} {
			if _, err := c.AcquireSet(t.Context(), []string{"x"}, option); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%s: got %v, want a refusal", what, err)
			}
		}
		if _, err := c.Acquire(t.Context(), "x", client.WithChoice(1, "y")); !errors.Is(err, lock.ErrInvalidArgument) {
			t.Errorf("a choice for Acquire: got %v", err)
		}
	})
}
