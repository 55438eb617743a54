// Package readme runs the pages that show commands: in order, against real servers, and
// holds their output to what the page says.
package readme

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// inReadme is what the page shows of one machine.
const (
	rootInReadme    = "/home/alice/.local/state/pylok/locks"
	addressInReadme = "127.0.0.1:5625"
)

// volatile is what differs from run to run.
var volatile = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?`), "TIME"},
	{regexp.MustCompile(`\(just now\)|\(\d+s ago\)`), "(AGO)"},
	{regexp.MustCompile(`\(in \d+[dhms]( \d+[dhms])?\)`), "(LEFT)"},
	{regexp.MustCompile(`after waiting \d+s`), "after waiting a while"},
	{regexp.MustCompile(`held it for \d+s`), "held it for a while"},
	{regexp.MustCompile(`lock_request_id: [0-9A-Z]+`), "lock_request_id: ID"},
}

func normalize(text string) string {
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.with)
	}
	return strings.TrimSpace(text)
}

func TestReadme(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	bin := programs(t)
	// pylok looks for the socket where root's or the user's is; the test's is elsewhere.
	socket := filepath.Join(t.TempDir(), "pylok.sock")
	server := startServer(t, filepath.Join(bin, "pylokd"), append(environ(), "HOME="+home), "", "--listen", "127.0.0.1:0", "--socket", socket)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	environment := append(environ(),
		"HOME="+home, "NO_COLOR=1", "TZ=UTC", "PYLOK_ADDRESS=unix://"+socket,
		"PATH="+bin+":"+tools(t)+":"+os.Getenv("PATH"))

	blocks := consoleBlocks(page)
	if len(blocks) < 5 {
		t.Fatalf("the README has %d blocks of commands; is this test reading it right?", len(blocks))
	}
	for i, block := range blocks {
		commands, want := parse(block)
		got := run(t, environment, "", strings.ReplaceAll(commands, addressInReadme, server.address))
		got = strings.NewReplacer(server.root, rootInReadme, "unix:"+me.Username, "unix:alice", "unix://"+socket, addressInReadme).Replace(got)
		if normalize(got) != normalize(want) {
			t.Errorf("block %d of the README:\n%s\ngot:\n%s\nwant:\n%s", i+1, commands, normalize(got), normalize(want))
		}
	}
}

// consoleBlocks returns the blocks of commands of a page.
func consoleBlocks(page []byte) (blocks []string) {
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllSubmatch(page, -1) {
		blocks = append(blocks, string(block[1]))
	}
	return blocks
}

// parse splits a block into its commands, a line each, and what they print.
func parse(block string) (commands, output string) {
	for line := range strings.Lines(block) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			commands += command
		} else {
			output += line
		}
	}
	return commands, output
}

// environ is the environment without what would make the programs, or the shell, other
// than the page shows them.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "PYLOK") || strings.HasPrefix(name, "XDG_") || name == "BASH_ENV"
	})
}

func run(t *testing.T, environment []string, dir, commands string) string {
	shell := exec.CommandContext(t.Context(), "bash", "-c", "exec 2>&1\n"+commands)
	shell.Env, shell.Dir = environment, dir
	output, _ := shell.Output() // a command may well fail: the README shows it
	return string(output)
}

// server is a pylokd that runs.
type server struct {
	*exec.Cmd
	root, address string
	stopped       bool
}

// startServer starts pylokd, and stops it in the end.
func startServer(t *testing.T, program string, environment []string, dir string, args ...string) *server {
	t.Helper()
	s := &server{Cmd: exec.Command(program, args...)}
	s.Env, s.Dir = environment, dir
	s.Stderr = os.Stderr
	stdout, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t) })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("waiting for pylokd's line: %v", err)
	}
	if _, err := fmt.Sscanf(line, "pylokd: serving %s on %s\n", &s.root, &s.address); err != nil {
		t.Fatalf("pylokd says %q: %v", line, err)
	}
	return s
}

// stop stops the server, once.
func (s *server) stop(t *testing.T) {
	if s.stopped {
		return
	}
	s.stopped = true
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("pylokd: %v", err)
	}
}
