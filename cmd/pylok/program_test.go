package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// serve runs a server for one test. It returns its address and what stops it, as
// a server does that is told to.
func serve(t *testing.T, implementation pylokv1.LockServiceServer, options ...grpc.ServerOption) (address string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	pylokv1.RegisterLockServiceServer(server, implementation)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	stop = sync.OnceFunc(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}

// serveMemory runs a real service that keeps its locks in memory.
func serveMemory(t *testing.T) (address string, stop func()) {
	t.Helper()
	store := memstore.New(memstore.Config{})
	manager, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	address, stop = serve(t, service.New(manager, service.Config{Store: "memory", Version: "test"}))
	t.Cleanup(func() {
		stop()
		manager.Close()
		store.Close()
	})
	return address, stop
}

// result is what came of a run of pylok.
type result struct {
	code           int
	stdout, stderr string
}

// pylok runs the command against the server at address.
func pylok(t *testing.T, address string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), append([]string{"--address", address}, args...), strings.NewReader(""), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// want checks a result: the exit code, and texts that stdout or stderr must have.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("the output does not have %q", text)
		}
	}
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct {
		args string // split at spaces
		want string
	}{
		{"lok", `there is no command "lok"; did you mean lock?`},
		{"frobnicate", `there is no command "frobnicate"; pylok --help lists them`},
		{"--frobnicate", "unknown flag: --frobnicate; pylok --help lists the flags"},
		{"info -o xml", "--output: the output can be text, json, yaml"},
		{"info --timeout 0", "--timeout must be more than 0"},
		{"info --timeout soon", `--timeout: "soon" is not a duration; write it like 90s, 30m, 1h30m or 7d`},
		{"info x", `pylok info takes no arguments; what is "x" for?`},
		{"info --address nowhere", `the address "nowhere" is not HOST:PORT`},
		{"info --address 192.0.2.1:5625", "192.0.2.1:5625 is another machine, and without TLS"},
		{"info --insecure --tls", "--insecure means no TLS"},
		{"info --ca /nowhere/ca.pem", "--ca: open /nowhere/ca.pem"},
		{"info --ca /dev/null", "--ca: /dev/null has no certificate"},
		{"lock", "give the name of a lock: pylok lock NAME"},
		{"lock ../etc/passwd", `"../etc/passwd" is not a lock name: segment 1 starts with '.'`},
		{"lock a//b", "it has an empty segment"},
		{"lock ünicode", `"ünicode" is not a lock name: segment 1 has the character 'ü'`},
		{"lock a.lock", "segment 1 ends in .lock"},
		{"lock a --ttl 5", `--ttl: "5" is not a duration`},
		{"lock a --ttl 0s", "--ttl must be more than 0"},
		{"lock a --ttl 5m --expire 18:00", "give --ttl or --expire, not both"},
		{"lock a --expire never", `--expire: "never" is not a time to end at; write '18:00'`},
		{"lock a --expire 2019-12-20T00:00:00Z", `--expire: "2019-12-20T00:00:00Z" is past`},
		{"lock a --ensure-unlock --overwrite", "contradict each other"},
		{"lock a --data b", "--data b is not KEY=VALUE, such as --data backend=App1"},
		{`lock a --data y={"a":1,}`, `--data y: {"a":1,} looks like JSON and is not: `},
		{`lock a --data y=[urgent]`, `--data y: [urgent] looks like JSON and is not: invalid character 'u' looking for beginning of value; to give it as text, write it in quotes as JSON does: "[urgent]"`},
		{`lock a --data y={a:1}`, `"{a:1}"`},
		{"lock a --data lock_token=5", "--data lock_token: this key is the server's own; leave it out"},
		{"lock a --data-file /nowhere/data", "--data-file: open /nowhere/data"},
		{"unlock", "give the name of a lock: pylok unlock NAME"},
		{"unlock a --force", "say why with --reason"},
		{"unlock a --token x", `--token: "x" is not a number that it can be`},
		{"unlock a --token -1", `--token: "-1" is not a number that it can be`},
		{"renew a", "pylok renew a --token N"},
		{"status", "give the name of a lock: pylok status NAME"},
		{"status a --ensure-lock --ensure-unlock", "contradict each other"},
		{"list a b", "quote a pattern"},
		{"list a***", "three stars together"},
		{"watch .a", "is not a pattern of lock names"},
		{"watch --exec=", "--exec needs a command to run"},
		{"watch --after x", `--after: "x" is not a number that it can be`},
		{"history --limit 0", "--limit must be at least 1"},
		{"history --limit -1", "--limit must be at least 1"},
		{"history --since someday", `--since: "someday" is not a time; write '2h' or '7d' ago`},
		{"history --since=", `--since: "" is not a time`},
		{"history --until 25:00", `--until: "25:00" is not a time`},
		{"history --since 2h --until 3h", "--since 2h is not before --until 3h"},
		{"history --cause rage", `--cause: "rage" is none; it is one of request, forced, expired, file`},
		{"run", "give the name of a lock: pylok run NAME -- COMMAND [ARG]..."},
		{"run -- true", "give the name of a lock: pylok run NAME -- COMMAND [ARG]..."},
		{"run a true", "write -- before the command: pylok run NAME -- COMMAND [ARG]..."},
		{"run a --", "give a command to run: pylok run NAME -- COMMAND [ARG]..."},
		{"run .a -- true", `".a" is not a lock name`},
		{"run a --ttl 0s -- true", "--ttl must be more than 0"},
		{"run a --grace 0s -- true", "--grace must be more than 0 and at most half of --ttl, which is 15s"},
		{"run a --ttl 1m --grace 31s -- true", "--grace must be more than 0 and at most half of --ttl, which is 1m"},
		{"run a --data-file - -- true", "the standard input is the command's"},
		{"run --any slot-1 slot-2 -- true", "--any slot-1 is no choice, beside others: quote the braces"},
		{"run a --reason x -- true", "--reason is for --through-freeze and --replace-stale here"},
		{"run a --token 0 -- true", "--token 0 is no hold's"},
		{"run a b --token 5 -- true", "--token is for one hold; give one name"},
		{"run a --token 5 --shared -- true", "--token is for a hold that there is, and --shared for taking one"},
		{"run a --token 5 --keep-on-failure -- true", "--token leaves the hold to whoever has taken it"},
		{"run a --token 5 --grace 0s -- true", "--grace must be more than 0"},
		{"lock --any 3", "--any \"3\": give the names to choose from"},
		{"lock --any 3 a b", "--any \"3\": 3 of 2 names cannot be had"},
		{"lock --any 0 a b", "--any \"0\": 0 of 2 names cannot be had"},
		{"lock a{b}", "{b} is neither a list, such as {a,b}, nor a range, such as {1..3}"},
		{"lock x{1..65}", "{1..65} makes more than 64 names"},
		{"lock x{a,b", "a { is not closed"},
		{"lock a b --overwrite", "--overwrite is for one lock; give one name"},
		{"lock a b --shared", "--shared and --replace-stale are for one lock; give one name"},
		{"lock a --limit 3", "--limit is for shared holds; give --shared too"},
		{"lock a --shared --limit 0", "--limit must be at least 1"},
		{"lock a --through-freeze", "--through-freeze goes through what is to keep others out: say why"},
		{"lock a --replace-stale", "--replace-stale ends what was kept for somebody to look at: say what you saw"},
		{"lock a --on-expiry forget", "--on-expiry: it can be release or keep"},
		{"lock a --wait ever", `--wait: "ever" is not a duration`},
		{"unlock a --stale", "--stale ends what was kept for somebody to look at: say what you saw"},
		{"unlock a b --token 5", "--token is for one lock; give one name"},
		{"unlock --set", "give the name of a lock: pylok unlock NAME"},
		{"unlock --set a b", "--set takes the name of one lock"},
		{"unlock --set a --token 5", "--set takes the name of one lock"},
		{"unlock a .b", "\".b\" is not a lock name"},
		{"freeze", "give the name of a lock: pylok freeze NAME"},
		{"freeze a --all", "give a name or --all, not both"},
		{"freeze a b", `"b" is one too many`},
		{"freeze a --drain", "--drain waits until nothing below is held: say for how long with --wait"},
		{"thaw", "give the name of a lock: pylok thaw NAME"},
		{"thaw a --force", "--force ends somebody's freeze: say why"},
		{"hand-over a", "say who gets the hold: pylok hand-over NAME --to WHO"},
		{"hand-over a --to b --never --ttl 5m", "give --never, --ttl or --expire, not two of them"},
		{"ask a", "say what for with --msg"},
		{"dismiss a", "give a name and a place: pylok dismiss NAME PLACE"},
		{"dismiss a 1", "say why with --reason"},
		{"dismiss a 01 --reason x", `"01" is no place`},
		{"dismiss a first --reason x", `"first" is no place`},
		{"bench x", `pylok bench takes no arguments; what is "x" for?`},
		{"bench --callers 1,0", `--callers: "0" is not a number from 1 to 4096`},
		{"bench --callers 16-64", `--callers: "16-64" is not a number from 1 to 4096; write them with commas between, such as 1,16`},
		{"bench --waiters 5000", `--waiters: "5000" is not a number from 1 to 4096`},
		{"bench --subscribers=", `--subscribers: "" is not a number from 1 to 4096`},
		{"bench --duration 10ms", "--duration is 10ms; give 50ms to 2m"},
		{"bench --duration 0", "--duration is 0s; give 50ms to 2m"},
		{"bench --duration 1h", "--duration is 1h; give 50ms to 2m"},
		{"bench --prefix=", "--prefix must not be empty: it tells everybody what these locks are"},
		{"bench --prefix ../", "segment 1 starts with '.'"},
		{"bench --prefix lb/*", "has the character '*'"},
		{"help nosuch", `there is no command "nosuch"; pylok --help lists them`},
		{"help lok", `there is no command "lok"; did you mean lock?`},
		{"help lock unlock", "name one command"},
		{"completion", "name one shell: bash, zsh or fish"},
		{"completion tcsh", `there is no completion for "tcsh"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), strings.Fields(test.args), strings.NewReader(""), &stdout, &stderr)
			result{code, stdout.String(), stderr.String()}.want(t, exitUsage, test.want)
			if stdout.Len() > 0 {
				t.Errorf("something went to stdout: %q", stdout.String())
			}
			if n := strings.Count(stderr.String(), "\n"); n != 1 {
				t.Errorf("stderr has %d lines, want one sentence:\n%s", n, stderr.String())
			}
		})
	}
}

// TestForceNeedsWords: white space says nothing.
func TestForceNeedsWords(t *testing.T) {
	for _, reason := range []string{"", " ", "\t\u00a0\n"} {
		pylok(t, nowhere, "unlock", "a", "--force", "--reason", reason).want(t, exitUsage, "say why with --reason")
	}
}

// TestServerRefusesArguments has arguments that only the server can judge.
func TestServerRefusesArguments(t *testing.T) {
	address, _ := serveMemory(t)
	pylok(t, address, "lock", "a", "--ttl", "1ms").want(t, exitUsage, "ttl", "out of range")
	pylok(t, address, "lock", "a").want(t, exitDone)
	pylok(t, address, "lock", "a", "--wait", "25h").want(t, exitUsage, "wait: 25h0m0s is out of range; 0 to 24h0m0s are allowed")
	pylok(t, address, "lock", "a", "--holder", "a\x1b[31m").want(t, exitUsage, "control character")
}

func TestTLS(t *testing.T) {
	certified := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	defer certified.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	address, _ := serve(t, &answering{answers: []error{nil}}, grpc.Creds(credentials.NewServerTLSFromCert(&certified.TLS.Certificates[0])))

	pylok(t, address, "lock", "x", "--ca", ca).want(t, exitDone, "x  locked")
	pylok(t, address, "lock", "x", "--ca", ca, "--tls").want(t, exitDone, "x  locked")
	pylok(t, address, "lock", "x", "--tls").want(t, exitUnreachable, "is from a CA that this system does not know: add --ca FILE")
	pylok(t, address, "lock", "x").want(t, exitUnreachable, "pylok: the server at "+address+" speaks TLS: add --tls, or --ca FILE")
	pylok(t, address, "watch").want(t, exitUnreachable, "speaks TLS: add --tls")
	plaintext, _ := serveMemory(t)
	pylok(t, plaintext, "lock", "x", "--ca", ca).want(t, exitUnreachable, "pylok: the server at "+plaintext+" does not speak TLS: leave --tls and --ca out")
}

// answering is a server whose Lock gives its answers one after another.
type answering struct {
	pylokv1.UnimplementedLockServiceServer
	answers  []error // nil: granted
	mu       sync.Mutex
	requests []*pylokv1.LockRequest
}

func (s *answering) Lock(_ context.Context, request *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, request)
	if err := s.answers[min(len(s.requests), len(s.answers))-1]; err != nil {
		return nil, err
	}
	return &pylokv1.LockResponse{Lock: &pylokv1.Lock{
		Name: request.GetName(), State: pylokv1.LockState_LOCK_STATE_LOCKED, Holder: request.GetHolder(), Token: 42,
	}}, nil
}

func refusal(t *testing.T, code codes.Code, reason, message string) error {
	t.Helper()
	s, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Domain: "pylok", Reason: reason})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

func TestLockIsRetried(t *testing.T) {
	var (
		unknown  = refusal(t, codes.Unavailable, "OUTCOME_UNKNOWN", "who knows")
		stopping = refusal(t, codes.Unavailable, "SHUTTING_DOWN", "bye")
		readOnly = refusal(t, codes.Unavailable, "STORE_READ_ONLY", "disk full")
		lost     = status.Error(codes.Unavailable, "connection reset")
	)
	for _, test := range []struct {
		name    string
		answers []error
		timeout string
		calls   int // 0: several
		code    int
		says    string
	}{
		{"granted at once", []error{nil}, "1m", 1, exitDone, "x  locked"},
		{"outcome unknown, then granted", []error{unknown, nil}, "1m", 2, exitDone, "x  locked"},
		{"twice lost, then granted", []error{lost, stopping, nil}, "1m", 3, exitDone, "x  locked"},
		{"always unknown", []error{unknown}, "200ms", 0, exitFailed, "x may be locked by this request; pylok status x tells\n"},
		{"always stopping", []error{stopping}, "200ms", 0, exitUnreachable, "bye\n"},
		{"always lost", []error{lost}, "200ms", 0, exitUnreachable, "x may be locked by this request; pylok status x tells\n"},
		{"nothing changed", []error{readOnly}, "1m", 1, exitFailed, "disk full\n"},
		{"a fault", []error{status.Error(codes.Internal, "internal error")}, "1m", 1, exitFailed, "internal error\nx may be locked by this request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := &answering{answers: test.answers}
			address, _ := serve(t, server)
			pylok(t, address, "lock", "x", "--timeout", test.timeout).want(t, test.code, test.says)
			if n := len(server.requests); n == 0 || test.calls > 0 && n != test.calls {
				t.Fatalf("%d requests were sent, want %d", n, test.calls)
			}
			for _, request := range server.requests {
				if request.GetRequestId() == "" || request.GetRequestId() != server.requests[0].GetRequestId() {
					t.Errorf("request_id %q, want the one of the first, %q", request.GetRequestId(), server.requests[0].GetRequestId())
				}
			}
		})
	}
	t.Run("each run has its own request_id", func(t *testing.T) {
		server := &answering{answers: []error{nil}}
		address, _ := serve(t, server)
		pylok(t, address, "lock", "x")
		pylok(t, address, "lock", "x")
		if a, b := server.requests[0].GetRequestId(), server.requests[1].GetRequestId(); a == b {
			t.Errorf("two runs have the same request_id %q", a)
		}
	})
}

// silent is a server that takes calls and does not answer.
type silent struct {
	pylokv1.UnimplementedLockServiceServer
}

func (silent) Lock(ctx context.Context, _ *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) Unlock(ctx context.Context, _ *pylokv1.UnlockRequest) (*pylokv1.UnlockResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) Status(ctx context.Context, _ *pylokv1.StatusRequest) (*pylokv1.StatusResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, silent{})
	lockResult := pylok(t, address, "lock", "x", "--timeout", "50ms")
	lockResult.want(t, exitFailed, "has not answered within 50ms", "x may be locked by this request; pylok status x tells")
	unlockResult := pylok(t, address, "unlock", "x", "--timeout", "50ms")
	unlockResult.want(t, exitFailed, "has not answered within 50ms", "may or may not have done what you asked")
	statusResult := pylok(t, address, "status", "x", "--timeout", "50ms")
	statusResult.want(t, exitFailed, "has not answered within 50ms")
	if strings.Contains(statusResult.stderr, "may or may not") {
		t.Errorf("a question changes nothing, but stderr is %q", statusResult.stderr)
	}
}

func TestSignals(t *testing.T) {
	address, _ := serveMemory(t)
	pylok(t, address, "lock", "x").want(t, exitDone)
	for _, test := range []struct {
		args  []string
		until string // what stderr says when the command is under way
	}{
		{[]string{"lock", "x", "--wait", "1h"}, "waiting up to 1h for x"},
		{[]string{"watch"}, "watching for changes"},
		{[]string{"bench", "--duration", "2m"}, "putting load on the server"},
	} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(test.args[0]+" "+signal.String(), func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				said, stderr := io.Pipe()
				code := make(chan int)
				go func() {
					defer stderr.Close()
					code <- run(ctx, append(test.args, "--address", address), strings.NewReader(""), io.Discard, stderr)
				}()
				line := make([]byte, 1024)
				n, err := said.Read(line)
				if err != nil || !strings.HasPrefix(string(line[:n]), test.until) {
					t.Errorf("stderr starts with %q (%v), want %q", line[:n], err, test.until)
				}
				go io.Copy(io.Discard, said)
				cancel(interrupted{signal})
				if got, want := <-code, 128+int(signal); got != want {
					t.Errorf("exit code %d, want %d", got, want)
				}
			})
		}
	}
}

func TestWatchOfNobody(t *testing.T) {
	address, stop := serveMemory(t)
	stop()
	pylok(t, address, "watch", "--after", "7").want(t, exitUnreachable, "cannot reach a server at "+address, "Is pylokd running there?")
}

func TestPagesAreJoined(t *testing.T) {
	address, _ := serveMemory(t)
	p := newProgram(nil, nil, nil)
	p.address = address
	c, err := func() (pylokv1.LockServiceClient, error) {
		p.timeout = duration(time.Minute)
		c, err := p.dial()
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		return c.Service(), nil
	}()
	if err != nil {
		t.Fatal(err)
	}
	const n = 2*pageSize + 1
	for i := range n {
		if _, err := c.Lock(t.Context(), &pylokv1.LockRequest{Name: fmt.Sprintf("many/%05d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args  []string
		lines int
		last  string
	}{
		{[]string{"list"}, n + 1, "many/02000"},
		{[]string{"list", "many/0000*"}, 11, "many/00009"},
		{[]string{"history"}, n, "many/02000"},
		{[]string{"history", "--limit", "3"}, 3, "many/02000"},
		{[]string{"history", "--limit", "3", "--since", "1h", "many/00*"}, 3, "many/00999"},
		{[]string{"history", "--since", "1h"}, n, "many/02000"},
		{[]string{"history", "-o", "json"}, n, "many/02000"},
		{[]string{"history", "-r"}, n, "many/00000"},
		{[]string{"history", "-r", "-n", "3"}, 3, "many/01998"},
		{[]string{"history", "-n", "1500"}, 1500, "many/02000"},
		{[]string{"history", "-n", "1500", "-r"}, 1500, "many/00501"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			got := pylok(t, address, test.args...)
			if got.code != exitDone {
				t.Fatalf("exit code %d: %s", got.code, got.stderr)
			}
			lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
			if len(lines) != test.lines || !strings.Contains(lines[len(lines)-1], test.last) {
				t.Errorf("got %d lines up to %q, want %d up to one with %s", len(lines), lines[len(lines)-1], test.lines, test.last)
			}
		})
	}
	t.Run("list as JSON is one message", func(t *testing.T) {
		got := pylok(t, address, "list", "-o", "json")
		if lines, locks := strings.Count(got.stdout, "\n"), strings.Count(got.stdout, `"lockFileLocation"`); lines != 1 || locks != n {
			t.Errorf("got %d lines with %d locks, want 1 with %d", lines, locks, n)
		}
		if !strings.HasSuffix(got.stdout, `"nextPageToken":"","revision":"2001"}`+"\n") {
			t.Errorf("the message ends with %q", got.stdout[max(0, len(got.stdout)-60):])
		}
	})
}

// moving is a server whose locks change while it lists them.
type moving struct {
	pylokv1.UnimplementedLockServiceServer
}

func (moving) List(_ context.Context, request *pylokv1.ListRequest) (*pylokv1.ListResponse, error) {
	if request.GetPageToken() == "" {
		return &pylokv1.ListResponse{NextPageToken: "more", Revision: 5}, nil
	}
	return &pylokv1.ListResponse{Revision: 6}, nil
}

// TestListIsAsOfItsFirstPage: to follow all changes from a list on, watch after the
// revision of its first page.
func TestListIsAsOfItsFirstPage(t *testing.T) {
	address, _ := serve(t, moving{})
	pylok(t, address, "list", "-o", "json").want(t, exitDone, `{"locks":[],"nextPageToken":"","revision":"5"}`)
}

// TestHolderWithoutAName: who has no name here, as in many containers, is told apart
// from others like them.
func TestHolderWithoutAName(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	_, address, environment := at(t)
	cmd := exec.Command(filepath.Join(programs, "pylok"), "lock", "x", "--address", address)
	cmd.Env, cmd.Dir = environment, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	if err := os.Chmod(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "  holder  uid-12345@") {
		t.Errorf("got %v\n%s", err, output)
	}
}

// hostile is a server that puts what a terminal would act upon into all that it
// sends.
type hostile struct {
	pylokv1.UnimplementedLockServiceServer
	refuse error // what to answer instead; nil: nothing
	ended  error // the end of a watch
}

const evil = "a\x1b]0;owned\x07\x1b[2J\u009b31m\u202e\u2028\x7f\r\n\x00b"

func (hostile) lock() *pylokv1.Lock {
	return &pylokv1.Lock{
		Name:             evil,
		State:            pylokv1.LockState_LOCK_STATE_LOCKED,
		LockFileLocation: evil,
		Holder:           evil,
		Token:            42,
		AcquireTime:      timestamppb.New(sampleTime),
		Ttl:              durationpb.New(time.Minute),
		ExpireTime:       timestamppb.New(sampleTime),
		Problem:          evil,
		Data: &structpb.Struct{Fields: map[string]*structpb.Value{
			"msg": structpb.NewStringValue(evil),
			evil: structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{
				structpb.NewStringValue(evil),
				structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{evil: structpb.NewStringValue(evil)}}),
			}}),
		}},
	}
}

func (s hostile) event() *pylokv1.Event {
	return &pylokv1.Event{
		Revision: 42, Time: timestamppb.New(sampleTime),
		Type:  pylokv1.EventType_EVENT_TYPE_UNLOCKED,
		Cause: pylokv1.EventCause_EVENT_CAUSE_FORCED,
		Lock:  s.lock(), Actor: evil, Reason: evil,
	}
}

func (s hostile) Lock(context.Context, *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	return &pylokv1.LockResponse{Lock: s.lock()}, s.refuse
}

func (s hostile) Unlock(context.Context, *pylokv1.UnlockRequest) (*pylokv1.UnlockResponse, error) {
	return &pylokv1.UnlockResponse{Lock: s.lock()}, s.refuse
}

func (s hostile) Renew(context.Context, *pylokv1.RenewRequest) (*pylokv1.RenewResponse, error) {
	return &pylokv1.RenewResponse{Lock: s.lock()}, s.refuse
}

func (s hostile) Status(context.Context, *pylokv1.StatusRequest) (*pylokv1.StatusResponse, error) {
	return &pylokv1.StatusResponse{Lock: s.lock()}, s.refuse
}

func (s hostile) List(context.Context, *pylokv1.ListRequest) (*pylokv1.ListResponse, error) {
	return &pylokv1.ListResponse{Locks: []*pylokv1.Lock{s.lock()}}, s.refuse
}

func (s hostile) History(context.Context, *pylokv1.HistoryRequest) (*pylokv1.HistoryResponse, error) {
	return &pylokv1.HistoryResponse{Events: []*pylokv1.Event{s.event()}}, s.refuse
}

func (s hostile) Watch(_ *pylokv1.WatchRequest, stream grpc.ServerStreamingServer[pylokv1.WatchResponse]) error {
	if s.refuse != nil {
		return s.refuse
	}
	for _, event := range []*pylokv1.Event{
		{Type: pylokv1.EventType_EVENT_TYPE_RESET},
		s.event(),
		{Type: pylokv1.EventType_EVENT_TYPE_SYNCED, Revision: 42},
	} {
		if err := stream.Send(&pylokv1.WatchResponse{Event: event}); err != nil {
			return err
		}
	}
	return s.ended
}

func (s hostile) Info(context.Context, *pylokv1.InfoRequest) (*pylokv1.InfoResponse, error) {
	return &pylokv1.InfoResponse{Version: evil, Root: evil, Store: evil, StartTime: timestamppb.New(sampleTime)}, s.refuse
}

// TestTerminalIsSafe runs every command against hostile servers and lets nothing
// through that a terminal would act upon.
func TestTerminalIsSafe(t *testing.T) {
	t.Parallel()
	held := hostile{}.lock()
	held.Name = "x"
	refused, err := status.New(codes.FailedPrecondition, evil).WithDetails(&errdetails.ErrorInfo{Domain: "pylok", Reason: "LOCK_HELD"}, held)
	if err != nil {
		t.Fatal(err)
	}
	notHolder, err := status.New(codes.FailedPrecondition, evil).WithDetails(&errdetails.ErrorInfo{Domain: "pylok", Reason: "NOT_HOLDER"}, held)
	if err != nil {
		t.Fatal(err)
	}
	for name, refuse := range map[string]error{
		"answers":     nil,
		"held":        refused.Err(),
		"not holder":  notHolder.Err(),
		"odd reason":  refusal(t, codes.FailedPrecondition, evil, evil),
		"internal":    status.Error(codes.Internal, evil),
		"unavailable": status.Error(codes.Unavailable, evil),
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := serve(t, hostile{refuse: refuse, ended: refusal(t, codes.FailedPrecondition, evil, evil)})
			for _, command := range []string{
				"lock x", "unlock x", "unlock x --token 7", "renew x --token 7", "status x", "status x --ensure-unlock",
				"list", "watch", "history", "info", "run x -- true",
			} {
				for _, output := range outputFormats {
					if (command == "run x -- true" || command == "lock x" && output != "text") && name == "unavailable" {
						continue // it asks for some seconds
					}
					got := pylok(t, address, append([]string{"-o", output}, strings.Fields(command)...)...)
					if text := got.stdout + got.stderr; text != printableLines(text) {
						t.Errorf("%s -o %s lets through what a terminal would act upon: %q", command, output, text)
					}
					if refuse == nil && got.stdout == "" && command != "run x -- true" || refuse != nil && got.code == exitDone {
						t.Errorf("%s -o %s: exit code %d and the output %q", command, output, got.code, got.stdout)
					}
				}
			}
		})
	}
}
