package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a terminal with a person at it, who reads on where they have read to.
type terminal struct {
	t      *testing.T
	file   *os.File
	screen transcript
	read   int // bytes of screen
}

// openTerminal runs a program that has a terminal of 80 columns.
func openTerminal(t *testing.T, dir string, environment []string, path string, args ...string) *terminal {
	t.Helper()
	file, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var number int
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		if err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
			return
		}
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
	})
	if controlErr != nil || err != nil {
		t.Fatalf("opening a terminal: %v, %v", controlErr, err)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = dir, append(environment, "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = device, device, device
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal := &terminal{t: t, file: file}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		defer terminal.screen.end()
		buffer := make([]byte, 4096)
		for {
			n, err := file.Read(buffer)
			terminal.screen.Write(buffer[:n])
			if err != nil {
				return // the last program that had the terminal has ended
			}
		}
	}()
	t.Cleanup(func() {
		file.Close() // hangs up
		if err := cmd.Wait(); err != nil {
			t.Logf("%s: %v", path, err)
		}
		<-shown
	})
	return terminal
}

// resize gives the terminal other columns.
func (s *terminal) resize(columns uint16) {
	s.t.Helper()
	raw, err := s.file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err := unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
				s.t.Error(err)
			}
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// types sends what the keyboard does.
func (s *terminal) types(keys string) {
	s.t.Helper()
	if _, err := s.file.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// shows waits until the terminal shows a match, after the one before, and returns its
// submatches.
func (s *terminal) shows(pattern string) []string {
	s.t.Helper()
	match, end, err := s.screen.awaitAfter(s.read, regexp.MustCompile(pattern))
	if err != nil {
		s.t.Fatalf("the terminal: %v; it shows\n%q", err, s.screen.String()[s.read:])
	}
	s.read = end
	return match
}

const (
	controlC = "\x03"
	controlD = "\x04"
	controlZ = "\x1a"
)

// at runs a real server for one test and returns its root, its address and the
// environment of those who use it.
func at(t *testing.T) (root, address string, environment []string) {
	t.Helper()
	build(t)
	root = t.TempDir()
	environment = []string{"PATH=" + programs + ":" + os.Getenv("PATH"), "HOME=" + root, "TZ=UTC", "GORACE=" + raceOptions}
	server, address, err := startServer(root, environment)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stopServer(server); err != nil {
			t.Error(err)
		}
	})
	return root, address, append(environment, "PYLOK_ADDRESS="+address)
}

// until runs pylok until its output has a text.
func until(t *testing.T, text, address string, args ...string) {
	t.Helper()
	for begun := time.Now(); ; {
		got := pylok(t, address, args...)
		if strings.Contains(got.stdout, text) {
			return
		}
		if time.Since(begun) > watchdog {
			t.Fatalf("pylok %s has not written %q within %v but\n%s", strings.Join(args, " "), text, watchdog, got.stdout)
		}
	}
}

// TestRunOnATerminal has a shell with jobs, and somebody who types.
func TestRunOnATerminal(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	shell := openTerminal(t, root, append(environment, "PS1=next> "), "bash", "--norc", "--noprofile", "--noediting", "-i")
	shell.shows("next> ")

	// The command reads the terminal, and control-C is for it.
	shell.types("pylok run a -- cat\n")
	shell.types("hello\n")
	shell.shows(`hello\r\nhello\r\n`)
	pylok(t, address, "status", "a", "--ensure-lock").want(t, exitDone)
	shell.types(controlC)
	shell.shows(`\^C(\r\n)?next> `)
	shell.types("echo code $?\n")
	shell.shows(`code 130\r\nnext> `)
	pylok(t, address, "status", "a", "--ensure-unlock").want(t, exitDone)

	// Control-C comes to the command once, and its answer is its own.
	shell.types(`pylok run a -- sh -c 'trap "echo told; exit 9" INT; echo begun; read line; exit 8'` + "\n")
	shell.shows(`begun\r\n`)
	shell.types(controlC)
	shell.shows(`told\r\nnext> `)
	shell.types("echo code $?\n")
	shell.shows(`code 9\r\nnext> `)

	// Control-Z stops it, and the shell has the terminal again; fg lets it go on.
	shell.types("pylok run a --ttl 30s -- cat\n")
	shell.types("hello\n")
	shell.shows(`hello\r\nhello\r\n`)
	shell.types(controlZ)
	shell.shows(`pylok: stopped; a is not renewed meanwhile, and is lost after 25s\r\n`)
	shell.shows(`Stopped +pylok run a`)
	shell.shows(`next> `)
	pylok(t, address, "status", "a", "--ensure-lock").want(t, exitDone)
	shell.types("fg\n")
	shell.shows(`pylok run a --ttl 30s -- cat\r\n`)
	shell.types("again\n")
	shell.shows(`again\r\nagain\r\n`)
	shell.types(controlD)
	shell.shows(`next> `)
	shell.types("echo code $?\n")
	shell.shows(`code 0\r\nnext> `)

	// One that was stopped for too long does nothing any more.
	shell.types(`pylok run a --ttl 500ms -- sh -c 'echo begun; read line; echo line $line'` + "\n")
	shell.shows(`begun\r\n`)
	shell.types(controlZ)
	shell.shows(`Stopped +pylok run a`)
	shell.shows(`next> `)
	until(t, "unlocked", address, "status", "a")
	shell.types("fg\n")
	shell.shows(`pylok: lost a \(token \d+\): the lease ran out before it was renewed\r\nstopping the command\r\n`)
	shell.shows(`next> `)
	shell.types("echo code $?\n")
	shell.shows(`code 4\r\nnext> `)

	// In the background it stops when it wants to read.
	shell.types("pylok run a -- cat &\n")
	shell.shows(`next> `)
	until(t, "  locked", address, "status", "a")
	shell.shows(`pylok: stopped; `)
	shell.types("while jobs -r | grep -q pylok; do :; done\n")
	shell.shows(`Stopped +pylok run a`)
	shell.types("fg\n")
	shell.shows(`pylok run a -- cat\r\n`)
	shell.types("hello\n")
	shell.shows(`hello\r\nhello\r\n`)

	// And goes on there when told to.
	shell.types(controlC)
	shell.shows(`next> `)
	shell.types("pylok run a -- sh -c 'echo begun; exec sleep 1000'\n")
	shell.shows(`begun\r\n`)
	shell.types(controlZ)
	shell.shows(`Stopped +pylok run a`)
	shell.types("bg\n")
	shell.shows(`pylok run a .*&\r\n`)
	shell.shows(`next> `)
	shell.types("kill %%; wait %%; echo code $?\n")
	shell.shows(`code 143\r\n`)
	shell.shows(`next> `)

	// In a pipeline the terminal stays with the others, until the command reads it.
	const groups = `cut -d" " -f5,8 /proc/$$/stat` // the process's, and that of the terminal's foreground
	shell.types("pylok run a -- sh -c '" + groups + "; read line; echo line $line; " + groups + "' | cat\n")
	before := shell.shows(`\r\n(\d+) (\d+)\r\n`)
	shell.types("hello\n")
	after := shell.shows(`line hello\r\n(\d+) (\d+)\r\n`)
	if before[1] == before[2] || after[1] != after[2] {
		t.Errorf("the process group %s has the terminal of %s before it reads, %s when it has read", before[1], before[2], after[2])
	}
	shell.shows(`next> `)
	shell.types("exit\n")
	shell.shows("exit\r\n")
}

// TestRunWithoutAShell: control-Z can stop nothing for good where nobody would let it
// go on.
func TestRunWithoutAShell(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	cat := openTerminal(t, root, environment, filepath.Join(programs, "pylok"), "run", "a", "--", "cat")
	cat.types("hello\n")
	cat.shows(`hello\r\nhello\r\n`)
	cat.types(controlZ)
	cat.shows(`pylok: stopped; `)
	cat.types("again\n")
	cat.shows(`again\r\n(.*\r\n)*again\r\n`)
	cat.types(controlD)
	until(t, "unlocked", address, "status", "a")
}

// TestWaitOnATerminal looks at what somebody sees who waits for a lock.
func TestWaitOnATerminal(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	pylok(t, address, "lock", "a", "--holder", "bob@desk", "--ttl", "30m", "--msg", "schema change").want(t, exitDone)
	first, err := start("first", root, environment, filepath.Join(programs, "pylok"), "lock", "a", "--wait", "5m", "--holder", "carol@desk")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "waiters 1", address, "status", "a")

	second := openTerminal(t, root, environment, filepath.Join(programs, "pylok"), "lock", "a", "--wait", "5m", "--holder", "dave@desk")
	second.shows(`^waiting for a, 0s of up to 5m\x1b\[K\r\n  holder  bob@desk\x1b\[K\r\n  since   .*\r\n  until   .*\r\n  msg     schema change\x1b\[K\r\n$`)
	second.shows(`\r\x1b\[5A\x1b\[Jwaiting for a, \d+s of up to 5m\x1b\[K\r\n  waiters 2, at most 1 before you\x1b\[K\r\n  holder  bob@desk\x1b`)
	pylok(t, address, "renew", "a", "--token", "1", "--msg", "nearly done with a change that has a message longer than the terminal is wide").want(t, exitDone)
	second.shows(`  msg     nearly done with a change that has a message longer than the termi\.\.\.\x1b\[K\r\n`)
	pylok(t, address, "unlock", "a", "--token", "1").want(t, exitDone)
	if code, err := first.wait(); code != exitDone || err != nil {
		t.Fatalf("the first waiter exits with %d (%v)\n%s", code, err, first.said())
	}
	second.shows(`  waiters 1, you are next\x1b\[K\r\n  holder  carol@desk\x1b`)
	pylok(t, address, "unlock", "a", "--holder", "carol@desk").want(t, exitDone)
	second.shows(`\r\x1b\[\dA\x1b\[Jgot a after waiting \d+s\r\na  \S+locked`)

	// Whoever gives up leaves nothing behind, on the screen or in the line.
	third := openTerminal(t, root, environment, filepath.Join(programs, "pylok"), "run", "a", "--wait", "5m", "--", "true")
	third.shows(`  waiters 1, you are next\x1b\[K\r\n  holder  dave@desk\x1b`)
	third.types(controlC)
	third.shows(`\^C\r\x1b\[5A\x1b\[J$`)
	until(t, `"waiters":0`, address, "status", "a", "-o", "json")
}

// TestWaitForMoreThanOne looks at what somebody sees who waits for a set: what is in the
// way now, whichever lock of it that is, and whether it has an end.
func TestWaitForMoreThanOne(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	pylok(t, address, "lock", "prod/web", "--holder", "bob@desk", "--ttl", "30m").want(t, exitDone)
	pylok(t, address, "lock", "conf", "--shared", "--holder", "reader").want(t, exitDone)
	waiting := openTerminal(t, root, environment, filepath.Join(programs, "pylok"), "lock", "prod/web", "conf", "--any", "slot-{1..2}", "--wait", "forever", "--holder", "carol@desk")
	const heading = `waiting for prod/web, conf and any of slot-1 or slot-2, \d+s\x1b\[K\r\n`
	waiting.shows(heading + `  (by|shared) .*\r\n`)
	pylok(t, address, "unlock", "conf/_+1", "--holder", "reader").want(t, exitDone)
	waiting.shows(heading + `  waiters 1 of prod/web\x1b\[K\r\n  holder  bob@desk\x1b\[K\r\n  since   .*\r\n  until   .*\(in (30|29)m.*\r\n`)
	pylok(t, address, "freeze", "prod", "--holder", "ops", "--msg", "holiday").want(t, exitDone)
	pylok(t, address, "unlock", "prod/web", "--holder", "bob@desk").want(t, exitDone)
	waiting.shows(heading + `  waiters 1 of prod/web\x1b\[K\r\n  frozen  a tree above it covers it\x1b\[K\r\n  by      prod\x1b\[K\r\n  holder  ops\x1b\[K\r\n  since   .*\r\n  msg     holiday\x1b\[K\r\n  until   somebody releases it\x1b\[K\r\n`)
	pylok(t, address, "thaw", "prod", "--holder", "ops").want(t, exitDone)
	waiting.shows(`\x1b\[Jgot prod/web, conf and any of slot-1 or slot-2 after waiting \d+s\r\nconf  \S+locked(.*\r\n)*prod/web  \S+locked(.*\r\n)*slot-1  \S+locked`)
}

// TestWaitStoppedAndResized: what is shown to somebody who waits is taken away before
// the shell has the terminal, and found again in one that has become narrower.
func TestWaitStoppedAndResized(t *testing.T) {
	t.Parallel()
	root, address, environment := at(t)
	pylok(t, address, "lock", "a", "--holder", "bob@desk", "--msg", "a schema change with a message of some length").want(t, exitDone)
	shell := openTerminal(t, root, append(environment, "PS1=next> "), "bash", "--norc", "--noprofile", "--noediting", "-i")
	shell.shows("next> ")
	for _, command := range []string{"lock a --wait 5m", "run a --wait 5m -- echo mine"} {
		shell.types("pylok " + command + "\n")
		shell.shows(`waiting for a, \d+s of up to 5m\x1b\[K\r\n  holder `)
		shell.types(controlZ)
		shell.shows(`\^Z\r\x1b\[\dA\x1b\[J(\r\n)+\[\d\]\+  Stopped +pylok`)
		shell.shows(`next> `)

		// In the background it is quiet.
		shell.types("bg\n")
		shell.shows(`\[\d\]\+ pylok .*&\r\n`)
		shell.shows(`next> `)
		shell.types("sleep 1.5; echo quiet\n")
		shell.shows(`quiet\r\nquiet\r\nnext> $`)

		shell.types("fg\n")
		shell.shows(`pylok ` + command + `\r\n(.*\r\n)*waiting for a, \d+s of up to 5m\x1b\[K\r\n`)

		// With 20 columns the heading, waiters, since, msg and until of more than that
		// take two rows or three.
		shell.shows(`  msg     .*\x1b\[K\r\n`)
		shell.resize(20)
		shell.shows(`\r\x1b\[(12|13)A\x1b\[Jwaiting for a.*\.\.\.\x1b\[K\r\n`)
		shell.resize(80)
		shell.shows(`\r\x1b\[\dA\x1b\[Jwaiting for a, \d+s of up to 5m\x1b\[K\r\n`)
		shell.types(controlC)
		shell.shows(`\^C\r\x1b\[\dA\x1b\[J`)
		shell.shows(`next> $`)
	}
	shell.types("exit\n")
	shell.shows("exit\r\n")
}
