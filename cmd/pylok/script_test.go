package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/internal/testcert"
	"github.com/pylok/pylok/internal/testissuer"
)

// TestScripts runs the sessions in testdata/script with the real programs. Beside
// the commands of testscript they have:
//
//	pylokd [FLAG]...         start the server on the directory locks; pylok finds it
//	pylokd stop              stop it
//	pylok ARG...             run pylok, which must exit with 0
//	exits N COMMAND ARG...   run a program, which must exit with N
//	begin ID COMMAND ARG...  start a program beside the script
//	await ID REGEXP          wait until it has written a match
//	signal ID NAME           send it a signal, such as TERM
//	gone ID N                wait until it exits, with N
//	finish ID N              wait until it exits, with N, and its outputs end, which
//	                         others may have too; stdout and stderr then look at
//	                         what was written
//	until REGEXP COMMAND...  run a program until its stdout matches
//	certificates             make ca.pem, and server.pem and client.pem of that CA, each
//	                         with its key in a file such as server.key
//	github                   go on as a job of owner/repo, run 4711, whose OIDC tokens
//	                         count for 3 s; ISSUER is who signs them
//	tokens N                 wait until that job has asked for N tokens
func TestScripts(t *testing.T) {
	build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", programs+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("TZ", "Europe/Berlin")
			env.Setenv("GORACE", raceOptions)
			env.Setenv("PYLOK_ADDRESS", nowhere)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "runtime"))
			env.Values[processesKey] = map[string]*process{}
			env.Values[issuerKey] = &scriptIssuer{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"pylokd": positive(scriptServer),
			"pylok":  positive(func(ts *testscript.TestScript, args []string) { expectExit(ts, "0", "pylok", args) }),
			"exits":  positive(scriptExits),
			"begin":  positive(scriptBegin),
			"await":  positive(scriptAwait),
			"signal": positive(scriptSignal),
			"gone":   positive(scriptGone),
			"finish": positive(scriptFinish),
			"until":  positive(scriptUntil),

			"certificates": positive(func(ts *testscript.TestScript, _ []string) { scriptCertificates(t, ts) }),
			"github":       positive(func(ts *testscript.TestScript, _ []string) { scriptGitHub(t, ts) }),
			"tokens":       positive(scriptTokens),
		},
	})
}

// processesKey is what a script keeps the programs under that run beside it, a
// map[string]*process by their ids.
const processesKey = "processes"

// positive makes a command that cannot be negated with !.
func positive(command func(ts *testscript.TestScript, args []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("! has no meaning here; see the commands of TestScripts")
		}
		command(ts, args)
	}
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func processesOf(ts *testscript.TestScript) map[string]*process {
	return ts.Value(processesKey).(map[string]*process)
}

func processOf(ts *testscript.TestScript, id string) *process {
	p, ok := processesOf(ts)[id]
	if !ok {
		ts.Fatalf("nothing with the id %s is running", id)
	}
	return p
}

// environment is that of the script.
func environment(ts *testscript.TestScript) []string {
	var variables []string
	for _, key := range []string{
		"PATH", "HOME", "TMPDIR", "TZ", "GORACE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
		"PYLOK_ADDRESS", "PYLOK_TLS", "PYLOK_CA", "PYLOK_CERT", "PYLOK_KEY", "PYLOK_TOKEN_FILE", "PYLOK_CONTEXT",
		"PYLOK_AUDIENCE", "PYLOK_CI_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
	} {
		if value := ts.Getenv(key); value != "" {
			variables = append(variables, key+"="+value)
		}
	}
	return variables
}

// pathOf returns the path of one of the programs, or of another.
func pathOf(ts *testscript.TestScript, command string) string {
	path := filepath.Join(programs, command)
	if _, err := os.Stat(path); err != nil {
		path, err = exec.LookPath(command)
		ts.Check(err)
	}
	return path
}

func scriptServer(ts *testscript.TestScript, args []string) {
	running := processesOf(ts)
	if len(args) == 1 && args[0] == "stop" {
		ts.Check(stopServer(processOf(ts, "pylokd")))
		delete(running, "pylokd")
		return
	}
	server, address, err := startServer(ts.MkAbs("locks"), environment(ts), args...)
	ts.Check(err)
	running["pylokd"] = server
	ts.Setenv("PYLOK_ADDRESS", address)
	ts.Defer(func() {
		if err := stopServer(server); err != nil {
			ts.Fatalf("%v", err)
		}
	})
}

func scriptExits(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) >= 2, "exits N COMMAND ARG...")
	expectExit(ts, args[0], args[1], args[2:])
}

// expectExit runs a program that is to exit with a code.
func expectExit(ts *testscript.TestScript, want, command string, args []string) {
	got := 0
	err := ts.Exec(command, args...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != want {
		ts.Fatalf("%s exits with %d, want %s", command, got, want)
	}
}

func scriptBegin(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) >= 2, "begin ID COMMAND ARG...")
	p, err := start(args[0], ts.MkAbs("."), environment(ts), pathOf(ts, args[1]), args[2:]...)
	ts.Check(err)
	processesOf(ts)[args[0]] = p
	ts.Defer(func() { p.stop() })
}

func scriptAwait(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) == 2, "await ID REGEXP")
	p := processOf(ts, args[0])
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if _, err := p.output.await(re); err != nil {
		ts.Fatalf("%s: %v\n%s", args[0], err, p.said())
	}
}

func scriptSignal(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) == 2 && unix.SignalNum("SIG"+args[1]) != 0, "signal ID NAME")
	ts.Check(processOf(ts, args[0]).cmd.Process.Signal(unix.SignalNum("SIG" + args[1])))
}

func scriptGone(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) == 2, "gone ID N")
	p := processOf(ts, args[0])
	code, err := p.waitForExit()
	ts.Check(err)
	if strconv.Itoa(code) != args[1] {
		ts.Fatalf("%s exits with %d, want %s\n%s", args[0], code, args[1], p.said())
	}
}

func scriptFinish(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) == 2, "finish ID N")
	p := processOf(ts, args[0])
	code, err := p.wait()
	ts.Check(err)
	delete(processesOf(ts), args[0])
	fmt.Fprint(ts.Stdout(), p.stdout.String())
	fmt.Fprint(ts.Stderr(), p.stderr.String())
	if strconv.Itoa(code) != args[1] {
		ts.Fatalf("%s exits with %d, want %s\n%s", args[0], code, args[1], p.said())
	}
}

func scriptUntil(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) >= 2, "until REGEXP COMMAND...")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for begun := time.Now(); ; {
		cmd := exec.Command(pathOf(ts, args[1]), args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), environment(ts)
		output, err := cmd.Output()
		ts.Check(err)
		if re.Match(output) {
			return
		}
		if time.Since(begun) > watchdog {
			ts.Fatalf("%s has not written %q within %v but\n%s", strings.Join(args[1:], " "), re, watchdog, output)
		}
	}
}

// scriptCertificates makes the certificates with an authority that lives as long as all
// scripts.
func scriptCertificates(t *testing.T, ts *testscript.TestScript) {
	authority := testcert.New(t)
	write := func(name string, text []byte) { ts.Check(os.WriteFile(ts.MkAbs(name), text, 0o600)) }
	write("ca.pem", authority.CertPEM)
	server := authority.Server(testcert.Options{})
	write("server.pem", server.CertPEM)
	write("server.key", server.KeyPEM)
	client := authority.Client(testcert.Options{CommonName: "deployer"})
	write("client.pem", client.CertPEM)
	write("client.key", client.KeyPEM)
}

// issuerKey is what a script keeps its *scriptIssuer under.
const issuerKey = "issuer"

// scriptIssuer is who signs the tokens of a script's job; nil: it is none.
type scriptIssuer struct{ *testissuer.Issuer }

func scriptGitHub(t *testing.T, ts *testscript.TestScript) {
	issuer := testissuer.New(t)
	issuer.Life = 3 * time.Second
	variables := issuer.Job(map[string]any{
		"repository": "owner/repo", "repository_id": "65807417", "repository_owner_id": "1234",
		"ref": "refs/heads/main", "run_id": "4711", "environment": "production",
		"sub": "repo:owner@1234/repo@65807417:environment:production",
	})
	for name, value := range variables {
		ts.Setenv(name, value)
	}
	ts.Setenv("ISSUER", issuer.URL)
	ts.Value(issuerKey).(*scriptIssuer).Issuer = issuer
}

func scriptTokens(ts *testscript.TestScript, args []string) {
	usage(ts, len(args) == 1, "tokens N")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	issuer := ts.Value(issuerKey).(*scriptIssuer).Issuer
	for begun := time.Now(); issuer.JobTokens() < want; time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > watchdog {
			ts.Fatalf("the job has asked for %d tokens within %v, want %d", issuer.JobTokens(), watchdog, want)
		}
	}
}
