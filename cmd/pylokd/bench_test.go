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
	clients := make([]pylokv1.LockServiceClient, 2)
	for i, flags := range [][]string{nil, {"--access", accessFile(b, rules.String())}} {
		socket := filepath.Join(b.TempDir(), "s")
		start(b, nil, append(flags, "--root", b.TempDir(), "--listen", "none", "--socket", socket, "--log-level", "warn")...)
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		clients[i] = pylokv1.NewLockServiceClient(conn)
	}
	for what, ask := range map[string]func(context.Context, pylokv1.LockServiceClient, string) error{
		"Status": func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
			_, err := c.Status(ctx, &pylokv1.StatusRequest{Name: name})
			return err
		},
		"LockUnlock": func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
			held, err := c.Lock(ctx, &pylokv1.LockRequest{Name: name, Holder: "bench"})
			if err == nil {
				_, err = c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: held.Lock.Token})
			}
			return err
		},
	} {
		b.Run(what, func(b *testing.B) {
			var done [2]atomic.Int64
			for range b.N {
				for i, client := range clients {
					var work sync.WaitGroup
					end := time.Now().Add(turn)
					for caller := range callers {
						work.Go(func() {
							name := fmt.Sprintf("bench/%d/x-1", caller)
							for time.Now().Before(end) {
								if err := ask(b.Context(), client, name); err != nil {
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
			b.ReportMetric(float64(done[1].Load())/float64(done[0].Load()), "of-without")
			b.ReportMetric(float64(done[0].Load())/(float64(b.N)*turn.Seconds()), "without/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
