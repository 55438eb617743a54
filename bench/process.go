package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 10 * time.Minute // of a server, a million lock files included
	stopLimit  = 20 * time.Second // until it is killed
)

// process is a server that the benchmark has started.
type process struct {
	cmd    *exec.Cmd
	log    string        // file with all that it wrote to stderr
	exited chan struct{} // closed when it has ended
	err    error         // how; valid after exited
}

// startProcess starts a server. Its stderr goes to a file beside its data, its
// stdout too unless ready is set: then each line of it goes to ready, until ready
// returns true.
func startProcess(ctx context.Context, log string, ready func(line string) bool, env []string, program string, args ...string) (*process, error) {
	stderr, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	p := &process{cmd: exec.Command(program, args...), log: log, exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = stderr
	// A group of its own, so that ^C reaches the benchmark alone, which then
	// stops it; and when the benchmark is killed, the kernel ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var lines *io.PipeReader
	if ready == nil {
		p.cmd.Stdout = stderr
	} else {
		reader, writer := io.Pipe()
		lines, p.cmd.Stdout = reader, writer
	}
	if err := onLastingThread(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	if ready == nil {
		return p, nil
	}
	serving := make(chan struct{})
	go func() {
		scanner := bufio.NewScanner(lines)
		for told := false; scanner.Scan(); {
			if !told && ready(scanner.Text()) {
				told = true
				close(serving)
			}
		}
	}()
	select {
	case <-serving:
		return p, nil
	case <-p.exited:
		return nil, fmt.Errorf("%s ended before it served (%v): %s", program, p.err, p.lastWords())
	case <-time.After(startLimit):
		err = fmt.Errorf("%s did not serve within %v", program, startLimit)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, p.stop())
}

// lastWords returns the end of what the server wrote to stderr.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 1000
	text = bytes.TrimSpace(text)
	return string(text[max(0, len(text)-most):])
}

// stop ends the server, and kills it if it does not end in time.
func (p *process) stop() error { return p.end(syscall.SIGTERM) }

// kill ends the server without a warning.
func (p *process) kill() error { return p.end(syscall.SIGKILL) }

func (p *process) end(signal syscall.Signal) error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s had ended by itself (%v): %s", p.cmd.Path, p.err, p.lastWords())
	default:
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopLimit):
	}
	err := p.cmd.Process.Kill()
	<-p.exited
	return errors.Join(err, fmt.Errorf("%s did not stop within %v and was killed", p.cmd.Path, stopLimit))
}

// cpu returns the CPU time that the server has taken.
func (p *process) cpu() (time.Duration, error) { return cpuOf(p.cmd.Process.Pid) }

// rss returns the server's resident memory in bytes.
func (p *process) rss() (int64, error) { return rssOf(p.cmd.Process.Pid) }

// cpuOf reads utime and stime of /proc/PID/stat, which are in ticks of 10 ms.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, whatever is in it.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	fields := strings.Fields(rest) // the first is field 3, state
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat reads %q", pid, text)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, systemErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err, systemErr)
}

// rssOf reads VmRSS of /proc/PID/status.
func rssOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// starts are run one after the other on one thread that lasts as long as the
// benchmark: Pdeathsig goes by the thread that started the process.
var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
}

func onLastingThread(do func() error) error {
	result := make(chan error)
	starts <- func() { result <- do() }
	return <-result
}

// buildPylokd builds the daemon in the product's own module, with the versions that
// the product asks for: this module may ask for higher ones.
func buildPylokd(ctx context.Context, dir string) (string, error) {
	where := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/pylok/pylok")
	where.Stderr = os.Stderr
	text, err := where.Output()
	if err != nil {
		return "", fmt.Errorf("finding the product's module (run the benchmark with `go run -C bench .`, or give it a built daemon with -pylokd): %w", err)
	}
	program := filepath.Join(dir, "pylokd")
	build := exec.CommandContext(ctx, "go", "build", "-C", strings.TrimSpace(string(text)), "-o", program, "./cmd/pylokd")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("building pylokd: %w", err)
	}
	return program, nil
}
