package lease

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// stoppedClock is a boot clock that a test sets.
type stoppedClock time.Duration

func (c *stoppedClock) now() time.Duration { return time.Duration(*c) }

func held(name string, revision lock.Revision, ttl time.Duration) lock.Lock {
	return lock.Lock{Name: lock.MustParseName(name), Token: lock.Token(revision), Revision: revision, TTL: ttl}
}

// endedNames takes the names of the leases whose end has come.
func (lt *Table) endedNames() (names []string) {
	ended, _ := lt.takeDue()
	for _, l := range ended {
		names = append(names, l.Name.String())
	}
	return names
}

// check checks that heaps and map agree.
func (lt *Table) check(t *testing.T) {
	t.Helper()
	for _, h := range []leaseHeap{lt.boot, lt.wall} {
		for i, l := range h {
			if l.index != i {
				t.Fatalf("the lease of %v is at %d and has index %d", l.Name, i, l.index)
			}
			if lt.byName[l.Name] != l {
				t.Fatalf("the lease of %v is in a heap and not in the map", l.Name)
			}
			if i > 0 && l.end < h[(i-1)/2].end {
				t.Fatalf("the lease of %v, at %d, ends before its parent", l.Name, i)
			}
		}
	}
}

// TestLeaseTableIsAHeap goes through random steps and compares with a map.
func TestLeaseTableIsAHeap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var clock stoppedClock
	lt := NewTable(clock.now)
	type state struct {
		lock.Lock
		end time.Duration
	}
	want := map[string]state{}
	revision := lock.Revision(0)
	for range 20_000 {
		name := fmt.Sprint("n", random.IntN(50))
		ttl := time.Duration(1+random.IntN(1000)) * time.Second
		revision++
		switch s, exists := want[name]; random.IntN(6) {
		case 0, 1: // a new hold
			l := held(name, revision, ttl)
			lt.Observe(l)
			want[name] = state{l, clock.now() + ttl}
		case 2: // renewed, perhaps by other terms
			if exists {
				if random.IntN(2) == 0 {
					s.TTL = ttl
				}
				lt.Renew(s.Lock)
				want[name] = state{s.Lock, clock.now() + s.TTL}
			}
		case 3: // a hold without a lease, or by wall time
			l := held(name, revision, 0)
			if random.IntN(2) == 0 {
				l.ExpireTime = time.Now().Add(time.Hour)
			}
			lt.Observe(l)
			delete(want, name)
		case 4: // over
			lt.Drop(s.Name, s.Token)
			delete(want, name)
		case 5:
			clock += stoppedClock(random.IntN(100)) * stoppedClock(time.Second)
			ended, next := lt.takeDue()
			for _, l := range ended {
				s, exists := want[l.Name.String()]
				if !exists || s.end > clock.now() || l.end != s.end {
					t.Fatalf("the lease of %v ended with end %v at %v; want %+v", l.Name, l.end, clock.now(), s)
				}
				if random.IntN(2) == 0 {
					lt.Drop(l.Name, l.Token)
					delete(want, l.Name.String())
				} else {
					lt.retry(l) // could not be ended
				}
			}
			for name, s := range want {
				if s.end <= clock.now() && !lt.Due(s.Lock) {
					t.Fatalf("the lease of %s should have ended at %v and is not due at %v", name, s.end, clock.now())
				}
				if s.end > clock.now() && (lt.Due(s.Lock) || next < 0 || clock.now()+next > s.end) {
					t.Fatalf("the lease of %s ends at %v: due %v at %v, next look in %v", name, s.end, lt.Due(s.Lock), clock.now(), next)
				}
			}
		}
		lt.check(t)
		if len(lt.boot) != len(want) {
			t.Fatalf("%d leases run, want %d", len(lt.boot), len(want))
		}
	}
}

// What is heard late changes nothing that is known already.
func TestLeaseTableHearsLate(t *testing.T) {
	name := lock.MustParseName("a")
	hold := held("a", 5, 10*time.Second)
	extended := hold
	extended.TTL = time.Minute
	updated := extended
	updated.Revision = 6
	free := lock.Lock{Name: name}
	endless := updated
	endless.TTL = 0
	tests := []struct {
		name string
		do   func(lt *Table)
		hold lock.Lock
		end  time.Duration // 0: no lease
	}{
		{"the grant", func(lt *Table) { lt.Observe(hold) }, hold, 10 * time.Second},
		{"the grant again", func(lt *Table) { lt.Observe(hold); lt.Observe(hold) }, hold, 10 * time.Second},
		{"the grant after it was extended", func(lt *Table) { lt.Observe(hold); lt.Renew(extended); lt.Observe(hold) }, extended, time.Minute},
		{"the grant after an update", func(lt *Table) { lt.Observe(hold); lt.Renew(updated); lt.Observe(hold); lt.Observe(updated) }, updated, time.Minute},
		{"an update by others", func(lt *Table) { lt.Observe(hold); lt.Observe(updated) }, updated, time.Minute},
		{"the grant after it was dropped, then its end", func(lt *Table) {
			lt.Observe(hold)
			lt.Drop(name, 5)
			lt.Observe(hold)
			lt.Drop(name, 5)
		}, free, 0},
		{"the end of an earlier hold", func(lt *Table) { lt.Observe(hold); lt.Drop(name, 4) }, hold, 10 * time.Second},
		{"a renewal of an earlier hold", func(lt *Table) {
			lt.Observe(hold)
			lt.Renew(held("a", 4, time.Hour))
		}, hold, 10 * time.Second},
		{"an update that takes the lease away", func(lt *Table) { lt.Observe(hold); lt.Observe(endless) }, endless, 0},
	}
	for _, test := range tests {
		var clock stoppedClock
		lt := NewTable(clock.now)
		test.do(lt)
		lt.check(t)
		have := lt.byName[name]
		if (have == nil) != (test.end == 0) {
			t.Errorf("%s: the lease is %+v, want one that ends at %v", test.name, have, test.end)
			continue
		}
		if have != nil && (have.end != test.end || have.Token != test.hold.Token || have.revision != test.hold.Revision) {
			t.Errorf("%s: the lease is %+v, want the end %v of %+v", test.name, have, test.end, test.hold)
		}
	}
}

// A lease counts only on the terms that the hold stands on: one that is left from
// what was heard late never ends a hold.
func TestLeaseTableKnowsTerms(t *testing.T) {
	var clock stoppedClock
	lt := NewTable(clock.now)
	hold := held("a", 5, 10*time.Second)
	lt.Observe(hold)
	clock = stoppedClock(time.Minute)
	if !lt.Due(hold) {
		t.Error("the lease is not due")
	}
	other := hold
	other.Revision, other.TTL = 6, time.Hour
	if lt.Due(other) {
		t.Error("the lease is due although the hold has other terms")
	}
	ended, _ := lt.takeDue()
	if len(ended) != 1 {
		t.Fatalf("%d leases ended, want 1", len(ended))
	}
	lt.Keep(ended[0], other)
	lt.check(t)
	if got := lt.byName[hold.Name]; got == nil || got.index < 0 || got.end != time.Minute+time.Hour {
		t.Errorf("the lease goes on as %+v, want one that ends in an hour", got)
	}
}

// A lease that was taken out because the wall clock had come to its end is not lost
// when that clock is set back.
func TestLeaseTableClockSetBack(t *testing.T) {
	var clock stoppedClock
	lt := NewTable(clock.now)
	hold := held("a", 5, 10*time.Second)
	lt.Observe(hold)
	clock = stoppedClock(10 * time.Second)
	ended, _ := lt.takeDue()
	clock = stoppedClock(9 * time.Second)
	if len(ended) != 1 || lt.Due(hold) {
		t.Fatalf("%d leases ended, due %v", len(ended), lt.Due(hold))
	}
	lt.Keep(ended[0], hold)
	lt.check(t)
	clock = stoppedClock(10 * time.Second)
	if got := lt.endedNames(); len(got) != 1 {
		t.Errorf("ended: %q, want a", got)
	}
	// Renewed meanwhile: the new lease stays alone.
	lt.Renew(hold)
	lt.Keep(ended[0], hold)
	lt.check(t)
	if len(lt.boot) != 1 {
		t.Errorf("%d leases run, want 1", len(lt.boot))
	}
}

func TestSinceEpoch(t *testing.T) {
	tests := []struct {
		time time.Time
		want time.Duration
	}{
		{time.Unix(0, 0), 0},
		{time.Unix(1, 5), time.Second + 5},
		{time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC), time.Duration(time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC).UnixNano())},
		{time.Date(2262, 4, 12, 0, 0, 0, 0, time.UTC), math.MaxInt64},
		{time.Date(2400, 1, 1, 0, 0, 0, 0, time.UTC), math.MaxInt64},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), math.MaxInt64},
	}
	for _, test := range tests {
		if got := sinceEpoch(test.time); got != test.want {
			t.Errorf("sinceEpoch(%v) = %d, want %d", test.time, got, test.want)
		}
	}
}

func TestBoottimeGoesOn(t *testing.T) {
	first := boottime()
	if second := boottime(); first <= 0 || second < first {
		t.Errorf("the boot clock says %v and then %v", first, second)
	}
}
