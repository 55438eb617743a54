package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// network is a way to a server that can be cut off.
type network struct {
	listener net.Listener

	mu          sync.Mutex
	connections []net.Conn // nil: it is cut off
}

// openNetwork makes a way to the server at address.
func openNetwork(t *testing.T, address string) *network {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{listener: listener, connections: []net.Conn{}}
	t.Cleanup(n.cut)
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", address)
			if err != nil || !n.add(near, far) {
				near.Close()
				continue
			}
			go io.Copy(near, far)
			go io.Copy(far, near)
		}
	}()
	return n
}

// add reports false when the network is cut off.
func (n *network) add(connections ...net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.connections == nil {
		return false
	}
	n.connections = append(n.connections, connections...)
	return true
}

// cut cuts the network off for good.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener.Close()
	for _, connection := range n.connections {
		connection.Close()
	}
	n.connections = nil
}

func (n *network) address() string { return n.listener.Addr().String() }

// TestRunEndsBeforeItsLease: a command whose lock cannot be renewed is told to end, and
// is dead, while nobody else can get the lock.
func TestRunEndsBeforeItsLease(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	n := openNetwork(t, address)
	p, err := start("run", root, environment, filepath.Join(programs, "pylok"),
		"run", "a", "--address", n.address(), "--ttl", "8s", "--grace", "4s", "--", "sh", "-c",
		`trap 'echo told: $(pylok status a --address '`+address+`')' TERM; echo ready; while :; do sleep 0.1; done`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.output.await(regexp.MustCompile("ready")); err != nil {
		t.Fatal(err)
	}
	n.cut()
	code, err := p.wait()
	after := pylok(t, address, "status", "a")
	if err != nil || code != exitNotHeld {
		t.Errorf("exit code %d (%v), want %d", code, err, exitNotHeld)
	}
	if said := p.said(); !strings.Contains(said, "told: a locked") || !strings.Contains(said, "killing it") {
		t.Errorf("the command is to be told while the lock is held, and then killed\n%s", said)
	}
	after.want(t, exitDone, "a  locked\n", "  token   1\n")
}

// TestRunKillsBesideAStalledReader: that nobody reads what the command and pylok say
// keeps no command alive.
func TestRunKillsBesideAStalledReader(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	n := openNetwork(t, address)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	cmd := exec.Command(filepath.Join(programs, "pylok"), "run", "a", "--address", n.address(), "--ttl", "3s", "--grace", "1s", "--",
		"sh", "-c", `trap "" TERM; touch running; while :; do echo nobody reads this >&2; done`)
	cmd.Dir, cmd.Env, cmd.Stderr = root, environment, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(root, "running")); err == nil {
			break
		}
		if time.Since(begun) > watchdog {
			t.Fatal("the command does not run")
		}
	}
	n.cut()
	select {
	case err := <-ended:
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitNotHeld {
			t.Errorf("it ended with %v, want exit code %d", err, exitNotHeld)
		}
	case <-time.After(watchdog):
		reader.Close()
		cmd.Process.Kill()
		t.Fatal("the command still runs")
	}
}

// TestRunHoldOutlivesItsRequest: what the hold is for goes on when the time for the
// server's answer is over.
func TestRunHoldOutlivesItsRequest(t *testing.T) {
	address, _ := serveMemory(t)
	p := newProgram(nil, io.Discard, io.Discard)
	p.rootCommand() // sets what the flags do
	p.address = address
	c, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, wait := range []time.Duration{0, time.Hour} {
		r := &runner{program: p, client: c, wanted: wanted{names: []string{"x"}}, signals: make(chan os.Signal)}
		if wait > 0 {
			if _, err := c.Lock(t.Context(), lock.LockRequest{Name: lock.MustParseName("x"), TTL: 100 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.acquire(t.Context(), nil, wait, []client.AcquireOption{client.WithRequestID(wait.String())}); err != nil {
			t.Fatal(err)
		}
		if err := r.hold.Err(); err != nil {
			t.Errorf("wait %v: the hold's context has ended with the request for it: %v", wait, err)
		}
		if err := r.hold.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
