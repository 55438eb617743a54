package locktest

import (
	"errors"
	"strings"
	"time"

	"github.com/pylok/pylok/lock"
)

var (
	alice     = lock.Caller{Name: "unix:alice"}
	bob       = lock.Caller{Name: "token:bob"}
	anonymous = lock.Caller{Name: lock.Anonymous} // callers are told apart, and this one has no proof
	nobody    = lock.Caller{}                     // callers are not told apart
)

// ask is what somebody may want of a hold, with every proof that there is but the caller:
// the right token, holder and request id.
type ask struct {
	what    string
	refused error // for another caller
	do      func(m *managed, c lock.Caller, l lock.Lock) error
}

var asks = []ask{
	{"renew", lock.ErrNotHolder, func(m *managed, c lock.Caller, l lock.Lock) error {
		_, err := m.Renew(m.t.Context(), c, lock.RenewRequest{Name: l.Name, Token: l.Token, Holder: l.Holder, TTL: time.Hour})
		return err
	}},
	{"renew with data", lock.ErrNotHolder, func(m *managed, c lock.Caller, l lock.Lock) error {
		data, err := lock.NewData(map[string]any{"msg": "renewed"})
		if err != nil {
			return err
		}
		_, err = m.Renew(m.t.Context(), c, lock.RenewRequest{Name: l.Name, Token: l.Token, Data: &data})
		return err
	}},
	{"lock again by the request id", lock.ErrLockHeld, func(m *managed, c lock.Caller, l lock.Lock) error {
		_, err := m.Lock(m.t.Context(), c, lock.LockRequest{Name: l.Name, Holder: l.Holder, RequestID: l.RequestID})
		return err
	}},
	{"overwrite", lock.ErrLockHeld, func(m *managed, c lock.Caller, l lock.Lock) error {
		_, err := m.Lock(m.t.Context(), c, lock.LockRequest{Name: l.Name, Holder: l.Holder, Overwrite: true})
		return err
	}},
	{"unlock by the token", lock.ErrNotHolder, func(m *managed, c lock.Caller, l lock.Lock) error {
		_, err := m.Unlock(m.t.Context(), c, lock.UnlockRequest{Name: l.Name, Token: l.Token, Holder: l.Holder})
		return err
	}},
	{"unlock by the holder", lock.ErrNotHolder, func(m *managed, c lock.Caller, l lock.Lock) error {
		_, err := m.Unlock(m.t.Context(), c, lock.UnlockRequest{Name: l.Name, Holder: l.Holder})
		return err
	}},
}

// testCallers: the caller of a hold is asked first. Another one may not have it, whatever
// else its request proves, and the hold stays as it was; a hold of nobody follows the
// token and the holder. Whoever has a hold next is its caller.
func testCallers(m *managed) {
	for _, taker := range []lock.Caller{alice, anonymous, nobody} {
		for _, ask := range asks {
			for _, asker := range []lock.Caller{bob, anonymous, nobody, alice} {
				m.testAsk(taker, ask, asker)
			}
		}
	}
	m.testCallersInLine()
	m.testCallersBreak()
}

// testAsk has one caller ask for the hold of another.
func (m *managed) testAsk(taker lock.Caller, ask ask, asker lock.Caller) {
	m.t.Helper()
	held := m.takeAs(taker)
	err := ask.do(m, asker, held)
	now := m.status(nameA)
	isSame := taker.Owner() == asker.Owner()
	may := taker.Owner() == "" || isSame
	if ask.what == "lock again by the request id" {
		may = isSame
	}
	switch {
	case may && err != nil:
		m.t.Errorf("%q, %s of the hold of %q: %v", asker.Name, ask.what, taker.Name, err)
	case !may && (!errors.Is(err, ask.refused) || !strings.Contains(err.Error(), taker.Owner())):
		m.t.Errorf("%q, %s of the hold of %q: got %v, want %v that names its caller", asker.Name, ask.what, taker.Name, err, ask.refused)
	case !may && (now.Token != held.Token || now.Revision != held.Revision || now.TTL != held.TTL):
		m.t.Errorf("%q, %s of the hold of %q was refused and has made it %+v", asker.Name, ask.what, taker.Name, now)
	}
	want := taker.Owner()
	if now.Token != held.Token { // it was overwritten
		want = asker.Owner()
	}
	if now.Held() && now.Caller != want {
		m.t.Errorf("%q, %s of the hold of %q: then it is of %q, want %q", asker.Name, ask.what, taker.Name, now.Caller, want)
	}
}

// takeAs gives a caller the lock, whoever has it.
func (m *managed) takeAs(caller lock.Caller) lock.Lock {
	m.t.Helper()
	if m.status(nameA).Held() {
		if _, err := m.Unlock(m.t.Context(), nobody, lock.UnlockRequest{Name: nameA, Force: true, Reason: "the next"}); err != nil {
			m.t.Fatal(err)
		}
	}
	grant, err := m.Lock(m.t.Context(), caller, lock.LockRequest{Name: nameA, Holder: "job", TTL: 2 * time.Hour, RequestID: "r1"})
	if err != nil || grant.Lock.Caller != caller.Owner() {
		m.t.Fatalf("Lock by %q: %+v, %v", caller.Name, grant.Lock, err)
	}
	return grant.Lock
}

// testCallersInLine: who stands in line has a place, and gets a hold, of its own, also when
// the request has the id of somebody else's.
func (m *managed) testCallersInLine() {
	m.t.Helper()
	held := m.takeAs(alice)
	type granted struct {
		lock.Lock
		err error
	}
	next := make(chan granted, 2)
	for i, caller := range []lock.Caller{bob, alice} {
		go func() {
			grant, err := m.Lock(m.t.Context(), caller, request("job", waiting, withRequestID("r2")))
			next <- granted{grant.Lock, err}
		}()
		for patient := time.Now().Add(patience); m.status(nameA).Waiters <= i && len(next) == 0 && time.Now().Before(patient); {
			time.Sleep(time.Millisecond)
		}
		if got := m.status(nameA).Waiters; got != i+1 {
			m.t.Fatalf("%q has asked, and %d wait for the hold of %q; want %d", caller.Name, got, alice.Name, i+1)
		}
	}
	for i, want := range []lock.Caller{bob, alice} {
		by := []lock.Caller{alice, bob}[i]
		release, err := m.Unlock(m.t.Context(), by, lock.UnlockRequest{Name: nameA, Token: held.Token})
		if err != nil {
			m.t.Fatal(err)
		}
		got := <-next
		if got.err != nil || got.Caller != want.Name || release.Next.Caller != want.Name || release.Lock.Caller != by.Name {
			m.t.Errorf("after the hold of %q came %+v, %v, and its release says %+v; want one of %q", by.Name, got.Lock, got.err, release, want.Name)
		}
		held = got.Lock
	}
}

// testCallersBreak: force ends any hold. It is a break unless the hold is one's own, and an
// equal holder of another caller's makes it nobody's own.
func (m *managed) testCallersBreak() {
	m.t.Helper()
	for _, test := range []struct {
		by   lock.Caller
		want lock.Cause
	}{
		{alice, lock.Request},
		{bob, lock.Forced},
		{anonymous, lock.Forced},
		{nobody, lock.Forced},
	} {
		held := m.takeAs(alice)
		_, err := m.Unlock(m.t.Context(), test.by, lock.UnlockRequest{Name: nameA, Token: held.Token, Holder: held.Holder, Force: true, Reason: "stuck"})
		if err != nil {
			m.t.Errorf("force by %q: %v", test.by.Name, err)
			continue
		}
		page, err := m.History(m.t.Context(), nobody, lock.HistoryQuery{After: held.Revision}, 0, 10)
		if err != nil || len(page.Events) != 1 {
			m.t.Fatalf("History: %+v, %v", page.Events, err)
		}
		if e := page.Events[0]; e.Cause != test.want || e.Lock.Caller != "unix:alice" || e.Actor != test.by.Actor(held.Holder) {
			m.t.Errorf("force by %q is the event %+v, want the cause %v on the hold of unix:alice", test.by.Name, e, test.want)
		}
	}

	// Overwriting with the right to break waives the caller and not the holder.
	for _, holder := range []string{"another job", "job"} {
		held := m.takeAs(alice)
		r := request(holder, overwriting)
		r.MayBreak = true
		grant, err := m.Lock(m.t.Context(), bob, r)
		if holder != held.Holder {
			wantError(m.t, "overwrite with the right to break, by another holder", err, lock.ErrLockHeld)
			continue
		}
		if err != nil || grant.Lock.Caller != bob.Name {
			m.t.Fatalf("overwrite with the right to break: %+v, %v", grant.Lock, err)
		}
		page, err := m.History(m.t.Context(), nobody, lock.HistoryQuery{After: held.Revision}, 0, 10)
		if err != nil || len(page.Events) != 2 {
			m.t.Fatalf("History: %+v, %v", page.Events, err)
		}
		if e := page.Events[0]; e.Type != lock.Unlocked || e.Cause != lock.Forced || e.Actor != bob.Name || e.Lock.Caller != alice.Name {
			m.t.Errorf("overwrite with the right to break ends the hold by the event %+v", e)
		}
	}
}
