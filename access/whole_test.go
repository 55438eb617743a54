package access_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/access/bearer"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// TestCallByOnePolicy: a call that a new access file comes into the middle of is answered
// by the groups and the rules of the same file. By the groups of the one and the rules of
// the other the caller may use b, which neither allows.
func TestCallByOnePolicy(t *testing.T) {
	token, hash := bearer.New()
	texts := [2]string{
		"callers: [{name: ci, token: \"" + hash + "\", groups: [x]}, {name: no, unix: {user: \"1\"}, groups: [y]}]\nrules:\n" +
			"  - {who: [\"group:x\"], may: [lock], locks: [a]}\n  - {who: [\"group:y\"], may: [break], locks: [b]}\n",
		"callers: [{name: ci, token: \"" + hash + "\", groups: [y]}, {name: no, unix: {user: \"1\"}, groups: [x]}]\nrules:\n" +
			"  - {who: [\"group:y\"], may: [lock], locks: [c]}\n  - {who: [\"group:x\"], may: [break], locks: [b]}\n",
	}
	file := filepath.Join(t.TempDir(), "access.yaml")
	write := func(text string) {
		t.Helper()
		err := os.WriteFile(file+".new", []byte(text), 0o600)
		if err == nil {
			err = os.Rename(file+".new", file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(texts[0])
	control, err := access.NewControl(access.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New(memstore.Config{})
	defer store.Close()
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	guard := access.NewGuard(m, control, access.GuardConfig{})
	a, b, c := lock.MustParseName("a"), lock.MustParseName("b"), lock.MustParseName("c")
	status := func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
		_, err := guard.Status(ctx, caller, name)
		if err != nil && !errors.Is(err, lock.ErrPermissionDenied) {
			t.Error(err)
		}
		return err == nil
	}
	// Each way to ask says whether it is allowed.
	ways := map[string]func(ctx context.Context, caller lock.Caller, name lock.Name) bool{
		"Status": status,
		"Lock": func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
			grant, err := guard.Lock(ctx, caller, lock.LockRequest{Name: name, Holder: "h"})
			if err == nil {
				_, err = m.Unlock(ctx, caller, lock.UnlockRequest{Name: name, Token: grant.Lock.Token})
			}
			return err == nil
		},
		"Unlock": func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
			_, err := guard.Unlock(ctx, caller, lock.UnlockRequest{Name: name, Token: 1})
			return !errors.Is(err, lock.ErrPermissionDenied)
		},
		"Renew": func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
			_, err := guard.Renew(ctx, caller, lock.RenewRequest{Name: name, Token: 1})
			return !errors.Is(err, lock.ErrPermissionDenied)
		},
		"List": func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
			_, _, _, err := guard.List(ctx, caller, lock.MustParsePattern(name.String()), lock.Name{}, 1)
			return err == nil
		},
		"History": func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
			_, err := guard.History(ctx, caller, lock.HistoryQuery{Pattern: lock.MustParsePattern(name.String())}, 0, 1)
			return err == nil
		},
		"May": func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
			answer, err := control.May(ctx, caller, access.Question{Verb: access.View, Name: name})
			return err == nil && answer.Allowed
		},
		"Watch": func(ctx context.Context, caller lock.Caller, name lock.Name) bool {
			for _, err := range guard.Watch(ctx, caller, lock.WatchRequest{Pattern: lock.MustParsePattern(name.String())}) {
				return err == nil
			}
			return false
		},
	}
	for name, may := range ways {
		t.Run(name, func(t *testing.T) {
			write(texts[0])
			if err := control.Reload(); err != nil {
				t.Fatal(err)
			}
			ctx := access.WithEvidence(t.Context(), &access.Evidence{Bearer: token})
			caller, err := control.Identify(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if !may(ctx, caller, a) || may(ctx, caller, b) || may(ctx, caller, c) {
				t.Error("before: not a alone")
			}
			write(texts[1])
			if err := control.Reload(); err != nil {
				t.Fatal(err)
			}
			if may(ctx, caller, a) || may(ctx, caller, b) || !may(ctx, caller, c) {
				t.Error("after: not c alone")
			}
		})
	}

	t.Run("storm", func(t *testing.T) {
		stop := make(chan struct{})
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					ctx := access.WithEvidence(t.Context(), &access.Evidence{Bearer: token})
					caller, err := control.Identify(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					if status(ctx, caller, b) {
						t.Error("b may be viewed by the groups of one file and the rules of the other")
						return
					}
				}
			})
		}
		for i := range 200 {
			write(texts[i%2])
			if err := control.Reload(); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		callers.Wait()
	})
}

// TestWaitEndsWithTheRight: who stands in line stays there while new access files let it,
// and leaves it when one does not.
func TestWaitEndsWithTheRight(t *testing.T) {
	const mayLock = "  - {who: [\"group:ci\"], may: [lock], locks: [\"%s/**\"]}\n"
	g := newGuarded(t, fmt.Sprintf(mayLock, "a"), nil)
	n := lock.MustParseName("a/b")
	ctx := access.WithEvidence(t.Context(), &access.Evidence{Bearer: g.token})
	caller, err := g.control.Identify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	somebody := lock.Caller{Name: "unix:somebody"}
	wait := func(line int) chan error {
		answer := make(chan error, 1)
		go func() {
			_, err := g.Lock(ctx, caller, lock.LockRequest{Name: n, Holder: "ci", Wait: time.Hour})
			answer <- err
		}()
		for {
			l, err := g.inner.Status(ctx, somebody, n)
			if err != nil {
				t.Fatal(err)
			}
			if l.Waiters == line {
				return answer
			}
			runtime.Gosched()
		}
	}
	for _, last := range []string{"a", "other"} {
		held, err := g.inner.Lock(ctx, somebody, lock.LockRequest{Name: n, Holder: "somebody"})
		if err != nil {
			t.Fatal(err)
		}
		g.change(fmt.Sprintf(mayLock, "a"))
		answer := wait(1)
		for _, also := range []string{"b", "c"} { // the right stays
			g.change(fmt.Sprintf(mayLock, "a") + fmt.Sprintf(mayLock, also))
		}
		g.change(fmt.Sprintf(mayLock, last))
		if last == "other" {
			if err := <-answer; !errors.Is(err, lock.ErrPermissionDenied) || !strings.Contains(err.Error(), "token:ci") {
				t.Errorf("the right is gone: got %v, want PERMISSION_DENIED", err)
			}
			if l, err := g.inner.Status(ctx, somebody, n); err != nil || l.Token != held.Lock.Token || l.Waiters != 0 {
				t.Errorf("afterwards: %+v, %v", l, err)
			}
			continue
		}
		if _, err := g.inner.Unlock(ctx, somebody, lock.UnlockRequest{Name: n, Token: held.Lock.Token}); err != nil {
			t.Fatal(err)
		}
		if err := <-answer; err != nil {
			t.Errorf("the right is there: got %v, want the lock", err)
		}
		if _, err := g.inner.Unlock(ctx, somebody, lock.UnlockRequest{Name: n, Force: true, Reason: "r"}); err != nil {
			t.Fatal(err)
		}
	}
}
