package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// apart is pylokd whose journal takes the changes of a commit for commits of their own.
var apart = &program{name: "pylokd-apart", edits: []edit{
	{"filestore/stage.go", "st.record.More = i < len(c.changes)-1", "st.record.More = false"},
	// So that a cut comes between two of them.
	{"filestore/committer.go", "\treturn s.journal.Write(reserved, s.records...)\n", "\tfor _, r := range s.records {\n\t\tif err := s.journal.Write(reserved, r); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := s.journal.Sync(s.journal.Written()); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n\treturn nil\n"},
}}

// taker takes a set of locks and gives it back, again and again. Nobody else wants them.
type taker struct {
	names []string
	held  []*pylokv1.Lock // that it knows to hold: all or none
	doubt bool            // it does not know whether the last thing that it asked for was done
	fault string
}

func newTaker(i, size int) *taker {
	k := new(taker)
	for n := range size {
		k.names = append(k.names, fmt.Sprintf("sets/%d/dir-%d/lock-%02d", i, n%3, n))
	}
	slices.Sort(k.names)
	return k
}

// run takes and gives back until it does not know what became of it.
func (k *taker) run(client pylokv1.LockServiceClient, dead *atomic.Bool, done *atomic.Int64, stopped <-chan struct{}) {
	for {
		select {
		case <-stopped:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		var held []*pylokv1.Lock
		var err error
		if k.held == nil {
			var response *pylokv1.LockSetResponse
			response, err = client.LockSet(ctx, &pylokv1.LockSetRequest{Names: k.names, Holder: "taker"})
			held = response.GetLocks()
		} else {
			request := new(pylokv1.UnlockSetRequest)
			for _, l := range k.held {
				request.Holds = append(request.Holds, &pylokv1.HoldRef{Name: l.Name, Token: l.Token})
			}
			var response *pylokv1.UnlockSetResponse
			response, err = client.UnlockSet(ctx, request)
			for _, answer := range response.GetAnswers() {
				if answer.Reason != "" {
					k.fault = fmt.Sprintf("UnlockSet says %s of %s: %s", answer.Reason, answer.Name, answer)
				}
			}
		}
		cancel()
		switch {
		case reasonOf(err) == "STORE_READ_ONLY": // nothing changed, it says
			return
		case err != nil || dead.Load():
			k.doubt = true
			return
		}
		k.held = held
		done.Add(1)
	}
}

// check returns what a daemon that was started again has of the taker's locks that it should
// not have, and goes on from there.
func (k *taker) check(locks held) (problems []string) {
	if k.fault != "" {
		problems, k.fault = append(problems, k.fault), ""
	}
	var now []*pylokv1.Lock
	for _, name := range k.names {
		if l := locks[name]; l != nil {
			now = append(now, l)
		}
	}
	complain := func(what string) {
		var held []string
		for _, l := range now {
			held = append(held, fmt.Sprintf("%s (token %d, set %v)", l.Name, l.Token, l.Set))
		}
		problems = append(problems, fmt.Sprintf("%s: %d of %d locks are held: %s", what, len(now), len(k.names), strings.Join(held, ", ")))
	}
	isOther := func(a, b *pylokv1.Lock) bool { return a.Token == b.Token }
	switch {
	case len(now) != 0 && len(now) != len(k.names):
		complain("half of a set")
	case slices.ContainsFunc(now, func(l *pylokv1.Lock) bool {
		return l.Set.GetId() != now[0].Token || int(l.Set.GetSize()) != len(k.names) || l.Holder != "taker" || l.Problem != ""
	}):
		complain("no set")
	case !k.doubt && (len(now) == 0) != (k.held == nil):
		complain("what was answered is not there")
	case k.held != nil && len(now) > 0 && !slices.EqualFunc(now, k.held, isOther):
		complain("another set")
	}
	k.held, k.doubt = now, false
	return problems
}

// cutSets has takers work on a daemon, cuts the power, and returns what is not all or none
// after the next start.
func (c *cutter) cutSets(t *testing.T, p *program, takers []*taker) (problems []string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	d, err := tryStart(t, p, c.root)
	if err != nil {
		return []string{err.Error()}
	}
	var dead atomic.Bool
	var done atomic.Int64
	stopped := make(chan struct{})
	var working sync.WaitGroup
	for _, k := range takers {
		client := newClient(t, d.address)
		working.Go(func() { k.run(client, &dead, &done, stopped) })
	}
	goal := int64(1 + c.random.IntN(300))
	_, problem := within(ctx, patience, func() string {
		if n := done.Load(); n < goal {
			return fmt.Sprintf("only %d sets were taken or given back", n)
		}
		return ""
	})
	if problem != "" {
		problems = append(problems, problem)
	}
	time.Sleep(time.Duration(c.random.IntN(3000)) * time.Microsecond) // let the cut come at any point of what the daemon does
	dead.Store(true)
	if err := c.volume.cut([]int{cutNoFlush, cutNoFlush, cutFlush, cutLogFlush}[c.random.IntN(4)]); err != nil {
		t.Fatal(err)
	}
	d.kill()
	close(stopped)
	working.Wait()
	c.remount(t)
	if d, err = tryStart(t, p, c.root); err != nil {
		return []string{err.Error()}
	}
	defer d.kill()
	locks, err := list(ctx, d.client)
	if err != nil {
		return []string{err.Error()}
	}
	for _, k := range takers {
		problems = append(problems, k.check(locks)...)
	}
	files, err := readFiles(d.root)
	if err != nil {
		return append(problems, err.Error())
	}
	return append(problems, locks.disagreements(files)...)
}

func newTakers(random *rand.Rand) (takers []*taker) {
	for i := range 8 {
		takers = append(takers, newTaker(i, []int{2, 5, 16, 64}[(i+random.IntN(2))%4]))
	}
	return takers
}

// TestPowerCutsOfSets cuts the power of a daemon whose clients take sets of up to 64 locks:
// after the next start all of each is there, or nothing.
func TestPowerCutsOfSets(t *testing.T) {
	c := newCutter(t)
	takers := newTakers(c.random)
	for i := range *cuts {
		ok := t.Run(fmt.Sprintf("cut-%d", i+1), func(t *testing.T) {
			if problems := c.cutSets(t, []*program{delivered, hurried}[i/2%2], takers); len(problems) > 0 {
				t.Error(cut(problems))
			}
		})
		if !ok {
			break
		}
	}
	c.volume.unmount(t)
	c.volume.check(t)
}

// TestPowerCutsFindHalves has a journal forget what belongs together, and requires that the
// test above notices.
func TestPowerCutsFindHalves(t *testing.T) {
	c := newCutter(t)
	takers := newTakers(c.random)
	const most = 20
	for i := range most {
		var problems []string
		t.Run(fmt.Sprintf("cut-%d", i+1), func(t *testing.T) { problems = c.cutSets(t, apart, takers) })
		if len(problems) > 0 {
			t.Logf("cut %d has shown it, with %d problems:\n%s", i+1, len(problems), cut(problems[:1]))
			return
		}
	}
	t.Errorf("%d cuts and no half set, want some: the test cannot fail", most)
}
