package history

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

const ms = int64(time.Millisecond)

// at gives an operation its time, in milliseconds.
func (o operation) at(call, ret int64) *operation {
	o.call, o.ret, o.alive = call*ms, ret*ms, ret*ms
	if o.outcome == "" {
		o.outcome = done
	}
	o.id = fmt.Sprintf("o%d", call)
	if o.kind == lockOp && o.lock.token != 0 && o.outcome == done && o.lock.data == "" {
		o.lock.data = o.id
		o.lock.holder, o.lock.ttl = o.holder, o.ttl
	}
	return &o
}

// TestModel holds the model to small histories, right and wrong.
func TestModel(t *testing.T) {
	const ttl = 200 * time.Millisecond
	locks := func(token uint64) operation { return operation{kind: lockOp, holder: "a", lock: view{token: token}} }
	leases := func(token uint64) operation {
		return operation{kind: lockOp, holder: "a", ttl: ttl, lock: view{token: token}}
	}
	held := func(o operation, token uint64, data string) operation {
		o.lock = view{token: token, holder: "a", data: data, ttl: o.ttl}
		return o
	}
	unlocks := func(token uint64, data string) operation {
		return held(operation{kind: unlockOp, token: token}, token, data)
	}
	renews := func(token uint64, data string) operation {
		return operation{kind: renewOp, token: token, lock: view{token: token, holder: "a", data: data, ttl: ttl}}
	}
	refuses := func(o operation, reason string) operation {
		o.outcome, o.reason = refused, reason
		return o
	}
	free := operation{kind: statusOp}
	for _, test := range []struct {
		name    string
		want    porcupine.CheckResult
		history []*operation
	}{
		{"lock, unlock, lock", porcupine.Ok, []*operation{
			locks(1).at(1, 2), unlocks(1, "o1").at(3, 4), locks(3).at(5, 6)}},
		{"two hold", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), locks(3).at(5, 6)}},
		{"two hold at the same time, one of them released in time", porcupine.Ok, []*operation{
			locks(1).at(1, 9), locks(3).at(2, 8), unlocks(1, "o1").at(3, 7)}},
		{"tokens go back", porcupine.Illegal, []*operation{
			locks(3).at(1, 2), unlocks(3, "o1").at(3, 4), locks(1).at(5, 6)}},
		{"a stale token unlocks", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), unlocks(1, "o1").at(3, 4), locks(3).at(5, 6), unlocks(1, "o1").at(7, 8)}},
		{"a stale token is refused", porcupine.Ok, []*operation{
			locks(1).at(1, 2), unlocks(1, "o1").at(3, 4), locks(3).at(5, 6),
			refuses(held(operation{kind: unlockOp, token: 1}, 3, "o5"), "NOT_HOLDER").at(7, 8)}},
		{"the right token is refused", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), refuses(held(operation{kind: unlockOp, token: 1}, 1, "o1"), "NOT_HOLDER").at(7, 8)}},
		{"another holder unlocks", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), held(operation{kind: unlockOp, holder: "b"}, 1, "o1").at(7, 8)}},
		{"another holder breaks", porcupine.Ok, []*operation{
			locks(1).at(1, 2), held(operation{kind: unlockOp, holder: "b", force: true}, 1, "o1").at(7, 8)}},
		{"lost without a ttl", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), free.at(1000, 1001)}},
		{"expired in time", porcupine.Ok, []*operation{
			leases(1).at(1, 100), free.at(190, 201)}},
		{"expired early", porcupine.Illegal, []*operation{
			leases(1).at(1, 100), free.at(190, 200)}},
		{"not yet expired", porcupine.Ok, []*operation{
			leases(1).at(1, 100), held(operation{kind: statusOp, ttl: ttl}, 1, "o1").at(900, 901)}},
		{"a waiter's lease counted from the release before", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), leases(3).at(3, 503), unlocks(1, "o1").at(500, 501), free.at(600, 699)}},
		{"renewed, expired in time", porcupine.Ok, []*operation{
			leases(1).at(1, 2), renews(1, "o1").at(150, 152), free.at(340, 350)}},
		{"renewed, expired early", porcupine.Illegal, []*operation{
			leases(1).at(1, 2), renews(1, "o1").at(150, 152), free.at(340, 349)}},
		{"renewed too late", porcupine.Illegal, []*operation{
			leases(1).at(1, 2), renews(1, "o1").at(203, 204)}},
		{"renewed in time", porcupine.Ok, []*operation{
			leases(1).at(1, 2), renews(1, "o1").at(202, 204)}},
		{"renewed with a stale token", porcupine.Illegal, []*operation{
			leases(1).at(1, 2), leases(3).at(202, 204), renews(1, "o1").at(206, 207)}},
		{"the same request again", porcupine.Ok, []*operation{
			operation{kind: lockOp, requestID: "r", lock: view{token: 1}}.at(1, 2),
			operation{kind: lockOp, requestID: "r", lock: view{token: 1, data: "o1"}}.at(3, 4)}},
		{"another request gets the same hold", porcupine.Illegal, []*operation{
			operation{kind: lockOp, requestID: "r", lock: view{token: 1}}.at(1, 2),
			operation{kind: lockOp, requestID: "s", lock: view{token: 1, data: "o1"}}.at(3, 4)}},
		{"overwritten", porcupine.Ok, []*operation{
			locks(1).at(1, 2), operation{kind: lockOp, holder: "a", overwrite: true, lock: view{token: 2}}.at(3, 4)}},
		{"another's overwritten", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), operation{kind: lockOp, holder: "b", overwrite: true, lock: view{token: 2}}.at(3, 4)}},
		{"refused though free", porcupine.Illegal, []*operation{
			refuses(held(operation{kind: lockOp}, 1, "o1"), "LOCK_HELD").at(3, 4), locks(1).at(5, 6)}},
		{"other data than was written", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), held(operation{kind: statusOp}, 1, "o7").at(3, 4)}},
		{"lost by a restart", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), operation{kind: reopenOp, exec: 4 * ms}.at(3, 5)}},
		{"kept by a restart", porcupine.Ok, []*operation{
			locks(1).at(1, 2), held(operation{kind: reopenOp, exec: 4 * ms}, 1, "o1").at(3, 5)}},
		{"came back by a restart", porcupine.Illegal, []*operation{
			locks(1).at(1, 2), unlocks(1, "o1").at(3, 4), held(operation{kind: reopenOp, exec: 6 * ms}, 1, "o1").at(5, 7)}},
		{"expired across a restart that began the lease anew", porcupine.Illegal, []*operation{
			leases(1).at(1, 2), operation{kind: reopenOp, exec: 150 * ms}.at(140, 349)}},
		{"expired after a restart", porcupine.Ok, []*operation{
			leases(1).at(1, 2), operation{kind: reopenOp, exec: 150 * ms}.at(140, 350)}},
		{"expired before a restart", porcupine.Ok, []*operation{
			leases(1).at(1, 2), operation{kind: reopenOp, exec: 310 * ms}.at(301, 320)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &model{
				doubtful:  map[uint64][]*operation{},
				requestOf: map[uint64]string{},
				requests:  map[string]string{},
			}
			var tokens []uint64
			for _, o := range test.history {
				m.requests[o.id] = o.requestID
				if o.kind == lockOp && o.lock.token != 0 {
					tokens = append(tokens, o.lock.token)
				}
			}
			m.next = order(tokens)
			if got, _ := m.check(test.history, time.Minute); got != test.want {
				t.Errorf("got %s, want %s for %v", got, test.want, test.history)
			}
		})
	}
}

// TestDoubtfulRenewal: a renewal of unknown outcome may have made the lease shorter,
// from its call on.
func TestDoubtfulRenewal(t *testing.T) {
	doubt := operation{kind: renewOp, token: 1, ttl: 100 * time.Millisecond, outcome: unknown}.at(50, 60)
	for ret, want := range map[int64]porcupine.CheckResult{149: porcupine.Illegal, 150: porcupine.Ok} {
		m := &model{
			next:     order([]uint64{1}),
			doubtful: map[uint64][]*operation{1: {doubt}},
		}
		history := []*operation{
			operation{kind: lockOp, ttl: time.Second, lock: view{token: 1}}.at(1, 2),
			operation{kind: statusOp}.at(140, ret),
		}
		if got, _ := m.check(history, time.Minute); got != want {
			t.Errorf("seen free by %d ms: got %s, want %s", ret, got, want)
		}
	}
}

func TestFirstInFirstOut(t *testing.T) {
	holds := operation{kind: lockOp, lock: view{token: 1}}.at(1, 2)
	waits := func(token uint64) operation {
		return operation{kind: lockOp, wait: time.Second, lock: view{token: token}}
	}
	look := func(waiters uint32) operation {
		return operation{kind: statusOp, lock: view{token: 1, waiters: waiters}}
	}
	late := operation{kind: lockOp, wait: time.Second, outcome: refused, reason: "LOCK_HELD"}
	left := operation{kind: lockOp, wait: time.Second, outcome: unknown}.at(10, 300)
	left.alive = 40 * ms
	for _, test := range []struct {
		name     string
		history  []*operation
		compared int
		problems int
	}{
		{"in order", []*operation{holds, waits(2).at(10, 50), look(1).at(20, 21), waits(3).at(30, 60)}, 1, 0},
		{"out of order", []*operation{holds, waits(3).at(10, 60), look(1).at(20, 21), waits(2).at(30, 50)}, 1, 1},
		{"nobody knows", []*operation{holds, waits(3).at(10, 60), look(0).at(20, 21), waits(2).at(30, 50)}, 0, 0},
		{"one of two is in line", []*operation{holds, waits(3).at(10, 60), late.at(11, 1011), look(1).at(20, 21), waits(2).at(30, 50)}, 0, 0},
		{"both are in line", []*operation{holds, waits(3).at(10, 60), late.at(11, 1011), look(2).at(20, 21), waits(2).at(30, 50)}, 2, 2},
		{"came before it was known", []*operation{holds, waits(3).at(10, 60), look(1).at(20, 31), waits(2).at(30, 50)}, 0, 0},
		{"no waiter at all", []*operation{holds, waits(3).at(10, 60), look(1).at(20, 21), operation{kind: lockOp, lock: view{token: 2}}.at(30, 50)}, 1, 1},
		{"the first had left", []*operation{holds, left, look(1).at(20, 21), waits(2).at(30, 45)}, 1, 0},
		{"the first had not left", []*operation{holds, left, look(1).at(20, 21), waits(2).at(30, 39)}, 1, 1},
		{"the same request again", []*operation{
			holds,
			operation{kind: lockOp, wait: time.Second, requestID: "r", outcome: unknown}.at(5, 6),
			waits(3).at(10, 60), look(1).at(20, 21),
			operation{kind: lockOp, wait: time.Second, requestID: "r", lock: view{token: 2}}.at(30, 50)}, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			compared, problems := fifo(test.history)
			if compared != test.compared || len(problems) != test.problems {
				t.Errorf("got %d pairs and the problems %q, want %d and %d", compared, problems, test.compared, test.problems)
			}
		})
	}
}

func TestIncreasing(t *testing.T) {
	grant := func(token uint64) operation {
		return operation{kind: lockOp, name: "h/0", lock: view{token: token}}
	}
	for _, test := range []struct {
		name    string
		history []*operation
		want    string // in a problem; empty: none
	}{
		{"increasing", []*operation{grant(1).at(1, 2), grant(3).at(3, 4)}, ""},
		{"at the same time", []*operation{grant(3).at(1, 3), grant(1).at(2, 4)}, ""},
		{"going back", []*operation{grant(3).at(1, 2), grant(1).at(3, 4)}, "was asked for after"},
		{"twice", []*operation{grant(1).at(1, 2), grant(1).at(3, 4)}, "the token of another"},
	} {
		granted := make(map[uint64]*operation)
		for _, o := range test.history {
			if granted[o.lock.token] == nil {
				granted[o.lock.token] = o
			}
		}
		problems := strings.Join(increasing(test.history, granted), "\n")
		if test.want == "" && problems != "" || !strings.Contains(problems, test.want) {
			t.Errorf("%s: got %q, want %q in it", test.name, problems, test.want)
		}
	}
}
