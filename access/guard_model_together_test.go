package access_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/lock"
)

// TestGuardModelTogether: under random rules, and among random trees, sets, shared holds and
// waiters, a request is refused exactly if one of its locks lacks a right; what is refused
// changes nothing; and no answer has a name, a holder or a message of what its caller may not
// view.
func TestGuardModelTogether(t *testing.T) {
	asked, refused, hidden := 0, 0, 0
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			m := &together{t: t, random: rand.New(rand.NewPCG(seed, 15)), seed: seed}
			m.run()
			asked, refused, hidden = asked+m.asked, refused+m.refused, hidden+m.hidden
		})
		if t.Failed() {
			return
		}
	}
	if refused < asked/20 || refused > asked*19/20 || hidden < 20 {
		t.Errorf("of %d requests %d were refused by the rules, and in %d something was hidden: too few or too many to show much", asked, refused, hidden)
	}
}

type together struct {
	t                      *testing.T
	random                 *rand.Rand
	seed                   uint64
	g                      *guarded
	asked, refused, hidden int
}

var togetherNames = []string{"a", "a/1", "a/2", "a/b", "a/b/1", "b", "b/1", "b/2", "c/1", "_all"}

func (m *together) name() lock.Name {
	return lock.MustParseName(togetherNames[m.random.IntN(len(togetherNames))])
}

// some returns different names, in any order.
func (m *together) some(most int) (names []lock.Name) {
	for _, i := range m.random.Perm(len(togetherNames))[:1+m.random.IntN(most)] {
		names = append(names, lock.MustParseName(togetherNames[i]))
	}
	return names
}

func (m *together) rules() (text string) {
	pick := func(of ...string) string { return of[m.random.IntN(len(of))] }
	for range 1 + m.random.IntN(4) {
		text += fmt.Sprintf("  - {who: [%q], may: [%s], locks: [%q]}\n", pick("*", "token:ci", "group:ci"), pick("view", "lock", "lock", "break", "freeze", "lock, freeze", "lock, break"), pick("**", "a/**", "a/b/**", "b/**", "a/*", "*/1", "a", "a/b", "b", "c/1"))
	}
	return text
}

// mark returns a holder and data that tell of which locks they are.
func mark(t *testing.T, names ...lock.Name) (string, lock.Data) {
	t.Helper()
	text := strings.Trim(fmt.Sprint(names), "[]")
	data, err := lock.NewData(map[string]any{"msg": "<" + text + ">"})
	if err != nil {
		t.Fatal(err)
	}
	return "<" + text + ">", data
}

// marked are the marks in a text.
var marked = regexp.MustCompile(`<([^<>]*)>`)

// namesIn returns all names in an answer, however deep.
func namesIn(answer any) (names []lock.Name) {
	var walk func(reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[lock.Name]() {
				if text := v.Field(0).String(); text != "" {
					names = append(names, lock.MustParseName(text))
				}
				return
			}
			if v.Type() == reflect.TypeFor[lock.Data]() || v.Type() == reflect.TypeFor[time.Time]() {
				return
			}
			for _, field := range v.Fields() {
				walk(field)
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		}
	}
	walk(reflect.ValueOf(answer))
	return names
}

func (m *together) run() {
	m.g = newGuarded(m.t, m.rules(), nil)
	ctx, stop := context.WithCancel(m.t.Context())
	defer synctest.Wait()
	defer stop()
	for range 12 {
		m.stand(ctx)
	}
	for range 40 {
		if m.random.IntN(8) == 0 {
			m.g.change(m.rules())
		}
		if m.random.IntN(8) == 0 {
			m.stand(ctx)
		}
		m.ask()
		if m.t.Failed() {
			return
		}
	}
}

// stand has somebody hold something or wait for it.
func (m *together) stand(ctx context.Context) {
	who := lock.Caller{Name: fmt.Sprintf("unix:%d", m.random.IntN(3))}
	wait := time.Duration(m.random.IntN(2)) * time.Hour
	go func(n lock.Name, some []lock.Name, kind int) {
		r := lock.LockRequest{Name: n, Wait: wait}
		r.Holder, r.Data = mark(m.t, n)
		switch kind {
		case 0:
			r.Tree = true
		case 1:
			r.Tree, r.Drain, r.Wait = true, true, time.Hour
		case 2:
			r.Shared = true
		case 3:
			set := lock.SetRequest{Names: some, Wait: wait}
			slices.SortFunc(some, lock.Name.Compare)
			set.Holder, set.Data = mark(m.t, some...)
			m.g.inner.LockSet(ctx, who, set)
			return
		case 4:
			r.ThroughFreeze, r.Reason = true, "hot fix"
		}
		m.g.inner.Lock(ctx, who, r)
	}(m.name(), m.some(4), m.random.IntN(7))
	synctest.Wait()
}

// ask asks for something, through the guard.
func (m *together) ask() {
	ctx, ci := m.g.ci()
	p := m.g.control.Policy()
	may := func(v access.Verb, names ...lock.Name) bool {
		return !slices.ContainsFunc(names, func(n lock.Name) bool {
			if v == access.Freeze {
				return !p.AllowsFreeze(ci, n)
			}
			return !p.Allows(ci, v, n)
		})
	}
	n, some := m.name(), m.some(4)
	if m.random.IntN(6) == 0 {
		if slot, err := n.Slot(1 + m.random.IntN(2)); err == nil {
			n = slot
		}
	}
	present := m.g.status(n)
	token := present.Token + lock.Token(m.random.IntN(2))
	mayKeep := may(access.Lock, n) || may(access.Freeze, n) && present.Tree
	holds := make([]lock.HoldRef, len(some))
	keepAll := true
	for i, n := range some {
		l := m.g.status(n)
		holds[i] = lock.HoldRef{Name: n, Token: max(l.Token, 1)}
		keepAll = keepAll && (may(access.Lock, n) || may(access.Freeze, n) && l.Tree)
	}
	synctest.Wait() // what the last request has freed goes to others
	before := m.g.revision()
	var answer any
	var err error
	var allowed bool
	var what string
	switch m.random.IntN(13) {
	case 0:
		what, allowed = "lock", may(access.Lock, n)
		answer, err = m.g.Lock(ctx, ci, lock.LockRequest{Name: n, Wait: time.Duration(m.random.IntN(2)) * time.Second, Shared: m.random.IntN(3) == 0})
	case 1:
		what, allowed = "freeze", may(access.Freeze, n)
		answer, err = m.g.Lock(ctx, ci, lock.LockRequest{Name: n, Tree: true})
	case 2:
		what, allowed = "through", may(access.Lock, n) && may(access.Freeze, n)
		answer, err = m.g.Lock(ctx, ci, lock.LockRequest{Name: n, ThroughFreeze: true, Reason: "r"})
	case 3, 4:
		what, allowed = "set", may(access.Lock, some...)
		request := lock.SetRequest{Names: some, Wait: time.Duration(m.random.IntN(2)) * time.Second}
		if half := len(some) / 2; half > 0 && m.random.IntN(2) == 0 {
			request.Names, request.Choices = some[:half], []lock.Choice{{Names: some[half:], Count: 1}}
		}
		answer, err = m.g.LockSet(ctx, ci, request)
	case 5:
		what, allowed = "renew a set", keepAll
		answer, err = m.g.RenewSet(ctx, ci, lock.RenewSetRequest{Holds: holds, TTL: time.Hour})
	case 6:
		what, allowed = "unlock a set", keepAll
		answer, err = m.g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Holds: holds})
	case 7:
		what, allowed = "a set by its number", true
		answer, err = m.g.UnlockSet(ctx, ci, lock.UnlockSetRequest{Set: lock.Token(1 + m.random.IntN(20)), Force: true, Reason: "r"})
	case 8:
		what, allowed = "ask", may(access.Lock, n)
		answer, err = m.g.Ask(ctx, ci, lock.AskRequest{Name: n, Message: "m"})
	case 9:
		what, allowed = "dismiss", may(access.Break, n)
		answer, err = m.g.Dismiss(ctx, ci, lock.DismissRequest{Name: n, Place: uint64(1 + m.random.IntN(20)), Reason: "r"})
	case 10:
		what, allowed = "hand over", mayKeep
		answer, err = m.g.HandOver(ctx, ci, lock.HandOverRequest{Name: n, Token: max(token, 1), Caller: ci.Name})
	case 11:
		what, allowed = "status", may(access.View, n)
		answer, err = m.g.Status(ctx, ci, n)
	case 12:
		what, allowed = "list", true
		answer, _, _, err = m.g.List(ctx, ci, lock.MustParsePattern("**"), lock.Name{}, 100)
	}
	m.asked++
	denied := errors.Is(err, lock.ErrPermissionDenied)
	if denied {
		m.refused++
	}
	if what == "hand over" && present.Tree && !may(access.Freeze, n) {
		return // the rules on locks refuse it, or say first that it is not the caller's
	}
	if denied == allowed {
		m.t.Errorf("seed %d: %s of %s, %v: %v; allowed: %t", m.seed, what, n, some, err, allowed)
	}
	if denied && m.g.revision() != before {
		m.t.Errorf("seed %d: %s of %s, %v is refused and has changed something", m.seed, what, n, some)
	}
	if denied {
		return
	}
	names := namesIn(answer)
	if refusal, ok := errors.AsType[*lock.Error](err); ok {
		names = append(names, namesIn(refusal)...)
	}
	for _, name := range names {
		if !may(access.View, name) {
			m.t.Errorf("seed %d: %s of %s, %v tells of %s, which may not be viewed: %+v, %v", m.seed, what, n, some, name, answer, err)
		}
	}
	text := textOf(answer)
	if err != nil {
		text += textOf(err)
	}
	if strings.Contains(text, "may not view") {
		m.hidden++
	}
	for _, mark := range marked.FindAllStringSubmatch(text, -1) {
		seen := slices.ContainsFunc(strings.Fields(mark[1]), func(name string) bool { return may(access.View, lock.MustParseName(name)) })
		if !seen {
			m.t.Errorf("seed %d: %s of %s, %v tells of who has or wants %s: %s", m.seed, what, n, some, mark[1], text)
		}
	}
}
