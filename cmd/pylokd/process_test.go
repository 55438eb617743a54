package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/testcert"
)

// asProgram in the environment makes the test binary be pylokd.
const asProgram = "TEST_BINARY_IS_PYLOKD"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// startTimeout is how long a daemon may take to begin or to end in a test; a loaded
// machine with the race detector is slow.
const startTimeout = 60 * time.Second

// process is a pylokd that runs.
type process struct {
	*exec.Cmd
	root, address string
	stderr        *output
	stdout        *bufio.Reader
	ended         chan struct{} // closed when it has
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.news != nil {
		close(o.news)
		o.news = nil
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wait waits until the output has a substring.
func (o *output) wait(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(startTimeout)
	for {
		o.mu.Lock()
		text := o.text.String()
		if o.news == nil {
			o.news = make(chan struct{})
		}
		news := o.news
		o.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-news:
		case <-timeout:
			t.Fatalf("got no %q in %q", want, text)
		}
	}
}

func command(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append([]string{
		asProgram + "=1",
		"HOME=" + t.TempDir(),
		"PYLOKD_SOCKET=none",       // as for root the default is the machine's
		"GORACE=atexit_sleep_ms=0", // else the race detector sleeps a second at the end
	}, env...)
	return cmd
}

// start starts a pylokd and waits until it serves.
func start(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: command(t, env, args...), stderr: &output{}, ended: make(chan struct{})}
	p.Stderr = p.stderr
	p.begin(t)
	return p
}

// begin starts the process and waits until it serves.
func (p *process) begin(t testing.TB) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdout = writer
	p.stdout = bufio.NewReader(reader)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	go func() {
		p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.ended
		reader.Close()
		if t.Failed() && p.stderr != nil {
			t.Logf("stderr of pylokd %q:\n%s", p.Args[1:], p.stderr)
		}
	})
	if err := reader.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("got no line on stdout: %v; stderr %q", err, p.stderr)
	}
	rest, ok := strings.CutPrefix(line, "pylokd: serving ")
	if !ok {
		t.Fatalf("got %q on stdout, want pylokd: serving ROOT on ADDRESS", line)
	}
	p.root, p.address, _ = strings.Cut(strings.TrimSuffix(rest, "\n"), " on ")
}

// stop sends SIGTERM, and checks that the process ends cleanly, which it does only within
// stopLimit, and without a further word on stdout.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(startTimeout):
		t.Fatalf("it does not end after SIGTERM; stderr %q", p.stderr)
	}
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %v, want exit code 0; stderr %q", p.ProcessState, p.stderr)
	}
	if rest, err := io.ReadAll(p.stdout); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v on stdout too, want one line", rest, err)
	}
}

// client returns a client of the daemon on a connection of its own.
func (p *process) client(t *testing.T, credentials credentials.TransportCredentials) pylokv1.LockServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pylokv1.NewLockServiceClient(conn)
}

// fails runs a pylokd that does not come to serve, and returns what it says.
func fails(t *testing.T, code int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	cmd := command(t, nil, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer context.AfterFunc(ctx, func() { cmd.Process.Kill() })()
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("pylokd %q: got %v, want exit code %d", args, cmd.ProcessState, code)
	}
	if stdout.Len() > 0 {
		t.Errorf("pylokd %q: got %q on stdout, want nothing", args, &stdout)
	}
	if !strings.HasPrefix(stderr.String(), "pylokd: ") && !strings.Contains(stderr.String(), "\npylokd: ") {
		t.Errorf("pylokd %q: got stderr %q, want a line that begins with pylokd:", args, &stderr)
	}
	return stderr.String()
}

func says(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("got %q, want %q in it", text, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for flag, wants := range map[string][]string{
		"--help":    {"--root DIR", "127.0.0.1:5625", "PYLOKD_", "/var/lib/pylok/locks", "SIGTERM", "90d,1GiB", "--state-dir DIR", "--accept-restore"},
		"--version": {"pylokd "},
	} {
		stdout, err := command(t, []string{"HOME=/home/alice"}, flag).Output()
		if err != nil {
			t.Errorf("%s: %v", flag, err)
		}
		says(t, string(stdout), wants...)
		for line := range strings.Lines(string(stdout)) {
			if len(line) > 81 {
				t.Errorf("%s: %q is longer than 80 columns", flag, line)
			}
		}
	}
	says(t, fails(t, 2, "--no-such-flag"), "no-such-flag", "--help")
}

func TestRefusesToListenBeyondLoopback(t *testing.T) {
	says(t, fails(t, 2, "--root", t.TempDir(), "--listen", "0.0.0.0:0"), "0.0.0.0:0", "--tls-cert", "--tls-key", "--insecure")
	says(t, fails(t, 2, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--pprof", "0.0.0.0:0"), "--pprof", "loopback")

	p := start(t, nil, "--root", t.TempDir(), "--listen", "0.0.0.0:0", "--insecure")
	p.stop(t)
}

// certificate writes a new certificate for 127.0.0.1 and its key; the pool trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	authority := testcert.New(t)
	pair := authority.Server(testcert.Options{})
	return pair.CertFile, pair.KeyFile, authority.Pool()
}

func TestTLS(t *testing.T) {
	cert, key, pool := certificate(t)
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	client := p.client(t, credentials.NewTLS(&tls.Config{RootCAs: pool}))
	if _, err := client.Info(t.Context(), &pylokv1.InfoRequest{}); err != nil {
		t.Errorf("with TLS: %v", err)
	}
	if _, err := p.client(t, insecure.NewCredentials()).Info(t.Context(), &pylokv1.InfoRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("without TLS: got %v, want it refused", err)
	}
	p.stop(t)

	says(t, fails(t, 1, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", cert), cert, "has no private key")
}

// TestStopWithOpenStreams ends watches and waiters, in spite of clients that hang,
// and finds the hold again at the next start.
func TestStopWithOpenStreams(t *testing.T) {
	const watches = 60
	root := t.TempDir()
	p := start(t, nil, "--root", root, "--listen", "127.0.0.1:0")
	client := p.client(t, insecure.NewCredentials())
	ctx := t.Context()
	held, err := client.Lock(ctx, &pylokv1.LockRequest{Name: "a", Holder: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan codes.Code, watches+1)
	for range watches {
		stream, err := client.Watch(ctx, &pylokv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			_, err := stream.Recv()
			ends <- status.Code(err)
		}()
	}
	go func() {
		_, err := client.Lock(ctx, &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(time.Hour)})
		ends <- status.Code(err)
	}()
	for waiters := uint32(0); waiters == 0; {
		response, err := client.Status(ctx, &pylokv1.StatusRequest{Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		waiters = response.GetLock().GetWaiters()
	}
	silent, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	p.stop(t)
	for range watches + 1 {
		if code := <-ends; code != codes.Unavailable {
			t.Errorf("a stream ended with %v, want %v", code, codes.Unavailable)
		}
	}

	p = start(t, nil, "--root", root, "--listen", "127.0.0.1:0")
	again, err := p.client(t, insecure.NewCredentials()).Status(ctx, &pylokv1.StatusRequest{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if again.GetLock().GetToken() != held.GetLock().GetToken() || again.GetLock().GetHolder() != "alice" {
		t.Errorf("after the restart: got %v, want %v", again.GetLock(), held.GetLock())
	}
	p.stop(t)
}

// TestRestoredCopy puts an older copy of a root back: the state directory, by default in
// the home, tells it, and --accept-restore serves it with tokens above all from before.
func TestRestoredCopy(t *testing.T) {
	ctx := t.Context()
	root, home := filepath.Join(t.TempDir(), "locks"), []string{"HOME=" + t.TempDir()}
	serve := func(args ...string) uint64 {
		t.Helper()
		p := start(t, home, append([]string{"--root", root, "--listen", "127.0.0.1:0"}, args...)...)
		var token uint64
		for range 5 {
			c := p.client(t, insecure.NewCredentials())
			held, err := c.Lock(ctx, &pylokv1.LockRequest{Name: "a"})
			if err != nil {
				t.Fatal(err)
			}
			token = held.GetLock().GetToken()
			if _, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: "a", Token: token}); err != nil {
				t.Fatal(err)
			}
		}
		p.stop(t)
		return token
	}
	serve()
	if err := os.CopyFS(root+".copy", os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	highest := serve()
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(root, os.DirFS(root+".copy")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, ".pylok"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--listen=127.0.0.1:0", "--check"} {
		var out bytes.Buffer
		refused := command(t, home, "--root", root, flag)
		refused.Stdout, refused.Stderr = &out, &out
		if err := refused.Run(); err == nil {
			t.Errorf("with %s an older copy is well", flag)
		}
		says(t, out.String(), root, "older copy", "--accept-restore")
	}
	if token := serve("--accept-restore"); token <= highest {
		t.Errorf("the token is %d, want one above %d", token, highest)
	}
	serve()
}

// TestSecondSignal: somebody who connects and says nothing draws a stop out; whoever
// is in a hurry sends the signal again. Also where SIGINT is ignored at the start, as a
// shell has it for what it starts in the background.
func TestSecondSignal(t *testing.T) {
	for _, test := range []struct {
		trap string // what the shell does before it becomes pylokd
		want func(syscall.WaitStatus) bool
	}{
		{"trap - INT", func(s syscall.WaitStatus) bool {
			return s.Signaled() && s.Signal() == syscall.SIGINT || s.ExitStatus() == 130 && signal.Ignored(syscall.SIGINT)
		}},
		{"trap '' INT", func(s syscall.WaitStatus) bool { return s.ExitStatus() == 130 }},
	} {
		t.Run(test.trap, func(t *testing.T) {
			inner := command(t, nil)
			p := &process{Cmd: exec.Command("/bin/sh", "-c", test.trap+`; exec "$0" "$@"`, inner.Path, "--root", t.TempDir(), "--listen", "127.0.0.1:0"), stderr: &output{}, ended: make(chan struct{})}
			p.Env, p.Stderr = inner.Env, p.stderr
			p.begin(t)
			silent, err := net.Dial("tcp", p.address)
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			// Connections are accepted in order: once one that came later is served,
			// the daemon waits for the silent one.
			if _, err := p.client(t, insecure.NewCredentials()).Info(t.Context(), &pylokv1.InfoRequest{}); err != nil {
				t.Fatal(err)
			}
			if err := p.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			p.stderr.wait(t, "stopping")
			for ended := false; !ended; {
				p.Process.Signal(syscall.SIGINT)
				select {
				case <-p.ended:
					ended = true
				case <-time.After(time.Millisecond):
				}
			}
			if s, ok := p.ProcessState.Sys().(syscall.WaitStatus); !ok || !test.want(s) {
				t.Errorf("it ended with %v, want it ended by the second signal", p.ProcessState)
			}
		})
	}
}

func TestOneDaemonForARoot(t *testing.T) {
	root := t.TempDir()
	p := start(t, nil, "--root", root, "--listen", "127.0.0.1:0")
	says(t, fails(t, 1, "--root", root, "--listen", "127.0.0.1:0"), root, fmt.Sprintf("process %d", p.Process.Pid))
	says(t, fails(t, 1, "--root", t.TempDir(), "--listen", p.address), p.address+" is in use", "--listen")
	p.stop(t)
}

func TestRootsThatCannotBeServed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{file, filepath.Join(file, "below"), "/proc/pylok", "/sys/pylok"} {
		t.Run(root, func(t *testing.T) {
			says(t, fails(t, 1, "--root", root, "--listen", "127.0.0.1:0"), root)
		})
	}
}

func TestProfiles(t *testing.T) {
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--pprof", "127.0.0.1:0", "--log-format", "json")
	p.stderr.wait(t, "serving profiles")
	_, rest, _ := strings.Cut(p.stderr.String(), `"url":"`)
	url, _, _ := strings.Cut(rest, `"`)
	response, err := http.Get(url + "goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	says(t, string(body), "goroutine profile:")
	p.stop(t)
}
