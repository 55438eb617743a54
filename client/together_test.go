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
	"google.golang.org/grpc/status"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// TestOlderServer: what an older server does not know it is not taken to have done: what it
// has granted as a plain lock is given back.
func TestOlderServer(t *testing.T) {
	set := lock.SetRequest{Names: []lock.Name{x}}
	acquire := func(options ...client.AcquireOption) func(ctx context.Context, c *client.Client) error {
		return func(ctx context.Context, c *client.Client) error {
			_, err := c.Acquire(ctx, "x", options...)
			return err
		}
	}
	for _, test := range []struct {
		what string // that it does not know
		do   func(ctx context.Context, c *client.Client) error
	}{
		{"tree locks", acquire(client.WithTree())},
		{"tree locks", acquire(client.WithDrain(), client.WithWait(time.Minute))},
		{"tree locks", func(ctx context.Context, c *client.Client) error {
			_, err := c.Lock(ctx, lock.LockRequest{Name: x, Tree: true})
			return err
		}},
		{"shared holds", acquire(client.WithShared())},
		{"shared holds", acquire(client.WithLimit(3))},
		{"on_expiry KEEP", acquire(client.WithKeep())},
		{"LockSet", func(ctx context.Context, c *client.Client) error { _, err := c.LockSet(ctx, set); return err }},
		{"LockSet", func(ctx context.Context, c *client.Client) error {
			_, err := c.AcquireSet(ctx, []string{"x"})
			return err
		}},
		{"UnlockSet", func(ctx context.Context, c *client.Client) error {
			_, err := c.UnlockSet(ctx, lock.UnlockSetRequest{Set: 1})
			return err
		}},
		{"RenewSet", func(ctx context.Context, c *client.Client) error {
			_, err := c.RenewSet(ctx, lock.RenewSetRequest{Holds: []lock.HoldRef{{Name: x, Token: 1}}})
			return err
		}},
		{"HandOver", func(ctx context.Context, c *client.Client) error {
			_, err := c.HandOver(ctx, lock.HandOverRequest{Name: x, Token: 1, Holder: "bob"})
			return err
		}},
		{"Ask", func(ctx context.Context, c *client.Client) error {
			_, err := c.Ask(ctx, lock.AskRequest{Name: x, Message: "please"})
			return err
		}},
		{"Dismiss", func(ctx context.Context, c *client.Client) error {
			_, err := c.Dismiss(ctx, lock.DismissRequest{Name: x, Place: 1, Reason: "gone"})
			return err
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.isOlder(true)
				c, _ := b.client()
				err := test.do(t.Context(), c)
				unsupported, ok := errors.AsType[*client.UnsupportedError](err)
				if !ok || unsupported.What != test.what || unsupported.Address != "127.0.0.1:5625" || errors.Is(err, lock.ErrOutcomeUnknown) {
					t.Fatalf("got %v, want an UnsupportedError of %s", err, test.what)
				}
				says(t, err, "the server at 127.0.0.1:5625 does not know "+test.what+": it is older than this client, and nothing was done")
				if unsupported.Err != nil && status.Code(err) != codes.Unimplemented {
					t.Errorf("got the status %v", status.Code(err))
				}
				if got := b.held(); got != "" {
					t.Errorf("%s is held", got)
				}
			})
		})
	}
	t.Run("that cannot be told to take it back", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			b.isOlder(true)
			c, _ := b.client()
			b.afterOne("Lock", func() {
				b.beforeCalls(func(string) error { return refusal(t, codes.Internal, "broken").Err() })
			})
			_, err := c.Acquire(t.Context(), "x", client.WithTree(), client.WithRequestID("mine"))
			unknown, ok := errors.AsType[*client.OutcomeUnknownError](err)
			if _, unsupported := errors.AsType[*client.UnsupportedError](err); !ok || !unsupported || unknown.RequestID != "mine" {
				t.Errorf("got %v, want an OutcomeUnknownError", err)
			}
		})
	})
	t.Run("waits without an end", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			b.acquire(c, "x")
			for _, older := range []bool{true, false} {
				b.isOlder(older)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				_, err := c.Lock(ctx, lock.LockRequest{Name: x, Wait: lock.WaitForever})
				cancel()
				if _, unsupported := errors.AsType[*client.UnsupportedError](err); unsupported != older || errors.Is(err, context.DeadlineExceeded) == older || errors.Is(err, lock.ErrLockHeld) {
					t.Errorf("older %v: got %v", older, err)
				}
			}
		})
	})
	t.Run("knows what is asked of it as before", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			b.isOlder(true)
			c, _ := b.client()
			hold := b.acquire(c, "x")
			time.Sleep(time.Hour)
			goesOn(t, hold)
		})
	})
}

// TestKinds: each option has the server do what it says.
func TestKinds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		other, _ := b.client()
		refused := func(what, by string, options ...client.AcquireOption) {
			t.Helper()
			_, err := other.Acquire(t.Context(), what, options...)
			if refusal, ok := errors.AsType[*lock.Error](err); !ok || refusal.Reason != lock.ErrLockHeld || refusal.Lock == nil || refusal.Lock.Name.String() != by {
				t.Errorf("%s: got %v, want it refused because of %s", what, err, by)
			}
		}
		release := func(holds ...*client.Hold) {
			t.Helper()
			for _, hold := range holds {
				if err := hold.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}

		one := b.acquire(c, "conf", client.WithShared())
		two := b.acquire(other, "conf", client.WithLimit(2))
		if names := one.Lock().Name.String() + " " + two.Lock().Name.String(); names != "conf/_+1 conf/_+2" || !one.Lock().Shared() {
			t.Errorf("got the shared holds %s", names)
		}
		refused("conf", "conf/_+1")
		refused("conf", "conf/_+1", client.WithLimit(2))
		if l, err := c.Status(t.Context(), "conf"); err != nil || l.Held() || l.Situation == nil || l.Situation.SharedHolds != 2 || l.Situation.BlockedBy == nil || l.Situation.BlockedBy.Kind != lock.ByShared {
			t.Errorf("got %+v, %v; want two shared holds in the way", l, err)
		}
		time.Sleep(time.Hour)
		goesOn(t, one)
		goesOn(t, two)
		release(one, two)

		below := b.acquire(c, "prod/web")
		tree := b.acquire(c, "prod", client.WithTree())
		if !tree.Lock().Tree {
			t.Errorf("got %+v, want a tree", tree.Lock())
		}
		if l, err := c.Status(t.Context(), "prod"); err != nil || l.Situation == nil || l.Situation.HeldBelow != 1 {
			t.Errorf("got %+v, %v; want one held below", l, err)
		}
		refused("prod/db", "prod")
		through := b.acquire(c, "prod/db", client.WithThroughFreeze("a hot fix"))
		for e := range c.History(t.Context(), lock.HistoryQuery{NewestFirst: true}) {
			if e.Lock.Name.String() != "prod/db" || !strings.Contains(e.Reason, "a hot fix") {
				t.Errorf("got the event %+v, want the reason", e)
			}
			break
		}
		refused("prod", "prod", client.WithDrain(), client.WithWait(time.Second), client.WithHolder("carol"))
		release(below, tree, through)

		below = b.acquire(c, "prod/web")
		drained := make(chan *client.Hold)
		go func() {
			hold, err := other.Acquire(context.Background(), "prod", client.WithDrain(), client.WithWait(lock.WaitForever), client.WithHolder("carol"))
			if err != nil {
				t.Error(err)
			}
			drained <- hold
		}()
		time.Sleep(2 * time.Hour)
		l, err := c.Status(t.Context(), "prod")
		if err != nil || l.Situation == nil || len(l.Situation.Waiting) != 1 {
			t.Fatalf("got %+v, %v; want one who waits", l, err)
		}
		if w := l.Situation.Waiting[0]; w.Holder != "carol" || !w.Tree || w.Place == 0 || !w.Until.IsZero() || time.Since(w.Since) < time.Hour {
			t.Errorf("got the waiter %+v", w)
		}
		release(below)
		release(<-drained)

		busy := b.acquire(c, "db/b")
		waited := make(chan *client.Set)
		go func() {
			set, err := other.AcquireSet(context.Background(), []string{"db/b", "db/a"}, client.WithChoice(1, "slot/1"), client.WithWait(time.Hour),
				client.WithHolder("carol"), client.WithData(mustData(t, `{"msg":"both"}`)))
			if err != nil {
				t.Error(err)
			}
			waited <- set
		}()
		time.Sleep(time.Minute)
		l, err = c.Status(t.Context(), "db/a")
		if err != nil || l.Situation == nil || l.Situation.BlockedBy == nil || l.Situation.BlockedBy.Kind != lock.ByWaiter {
			t.Fatalf("got %+v, %v; want an older request in the way", l, err)
		}
		if w := l.Situation.BlockedBy.Waiter; w.Holder != "carol" || w.Message != "both" || fmt.Sprint(w.Names) != "[db/a db/b slot/1]" || time.Until(w.Until) != 59*time.Minute {
			t.Errorf("got the waiter %+v", w)
		}
		release(busy)
		set := <-waited
		closing := mustData(t, `{"msg":"done"}`)
		if err := set.Release(t.Context(), client.WithClosingData(closing)); err != nil {
			t.Error(err)
		}
		for e := range c.History(t.Context(), lock.HistoryQuery{NewestFirst: true}) {
			if e.Lock.Name.String() != "slot/1" || e.Lock.Data != closing {
				t.Errorf("got the event %+v, want the closing data", e)
			}
			break
		}

		manual := b.acquire(c, "x", client.WithTTL(0))
		refused("x", "x", client.WithWait(time.Hour), client.WithRefuseManual())
		release(manual)

		kept := b.acquire(c, "x", client.WithKeep(), client.WithHolder("alice"))
		if kept.Lock().OnExpiry != lock.Keep {
			t.Errorf("got %+v, want a hold that is kept", kept.Lock())
		}
		synctest.Wait()
		b.becomeStale("x")
		synctest.Wait()
		if lost := isLost(t, kept); !lost.Stale || lost.Cause != lock.Expired {
			t.Errorf("got %+v, want one that is stale", lost)
		}
		refused("x", "x")
		if _, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Token: kept.Token()}); !errors.Is(err, lock.ErrNotHolder) {
			t.Errorf("got %v, want a refusal: somebody has to look", err)
		}
		next := b.acquire(other, "x", client.WithReplaceStale("I looked"), client.WithKeep())
		b.becomeStale("x")
		if release, err := other.Unlock(t.Context(), lock.UnlockRequest{Name: x, Stale: true, Reason: "I looked again"}); err != nil || !release.Lock.Stale() || release.Lock.Token != next.Token() {
			t.Errorf("got %+v, %v; want the end of the stale hold", release, err)
		}
	})
}

// TestSharedLeft: a caller who leaves when a shared hold has been granted takes none along.
func TestSharedLeft(t *testing.T) {
	for _, cut := range []bool{true, false} {
		for _, granted := range []bool{true, false} {
			t.Run(fmt.Sprint("cut off ", cut, ", granted ", granted), func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					c, _ := b.client()
					other := b.acquire(c, "x", client.WithShared(), client.WithHolder("bob"))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					leave := func() {
						if cut {
							b.network.cut()
						}
						cancel()
						time.Sleep(time.Second)
					}
					if granted {
						b.afterOne("Lock", leave)
					} else {
						b.beforeOne("Lock", leave)
					}
					before := b.events()
					_, err := c.Acquire(ctx, "x", client.WithShared(), client.WithHolder("alice"))
					if !errors.Is(err, context.Canceled) || errors.Is(err, lock.ErrOutcomeUnknown) {
						t.Errorf("got %v, want the end of the context", err)
					}
					time.Sleep(time.Minute)
					if got := b.held(); got != "x/_+1" {
						t.Errorf("%s is held, want bob's", got)
					}
					if got := b.events(); !granted && !cut && !slices.Equal(got, before) {
						t.Errorf("got the events %q, want none but %q", got, before)
					}
					goesOn(t, other)
				})
			})
		}
	}
}

// TestTogetherAnswersLost: a hand-over and a dismissal whose answer is lost are done once,
// and a holder is not asked twice.
func TestTogetherAnswersLost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "alice", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		b.afterOne("HandOver", b.network.cut)
		data := mustData(t, `{"msg":"night shift"}`)
		answer, err := c.HandOver(t.Context(), lock.HandOverRequest{Name: x, Token: grant.Lock.Token, Holder: "bob", Never: true, Data: &data})
		if err != nil || answer.Lock.Token != 3 || answer.Lock.Holder != "bob" || answer.Lock.TTL != 0 || answer.Lock.Data != data {
			t.Errorf("HandOver: got %+v, %v; want token 3", answer, err)
		}
		if got := len(b.callsOf("HandOver")); got != 2 {
			t.Errorf("it was sent %d times, want 2", got)
		}
		for what, request := range map[string]lock.HandOverRequest{
			"two terms": {Name: x, Token: 3, TTL: time.Second, Never: true},
			"and two":   {Name: x, Token: 3, TTL: time.Second, ExpireTime: time.Now().Add(time.Hour)},
		} {
			if _, err := c.HandOver(t.Context(), request); !errors.Is(err, lock.ErrInvalidArgument) {
				t.Errorf("%s: got %v, want INVALID_ARGUMENT", what, err)
			}
		}
		if _, err := c.HandOver(t.Context(), lock.HandOverRequest{Name: x, Token: 1, Holder: "carol"}); !errors.Is(err, lock.ErrNotHolder) {
			t.Errorf("the old token: got %v, want NOT_HOLDER", err)
		}

		left := make(chan error)
		go func() {
			_, err := c.Lock(context.Background(), lock.LockRequest{Name: x, Holder: "dave", Wait: lock.WaitForever})
			left <- err
		}()
		synctest.Wait()
		l, err := c.Status(t.Context(), "x")
		if err != nil || l.Situation == nil || len(l.Situation.Waiting) != 1 {
			t.Fatalf("got %+v, %v; want one who waits", l, err)
		}
		place := l.Situation.Waiting[0].Place
		b.afterCalls(func(method string) error {
			if method == "Dismiss" {
				b.afterCalls(nil)
				return refusal(t, codes.Unavailable, "lost", reason("OUTCOME_UNKNOWN")).Err()
			}
			return nil
		})
		w, err := c.Dismiss(t.Context(), lock.DismissRequest{Name: x, Place: place, Holder: "bob", Reason: "wrong lock"})
		if err != nil || w.Place != place {
			t.Errorf("Dismiss: got %+v, %v; want it done", w, err)
		}
		if err := <-left; !errors.Is(err, lock.ErrLockHeld) || !strings.Contains(err.Error(), "wrong lock") {
			t.Errorf("who waited was told %v, want why", err)
		}
		if _, err := c.Dismiss(t.Context(), lock.DismissRequest{Name: x, Place: place, Reason: "again"}); !errors.Is(err, lock.ErrNotLocked) {
			t.Errorf("Dismiss again: got %v, want NOT_LOCKED", err)
		}

		b.afterOne("Ask", b.network.cut)
		_, err = c.Ask(t.Context(), lock.AskRequest{Name: x, Message: "please"})
		if unreachable, ok := errors.AsType[*client.UnreachableError](err); !ok || !unreachable.Sent {
			t.Errorf("Ask: got %v, want an UnreachableError with Sent", err)
		}
		if got := len(b.callsOf("Ask")); got != 1 {
			t.Errorf("it was asked %d times, want once", got)
		}
	})
}

// TestTogetherOverTCP: a set, a hand-over and a stale hold, with lock files and real leases.
func TestTogetherOverTCP(t *testing.T) {
	root := t.TempDir()
	store, err := filestore.Open(t.Context(), filestore.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	manager, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	address, _ := serve(t, service.New(manager, service.Config{Root: root, Store: "file"}))
	c, err := client.Dial(address, client.Options{ReleaseAll: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	set, err := c.AcquireSet(t.Context(), []string{"db/b", "db/a"}, client.WithChoice(1, "slot/1", "slot/2"), client.WithTTL(time.Second), client.WithHolder("alice"))
	if err != nil {
		t.Fatal(err)
	}
	holds := set.Holds()
	for i, want := range []string{"db/a", "db/b", "slot/1"} {
		l := holds[i].Lock()
		if l.Name.String() != want || l.Set != (lock.SetRef{ID: holds[0].Token(), Size: 3}) {
			t.Errorf("got %v of the set %+v, want %s of the first token's", l.Name, l.Set, want)
		}
	}
	answer, err := c.HandOver(t.Context(), lock.HandOverRequest{Name: holds[1].Lock().Name, Token: holds[1].Token(), Holder: "bob", Never: true, From: "alice"})
	if err != nil || answer.Lock.Holder != "bob" {
		t.Fatalf("HandOver: got %+v, %v", answer, err)
	}
	<-set.Done()
	says(t, set.Release(t.Context()), fmt.Sprintf("lost db/b (token %d): it was handed over to bob", holds[1].Token()))
	if l, err := c.Status(t.Context(), "db/b"); err != nil || l.Holder != "bob" || l.Token != answer.Lock.Token {
		t.Errorf("got %+v, %v; want bob's", l, err)
	}
	if err := set.Holds()[0].Release(t.Context()); err != nil {
		t.Errorf("it is not released yet: %v", err)
	}

	grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x, TTL: 100 * time.Millisecond, OnExpiry: lock.Keep})
	if err != nil {
		t.Fatal(err)
	}
	for event, err := range c.Watch(t.Context(), "x", grant.Lock.Revision) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type == lock.Updated {
			if event.Cause != lock.Expired || !event.Lock.Stale() || event.Lock.Token != grant.Lock.Token {
				t.Errorf("got %+v, want the hold to become stale", event)
			}
			break
		}
	}
	_, err = c.Adopt(t.Context(), "x", grant.Lock.Token)
	if lost, ok := errors.AsType[*client.LostError](err); !ok || !lost.Stale {
		t.Errorf("Adopt: got %v, want the loss of a stale hold", err)
	}
	if _, err := c.Acquire(t.Context(), "x", client.WithReplaceStale("I looked")); err != nil {
		t.Errorf("it is not replaced: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if l, err := manager.Status(t.Context(), lock.Caller{}, x); err != nil || l.Held() {
		t.Errorf("got %+v, %v; want it released by Close", l, err)
	}
}

// TestFeatures: Info has them.
func TestFeatures(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		info, err := c.Info(t.Context())
		if want := []string{"ask", "dismiss", "hand-over", "keep", "set", "shared", "tree"}; err != nil || !slices.Equal(info.Features, want) {
			t.Errorf("got %v, %v; want %v", info.Features, err, want)
		}
	})
}
