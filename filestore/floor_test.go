package filestore

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pylok/pylok/lock"
)

// served is a root with a state directory.
type served struct {
	root, state string
	accept      bool
	disk        *testDisk // of the last store
}

func newServed(t *testing.T) *served {
	t.Helper()
	dir := t.TempDir()
	return &served{root: filepath.Join(dir, "root"), state: filepath.Join(dir, "state")}
}

func (p *served) config() Config {
	return Config{Root: p.root, StateDir: p.state, AcceptRestore: p.accept, NoNotify: true, journal: smallJournal}.withDefaults()
}

func (p *served) open(t *testing.T) (*Store, error) {
	t.Helper()
	p.disk = openDisk(t, p.root)
	s, err := open(t.Context(), p.config(), p.disk.root, p.disk)
	if err != nil {
		p.disk.FS.Close()
	}
	return s, err
}

func (p *served) mustOpen(t *testing.T) *Store {
	t.Helper()
	s, err := p.open(t)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// end ends a store, cleanly or as kill -9 does.
func (p *served) end(t *testing.T, s *Store, clean bool) {
	t.Helper()
	if !clean {
		p.disk.kill()
	}
	if err := s.Close(); clean && err != nil {
		t.Fatal(err)
	}
}

// check returns what Check has to say.
func (p *served) check(t *testing.T) (findings []string) {
	t.Helper()
	if err := Check(t.Context(), p.config(), func(finding string) { findings = append(findings, finding) }); err != nil {
		t.Fatal(err)
	}
	return findings
}

// wantRefused checks that neither Check nor Open let the root pass, with which words.
func (p *served) wantRefused(t *testing.T, words ...string) {
	t.Helper()
	findings := p.check(t)
	before := tree(t, p.root)
	s, err := p.open(t)
	if err == nil {
		s.Close()
		t.Fatal("it is opened")
	}
	if len(findings) == 0 {
		t.Fatal("Check has nothing to say")
	}
	finding := findings[len(findings)-1]
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("Open does not say %q: %v", word, err)
		}
		if !strings.Contains(finding, word) {
			t.Errorf("Check does not say %q: %s", word, finding)
		}
	}
	wantTree(t, "refused", tree(t, p.root), before)
}

// grant locks and releases a lock so many times, and returns the last token.
func grant(t *testing.T, s *Store, name string, times int) (token lock.Token) {
	t.Helper()
	for range times {
		events, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName(name)}, "alice", `{}`)})
		if err != nil {
			t.Fatal(err)
		}
		token = events[0].Lock.Token
		if _, err := s.Commit(t.Context(), []lock.Change{unlocked(events[0].Lock)}); err != nil {
			t.Fatal(err)
		}
	}
	return token
}

// hold locks a lock and returns it.
func hold(t *testing.T, s *Store, name string) lock.Lock {
	t.Helper()
	events, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName(name)}, "alice", `{"msg":"mine"}`)})
	if err != nil {
		t.Fatal(err)
	}
	return events[0].Lock
}

// copyTree copies a directory with modes and times. It starts no program: a child that has
// been forked, and not yet begun, would keep the claims of other tests on their roots.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(file, from)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Mkdir(target, info.Mode().Perm())
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, text, info.Mode().Perm()); err != nil {
			return err
		}
		return os.Chtimes(target, info.ModTime(), info.ModTime())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestJournalMovedAway follows the message for a damaged journal: the lock files are
// adopted, and no token comes again, those of released holds included.
func TestJournalMovedAway(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean stop: %v", clean), func(t *testing.T) {
			p := newServed(t)
			s := p.mustOpen(t)
			hold(t, s, "held")
			highest := grant(t, s, "x", 20)
			p.end(t, s, clean)
			mustRemoveAll(t, filepath.Join(p.root, journalDir))
			mustRemoveAll(t, filepath.Join(p.root, snapshotFile)) // the mark alone is to tell
			for _, name := range leftNew(t, p.root) {
				mustRemoveAll(t, filepath.Join(p.root, ownDir, name))
			}
			if findings := p.check(t); !slices.ContainsFunc(findings, func(f string) bool { return strings.HasPrefix(f, "held: ") }) {
				t.Errorf("Check does not say what becomes of held: %q", findings)
			}
			given := highest
			for range 2 {
				s = p.mustOpen(t)
				l := present(t.Context(), t, s, lock.MustParseName("held"))
				if l.Token <= given || l.Holder != "" {
					t.Errorf("held has token %d of %q, want an anonymous hold above %d", l.Token, l.Holder, given)
				}
				token := grant(t, s, "x", 1)
				if token <= highest {
					t.Errorf("the next token is %d, want one above %d", token, highest)
				}
				highest = token
				p.end(t, s, clean)
			}
		})
	}
}

// TestJournalMovedAwayCutShort crashes before each operation of the start after the
// journal was moved away.
func TestJournalMovedAwayCutShort(t *testing.T) {
	p := newServed(t)
	s := p.mustOpen(t)
	hold(t, s, "held")
	highest := grant(t, s, "x", 20)
	p.end(t, s, true)
	mustRemoveAll(t, filepath.Join(p.root, journalDir))
	for n, done := 1, false; !done; n++ {
		q := newServed(t)
		copyTree(t, p.root, q.root)
		copyTree(t, p.state, q.state)
		d := openDisk(t, q.root)
		d.arm(d.killAt(n))
		s, err := open(t.Context(), q.config(), d.root, d)
		if err == nil {
			d.kill()
			_ = s.Close()
		} else {
			d.FS.Close()
		}
		done = d.operations() < n
		s = q.mustOpen(t)
		if token := grant(t, s, "x", 1); token <= highest {
			t.Errorf("killed before operation %d: the next token is %d, want one above %d", n, token, highest)
		}
		q.end(t, s, true)
	}
}

// TestRestoredCopy puts an older copy of a root back.
func TestRestoredCopy(t *testing.T) {
	for _, test := range []struct {
		name  string
		clean bool // what was served since then ended cleanly
		live  bool // the copy was made while the root was served
	}{
		{"stopped", true, false}, {"killed", false, false}, {"copied while served", true, true}, {"copied while served, killed", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newServed(t)
			s := p.mustOpen(t)
			grant(t, s, "x", 5)
			hold(t, s, "before")
			copied := p.root + ".copy"
			if test.live {
				if _, err := s.makeCheckpoint(false); err != nil {
					t.Fatal(err)
				}
				copyTree(t, p.root, copied)
			} else {
				p.end(t, s, true)
				copyTree(t, p.root, copied)
				s = p.mustOpen(t)
			}
			hold(t, s, "since")
			highest := grant(t, s, "x", 5)
			if test.live {
				if _, err := s.makeCheckpoint(false); err != nil {
					t.Fatal(err)
				}
			}
			p.end(t, s, test.clean)
			if findings := p.check(t); test.clean && len(findings) > 0 {
				t.Errorf("of the root as it was left Check says %q", findings)
			}
			mustRemoveAll(t, p.root)
			copyTree(t, copied, p.root)
			p.wantRefused(t, "older copy", "--accept-restore", p.state)

			p.accept = true
			s = p.mustOpen(t)
			if l := present(t.Context(), t, s, lock.MustParseName("before")); l.Holder != "alice" {
				t.Errorf("before is %+v, want the hold that the copy has", l)
			}
			token := grant(t, s, "x", 1)
			if token <= highest+revisionBlock {
				t.Errorf("the next token is %d, want one far above %d", token, highest)
			}
			p.end(t, s, test.clean)
			p.accept = false
			s = p.mustOpen(t) // once is enough
			if next := grant(t, s, "x", 1); next <= token {
				t.Errorf("the next token is %d, want one above %d", next, token)
			}
			p.end(t, s, true)
		})
	}
}

// TestOwnDirectoryRemoved removes the server's own directory, or all of the root: the state
// directory knows what was given out at its path.
func TestOwnDirectoryRemoved(t *testing.T) {
	for _, removed := range []string{ownDir, "."} {
		t.Run(removed, func(t *testing.T) {
			p := newServed(t)
			s := p.mustOpen(t)
			hold(t, s, "held")
			highest := grant(t, s, "x", 20)
			p.end(t, s, true)
			mustRemoveAll(t, filepath.Join(p.root, removed))
			for range 2 {
				s = p.mustOpen(t)
				token := grant(t, s, "x", 1)
				if token <= highest {
					t.Errorf("the next token is %d, want one above %d", token, highest)
				}
				highest = token
				p.end(t, s, true)
			}
			other := newServed(t) // at another path nothing was given out
			other.state = p.state
			s = other.mustOpen(t)
			if token := grant(t, s, "x", 1); token != 1 {
				t.Errorf("another root begins with token %d", token)
			}
			other.end(t, s, true)
		})
	}
}

// TestRootMoved serves a root that the state directory does not know, and one without a
// state directory: it is believed, and tokens go on without a gap.
func TestRootMoved(t *testing.T) {
	p := newServed(t)
	s := p.mustOpen(t)
	highest := grant(t, s, "x", 5)
	p.end(t, s, true)
	for _, state := range []string{p.state + "-of-another-machine", ""} {
		p.state = state
		if findings := p.check(t); len(findings) > 0 {
			t.Errorf("state directory %q: Check says %q", state, findings)
		}
		s = p.mustOpen(t)
		token := grant(t, s, "x", 1)
		if token != highest+2 {
			t.Errorf("state directory %q: the next token is %d, want %d", state, token, highest+2)
		}
		highest = token
		p.end(t, s, true)
	}
}

// TestRestartGoesOn restarts a root again and again, as kill -9 does too: there is no
// gap in the revisions, and none is used up.
func TestRestartGoesOn(t *testing.T) {
	p := newServed(t)
	for n := range 20 {
		s := p.mustOpen(t)
		if token, want := grant(t, s, "x", 1), lock.Token(2*n+1); token != want {
			t.Fatalf("after %d starts the token is %d, want %d", n, token, want)
		}
		p.end(t, s, n%2 == 0)
	}
	m, err := readFloor(openDisk(t, p.root))
	if err != nil || m.Floor > 2*revisionBlock {
		t.Errorf("the mark is %+v (%v)", m, err)
	}
}

// TestFloorAhead hands out revisions until those run out that are reserved: none is above
// the mark on the disk, and if that cannot be written nothing is granted, but nothing
// else either goes wrong.
func TestFloorAhead(t *testing.T) {
	p := newServed(t)
	s := p.mustOpen(t)
	b := newLedger()
	b.pruned = true
	x := lock.Lock{Name: lock.MustParseName("x")}
	durable := func() lock.Revision {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(p.root, floorFile))
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseMark(floorFile, text)
		if err != nil {
			t.Fatal(err)
		}
		return m.Floor
	}
	skip := func() { // to the last but three
		s.committing.Lock()
		defer s.committing.Unlock()
		s.revision = lock.Revision(s.floor.reserved.Load()) - 3
	}
	skip()
	for range 10 {
		if err := b.commit(t, s, p.disk, locked(x, "alice", `{}`)); err != nil {
			t.Fatal(err)
		}
		if floor := durable(); lock.Revision(b.highest) > floor {
			t.Fatalf("token %d was given out, and the mark on the disk is %d", b.highest, floor)
		}
		if err := b.commit(t, s, p.disk, unlocked(present(t.Context(), t, s, x.Name))); err != nil {
			t.Fatal(err)
		}
	}
	p.disk.arm(func(_ int, _, name string) error {
		if strings.HasPrefix(name, floorFile) {
			return syscall.ENOSPC
		}
		return nil
	})
	skip()
	floor := durable()
	granted := 0
	for range 10 {
		if b.commit(t, s, p.disk, locked(x, "alice", `{}`)) == nil {
			granted++
			_ = b.commit(t, s, p.disk, unlocked(present(t.Context(), t, s, x.Name)))
		}
	}
	if granted == 10 || lock.Revision(b.highest) > floor || durable() != floor {
		t.Errorf("%d grants up to token %d, with a mark of %d", granted, b.highest, floor)
	}
	p.disk.arm(nil)
	if l := present(t.Context(), t, s, x.Name); l.Held() {
		if err := b.commit(t, s, p.disk, unlocked(l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.commit(t, s, p.disk, locked(x, "alice", `{}`)); err != nil {
		t.Error(err)
	}
	p.end(t, s, false)
	s = p.mustOpen(t)
	b.check(t, "after a restart", s)
	p.end(t, s, true)
}

// TestTokenOfSomebodyLater puts great tokens into the files of a root that has been served:
// none was given out, so they say nothing, and later holds are believed after a crash.
func TestTokenOfSomebodyLater(t *testing.T) {
	for _, token := range []string{"4611686018427387904", "4611686018427387903", "9007199254740993", "70000"} {
		t.Run(token, func(t *testing.T) {
			p := newServed(t)
			s := p.mustOpen(t)
			hold(t, s, "a")
			p.end(t, s, true)
			put(t, p.root, "hand", []byte("lock_token: "+token+"\n"), 0)
			put(t, p.root, "a", append(readFile(t, p.root, "a"), "more: 1\n"...), 0)
			s = p.mustOpen(t)
			want := []lock.Lock{hold(t, s, "b"), present(t.Context(), t, s, lock.MustParseName("a")), present(t.Context(), t, s, lock.MustParseName("hand"))}
			if want[0].Token > 100 {
				t.Errorf("the next token is %d, and no more than 100 have been given out", want[0].Token)
			}
			p.end(t, s, false)
			s = p.mustOpen(t)
			for _, w := range want {
				w.Warnings = ""
				got := present(t.Context(), t, s, w.Name)
				if got.Warnings = ""; got != w {
					t.Errorf("after a crash %v is\n %+v, was\n %+v", w.Name, got, w)
				}
			}
			p.end(t, s, true)
		})
	}
}

// TestJournalIncomplete loses parts of a journal: Check and Open say which, and change
// nothing; moving the directory away, or accepting it as it is, goes on above all tokens.
func TestJournalIncomplete(t *testing.T) {
	segments := func(t *testing.T, root string) []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(root, journalDir, "*.jsonl"))
		if err != nil || len(names) < 3 {
			t.Fatalf("the segments are %q (%v), want some", names, err)
		}
		return names
	}
	truncate := func(t *testing.T, file string, cut func(text string) int) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, int64(cut(strings.TrimRight(string(text), "\x00")))); err != nil {
			t.Fatal(err)
		}
	}
	lastLine := func(text string) int { return strings.LastIndexByte(strings.TrimSuffix(text, "\n"), '\n') + 1 }
	lose := map[string]func(t *testing.T, root string){
		"all files": func(t *testing.T, root string) {
			for _, s := range segments(t, root) {
				mustRemoveAll(t, s)
			}
		},
		"what is in them": func(t *testing.T, root string) {
			for _, s := range segments(t, root) {
				truncate(t, s, func(string) int { return 0 })
			}
		},
		"the first file":    func(t *testing.T, root string) { mustRemoveAll(t, segments(t, root)[0]) },
		"one in the middle": func(t *testing.T, root string) { mustRemoveAll(t, segments(t, root)[1]) },
		"the last file": func(t *testing.T, root string) {
			names := segments(t, root)
			mustRemoveAll(t, names[len(names)-1])
		},
		"the last files": func(t *testing.T, root string) {
			for _, s := range segments(t, root)[1:] {
				mustRemoveAll(t, s)
			}
		},
		"the end of the first file": func(t *testing.T, root string) { truncate(t, segments(t, root)[0], lastLine) },
		"a line": func(t *testing.T, root string) {
			file := segments(t, root)[0]
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(string(text), "\n")
			if err := os.WriteFile(file, []byte(strings.Join(slices.Delete(lines, 2, 3), "")), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, lose := range lose {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, clean stop: %v", name, clean), func(t *testing.T) {
				p := newServed(t)
				s := p.mustOpen(t)
				hold(t, s, "held")
				highest := grant(t, s, "x", 20)
				for s.journal.Position().Bytes < 512 { // a file that has just begun the mark may not know yet
					highest = grant(t, s, "x", 1)
				}
				p.end(t, s, clean)
				lose(t, p.root)
				p.wantRefused(t, journalDir+"/0", "backup", "move the journal directory away")
				mustRemoveAll(t, filepath.Join(p.root, journalDir))
				s = p.mustOpen(t)
				if token := grant(t, s, "x", 1); token <= highest {
					t.Errorf("the next token is %d, want one above %d", token, highest)
				}
				p.end(t, s, clean)
				s = p.mustOpen(t)
				p.end(t, s, true)
			})
		}
	}
	for name, cut := range map[string]func(string) int{"the last line": lastLine, "half of the last line": func(text string) int { return (lastLine(text) + len(text)) / 2 }} {
		t.Run(name, func(t *testing.T) { // after a crash it may be what that tore
			p := newServed(t)
			s := p.mustOpen(t)
			hold(t, s, "held")
			highest := grant(t, s, "x", 20)
			p.end(t, s, true)
			names := segments(t, p.root)
			truncate(t, names[len(names)-1], cut)
			p.wantRefused(t, filepath.Base(names[len(names)-1]), "backup", "--accept-restore")
			p.accept = true
			s = p.mustOpen(t)
			if l := present(t.Context(), t, s, lock.MustParseName("held")); l.Holder != "alice" {
				t.Errorf("held is %+v, want what the journal says", l)
			}
			if token := grant(t, s, "x", 1); token <= highest+revisionBlock {
				t.Errorf("the next token is %d, want one far above %d", token, highest)
			}
			p.end(t, s, false)
			p.accept = false
			s = p.mustOpen(t)
			p.end(t, s, true)
		})
	}
}
