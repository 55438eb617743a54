package history

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

const (
	manyWaiters = 10_000
	fewWaiters  = 100
	fewRounds   = 10
	sharedConns = 8

	// Bounds that a busy machine keeps too. What is measured is logged.
	maxBytesPerWaiter = 64 << 10
	maxCPURatio       = 3.0
	maxHandOverRatio  = 20.0 // to an empty call
)

// TestManyWaiters: 10,000 requests wait for one lock. They are granted in the order
// they came, in bounded memory, and a hand-over among many takes no more of the
// server than one among few.
func TestManyWaiters(t *testing.T) {
	if raceEnabled {
		withoutRace(t)
		return
	}
	daemon := startForTest(t)
	crowd := &crowd{pid: daemon.cmd.Process.Pid}
	for range sharedConns {
		conn, err := grpc.NewClient(daemon.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		crowd.clients = append(crowd.clients, pylokv1.NewLockServiceClient(conn))
		crowd.health = healthv1.NewHealthClient(conn)
	}
	empty, cycle := crowd.calls(t)

	var few line
	for i := range fewRounds {
		few.add(crowd.serve(t, fmt.Sprint("few/", i), fewWaiters))
	}
	many := crowd.serve(t, "many", manyWaiters)

	bytesPerWaiter := many.bytes / manyWaiters
	cpuRatio := float64(many.cpuPerHandOver()) / float64(few.cpuPerHandOver())
	handOver := median(many.afterCall)
	t.Logf("an empty call takes %v at the median, Lock and Unlock together %v", empty, cycle)
	t.Logf("%d waiters: from the call of Unlock to the next grant %v at the median, %v at the 99th percentile; from its answer %v; server CPU for each hand-over %v",
		fewWaiters, median(few.afterCall), percentile(few.afterCall, 99), median(few.afterAnswer), few.cpuPerHandOver())
	t.Logf("%d waiters: from the call of Unlock to the next grant %v at the median, %v at the 99th percentile; from its answer %v; server CPU for each hand-over %v (%.2f times)",
		manyWaiters, handOver, percentile(many.afterCall, 99), median(many.afterAnswer), many.cpuPerHandOver(), cpuRatio)
	t.Logf("%d waiters: queued in %v, served in %v, %d bytes of the server's resident memory for each", manyWaiters, many.queued.Round(time.Millisecond), many.served.Round(time.Millisecond), bytesPerWaiter)
	if bytesPerWaiter > maxBytesPerWaiter {
		t.Errorf("a waiter takes %d bytes of the server's memory, want at most %d", bytesPerWaiter, maxBytesPerWaiter)
	}
	if cpuRatio > maxCPURatio {
		t.Errorf("a hand-over among %d waiters takes %.1f times the CPU of one among %d, want at most %.1f", manyWaiters, cpuRatio, fewWaiters, maxCPURatio)
	}
	if ratio := float64(handOver) / float64(empty); ratio > maxHandOverRatio {
		t.Errorf("a hand-over takes %v, %.0f times as long as an empty call; want at most %.0f", handOver, ratio, maxHandOverRatio)
	}
}

// withoutRace runs the test again without the race detector, which would be what it
// measures.
func withoutRace(t *testing.T) {
	build(t) // to be run again when the product changes
	command := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-count=1", "-v", "-run", "^"+t.Name()+"$", ".")
	output, err := command.CombinedOutput()
	t.Logf("%s", output)
	if err != nil {
		t.Errorf("%v: %v", command, err)
	}
}

// crowd are clients that share some connections.
type crowd struct {
	pid     int // of the server
	clients []pylokv1.LockServiceClient
	health  healthv1.HealthClient
}

// line is what was measured of waiters that were served.
type line struct {
	afterCall   []time.Duration // from the call of Unlock to the next grant
	afterAnswer []time.Duration // from its answer
	cpu         time.Duration   // of the server, to serve all
	bytes       int             // more that the server had with all in line
	queued      time.Duration   // to get all in line
	served      time.Duration   // to serve all
}

func (l *line) add(other line) {
	l.afterCall = append(l.afterCall, other.afterCall...)
	l.afterAnswer = append(l.afterAnswer, other.afterAnswer...)
	l.cpu += other.cpu
}

func (l *line) cpuPerHandOver() time.Duration { return l.cpu / time.Duration(len(l.afterCall)) }

// calls measures an empty call, and an uncontended Lock with its Unlock.
func (c *crowd) calls(t *testing.T) (empty, cycle time.Duration) {
	var empties, cycles []time.Duration
	for range 1000 {
		began := time.Now()
		if _, err := c.health.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		empties = append(empties, time.Since(began))
	}
	for range 300 {
		began := time.Now()
		locked, err := c.clients[0].Lock(t.Context(), &pylokv1.LockRequest{Name: "cycle"})
		if err != nil {
			t.Fatal(err)
		}
		c.unlock(t, locked.GetLock())
		cycles = append(cycles, time.Since(began))
	}
	return median(empties), median(cycles)
}

func (c *crowd) unlock(t *testing.T, l *pylokv1.Lock) {
	t.Helper()
	if _, err := c.clients[0].Unlock(t.Context(), &pylokv1.UnlockRequest{Name: l.GetName(), Token: l.GetToken()}); err != nil {
		t.Fatal(err)
	}
}

// serve lets n requests stand in line, one after the other, and then each take the
// lock and give it on at once.
func (c *crowd) serve(t *testing.T, name string, n int) (l line) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	held, err := c.clients[0].Lock(ctx, &pylokv1.LockRequest{Name: name, Holder: "first"})
	if err != nil {
		t.Fatal(err)
	}
	type turn struct {
		waiter                     int
		granted, releasing, answer time.Time
	}
	var mu sync.Mutex
	turns := make([]turn, 0, n)
	var waiting sync.WaitGroup
	bytes := rss(t, c.pid)
	began := time.Now()
	for i := range n {
		client := c.clients[i%len(c.clients)]
		waiting.Go(func() {
			response, err := client.Lock(ctx, &pylokv1.LockRequest{
				Name:      name,
				Holder:    fmt.Sprint("waiter-", i),
				Wait:      durationpb.New(time.Hour),
				RequestId: fmt.Sprint("request-", i),
			})
			granted := time.Now()
			if err != nil {
				t.Errorf("waiter %d: %v", i, err)
				cancel()
				return
			}
			releasing := time.Now()
			_, err = client.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: response.GetLock().GetToken()})
			answer := time.Now()
			if err != nil {
				t.Errorf("waiter %d: %v", i, err)
				cancel()
				return
			}
			mu.Lock()
			defer mu.Unlock()
			turns = append(turns, turn{i, granted, releasing, answer})
		})
		for {
			response, err := c.clients[0].Status(ctx, &pylokv1.StatusRequest{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			if int(response.GetLock().GetWaiters()) == i+1 {
				break
			}
		}
	}
	l.queued = time.Since(began)
	l.bytes = rss(t, c.pid) - bytes
	cpu := cpuTime(t, c.pid)
	began = time.Now()
	c.unlock(t, held.GetLock())
	waiting.Wait()
	l.served = time.Since(began)
	l.cpu = cpuTime(t, c.pid) - cpu
	if t.Failed() {
		t.FailNow()
	}
	slices.SortFunc(turns, func(a, b turn) int { return a.granted.Compare(b.granted) })
	for i, turn := range turns {
		if turn.waiter != i {
			t.Fatalf("of %d waiters for %s, number %d was granted the lock as number %d", n, name, turn.waiter, i)
		}
		if i > 0 {
			l.afterCall = append(l.afterCall, turn.granted.Sub(turns[i-1].releasing))
			l.afterAnswer = append(l.afterAnswer, max(0, turn.granted.Sub(turns[i-1].answer)))
		}
	}
	return l
}

func median(of []time.Duration) time.Duration { return percentile(of, 50) }

func percentile(of []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)-1)*percent/100].Round(time.Microsecond)
}

// rss is the resident memory of a process, in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Skipf("NOT TESTED: there is no /proc here: %v", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// cpuTime is what a process has used of the processors, in steps of 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, field := range fields[11:13] { // user and system
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
