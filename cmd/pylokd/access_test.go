package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

const (
	anybodyMayView  = "rules:\n  - {who: [anonymous], may: [view], locks: [\"a/**\"]}\n"
	anybodyMayBreak = "rules:\n  - {who: [anonymous], may: [break], locks: [\"a/**\"]}\n"
)

func accessFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCheckAccess: --check-access says what a file says, or each thing that is wrong in it.
func TestCheckAccess(t *testing.T) {
	check := func(text string) (code int, stdout, stderr string) {
		cmd := command(t, nil, "--check-access", accessFile(t, text))
		var out, err bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &err
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), out.String(), err.String()
	}
	code, stdout, stderr := check(anybodyMayView)
	if code != 0 || stderr != "" {
		t.Errorf("a good file: exit code %d, stderr %q", code, stderr)
	}
	says(t, stdout, "access.yaml: all is well\n", "2     anonymous  view  a/**\n")

	code, stdout, stderr = check("rules:\n  - {who: [bob], may: [look], locks: [\"a//b\"]}\n  - {wo: []}\n")
	if code != 1 || !strings.HasPrefix(stderr, "pylokd: ") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a bad file: exit code %d, stderr %q", code, stderr)
	}
	says(t, stdout, "access.yaml:2:12: ", "access.yaml:2:24: ", "access.yaml:2:39: ", `access.yaml:3:6: "wo" is no key of a rule`)
	for line := range strings.Lines(stdout) {
		if !strings.Contains(line, "access.yaml:") {
			t.Errorf("the line %q names no place", line)
		}
	}
	says(t, fails(t, 1, "--check-access", "/no/such/file"), "/no/such/file")
	says(t, fails(t, 2, "--check-access="), "--check-access is empty")
	if c, _, err := parse(nil, environment("HOME", "/h", "PYLOKD_CHECK_ACCESS", "x", "PYLOKD_ACCESS", "y")); err != nil || c.checkAccess != "" || c.access != "y" {
		t.Errorf("from the environment: %+v, %v", c, err)
	}
}

// TestAccess: a bad access file refuses the start, SIGHUP reads it again, and one that is
// bad by then changes nothing.
func TestAccess(t *testing.T) {
	says(t, fails(t, 1, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--access", accessFile(t, "rules: [x]")), "access.yaml:1:9: ")

	file := accessFile(t, anybodyMayView)
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--access", file)
	c := p.client(t, insecure.NewCredentials())
	mayBreak := func() bool {
		t.Helper()
		answer, err := c.May(t.Context(), &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_BREAK, Name: "a/b"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "a/b", Force: true, Reason: "a test"})
		if code := status.Code(err); answer.GetAllowed() != (code == codes.NotFound) || answer.GetAllowed() == (code == codes.PermissionDenied) {
			t.Errorf("May says %t, and to break the free lock is %v", answer.GetAllowed(), err)
		}
		return answer.GetAllowed()
	}
	hangup := func(text, said string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.stderr.wait(t, said)
	}
	if mayBreak() {
		t.Error("at the start anybody may break")
	}
	hangup(anybodyMayBreak, "its rules hold from now on")
	if !mayBreak() {
		t.Error("the new rules do not hold")
	}
	hangup("rules: [x]", "the rules from before stay")
	if !mayBreak() {
		t.Error("after a bad file the rules from before do not hold")
	}
	p.stop(t)

	const warning = "there is no access file"
	p = start(t, nil, "--root", t.TempDir(), "--listen", "0.0.0.0:0", "--insecure")
	p.stop(t)
	says(t, p.stderr.String(), warning)
	for _, args := range [][]string{{"--listen", "127.0.0.1:0"}, {"--listen", "0.0.0.0:0", "--insecure", "--access", accessFile(t, anybodyMayView)}} {
		p := start(t, nil, append(args, "--root", t.TempDir())...)
		p.stop(t)
		if strings.Contains(p.stderr.String(), warning) {
			t.Errorf("%q: it warns of a missing access file", args)
		}
	}
}

// TestAuditFile: what is refused, and for whom, and what is broken is in the audit file,
// which is opened anew on SIGHUP; no token is.
func TestAuditFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--access", accessFile(t, anybodyMayView), "--audit-file", file)
	c := p.client(t, insecure.NewCredentials())
	if _, err := c.Lock(t.Context(), &pylokv1.LockRequest{Name: "a/b"}); status.Code(err) != codes.PermissionDenied {
		t.Fatal(err)
	}
	const secret = "pylok_secret"
	if _, err := c.Info(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret), &pylokv1.InfoRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Fatal(err)
	}
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.stderr.wait(t, "the audit file was opened anew")
	if _, err := c.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "a/b", Force: true, Reason: "a test"}); status.Code(err) != codes.PermissionDenied {
		t.Fatal(err)
	}
	p.stop(t)
	for name, wants := range map[string][]string{
		file + ".1": {`"caller":"anonymous"`, `"verb":"lock"`, `"name":"a/b"`, `"allowed":false`, "127.0.0.1", "not one of this server's"},
		file:        {`"verb":"break"`, `"allowed":false`},
	} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		says(t, string(text), wants...)
		if strings.Contains(string(text)+p.stderr.String(), secret) {
			t.Errorf("the token is in %s or in the log", name)
		}
	}
}
