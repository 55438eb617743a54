package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pylok/pylok/internal/load"
)

func TestMain(m *testing.M) {
	if server := os.Getenv(childEnv); server != "" {
		main() // the tests' own program is the server then
		return
	}
	os.Exit(m.Run())
}

// Every contender once, at a tiny size, and the scale part. The figures mean nothing.
func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "report.json")
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), []string{
		"-dir", filepath.Join(dir, "data"), "-json", file,
		"-rounds", "1", "-seconds", "0.05", "-callers", "1,4", "-waiters", "1,3", "-subscribers", "1,5",
		"-scale", "-locks", "100,300", "-leases", "1,50", "-ttl", "1s", "-others", "1,150",
	}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("run: %v\n%s", err, &stderr)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		what       string
		sizes      []int
		contenders string
	}{
		{load.RowCycles, []int{1, 4}, "pylok empty etcd redis files"},
		{load.RowReads, []int{1, 4}, "pylok empty etcd redis files"},
		{load.RowHandOver, []int{1, 3}, "pylok etcd redis"},
		{load.RowDeliveries, []int{1, 5}, "pylok etcd redis"},
		{dataSync, []int{1}, "files"},
	} {
		for _, size := range want.sizes {
			for contender := range strings.FieldsSeq(want.contenders) {
				row := got.row(want.what, size, contender)
				if row == nil || len(row.Rounds) != 1 || row.Rounds[0].Count < 1 || row.Rounds[0].PerSecond <= 0 {
					t.Errorf("the report's row %s %d of %s is %+v, want a round with a rate", want.what, size, contender, row)
				}
			}
		}
	}
	if len(got.Locks) != 2 || got.Locks[1].Cycles.Count == 0 || got.Locks[1].StartKilled <= 0 {
		t.Errorf("the report's part on held locks is %+v", got.Locks)
	}
	if len(got.Beside) != 6 || got.Beside[1].Others != 150 || got.Beside[1].Cycles.Count == 0 {
		t.Errorf("the report's part on others is %+v", got.Beside)
	}
	if len(got.Leases) != 2 || got.Leases[1].Renew.Count < 50 {
		t.Errorf("the report's part on leases is %+v", got.Leases)
	}
	for _, want := range []string{"| Lock+Unlock", "| reached", "| held locks", "| leases"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("what is printed has no %q:\n%s", want, &stdout)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "data*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if children := childProcesses(t); len(children) > 0 {
		t.Errorf("servers that still run: %v", children)
	}
}

// childProcesses returns the ids of this program's children.
func childProcesses(t *testing.T) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

// When a daemon does not start, the benchmark says what it said.
func TestServerThatDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "pylokd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 'no such luck' >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), []string{"-dir", filepath.Join(dir, "data"), "-only", "empty,pylok", "-pylokd", program}, new(bytes.Buffer), new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("got %v, want what pylokd wrote", err)
	}
	if children := childProcesses(t); len(children) > 0 {
		t.Errorf("servers that still run: %v", children)
	}
}

func TestGoals(t *testing.T) {
	r := &report{}
	for i := range 3 {
		noise := 1 + float64(i)/100
		r.add(load.RowCycles, 1, "pylok", sample{PerSecond: 3000 * noise, FirstP50: 300e-6})
		r.add(load.RowCycles, 1, "etcd", sample{PerSecond: 1000 * noise})
		r.add(load.RowCycles, 16, "pylok", sample{PerSecond: 5000 * noise})
		r.add(load.RowCycles, 16, "etcd", sample{PerSecond: 4000 * noise})
		r.add(load.RowReads, 1, "empty", sample{P50: 150e-6})
		r.add(dataSync, 1, "files", sample{P50: 100e-6})
		r.add(load.RowHandOver, 16, "pylok", sample{P50: 2e-3})
	}
	r.Leases = []leaseScale{{Leases: 100_000, TTL: 30, Cores: 0.4}}
	var yes, no, unknown int
	for _, g := range r.goals() {
		switch {
		case g.found == "":
			unknown++
		case g.reached:
			yes++
		default:
			no++
		}
	}
	// Reached: 3 times etcd at 1 caller, 50 µs over call and sync, the leases.
	if yes != 3 || no != 2 || unknown != 11 {
		t.Errorf("%d goals reached, %d missed, %d unknown; want 3, 2, 11:\n%+v", yes, no, unknown, r.goals())
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{3, 1}, spread{2, 1, 3}},
		{[]float64{9, 1, 5}, spread{5, 1, 9}},
	} {
		order := slices.Clone(test.values)
		if got := spreadOf(test.values); got != test.want || !slices.Equal(order, test.values) {
			t.Errorf("spreadOf(%v) = %v, want %v", order, got, test.want)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{duration(1.5e-6), "1.5 µs"},
		{duration(0.0123), "12.3 ms"},
		{duration(2), "2 s"},
		{spread{2, 1, 3}.format(times), "2.00 (1.00-3.00)"},
		{spread{}.format(times), ""},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestOwnCPU(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	x := 0.0
	for i := range 100_000_000 {
		x += math.Sqrt(float64(i))
	}
	after, err := cpuOf(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("CPU time %v, then %v after some work (%v), %v", before, after, fmt.Sprint(x)[:1], err)
	}
	if memory, err := rssOf(os.Getpid()); err != nil || memory < 1<<20 {
		t.Errorf("RSS %d, %v; want some MiB", memory, err)
	}
}
