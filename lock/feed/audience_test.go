package feed_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/feed"
)

func eventOf(name string, revision lock.Revision) lock.Event {
	return lock.Event{Revision: revision, Type: lock.Locked, Lock: lock.Lock{Name: lock.MustParseName(name)}}
}

// Who waits is woken by the events that the pattern selects and by no others, and goes
// on from there although the feed has let go of what came before.
func TestConcernsPattern(t *testing.T) {
	for _, test := range []struct {
		pattern   string
		passes    []string
		concerned string
	}{
		{"lb/web-1", []string{"lb/web", "lb/web-12", "lb", "lb/web-1/x", "LB/web-1"}, "lb/web-1"},
		{"lb/*", []string{"lb", "lb/a/b", "lbx/a", "a/lb/b"}, "lb/web-1"},
		{"lb/**", []string{"lb", "a/lb/b"}, "lb/a/b"},
		{"lb/*/primary", []string{"lb/a/secondary", "lb/primary"}, "lb/a/primary"},
		{"**/primary", []string{"primary/a", "a/primaries"}, "a/b/primary"},
		{"*", []string{"a/b"}, "a"},
	} {
		t.Run(test.pattern, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := feed.New(0, feed.Config{Events: 4})
				defer f.Close()
				type result struct {
					events []lock.Event
					until  lock.Revision
					err    error
				}
				results := make(chan result, 1)
				go func() {
					events, until, err := f.Events(t.Context(), lock.MustParsePattern(test.pattern), 0, time.Minute)
					results <- result{events, until, err}
				}()
				synctest.Wait()
				revision := lock.Revision(0)
				for range 3 { // more than are kept
					for _, name := range test.passes {
						revision++
						f.Append(nil, eventOf(name, revision))
						synctest.Wait()
					}
				}
				if len(results) > 0 {
					t.Fatalf("woken by another name's event: %+v", <-results)
				}
				revision++
				f.Append(nil, eventOf(test.concerned, revision), eventOf("z/y/x", revision+1))
				got := <-results
				if got.err != nil || len(got.events) != 1 || got.events[0].Revision != revision || got.until != revision {
					t.Errorf("got %+v, want the event of revision %d alone", got, revision)
				}
			})
		})
	}
}

// A wait that ends without an event says up to where there was none, which is a place to
// go on from however far the feed has come.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(0, feed.Config{Events: 4})
		defer f.Close()
		web := lock.MustParsePattern("web")
		after := lock.Revision(0)
		for r := lock.Revision(1); r <= 100; r++ {
			time.AfterFunc(time.Duration(r)*time.Second-time.Millisecond, func() { f.Append(nil, eventOf("db", r)) })
		}
		for quiet := lock.Revision(10); quiet <= 100; quiet += 10 {
			events, until, err := f.Events(t.Context(), web, after, 10*time.Second)
			if err != nil || len(events) > 0 || until != quiet {
				t.Fatalf("quiet for 10 s: got %v, until %d, %v; want none until %d", events, until, err, quiet)
			}
			after = until
		}
		if events, until, err := f.Events(t.Context(), web, 98, 0); err != nil || len(events) > 0 || until != 100 {
			t.Errorf("without a wait: got %v, until %d, %v; want none until 100", events, until, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, until, err := f.Events(ctx, web, 100, time.Minute); !errors.Is(err, context.Canceled) || until != 100 {
			t.Errorf("canceled: got until %d, %v", until, err)
		}
	})
}

// A wait may end while an event comes that others still wait for.
func TestQuietAsNewsComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(0, feed.Config{})
		defer f.Close()
		web := lock.MustParsePattern("web")
		for i := range 100 {
			go func() {
				wait := time.Second
				if i%2 == 0 {
					wait = time.Minute
				}
				events, until, err := f.Events(t.Context(), web, 0, wait)
				if err != nil || int(until) != len(events) || wait > time.Second && until != 1 {
					t.Errorf("within %v: got %v, until %d, %v", wait, events, until, err)
				}
			}()
		}
		time.AfterFunc(time.Second, func() { f.Append(nil, eventOf("web", 1)) })
		time.Sleep(2 * time.Second)
	})
}
