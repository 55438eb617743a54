package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// watchdog ends tests that wait for a program that hangs.
const watchdog = time.Minute

// raceOptions, in the environment as GORACE, lets programs with the race detector
// exit at once; they sleep for a second otherwise.
const raceOptions = "atexit_sleep_ms=0"

// programs is the directory of the real pylok and pylokd, built once for all
// tests, with the race detector where the tests have it.
var programs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "pylok-programs-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(programs)
		leaveEnvironment()
		return m.Run()
	}())
}

var buildOnce = sync.OnceValue(func() error {
	args := []string{"build", "-o", programs + "/"}
	if raceEnabled {
		args = append(args, "-race")
	}
	output, err := exec.Command("go", append(args, ".", "../pylokd")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %v\n%s", err, output)
	}
	return nil
})

// build builds the programs.
func build(t *testing.T) {
	t.Helper()
	// go test runs these tests again only when a file has changed that they are
	// known to read, and it does not know what go build reads: tell it.
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2:
			return fs.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"), entry.Name() == "go.mod":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := buildOnce(); err != nil {
		t.Fatal(err)
	}
}

// process is a program that runs beside the test.
type process struct {
	name           string
	cmd            *exec.Cmd
	stdout, stderr transcript
	output         transcript    // both, as they came
	exited         chan struct{} // closed when the program has ended
	err            error         // how, then
	ended          chan struct{} // closed when its outputs have ended too, which it may have handed on
}

// start runs a program.
func start(name, dir string, environment []string, path string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), exited: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, environment
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what stops its job is not to stop the test
	var copying sync.WaitGroup
	for _, output := range []struct {
		file *io.Writer
		text *transcript
	}{{&p.cmd.Stdout, &p.stdout}, {&p.cmd.Stderr, &p.stderr}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer writer.Close()
		*output.file = writer
		copying.Go(func() {
			defer reader.Close()
			io.Copy(io.MultiWriter(output.text, &p.output), reader)
		})
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
		copying.Wait()
		p.output.end()
		close(p.ended)
	}()
	return p, nil
}

// wait returns the exit code when the outputs have ended too.
func (p *process) wait() (int, error) { return p.waitFor(p.ended) }

// waitForExit returns the exit code as soon as there is one.
func (p *process) waitForExit() (int, error) { return p.waitFor(p.exited) }

func (p *process) waitFor(done <-chan struct{}) (int, error) {
	select {
	case <-done:
	case <-time.After(watchdog):
		return 0, fmt.Errorf("%s is still running after %v\n%s", p.name, watchdog, p.said())
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.err); ok {
		return exit.ExitCode(), nil
	}
	return 0, p.err
}

// stop tells the program to end, and ends it if it does not.
func (p *process) stop() (int, error) {
	p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	code, err := p.wait()
	if err != nil {
		p.cmd.Process.Kill()
	}
	return code, err
}

// said is all output so far, for messages.
func (p *process) said() string {
	return fmt.Sprintf("%s stdout:\n%s%s stderr:\n%s", p.name, p.stdout.String(), p.name, p.stderr.String())
}

// transcript is what a program has written so far. Its zero value is ready to use.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	more  chan struct{} // closed when there is more; nil: nobody waits
	ended bool
}

// Write implements io.Writer.
func (s *transcript) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	return s.text.Write(text)
}

// end says that there will be no more.
func (s *transcript) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.wake()
}

func (s *transcript) wake() {
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
}

// String returns all that was written.
func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until what was written matches re, and returns the submatches.
func (s *transcript) await(re *regexp.Regexp) ([]string, error) {
	match, _, err := s.awaitAfter(0, re)
	return match, err
}

// awaitAfter is await for what was written after so many bytes. It also returns how
// many there are with the match.
func (s *transcript) awaitAfter(start int, re *regexp.Regexp) (match []string, end int, err error) {
	timeout := time.After(watchdog)
	for {
		s.mu.Lock()
		text := s.text.String()[start:]
		match := re.FindStringSubmatchIndex(text)
		ended := s.ended
		if s.more == nil {
			s.more = make(chan struct{})
		}
		more := s.more
		s.mu.Unlock()
		switch {
		case match != nil:
			submatches := make([]string, len(match)/2)
			for i := range submatches {
				if match[2*i] >= 0 {
					submatches[i] = text[match[2*i]:match[2*i+1]]
				}
			}
			return submatches, start + match[1], nil
		case ended:
			return nil, 0, fmt.Errorf("it ended without writing %q", re)
		}
		select {
		case <-more:
		case <-timeout:
			return nil, 0, fmt.Errorf("it has not written %q within %v", re, watchdog)
		}
	}
}

// readyLine is what pylokd prints when it can be reached.
var readyLine = regexp.MustCompile(`(?m)^pylokd: serving (.*) on (127\.0\.0\.1:\d+)$`)

// startServer runs pylokd on root and returns it and its address.
func startServer(root string, environment []string, args ...string) (*process, string, error) {
	args = append([]string{"--root", root, "--state-dir", root + ".state", "--listen", "127.0.0.1:0", "--socket", "none"}, args...)
	p, err := start("pylokd", "", environment, filepath.Join(programs, "pylokd"), args...)
	if err != nil {
		return nil, "", err
	}
	ready, err := p.output.await(readyLine)
	if err != nil {
		p.stop()
		return nil, "", fmt.Errorf("pylokd: %v\n%s", err, p.said())
	}
	return p, ready[2], nil
}

// stopServer stops pylokd and checks that it has nothing to complain of.
func stopServer(p *process) error {
	code, err := p.stop()
	if err != nil {
		return err
	}
	if code != 0 || strings.Contains(p.stderr.String(), "WARNING: DATA RACE") {
		return fmt.Errorf("pylokd ended with exit code %d\n%s", code, p.said())
	}
	return nil
}
