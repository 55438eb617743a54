package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// refusals counts the reasons of refused calls.
type refusals struct {
	mu sync.Mutex
	of map[string]int
}

func (r *refusals) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			r.of[info.GetReason()]++
		}
	}
}

// lacks returns those of the reasons that no call was refused for.
func (r *refusals) lacks(reasons ...string) (missing []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reason := range reasons {
		if r.of[reason] == 0 {
			missing = append(missing, reason)
		}
	}
	return missing
}

// rss returns how much memory the process has, in bytes.
func (p *process) rss(t *testing.T) (kib int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// clientFrom is client from an address of this machine.
func (p *process) clientFrom(t *testing.T, from string) pylokv1.LockServiceClient {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pylokv1.NewLockServiceClient(conn)
}

// TestAttack has a client of one address open connections, watches, waits, scans and locks
// as fast as it can. Another's calls go on meanwhile, and the server's memory is bounded.
func TestAttack(t *testing.T) {
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--socket", "none", "--log-level", "error",
		"--max-connections", "60", "--max-connections-per-address", "20",
		"--max-calls-per-caller", "200", "--max-waits-per-caller", "100", "--max-watches-per-caller", "50", "--max-holds-per-caller", "200")
	victim := p.client(t, insecure.NewCredentials())
	cycle := func(name string) error {
		held, err := victim.Lock(t.Context(), &pylokv1.LockRequest{Name: name, Holder: "victim", Wait: durationpb.New(time.Minute)})
		if err == nil {
			_, err = victim.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: name, Token: held.GetLock().GetToken()})
		}
		return err
	}
	for i := range 100 {
		if err := cycle(fmt.Sprintf("warm/%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := victim.Lock(t.Context(), &pylokv1.LockRequest{Name: "held", Holder: "victim"}); err != nil {
		t.Fatal(err)
	}
	before := p.rss(t)

	const attacker = "127.0.0.2"
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	refused := &refusals{of: make(map[string]int)}
	var attack sync.WaitGroup
	defer attack.Wait()
	defer stop()
	flood := func(workers int, call func(client pylokv1.LockServiceClient, i int) error) {
		client := p.clientFrom(t, attacker)
		for worker := range workers {
			attack.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					refused.note(call(client, worker+i*workers))
				}
			})
		}
	}
	large, err := structpb.NewStruct(map[string]any{"msg": strings.Repeat("x", 200<<10)})
	if err != nil {
		t.Fatal(err)
	}
	some, err := structpb.NewStruct(map[string]any{"msg": strings.Repeat("x", 60<<10)})
	if err != nil {
		t.Fatal(err)
	}
	tooLarge := func(client pylokv1.LockServiceClient) error {
		_, err := client.Lock(ctx, &pylokv1.LockRequest{Name: "held", Wait: durationpb.New(time.Hour), Data: large})
		return err
	}
	if err := tooLarge(victim); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "65536") {
		t.Fatalf("data that cannot fit wait: %v", err)
	}
	// Who is to be refused for this is another: in the flood few calls get so far.
	hoarder := p.clientFrom(t, "127.0.0.4")
	for i := range 200 {
		if _, err := hoarder.Lock(ctx, &pylokv1.LockRequest{Name: fmt.Sprintf("hoard/%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hoarder.Lock(ctx, &pylokv1.LockRequest{Name: "hoard/more"}); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "200") {
		t.Fatalf("more locks than one may have: %v", err)
	}
	flood(55, func(client pylokv1.LockServiceClient, _ int) error { // watches
		stream, err := client.Watch(ctx, &pylokv1.WatchRequest{})
		for err == nil {
			_, err = stream.Recv()
		}
		return err
	})
	flood(105, func(client pylokv1.LockServiceClient, _ int) error { // waits that could be granted
		_, err := client.Lock(ctx, &pylokv1.LockRequest{Name: "held", Wait: durationpb.New(time.Hour), Data: some})
		return err
	})
	flood(2, func(client pylokv1.LockServiceClient, _ int) error { return tooLarge(client) }) // and waits that could not
	flood(60, func(client pylokv1.LockServiceClient, _ int) error {
		_, err := client.History(ctx, &pylokv1.HistoryRequest{})
		return err
	})
	flood(2, func(client pylokv1.LockServiceClient, i int) error {
		_, err := client.Lock(ctx, &pylokv1.LockRequest{Name: fmt.Sprintf("mine/%d", i)})
		return err
	})
	connected := 0
	attack.Go(func() { // and connections that say nothing
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(attacker)}}
		for ; ctx.Err() == nil && connected < 500; connected++ {
			if conn, err := dialer.DialContext(ctx, "tcp", p.address); err == nil {
				defer conn.Close()
			}
		}
	})

	all := []string{"TOO_MANY_WATCHES", "TOO_MANY_WAITERS", "RATE_LIMITED"}
	for i, deadline := 0, time.Now().Add(startTimeout); i < 20 || len(refused.lacks(all...)) > 0; i++ {
		if err := cycle(fmt.Sprintf("victim/%d", i)); err != nil {
			t.Fatalf("beside the attack: %v", err)
		}
		if len(refused.lacks(all...)) > 0 && time.Now().After(deadline) {
			t.Fatalf("no call was refused with %q", refused.lacks(all...))
		}
	}
	if _, err := p.clientFrom(t, "127.0.0.3").Status(t.Context(), &pylokv1.StatusRequest{Name: "held"}); err != nil {
		t.Errorf("from a third address: %v", err)
	}
	if grown := p.rss(t) - before; grown > 512<<20 { // of which the race detector takes the most
		t.Errorf("the server has grown by %d bytes", grown)
	}
	stop()
	attack.Wait()
	t.Logf("%d connections, refusals: %v, grown by %d MiB", connected, refused.of, (p.rss(t)-before)>>20)
}
