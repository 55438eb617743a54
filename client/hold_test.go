package client_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// goesOn checks that a hold is not over.
func goesOn(t *testing.T, hold *client.Hold) {
	t.Helper()
	if err := hold.Err(); err != nil {
		t.Fatalf("the hold is over: %v", err)
	}
	if err := context.Cause(hold.Context()); err != nil {
		t.Fatalf("the context has ended: %v", err)
	}
	select {
	case <-hold.Done():
		t.Fatal("Done is closed")
	default:
	}
}

// isLost checks that a hold is over and that all who ask are told the same, which may
// be more than its context was ended with. It returns why.
func isLost(t *testing.T, hold *client.Hold) *client.LostError {
	t.Helper()
	select {
	case <-hold.Done():
	default:
		t.Fatal("Done is not closed")
	}
	if hold.Context().Err() == nil {
		t.Error("the context goes on")
	}
	lost, ok := errors.AsType[*client.LostError](hold.Err())
	if !ok || !errors.Is(lost, client.ErrLost) || errors.Is(lost, client.ErrReleased) {
		t.Fatalf("Err returned %v, want a LostError", hold.Err())
	}
	if cause := context.Cause(hold.Context()); cause != error(lost) {
		first, ok := errors.AsType[*client.LostError](cause)
		told := ok && first.Err != nil && first.Err == lost.Err && first.Cause == 0 && lost.Cause != 0
		handedOver := ok && first.Err == nil && first.Cause == lost.Cause && first.To == "" && lost.To != ""
		if !told && !handedOver {
			t.Errorf("the context ended with %v, want %v or less of it", cause, lost)
		}
	}
	if lost.Name != hold.Lock().Name || lost.Token != hold.Token() {
		t.Errorf("the error is about %v %d, want %v %d", lost.Name, lost.Token, hold.Lock().Name, hold.Token())
	}
	for method, err := range map[string]error{
		"Err":     hold.Err(),
		"Update":  hold.Update(t.Context(), lock.Data{}),
		"Release": hold.Release(t.Context()),
	} {
		if err != error(lost) {
			t.Errorf("%s returned %v, want %v", method, err, lost)
		}
	}
	return lost
}

// says checks the text of an error.
func says(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got the error %v, want one with %q", err, want)
	}
}

// TestHoldRenews: for as long as it is held a lock is renewed, each time a third of
// its life after the last.
func TestHoldRenews(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		begun := time.Now()
		hold := b.acquire(c, "lb/x", client.WithTTL(30*time.Second))
		l := hold.Lock()
		if l.Name.String() != "lb/x" || l.Token != hold.Token() || l.Token == 0 || l.TTL != 30*time.Second || !strings.Contains(l.Holder, "@") {
			t.Errorf("got the lock %+v", l)
		}
		time.Sleep(20*time.Minute + time.Second)
		goesOn(t, hold)
		var want []time.Time
		for i := range 133 {
			want = append(want, begun.Add(time.Duration(i+1)*9*time.Second))
		}
		if got := b.callsOf("Renew"); !slices.Equal(got, want) {
			t.Errorf("got %d renewals at %v, want %d every 9 s", len(got), got, len(want))
		}
		if got := len(b.callsOf("Watch")); got != 1 {
			t.Errorf("got %d calls of Watch, want 1", got)
		}
	})
}

func TestHoldWithoutTTL(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithTTL(0))
		b.stop()
		time.Sleep(time.Hour) // longer than any backoff
		goesOn(t, hold)
		b.start()
		time.Sleep(time.Minute)
		goesOn(t, hold)
		if got := b.callsOf("Renew"); len(got) != 0 {
			t.Errorf("got renewals at %v", got)
		}
		b.commit("x", lock.Unlocked, lock.File, "", "")
		synctest.Wait()
		if lost := isLost(t, hold); lost.Cause != lock.File {
			t.Errorf("got %+v, want the cause file", lost)
		}
	})
}

// TestHoldIsToldOfItsEnd: what ends a hold on the server is known at once, with who
// and why.
func TestHoldIsToldOfItsEnd(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, b *bubble, other *client.Client)
		want client.LostError // but for Name and Token
		says string
	}{
		{
			"broken",
			func(t *testing.T, b *bubble, other *client.Client) {
				_, err := other.Unlock(t.Context(), lock.UnlockRequest{
					Name: lock.MustParseName("x"), Holder: "bob", Force: true, Reason: "canary must go",
				})
				if err != nil {
					t.Error(err)
				}
			},
			client.LostError{Cause: lock.Forced, Actor: "bob", Reason: "canary must go"},
			"lost x (token 1): it was broken by bob: canary must go",
		},
		{
			"broken by nobody",
			func(t *testing.T, b *bubble, other *client.Client) {
				if _, err := other.Unlock(t.Context(), lock.UnlockRequest{Name: lock.MustParseName("x"), Force: true, Reason: "it hangs"}); err != nil {
					t.Error(err)
				}
			},
			client.LostError{Cause: lock.Forced, Reason: "it hangs"},
			"it was broken by somebody who gave no name: it hangs",
		},
		{
			"expired",
			func(t *testing.T, b *bubble, other *client.Client) {
				b.commit("x", lock.Unlocked, lock.Expired, "alice", "the lease ran out")
			},
			client.LostError{Cause: lock.Expired, Actor: "alice", Reason: "the lease ran out"},
			"the lease ran out before it was renewed",
		},
		{
			"removed",
			func(t *testing.T, b *bubble, other *client.Client) {
				b.commit("x", lock.Unlocked, lock.File, "", "")
			},
			client.LostError{Cause: lock.File},
			"its lock file was removed or replaced",
		},
		{
			"replaced",
			func(t *testing.T, b *bubble, other *client.Client) {
				_, err := other.Lock(t.Context(), lock.LockRequest{Name: lock.MustParseName("x"), Holder: "alice", Overwrite: true})
				if err != nil {
					t.Error(err)
				}
			},
			client.LostError{Cause: lock.Request, Actor: "alice", Reason: "replaced by the hold with token 4"},
			"it was released or replaced by alice: replaced by the hold with token 4",
		},
		{
			"released by its holder's name",
			func(t *testing.T, b *bubble, other *client.Client) {
				_, err := other.Unlock(t.Context(), lock.UnlockRequest{Name: lock.MustParseName("x"), Holder: "alice", Reason: "done here"})
				if err != nil {
					t.Error(err)
				}
			},
			client.LostError{Cause: lock.Request, Actor: "alice", Reason: "done here"},
			"it was released or replaced by alice: done here",
		},
		{
			"handed over",
			func(t *testing.T, b *bubble, other *client.Client) {
				_, err := other.HandOver(t.Context(), lock.HandOverRequest{Name: x, Token: 1, Holder: "bob", Reason: "the shift ends"})
				if err != nil {
					t.Error(err)
				}
			},
			client.LostError{Cause: lock.Request, To: "bob", Actor: "alice", Reason: "handed over to bob: the shift ends"},
			"lost x (token 1): it was handed over to bob: the shift ends",
		},
		{
			"handed over to the same holder, as another instance",
			func(t *testing.T, b *bubble, other *client.Client) {
				_, err := other.HandOver(t.Context(), lock.HandOverRequest{Name: x, Token: 1, Holder: "alice", From: "the night shift"})
				if err != nil {
					t.Error(err)
				}
			},
			client.LostError{Cause: lock.Request, To: "alice", Actor: "the night shift", Reason: "handed over to alice"},
			"lost x (token 1): it was handed over to alice",
		},
		{
			"stale",
			func(t *testing.T, b *bubble, other *client.Client) { b.becomeStale("x") },
			client.LostError{Cause: lock.Expired, Stale: true},
			"lost x (token 1): the lease ran out before it was renewed; the lock stays held, stale, until somebody has looked",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				c, _ := b.client()
				other, _ := b.client()
				hold := b.acquire(c, "x", client.WithHolder("alice"))
				synctest.Wait()
				b.commit("x", lock.Updated, lock.File, "", "") // no end
				synctest.Wait()
				goesOn(t, hold)
				before := time.Now()
				test.do(t, b, other)
				synctest.Wait()
				if took := time.Since(before); took > 0 {
					t.Errorf("it took %v", took)
				}
				got := isLost(t, hold)
				test.want.Name, test.want.Token = got.Name, got.Token
				if !reflect.DeepEqual(*got, test.want) {
					t.Errorf("got %+v, want %+v", *got, test.want)
				}
				says(t, got, test.says)
			})
		})
	}
}

// TestHoldRenewsInVain: without a watch the renewals find out.
func TestHoldRenewsInVain(t *testing.T) {
	tests := []struct {
		name string
		do   func(b *bubble)
		says string
	}{
		{"free", func(b *bubble) { b.commit("x", lock.Unlocked, lock.Forced, "bob", "") }, "lost x (token 1): x is not locked"},
		{"held by another", func(b *bubble) {
			b.commit("x", lock.Unlocked, lock.Forced, "bob", "")
			_, err := b.manager.Lock(b.t.Context(), lock.Caller{}, lock.LockRequest{Name: lock.MustParseName("x"), Holder: "bob"})
			if err != nil {
				b.t.Error(err)
			}
		}, "lost x (token 1): the hold with token 1 is over; x is held by bob"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.noWatch = refusal(t, codes.PermissionDenied, "no", reason("PERMISSION_DENIED")).Err()
				c, _ := b.client()
				hold := b.acquire(c, "x", client.WithTTL(30*time.Second))
				test.do(b)
				var refused time.Time
				b.beforeOne("Renew", func() { refused = time.Now() })
				time.Sleep(8 * time.Second)
				goesOn(t, hold)
				<-hold.Context().Done()
				if ended := time.Now(); !ended.Equal(refused) {
					t.Errorf("it worked on for %v after the server had said that it is over", ended.Sub(refused))
				}
				synctest.Wait()
				lost := isLost(t, hold)
				if lost.Cause != 0 || lost.Actor != "" || !errors.Is(lost, lock.ErrNotHolder) && !errors.Is(lost, lock.ErrNotLocked) {
					t.Errorf("got %+v, want the refusal", lost)
				}
				says(t, lost, test.says)
			})
		})
	}
}

// TestHoldEndsBeforeItIsExplained: the context ends with what is known; the rest comes
// later, and not into the cause, which somebody may have read.
func TestHoldEndsBeforeItIsExplained(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.watchDelay = 500 * time.Millisecond
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithTTL(30*time.Second))
		b.beforeOne("Renew", func() {
			b.commit("x", lock.Unlocked, lock.Forced, "bob", "in the way")
			if _, err := b.manager.Lock(b.t.Context(), lock.Caller{}, lock.LockRequest{Name: x, Holder: "carol"}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(8800 * time.Millisecond)
		b.network.cut() // and with it the watch
		time.Sleep(200*time.Millisecond - time.Nanosecond)
		goesOn(t, hold)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		cause := context.Cause(hold.Context())
		says(t, cause, "lost x (token 1): the hold with token 1 is over; x is held by carol")
		if err := hold.Err(); err != cause {
			t.Errorf("got %v, want %v", err, cause)
		}
		time.Sleep(time.Second)
		lost := isLost(t, hold)
		says(t, lost, "lost x (token 1): it was broken by bob: in the way")
		if !errors.Is(lost, lock.ErrNotHolder) {
			t.Errorf("got %+v, want one that has the refusal", lost)
		}
		if got := context.Cause(hold.Context()); got != cause || got.Error() != cause.Error() {
			t.Errorf("the cause is now %v, and was %v", got, cause)
		}
	})
}

// TestMargin: what cannot be renewed is over before the lease is, and the lease is over
// for the client before it is for the server.
func TestMargin(t *testing.T) {
	const ttl = 30 * time.Second
	for _, test := range []struct {
		options []client.AcquireOption
		life    time.Duration
	}{
		{nil, 27 * time.Second},
		{[]client.AcquireOption{client.WithMargin(0)}, ttl},
		{[]client.AcquireOption{client.WithMargin(15 * time.Second)}, 15 * time.Second},
	} {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			hold := b.acquire(c, "x", append(test.options, client.WithTTL(ttl))...)
			time.Sleep(time.Hour + time.Second) // between two renewals
			goesOn(t, hold)
			if left := hold.LeaseLeft(); left > ttl || left < ttl-test.life/3 {
				t.Errorf("%v of the lease are left, want a third less than all", left)
			}
			b.stop()
			renewals := b.callsOf("Renew")
			last := renewals[len(renewals)-1]
			<-hold.Done()
			if got := time.Since(last); got != test.life {
				t.Errorf("it is over %v after the last renewal, want %v", got, test.life)
			}
			synctest.Wait()
			isLost(t, hold)
			if left := hold.LeaseLeft(); left != ttl-test.life {
				t.Errorf("%v of the lease are left, want %v", left, ttl-test.life)
			}
			b.start()
		})
	}
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		for _, margin := range []time.Duration{-1, ttl/2 + 1} {
			if _, err := c.Acquire(t.Context(), "x", client.WithTTL(ttl), client.WithMargin(margin)); err == nil {
				t.Errorf("a margin of %v is allowed", margin)
			}
		}
		hold := b.acquire(c, "x", client.WithTTL(0), client.WithMargin(time.Second))
		if left := hold.LeaseLeft(); left != 1<<63-1 {
			t.Errorf("%v are left, want all", left)
		}
	})
}

// TestManyHolds: they do not all watch, and still all learn who and why.
func TestManyHolds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		var holds []*client.Hold
		for i := range 110 {
			holds = append(holds, b.acquire(c, fmt.Sprint("n/", i), client.WithTTL(30*time.Second)))
		}
		free := b.acquire(c, "free", client.WithTTL(0)) // has nothing but its watch
		synctest.Wait()
		if got := len(b.callsOf("Watch")); got != 101 {
			t.Errorf("got %d streams, want 101", got)
		}
		lose := func(hold *client.Hold) {
			t.Helper()
			b.commit(hold.Lock().Name.String(), lock.Unlocked, lock.Forced, "bob", "all must go")
			synctest.Wait()
		}
		check := func(hold *client.Hold) {
			t.Helper()
			if lost := isLost(t, hold); lost.Cause != lock.Forced || lost.Actor != "bob" || lost.Reason != "all must go" {
				t.Errorf("got %+v, want one that names bob", lost)
			}
		}
		for _, hold := range []*client.Hold{free, holds[0], holds[99]} {
			lose(hold)
			check(hold)
		}
		lose(holds[100])
		lose(holds[109])
		goesOn(t, holds[100])
		if err := holds[109].Update(t.Context(), lock.Data{}); !errors.Is(err, client.ErrLost) {
			t.Errorf("Update returned %v, want ErrLost", err)
		}
		check(holds[109])
		time.Sleep(10 * time.Second)
		synctest.Wait()
		check(holds[100])
		goesOn(t, holds[101])
		// There is room again.
		before := len(b.callsOf("Watch"))
		for i := range 3 {
			b.acquire(c, fmt.Sprint("more/", i))
		}
		synctest.Wait()
		if got := len(b.callsOf("Watch")) - before; got != 2 {
			t.Errorf("got %d more streams, want 2", got)
		}
	})
}

// TestHoldWithoutServer: a hold that cannot be renewed is over when its ttl has passed
// since the start of the last renewal that succeeded, but for the margin, and not before.
func TestHoldWithoutServer(t *testing.T) {
	const ttl = 30 * time.Second
	tests := []struct {
		name string
		away func(b *bubble)
		sent bool
	}{
		{"gone", func(b *bubble) { b.stop() }, false},
		{"silent", func(b *bubble) { b.network.silence() }, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				c, _ := b.client()
				hold := b.acquire(c, "x", client.WithTTL(ttl))
				b.afterCalls(func(method string) error {
					if method == "Renew" {
						time.Sleep(3 * time.Second) // the answer takes long
					}
					return nil
				})
				time.Sleep(25 * time.Second)
				renewals := b.callsOf("Renew") // at 9 and 18
				deadline := renewals[len(renewals)-1].Add(ttl - ttl/10)
				test.away(b)
				time.Sleep(time.Until(deadline) - time.Nanosecond)
				goesOn(t, hold)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				lost := isLost(t, hold)
				unreachable, ok := errors.AsType[*client.UnreachableError](lost)
				if !ok || unreachable.Sent != test.sent || lost.Cause != 0 {
					t.Errorf("got %#v, want an UnreachableError with Sent %v", lost.Err, test.sent)
				}
				says(t, lost, "lost x (token 1): it could not be renewed in time: ")
				t.Log(lost)
				if test.name == "gone" {
					b.start()
				}
			})
		})
	}
}

// TestHoldOutlivesASilentConnection: a connection that lets nothing through is given
// up in time to renew over another.
func TestHoldOutlivesASilentConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithTTL(2*time.Minute))
		time.Sleep(41 * time.Second)
		b.network.silence()
		time.Sleep(10 * time.Minute)
		goesOn(t, hold)
		b.commit("x", lock.Unlocked, lock.Forced, "bob", "")
		synctest.Wait()
		if lost := isLost(t, hold); lost.Actor != "bob" {
			t.Errorf("got %+v, want one that names bob: the watch has not come back", lost)
		}
	})
}

// TestHoldOutlivesRestarts: the server may be away, as long as the lease still holds.
func TestHoldOutlivesRestarts(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithTTL(30*time.Second))
		for i := range 40 {
			time.Sleep(time.Duration(i) * 700 * time.Millisecond)
			b.stop()
			time.Sleep(15 * time.Second)
			b.start()
			time.Sleep(5 * time.Second)
			goesOn(t, hold)
		}
		b.stop()
		b.commit("x", lock.Unlocked, lock.Forced, "bob", "while nobody looked")
		b.start()
		time.Sleep(3 * time.Second)
		if lost := isLost(t, hold); lost.Cause != lock.Forced || lost.Actor != "bob" || lost.Reason != "while nobody looked" {
			t.Errorf("got %+v, want one that names bob", lost)
		}
	})
}

// TestHoldWithoutJournal: the server cannot tell what happened meanwhile, but what
// stands.
func TestHoldWithoutJournal(t *testing.T) {
	for _, held := range []bool{true, false} {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			hold := b.acquire(c, "x")
			synctest.Wait()
			b.stop()
			if !held {
				b.commit("x", lock.Unlocked, lock.Forced, "bob", "")
			}
			b.forget()
			b.start()
			time.Sleep(3 * time.Second)
			if held {
				goesOn(t, hold)
				return
			}
			lost := isLost(t, hold)
			if lost.Cause != 0 {
				t.Errorf("got %+v, want no cause", lost)
			}
			says(t, lost, "how it ended is no longer known")
		})
	}
}

// TestHoldInSuspend: a process that did not run past the end of its lease knows when it
// wakes.
func TestHoldInSuspend(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, clock := b.client()
		asked := b.acquire(c, "asked", client.WithTTL(30*time.Second))
		told := b.acquire(c, "told", client.WithTTL(30*time.Second))
		short := b.acquire(c, "short", client.WithTTL(time.Hour))
		clock.suspend(15 * time.Second)
		time.Sleep(time.Second)
		goesOn(t, asked)
		goesOn(t, told)
		clock.suspend(30 * time.Second)
		says(t, asked.Err(), "the lease ran out before it was renewed")
		if lost := isLost(t, asked); lost.Cause != lock.Expired {
			t.Errorf("got %+v, want the cause expired", lost)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if lost := isLost(t, told); lost.Cause != lock.Expired {
			t.Errorf("got %+v, want the cause expired", lost)
		}
		goesOn(t, short)
	})
}

// TestAnswerAfterTheEnd: a hold whose lease has run out does not come back.
func TestAnswerAfterTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, clock := b.client()
		hold := b.acquire(c, "x", client.WithTTL(30*time.Second))
		time.Sleep(5 * time.Second)
		b.afterOne("Renew", func() { clock.suspend(26 * time.Second) })
		err := hold.Update(t.Context(), lock.Data{})
		if lost := isLost(t, hold); err != error(lost) || lost.Cause != lock.Expired {
			t.Errorf("Update returned %v, want a LostError with the cause expired", err)
		}
	})
}

func TestHoldOutlivesTroubles(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithTTL(30*time.Second))
		troubles := []error{
			refusal(t, codes.Unavailable, "disk", reason("STORE_READ_ONLY")).Err(),
			refusal(t, codes.Unavailable, "bye", reason("SHUTTING_DOWN")).Err(),
			refusal(t, codes.Unavailable, "sync", reason("OUTCOME_UNKNOWN")).Err(),
			refusal(t, codes.Internal, "internal error").Err(),
		}
		b.beforeCalls(func(method string) (err error) {
			if method == "Renew" && len(troubles) > 0 {
				err, troubles = troubles[0], troubles[1:]
			}
			return err
		})
		time.Sleep(20 * time.Second)
		goesOn(t, hold)
		if len(troubles) > 0 {
			t.Errorf("%d troubles are left", len(troubles))
		}
		disk := refusal(t, codes.Unavailable, "disk", reason("STORE_READ_ONLY")).Err()
		b.beforeCalls(func(string) error { return disk })
		time.Sleep(30 * time.Second)
		if lost := isLost(t, hold); !errors.Is(lost, lock.ErrReadOnly) || lost.Cause != 0 {
			t.Errorf("got %+v, want STORE_READ_ONLY", lost)
		}
	})
}

func TestUpdate(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		begun := time.Now()
		hold := b.acquire(c, "x", client.WithTTL(30*time.Second), client.WithData(mustData(t, `{"msg":"one"}`)))
		if got := hold.Lock().Data.JSON(); got != `{"msg":"one"}` {
			t.Errorf("got the data %s", got)
		}
		time.Sleep(5 * time.Second)
		if err := hold.Update(t.Context(), mustData(t, `{"msg":"two"}`)); err != nil {
			t.Fatal(err)
		}
		present, err := c.Status(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []lock.Lock{present, hold.Lock()} {
			if l.Data.JSON() != `{"msg":"two"}` || l.Token != hold.Token() || l.TTL != 30*time.Second || l.Revision != 2 {
				t.Errorf("got %+v", l)
			}
		}
		time.Sleep(12 * time.Second)
		want := []time.Time{begun.Add(5 * time.Second), begun.Add(14 * time.Second)}
		if got := b.callsOf("Renew"); !slices.Equal(got, want) {
			t.Errorf("got renewals at %v, want %v", got, want)
		}
		if err := hold.Update(t.Context(), lock.Data{}); err != nil {
			t.Fatal(err)
		}
		if got := hold.Lock().Data.JSON(); got != `{}` {
			t.Errorf("got the data %s, want none", got)
		}
		// Somebody edits the file.
		b.commit("x", lock.Updated, lock.File, "", "")
		synctest.Wait()
		if got := hold.Lock().Revision; got != 4 {
			t.Errorf("got revision %d, want 4", got)
		}
		// A refusal is no loss.
		b.beforeCalls(func(string) error {
			return refusal(t, codes.ResourceExhausted, "too much", reason("DATA_TOO_LARGE")).Err()
		})
		if err := hold.Update(t.Context(), lock.Data{}); !errors.Is(err, lock.ErrDataTooLarge) {
			t.Errorf("got %v, want DATA_TOO_LARGE", err)
		}
		goesOn(t, hold)
	})
}

// TestUpdateOfALostHold: it says who ended the hold, although the renewal was first to
// know, and ends with the hold when there is no answer.
func TestUpdateOfALostHold(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x")
		b.beforeCalls(func(method string) error {
			if method == "Renew" {
				b.commit("x", lock.Unlocked, lock.Forced, "bob", "")
			}
			return nil
		})
		err := hold.Update(t.Context(), lock.Data{})
		if lost := isLost(t, hold); err != error(lost) || lost.Actor != "bob" {
			t.Errorf("Update returned %v, want one that names bob", err)
		}
	})
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithTTL(30*time.Second))
		b.network.silence()
		err := hold.Update(t.Context(), lock.Data{})
		if lost := isLost(t, hold); err != error(lost) {
			t.Errorf("Update returned %v, want %v", err, lost)
		}
	})
}

func TestRelease(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithHolder("alice"), client.WithData(mustData(t, `{"msg":"one"}`)))
		synctest.Wait()
		err := hold.Release(hold.Context(), client.WithReason("all done"), client.WithClosingData(mustData(t, `{"msg":"READY"}`)))
		if err != nil {
			t.Fatal(err)
		}
		if err := hold.Err(); err != client.ErrReleased || context.Cause(hold.Context()) != err {
			t.Errorf("Err is %v and the cause %v, want ErrReleased", err, context.Cause(hold.Context()))
		}
		<-hold.Done()
		page, err := b.manager.History(t.Context(), lock.Caller{}, lock.HistoryQuery{After: 1}, 0, 10)
		events := page.Events
		if err != nil || len(events) != 1 {
			t.Fatal(events, err)
		}
		if e := events[0]; e.Type != lock.Unlocked || e.Cause != lock.Request || e.Actor != "alice" || e.Reason != "all done" || e.Lock.Data.JSON() != `{"msg":"READY"}` {
			t.Errorf("got the event %+v", e)
		}
		calls := len(b.calls)
		if err := hold.Release(t.Context()); err != nil {
			t.Errorf("the second Release: %v", err)
		}
		if err := hold.Update(t.Context(), lock.Data{}); err != client.ErrReleased {
			t.Errorf("Update returned %v, want ErrReleased", err)
		}
		time.Sleep(time.Hour)
		if more := b.calls[calls:]; len(more) > 0 {
			t.Errorf("after the release: %v", more)
		}
	})
}

// TestReleaseWithoutServer: it fails in time, and can be done again.
func TestReleaseWithoutServer(t *testing.T) {
	for _, ttl := range []time.Duration{0, time.Minute} {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			hold := b.acquire(c, "x", client.WithTTL(ttl))
			b.stop()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			begun := time.Now()
			err := hold.Release(ctx)
			if _, ok := errors.AsType[*client.UnreachableError](err); !ok {
				t.Errorf("got %v, want an UnreachableError", err)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			says(t, err, "x may stay locked")
			if err := hold.Err(); err != client.ErrReleased {
				t.Errorf("got %v, want ErrReleased", err)
			}
			b.start()
			time.Sleep(5 * time.Second)
			if err := hold.Release(ctx); err != nil {
				t.Error(err)
			}
			if l, err := b.manager.Status(t.Context(), lock.Caller{}, lock.MustParseName("x")); err != nil || l.Held() {
				t.Errorf("got %+v, %v; want it free", l, err)
			}
		})
	}
}

// TestReleaseAgain: a Release whose answer was lost may have done it, and then the next
// one finds the hold over and is no loss.
func TestReleaseAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x")
		b.afterOne("Unlock", func() {
			b.network.listener.Store(nil)
			b.network.cut()
		})
		if err := hold.Release(t.Context()); err == nil || errors.Is(err, client.ErrLost) {
			t.Errorf("got %v, want one of no answer", err)
		}
		b.network.listener.Store(b.listener)
		time.Sleep(5 * time.Second)
		if err := hold.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestReleaseOfALostHold: Release itself finds out.
func TestReleaseOfALostHold(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x")
		b.beforeCalls(func(method string) error {
			if method == "Unlock" {
				b.commit("x", lock.Unlocked, lock.Forced, "bob", "")
			}
			return nil
		})
		err := hold.Release(t.Context())
		if !errors.Is(err, client.ErrLost) || !errors.Is(err, lock.ErrNotLocked) {
			t.Errorf("got %v, want a LostError of NOT_LOCKED", err)
		}
	})
}

// TestReleaseAnswerLost: the hold is over, so it is done.
func TestReleaseAnswerLost(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x")
		b.afterOne("Unlock", b.network.cut)
		if err := hold.Release(t.Context()); err != nil {
			t.Error(err)
		}
		want := []string{"1 locked request x", "2 unlocked request x"}
		if got := b.events(); !slices.Equal(got, want) {
			t.Errorf("got the events %q, want %q", got, want)
		}
	})
}

// TestCallersContextEnds: what is bound to the hold ends with either, and the hold goes
// on until its release.
func TestCallersContextEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		interrupt := errors.New("interrupt")
		ctx, cancel := context.WithCancelCause(t.Context())
		hold, err := c.Acquire(ctx, "x", client.WithTTL(30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		work, done := hold.Bind(ctx)
		defer done()
		other, done := hold.Bind(t.Context())
		defer done()
		early, done := hold.Bind(t.Context())
		done()
		if err := early.Err(); err != context.Canceled {
			t.Errorf("got %v, want Canceled", err)
		}
		cancel(interrupt)
		if got := context.Cause(work); got != interrupt {
			t.Errorf("got the cause %v, want the caller's", got)
		}
		time.Sleep(10 * time.Minute)
		for _, ctx := range []context.Context{hold.Context(), other} {
			if err := ctx.Err(); err != nil {
				t.Errorf("the context ended with the one that Acquire was given: %v", err)
			}
		}
		if err := hold.Err(); err != nil {
			t.Errorf("the hold is over: %v", err)
		}
		if got := len(b.callsOf("Renew")); got < 59 {
			t.Errorf("got %d renewals", got)
		}
		if err := hold.Release(ctx); err != nil {
			t.Error(err)
		}
		<-other.Done()
		if got := context.Cause(other); got != client.ErrReleased {
			t.Errorf("got the cause %v, want ErrReleased", got)
		}
		late, done := hold.Bind(t.Context())
		defer done()
		if got := context.Cause(late); got != client.ErrReleased {
			t.Errorf("bound when it is over: got the cause %v, want ErrReleased", got)
		}
	})
}

func TestAcquire(t *testing.T) {
	t.Run("held", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			b.acquire(c, "x", client.WithHolder("alice"))
			_, err := c.Acquire(t.Context(), "x")
			refusal, ok := errors.AsType[*lock.Error](err)
			if !ok || !errors.Is(err, lock.ErrLockHeld) || refusal.Lock.Holder != "alice" {
				t.Errorf("got %v, want LOCK_HELD by alice", err)
			}
		})
	})
	t.Run("bad name", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			if _, err := c.Acquire(t.Context(), "../x"); !errors.Is(err, lock.ErrInvalidName) {
				t.Errorf("got %v, want INVALID_NAME", err)
			}
		})
	})
	t.Run("after a wait longer than the ttl", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			first := b.acquire(c, "x")
			time.AfterFunc(10*time.Minute, func() { first.Release(t.Context()) })
			second := b.acquire(c, "x", client.WithTTL(30*time.Second), client.WithWait(time.Hour))
			granted := time.Now()
			renewals := b.callsOf("Renew")
			if last := renewals[len(renewals)-1]; !last.Equal(granted) {
				t.Errorf("the last renewal was at %v, want %v: nobody knows when the lease began", last, granted)
			}
			b.stop()
			time.Sleep(27*time.Second - time.Nanosecond)
			goesOn(t, second)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			isLost(t, second)
			b.start()
		})
	})
	t.Run("a wait over restarts", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			first := b.acquire(c, "x")
			time.AfterFunc(10*time.Minute, func() { first.Release(t.Context()) })
			for i := range 5 {
				time.AfterFunc(time.Duration(i+1)*time.Minute, func() { b.stop(); b.start() })
			}
			begun := time.Now()
			second := b.acquire(c, "x", client.WithWait(time.Hour))
			if took := time.Since(begun); took != 10*time.Minute {
				t.Errorf("it took %v, want 10m", took)
			}
			goesOn(t, second)
		})
	})
	t.Run("a wait that runs out over restarts", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			b.acquire(c, "x")
			time.AfterFunc(time.Minute, func() { b.stop(); b.start() })
			begun := time.Now()
			_, err := c.Acquire(t.Context(), "x", client.WithWait(2*time.Minute))
			if took := time.Since(begun); !errors.Is(err, lock.ErrLockHeld) || took != 2*time.Minute {
				t.Errorf("got %v after %v, want LOCK_HELD after 2m", err, took)
			}
		})
	})
	t.Run("a wait that is given up", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			b.acquire(c, "x")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := c.Acquire(ctx, "x", client.WithWait(time.Hour)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the end of the context", err)
			}
			synctest.Wait()
			if l, err := c.Status(t.Context(), "x"); err != nil || l.Waiters != 0 {
				t.Errorf("got %+v, %v; want no waiters", l, err)
			}
		})
	})
}

// TestAcquireCannotRenew: a lock that nobody will get to see is given back.
func TestAcquireCannotRenew(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		first := b.acquire(c, "x")
		time.AfterFunc(10*time.Minute, func() { first.Release(t.Context()) })
		b.beforeCalls(func(method string) error {
			if l := first.Err(); method == "Renew" && l != nil {
				return refusal(t, codes.Unavailable, "disk", reason("STORE_READ_ONLY")).Err()
			}
			return nil
		})
		if _, err := c.Acquire(t.Context(), "x", client.WithWait(time.Hour)); !errors.Is(err, lock.ErrReadOnly) {
			t.Errorf("got %v, want STORE_READ_ONLY", err)
		}
		if l, err := c.Status(t.Context(), "x"); err != nil || l.Held() {
			t.Errorf("got %+v, %v; want it free", l, err)
		}
	})
}

// TestAcquireCannotGiveBack: where neither the lease can begin anew nor the lock be given
// back, the error says that the lock may be held.
func TestAcquireCannotGiveBack(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		first := b.acquire(c, "x")
		time.AfterFunc(10*time.Minute, func() { first.Release(t.Context()) })
		b.beforeCalls(func(method string) error {
			if first.Err() != nil && (method == "Renew" || method == "Unlock" && len(b.callsOf("Unlock")) > 1) {
				return refusal(t, codes.Unavailable, "disk", reason("STORE_READ_ONLY")).Err()
			}
			return nil
		})
		_, err := c.Acquire(t.Context(), "x", client.WithWait(time.Hour))
		unknown, ok := errors.AsType[*client.OutcomeUnknownError](err)
		if !ok || !errors.Is(err, lock.ErrReadOnly) {
			t.Fatalf("got %v, want an OutcomeUnknownError of STORE_READ_ONLY", err)
		}
		if l, err := c.Status(t.Context(), "x"); err != nil || !l.Held() {
			t.Errorf("got %+v, %v; want it held", l, err)
		}
		if _, err := c.Lock(t.Context(), lock.LockRequest{Name: x, RequestID: unknown.RequestID}); err != nil {
			t.Errorf("asked again with the request id: %v", err)
		}
	})
}

// TestAcquireTimesOut: a context bounds how long the server may take, and not the Hold.
func TestAcquireTimesOut(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hold, err := c.Acquire(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := hold.Context().Err(); err != nil {
			t.Errorf("the Hold's Context ended after the timeout: %v", err)
		}
		if err := hold.Release(t.Context()); err != nil {
			t.Error(err)
		}
		b.beforeOne("Lock", func() { time.Sleep(time.Hour) })
		begun := time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), 61*time.Second)
		defer cancel()
		_, err = c.Acquire(ctx, "x", client.WithWait(time.Minute))
		if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took < 61*time.Second || took > 66*time.Second {
			t.Errorf("got %v after %v, want the end of the time after 61s", err, took)
		}
		time.Sleep(2 * time.Hour)
	})
}
