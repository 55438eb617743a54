package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/isolate"
	"github.com/pylok/pylok/internal/testcert"
)

// refuse has the server log many refused calls, and checks that it answers each.
func (p *process) refuse(t *testing.T, calls int) {
	t.Helper()
	client := p.client(t, insecure.NewCredentials())
	var running sync.WaitGroup
	for range 16 {
		running.Go(func() {
			for range calls / 16 {
				// Each makes a line of more than 300 bytes.
				_, err := client.Status(t.Context(), &pylokv1.StatusRequest{Name: strings.Repeat("x/", 300)})
				if status.Code(err) != codes.InvalidArgument {
					t.Errorf("Status: %v, want %v", err, codes.InvalidArgument)
					return
				}
			}
		})
	}
	running.Wait()
}

// unread is how many refused calls make more lines than a pipe and the queue hold.
const unread = maxLines + 1024

// TestNoFlags starts a pylokd as README.md does, on the default address of a network that is
// the test's own.
func TestNoFlags(t *testing.T) {
	if !isolate.EnterNetwork(t) {
		return
	}
	home := t.TempDir()
	p := start(t, []string{"HOME=" + home})
	if want := filepath.Join(home, ".local/state/pylok/locks"); p.root != want || p.address != "127.0.0.1:5625" {
		t.Errorf("got %s on %s, want %s on 127.0.0.1:5625", p.root, p.address, want)
	}
	client := p.client(t, insecure.NewCredentials())
	response, err := client.Lock(t.Context(), &pylokv1.LockRequest{Name: "lb/web-1", Holder: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.root, "lb/web-1.lock")
	if got := response.GetLock().GetLockFileLocation(); got != file {
		t.Errorf("lock_file_location: got %s, want %s", got, file)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the lock file: %v", err)
	}
	info, err := client.Info(t.Context(), &pylokv1.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetRoot() != p.root || info.GetStore() != "file" || info.GetVersion() == "" {
		t.Errorf("Info: got %v", info)
	}
	p.stop(t)
}

// startLogging starts a pylokd that logs into a pipe, from which nobody reads yet.
func startLogging(t *testing.T) (*process, *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	p := &process{Cmd: command(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0"), ended: make(chan struct{})}
	p.Stderr = writer
	p.begin(t)
	writer.Close()
	return p, reader
}

// TestLogThatNobodyReads has the log go where nobody reads it, and where nobody can: the
// server answers, and stops, as ever.
func TestLogThatNobodyReads(t *testing.T) {
	for _, how := range []string{"stalled", "closed"} {
		t.Run(how, func(t *testing.T) {
			p, reader := startLogging(t)
			if how == "closed" {
				reader.Close()
			}
			p.refuse(t, unread)
			if how == "stalled" {
				// A reader that comes back is told what it has missed.
				text := make(chan string)
				go func() {
					var all bytes.Buffer
					var b [64 << 10]byte
					for !strings.Contains(all.String(), "lines of the log are missing here") {
						n, err := reader.Read(b[:])
						all.Write(b[:n])
						if err != nil {
							break
						}
					}
					text <- all.String()
					io.Copy(io.Discard, reader)
				}()
				for got := ""; got == ""; { // the next line brings the note
					p.refuse(t, 16)
					select {
					case got = <-text:
						if !strings.Contains(got, "lines of the log are missing here") {
							t.Errorf("the log ends without saying that lines are missing: %.200s", got)
						}
					default:
					}
				}
			}
			p.stop(t)
		})
	}
	t.Run("stalled to the end", func(t *testing.T) {
		p, _ := startLogging(t)
		p.refuse(t, unread)
		p.stop(t)
	})
}

// TestHangup sends SIGHUP: the server goes on, with the certificate that is there now, or,
// if that cannot be used, with the one that it has.
func TestHangup(t *testing.T) {
	hangup := func(p *process) {
		t.Helper()
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0")
	hangup(p)
	p.stderr.wait(t, "SIGHUP")
	p.refuse(t, 16)
	p.stop(t)

	cert, key, before := certificate(t)
	p = start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	works := func(credentials credentials.TransportCredentials) error {
		_, err := p.client(t, credentials).Info(t.Context(), &pylokv1.InfoRequest{})
		return err
	}
	newCert, newKey, after := certificate(t)
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	hangup(p)
	p.stderr.wait(t, "were read again")
	if err := works(credentials.NewTLS(&tls.Config{RootCAs: before})); err == nil {
		t.Error("after SIGHUP the old certificate is still there")
	}
	if err := works(credentials.NewTLS(&tls.Config{RootCAs: after})); err != nil {
		t.Errorf("after SIGHUP: %v", err)
	}
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup(p)
	p.stderr.wait(t, "has no certificate in PEM")
	if err := works(credentials.NewTLS(&tls.Config{RootCAs: after})); err != nil {
		t.Errorf("after SIGHUP with a bad certificate: %v", err)
	}
	p.stop(t)
}

// TestHangupAtTheStart sends SIGHUP to a server as soon as it is there.
func TestHangupAtTheStart(t *testing.T) {
	p := start(t, []string{"PYLOKD_VERSION=1.0.0", "PYLOKD_HELP=yes", "PYLOKD_CHECK=maybe"}, "--root", t.TempDir(), "--listen", "127.0.0.1:0")
	for range 10 {
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	p.refuse(t, 16)
	p.stop(t)
}

// TestHangupAtTheStop sends SIGHUP all the while a server stops, which is a clean stop.
func TestHangupAtTheStop(t *testing.T) {
	for range 5 {
		p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0")
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for p.Process.Signal(syscall.SIGHUP) == nil {
			runtime.Gosched()
		}
		<-p.ended
		if !p.ProcessState.Success() {
			t.Fatalf("it ended with %v, want exit code 0; the log:\n%s", p.ProcessState, p.stderr)
		}
	}
}

// TestCertificateThatHangs stops a server that is reading a certificate which does not
// come, at its start and after a hang-up.
func TestCertificateThatHangs(t *testing.T) {
	// pipe makes a file a pipe, and held waits until somebody reads it, and holds it open.
	pipe := func(t *testing.T, name string) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held := func(t *testing.T, name string) {
		for deadline := time.Now().Add(startTimeout); ; time.Sleep(time.Millisecond) {
			file, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			if err == nil {
				t.Cleanup(func() { file.Close() })
				return
			}
			if !errors.Is(err, syscall.ENXIO) || time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	t.Run("start", func(t *testing.T) {
		t.Parallel()
		cert, key, _ := certificate(t)
		pipe(t, cert)
		c := command(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(startTimeout, func() { c.Process.Kill() })
		defer timer.Stop()
		held(t, cert)
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if c.Wait(); c.ProcessState.ExitCode() != 1 {
			t.Errorf("it ended with %v, want exit code 1", c.ProcessState)
		}
	})
	t.Run("hang-up", func(t *testing.T) {
		t.Parallel()
		cert, key, _ := certificate(t)
		p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
		pipe(t, cert)
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		held(t, cert)
		p.stop(t)
	})
}

// TestKeyFromAPipe starts a server whose key comes by a pipe, as by a shell's <(...).
func TestKeyFromAPipe(t *testing.T) {
	cert, key, pool := certificate(t)
	inner := command(t, nil)
	p := &process{Cmd: exec.Command("bash", "-c", `exec "$0" --root "$1" --listen 127.0.0.1:0 --tls-cert "$2" --tls-key <(cat "$3")`, inner.Path, t.TempDir(), cert, key), stderr: &output{}, ended: make(chan struct{})}
	p.Env, p.Stderr = inner.Env, p.stderr
	p.begin(t)
	if _, err := p.client(t, credentials.NewTLS(&tls.Config{RootCAs: pool})).Info(t.Context(), &pylokv1.InfoRequest{}); err != nil {
		t.Error(err)
	}
	p.stop(t)
}

// TestLimitsOfTheStop: whatever hangs, the server ends within the time that --help tells.
func TestLimitsOfTheStop(t *testing.T) {
	if most := stopLimit + 3*sayLimit; most >= 10*time.Second {
		t.Errorf("a stop may take %v, want less than 10 s", most)
	}
}

// TestMismatchInTheLog has clients speak TLS where the server does not, and the other way.
func TestMismatchInTheLog(t *testing.T) {
	cert, key, _ := certificate(t)
	for _, test := range []struct {
		flags []string
		speak credentials.TransportCredentials
		want  string
	}{
		{nil, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}), "clients speak TLS"},
		{[]string{"--tls-cert", cert, "--tls-key", key}, insecure.NewCredentials(), "clients do not speak TLS"},
	} {
		p := start(t, nil, append([]string{"--root", t.TempDir(), "--listen", "127.0.0.1:0"}, test.flags...)...)
		if _, err := p.client(t, test.speak).Info(t.Context(), &pylokv1.InfoRequest{}); err == nil {
			t.Errorf("%s: it works", test.want)
		}
		p.stderr.wait(t, test.want)
		p.stop(t)
	}
}

// TestFewDescriptors serves with few descriptors, of which idle connections take as many as
// they get: the store has what it needs.
func TestFewDescriptors(t *testing.T) {
	root := t.TempDir()
	inner := command(t, nil)
	p := &process{Cmd: exec.Command("/bin/sh", "-c", `ulimit -n 128 && exec "$0" "$@"`, inner.Path, "--root", root, "--listen", "127.0.0.1:0"), stderr: &output{}, ended: make(chan struct{})}
	p.Env, p.Stderr = inner.Env, p.stderr
	p.begin(t)
	client := p.client(t, insecure.NewCredentials())
	if _, err := client.Info(t.Context(), &pylokv1.InfoRequest{}); err != nil {
		t.Fatal(err)
	}
	open := 0
	for range 300 {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open++
	}
	p.stderr.wait(t, "connections were refused")
	for i := range 50 {
		name := fmt.Sprintf("d%d/x", i)
		held, err := client.Lock(t.Context(), &pylokv1.LockRequest{Name: name})
		if err != nil {
			t.Fatalf("beside %d connections: %v", open, err)
		}
		if i%2 == 0 {
			if _, err := client.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: name, Token: held.GetLock().GetToken()}); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Remove(filepath.Join(root, name+".lock")); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) { // what was done by hand is seen
		l, err := client.Status(t.Context(), &pylokv1.StatusRequest{Name: "d49/x"})
		if err != nil {
			t.Fatal(err)
		}
		if l.GetLock().GetState() == pylokv1.LockState_LOCK_STATE_UNLOCKED {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a file that was removed is not seen")
		}
	}
	p.stop(t)
}

// TestLines is the queue of the log alone: what is written comes out in order, and what is
// missing is counted where it is missing.
func TestLines(t *testing.T) {
	reader, writer := io.Pipe()
	l := newLines(writer, func(dropped int) []byte { return fmt.Appendf(nil, "dropped %d\n", dropped) })
	const written = 3 * maxLines
	for i := range written {
		fmt.Fprintf(l, "line %d\n", i)
	}
	seen, missing := make(chan int), 0
	go func() {
		next := 0
		text, err := io.ReadAll(reader)
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(text)) {
			var n int
			if _, err := fmt.Sscanf(line, "dropped %d\n", &n); err == nil {
				next += n
				missing += n
				continue
			}
			if want := fmt.Sprintf("line %d\n", next); line != want {
				t.Errorf("got %q, want %q", line, want)
				break
			}
			next++
		}
		seen <- next
	}()
	for { // there is room again
		l.mu.Lock()
		waiting := len(l.queue)
		l.mu.Unlock()
		if waiting < maxLines/2 {
			break
		}
	}
	fmt.Fprintf(l, "line %d\n", written)
	l.close(startTimeout)
	writer.Close()
	if got := <-seen; got != written+1 || missing < written/2 {
		t.Errorf("told of %d lines, %d of them missing; want all %d", got, missing, written+1)
	}
	fails := newLines(brokenWriter{}, func(int) []byte { return []byte("note") })
	for range 10 {
		fmt.Fprint(fails, "x")
	}
	fails.close(startTimeout)
	if fails.dropped != 10 {
		t.Errorf("%d lines that could not be written are counted, want 10", fails.dropped)
	}
}

// TestLinesDroppedAtTheEnd: what is missing is told at the end too, when no line follows.
func TestLinesDroppedAtTheEnd(t *testing.T) {
	reader, writer := io.Pipe()
	l := newLines(writer, func(dropped int) []byte { return fmt.Appendf(nil, "dropped %d\n", dropped) })
	const written = 2 * maxLines
	for i := range written {
		fmt.Fprintf(l, "line %d\n", i)
	}
	text := make(chan string)
	go func() {
		all, err := io.ReadAll(reader)
		if err != nil {
			t.Error(err)
		}
		text <- string(all)
	}()
	l.close(startTimeout)
	writer.Close()
	got := <-text
	seen := strings.Count(got, "line ")
	if want := fmt.Sprintf("dropped %d\n", written-seen); !strings.HasSuffix(got, want) || seen == written {
		t.Errorf("of %d lines %d are there, and the last is %.40q; want %q", written, seen, got[strings.LastIndexByte(got[:len(got)-1], '\n')+1:], want)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

// TestCertificatesThatEnd lets certificates end while the server runs, and renews them
// without a word to it: the next look finds them.
func TestCertificatesThatEnd(t *testing.T) {
	authority, next := testcert.New(t), testcert.New(t)
	renewed, lasting := authority.Server(testcert.Options{}), authority.Client(testcert.Options{CommonName: "lasting"})
	clientCA := filepath.Join(t.TempDir(), "ca.pem")
	write(t, clientCA, authority.CertPEM)
	var p *process
	dial := func(pair *testcert.Pair) pylokv1.LockServiceClient {
		return p.client(t, credentials.NewTLS(&tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{pair.TLS()}}))
	}
	info := func(pair *testcert.Pair) error {
		_, err := dial(pair).Info(t.Context(), &pylokv1.InfoRequest{})
		return err
	}
	// Certificates that last until clients have connected, however slow the machine is.
	var server, short *testcert.Pair
	var connected, ending pylokv1.LockServiceClient
	for life := 3 * time.Second; ; life *= 2 {
		soon := time.Now().Add(life)
		server, short = authority.Server(testcert.Options{NotAfter: soon}), authority.Client(testcert.Options{CommonName: "short", NotAfter: soon})
		p = start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--tls-cert", server.CertFile, "--tls-key", server.KeyFile, "--tls-client-ca", clientCA, "--tls-client-cert", "require")
		connected, ending = dial(lasting), dial(short)
		_, err := connected.Info(t.Context(), &pylokv1.InfoRequest{})
		if err == nil {
			_, err = ending.Info(t.Context(), &pylokv1.InfoRequest{})
		}
		if err == nil {
			break
		}
		if life > startTimeout {
			t.Fatal(err)
		}
		p.stop(t)
	}
	p.stderr.wait(t, "ends in less than a week")
	for {
		if err := info(lasting); err != nil {
			says(t, err.Error(), "expired")
			break
		}
	}
	for {
		_, err := ending.Info(t.Context(), &pylokv1.InfoRequest{})
		if err == nil {
			continue
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("who is connected when its certificate ends gets %v", err)
		}
		break
	}
	if _, err := connected.Info(t.Context(), &pylokv1.InfoRequest{}); err != nil {
		t.Errorf("who is connected when the server's certificate ends gets %v", err)
	}
	write(t, server.CertFile, renewed.CertPEM)
	write(t, server.KeyFile, renewed.KeyPEM)
	p.stderr.wait(t, "files have changed: the certificates were read again") // at its next look
	if err := info(lasting); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	if err := info(short); status.Code(err) != codes.Unavailable {
		t.Errorf("a client whose certificate has ended gets %v", err)
	}
	p.stderr.wait(t, "clients show a certificate that does not verify")

	write(t, clientCA, next.CertPEM)
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := connected.Info(t.Context(), &pylokv1.InfoRequest{}); err != nil {
			break // cut off, and let in no more
		}
	}
	if err := info(next.Client(testcert.Options{CommonName: "other"})); err != nil {
		t.Errorf("a client of the other authority gets %v", err)
	}
	p.stop(t)
}
