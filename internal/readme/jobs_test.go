package readme

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	patchRounds  = flag.Int("patch-rounds", 5, "how often TestRollingPatch has each server patched")
	deployRounds = flag.Int("deploy-rounds", 40, "how often TestThreeDeployments has each deployment run")
)

// fewestTurns is which part of its rounds each contender has had, at least, when the
// first has had them all.
const fewestTurns = 4

// TestRollingPatch has 20 servers patched again and again, each as soon as it may, three
// at a time.
func TestRollingPatch(t *testing.T) {
	for _, kind := range []struct {
		name  string
		locks []string
	}{
		{"pool", []string{"--any", "patch/slot-{1..3}"}},
		{"limit", []string{"patch", "--shared", "--limit", "3"}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			contenders := map[string][]string{}
			for n := range 20 {
				contenders[fmt.Sprintf("web-%d", n+1)] = kind.locks
			}
			rounds := *patchRounds
			turns := compete(t, rounds, contenders)
			if err := checkTurns(turns, 3, rounds, contenders); err != nil {
				t.Fatalf("%v\n%s", err, strings.Join(turns, "\n"))
			}
		})
	}
}

// TestThreeDeployments has one deployment that needs three locks at once, and two that
// need two of them each, run again and again.
func TestThreeDeployments(t *testing.T) {
	contenders := map[string][]string{
		"all":   {"shop/web", "shop/db", "shop/cache"},
		"front": {"shop/web", "shop/db"},
		"back":  {"shop/cache", "shop/db"},
	}
	rounds := *deployRounds
	turns := compete(t, rounds, contenders)
	if err := checkTurns(turns, 3, rounds, contenders); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(turns, "\n"))
	}
	for _, turn := range turns {
		if turn == "+ all shop/cache shop/db shop/web" {
			return
		}
	}
	t.Fatalf("no turn of all has its three locks\n%s", strings.Join(turns, "\n"))
}

// compete has each contender run a command under its locks, rounds times, all at once.
// It returns the beginnings and the ends of the commands in their order, such as
// "+ web-7 patch/slot-1" and "- web-7 patch/slot-1".
func compete(t *testing.T, rounds int, contenders map[string][]string) (turns []string) {
	bin, dir := programs(t), t.TempDir()
	socket := filepath.Join(dir, "pylok.sock")
	environment := append(environ(), "HOME="+dir, "PYLOK_ADDRESS=unix://"+socket, "PATH="+bin+":"+os.Getenv("PATH"))
	startServer(t, filepath.Join(bin, "pylokd"), environment, dir, "--root", "locks", "--listen", "none", "--socket", socket)
	// What asks the server for something takes a while, in which others come into line.
	const command = `echo "+ $0 $PYLOK_NAME" >> turns && pylok list > /dev/null && echo "- $0 $PYLOK_NAME" >> turns`
	failed := make(chan error, len(contenders))
	var running sync.WaitGroup
	for name, locks := range contenders {
		running.Go(func() {
			args := append(append([]string{"run"}, locks...), "--wait", "1h", "--holder", name, "--", "sh", "-c", command, name)
			for range rounds {
				run := exec.CommandContext(t.Context(), filepath.Join(bin, "pylok"), args...)
				run.Env, run.Dir = environment, dir
				run.WaitDelay = time.Second
				if output, err := run.CombinedOutput(); err != nil {
					failed <- fmt.Errorf("%s: %w\n%s", run, err, output)
					return
				}
			}
		})
	}
	running.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	text, err := os.ReadFile(filepath.Join(dir, "turns"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// checkTurns checks that no two commands have had one lock at a time, nor more than most
// locks been held at once, and that each contender has had its rounds, none of them long
// after the others.
func checkTurns(turns []string, most, rounds int, contenders map[string][]string) error {
	holders, had := map[string]string{}, map[string]int{}
	first := ""
	for i, turn := range turns {
		fields := strings.Fields(turn)
		if len(fields) < 3 {
			return fmt.Errorf("line %d says %q", i+1, turn)
		}
		what, who := fields[0], fields[1]
		for _, name := range fields[2:] {
			switch holder := holders[name]; {
			case what == "-":
				delete(holders, name)
			case holder != "":
				return fmt.Errorf("line %d: %s has %s, which %s has", i+1, who, name, holder)
			default:
				holders[name] = who
			}
		}
		if len(holders) > most {
			return fmt.Errorf("line %d: %d locks are held at once, want at most %d", i+1, len(holders), most)
		}
		if what == "-" {
			had[who]++
		}
		if had[who] == rounds && first == "" {
			first = who
			for contender := range contenders {
				if had[contender] < rounds/fewestTurns {
					return fmt.Errorf("%s has had %d turns when %s has had all its %d", contender, had[contender], first, rounds)
				}
			}
		}
	}
	if len(holders) > 0 {
		return fmt.Errorf("in the end %v are held", holders)
	}
	for contender := range contenders {
		if had[contender] != rounds {
			return fmt.Errorf("%s has had %d turns, want %d", contender, had[contender], rounds)
		}
	}
	return nil
}

// TestCheckTurns shows that checkTurns sees what it is for.
func TestCheckTurns(t *testing.T) {
	contenders := map[string][]string{"a": nil, "b": nil}
	repeat := func(n int, turns ...string) (all []string) {
		for range n {
			all = append(all, turns...)
		}
		return all
	}
	a, b := []string{"+ a x", "- a x"}, []string{"+ b x y", "- b x y"}
	for _, test := range []struct {
		name  string
		turns []string
		want  string
	}{
		{"all is well", repeat(4, append(a, b...)...), ""},
		{"one round is missing", repeat(3, append(a, b...)...), "has had 3 turns, want 4"},
		{"two at once", []string{"+ a x", "+ b x y"}, "line 2: b has x, which a has"},
		{"too many at once", []string{"+ a z", "+ b x y"}, "line 2: 3 locks are held at once, want at most 2"},
		{"one waits for ever", append(repeat(4, a...), repeat(4, b...)...), "b has had 0 turns when a has had all its 4"},
		{"one is left", append(repeat(4, append(a, b...)...), "+ a x"), "in the end map[x:a] are held"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := checkTurns(test.turns, 2, 4, contenders)
			if test.want == "" && err != nil || test.want != "" && !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("checkTurns returns %v, want %q", err, test.want)
			}
		})
	}
}
