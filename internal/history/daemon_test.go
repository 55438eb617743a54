package history

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
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

// watchdog ends what hangs.
const watchdog = time.Minute

// programs is a directory for what the tests build.
var programs string

func TestMain(m *testing.M) {
	if os.Getenv(asHolder) != "" {
		os.Exit(holderMain())
	}
	flag.Parse()
	os.Exit(func() int {
		var err error
		if programs, err = os.MkdirTemp("", "pylok-history-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(programs)
		return m.Run()
	}())
}

// pylokd is the path of the real daemon, built once for all tests: with the race
// detector where the tests have it.
var pylokd = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programs, "pylokd")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	output, err := exec.Command("go", append(args, "../../cmd/pylokd")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %v\n%s", err, output)
	}
	return path, nil
})

// build builds the daemon.
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
	if _, err := pylokd(); err != nil {
		t.Fatal(err)
	}
}

// process is a pylokd that runs.
type process struct {
	cmd     *exec.Cmd
	address string
	output  transcript
	ended   chan struct{} // closed when it has
}

// readyLine is what pylokd prints when it can be reached.
var readyLine = regexp.MustCompile(`(?m)^pylokd: serving .* on (127\.0\.0\.1:\d+)$`)

// startProcess runs pylokd on a root until it serves.
func startProcess(root string) (*process, error) {
	path, err := pylokd()
	if err != nil {
		return nil, err
	}
	p := &process{
		cmd:   exec.Command(path, "--root", root, "--state-dir", root+".state", "--listen", "127.0.0.1:0", "--socket", "none", "--log-level", "warn"),
		ended: make(chan struct{}),
	}
	p.cmd.Env = []string{"GORACE=atexit_sleep_ms=0"} // and nothing of the user's
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		p.output.end()
		close(p.ended)
	}()
	ready, err := p.output.await(readyLine)
	if err != nil {
		return nil, errors.Join(err, p.signal(syscall.SIGKILL))
	}
	p.address = ready[1]
	return p, nil
}

// signal ends the process by a signal. The error says what it complained of.
func (p *process) signal(signal syscall.Signal) error {
	p.cmd.Process.Signal(signal) // it may have ended already
	select {
	case <-p.ended:
	case <-time.After(watchdog):
		p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("pylokd did not end within %v of %v\n%s", watchdog, signal, &p.output)
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	said := p.output.String()
	switch {
	case strings.Contains(said, "WARNING: DATA RACE"), strings.Contains(said, "level=ERROR"), strings.Contains(said, "panic"):
		return fmt.Errorf("pylokd complained:\n%s", said)
	case status.Signaled() && status.Signal() == signal && signal == syscall.SIGKILL, status.ExitStatus() == 0:
		return nil
	}
	return fmt.Errorf("pylokd ended by itself: %v\n%s", p.cmd.ProcessState, said)
}

// startForTest starts a daemon that ends with the test.
func startForTest(t *testing.T) *process {
	t.Helper()
	build(t)
	p, err := startProcess(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	return p
}

// transcript is what a program has written so far.
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
	timeout := time.After(watchdog)
	for {
		s.mu.Lock()
		match := re.FindStringSubmatch(s.text.String())
		ended := s.ended
		if s.more == nil {
			s.more = make(chan struct{})
		}
		more := s.more
		s.mu.Unlock()
		switch {
		case match != nil:
			return match, nil
		case ended:
			return nil, fmt.Errorf("it ended without writing %q:\n%s", re, s)
		}
		select {
		case <-more:
		case <-timeout:
			return nil, fmt.Errorf("it has not written %q within %v:\n%s", re, watchdog, s)
		}
	}
}
