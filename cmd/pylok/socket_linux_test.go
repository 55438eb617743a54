package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDefaultSocket: without an address pylok finds the server of its user by the socket,
// and asks nobody else when that does not answer.
func TestDefaultSocket(t *testing.T) {
	build(t)
	dir := t.TempDir()
	var credential *syscall.Credential // nil: who runs the tests
	if os.Geteuid() == 0 {             // whose socket is the machine's, and not a test's
		credential = &syscall.Credential{Uid: 12345, Gid: 12345}
		// The directories above are of this test too.
		for _, path := range []string{programs, dir, filepath.Dir(dir)} {
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	environment := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + filepath.Join(dir, "run"), "GORACE=" + raceOptions}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, environment
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		return cmd
	}
	pylok := func(args ...string) (string, int) {
		t.Helper()
		output, err := command(append([]string{filepath.Join(programs, "pylok")}, args...)...).CombinedOutput()
		cmdErr, failed := err.(*exec.ExitError)
		if err != nil && !failed {
			t.Fatal(err)
		}
		if failed {
			return string(output), cmdErr.ExitCode()
		}
		return string(output), 0
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if credential != nil {
		if err := os.Chown(filepath.Join(dir, "run"), 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	server := command(filepath.Join(programs, "pylokd"), "--listen", "127.0.0.1:0")
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr transcript
	server.Stderr = &stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		server.Process.Kill() // so that its socket stays
		server.Wait()
	}
	defer stop()
	var ready transcript
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := stdout.Read(buffer)
			ready.Write(buffer[:n])
			if err != nil {
				ready.end()
				return
			}
		}
	}()
	if _, err := ready.await(readyLine); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	socket := filepath.Join(dir, "run", "pylok", "pylok.sock")
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("no_token"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"info"}, 0, []string{" at unix://" + socket + "\n", "you are   unix:", "(by socket)"}},
		{[]string{"run", "a", "--", "sh", "-c", "echo $PYLOK_ADDRESS; cd / && " + filepath.Join(programs, "pylok") + " status a"}, 0, []string{"unix://" + socket + "\na  locked\n", "  caller  unix:"}},
		{[]string{"info", "--address", "./run/pylok/pylok.sock"}, 0, []string{"(by socket)"}},
		{[]string{"info", "--token-file", token}, 1, []string{"The bearer token is that in " + token}}, // it may go there, and is none
	} {
		output, code := pylok(test.args...)
		for _, want := range test.want {
			if code != test.code || !strings.Contains(output, want) {
				t.Errorf("pylok %q: exit code %d, want %d, and %q in\n%s", test.args, code, test.code, want, output)
			}
		}
	}
	stop()
	if output, code := pylok("info"); code != exitUnreachable || !strings.Contains(output, "cannot reach a server at unix://"+socket) || !strings.Contains(output, "Nobody else is asked") || !strings.Contains(output, "--address") {
		t.Errorf("without a server behind the socket: exit code %d and\n%s", code, output)
	}
}
