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
	texts := []string{"", "*", "**", "a", "lb/a", "lb/*", "lb/**", "lb/*/a", "l*", "**/a", "**/b", "lb/a*", "lb/ab", "z", "lb/a/_+1", "lb/a/_*"}
	names := []string{"a", "b", "z", "lb/a", "lb/b", "lb/ab", "lb/x/a", "lb/x/b", "lb/x/y/a", "a/_+1", "lb/a/_+1", "lb/a/_+by-hand", "lb/a/_+1/_+2", "lb/a/x", "lb/a/_+1/x", "lb/_+1", "_+1"}
	some := lock.NewFilter(func(name string) bool { return len(name)%2 == 0 })
	var patterns []lock.Pattern
	for _, text := range texts {
		p := lock.MustParsePattern(text)
		patterns = append(patterns, p, p.Where(some))
		if p.IsOne() {
			patterns = append(patterns, p.WithSlots(), p.WithSlots().Where(some))
		}
	}
	a := newAudience()
	for i, name := range names {
		revision := lock.Revision(i + 1)
		groups := make(map[lock.Pattern]*group)
		for _, p := range patterns {
			groups[p] = a.join(p)
		}
		a.wake(lock.Event{Revision: revision, Lock: lock.Lock{Name: lock.MustParseName(name)}})
		var woken, want []lock.Pattern
		for _, p := range patterns {
			if p.Match(lock.MustParseName(name)) {
				want = append(want, p)
			}
			if groups[p].first == revision {
				woken = append(woken, p)
			} else {
				a.leave(groups[p])
			}
		}
		if !slices.Equal(woken, want) {
			t.Errorf("%s woke %+v, want %+v", name, woken, want)
		}
		if len(a.groups) > 0 || len(a.names) > 0 || len(a.prefixes) > 0 || slices.Max(a.lengths[:]) > 0 || slices.Min(a.lengths[:]) < 0 {
			t.Errorf("when all have left there are %d groups, %d names and %d prefixes", len(a.groups), len(a.names), len(a.prefixes))
		}
	}
}

// BenchmarkAppendBesideOthers appends events of one name while readers wait for other
// names, each its own: the cost is to be the same with 10 as with 10,000, but for patterns
// that all begin with a star.
func BenchmarkAppendBesideOthers(b *testing.B) {
	for _, others := range []int{0, 10, 10_000} {
		for _, form := range []string{"name", "slots", "filtered", "prefix", "suffix"} {
			b.Run(fmt.Sprintf("%s/others=%d", form, others), func(b *testing.B) {
				f := New(0, Config{})
				defer f.Close()
				filter := lock.NewFilter(func(string) bool { return true })
				for i := range others {
					pattern := fmt.Sprintf("other/%d", i)
					switch form {
					case "prefix":
						pattern += "/*"
					case "suffix": // each is matched
						pattern = "**/" + pattern
					}
					p := lock.MustParsePattern(pattern)
					switch form {
					case "slots":
						p = p.WithSlots()
					case "filtered":
						p = p.Where(filter)
					}
					go f.Events(context.Background(), p, 0, time.Hour)
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
