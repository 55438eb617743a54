package manager_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

// TestConfirm grants the lock to a waiter whose callers are asked whether they are there.
// A grant of which nobody can be told is undone, and the next in line has it; one of which
// anybody was told stands.
func TestConfirm(t *testing.T) {
	errGone := errors.New("gone")
	// caller is one sending of the waiter's request.
	type caller struct {
		after time.Duration // the answer comes so long after the grant
		gone  bool
	}
	tests := []struct {
		name    string
		callers []caller
		again   time.Duration // when the request is sent again, after the grant; 0: never
		stands  bool
	}{
		{"there", []caller{{time.Second, false}}, 0, true},
		{"gone", []caller{{time.Second, true}}, 0, false},
		{"sent twice, one is gone", []caller{{time.Second, true}, {2 * time.Second, false}}, 0, true},
		{"sent twice, one is gone later", []caller{{2 * time.Second, true}, {time.Second, false}}, 0, true},
		{"sent twice, both are gone", []caller{{2 * time.Second, true}, {time.Second, true}}, 0, false},
		{"sent twice, one is there at once", []caller{{time.Second, true}, {0, false}}, 0, true},
		{"sent twice, the first is there at once", []caller{{0, false}, {time.Second, true}}, 0, true},
		{"sent twice, one is gone at once", []caller{{0, true}, {time.Second, false}}, 0, true},
		{"sent twice, the second is gone at once", []caller{{time.Second, false}, {0, true}}, 0, true},
		{"sent again before it is known", []caller{{2 * time.Second, true}}, time.Second, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, open(t))
				held := mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice"})
				request := lock.LockRequest{Name: nameA, Holder: "bob", RequestID: "r", Wait: time.Hour}
				answers := make(chan error, len(test.callers))
				for _, c := range test.callers {
					request := request
					request.Confirm = func(context.Context) error {
						time.Sleep(c.after)
						if c.gone {
							return errGone
						}
						return nil
					}
					go func() {
						_, err := m.Lock(t.Context(), lock.Caller{}, request)
						if gone := errors.Is(err, errGone); gone != c.gone || err != nil && !gone {
							t.Errorf("a caller who is gone, %v, is answered %v", c.gone, err)
						}
						answers <- err
					}()
				}
				synctest.Wait()
				next := make(chan lock.Grant, 1)
				go func() {
					g, _ := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: nameA, Holder: "next", Wait: 30 * time.Minute})
					next <- g
				}()
				synctest.Wait()
				if _, err := m.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: nameA, Token: held.Token}); err != nil {
					t.Fatal(err)
				}
				if test.again != 0 {
					time.Sleep(test.again)
					if g, err := m.Lock(t.Context(), lock.Caller{}, request); err != nil || g.Lock.Holder != "bob" {
						t.Errorf("sent again: %+v, %v", g, err)
					}
				}
				for range test.callers {
					<-answers
				}
				synctest.Wait()
				want := "next"
				if test.stands {
					want = "bob"
				}
				if l := status(t, m, nameA); l.Holder != want {
					t.Errorf("the lock is held by %q, want %q", l.Holder, want)
				}
				m.Close()
				<-next
			})
		})
	}
}
