package access_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pylok/pylok/lock"
)

// TestGuardModel: under random rules, lists, histories in both orders and watches that go on
// over changes of the rules have what is left of the unguarded ones when each lock is asked
// for by itself.
func TestGuardModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { guardModel(t, rand.New(rand.NewPCG(seed, 14))) })
		})
	}
}

var modelPatterns = []string{"", "**", "*", "*/*", "a/**", "a/*", "a*/**", "**/1", "**/b/**", "*b/1", "b/**/1", "a/1", "b/b/1", "c"}

func guardModel(t *testing.T, random *rand.Rand) {
	pick := func(of []string) string { return of[random.IntN(len(of))] }
	rules := func() (text string) {
		for range random.IntN(4) {
			text += fmt.Sprintf("  - {who: [%q], may: [%s], locks: [%q]}\n", pick([]string{"*", "token:ci", "group:ci", "anonymous"}), pick([]string{"view", "lock", "break", "freeze"}), pick(modelPatterns[1:]))
		}
		return text + "  - {who: [anonymous], may: [view], locks: [\"zz\"]}\n" // lest there be none
	}
	g := newGuarded(t, rules(), &noteInMemory{})
	ctx, ci := g.ci()
	sees := func(name lock.Name) bool {
		_, err := g.Guard.Status(ctx, ci, name)
		return err == nil
	}
	change := func() {
		var name string
		for range 1 + random.IntN(3) {
			name += "/" + pick([]string{"a", "b", "c", "1", "ab"})
		}
		n := lock.MustParseName(name[1:])
		root := lock.Caller{Name: "unix:root"}
		var err error
		if g.status(n).Held() {
			_, err = g.inner.Unlock(t.Context(), root, lock.UnlockRequest{Name: n, Force: true, Reason: "x"})
		} else {
			_, err = g.inner.Lock(t.Context(), root, lock.LockRequest{Name: n, Holder: "root"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 40 {
		change()
	}

	pattern := lock.MustParsePattern(pick(modelPatterns))
	wasVisible := !pattern.IsName() || sees(lock.MustParseName(pattern.String()))
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched, watchedNow, watchErr := map[string]uint64{}, false, error(nil)
	go func() {
		for e, err := range g.Watch(watching, ci, lock.WatchRequest{Pattern: pattern}) {
			switch {
			case err != nil:
				watchErr = err
			case e.Type == lock.Reset:
				clear(watched)
			case e.Type == lock.Synced:
				watchedNow = true
			case e.Type == lock.Locked:
				watched[e.Lock.Name.String()] = uint64(e.Lock.Token)
			case e.Type == lock.Unlocked || e.Lock.Held() == false:
				delete(watched, e.Lock.Name.String())
			}
		}
	}()
	synctest.Wait() // the watch has begun
	for range 6 {
		if random.IntN(2) == 0 {
			g.change(rules())
		}
		for range 10 {
			change()
		}
		synctest.Wait()
		for _, text := range modelPatterns {
			p := lock.MustParsePattern(text)
			checkModel(t, g, p, sees, 1+random.IntN(5))
		}
		if pattern.IsName() {
			visible := sees(lock.MustParseName(pattern.String()))
			wasVisible = wasVisible && visible
			if !wasVisible {
				if !errors.Is(watchErr, lock.ErrPermissionDenied) {
					t.Fatalf("watch of %s: %v", pattern, watchErr)
				}
				return
			}
		}
		if watchErr != nil {
			t.Fatal(watchErr)
		}
		want := map[string]uint64{}
		all, _, _, err := g.inner.List(t.Context(), lock.Caller{}, pattern, lock.Name{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			if sees(l.Name) {
				want[l.Name.String()] = uint64(l.Token)
			}
		}
		if !watchedNow || fmt.Sprint(watched) != fmt.Sprint(want) {
			t.Fatalf("watch of %q knows %v, want %v", pattern, watched, want)
		}
	}
}

func checkModel(t *testing.T, g *guarded, p lock.Pattern, sees func(lock.Name) bool, page int) {
	t.Helper()
	ctx, ci := g.ci()
	denied := p.IsName() && !sees(lock.MustParseName(p.String()))
	list := func(l lock.Locks, limit int) (out []string, err error) {
		for after, more := (lock.Name{}), true; more; {
			var locks []lock.Lock
			if locks, _, more, err = l.List(ctx, ci, p, after, limit); err != nil {
				return out, err
			}
			for _, l := range locks {
				after = l.Name
				if sees(l.Name) {
					out = append(out, fmt.Sprint(l.Name, l.Token))
				} else if limit != 1000 {
					t.Fatalf("list of %q has %s", p, l.Name)
				}
			}
		}
		return out, nil
	}
	history := func(l lock.Locks, limit int, newest bool) (out []string, err error) {
		for from, more := lock.Revision(0), true; more; {
			h, err := l.History(ctx, ci, lock.HistoryQuery{Pattern: p, NewestFirst: newest}, from, limit)
			if err != nil {
				return out, err
			}
			for _, e := range h.Events {
				if sees(e.Lock.Name) {
					out = append(out, fmt.Sprint(e.Revision, e.Type, e.Lock.Name, e.Actor))
				} else if limit != 1000 {
					t.Fatalf("history of %q has %s", p, e.Lock.Name)
				}
			}
			from, more = h.Next, h.Next != 0
		}
		return out, nil
	}
	got, err := list(g.Guard, page)
	if denied != errors.Is(err, lock.ErrPermissionDenied) || err != nil && !denied {
		t.Fatalf("list of %q: %v, denied %t", p, err, denied)
	}
	if want, _ := list(g.inner, 1000); !denied && !slices.Equal(got, want) {
		t.Fatalf("list of %q: %s, want %s", p, strings.Join(got, " "), strings.Join(want, " "))
	}
	for _, newest := range []bool{false, true} {
		got, err := history(g.Guard, page, newest)
		if denied != errors.Is(err, lock.ErrPermissionDenied) || err != nil && !denied {
			t.Fatalf("history of %q: %v, denied %t", p, err, denied)
		}
		if want, _ := history(g.inner, 1000, newest); !denied && !slices.Equal(got, want) {
			t.Fatalf("history of %q: %q, want %q", p, got, want)
		}
	}
}
