package filestore

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

var mutations = flag.Int("mutations", 60, "how often the server's own files are spoilt")

// spoil changes one file in a way that hands and broken disks do, and says how.
func spoil(t *testing.T, random *rand.Rand, file string) (what string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimRight(text, "\x00"), []byte("\n"))
	n, k := random.IntN(len(lines)), random.IntN(len(lines))
	switch random.IntN(7) {
	case 0:
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		return "removed"
	case 1:
		what, text = fmt.Sprintf("line %d taken out", n), bytes.Join(slices.Delete(lines, n, n+1), nil)
	case 2:
		what, text = fmt.Sprintf("line %d twice", n), bytes.Join(slices.Insert(lines, n, bytes.Clone(lines[n])), nil)
	case 3:
		lines[n], lines[k] = lines[k], lines[n]
		what, text = fmt.Sprintf("lines %d and %d swapped", n, k), bytes.Join(lines, nil)
	case 4:
		what, text = "emptied", nil
	case 5:
		at := random.IntN(len(text))
		what, text = fmt.Sprintf("cut off at %d", at), text[:at]
	case 6:
		at := random.IntN(len(text))
		text[at] ^= 1 << random.IntN(8)
		what = fmt.Sprintf("another bit at %d", at)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

// TestSpoiltFiles spoils one of the server's own files after a clean stop. The start is
// refused, in words, as Check says before; or all holds stand and tokens go on.
func TestSpoiltFiles(t *testing.T) {
	p := newServed(t)
	s := p.mustOpen(t)
	b := newLedger()
	commit := func(c lock.Change) {
		t.Helper()
		if err := b.commit(t, s, p.disk, c); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 24 {
		name := lock.MustParseName(fmt.Sprintf("held/%d", n%7))
		if l := present(t.Context(), t, s, name); l.Held() {
			commit(unlocked(l))
		}
		grant := locked(lock.Lock{Name: name}, fmt.Sprint("holder ", n), `{"msg":"hi"}`)
		grant.Lock.Tree = n%5 == 0
		if n%5 == 1 {
			grant.Lock.OnExpiry, grant.Lock.StaleTime = lock.Keep, time.UnixMilli(int64(n)).UTC()
		}
		grant.Lock.Set.Size = n % 3
		commit(grant)
		if n == 12 {
			p.end(t, s, true)
			s = p.mustOpen(t)
		}
	}
	p.end(t, s, true)
	var files []string
	for _, pattern := range []string{"*", "journal/*"} {
		found, err := filepath.Glob(filepath.Join(p.root, ownDir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				files = append(files, strings.TrimPrefix(file, p.root))
			}
		}
	}
	refused := 0
	for n := range *mutations {
		random := rand.New(rand.NewPCG(uint64(n), 1))
		q := newServed(t)
		copyTree(t, p.root, q.root)
		copyTree(t, p.state, q.state)
		file := files[n%len(files)]
		what := fmt.Sprintf("mutation %d: %s: %s", n, file, spoil(t, random, filepath.Join(q.root, file)))
		findings := q.check(t)
		s, err := q.open(t)
		if err != nil {
			refused++
			if len(findings) == 0 {
				t.Errorf("%s: Check finds nothing, and the start is refused: %v", what, err)
			}
			continue
		}
		b := &ledger{possible: b.possible, events: b.events, outside: b.outside, highest: b.highest}
		b.check(t, what, s)
		q.end(t, s, true)
	}
	if refused == 0 || refused == *mutations {
		t.Errorf("%d of %d starts were refused; the test wants some", refused, *mutations)
	}
}
