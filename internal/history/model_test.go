package history

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// model is the sequential specification of one lock: free, or held by a holder with
// a token. A hold with a ttl may end by itself before an operation, but not before
// its ttl can have run out.
//
// Each operation takes effect at some moment between its call and its answer. The
// check assigns each the earliest moment that its place in the order allows, so a
// deadline that it counts from there is the earliest that the hold may have had:
// a hold that is over before has ended early, in every order.
type model struct {
	// next is the token that follows each, of all the lock's holds. Tokens
	// increase, so there is but one order for the grants to be found in.
	next map[uint64]uint64
	// doubtful are, by token, the renewals that may have taken effect and
	// leave no trace. They may have made the hold's lease shorter or longer.
	doubtful map[uint64][]*operation
	// requestOf is the request id that each hold was granted to.
	requestOf map[uint64]string
	// requests are the request ids of operations, by their id.
	requests map[string]string
}

// state is a lock between two operations.
type state struct {
	now  int64  // it is not earlier than that
	last uint64 // the highest token so far

	token   uint64 // 0: free
	holder  string
	request string
	data    string
	ttl     time.Duration
	renewed int64 // the lease did not begin before that
	latest  int64 // the hold's deadline is not later than that
}

// step returns the state after an operation, and whether it could have come about.
func (m *model) step(s state, o *operation) (state, bool) {
	s.now = max(s.now, o.call)
	if s.now > o.ret {
		return s, false
	}
	switch o.kind {
	case openOp:
		return m.open(o), true
	case reopenOp:
		return m.reopen(s, o)
	case lockOp:
		return m.lock(s, o)
	case unlockOp:
		return m.unlock(s, o)
	case renewOp:
		return m.renew(s, o)
	case undoOp:
		return s.free(), s.token == o.token
	case statusOp:
		return m.look(s, o)
	}
	panic("no such kind: " + o.kind)
}

func (m *model) open(o *operation) state {
	s := state{now: o.call, last: o.last, latest: never}
	if v := o.lock; v.token != 0 {
		s.token, s.holder, s.data, s.ttl = v.token, v.holder, v.data, v.ttl
		s.request = m.requestOf[v.token]
		s.renewed = o.exec
	}
	return s
}

// reopen is the end of a daemon and the first look through the next: a lease that
// still ran begins anew.
func (m *model) reopen(s state, o *operation) (state, bool) {
	if o.lock.token != 0 {
		s.renewed, s.latest = o.exec, never
		return s, m.sees(s, o)
	}
	if over, ok := m.over(s, o, o.call); ok { // before the end
		return over, true
	}
	s.renewed = o.exec
	return m.over(s, o, o.ret)
}

func (m *model) lock(s state, o *operation) (state, bool) {
	v := o.lock
	mayReplace := s.token != 0 && o.overwrite && (s.holder == "" || s.holder == o.holder)
	same := s.token != 0 && o.requestID != "" && s.request == o.requestID
	switch {
	case o.outcome == refused && v.token != 0:
		return s, m.sees(s, o) && (o.wait > 0 || !same && !mayReplace)
	case o.outcome == refused:
		over, ok := m.over(s, o, o.ret)
		return over, ok && o.wait > 0
	case s.token == v.token:
		return s, same && m.sees(s, o)
	case m.next[s.last] != v.token, v.holder != o.holder, v.ttl != o.ttl:
		return s, false
	case v.data != o.id && (o.requestID == "" || m.requests[v.data] != o.requestID):
		return s, false
	}
	if !mayReplace {
		var ok bool
		if s, ok = m.over(s, o, o.ret); !ok {
			return s, false
		}
	}
	s.last, s.token, s.holder, s.data, s.request = v.token, v.token, v.holder, v.data, o.requestID
	return m.leased(s, o, v.ttl), true
}

func (m *model) unlock(s state, o *operation) (state, bool) {
	mayEnd := s.token != 0
	switch {
	case o.token != 0:
		mayEnd = mayEnd && s.token == o.token
	case !o.force:
		mayEnd = mayEnd && (s.holder == "" || s.holder == o.holder)
	}
	switch {
	case o.outcome == done:
		return s.free(), mayEnd && m.sees(s, o)
	case o.reason == "NOT_LOCKED":
		return m.over(s, o, o.ret)
	}
	return s, !mayEnd && m.sees(s, o)
}

func (m *model) renew(s state, o *operation) (state, bool) {
	switch {
	case o.outcome == done:
		if s.token == 0 || s.token != o.token || o.call > s.latest {
			return s, false
		}
		if o.data {
			s.data = o.id
		}
		ttl := s.ttl
		switch {
		case o.ttl != 0:
			ttl = o.ttl
		case len(m.doubtful[s.token]) > 0:
			ttl = o.lock.ttl
		}
		return m.leased(s, o, ttl), m.sees(s, o) && o.lock.ttl == ttl
	case o.lock.token != 0:
		return s, s.token != o.token && m.sees(s, o)
	}
	return m.over(s, o, o.ret)
}

func (m *model) look(s state, o *operation) (state, bool) {
	if o.lock.token != 0 {
		return s, m.sees(s, o) && (o.lock.ttl == s.ttl || len(m.doubtful[s.token]) > 0)
	}
	return m.over(s, o, o.ret)
}

// sees reports whether an answer shows the hold as it stands.
func (m *model) sees(s state, o *operation) bool {
	v := o.lock
	return v.token == s.token && s.token != 0 && v.holder == s.holder && v.data == s.data
}

// leased begins the lease of a hold.
func (m *model) leased(s state, o *operation, ttl time.Duration) state {
	s.ttl, s.renewed, s.latest = ttl, s.now, never
	if ttl != 0 && len(m.doubtful[s.token]) == 0 {
		s.latest = o.ret + int64(ttl)
	}
	return s
}

// over is the state without a hold, if there is none, or if it can have ended by
// itself before a time within o.
func (m *model) over(s state, o *operation, before int64) (state, bool) {
	if s.token == 0 {
		return s, true
	}
	end := int64(never)
	if s.ttl != 0 {
		end = s.renewed + int64(s.ttl)
	}
	for _, d := range m.doubtful[s.token] {
		if d.ttl != 0 && d.call <= before {
			end = min(end, max(d.call, s.renewed)+int64(d.ttl))
		}
	}
	if end > before {
		return s, false
	}
	s.now = max(s.now, end)
	return s.free(), s.now <= o.ret
}

func (s state) free() state { return state{now: s.now, last: s.last, latest: never} }

// String describes the state for pictures.
func (s state) String() string {
	text := fmt.Sprintf("free (last %d) at %s", s.last, seconds(s.now))
	if s.token != 0 {
		text = fmt.Sprintf("%s of request %q, at %s", view{token: s.token, holder: s.holder, data: s.data, ttl: s.ttl}, s.request, seconds(s.now))
	}
	if s.ttl != 0 {
		text += fmt.Sprintf(", renewed %s", seconds(s.renewed))
	}
	return text
}

func seconds(t int64) string { return fmt.Sprintf("%.6f", float64(t)/1e9) }

var stateSeed = maphash.MakeSeed()

// check looks for an order of the operations that the model allows.
func (m *model) check(operations []*operation, timeout time.Duration) (porcupine.CheckResult, func(path string) error) {
	history := make([]porcupine.Operation, len(operations))
	for i, o := range operations {
		history[i] = porcupine.Operation{ClientId: o.client, Input: o, Output: o, Call: o.call, Return: o.ret}
	}
	spec := porcupine.Model{
		Init: func() any { return state{now: math.MinInt64, latest: never} },
		Step: func(s, input, _ any) (bool, any) {
			next, ok := m.step(s.(state), input.(*operation))
			return ok, next
		},
		Hash:              func(s any) uint64 { return maphash.Comparable(stateSeed, s.(state)) },
		DescribeOperation: func(input, _ any) string { return input.(*operation).String() },
		DescribeState:     func(s any) string { return s.(state).String() },
	}
	result, info := porcupine.CheckOperationsVerbose(spec, history, timeout)
	return result, func(path string) error { return porcupine.VisualizePath(spec, info, path) }
}

// order finds the order of all tokens of a lock.
func order(tokens []uint64) map[uint64]uint64 {
	slices.Sort(tokens)
	next := make(map[uint64]uint64)
	var last uint64
	for _, token := range slices.Compact(tokens) {
		next[last] = token
		last = token
	}
	return next
}
