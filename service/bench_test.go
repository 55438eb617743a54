package service

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// BenchmarkCalls runs over loopback gRPC at several numbers of concurrent callers
// that share one connection, each with a lock of its own. Its parts belong together:
//
//	empty   two calls that do nothing, one after the other: what gRPC itself takes
//	cycle   Lock, then Unlock
//	status  two calls of Status, one after the other
//
// so that empty divided by cycle, of one run, is how near the service comes to what
// the machine can do. The store is memstore, which makes nothing durable.
func BenchmarkCalls(b *testing.B) {
	r := serve(b, setup{server: ServerConfig{Logger: slog.New(slog.DiscardHandler)}})
	health := healthv1.NewHealthClient(r.conn)
	empty := func(ctx context.Context, _ string) error {
		_, err := health.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
		return err
	}
	status := func(ctx context.Context, name string) error {
		_, err := r.Status(ctx, &pylokv1.StatusRequest{Name: name})
		return err
	}
	for _, callers := range []int{1, 16, 64, 256} {
		for _, part := range []struct {
			name string
			do   func(ctx context.Context, name string) error
		}{
			{"empty", twice(empty)},
			{"cycle", func(ctx context.Context, name string) error {
				response, err := r.Lock(ctx, &pylokv1.LockRequest{Name: name, Holder: "bench"})
				if err != nil {
					return err
				}
				_, err = r.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: response.GetLock().GetToken()})
				return err
			}},
			{"status", twice(status)},
		} {
			b.Run(fmt.Sprintf("%s/%d", part.name, callers), func(b *testing.B) {
				concurrently(b, callers, part.do)
			})
		}
	}
}

func twice(do func(context.Context, string) error) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		if err := do(ctx, name); err != nil {
			return err
		}
		return do(ctx, name)
	}
}

// concurrently does something b.N times in all from that many callers.
func concurrently(b *testing.B, callers int, do func(ctx context.Context, name string) error) {
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	ctx := b.Context()
	b.ResetTimer()
	var running sync.WaitGroup
	for i := range callers {
		name := fmt.Sprintf("bench/%d", i)
		running.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(ctx, name); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}
