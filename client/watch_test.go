package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// change makes n changes of one lock.
func (b *bubble) change(n int) {
	b.t.Helper()
	for range n {
		l, err := b.manager.Status(b.t.Context(), lock.Caller{}, x)
		if err == nil && l.Held() {
			_, err = b.manager.Renew(b.t.Context(), lock.Caller{}, lock.RenewRequest{Name: x, Token: l.Token, Data: new(lock.Data)})
		} else if err == nil {
			_, err = b.manager.Lock(b.t.Context(), lock.Caller{}, lock.LockRequest{Name: x})
		}
		if err != nil {
			b.t.Error(err)
		}
	}
}

// TestWatchResumes: over connections that break, and restarts, a watch tells every
// change once and in order.
func TestWatchResumes(t *testing.T) {
	for seed := range uint64(5) {
		inBubble(t, func(t *testing.T, b *bubble) {
			c, _ := b.client()
			random := rand.New(rand.NewPCG(seed, 1))
			const changes = 2000
			b.change(1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for made := 1; made < changes; {
					n := min(1+random.IntN(50), changes-made)
					b.change(n)
					made += n
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
					switch random.IntN(10) {
					case 0:
						b.stop()
						b.start()
					case 1:
						go b.network.cut() // while changes are made
					}
				}
			}()
			var got []lock.Revision
			for e, err := range c.Watch(t.Context(), "x", 1) {
				if err != nil {
					t.Error(err)
					break
				}
				if e.Type == lock.Updated {
					got = append(got, e.Revision)
				} else if e.Type != lock.Synced {
					t.Errorf("got %+v", e)
				}
				if e.Revision == changes {
					break
				}
			}
			<-done
			for i, revision := range got {
				if revision != lock.Revision(i+2) {
					t.Fatalf("event %d has revision %d, want %d", i, revision, i+2)
				}
			}
			if len(got) != changes-1 {
				t.Errorf("got %d events, want %d", len(got), changes-1)
			}
			t.Logf("%d streams", len(b.callsOf("Watch")))
		})
	}
}

// TestWatchFromNow: it begins with the present state, and after a break goes on from
// the Synced.
func TestWatchFromNow(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		b.change(3)
		got := b.watch(c, 0)
		synctest.Wait()
		b.network.cut()
		time.Sleep(time.Second)
		b.change(1)
		want := []string{"reset 0", "locked 3", "synced 3", "synced 3", "updated 4"}
		got.are(t, want...)

		// The server forgets: the state again.
		b.stop()
		b.forget()
		b.start()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := got.list()[len(want):]; len(got) != 3 || got[0] != "reset 0" || got[1] != "locked 4" {
			t.Errorf("got %q, want the state again", got)
		}
	})
}

// TestWatchBreaksInReset: between Reset and Synced there is no going on, the state is
// told again from its beginning.
func TestWatchBreaksInReset(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		const n = 1000 // of 4 kB each: four times as much as is ever on the way
		text := mustData(t, `{"msg":"`+strings.Repeat("m", 4000)+`"}`)
		for i := range n {
			if _, err := b.manager.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: lock.MustParseName(fmt.Sprint("n/", i)), Data: text}); err != nil {
				t.Fatal(err)
			}
		}
		held := map[lock.Name]bool{}
		resets, locked := 0, 0
		for e, err := range c.Watch(t.Context(), "", 0) {
			if err != nil {
				t.Fatal(err)
			}
			switch e.Type {
			case lock.Reset:
				resets++
				clear(held)
			case lock.Locked:
				held[e.Lock.Name] = true
				if locked++; locked == 10 || locked == 500 {
					b.network.cut()
				}
			}
			if e.Type == lock.Synced {
				break
			}
		}
		if resets != 3 || len(held) != n {
			t.Errorf("got %d resets and %d held locks, want 3 and %d", resets, len(held), n)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		last := func(ctx context.Context, pattern string) error {
			var last error
			for e, err := range c.Watch(ctx, pattern, 0) {
				if last != nil {
					t.Errorf("after the error: %+v, %v", e, err)
				}
				last = err
			}
			return last
		}
		b.stop()
		if _, ok := errors.AsType[*client.UnreachableError](last(t.Context(), "")); !ok {
			t.Error("a server that was never there is waited for")
		}
		b.start()
		time.Sleep(5 * time.Second)
		if err := last(t.Context(), "***"); !errors.Is(err, lock.ErrInvalidArgument) {
			t.Errorf("got %v, want INVALID_ARGUMENT", err)
		}
		for _, away := range []bool{false, true} {
			if away {
				b.stop()
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			begun := time.Now()
			if err := last(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the end of the context", err)
			}
			if took := time.Since(begun); took != time.Hour {
				t.Errorf("it took %v, want an hour", took)
			}
			cancel()
		}
		b.start()
		time.Sleep(5 * time.Second)
		time.AfterFunc(time.Minute, func() { c.Close() })
		if err := last(t.Context(), ""); err == nil {
			t.Error("a closed client watches on")
		}
	})
	inBubble(t, func(t *testing.T, b *bubble) {
		for i, code := range []codes.Code{codes.Internal, codes.Unavailable} { // as of a proxy without a server
			b.noWatch = refusal(t, code, "no server").Err()
			c, _ := b.client()
			for _, err := range c.Watch(t.Context(), "", 0) {
				says(t, err, "no server")
			}
			if got := len(b.callsOf("Watch")); got != i+1 {
				t.Errorf("%v: got %d streams, want %d", code, got, i+1)
			}
		}
	})
}

// TestWatchCannotRead: a lock that this client cannot read, as one of a later server, ends
// the watch: it would be told again and again.
func TestWatchCannotRead(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.noWatch = refusal(t, codes.Unavailable, "away").Err()
		b.watchTells = []*pylokv1.Event{
			{Type: pylokv1.EventType_EVENT_TYPE_SYNCED, Revision: 1},
			{Type: pylokv1.EventType_EVENT_TYPE_LOCKED, Revision: 2, Lock: &pylokv1.Lock{Name: "../x"}},
		}
		c, _ := b.client()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var last error
		for _, last = range c.Watch(ctx, "", 0) {
		}
		if last == nil {
			t.Fatal("it ended without an error")
		}
		says(t, last, "the server sent a lock that cannot be")
	})
}

// watched is what a watch in the background has told.
type watched struct{ lines chan []string }

// watch watches in the background until the test ends.
func (b *bubble) watch(c *client.Client, after lock.Revision) *watched {
	w := &watched{make(chan []string, 1)}
	w.lines <- nil
	go func() {
		for e, err := range c.Watch(b.t.Context(), "x", after) {
			if err != nil {
				return
			}
			w.lines <- append(<-w.lines, fmt.Sprintf("%v %d", e.Type, e.Revision))
		}
	}()
	return w
}

func (w *watched) list() []string {
	lines := <-w.lines
	w.lines <- lines
	return slices.Clone(lines)
}

// are checks what has been told so far.
func (w *watched) are(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := w.list(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
