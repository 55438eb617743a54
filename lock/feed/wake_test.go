package feed

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// An event wakes the groups whose patterns select it, and no others.
func TestWake(t *testing.T) {
	patterns := []string{"", "*", "**", "a", "lb/a", "lb/*", "lb/**", "lb/*/a", "l*", "**/a", "**/b", "lb/a*", "lb/ab", "z"}
	names := []string{"a", "b", "z", "lb/a", "lb/b", "lb/ab", "lb/x/a", "lb/x/b", "lb/x/y/a"}
	a := newAudience()
	for i, name := range names {
		revision := lock.Revision(i + 1)
		groups := make(map[string]*group)
		for _, p := range patterns {
			groups[p] = a.join(lock.MustParsePattern(p))
		}
		a.wake(lock.Event{Revision: revision, Lock: lock.Lock{Name: lock.MustParseName(name)}})
		var woken, want []string
		for _, p := range patterns {
			if lock.MustParsePattern(p).Match(lock.MustParseName(name)) {
				want = append(want, p)
			}
			if groups[p].first == revision {
				woken = append(woken, p)
			} else {
				a.leave(groups[p])
			}
		}
		if !slices.Equal(woken, want) {
			t.Errorf("%s woke %q, want %q", name, woken, want)
		}
		if len(a.groups) > 0 || len(a.prefixes) > 0 || slices.Max(a.lengths[:]) > 0 || slices.Min(a.lengths[:]) < 0 {
			t.Errorf("when all have left there are %d groups and %d prefixes", len(a.groups), len(a.prefixes))
		}
	}
}

// BenchmarkAppendBesideOthers appends events of one name while readers wait for other
// names, each its own: the cost is to be the same with 10 as with 10,000, but for patterns
// that all begin with a star.
func BenchmarkAppendBesideOthers(b *testing.B) {
	for _, others := range []int{0, 10, 10_000} {
		for _, form := range []string{"name", "prefix", "suffix"} {
			b.Run(fmt.Sprintf("%s/others=%d", form, others), func(b *testing.B) {
				f := New(0, Config{})
				defer f.Close()
				for i := range others {
					pattern := fmt.Sprintf("other/%d", i)
					switch form {
					case "prefix":
						pattern += "/*"
					case "suffix": // each is matched
						pattern = "**/" + pattern
					}
					go f.Events(context.Background(), lock.MustParsePattern(pattern), 0, time.Hour)
				}
				for waiting := 0; waiting < others; runtime.Gosched() {
					f.mu.Lock()
					waiting = len(f.waiting.groups)
					f.mu.Unlock()
				}
				name := lock.MustParseName("lb/server-cluster3w1-2")
				b.ResetTimer()
				for i := range b.N {
					f.Append(nil, lock.Event{Revision: lock.Revision(i + 1), Type: lock.Locked, Lock: lock.Lock{Name: name}})
				}
			})
		}
	}
}
