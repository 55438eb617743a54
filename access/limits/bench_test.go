package limits

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// BenchmarkStatus compares the CPU time of Status over loopback with and without limits, in
// turns: of callers from other machines, whose rate counts, and with all limits on. The
// ratio is that of calls in the same CPU time.
func BenchmarkStatus(b *testing.B) {
	for _, callers := range []int{10, 10_000} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			m, err := manager.New(memstore.New(memstore.Config{}), manager.Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			l := New(m, Config{Rate: 1e9, MaxCalls: 32_768, MaxWaits: 16_384, MaxWatches: 8192, MaxWatchesTotal: 32_768, MaxScans: 4, MaxHolds: 1_000_000})
			defer l.Close()
			with, without := benchServer(b, l, callers), benchServer(b, m, callers)
			const turn = 500
			var spent [2]time.Duration
			done := 0
			for b.Loop() {
				for i := range 2 {
					i ^= done / turn % 2 // neither is always the first
					client := [2]pylokv1.LockServiceClient{with, without}[i]
					begun := cpuTime()
					var calls sync.WaitGroup
					for range 16 {
						calls.Go(func() {
							for range turn / 16 {
								if _, err := client.Status(b.Context(), &pylokv1.StatusRequest{Name: "n/1"}); err != nil {
									b.Error(err)
								}
							}
						})
					}
					calls.Wait()
					spent[i] += cpuTime() - begun
				}
				done += turn
			}
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
			b.ReportMetric(float64(spent[0].Microseconds())/float64(done), "CPU-µs/call")
		})
	}
}

// benchServer serves locks, as if as many callers from other machines came by one
// connection.
func benchServer(b *testing.B, locks lock.Locks, callers int) pylokv1.LockServiceClient {
	from := make([]lock.Caller, callers)
	for i := range from {
		from[i].Peer = fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&0xff, i&0xff)
	}
	var calls atomic.Uint64
	server := service.NewServer(service.New(locks, service.Config{}), service.ServerConfig{
		Identify: func(context.Context) (lock.Caller, error) { return from[calls.Add(1)%uint64(callers)], nil },
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go server.Serve(listener)
	b.Cleanup(func() { server.Stop(time.Second) })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return pylokv1.NewLockServiceClient(conn)
}

// cpuTime is what this process has taken.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
