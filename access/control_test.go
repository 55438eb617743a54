package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// file is an access file of a test.
type file struct {
	t    testing.TB
	path string
}

func newFile(t testing.TB, text string) file {
	t.Helper()
	f := file{t, filepath.Join(t.TempDir(), "access.yaml")}
	f.put(text)
	return f
}

// put replaces the file at once, as an editor does.
func (f file) put(text string) {
	f.t.Helper()
	err := os.WriteFile(f.path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(f.path+".new", f.path)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// logged is a log that a test reads.
type logged struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(line)
}

// take returns the lines since the last call.
func (l *logged) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.lines.String()
	l.lines.Reset()
	return text
}

const (
	onlyView = `rules: [{who: [anonymous], may: [view], locks: ["**"]}]`
	onlyA    = `rules: [{who: [anonymous], may: [lock], locks: ["a/**"]}]`
)

var anybody = lock.Caller{Name: lock.Anonymous}

func newControl(t testing.TB, f file) (*Control, *logged) {
	t.Helper()
	log := &logged{}
	c, err := NewControl(Config{File: f.path, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

// TestControl: a file that has changed is read again, one that cannot be a policy changes
// nothing and is said once.
func TestControl(t *testing.T) {
	f := newFile(t, onlyView)
	c, log := newControl(t, f)
	first, changed := c.Policy(), c.Changed()
	isClosed := func(changed <-chan struct{}) bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	if stats := c.Stats(); !stats.OK || stats.Loaded.IsZero() || stats.Reloads != 0 || stats.Failures != 0 {
		t.Errorf("at the start: %+v", stats)
	}
	c.look()
	if c.Policy() != first || isClosed(changed) || log.take() != "" {
		t.Error("a file that has not changed is read, or spoken of")
	}

	f.put("rules: [{who: [bob], may: [view], locks: [\"**\"]}]")
	for range 3 {
		c.look()
	}
	if c.Policy() != first || isClosed(changed) || c.Stats().OK || c.Stats().Failures == 0 {
		t.Errorf("a bad file: %+v", c.Stats())
	}
	if said := log.take(); strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, "access.yaml:1:") || strings.Count(said, "\n") != 1 {
		t.Errorf("a bad file: it said %q", said)
	}
	if err := c.Reload(); err == nil || c.Policy() != first {
		t.Error("Reload of a bad file: no error, or another policy")
	}

	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.look()
	}
	if said := log.take(); c.Policy() != first || strings.Count(said, "\n") != 1 || !strings.Contains(said, "no such file") {
		t.Errorf("no file: it said %q", said)
	}

	f.put(onlyA)
	c.look()
	if c.Policy() == first || !isClosed(changed) || isClosed(c.Changed()) || !c.Stats().OK {
		t.Errorf("a good file is not read: %+v", c.Stats())
	}
	if said := log.take(); !strings.Contains(said, "hold from now on") {
		t.Errorf("a good file: it said %q", said)
	}

	// The same in other words is no change.
	second, changed := c.Policy(), c.Changed()
	f.put("# a comment\n" + onlyA)
	c.ReloadFor("SIGHUP")
	if c.Policy() != second || isClosed(changed) {
		t.Error("a comment is a change")
	}
	if said := log.take(); !strings.Contains(said, "SIGHUP: ") || !strings.Contains(said, "says what it said") {
		t.Errorf("a comment: it said %q", said)
	}
}

// TestControlInPlace: a change is seen that leaves the file's size and time as they were.
func TestControlInPlace(t *testing.T) {
	f := newFile(t, onlyA)
	now := time.Now()
	if err := os.Chtimes(f.path, now, now); err != nil {
		t.Fatal(err)
	}
	c, _ := newControl(t, f)
	first := c.Policy()
	if err := os.WriteFile(f.path, []byte(strings.Replace(onlyA, "a/**", "b/**", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(f.path, now, now); err != nil {
		t.Fatal(err)
	}
	c.look()
	if c.Policy() == first {
		t.Error("the change is not seen")
	}
}

func TestControlStart(t *testing.T) {
	for name, path := range map[string]string{
		"missing":   filepath.Join(t.TempDir(), "none"),
		"directory": t.TempDir(),
		"bad":       newFile(t, "rules: {}").path,
		"large":     newFile(t, strings.Repeat("#", MaxFileBytes+1)).path,
	} {
		if c, err := NewControl(Config{File: path}); err == nil || c != nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewControl(Config{File: pipe}); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a pipe: got %v", err)
	}
	if _, err := NewControl(Config{File: "/no/such/file"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	c, err := NewControl(Config{})
	if err != nil || c.Policy() != nil || c.HasFile() || c.Reload() != nil {
		t.Errorf("without a file: %v", err)
	}
	c.Run(t.Context()) // returns
}

func TestControlMode(t *testing.T) {
	f := newFile(t, onlyA)
	if _, log := newControl(t, f); log.take() != "" {
		t.Error("a private file is warned of")
	}
	if err := os.Chmod(f.path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, log := newControl(t, f); !strings.Contains(log.take(), "chmod go-w") {
		t.Error("a file that all may write is not warned of")
	}
}

// TestControlRun: Run looks, and ends with its context.
func TestControlRun(t *testing.T) {
	f := newFile(t, onlyView)
	c, err := NewControl(Config{File: f.path, Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	changed := c.Changed()
	f.put(onlyA)
	<-changed
	cancel()
	<-ended
	if c.Policy().Allows(anybody, View, lock.MustParseName("b")) {
		t.Error("the policy is the one from before")
	}
}

// TestReloadStorm: whoever asks while the file goes to and fro gets a policy that is wholly
// one or wholly the other.
func TestReloadStorm(t *testing.T) {
	text := func(i int) string { // group gI may lock and see nI/**, and nothing of the other
		return fmt.Sprintf(`
callers: [{name: x%[1]d, token: "sha256:%064[1]d", groups: [g%[1]d]}]
rules:
  - {who: ["group:g%[1]d"], may: [lock], locks: ["n%[1]d/**"]}
  - {who: ["group:g%[1]d"], may: [freeze], locks: ["f%[1]d/**"]}`, i)
	}
	f := newFile(t, text(0))
	c, _ := newControl(t, f)
	digests := [2][32]byte{mustParse(t, text(0)).Digest(), mustParse(t, text(1)).Digest()}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p := c.Policy()
				which := 0
				if p.Digest() == digests[1] {
					which = 1
				}
				for i := range 2 {
					caller := lock.Caller{Name: fmt.Sprintf("token:x%d", i), Groups: []string{fmt.Sprintf("g%d", i)}, Listed: true}
					name := fmt.Sprintf("n%d/a", i)
					sees := p.Sees(caller).Pass(name)
					got := []bool{
						p.Allows(caller, Lock, lock.MustParseName(name)), sees,
						p.AllowsFreeze(caller, lock.MustParseName(fmt.Sprintf("f%d", i))), p.entries[0].line == 2 && len(p.tokens) == 1 && p.entries[0].name.text == caller.Name,
					}
					for _, got := range got {
						if got != (i == which) {
							t.Errorf("by the policy %d caller %d has %v", which, i, got)
							return
						}
					}
				}
			}
		})
	}
	var writers sync.WaitGroup
	for i := range 2 { // SIGHUP beside the look
		writers.Go(func() {
			for range 100 {
				if i == 0 {
					c.look()
				} else if err := c.Reload(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		f.put(text(i % 2))
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	f.put(text(1))
	if err := c.Reload(); err != nil || c.Policy().Digest() != digests[1] {
		t.Errorf("in the end: %v", err)
	}
}
