package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// lockFilePath is where the file of a lock is.
func (d *daemon) lockFilePath(name string) string { return filepath.Join(d.root, name+".lock") }

// awaitStatus waits until a lock is as it should be, and fails the test if it never is.
func awaitStatus(t *testing.T, d *daemon, name, what string, is func(*pylokv1.Lock) bool) *pylokv1.Lock {
	t.Helper()
	var l *pylokv1.Lock
	_, problem := within(t.Context(), patience, func() string {
		response, err := d.client.Status(t.Context(), &pylokv1.StatusRequest{Name: name})
		if err != nil {
			return err.Error()
		}
		if l = response.GetLock(); !is(l) {
			return fmt.Sprintf("%s is %v, want it %s", name, l, what)
		}
		return ""
	})
	if problem != "" {
		t.Fatal(problem)
	}
	return l
}

func isFree(l *pylokv1.Lock) bool { return l.GetToken() == 0 }
func isHeld(l *pylokv1.Lock) bool { return l.GetToken() != 0 }

// touch makes a file, as the program of that name does.
func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// refusedFor is what a request without a wait was refused for; empty: it was granted, and
// has been given back.
func refusedFor(t *testing.T, d *daemon, r *pylokv1.LockRequest) string {
	t.Helper()
	response, err := d.client.Lock(t.Context(), r)
	if err != nil {
		return reasonOf(err)
	}
	if _, err := d.client.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: response.GetLock().GetName(), Token: response.GetLock().GetToken()}); err != nil {
		t.Fatal(err)
	}
	return ""
}

// TestSetFileRemoved: where somebody removes the file of one lock of a set, the others
// stay, and the holder, the list and the history say what is over.
func TestSetFileRemoved(t *testing.T) {
	d := start(t, delivered, filepath.Join(t.TempDir(), "root"))
	ctx := t.Context()
	set, err := d.client.LockSet(ctx, &pylokv1.LockSetRequest{Names: []string{"shop/cache", "shop/db", "shop/web"}, Holder: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.lockFilePath("shop/db")); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, d, "shop/db", "free", isFree)
	locks, err := list(ctx, d.client)
	if err != nil {
		t.Fatal(err)
	}
	if locks["shop/db"] != nil || len(locks) != 2 {
		t.Errorf("held are %v, want shop/cache and shop/web", locks)
	}
	for name, l := range locks {
		if l.GetSet().GetId() != set.GetLocks()[0].GetToken() || l.GetSet().GetSize() != 3 {
			t.Errorf("%s says that it is of the set %v, want %d of 3", name, l.GetSet(), set.GetLocks()[0].GetToken())
		}
		text, err := os.ReadFile(d.lockFilePath(name))
		if want := fmt.Sprintf("lock_set: %d/3", set.GetLocks()[0].GetToken()); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("the file of %s has not %q: %v\n%s", name, want, err, text)
		}
	}
	var holds []*pylokv1.HoldRef
	for _, l := range set.GetLocks() {
		holds = append(holds, &pylokv1.HoldRef{Name: l.GetName(), Token: l.GetToken()})
	}
	renewed, err := d.client.RenewSet(ctx, &pylokv1.RenewSetRequest{Holds: holds, Expiry: &pylokv1.RenewSetRequest_Ttl{Ttl: durationpb.New(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	released, err := d.client.UnlockSet(ctx, &pylokv1.UnlockSetRequest{Holds: holds})
	if err != nil {
		t.Fatal(err)
	}
	for _, answers := range [][]*pylokv1.SetAnswer{renewed.GetAnswers(), released.GetAnswers()} {
		var reasons []string
		for _, a := range answers {
			reasons = append(reasons, a.GetReason())
		}
		if want := []string{"", "NOT_LOCKED", ""}; !slices.Equal(reasons, want) {
			t.Errorf("the answers are %q, want %q", reasons, want)
		}
	}
	events, err := history(ctx, d.client, 0)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(events, func(e *pylokv1.Event) bool {
		return e.GetType() == pylokv1.EventType_EVENT_TYPE_UNLOCKED && e.GetLock().GetName() == "shop/db"
	})
	if i < 0 || events[i].GetCause() != pylokv1.EventCause_EVENT_CAUSE_FILE {
		t.Errorf("the history has %v, want the end of shop/db by its file", events)
	}
}

// TestPoolSlotTouched: a slot of a pool that somebody takes by touch is taken, and free
// again when the file is removed; so is a shared hold.
func TestPoolSlotTouched(t *testing.T) {
	d := start(t, delivered, filepath.Join(t.TempDir(), "root"))
	ctx := t.Context()
	one := &pylokv1.LockSetRequest{Choices: []*pylokv1.Choice{{Names: []string{"patch/1", "patch/2"}, Count: 1}}}
	touch(t, d.lockFilePath("patch/1"))
	awaitStatus(t, d, "patch/1", "held", isHeld)
	first, err := d.client.LockSet(ctx, one)
	if err != nil || len(first.GetLocks()) != 1 || first.GetLocks()[0].GetName() != "patch/2" {
		t.Fatalf("got %v, %v, want patch/2", first, err)
	}
	if _, err := d.client.LockSet(ctx, one); reasonOf(err) != "LOCK_HELD" {
		t.Errorf("a third was granted: %v", err)
	}
	one.Wait = durationpb.New(patience)
	granted := make(chan error, 1)
	go func() {
		second, err := d.client.LockSet(ctx, one)
		if err == nil && second.GetLocks()[0].GetName() != "patch/1" {
			err = fmt.Errorf("got %v, want patch/1", second)
		}
		granted <- err
	}()
	awaitStatus(t, d, "patch/1", "waited for", func(l *pylokv1.Lock) bool { return l.GetWaiters() == 1 })
	if err := os.Remove(d.lockFilePath("patch/1")); err != nil {
		t.Fatal(err)
	}
	if err := <-granted; err != nil {
		t.Error(err)
	}

	touch(t, d.lockFilePath("conf/app/_+by-hand"))
	awaitStatus(t, d, "conf/app", "shared", func(l *pylokv1.Lock) bool { return l.GetSharedHolds() == 1 })
	if got := refusedFor(t, d, &pylokv1.LockRequest{Name: "conf/app"}); got != "LOCK_HELD" {
		t.Errorf("beside a shared hold by hand the lock itself was refused for %q, want LOCK_HELD", got)
	}
	if got := refusedFor(t, d, &pylokv1.LockRequest{Name: "conf/app", Shared: true, Limit: 1}); got != "LOCK_HELD" {
		t.Errorf("a second of one shared hold was refused for %q, want LOCK_HELD", got)
	}
	if got := refusedFor(t, d, &pylokv1.LockRequest{Name: "conf/app", Shared: true}); got != "" {
		t.Errorf("another shared hold was refused for %q", got)
	}
	if err := os.Remove(d.lockFilePath("conf/app/_+by-hand")); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, d, "conf/app", "not shared", func(l *pylokv1.Lock) bool { return l.GetSharedHolds() == 0 })
	if got := refusedFor(t, d, &pylokv1.LockRequest{Name: "conf/app"}); got != "" {
		t.Errorf("the lock was refused for %q when the file was gone", got)
	}
}

// TestFreezeByHand: a lock file with lock_scope: tree freezes what is below, from its
// making or its edit on; its removal, or that of the line, thaws.
func TestFreezeByHand(t *testing.T) {
	d := start(t, delivered, filepath.Join(t.TempDir(), "root"))
	// The file shows in Status a moment before the server acts upon it.
	frozen := func(want bool) {
		t.Helper()
		awaitStatus(t, d, "prod/web", fmt.Sprintf("frozen: %t", want), func(l *pylokv1.Lock) bool { return want == (l.GetBlockedBy() != nil) })
	}
	write := func(text string) {
		t.Helper()
		path := d.lockFilePath("prod")
		if err := os.WriteFile(path+"~", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
	}
	below := func(when, want string) {
		t.Helper()
		for _, name := range []string{"prod/web", "prod/db/1/2/3/4/5/6/7/8/9/a/b/c/d"} {
			if got := refusedFor(t, d, &pylokv1.LockRequest{Name: name}); got != want {
				t.Errorf("%s: %s was refused for %q, want %q", when, name, got, want)
			}
		}
		if got := refusedFor(t, d, &pylokv1.LockRequest{Name: "production"}); got != "" {
			t.Errorf("%s: production was refused for %q", when, got)
		}
	}
	below("before", "")
	write("msg: holidays\nlock_scope: tree\n")
	frozen(true)
	below("frozen", "LOCK_HELD")
	if got := refusedFor(t, d, &pylokv1.LockRequest{Name: "prod/web", ThroughFreeze: true, Reason: "hot fix"}); got != "" {
		t.Errorf("through the freeze it was refused for %q", got)
	}
	granted := make(chan error, 1)
	go func() {
		_, err := d.client.Lock(t.Context(), &pylokv1.LockRequest{Name: "prod/api", Wait: durationpb.New(patience)})
		granted <- err
	}()
	awaitStatus(t, d, "prod/api", "waited for", func(l *pylokv1.Lock) bool { return l.GetWaiters() == 1 })
	if err := os.Remove(d.lockFilePath("prod")); err != nil {
		t.Fatal(err)
	}
	if err := <-granted; err != nil {
		t.Errorf("who waited for the thaw was refused: %v", err)
	}
	frozen(false)
	below("thawed", "")
	write("msg: not yet\n")
	awaitStatus(t, d, "prod", "no tree", func(l *pylokv1.Lock) bool { return isHeld(l) && !l.GetTree() })
	frozen(false)
	below("held without the line", "")
	write("msg: now\nlock_scope: tree\n")
	frozen(true)
	below("frozen by an edit", "LOCK_HELD")
	d.kill()
	d = start(t, delivered, d.root)
	below("frozen, after a kill", "LOCK_HELD")
	write("msg: over\n")
	frozen(false)
	below("thawed by an edit", "")
}

// What those take who take sets while the daemon ends.
const (
	setSize  = 8
	setHosts = 6 // clients, each with locks of its own
)

// setHost takes and gives back sets as fast as it can, until its daemon is gone.
func setHost(client pylokv1.LockServiceClient, number int, random *rand.Rand, stop <-chan struct{}) (held *pylokv1.LockSetResponse, inDoubt bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return held, false
		default:
		}
		var names []string
		for i := range setSize {
			names = append(names, fmt.Sprintf("host-%d/%d", number, (i+n)%(2*setSize)))
		}
		set, err := client.LockSet(ctx, &pylokv1.LockSetRequest{Names: names, Holder: fmt.Sprint("host-", number)})
		if err != nil {
			return nil, true
		}
		held = set
		if random.IntN(4) == 0 { // it is held for a moment
			time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
		}
		var holds []*pylokv1.HoldRef
		for _, l := range set.GetLocks() {
			holds = append(holds, &pylokv1.HoldRef{Name: l.GetName(), Token: l.GetToken()})
		}
		if _, err := client.UnlockSet(ctx, &pylokv1.UnlockSetRequest{Holds: holds}); err != nil {
			return held, true
		}
		held = nil
	}
}

// wholeSets complains of every set of which a part was granted, or is held.
func wholeSets(ctx context.Context, d *daemon) (problems []string) {
	events, err := history(ctx, d.client, 0)
	if err != nil {
		return []string{err.Error()}
	}
	granted := make(map[uint64]int)
	for _, e := range events {
		if set := e.GetLock().GetSet(); e.GetType() == pylokv1.EventType_EVENT_TYPE_LOCKED {
			granted[set.GetId()]++
			if e.GetRevision() >= set.GetId()+uint64(set.GetSize()) {
				problems = append(problems, fmt.Sprintf("revision %d is not of the step of its set: %v", e.GetRevision(), e))
			}
		}
	}
	for id, n := range granted {
		if n != setSize {
			problems = append(problems, fmt.Sprintf("of the set %d were %d granted, want %d", id, n, setSize))
		}
	}
	locks, err := list(ctx, d.client)
	if err != nil {
		return append(problems, err.Error())
	}
	held := make(map[uint64]int)
	for _, l := range locks {
		held[l.GetSet().GetId()]++
	}
	for id, n := range held {
		if n != setSize {
			problems = append(problems, fmt.Sprintf("of the set %d are %d held, want all or none", id, n))
		}
	}
	files, err := readFiles(d.root)
	if err != nil {
		return append(problems, err.Error())
	}
	for name, file := range files {
		if token := fmt.Sprint(file.whole["lock_token"]); token != fmt.Sprint(locks[name].GetToken()) {
			problems = append(problems, fmt.Sprintf("%s has token %d and a lock file with token %s", name, locks[name].GetToken(), token))
		}
	}
	return append(problems, locks.disagreements(files)...)
}

// setsSurvive has sets taken and given back, kills the daemon, and returns what is not whole
// when it is back. What was acknowledged has to be there.
func setsSurvive(t *testing.T, p *program, root string, random *rand.Rand) (problems []string) {
	t.Helper()
	d := start(t, p, root)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	left, err := list(ctx, d.client) // of the life before
	if err != nil {
		t.Fatal(err)
	}
	for name := range left {
		if _, err := d.client.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Force: true, Reason: "another life"}); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	type last struct {
		held    *pylokv1.LockSetResponse
		inDoubt bool
	}
	lasts := make([]last, setHosts)
	var hosts sync.WaitGroup
	for i := range lasts {
		client, random := newClient(t, d.address), rand.New(rand.NewPCG(random.Uint64(), 0))
		hosts.Go(func() { lasts[i].held, lasts[i].inDoubt = setHost(client, i, random, stop) })
	}
	time.Sleep(time.Duration(20+random.IntN(150)) * time.Millisecond) // any moment will do
	d.kill()
	close(stop)
	hosts.Wait()
	d = start(t, p, root)
	problems = wholeSets(ctx, d)
	locks, err := list(ctx, d.client)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lasts {
		if l.inDoubt {
			continue
		}
		for _, was := range l.held.GetLocks() {
			if got := locks[was.GetName()]; got.GetToken() != was.GetToken() {
				problems = append(problems, fmt.Sprintf("%s was held with token %d, and there is %v", was.GetName(), was.GetToken(), got))
			}
		}
	}
	d.kill()
	return problems
}

// TestSetsSurviveKills kills a daemon in the midst of sets.
func TestSetsSurviveKills(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	root := filepath.Join(t.TempDir(), "root")
	for i := range max(*cuts/5, 3) {
		if problems := setsSurvive(t, []*program{delivered, hurried}[i%2], root, random); len(problems) > 0 {
			t.Fatalf("seed %d, kill %d: %s", seed, i+1, cut(problems))
		}
	}
}
