package manager

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
)

// line is a queue of a Manager with waiters in it.
type line struct {
	m *Manager
	q *queue
}

// lineOf returns a line with n waiters, each with a request id.
func lineOf(t testing.TB, n int) line {
	t.Helper()
	store := memstore.New(memstore.Config{})
	m, err := New(store, Config{MaxWaiters: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); store.Close() })
	q := m.useQueues([]lock.Name{lock.MustParseName("a")})[lock.MustParseName("a")]
	<-q.sem // it is held: nobody walks over it
	l := line{m, q}
	for i := range n {
		l.join(t, lock.LockRequest{RequestID: fmt.Sprintf("request-%d", i)})
	}
	return l
}

// join has a request stand in line.
func (l line) join(t testing.TB, request lock.LockRequest) *call {
	request.Name = l.q.name
	w := &waiter{request: request, all: []*queue{l.q}}
	c := &call{waiter: w, ctx: context.Background(), deadline: time.Now().Add(time.Hour), answer: make(chan answer, 1)}
	if err := l.m.stand(c, w.all); err != nil {
		t.Fatal(err)
	}
	return c
}

// visit is all that can happen to a line: a request joins, one is sent again and leaves,
// the first is to be granted the lock and is not, the last leaves.
func visit(t testing.TB, l line, joins lock.LockRequest) {
	last := l.join(t, joins)
	again := l.join(t, joins)
	l.m.withdraw(again)
	l.m.putBack(l.m.next(l.q))
	l.m.described(lock.Lock{Name: l.q.name, Token: 1})
	l.m.withdraw(last)
	l.m.leaveLine(again)
	l.m.leaveLine(last)
}

// TestCostOfStandingInLine: what happens to a line does not take longer in a long one.
// Both are measured beside one another, and the quickest of many counts.
func TestCostOfStandingInLine(t *testing.T) {
	const rounds, visits = 50, 20
	for _, id := range []string{"", "joins"} {
		lines := []line{lineOf(t, 10), lineOf(t, 16_000)}
		quickest := []time.Duration{time.Hour, time.Hour}
		for range rounds {
			for i, line := range lines {
				began := time.Now()
				for range visits {
					visit(t, line, lock.LockRequest{RequestID: id})
				}
				quickest[i] = min(quickest[i], time.Since(began))
			}
		}
		if quickest[1] > 10*quickest[0] {
			t.Errorf("id %q: %v in a line of 10, %v in one of 16,000", id, quickest[0]/visits, quickest[1]/visits)
		}
	}
}

// BenchmarkLine measures a visit by the length of the line.
func BenchmarkLine(b *testing.B) {
	for _, n := range []int{10, 1000, 16_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			line := lineOf(b, n)
			for b.Loop() {
				visit(b, line, lock.LockRequest{RequestID: "joins"})
			}
		})
	}
}
