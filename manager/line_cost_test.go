package manager

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// lineOf returns a queue with n waiters in line, each with a request id.
func lineOf(n int) *queue {
	q := &queue{}
	for i := range n {
		q.wait(lock.Caller{}, lock.LockRequest{RequestID: fmt.Sprintf("request-%d", i)}, newCall())
	}
	return q
}

func newCall() *call {
	return &call{ctx: context.Background(), deadline: time.Now().Add(time.Hour), answer: make(chan answer, 1)}
}

// visit is all that can happen to a line: a request joins, one is sent again and leaves,
// the first is taken out and put back, the last leaves.
func visit(q *queue, joins lock.LockRequest) {
	last, again := newCall(), newCall()
	q.wait(lock.Caller{}, joins, last)
	q.wait(lock.Caller{}, joins, again)
	q.withdraw(again)
	q.putBack(q.next())
	q.waiters()
	q.withdraw(last)
}

// TestCostOfStandingInLine: what happens to a line does not take longer in a long one.
// Both are measured beside one another, and the quickest of many counts.
func TestCostOfStandingInLine(t *testing.T) {
	const rounds, visits = 50, 20
	for _, id := range []string{"", "joins"} {
		lines := []*queue{lineOf(10), lineOf(16_000)}
		quickest := []time.Duration{time.Hour, time.Hour}
		for range rounds {
			for i, line := range lines {
				began := time.Now()
				for range visits {
					visit(line, lock.LockRequest{RequestID: id})
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
			line := lineOf(n)
			for b.Loop() {
				visit(line, lock.LockRequest{RequestID: "joins"})
			}
		})
	}
}
