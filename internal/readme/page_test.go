package readme

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// page is one whose commands start servers themselves.
type page struct {
	file  string // under docs
	serve string // how a line begins that starts a server
	// to makes the page's words those of the test, with the server's port, and from the
	// test's those of the page.
	to, from func(port string) *strings.Replacer
}

// run runs the commands of the page in one directory, each block in a shell of its own. A
// line that begins with p.serve starts a server, which runs until the next such line, or
// until the end, and is what the lines after it talk to; what the server prints when it
// serves is its output.
func (p page) run(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("../../docs", p.file))
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
		return p.to(port).Replace(strings.ReplaceAll(text, "{user: alice}", "{user: "+me.Username+"}"))
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
	blocks := consoleBlocks(text)
	if len(blocks) < 5 {
		t.Fatalf("docs/%s has %d blocks of commands; is this test reading it right?", p.file, len(blocks))
	}
	here := strings.NewReplacer(dir, "~", "unix:"+me.Username+" ", "unix:alice ", "unix:"+me.Username+"\n", "unix:alice\n", "unix:"+me.Username+")", "unix:alice)", "unix:"+me.Username+":", "unix:alice:")
	for i, block := range blocks {
		commands, want := parse(block)
		var got, script string
		for command := range strings.Lines(commands) {
			if !strings.HasPrefix(command, p.serve) {
				script += command
				continue
			}
			got += run(t, environment, dir, local(script)) + serve(command)
			script = ""
		}
		got += run(t, environment, dir, local(script))
		got = p.from(port).Replace(here.Replace(got))
		got, want = serving.ReplaceAllString(normalize(got), "serving"), serving.ReplaceAllString(normalize(want), "serving")
		if got != want {
			t.Fatalf("block %d of docs/%s:\n%s\ngot:\n%s\nwant:\n%s", i+1, p.file, commands, got, want)
		}
	}
}
