package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// BenchmarkAccess compares a server with an access file of 100 rules with one that has none,
// for a caller on the socket: how many requests, and cycles of Lock and Unlock, by 16 at a
// time, the one makes of what the other does. They take turns, for a tenth of a second each,
// so that whatever else the machine does concerns both.
func BenchmarkAccess(b *testing.B) {
	const callers, turn = 16, 100 * time.Millisecond
	var rules strings.Builder
	rules.WriteString("callers:\n  - {unix: {}, groups: [all]}\n")
	for i := range 99 {
		fmt.Fprintf(&rules, "  - {name: c%d, token: \"sha256:%064x\", groups: [g%d]}\n", i, i, i%10)
	}
	rules.WriteString("rules:\n  - {who: [\"group:all\"], may: [lock], locks: [\"bench/*/x-*\"]}\n")
	for i := range 99 {
		fmt.Fprintf(&rules, "  - {who: [\"group:g%d\", \"*\"], may: [lock], locks: [\"prod/%d/**\", \"dev/*/%d\"]}\n", i%10, i, i)
	}
	clients := [2]pylokv1.LockServiceClient{benchClient(b), benchClient(b, "--access", accessFile(b, rules.String()))}
	for what, ask := range map[string]benchWork{
		"Status": func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
			_, err := c.Status(ctx, &pylokv1.StatusRequest{Name: name})
			return err
		},
		"LockUnlock": cycle,
	} {
		b.Run(what, func(b *testing.B) {
			inTurn(b, callers, turn, clients, [2]benchWork{ask, ask})
		})
	}
}

// benchWork is what a caller does again and again, with a name of its own.
type benchWork func(ctx context.Context, c pylokv1.LockServiceClient, name string) error

// benchClient starts a server with flags and returns a client on its socket.
func benchClient(b *testing.B, flags ...string) pylokv1.LockServiceClient {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "s")
	start(b, nil, append(flags, "--root", b.TempDir(), "--listen", "none", "--socket", socket, "--log-level", "warn")...)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return pylokv1.NewLockServiceClient(conn)
}

// cycle takes a lock and releases it.
func cycle(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
	held, err := c.Lock(ctx, &pylokv1.LockRequest{Name: name, Holder: "bench"})
	if err == nil {
		_, err = c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: held.Lock.Token})
	}
	return err
}

// inTurn has callers do the first work with the first client, and the second with the second,
// in turns, so that whatever else the machine does concerns both. It reports how often the
// second is done for each time that the first is.
func inTurn(b *testing.B, callers int, turn time.Duration, clients [2]pylokv1.LockServiceClient, works [2]benchWork) {
	var done [2]atomic.Int64
	for range b.N {
		for i, client := range clients {
			var work sync.WaitGroup
			end := time.Now().Add(turn)
			for caller := range callers {
				work.Go(func() {
					name := fmt.Sprintf("bench/%d/x-1", caller)
					for time.Now().Before(end) {
						if err := works[i](b.Context(), client, name); err != nil {
							b.Error(err)
							return
						}
						done[i].Add(1)
					}
				})
			}
			work.Wait()
		}
	}
	b.ReportMetric(float64(done[1].Load())/float64(done[0].Load()), "of-first")
	b.ReportMetric(float64(done[0].Load())/(float64(b.N)*turn.Seconds()), "first/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTogether compares what others do with what they would cost if they did not: a lock
// taken and released while 100 trees are held elsewhere with the same while none is; and 8
// locks that are taken and released as a set with 3 one by one, at one caller.
func BenchmarkTogether(b *testing.B) {
	const turn = 100 * time.Millisecond
	b.Run("beside 100 trees", func(b *testing.B) {
		clients := [2]pylokv1.LockServiceClient{benchClient(b), benchClient(b)}
		for i := range 100 {
			if _, err := clients[1].Lock(b.Context(), &pylokv1.LockRequest{Name: fmt.Sprintf("elsewhere/%d", i), Tree: true}); err != nil {
				b.Fatal(err)
			}
		}
		inTurn(b, 16, turn, clients, [2]benchWork{cycle, cycle})
	})
	b.Run("a set of 8 for 3 locks", func(b *testing.B) {
		client := benchClient(b)
		locks := func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
			var held []*pylokv1.LockResponse
			for i := range 3 {
				l, err := c.Lock(ctx, &pylokv1.LockRequest{Name: fmt.Sprint(name, i), Holder: "bench"})
				if err != nil {
					return err
				}
				held = append(held, l)
			}
			for _, l := range held {
				if _, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: l.Lock.Name, Token: l.Lock.Token}); err != nil {
					return err
				}
			}
			return nil
		}
		set := func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
			request := &pylokv1.LockSetRequest{Holder: "bench"}
			for i := range 8 {
				request.Names = append(request.Names, fmt.Sprint(name, i))
			}
			held, err := c.LockSet(ctx, request)
			if err != nil {
				return err
			}
			release := &pylokv1.UnlockSetRequest{}
			for _, l := range held.Locks {
				release.Holds = append(release.Holds, &pylokv1.HoldRef{Name: l.Name, Token: l.Token})
			}
			_, err = c.UnlockSet(ctx, release)
			return err
		}
		inTurn(b, 1, turn, [2]pylokv1.LockServiceClient{client, client}, [2]benchWork{locks, set})
	})
}
