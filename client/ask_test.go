package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// received returns what is in a channel, a line each.
func received[T any](c <-chan T, line func(T) string) (lines []string) {
	for {
		select {
		case v, open := <-c:
			if !open {
				return append(lines, "closed")
			}
			lines = append(lines, line(v))
		default:
			return lines
		}
	}
}

// asks returns what was asked on a channel.
func asks(c <-chan client.Ask) string {
	return fmt.Sprint(received(c, func(a client.Ask) string { return fmt.Sprintf("%s of %s: %s", a.Actor, a.Name, a.Message) }))
}

// ask asks the holder of a lock.
func (b *bubble) ask(name, who, message string) lock.AskAnswer {
	b.t.Helper()
	answer, err := b.manager.Ask(b.t.Context(), lock.Caller{}, lock.AskRequest{Name: lock.MustParseName(name), Holder: who, Message: message})
	if err != nil {
		b.t.Fatal(err)
	}
	return answer
}

// TestAsked: who holds a lock is told what is asked of it, once each.
func TestAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x", client.WithHolder("alice"))
		synctest.Wait()
		answer, err := c.Ask(t.Context(), lock.AskRequest{Name: x, Token: hold.Token(), Message: "may I?", Holder: "bob"})
		if err != nil || !answer.Heard || answer.Lock.Token != hold.Token() {
			t.Errorf("got %+v, %v; want it heard", answer, err)
		}
		if _, err := c.Ask(t.Context(), lock.AskRequest{Name: x, Token: 77, Message: "may I?"}); !errors.Is(err, lock.ErrNotHolder) {
			t.Errorf("another token: got %v", err)
		}
		synctest.Wait()
		ask := <-hold.Asked()
		if want := (client.Ask{Name: x, Actor: "bob", Message: "may I?", Time: ask.Time}); ask != want || time.Since(ask.Time).Abs() > time.Second {
			t.Errorf("got %+v, want %+v", ask, want)
		}
		time.Sleep(time.Second)
		b.ask("x", "carol", "soon?")
		synctest.Wait()
		b.network.cut() // and what was asked may be told again
		time.Sleep(10 * time.Second)
		b.ask("x", "dave", "now!")
		synctest.Wait()
		if got, want := asks(hold.Asked()), "[carol of x: soon? dave of x: now!]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		goesOn(t, hold)
		for i := range 20 {
			time.Sleep(time.Second)
			b.ask("x", "bob", fmt.Sprint(i))
		}
		synctest.Wait()
		if first := <-hold.Asked(); first.Message != "4" {
			t.Errorf("got %v first, want the newest 16", first)
		}
		if err := hold.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range hold.Asked() { // it ends
		}
		if len(b.events()) != 2 {
			t.Errorf("got the events %q, want none of what was asked", b.events())
		}
	})
}

// TestAskedAgain: what is told a second time, as over a new connection, is not heard twice,
// and does not have the watch begin anew.
func TestAskedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		event := &pylokv1.Event{
			Type: pylokv1.EventType_EVENT_TYPE_ASKED, Actor: "bob", Reason: "may I?",
			Lock: &pylokv1.Lock{Name: "x", Token: 1, Revision: 1},
		}
		b.watchTells = []*pylokv1.Event{event, event}
		b.noWatch = refusal(t, codes.Unavailable, "such as a restart").Err()
		hold := b.acquire(c, "x")
		time.Sleep(time.Minute)
		if got, want := asks(hold.Asked()), "[bob of x: may I?]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := len(b.callsOf("Watch")); got < 10 {
			t.Errorf("it watched %d times, want that often", got)
		}
	})
}

// TestAskedBeforeTheHold: what was asked while nobody listened is told to who adopts the
// hold.
func TestAskedBeforeTheHold(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x, TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if answer := b.ask("x", "bob", "may I?"); answer.Heard {
			t.Error("it was heard by nobody")
		}
		hold, err := c.Adopt(t.Context(), "x", grant.Lock.Token)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := asks(hold.Asked()), "[bob of x: may I?]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := hold.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestSetAsked: a set hears what its holds hear.
func TestSetAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		set := b.acquireSet(c)
		synctest.Wait()
		b.ask("db/a", "bob", "one")
		synctest.Wait()
		b.ask("db/c", "bob", "two")
		synctest.Wait()
		if got, want := asks(set.Asked()), "[bob of db/a: one bob of db/c: two]"; got != want {
			t.Errorf("the set: got %s, want %s", got, want)
		}
		for i, want := range []string{"[bob of db/a: one]", "[]", "[bob of db/c: two]"} {
			if got := asks(set.Holds()[i].Asked()); got != want {
				t.Errorf("hold %d: got %s, want %s", i, got, want)
			}
		}
	})
}

// TestAtRisk: a warning comes when a quarter of the life is left, once in a trouble, and not
// because of a renewal that fails and the next that does not.
func TestAtRisk(t *testing.T) {
	const ttl = 40 * time.Second // a life of 36, a renewal every 12
	for _, test := range []struct {
		name string
		away func(b *bubble, back time.Duration) // for so long from now on
		says string
	}{
		{"gone", func(b *bubble, back time.Duration) { b.stop(); time.AfterFunc(back, b.start) }, "connection refused"},
		{"silent", func(b *bubble, back time.Duration) {
			listener := b.network.listener.Swap(nil)
			b.network.silence()
			time.AfterFunc(back, func() { b.network.cut(); b.network.listener.Store(listener) })
		}, "no answer within 12s"},
		{"its disk full", func(b *bubble, back time.Duration) {
			full := refusal(b.t, codes.Unavailable, "the disk is full", reason("STORE_READ_ONLY")).Err()
			b.beforeCalls(func(string) error { return full })
			time.AfterFunc(back, func() { b.beforeCalls(nil) })
		}, "the disk is full"},
	} {
		for _, taken := range []struct {
			name string // and what the warning begins with
			take func(b *bubble, c *client.Client) (atRisk <-chan error, method string, over func() error)
		}{
			{"x", func(b *bubble, c *client.Client) (<-chan error, string, func() error) {
				hold := b.acquire(c, "x", client.WithTTL(ttl))
				return hold.AtRisk(), "Renew", hold.Err
			}},
			{"db/", func(b *bubble, c *client.Client) (<-chan error, string, func() error) {
				set := b.acquireSet(c, client.WithTTL(ttl))
				return set.AtRisk(), "RenewSet", set.Err
			}},
		} {
			t.Run(test.name+" "+taken.name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					c, _ := b.client()
					atRisk, method, over := taken.take(b, c)
					warnings := func(when string, want int) {
						t.Helper()
						synctest.Wait()
						got := received(atRisk, func(err error) string { return err.Error() })
						if len(got) != want {
							t.Errorf("%s: warned of %q, want %d warnings", when, got, want)
						}
						for _, text := range got {
							if !strings.HasPrefix(text, taken.name) || !strings.Contains(text, " is lost in 9s unless it is renewed before: ") || !strings.Contains(text, test.says) {
								t.Errorf("%s: warned of %q", when, text)
							}
						}
					}
					renewed := func() time.Time {
						for before := len(b.callsOf(method)); len(b.callsOf(method)) == before; time.Sleep(100 * time.Millisecond) {
							if err := over(); err != nil {
								t.Fatal(err)
							}
						}
						synctest.Wait() // for its answer
						return lastOf(b.callsOf(method))
					}
					time.Sleep(10 * time.Second)
					for range 3 {
						renewed()
						test.away(b, 22*time.Second) // and back, with the backoff, in less than 27 s
						time.Sleep(time.Minute)
						warnings("a short trouble", 0)
					}
					for range 2 {
						since := renewed()
						test.away(b, 30*time.Second)
						time.Sleep(time.Until(since.Add(27*time.Second - time.Nanosecond)))
						warnings("before three quarters", 0)
						time.Sleep(2 * time.Nanosecond)
						warnings("at three quarters", 1)
						time.Sleep(time.Minute)
						warnings("later", 0)
						if err := over(); err != nil {
							t.Fatal(err)
						}
					}
					test.away(b, time.Hour)
					time.Sleep(59 * time.Minute)
					if got := fmt.Sprint(received(atRisk, func(error) string { return "warned" })); got != "[warned closed]" || !errors.Is(over(), client.ErrLost) {
						t.Errorf("got %v and the end %v, want one warning and the end", got, over())
					}
					time.Sleep(2 * time.Minute)
				})
			})
		}
	}
}

// TestSetWarnsOnce: in one trouble, however many of its holds come to be at risk, and when.
func TestSetWarnsOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		set := b.acquireSet(c, client.WithTTL(40*time.Second))
		time.Sleep(5 * time.Second)
		if err := set.Holds()[1].Update(t.Context(), lock.Data{}); err != nil {
			t.Fatal(err)
		}
		b.stop()
		for i, want := range []string{"[]", "[db/]", "[]"} {
			time.Sleep([]time.Duration{20, 4, 6}[i] * time.Second)
			synctest.Wait()
			if got := fmt.Sprint(received(set.AtRisk(), func(err error) string { return err.Error()[:3] })); got != want {
				t.Errorf("%d: warned of %s, want %s", i, got, want)
			}
		}
		if got := received(set.Holds()[1].AtRisk(), func(error) string { return "warned" }); len(got) != 1 {
			t.Errorf("the other hold warned %d times, want once", len(got))
		}
		b.start()
	})
}

// TestAskedIsNoChange: a watch that begins anew goes on after the last change, also where
// something was asked since.
func TestAskedIsNoChange(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x")
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() {
			request := &pylokv1.WatchRequest{Pattern: "x", AfterRevision: 1, Token: uint64(hold.Token())}
			for event := range c.WatchMessages(ctx, request) {
				if event != nil {
					told = append(told, strings.ToLower(strings.TrimPrefix(event.GetType().String(), "EVENT_TYPE_")))
				}
			}
		})
		synctest.Wait()
		b.ask("x", "bob", "may I?")
		synctest.Wait()
		b.network.cut()
		time.Sleep(5 * time.Second)
		b.commit("x", lock.Updated, lock.File, "", "")
		synctest.Wait()
		cancel()
		watch.Wait()
		told = slices.DeleteFunc(told, func(s string) bool { return s == "synced" || s == "asked" })
		if fmt.Sprint(told) != "[updated]" {
			t.Errorf("got %v, want the change alone", told)
		}
	})
}

// TestNoRiskAfterSuspend: a process that did not run, and renews in time, has nothing to
// warn of.
func TestNoRiskAfterSuspend(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, clock := b.client()
		hold := b.acquire(c, "x", client.WithTTL(40*time.Second))
		b.beforeOne("Renew", func() { time.Sleep(3 * time.Second) })
		clock.suspend(28 * time.Second)
		time.Sleep(time.Minute)
		goesOn(t, hold)
		if got := received(hold.AtRisk(), func(err error) string { return err.Error() }); len(got) > 0 {
			t.Errorf("warned of %q", got)
		}
	})
}

func lastOf(times []time.Time) time.Time { return times[len(times)-1] }

// TestSharedBeside: what happens to the shared holds of a lock, of which its watch tells
// too, does not end a hold of the lock itself.
func TestSharedBeside(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		hold := b.acquire(c, "x")
		synctest.Wait()
		byHand := lock.Lock{Name: lock.MustParseName("x/_+by-hand")}
		for _, eventType := range []lock.EventType{lock.Locked, lock.Unlocked} {
			events, err := b.store.Commit(t.Context(), []lock.Change{{Type: eventType, Cause: lock.File, Prev: byHand.Revision, Lock: byHand}})
			if err != nil {
				t.Fatal(err)
			}
			byHand = events[0].Lock
			synctest.Wait()
			goesOn(t, hold)
		}
		if got := hold.Lock().Name; got != x {
			t.Errorf("the hold is now one of %v", got)
		}
	})
}

// TestAdopt: a job goes on under a hold that whoever started it has.
func TestAdopt(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.clientWith(client.Options{ReleaseAll: true})
		grant, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "alice", TTL: time.Minute, Data: mustData(t, `{"msg":"deploy"}`)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		begun := time.Now()
		hold, err := c.Adopt(t.Context(), "x", grant.Lock.Token, client.WithMargin(15*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if l := hold.Lock(); l.Token != 1 || l.TTL != time.Minute || l.Holder != "alice" || l.Data.JSON() != `{"msg":"deploy"}` || hold.LeaseLeft() != time.Minute {
			t.Errorf("got %+v with %v left", l, hold.LeaseLeft())
		}
		time.Sleep(10 * time.Minute)
		goesOn(t, hold)
		if got := b.callsOf("Renew"); len(got) < 40 || got[0] != begun || got[1] != begun.Add(15*time.Second) {
			t.Errorf("got renewals at %v", got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if got := b.held(); got != "x" {
			t.Errorf("%q is held, want x as before", got)
		}
		time.Sleep(2 * time.Minute)
		c, _ = b.client()
		if hold, err = c.Adopt(t.Context(), "x", 1); err != nil {
			t.Fatal(err)
		}
		if err := hold.Release(t.Context()); err != nil || b.held() != "" {
			t.Errorf("got %v and %q held", err, b.held())
		}
	})
}

// TestAdoptRefused: a hold that is over, or is not the caller's, is none to go on with.
func TestAdoptRefused(t *testing.T) {
	alice := lock.Caller{Name: "unix:alice"}
	for _, test := range []struct {
		name   string
		caller lock.Caller
		ttl    time.Duration
		before func(b *bubble)
		token  lock.Token
		option client.AcquireOption
		want   error // ErrLost is what it is or not
		lost   bool
	}{
		{"free", lock.Caller{}, time.Minute, func(b *bubble) { b.commit("x", lock.Unlocked, lock.Forced, "bob", "") }, 1, nil, lock.ErrNotLocked, true},
		{"another token", lock.Caller{}, time.Minute, nil, 77, nil, lock.ErrNotHolder, true},
		{"stale", lock.Caller{}, time.Minute, func(b *bubble) { b.becomeStale("x") }, 1, nil, lock.ErrNotHolder, true},
		{"another caller's", alice, time.Minute, nil, 1, nil, lock.ErrNotHolder, false},
		{"another caller's, without a ttl", alice, 0, nil, 1, nil, lock.ErrNotHolder, false},
		{"broken while it is looked at", lock.Caller{}, time.Minute, func(b *bubble) {
			b.beforeOne("Renew", func() { b.commit("x", lock.Unlocked, lock.Forced, "bob", "") })
		}, 1, nil, lock.ErrNotLocked, true},
		{"no token", lock.Caller{}, time.Minute, nil, 0, nil, lock.ErrInvalidArgument, false},
		{"a ttl", lock.Caller{}, time.Minute, nil, 1, client.WithTTL(time.Hour), lock.ErrInvalidArgument, false},
		{"a tree", lock.Caller{}, time.Minute, nil, 1, client.WithTree(), lock.ErrInvalidArgument, false},
		{"a holder", lock.Caller{}, time.Minute, nil, 1, client.WithHolder(""), lock.ErrInvalidArgument, false},
		{"too large a margin", lock.Caller{}, time.Minute, nil, 1, client.WithMargin(time.Minute), nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				if _, err := b.manager.Lock(t.Context(), test.caller, lock.LockRequest{Name: x, TTL: test.ttl}); err != nil {
					t.Fatal(err)
				}
				if test.before != nil {
					test.before(b)
				}
				c, _ := b.client()
				var options []client.AcquireOption
				if test.option != nil {
					options = append(options, test.option)
				}
				hold, err := c.Adopt(t.Context(), "x", test.token, options...)
				if err == nil || hold != nil || test.want != nil && !errors.Is(err, test.want) || errors.Is(err, client.ErrLost) != test.lost {
					t.Errorf("got %v, want %v, and lost %v", err, test.want, test.lost)
				}
				t.Log(err)
			})
		})
	}
	t.Run("without a ttl", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			if _, err := b.manager.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: x}); err != nil {
				t.Fatal(err)
			}
			c, _ := b.client()
			hold, err := c.Adopt(t.Context(), "x", 1)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			goesOn(t, hold)
			b.commit("x", lock.Unlocked, lock.Forced, "bob", "")
			synctest.Wait()
			isLost(t, hold)
		})
	})
}

// TestReleaseAll: Close releases what has been taken and not been released, in bounded time.
func TestReleaseAll(t *testing.T) {
	for _, all := range []bool{true, false} {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.clientWith(client.Options{ReleaseAll: all})
			for i := range 50 {
				b.acquire(c, fmt.Sprint("n/", i))
			}
			b.acquireSet(c)
			if err := b.acquire(c, "released").Release(t.Context()); err != nil {
				t.Error(err)
			}
			b.acquire(c, "lost")
			synctest.Wait()
			b.commit("lost", lock.Unlocked, lock.Forced, "bob", "")
			synctest.Wait()
			if want := 51; all && c.Kept() != want {
				t.Errorf("%d are kept to be released, want %d", c.Kept(), want)
			}
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if got := b.held(); (got == "") != all {
				t.Errorf("ReleaseAll %v: held after Close: %q", all, got)
			}
			if unlocks := len(b.callsOf("Unlock")); all && unlocks != 51 {
				t.Errorf("got %d calls of Unlock, want one for each hold", unlocks)
			}
			if c.Kept() != 0 {
				t.Errorf("%d are still kept", c.Kept())
			}
			c.Close()
		})
	}
	t.Run("without a server", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.clientWith(client.Options{ReleaseAll: true})
			for i := range 100 {
				b.acquire(c, fmt.Sprint("n/", i), client.WithTTL(0))
			}
			b.network.silence()
			begun := time.Now()
			err := c.Close()
			if took := time.Since(begun); err == nil || took > 5*time.Second {
				t.Errorf("got %v after %v, want an error after at most 5 s", err, took)
			}
			says(t, err, "n/77 may stay locked: ")
			b.network.cut()
			time.Sleep(time.Minute)
		})
	})
	t.Run("while a lock is taken", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.clientWith(client.Options{ReleaseAll: true})
			b.acquire(c, "first")
			inUnlock := make(chan struct{})
			b.beforeOne("Unlock", func() { close(inUnlock); time.Sleep(time.Second) })
			go c.Close()
			<-inUnlock
			for what, take := range takers {
				if err := take(t.Context(), c, 0); err == nil && (what == "Acquire" || what == "AcquireSet") {
					t.Errorf("%s: took a lock of a client that is closed", what)
				}
				for _, hold := range []string{"x"} { // of Lock and LockSet, which keep nothing
					b.manager.Unlock(context.Background(), lock.Caller{}, lock.UnlockRequest{Name: lock.MustParseName(hold), Holder: "alice"})
				}
			}
			time.Sleep(time.Minute)
			if got := b.held(); got != "" {
				t.Errorf("%s is held", got)
			}
		})
	})
}
