package filestore

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// originals are lock files as the original library writes them, with PyYAML, and
// what they mean.
var originals = map[string]struct{ text, data string }{
	"server-cluster3w1-2": {
		"contact_email: billyjenkins@example.com\ndata: {backend: App1, server: server-cluster3w1-2, status: MAINT}\nexpire: '2119-12-20 00:00:00'\nlock_action: lock\nlock_file_location: /tmp/locks/server-cluster3w1-2.lock\nlock_file_status: locked\nmsg: Locking App1 on server-cluster3w1-2 for canary deployment\n",
		`{"contact_email":"billyjenkins@example.com","data":{"backend":"App1","server":"server-cluster3w1-2","status":"MAINT"},"expire":"2119-12-20 00:00:00","msg":"Locking App1 on server-cluster3w1-2 for canary deployment"}`,
	},
	"lb/east/b":     {"data:\n  since: 2019-12-20 00:00:00\n  when: 2019-12-20\nlock_action: lock\n", `{"data":{"since":"2019-12-20 00:00:00","when":"2019-12-20"}}`},
	"lb/east/c":     {"{}\n", `{}`},
	"lb/west/long":  {"msg: \"a very long text that PyYAML folds at eighty columns, with a quote \\\" and an accent\\\n  \\ \\xE9 in it\"\n", `{"msg":"a very long text that PyYAML folds at eighty columns, with a quote \" and an accent é in it"}`},
	"a/b/c/d/e/f/g": {"msg: deep\n", `{"msg":"deep"}`},
	"with-a-token":  {"lock_token: 41\nlock_holder: mallory\nmsg: from another root\n", `{"msg":"from another root"}`},
}

// junk are files that are no lock files and none of our business.
var junk = []string{"README", "x.lock.bak", ".hidden.lock", "bad name.lock", "a/.git/config", "-x.lock", "x.LOCK", ".lock", "x.lock~", "deep.lock.d/y", ".pylok.old/journal"}

// writeOriginals makes a directory of the original library's.
func writeOriginals(t *testing.T, root string) {
	t.Helper()
	write := func(name, text string) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for name, o := range originals {
		write(name+".lock", o.text)
	}
	for _, name := range junk {
		write(name, "junk: "+name+"\n")
	}
	if err := os.Symlink("README", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
}

// tree describes all files of a root but our own, so that a touch shows.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == ownDir {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text, _ := os.ReadFile(file)
		stat := info.Sys().(*syscall.Stat_t)
		files[file] = fmt.Sprintf("inode %d, mode %v, mtime %v, text %q", stat.Ino, info.Mode(), info.ModTime(), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func wantTree(t *testing.T, when string, got, want map[string]string) {
	t.Helper()
	for file := range maps.Keys(want) {
		if got[file] != want[file] {
			t.Errorf("%s: %s is\n got %s\nwant %s", when, file, got[file], want[file])
		}
	}
	for file := range maps.Keys(got) {
		if _, ok := want[file]; !ok {
			t.Errorf("%s: %s is new", when, file)
		}
	}
}

// wantAdopted checks that all originals are anonymous holds with fresh tokens.
func wantAdopted(t *testing.T, s *Store, above lock.Token) (tokens map[string]lock.Token) {
	t.Helper()
	tokens = make(map[string]lock.Token)
	_, locks := s.List(t.Context(), lock.Pattern{}, lock.Name{})
	for l, err := range locks {
		if err != nil {
			t.Fatal(err)
		}
		name := l.Name.String()
		o, ok := originals[name]
		if !ok {
			t.Errorf("%s is held", name)
			continue
		}
		info, err := os.Stat(filepath.Join(s.Root(), name+".lock"))
		if err != nil {
			t.Fatal(err)
		}
		if l.Data != mustData(t, o.data) || l.Holder != "" || l.Problem != "" {
			t.Errorf("%s is held by %q with %s (problem %q), want an anonymous hold with %s", name, l.Holder, l.Data.JSON(), l.Problem, o.data)
		}
		if written := info.ModTime().UTC(); l.AcquireTime.Sub(written).Abs().Milliseconds() > 1 {
			t.Errorf("%s is held since %v, want since its file was written, %v", name, l.AcquireTime, written)
		}
		if l.Token <= above || lock.Revision(l.Token) != l.Revision {
			t.Errorf("%s has token %d and revision %d, want them equal and above %d", name, l.Token, l.Revision, above)
		}
		if slices.Contains(slices.Collect(maps.Values(tokens)), l.Token) {
			t.Errorf("%s has the token %d of another", name, l.Token)
		}
		tokens[name] = l.Token
	}
	if len(tokens) != len(originals) {
		t.Errorf("%d locks are held, want %d", len(tokens), len(originals))
	}
	return tokens
}

// TestAdopt opens a directory that the original library used.
func TestAdopt(t *testing.T) {
	root := t.TempDir()
	writeOriginals(t, root)
	before := tree(t, root)
	d := openDisk(t, root)
	s := mustOpenOn(t, d)
	const highest = 41 // the lock_token in one of the files
	tokens := wantAdopted(t, s, highest)
	events, _, err := s.Events(t.Context(), lock.Pattern{}, highest, time.Hour)
	if err != nil || len(events) != len(originals) {
		t.Errorf("there are %d events (%v), want one for each lock", len(events), err)
	}
	for _, e := range events {
		if e.Type != lock.Locked || e.Cause != lock.File {
			t.Errorf("the event of %v is %v by %v, want locked by file", e.Lock.Name, e.Type, e.Cause)
		}
	}
	wantTree(t, "adopted", tree(t, root), before)
	// A crash right then, and the next start knows the same holds.
	d.kill()
	_ = s.Close()
	d = openDisk(t, root)
	d.mount = "another"
	s = mustOpenOn(t, d)
	if again := wantAdopted(t, s, highest); !maps.Equal(again, tokens) {
		t.Errorf("after a restart the tokens are %v, want %v", again, tokens)
	}
	wantTree(t, "adopted twice", tree(t, root), before)
	// They are released like any other.
	l := present(t.Context(), t, s, lock.MustParseName("lb/east/b"))
	if _, err := s.Commit(t.Context(), []lock.Change{unlocked(l)}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(root, "lb/east/b.lock")); err == nil {
		t.Error("an adopted lock is released and its file still there")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestAdoptCutShort crashes before every operation of an adoption.
func TestAdoptCutShort(t *testing.T) {
	for n := 1; ; n++ {
		root := t.TempDir()
		writeOriginals(t, root)
		before := tree(t, root)
		d := openDisk(t, root)
		d.arm(d.killAt(n))
		s, err := openOn(t, d)
		if err == nil {
			d.kill()
			_ = s.Close()
		} else {
			d.FS.Close()
		}
		done := d.operations() < n
		d = openDisk(t, root)
		d.mount = "another"
		s = mustOpenOn(t, d)
		wantAdopted(t, s, 41)
		wantTree(t, fmt.Sprintf("cut short before operation %d", n), tree(t, root), before)
		if left := leftNew(t, root); len(left) > 0 {
			t.Errorf("cut short before operation %d: %v is left", n, left)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if done {
			if n < 10 {
				t.Errorf("there were %d operations; the test wants some", n-1)
			}
			return
		}
	}
}

// TestJournalLost takes away what the server knows, in several ways. The locks stay
// held, by nobody, and no token is given out twice.
func TestJournalLost(t *testing.T) {
	lost := map[string]func(t *testing.T, own string){
		"all of it": func(t *testing.T, own string) { mustRemoveAll(t, own) },
		"the journal, as the message for a damaged one advises": func(t *testing.T, own string) { mustRemoveAll(t, filepath.Join(own, "journal")) },
	}
	for name, lose := range lost {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, clean stop: %v", name, clean), func(t *testing.T) {
				root := t.TempDir()
				d := openDisk(t, root)
				s := mustOpenOn(t, d)
				b := newLedger()
				for _, name := range []string{"a", "b", "c/d"} {
					if err := b.commit(t, s, d, locked(lock.Lock{Name: lock.MustParseName(name)}, "somebody", `{"msg":"hi"}`)); err != nil {
						t.Fatal(err)
					}
				}
				for range 3 { // revisions that are in no file
					if err := b.commit(t, s, d, locked(lock.Lock{Name: lock.MustParseName("x")}, "somebody", `{}`)); err != nil {
						t.Fatal(err)
					}
					if err := b.commit(t, s, d, unlocked(present(t.Context(), t, s, lock.MustParseName("x")))); err != nil {
						t.Fatal(err)
					}
				}
				if !clean {
					d.kill()
				}
				_ = s.Close()
				before := tree(t, root)
				own := filepath.Join(root, ownDir)
				snapshot := filepath.Join(own, "snapshot")
				_, statErr := os.Stat(snapshot)
				lose(t, own)
				_, stillErr := os.Stat(snapshot)
				remembers := statErr == nil && stillErr == nil // the highest revision is still known

				// Two starts: one that finds the loss, one after a crash.
				var tokens map[lock.Name]lock.Token
				for round := range 2 {
					d = openDisk(t, root)
					d.mount = fmt.Sprintf("mount %d", round)
					s = mustOpenOn(t, d)
					got := make(map[lock.Name]lock.Token)
					_, locks := s.List(t.Context(), lock.Pattern{}, lock.Name{})
					for l, err := range locks {
						if err != nil {
							t.Fatal(err)
						}
						got[l.Name] = l.Token
						above := lock.Token(3) // in the files
						if remembers {
							above = b.highest
						}
						if l.Token <= above {
							t.Errorf("round %d: %v has token %d, want one above %d", round, l.Name, l.Token, above)
						}
						if round == 0 && (l.Holder != "" || l.Data != mustData(t, `{"msg":"hi"}`)) {
							t.Errorf("%v is held by %q with %s, want an anonymous hold with its data", l.Name, l.Holder, l.Data.JSON())
						}
					}
					wantTree(t, "journal lost", tree(t, root), before)
					if round == 0 && len(got) != 3 || round == 1 && !maps.Equal(got, tokens) {
						t.Errorf("round %d: the locks and tokens are %v, were %v", round, got, tokens)
					}
					if tokens = got; round == 0 {
						for range 10 { // beyond where the old journal was
							l := lock.Lock{Name: lock.MustParseName("y")}
							if events, err := s.Commit(t.Context(), []lock.Change{locked(l, "new", `{}`)}); err != nil {
								t.Fatal(err)
							} else if _, err := s.Commit(t.Context(), []lock.Change{unlocked(events[0].Lock)}); err != nil {
								t.Fatal(err)
							}
						}
						d.kill()
					}
					_ = s.Close()
				}
			})
		}
	}
}

func mustRemoveAll(t *testing.T, file string) {
	t.Helper()
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
}

// TestTokenOfSomebody puts great tokens into files: the counter stays above them,
// and goes on working.
func TestTokenOfSomebody(t *testing.T) {
	for _, token := range []string{"1000", "9007199254740991", "9007199254740992", "9007199254740993", "1e18", "1e300", ".inf", "-1", "9223372036854775807", "18446744073709551615", "99999999999999999999999999", "'77'"} {
		t.Run(token, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			put(t, root, "x", []byte("lock_token: "+token+"\n"), 0)
			b := newLedger()
			b.pruned = true // there is nothing before the token in the file
			d := openDisk(t, root)
			s := mustOpenOn(t, d)
			first := present(t.Context(), t, s, lock.MustParseName("x"))
			if !first.Held() || first.Problem != "" {
				t.Errorf("x is %+v, want it held", first)
			}
			for _, name := range []string{"a", "b"} {
				if err := b.commit(t, s, d, locked(lock.Lock{Name: lock.MustParseName(name)}, "alice", `{"n":1}`)); err != nil {
					t.Fatal(err)
				}
			}
			if b.highest <= first.Token {
				t.Errorf("the highest token is %d, and x has %d", b.highest, first.Token)
			}
			d.kill()
			_ = s.Close()
			d = openDisk(t, root)
			s = mustOpenOn(t, d)
			b.check(t, "after a restart", s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStartRefused opens what cannot be served, and looks for the words that help.
func TestStartRefused(t *testing.T) {
	tests := map[string]struct {
		make  func(t *testing.T, dir string) (root string)
		words []string
	}{
		"no root": {func(*testing.T, string) string { return "" }, []string{"root"}},
		"a file": {func(t *testing.T, dir string) string {
			file := filepath.Join(dir, "file")
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			return file
		}, []string{"file", "directory"}},
		"a file on the way": {func(t *testing.T, dir string) string {
			file := filepath.Join(dir, "file")
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(file, "root")
		}, []string{"file", "directory"}},
		"a file in our place": {func(t *testing.T, dir string) string {
			if err := os.WriteFile(filepath.Join(dir, ownDir), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			return dir
		}, []string{"directory"}},
		"a later format": {func(t *testing.T, dir string) string {
			if err := os.MkdirAll(filepath.Join(dir, ownDir), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, ownDir, "format"), []byte("pylok root, format 3\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, []string{"format 3", "format 2", "format 1", "program"}},
		"a damaged journal": {func(t *testing.T, dir string) string {
			s, err := Open(t.Context(), Config{Root: dir, NoNotify: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName("a")}, "alice", `{}`)}); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			segments, err := filepath.Glob(filepath.Join(dir, journalDir, "*.jsonl"))
			if err != nil || len(segments) != 1 {
				t.Fatalf("segments %v (%v)", segments, err)
			}
			text, err := os.ReadFile(segments[0])
			if err != nil {
				t.Fatal(err)
			}
			at := strings.Index(string(text), "alice")
			text[at] ^= 1
			if err := os.WriteFile(segments[0], text, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, []string{"damaged", ".pylok/journal/00000000000000000000.jsonl", "byte", "backup", "adopted"}},
		"a root that is served": {func(t *testing.T, dir string) string {
			s, err := Open(t.Context(), Config{Root: dir, NoNotify: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return dir
		}, []string{"served", fmt.Sprintf("process %d", os.Getpid()), "stop"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root := test.make(t, dir)
			before := tree(t, dir)
			s, err := Open(t.Context(), Config{Root: root, NoNotify: true})
			if err == nil {
				s.Close()
				t.Fatal("it is opened")
			}
			for _, word := range append(test.words, root) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the message does not say %q: %v", word, err)
				}
			}
			wantTree(t, "refused", tree(t, dir), before)
		})
	}
}

// TestServedUntilClosed: a root is free for another store once the first is closed,
// and not before.
func TestServedUntilClosed(t *testing.T) {
	root := t.TempDir()
	for range 3 {
		s, err := Open(t.Context(), Config{Root: root, NoNotify: true})
		if err != nil {
			t.Fatal(err)
		}
		if second, err := Open(t.Context(), Config{Root: root, NoNotify: true}); err == nil {
			second.Close()
			t.Fatal("a root is opened twice")
		}
		if _, err := s.Commit(t.Context(), []lock.Change{locked(present(t.Context(), t, s, lock.MustParseName("a")), "alice", `{}`)}); err != nil {
			t.Errorf("after the second was refused: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
