package client_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

var cancels = flag.Int("cancels", 200, "how many calls of Lock and of Acquire are cancelled within their round trip")

// takers are the ways to take x, each with the RPC behind it.
var takers = map[string]func(ctx context.Context, c *client.Client, wait time.Duration) error{
	"Lock": func(ctx context.Context, c *client.Client, wait time.Duration) error {
		_, err := c.Lock(ctx, lock.LockRequest{Name: x, Holder: "alice", Wait: wait})
		return err
	},
	"Acquire": func(ctx context.Context, c *client.Client, wait time.Duration) error {
		hold, err := c.Acquire(ctx, "x", client.WithTTL(0), client.WithHolder("alice"), client.WithWait(wait))
		if err != nil {
			return err
		}
		return hold.Release(ctx)
	},
	"Lock of a tree": func(ctx context.Context, c *client.Client, wait time.Duration) error {
		_, err := c.Lock(ctx, lock.LockRequest{Name: x, Holder: "alice", Wait: wait, Tree: true})
		return err
	},
	"Lock to keep": func(ctx context.Context, c *client.Client, wait time.Duration) error {
		_, err := c.Lock(ctx, lock.LockRequest{Name: x, Holder: "alice", Wait: wait, TTL: time.Hour, OnExpiry: lock.Keep})
		return err
	},
	"LockSet": func(ctx context.Context, c *client.Client, wait time.Duration) error {
		_, err := c.LockSet(ctx, lock.SetRequest{Names: []lock.Name{x}, Holder: "alice", Wait: wait})
		return err
	},
	"AcquireSet": func(ctx context.Context, c *client.Client, wait time.Duration) error {
		set, err := c.AcquireSet(ctx, []string{"x"}, client.WithTTL(0), client.WithHolder("alice"), client.WithWait(wait))
		if err != nil {
			return err
		}
		return set.Release(ctx)
	},
	"AcquireSet of a choice": func(ctx context.Context, c *client.Client, wait time.Duration) error {
		set, err := c.AcquireSet(ctx, nil, client.WithChoice(1, "x"), client.WithTTL(0), client.WithHolder("alice"), client.WithWait(wait))
		if err != nil {
			return err
		}
		return set.Release(ctx)
	},
}

// methodOf returns the RPC behind a taker.
func methodOf(taker string) string {
	if strings.Contains(taker, "Set") {
		return "LockSet"
	}
	return "Lock"
}

// TestCancelledAtTheGrant: who leaves when the lock has been granted, and before the
// answer comes, leaves nothing behind.
func TestCancelledAtTheGrant(t *testing.T) {
	for name, take := range takers {
		for _, test := range []struct {
			name string
			end  func(b *bubble, cancel func()) // the call, when it has been carried out
			want error
		}{
			{"cancelled", func(_ *bubble, cancel func()) { cancel(); time.Sleep(time.Second) }, context.Canceled},
			{"out of time", func(*bubble, func()) { time.Sleep(time.Hour) }, context.DeadlineExceeded},
			{"cancelled and cut off", func(b *bubble, cancel func()) { b.network.cut(); cancel() }, context.Canceled},
			{"cut off and out of time", func(b *bubble, _ func()) {
				b.network.listener.Store(nil)
				b.network.cut()
				time.AfterFunc(7*time.Second, func() { b.network.listener.Store(b.listener) })
			}, context.DeadlineExceeded},
		} {
			t.Run(name+" "+test.name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					c, _ := b.client()
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					b.afterOne(methodOf(name), func() {
						time.Sleep(25 * time.Second)
						test.end(b, cancel)
					})
					err := take(ctx, c, 0)
					if !errors.Is(err, test.want) || errors.Is(err, lock.ErrOutcomeUnknown) {
						t.Errorf("got %v, want %v", err, test.want)
					}
					time.Sleep(2 * time.Hour) // for the handler
					if l, err := b.manager.Status(t.Context(), lock.Caller{}, x); err != nil || l.Held() {
						t.Errorf("got %+v, %v; want it free", l, err)
					}
					want := []string{"1 locked request x", "2 unlocked request x"}
					if got := b.events(); !slices.Equal(got, want) {
						t.Errorf("got the events %q, want %q", got, want)
					}
				})
			})
		}
		t.Run(name+" in line", func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				c, _ := b.client()
				held, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "bob"})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				b.afterOne(methodOf(name), func() { cancel(); time.Sleep(time.Second) })
				time.AfterFunc(time.Minute, func() {
					if _, err := b.manager.Unlock(context.Background(), lock.Caller{}, lock.UnlockRequest{Name: x, Token: held.Lock.Token}); err != nil {
						t.Error(err)
					}
				})
				if err := take(ctx, c, time.Hour); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want the end of the context", err)
				}
				time.Sleep(time.Minute)
				if l, err := b.manager.Status(t.Context(), lock.Caller{}, x); err != nil || l.Held() || l.Waiters > 0 {
					t.Errorf("got %+v, %v; want it free", l, err)
				}
			})
		})
	}
}

// TestCancelledAndNotGranted: asking what became of a request takes no lock, neither a
// free one nor somebody else's.
func TestCancelledAndNotGranted(t *testing.T) {
	for name, take := range takers {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " held ", held), func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					c, _ := b.client()
					var want []string
					if held {
						if _, err := c.Lock(t.Context(), lock.LockRequest{Name: x, Holder: "alice"}); err != nil {
							t.Fatal(err)
						}
						want = b.events()
					}
					ctx, cancel := context.WithCancel(t.Context())
					b.beforeOne(methodOf(name), func() { cancel(); time.Sleep(time.Second) })
					if err := take(ctx, c, time.Hour); !errors.Is(err, context.Canceled) {
						t.Errorf("got %v, want the end of the context", err)
					}
					time.Sleep(time.Minute)
					if got := b.events(); !slices.Equal(got, want) {
						t.Errorf("got the events %q, want %q", got, want)
					}
				})
			})
		}
	}
	t.Run("never sent", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for name, take := range takers {
				if err := take(ctx, c, 0); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: got %v, want the end of the context", name, err)
				}
			}
			if len(b.calls) > 0 {
				t.Errorf("got the calls %v, want none", b.calls)
			}
		})
	})
}

// TestOutcomeStaysUnknown: where nobody can be asked what became of a request, the
// error says so, and by which request id it can be asked later.
func TestOutcomeStaysUnknown(t *testing.T) {
	for _, test := range []struct {
		name   string
		cancel bool
		lose   func(b *bubble)
		within time.Duration
		says   string
	}{
		{"cancelled, and the server silent", true, func(b *bubble) { b.network.silence() }, 5 * time.Second, "context canceled"},
		{"cancelled, and the server silent when it is to give it back", true, func(b *bubble) {
			b.beforeCalls(func(method string) error {
				switch method {
				case "Lock":
					time.Sleep(4 * time.Second)
				case "Unlock":
					time.Sleep(20 * time.Second)
					return errors.New("too late")
				}
				return nil
			})
		}, 5 * time.Second, "context canceled"},
		{"the server gone", false, func(b *bubble) { b.network.listener.Store(nil); b.network.cut() }, 10 * time.Second, "lost the connection"},
		{"the disk of the server failing", false, func(b *bubble) {
			b.beforeCalls(func(string) error {
				return refusal(t, codes.Unavailable, "the sync failed", reason("OUTCOME_UNKNOWN")).Err()
			})
			b.network.cut()
		}, 10 * time.Second, "the sync failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				c, _ := b.client()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				b.afterOne("Lock", func() {
					test.lose(b)
					if test.cancel {
						cancel()
						synctest.Wait() // the caller leaves before the answer comes
					}
				})
				begun := time.Now()
				_, err := c.Lock(ctx, lock.LockRequest{Name: x, RequestID: "mine"})
				if took := time.Since(begun); took > test.within {
					t.Errorf("it took %v", took)
				}
				unknown, ok := errors.AsType[*client.OutcomeUnknownError](err)
				if !ok || unknown.Name != x || unknown.RequestID != "mine" || !errors.Is(err, lock.ErrOutcomeUnknown) {
					t.Fatalf("got %v, want an OutcomeUnknownError of x and mine", err)
				}
				says(t, err, "x may be locked")
				says(t, err, `"mine"`)
				says(t, err, test.says)
				if test.cancel && !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want one that is Canceled too", err)
				}
				b.network.cut()
				b.network.listener.Store(b.listener)
				b.beforeCalls(nil)
				other, _ := b.client()
				grant, err := other.Lock(t.Context(), lock.LockRequest{Name: x, RequestID: unknown.RequestID})
				if err != nil || grant.Lock.Token != 1 {
					t.Errorf("asked again: got %+v, %v; want token 1", grant.Lock, err)
				}
				time.Sleep(time.Minute) // for the handlers
			})
		})
	}
	t.Run("a fault in the server", func(t *testing.T) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			b.afterCalls(func(method string) error {
				if method == "Lock" {
					b.afterCalls(nil)
					return refusal(t, codes.Internal, "internal error").Err()
				}
				return nil
			})
			if err := takers["Lock"](t.Context(), c, 0); err == nil || errors.Is(err, lock.ErrOutcomeUnknown) {
				t.Errorf("got %v, want the fault", err)
			}
			if l, err := b.manager.Status(t.Context(), lock.Caller{}, x); err != nil || l.Held() {
				t.Errorf("got %+v, %v; want it free", l, err)
			}
		})
	})
}

// TestCancelledWithinTheRoundTrip: over TCP, with lock files, at any moment.
func TestCancelledWithinTheRoundTrip(t *testing.T) {
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
	c, err := client.Dial(address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	begun := time.Now()
	for range 10 {
		if err := takers["Lock"](t.Context(), c, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: x, Holder: "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	roundTrip := time.Since(begun) / 20
	for _, name := range []string{"Lock", "Acquire", "LockSet", "AcquireSet of a choice"} {
		take := takers[name]
		cancelled, left := 0, 0
		for cancelled < *cancels {
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*roundTrip))
			err := take(ctx, c, 0)
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				if _, unreachable := errors.AsType[*client.UnreachableError](err); !unreachable {
					t.Fatal(err)
				}
			}
			if err != nil {
				cancelled++
			} else if strings.HasPrefix(name, "Acquire") {
				continue // and released
			}
			next := lock.LockRequest{Name: x}
			if err != nil {
				next.Wait = 10 * time.Second // the server may still be undoing it
			}
			grant, granted := manager.Lock(t.Context(), lock.Caller{}, next)
			if held, ok := errors.AsType[*lock.Error](granted); ok {
				if err != nil {
					left++
				}
				grant.Lock = *held.Lock
			}
			if _, err := manager.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: x, Token: grant.Lock.Token}); err != nil {
				t.Fatal(err)
			}
		}
		if left > 0 {
			t.Errorf("%s: %d of %d that were cancelled left the lock held", name, left, cancelled)
		}
	}
}
