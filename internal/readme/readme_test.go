// Package readme runs the README: its commands, in order, against a real server,
// and holds their output to what the page says.
package readme

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
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
	{regexp.MustCompile(`\(in \d+m( \d+s)?\)`), "(LEFT)"},
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
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/...")
	build.Dir = "../.."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, output)
	}
	tools, err := filepath.Abs("../../.tools")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tools, "grpcurl")); err != nil {
		t.Fatalf("%v: run `make tools` first, or `make test`, which does", err)
	}
	address, root := startServer(t, filepath.Join(bin, "pylokd"), home)
	environment := append(environ(),
		"HOME="+home, "NO_COLOR=1", "TZ=UTC", "PYLOK_ADDRESS="+address,
		"PATH="+bin+":"+tools+":"+os.Getenv("PATH"))

	blocks := regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 5 {
		t.Fatalf("the README has %d blocks of commands; is this test reading it right?", len(blocks))
	}
	for i, block := range blocks {
		commands, want := parse(block[1])
		got := run(t, environment, strings.ReplaceAll(commands, addressInReadme, address))
		got = strings.ReplaceAll(got, root, rootInReadme)
		if normalize(got) != normalize(want) {
			t.Fatalf("block %d of the README:\n%s\ngot:\n%s\nwant:\n%s", i+1, commands, normalize(got), normalize(want))
		}
	}
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

func run(t *testing.T, environment []string, commands string) string {
	shell := exec.CommandContext(t.Context(), "bash", "-c", "exec 2>&1\n"+commands)
	shell.Env = environment
	output, _ := shell.Output() // a command may well fail: the README shows it
	return string(output)
}

// startServer starts pylokd as its user does, but for the port, and stops it in the
// end.
func startServer(t *testing.T, program, home string) (address, root string) {
	server := exec.Command(program, "--listen", "127.0.0.1:0")
	server.Env = append(environ(), "HOME="+home)
	server.Stderr = os.Stderr
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := server.Wait(); err != nil {
			t.Errorf("pylokd: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("waiting for pylokd's line: %v", err)
	}
	if _, err := fmt.Sscanf(line, "pylokd: serving %s on %s\n", &root, &address); err != nil {
		t.Fatalf("pylokd says %q: %v", line, err)
	}
	return address, root
}
