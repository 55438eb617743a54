package readme

import (
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs/security.md calls things that are others in the test.
const (
	hostInPage = "locks.example.com" // localhost
	portInPage = "5625"              // a free one
)

// serving is where a server says that it serves, which differs from run to run.
var serving = regexp.MustCompile(`serving \S+ on \S+`)

// TestSecurity runs the commands of docs/security.md in one directory, each block in a
// shell of its own. A line that begins with pylokd starts a server, which runs until
// the next such line, or until the end, and is what the lines after it talk to; what the
// server prints when it serves is its output. The page's server is for all the network
// (0.0.0.0), the test's for loopback.
func TestSecurity(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := programs(t)
	home, dir, runtime := t.TempDir(), t.TempDir(), t.TempDir()
	// Beside what the page's servers listen on: a socket of the test's own, whoever runs it.
	socket := filepath.Join(runtime, "pylok.sock")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	environment := append(environ(),
		"HOME="+home, "NO_COLOR=1", "TZ=UTC", "XDG_RUNTIME_DIR="+runtime,
		"PYLOKD_SOCKET="+socket, "PYLOK_ADDRESS=unix://"+socket,
		"PATH="+bin+":"+tools(t)+":"+os.Getenv("PATH"))
	port := "0"
	local := func(text string) string {
		return strings.NewReplacer("0.0.0.0:"+portInPage, "127.0.0.1:"+port, ":"+portInPage, ":"+port, hostInPage, "localhost").Replace(text)
	}
	var running *server
	serve := func(command string) string {
		t.Helper()
		if running != nil {
			running.stop(t)
		}
		args := strings.Fields(local(command))[1:]
		running = startServer(t, filepath.Join(bin, "pylokd"), environment, dir, args...)
		_, port, _ = strings.Cut(running.address, ":")
		return "pylokd: serving " + running.root + " on " + running.address + "\n"
	}
	blocks := consoleBlocks(page)
	if len(blocks) < 5 {
		t.Fatalf("docs/security.md has %d blocks of commands; is this test reading it right?", len(blocks))
	}
	for i, block := range blocks {
		commands, want := parse(block)
		var got, script string
		for command := range strings.Lines(commands) {
			if !strings.HasPrefix(command, "pylokd --listen") {
				script += command
				continue
			}
			got += run(t, environment, dir, local(script)) + serve(command)
			script = ""
		}
		got += run(t, environment, dir, local(script))
		got = strings.NewReplacer("localhost:"+port, hostInPage+":"+portInPage, "localhost", hostInPage, dir, "~", "unix:"+me.Username+" ", "unix:alice ", "unix:"+me.Username+"\n", "unix:alice\n").Replace(got)
		got, want = serving.ReplaceAllString(normalize(got), "serving"), serving.ReplaceAllString(normalize(want), "serving")
		if got != want {
			t.Fatalf("block %d of docs/security.md:\n%s\ngot:\n%s\nwant:\n%s", i+1, commands, got, want)
		}
	}
}
