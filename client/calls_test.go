package client_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

var x = lock.MustParseName("x")

// TestAnswersLost: the connection breaks when a change has been made and before its
// answer; what is sent again changes nothing twice.
func TestAnswersLost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		b.afterOne("Lock", b.network.cut)
		grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "alice", TTL: time.Minute})
		if err != nil || grant.Lock.Token != 1 {
			t.Fatalf("Lock: got %+v, %v; want token 1", grant.Lock, err)
		}
		data := mustData(t, `{"msg":"two"}`)
		b.afterOne("Renew", b.network.cut)
		l, err := c.Renew(t.Context(), lock.RenewRequest{Name: x, Token: 1, TTL: time.Hour, Data: &data})
		if err != nil || l.Token != 1 || l.TTL != time.Hour || l.Data != data {
			t.Fatalf("Renew: got %+v, %v", l, err)
		}
		b.afterOne("Unlock", b.network.cut)
		release, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Token: 1})
		if err != nil || release.Lock.Name != x || release.Lock.Token != 1 || release.Revision != 0 {
			t.Fatalf("Unlock: got %+v, %v", release, err)
		}
		want := []string{"1 locked request x", "2 updated request x", "3 updated request x", "4 unlocked request x"}
		if got := b.events(); !slices.Equal(got, want) {
			t.Errorf("got the events %q, want %q", got, want)
		}
		for _, method := range []string{"Lock", "Renew", "Unlock"} {
			if got := len(b.callsOf(method)); got != 2 {
				t.Errorf("%s was sent %d times, want 2", method, got)
			}
		}
	})
}

// TestAcquireAnswerLost: and so it is for a Hold.
func TestAcquireAnswerLost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		b.afterOne("Lock", b.network.cut)
		hold := b.acquire(c, "x")
		time.Sleep(time.Minute)
		goesOn(t, hold)
		if got, want := b.events(), []string{"1 locked request x"}; !slices.Equal(got, want) {
			t.Errorf("got the events %q, want %q", got, want)
		}
	})
}

// TestUnlockWithoutToken: a request that could end another hold than it meant is not
// sent again.
func TestUnlockWithoutToken(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		b.acquire(c, "x", client.WithHolder("alice"))
		b.afterOne("Unlock", func() {
			b.network.cut()
			if _, err := b.manager.Lock(b.t.Context(), lock.Caller{}, lock.LockRequest{Name: x, Holder: "alice"}); err != nil {
				t.Error(err)
			}
		})
		_, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Holder: "alice"})
		if unreachable, ok := errors.AsType[*client.UnreachableError](err); !ok || !unreachable.Sent {
			t.Errorf("got %v, want an UnreachableError with Sent", err)
		}
		synctest.Wait()
		if l, err := b.manager.Status(t.Context(), lock.Caller{}, x); err != nil || l.Token != 3 {
			t.Errorf("got %+v, %v; want the second hold", l, err)
		}
		// One that never arrived is sent again.
		b.stop()
		time.AfterFunc(2*time.Second, b.start)
		release, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Holder: "alice"})
		if err != nil || release.Lock.Token != 3 || release.Revision != 4 {
			t.Errorf("got %+v, %v; want the end of the second hold", release, err)
		}
	})
}

// TestServerAway: how long each kind of call waits for a server.
func TestServerAway(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		calls := map[string]func(ctx context.Context) error{
			"Lock":   func(ctx context.Context) error { _, err := c.Lock(ctx, lock.LockRequest{Name: x}); return err },
			"Status": func(ctx context.Context) error { _, err := c.Status(ctx, "x"); return err },
			"Info":   func(ctx context.Context) error { _, err := c.Info(ctx); return err },
			"Unlock": func(ctx context.Context) error {
				_, err := c.Unlock(ctx, lock.UnlockRequest{Name: x, Token: 7})
				return err
			},
			"Renew": func(ctx context.Context) error {
				_, err := c.Renew(ctx, lock.RenewRequest{Name: x, Token: 7, TTL: time.Minute})
				return err
			},
			"List": func(ctx context.Context) error {
				for _, err := range c.List(ctx, "") {
					return err
				}
				return nil
			},
			"History": func(ctx context.Context) error {
				for _, err := range c.History(ctx, lock.HistoryQuery{}) {
					return err
				}
				return nil
			},
		}
		check := func(name string, ctx context.Context, least, most time.Duration) error {
			t.Helper()
			begun := time.Now()
			err := calls[name](ctx)
			if _, ok := errors.AsType[*client.UnreachableError](err); !ok {
				t.Errorf("%s: got %v, want an UnreachableError", name, err)
			}
			if took := time.Since(begun); took < least || took > most {
				t.Errorf("%s: it took %v, want %v to %v", name, took, least, most)
			}
			return err
		}
		b.stop()
		for name := range calls {
			check(name, t.Context(), 0, 0)
		}
		b.start()
		time.Sleep(5 * time.Second)
		if _, err := c.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.stop()
		for name := range calls {
			check(name, t.Context(), 8*time.Second, 10*time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := check(name, ctx, time.Second, time.Second)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want one that is DeadlineExceeded too", name, err)
			}
		}
		b.start()
	})
}

// TestPatience: a server that is away is waited for as long as the Client's owner has
// said, and for a place in line until the wait is over; who is to be told is told once.
func TestPatience(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var told []string
		c, _ := b.clientWith(client.Options{Patience: time.Minute, OnTrouble: func(err error) {
			_, gone := errors.AsType[*client.UnreachableError](err)
			told = append(told, fmt.Sprint(gone, err == nil))
		}})
		impatient, _ := b.clientWith(client.Options{Patience: -1})
		for _, c := range []*client.Client{c, impatient} {
			if _, err := c.Info(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b.stop()
		for _, test := range []struct {
			c           *client.Client
			wait        time.Duration
			least, most time.Duration
		}{
			{c, 0, 58 * time.Second, time.Minute},
			{c, time.Second, time.Second, time.Second},
			{c, time.Hour, time.Hour, time.Hour},
			{impatient, 0, 0, 0},
			{impatient, time.Hour, time.Hour, time.Hour},
		} {
			begun := time.Now()
			_, err := test.c.Lock(t.Context(), lock.LockRequest{Name: x, Wait: test.wait})
			if _, ok := errors.AsType[*client.UnreachableError](err); !ok {
				t.Errorf("got %v, want an UnreachableError", err)
			}
			if took := time.Since(begun); took < test.least || took > test.most {
				t.Errorf("wait %v: it took %v, want %v to %v", test.wait, took, test.least, test.most)
			}
		}
		time.AfterFunc(3*time.Minute, b.start)
		if _, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Wait: 5 * time.Minute}); err != nil {
			t.Errorf("got %v, want the lock of a server that was away for 3 m of a wait of 5", err)
		}
		b.stop()
		time.AfterFunc(time.Hour, b.start)
		for event, err := range c.Watch(t.Context(), "", 0) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Type == lock.Synced {
				break
			}
		}
		if want := []string{"true false", "false true", "true false", "false true"}; !slices.Equal(told, want) {
			t.Errorf("OnTrouble was told %q, want %q", told, want)
		}
	})
}

// TestOutcomeUnknown: an answer is believed as far as it goes.
func TestOutcomeUnknown(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		readOnly := refusal(t, codes.Unavailable, "nothing changed", reason("STORE_READ_ONLY")).Err()
		unknown := refusal(t, codes.Unavailable, "who knows", reason("OUTCOME_UNKNOWN")).Err()
		invalid := refusal(t, codes.InvalidArgument, "bad", reason("INVALID_ARGUMENT")).Err()
		var answers []error
		b.beforeCalls(func(string) (err error) {
			if len(answers) > 0 {
				err, answers = answers[0], answers[1:]
			}
			return err
		})
		for _, test := range []struct {
			answers []error
			want    error
		}{
			{[]error{readOnly}, lock.ErrReadOnly},
			{[]error{unknown, readOnly}, lock.ErrOutcomeUnknown},
			{[]error{unknown, invalid}, lock.ErrInvalidArgument},
			{[]error{unknown, unknown}, nil},
			{slices.Repeat([]error{unknown}, 100), lock.ErrOutcomeUnknown},
		} {
			answers = test.answers
			grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x})
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			answers = nil
			if err == nil {
				if _, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Token: grant.Lock.Token}); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// TestRequestIDs: each Lock is a request of its own, unless the caller says otherwise.
func TestRequestIDs(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		if _, err := c.Lock(t.Context(), lock.LockRequest{Name: x}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Lock(t.Context(), lock.LockRequest{Name: x}); !errors.Is(err, lock.ErrLockHeld) {
			t.Errorf("got %v, want LOCK_HELD", err)
		}
		y := lock.LockRequest{Name: lock.MustParseName("y"), RequestID: "mine"}
		for range 2 {
			if grant, err := c.Lock(t.Context(), y); err != nil || grant.Lock.Token != 2 {
				t.Errorf("got %+v, %v; want token 2", grant, err)
			}
		}
	})
}

func TestRequestsAreSentWhole(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		expire := time.Now().Add(time.Hour).UTC()
		_, err := c.Lock(t.Context(), lock.LockRequest{Name: x, TTL: time.Second, ExpireTime: expire})
		if !errors.Is(err, lock.ErrInvalidArgument) {
			t.Errorf("ttl and expire time: got %v, want INVALID_ARGUMENT", err)
		}
		_, err = c.Renew(t.Context(), lock.RenewRequest{Name: x, TTL: time.Second, ExpireTime: expire})
		if !errors.Is(err, lock.ErrInvalidArgument) {
			t.Errorf("ttl and expire time: got %v, want INVALID_ARGUMENT", err)
		}
		if _, err := c.Lock(t.Context(), lock.LockRequest{}); !errors.Is(err, lock.ErrInvalidName) {
			t.Errorf("no name: got %v, want INVALID_NAME", err)
		}
		grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "alice", ExpireTime: expire, Data: mustData(t, `{"a":{"b":[1,null]}}`)})
		if err != nil {
			t.Fatal(err)
		}
		if l := grant.Lock; l.Holder != "alice" || !l.ExpireTime.Equal(expire) || l.TTL != 0 || l.Data.JSON() != `{"a":{"b":[1,null]}}` {
			t.Errorf("got %+v", l)
		}
		grant, err = c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "alice", Overwrite: true})
		if err != nil || grant.Lock.Token != 3 {
			t.Errorf("overwrite: got %+v, %v; want token 3", grant.Lock, err)
		}
		broken := make(chan struct{})
		time.AfterFunc(time.Minute, func() {
			defer close(broken)
			data := mustData(t, `{"msg":"out"}`)
			_, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Holder: "bob", Force: true, Reason: "because", Data: &data})
			if err != nil {
				t.Error(err)
			}
		})
		grant, err = c.Lock(t.Context(), lock.LockRequest{Name: x, Wait: time.Hour})
		if err != nil || grant.Queued != time.Minute {
			t.Errorf("got %+v, %v; want a minute in line", grant, err)
		}
		<-broken
		l, err := c.Renew(t.Context(), lock.RenewRequest{Name: x, Token: grant.Lock.Token, ExpireTime: expire})
		if err != nil || !l.ExpireTime.Equal(expire) {
			t.Errorf("Renew: got %+v, %v", l, err)
		}
		asked := lock.HistoryQuery{
			Pattern: lock.MustParsePattern("x"), After: 1, Actor: "bob", Cause: lock.Forced,
			AfterTime: time.Now().Add(-time.Hour), BeforeTime: time.Now().Add(time.Hour), NewestFirst: true,
		}
		for what, change := range map[string]func(q *lock.HistoryQuery){
			"":           func(q *lock.HistoryQuery) {},
			"pattern":    func(q *lock.HistoryQuery) { q.Pattern = lock.MustParsePattern("y") },
			"after":      func(q *lock.HistoryQuery) { q.After = 100 },
			"actor":      func(q *lock.HistoryQuery) { q.Actor = "alice" },
			"cause":      func(q *lock.HistoryQuery) { q.Cause = lock.File },
			"after time": func(q *lock.HistoryQuery) { q.AfterTime = q.BeforeTime },
			"before":     func(q *lock.HistoryQuery) { q.BeforeTime = q.AfterTime },
		} {
			q := asked
			change(&q)
			var got []lock.Event
			for e, err := range c.History(t.Context(), q) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			if want := what == ""; (len(got) == 1) != want {
				t.Errorf("the history with another %q: %+v", what, got)
			}
		}
		var order []lock.Revision
		for e := range c.History(t.Context(), lock.HistoryQuery{NewestFirst: true}) {
			order = append(order, e.Revision)
		}
		if len(order) < 3 || !slices.IsSortedFunc(order, func(a, b lock.Revision) int { return cmp.Compare(b, a) }) {
			t.Errorf("newest first: revisions %v", order)
		}
		for e, err := range c.History(t.Context(), lock.HistoryQuery{After: 3}) {
			if err != nil || e.Type != lock.Unlocked || e.Cause != lock.Forced || e.Actor != "bob" || e.Reason != "because" || e.Lock.Data.JSON() != `{"msg":"out"}` || e.Lock.Token != 3 || e.Time.IsZero() {
				t.Errorf("got %+v, %v", e, err)
			}
			break
		}
	})
}

func TestReading(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		const n = 2500 // some pages
		var want []string
		for i := range n {
			want = append(want, fmt.Sprintf("lb/%04d", i))
			if _, err := b.manager.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: lock.MustParseName(want[i])}); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for l, err := range c.List(t.Context(), "lb/*") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l.Name.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("List: got %d locks, want %d", len(got), len(want))
		}
		var revisions []lock.Revision
		for e, err := range c.History(t.Context(), lock.HistoryQuery{Pattern: lock.MustParsePattern("lb/*"), After: 100}) {
			if err != nil {
				t.Fatal(err)
			}
			revisions = append(revisions, e.Revision)
		}
		if len(revisions) != n-100 || revisions[0] != 101 || !slices.IsSorted(revisions) {
			t.Errorf("History: got %d events", len(revisions))
		}
		for _, err := range c.List(t.Context(), "***") {
			if !errors.Is(err, lock.ErrInvalidArgument) {
				t.Errorf("List(***): got %v, want INVALID_ARGUMENT", err)
			}
		}
		for range c.List(t.Context(), "") {
			break
		}
		info, err := c.Info(t.Context())
		if err != nil || info.Store != "memory" || info.Revision != n || info.StartTime.IsZero() {
			t.Errorf("Info: got %+v, %v", info, err)
		}
		l, err := c.Status(t.Context(), "lb/free")
		if err != nil || l.Held() || l.Name.String() != "lb/free" {
			t.Errorf("Status: got %+v, %v; want it free", l, err)
		}
	})
}
