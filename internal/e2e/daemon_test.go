// Package e2e tests pylokd as it is delivered: the real program, a real file system,
// gRPC over loopback, processes that are killed and disks that lose their power.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// patience is how long anything may take that is not measured; a loaded machine
// with the race detector is slow.
const patience = time.Minute

// slack is what is added to a time that the server promises, for machines that have
// other things to do.
const slack = 8 * time.Second

// programs is the directory of the programs that the tests build.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "pylok-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(programs)
		return m.Run()
	}())
}

// program is a pylokd that the tests build when they first need it.
type program struct {
	name string
	race bool // with the race detector where the tests have it
	// edits are made to the source, for this build alone: a test that is to
	// find faults is tried on a program that has one.
	edits []edit
	once  sync.Once
	err   error
}

// edit is a change of the source; old stands there exactly once.
type edit struct{ file, old, new string }

var (
	// delivered is pylokd as users have it.
	delivered = &program{name: "pylokd", race: true}
	// measured is the same without the race detector, which costs time.
	measured = &program{name: "pylokd-measured"}
)

// path builds the program, once, and returns where it is.
func (p *program) path(t *testing.T) string {
	t.Helper()
	// go test runs these tests again only when a file has changed that they are
	// known to read, and it does not know what go build reads: tell it.
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // of a test that runs beside this one
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2:
			return fs.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"), entry.Name() == "go.mod":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.once.Do(func() { p.err = p.build() })
	if p.err != nil {
		t.Fatal(p.err)
	}
	return filepath.Join(programs, p.name)
}

func (p *program) build() error {
	args := []string{"build", "-o", filepath.Join(programs, p.name)}
	if p.race && raceEnabled {
		args = append(args, "-race")
	}
	if len(p.edits) > 0 {
		overlay, err := p.overlay()
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	output, err := exec.Command("go", append(args, "../../cmd/pylokd")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("building %s: %v\n%s", p.name, err, output)
	}
	return nil
}

// overlay writes what go build's -overlay reads: files to take in place of others.
func (p *program) overlay() (string, error) {
	replace := make(map[string]string)
	for i, e := range p.edits {
		original, err := filepath.Abs(filepath.Join("../..", e.file))
		if err != nil {
			return "", err
		}
		text, err := os.ReadFile(original)
		if err != nil {
			return "", err
		}
		if n := bytes.Count(text, []byte(e.old)); n != 1 {
			return "", fmt.Errorf("%s has %q %d times, and %s is to be built with a change of the only one: tell this test where it is now", e.file, e.old, n, p.name)
		}
		if replace[original] != "" {
			return "", fmt.Errorf("%s: two edits of %s", p.name, e.file)
		}
		replace[original] = filepath.Join(programs, fmt.Sprintf("%s-%d.go", p.name, i))
		if err := os.WriteFile(replace[original], bytes.Replace(text, []byte(e.old), []byte(e.new), 1), 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(programs, p.name+".overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

// daemon is a pylokd that runs.
type daemon struct {
	cmd     *exec.Cmd
	root    string
	address string
	log     *tail
	ended   chan struct{} // closed when it has
	conn    *grpc.ClientConn
	client  pylokv1.LockServiceClient
}

// start starts a program on a root and waits until it serves.
func start(t *testing.T, p *program, root string, args ...string) *daemon {
	t.Helper()
	d, err := tryStart(t, p, root, args...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tryStart is start for a daemon that may fail.
func tryStart(t *testing.T, p *program, root string, args ...string) (*daemon, error) {
	t.Helper()
	return tryStartWithin(t, patience, p, root, args...)
}

// tryStartWithin is tryStart for a daemon that may have much to do first.
func tryStartWithin(t *testing.T, limit time.Duration, p *program, root string, args ...string) (*daemon, error) {
	t.Helper()
	d := launch(t, p.path(t), root, args...)
	if err := d.awaitReady(limit); err != nil {
		d.kill()
		return nil, fmt.Errorf("pylokd does not serve: %w\n%s", err, d.log)
	}
	var err error
	if d.conn, err = dial(d.address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.conn.Close() })
	d.client = pylokv1.NewLockServiceClient(d.conn)
	return d, nil
}

// launch starts a program and waits for nothing.
func launch(t *testing.T, path, root string, args ...string) *daemon {
	t.Helper()
	args = append([]string{"--root", root, "--state-dir", root + ".state", "--listen", "127.0.0.1:0", "--socket", "none", "--log-level", "warn"}, args...)
	d := &daemon{cmd: exec.Command(path, args...), root: root, log: &tail{ready: make(chan struct{})}, ended: make(chan struct{})}
	d.cmd.Env = []string{"GORACE=atexit_sleep_ms=0 halt_on_error=1"}
	d.cmd.Stdout, d.cmd.Stderr = (*stdout)(d.log), d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("log of pylokd, process %d:\n%s", d.cmd.Process.Pid, d.log)
		}
		if strings.Contains(d.log.String(), "DATA RACE") {
			t.Errorf("pylokd has a data race:\n%s", d.log)
		}
	})
	return d
}

func (d *daemon) awaitReady(limit time.Duration) error {
	select {
	case <-d.log.ready:
	case <-d.ended:
		return fmt.Errorf("it has ended: %v", d.cmd.ProcessState)
	case <-time.After(limit):
		return fmt.Errorf("it says nothing within %v", limit)
	}
	line, _ := bufio.NewReader(strings.NewReader(d.log.line())).ReadString('\n')
	rest, ok := strings.CutPrefix(line, "pylokd: serving ")
	root, address, found := strings.Cut(strings.TrimSpace(rest), " on ")
	if !ok || !found || root != d.root {
		return fmt.Errorf("got %q on stdout", line)
	}
	d.address = address
	return nil
}

// kill ends the daemon at once, as kill -9.
func (d *daemon) kill() {
	d.cmd.Process.Kill() // it may have ended already
	<-d.ended
}

// stop ends the daemon cleanly.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("pylokd has ended: %v, %v\n%s", err, d.cmd.ProcessState, d.log)
	}
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Fatal("pylokd does not stop")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("pylokd ended with %v", d.cmd.ProcessState)
	}
}

// dial returns a connection of its own.
func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, dialOptions()...)
}

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond},
			MinConnectTimeout: 10 * time.Second,
		}),
	}
}

// newClient returns a client with a connection of its own.
func newClient(t *testing.T, address string) pylokv1.LockServiceClient {
	t.Helper()
	conn, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pylokv1.NewLockServiceClient(conn)
}

// tail keeps the end of what a process writes to stderr, and its first line on stdout.
type tail struct {
	mu    sync.Mutex
	text  []byte
	first []byte
	ready chan struct{} // closed when there is a first line
}

const tailBytes = 256 << 10

// Write implements io.Writer.
func (o *tail) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if len(o.text) > 2*tailBytes {
		o.text = append(o.text[:0], o.text[len(o.text)-tailBytes:]...)
	}
	return len(p), nil
}

func (o *tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text[max(0, len(o.text)-tailBytes):])
}

func (o *tail) line() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.first)
}

type stdout tail

// Write implements io.Writer.
func (o *stdout) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !bytes.Contains(o.first, []byte("\n")) {
		o.first = append(o.first, p...)
		if bytes.Contains(o.first, []byte("\n")) {
			close(o.ready)
		}
	}
	return len(p), nil
}

// within polls until done, and returns what it says last if it never is. It is for
// what no event tells.
func within(ctx context.Context, limit time.Duration, done func() (problem string)) (took time.Duration, problem string) {
	began := time.Now()
	for {
		problem = done()
		took = time.Since(began)
		if problem == "" || took > limit || ctx.Err() != nil {
			return took, problem
		}
		time.Sleep(10 * time.Millisecond)
	}
}
