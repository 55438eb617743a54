package filestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/lock"
)

var kills = flag.Int("kills", 200, "how often the server is killed")

// The past is kept short, so that the thousandth start is as quick as the first.
var (
	killJournal = journal.Config{SegmentBytes: 16 << 10, ChunkBytes: 4 << 10, ReserveBytes: 1 << 10}
	killHistory = Retention{Bytes: 64 << 10}
)

// serveRoot is the environment variable that makes a server of the test binary.
const serveRoot = "PYLOK_TEST_SERVE_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(serveRoot); root != "" {
		if err := serve(root, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// answer is a line of a server: what a client knows for certain.
type answer struct {
	Name   string
	Type   string // of the event; free: the lock was found so
	Token  lock.Token
	Holder string
	Caller string
	Data   lock.Data
	// Doing is written before the commit, so that what may have happened at the
	// end is known.
	Doing bool
	Error string
}

// serve opens the store of a root, with small segments, and changes locks from
// several goroutines until it is killed, or its input ends. Each says what it is
// about to do and then, when the store has answered, what it was told.
func serve(root string, in io.Reader, out io.Writer) error {
	config := Config{Root: root, PollInterval: time.Millisecond, History: killHistory, journal: killJournal, rest: 1 + os.Getpid()%8}.withDefaults()
	path, fsys, err := openRoot(root)
	if err != nil {
		return err
	}
	s, err := open(context.Background(), config, path, quickDisk{fsys})
	if err != nil {
		return err
	}
	defer s.Close()
	var mu sync.Mutex
	say := func(a answer) {
		line, err := json.Marshal(a)
		if err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if _, err := out.Write(append(line, '\n')); err != nil {
			os.Exit(0) // nobody listens
		}
	}
	say(answer{Type: "open"})
	for worker := range 6 {
		go func() {
			for n := 0; ; n++ {
				serveOnce(s, worker, n, say)
			}
		}()
	}
	go func() { // what happens every 30 s, more often
		w := &world{Store: s}
		for last := lock.Revision(0); ; {
			if now := w.view.Load().revision; now != last {
				_, _ = w.makeCheckpoint(false)
				last = now
			}
		}
	}()
	_, err = io.Copy(io.Discard, in)
	return err
}

// quickDisk leaves out the syncs: a kill loses nothing of what was written, and
// without them it meets every step as often.
type quickDisk struct{ disk.FS }

func (quickDisk) Sync() error          { return nil }
func (quickDisk) SyncDir(string) error { return nil }

func (d quickDisk) OpenFile(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return quickFile{f}, nil
}

type quickFile struct{ disk.File }

func (quickFile) Datasync() error { return nil }

// serveOnce makes one change of one of a worker's locks, or releases and grants it.
func serveOnce(s *Store, worker, n int, say func(answer)) {
	name := lock.MustParseName(fmt.Sprintf("w%d/lock-%d", worker, rand.IntN(3)))
	l, err := s.Get(context.Background(), name)
	if err != nil {
		l = lock.Lock{Name: name}
	}
	data := fmt.Sprintf(`{"n":%d,"msg":%q}`, n, strings.Repeat("x", rand.IntN(200)))
	grant := locked(l, fmt.Sprintf("holder %d", n), data)
	changes := []lock.Change{grant}
	if l.Held() {
		switch rand.IntN(6) {
		case 0:
			changes = []lock.Change{updated(l, data)}
		case 1, 2:
			changes = []lock.Change{unlocked(l)}
		case 3, 4:
			grant.Prev = 0
			changes = []lock.Change{unlocked(l), grant}
		}
	}
	// The last change says all: a lock that is handed over is at no time free.
	last := len(changes) - 1
	said := func(l lock.Lock, doing bool) answer {
		return answer{Name: name.String(), Type: changes[last].Type.String(), Token: l.Token, Holder: l.Holder, Caller: l.Caller, Data: l.Data, Doing: doing}
	}
	say(said(changes[last].Lock, true))
	events, err := s.Commit(context.Background(), changes)
	if err != nil {
		a := said(changes[last].Lock, false)
		a.Error = err.Error()
		say(a)
		return
	}
	say(said(events[last].Lock, false))
}

// TestKill kills a server again and again while several of its clients change
// locks, and holds the next one to every answer.
func TestKill(t *testing.T) {
	root := t.TempDir()
	possible := make(map[string][]state)
	highest := lock.Token(0)
	answers := 0
	for n := range *kills {
		d := runAndKill(t, root, 1+rand.IntN(60))
		for _, a := range d {
			answers += noteAnswer(t, possible, &highest, a)
		}
		checkKilled(t, n, root, possible, highest)
		if t.Failed() {
			t.Fatalf("after %d kills", n+1)
		}
	}
	t.Logf("%d kills, %d answers", *kills, answers)
}

// noteAnswer takes in a line of a server. It returns 1 for an answer.
func noteAnswer(t *testing.T, possible map[string][]state, highest *lock.Token, a answer) int {
	t.Helper()
	states := possible[a.Name]
	if states == nil {
		states = []state{{}}
	}
	after := state{data: a.Data, holder: a.Holder, caller: a.Caller, token: a.Token}
	switch {
	case a.Error != "":
		t.Errorf("a commit of %s failed: %s", a.Name, a.Error)
		return 0
	case a.Type == lock.Unlocked.String():
		after = state{}
	case a.Type == lock.Locked.String() && a.Doing:
		after.token = anyToken
	}
	if a.Doing {
		possible[a.Name] = append(states, after)
		return 0
	}
	possible[a.Name] = []state{after}
	*highest = max(*highest, a.Token)
	return 1
}

// runAndKill starts a server, kills it after some lines and returns all that it
// said, but for a line that was cut off.
func runAndKill(t *testing.T, root string, after int) (answers []answer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), serveRoot+"="+root)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for n := 0; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break // a line without an end was cut off by the kill
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("the server says %q: %v", line, err)
		}
		if a.Type != "open" {
			answers = append(answers, a)
		}
		if n == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if stderr.Len() > 0 {
		t.Fatalf("the server says: %s", &stderr)
	}
	return answers
}

// checkKilled opens the root of a killed server and compares.
func checkKilled(t *testing.T, n int, root string, possible map[string][]state, highest lock.Token) {
	t.Helper()
	d := openDisk(t, root)
	d.journal, d.history = killJournal, killHistory
	s, err := openOn(t, d)
	if err != nil {
		t.Fatalf("the start after kill %d: %v", n+1, err)
	}
	b := newLedger()
	b.highest, b.pruned = highest, true
	for name, states := range possible {
		b.possible[lock.MustParseName(name)] = states
	}
	b.check(t, fmt.Sprintf("kill %d", n+1), s)
	for name := range possible { // what was in doubt is so no more
		possible[name] = []state{stateOf(present(t.Context(), t, s, lock.MustParseName(name)))}
	}
	if n%2 == 0 { // every other server finds a root that was stopped cleanly
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	d.kill()
	_ = s.Close()
}

// TestCreateRace has a script that knows nothing of us create lock files at the
// same moment as the store: of the two exactly one succeeds, each time.
func TestCreateRace(t *testing.T) {
	t.Parallel()
	const rounds = 1000
	const script = `
import os, sys
for line in sys.stdin:
    name = line.rstrip("\n")
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        print("taken", flush=True)
        continue
    os.write(fd, b"msg: by the script\n")
    os.close(fd)
    print("created", flush=True)
`
	root := t.TempDir()
	s, err := Open(t.Context(), Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	scripts := 0
	for round := range rounds {
		name := lock.MustParseName(fmt.Sprintf("race-%d", round))
		file := filepath.Join(root, name.String()+".lock")
		committed := make(chan error, 1)
		commit := func() {
			_, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: name}, "the store", `{"msg":"by the store"}`)})
			committed <- err
		}
		ours := round%2 == 0 // takes turns at going first
		if ours {
			go commit()
		}
		if _, err := fmt.Fprintln(in, file); err != nil {
			t.Fatal(err)
		}
		if !ours {
			go commit()
		}
		if !said.Scan() {
			t.Fatalf("the script ended: %v", said.Err())
		}
		err := <-committed
		script := said.Text() == "created"
		if script == (err == nil) {
			t.Fatalf("round %d: the script says %q and Commit %v; want exactly one to succeed", round, said.Text(), err)
		}
		text, readErr := os.ReadFile(file)
		if readErr != nil {
			t.Fatal(readErr)
		}
		want := "by the store"
		if script {
			scripts++
			want = "by the script"
		}
		if !strings.Contains(string(text), "msg: "+want+"\n") {
			t.Fatalf("round %d: the winner is %s, and the file says:\n%s", round, want, text)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("the script won %d of %d rounds", scripts, rounds)
	if scripts == 0 || scripts == rounds {
		t.Errorf("the script won %d of %d rounds; the test wants a race", scripts, rounds)
	}
}
