package main

import (
	"bytes"
	"context"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

var interrupts = flag.Int("interrupts", 20, "how many times pylok lock and pylok run are each interrupted at about the grant")

// keepAnswer returns an interceptor for a server that carries out a Lock or LockSet, says so
// on granted, and keeps the answer until the caller has gone. It does so once.
func keepAnswer(granted chan<- struct{}) grpc.UnaryServerInterceptor {
	var once atomic.Bool
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		response, err := handle(ctx, request)
		takes := strings.HasSuffix(info.FullMethod, "/Lock") || strings.HasSuffix(info.FullMethod, "/LockSet")
		if err != nil || !takes || once.Swap(true) {
			return response, err
		}
		close(granted)
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// TestInterruptedAtTheGrant: whoever ends lock or run, or has no more time for them,
// when the lock has been granted and the answer is on its way, leaves no hold behind.
func TestInterruptedAtTheGrant(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
	}{
		{"lock x", 130},
		{"lock x --wait 1h", 130},
		{"run x -- true", 130},
		{"run x --wait 1h -- true", 130},
		{"lock x --timeout 100ms", exitFailed},
		{"run x --timeout 100ms -- true", exitFailed},
		{"lock x y", 130},
		{"lock x y --wait 1h", 130},
		{"run x y --any {a,b} -- true", 130},
		{"run x y --any {a,b} --wait 1h -- true", 130},
		{"lock x y --timeout 100ms", exitFailed},
		{"run x y --timeout 100ms -- true", exitFailed},
		{"lock x --shared", 130},
		{"run x --shared --wait 1h -- true", 130},
		{"freeze x", 130},
		{"freeze x --drain --wait 1h", 130},
	} {
		t.Run(test.args, func(t *testing.T) {
			store := memstore.New(memstore.Config{})
			defer store.Close()
			manager, err := manager.New(store, manager.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			x := lock.MustParseName("x")
			waits := strings.Contains(test.args, "--wait")
			var before lock.Grant
			if waits {
				if before, err = manager.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: x, Holder: "bob"}); err != nil {
					t.Fatal(err)
				}
			}
			granted := make(chan struct{})
			address, stop := serve(t, service.New(manager, service.Config{Store: "memory"}), grpc.UnaryInterceptor(keepAnswer(granted)))
			defer stop()

			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var stdout, stderr bytes.Buffer
			code := make(chan int)
			go func() {
				code <- run(ctx, append([]string{"--address", address}, strings.Fields(test.args)...), strings.NewReader(""), &stdout, &stderr)
			}()
			if waits {
				for l := (lock.Lock{}); l.Waiters == 0; {
					if l, err = manager.Status(t.Context(), lock.Caller{}, x); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := manager.Unlock(t.Context(), lock.Caller{}, lock.UnlockRequest{Name: x, Token: before.Lock.Token}); err != nil {
					t.Fatal(err)
				}
			}
			<-granted
			if test.code == 130 {
				cancel(interrupted{syscall.SIGINT})
			}
			if got := <-code; got != test.code || stdout.Len() > 0 {
				t.Errorf("exit code %d, want %d; stdout %q, stderr %q", got, test.code, stdout.String(), stderr.String())
			}
			held, _, _, err := manager.List(t.Context(), lock.Caller{}, lock.Pattern{}, lock.Name{}, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range held {
				t.Errorf("%s is held with token %d; want nothing held", l.Name, l.Token)
			}
		})
	}
}

// TestInterruptedAnyTime interrupts the real programs at about the time of the grant:
// either they tell of it or nothing is held.
func TestInterruptedAnyTime(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	c, err := client.Dial(address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	path := filepath.Join(programs, "pylok")
	for _, args := range [][]string{{"lock", "x"}, {"run", "x", "--ttl", "1h", "--", "true"}, {"lock", "x", "y"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			attempt := func(interruptAfter time.Duration) (code int, told bool) {
				t.Helper()
				p, err := start("pylok", root, environment, path, args...)
				if err != nil {
					t.Fatal(err)
				}
				if interruptAfter > 0 {
					time.Sleep(interruptAfter) // any moment is a good one
					p.cmd.Process.Signal(syscall.SIGINT)
				}
				if code, err = p.wait(); err != nil {
					t.Fatal(err)
				}
				return code, strings.HasPrefix(p.stdout.String(), "x  locked\n")
			}
			// isHeld reports whether the lock stays held, and releases it. The server may
			// still be undoing a grant whose caller has left.
			isHeld := func(told bool) bool {
				t.Helper()
				request := lock.LockRequest{Name: lock.MustParseName("x"), Holder: "test"}
				if !told {
					request.Wait = 10 * time.Second
				}
				grant, err := c.Lock(t.Context(), request)
				l, held := holdIn(err)
				if err != nil && !held {
					t.Fatal(err)
				}
				if !held {
					l = grant.Lock
				}
				if _, err := c.Unlock(t.Context(), lock.UnlockRequest{Name: l.Name, Token: l.Token}); err != nil {
					t.Fatal(err)
				}
				return held
			}
			begun := time.Now()
			attempt(0)
			isHeld(true)
			took := time.Since(begun)
			left, told, undone := 0, 0, 0
			for range *interrupts {
				code, wasTold := attempt(took/8 + rand.N(took*3/4))
				held := isHeld(wasTold)
				switch {
				case wasTold != held:
					left++
					t.Logf("exit code %d, told of the lock: %v, held: %v", code, wasTold, held)
				case held:
					told++
				case code == 130:
					undone++
				}
			}
			t.Logf("of %d, %d were told of the lock, %d ended with 130", *interrupts, told, undone)
			if left > 0 {
				t.Errorf("%d of %d were told wrong", left, *interrupts)
			}
		})
	}
}
