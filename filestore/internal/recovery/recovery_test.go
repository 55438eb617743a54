package recovery

import (
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/journal"
	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

const location = "/root/x.lock"

var (
	noon   = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	before = journal.FileID{Inode: 7, Birth: 1} // a file that the lock had before
	own    = journal.FileID{Inode: 8, Birth: 2} // the file of the hold
	other  = journal.FileID{Inode: 9, Birth: 3}
)

func data(t *testing.T, text string) lock.Data {
	t.Helper()
	d, err := lock.ParseData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// hold is a hold with the token 50, or what became of it.
func hold(t *testing.T, text string) lock.Lock {
	t.Helper()
	return lock.Lock{Name: lock.MustParseName("x"), Holder: "alice", Token: 50, Revision: 50, AcquireTime: noon, Data: data(t, text)}
}

// file is a file with a text, written at noon.
func file(id journal.FileID, text []byte) Found {
	return Found{Content: lockfile.Read(text), Exists: true, ID: id, Mtime: noon, Text: text, Location: location}
}

// written is the file that the server writes for a hold.
func written(id journal.FileID, l lock.Lock) Found {
	return file(id, lockfile.Append(nil, l, location))
}

func (f Found) ours() Found                  { f.Ours = true; return f }
func (f Found) later(d time.Duration) Found  { f.Mtime = f.Mtime.Add(d); return f }
func (f Found) elsewhere(place string) Found { f.Location = place; return f }

func TestJudge(t *testing.T) {
	first, second := hold(t, `{"n":1}`), hold(t, `{"n":2}`)
	second.Revision = 60
	unheard := hold(t, `{"n":3}`)
	unheard.Token, unheard.Revision = 71, 71
	foreign := hold(t, `{"of":"another lock"}`)
	foreign.Token = 40

	// The journal ends at revision 70.
	held := func(cause lock.Cause) func(checkpoint lock.Revision) *Past {
		return func(checkpoint lock.Revision) *Past {
			p := &Past{}
			p.Add(lock.Event{Revision: 50, Time: noon, Type: lock.Locked, Cause: cause, Lock: first}, before, checkpoint)
			p.Add(lock.Event{Revision: 60, Time: noon, Type: lock.Updated, Cause: cause, Lock: second}, own, checkpoint)
			return p
		}
	}
	byServer, byOthers := held(lock.Request), held(lock.File)
	released := func(checkpoint lock.Revision) *Past {
		p := byServer(checkpoint)
		p.Add(lock.Event{Revision: 65, Time: noon, Type: lock.Unlocked, Cause: lock.Request, Lock: second}, journal.FileID{}, checkpoint)
		return p
	}
	none := func(lock.Revision) *Past { return nil }

	killed := Start{Checkpoint: 70, End: 70, Intact: true, Unheard: true}
	cut := Start{Checkpoint: 40, End: 70, Unheard: true} // the power, with the lock's changes after the checkpoint
	late := Start{Checkpoint: 66, End: 70, Unheard: true}
	clean := Start{Checkpoint: 70, End: 70}
	taken := func(f Found) []Aside { return []Aside{{Found: f, Name: "1.take", Alone: true}} }
	moved := func(f Found) []Aside { f.Ctime = noon; return []Aside{{Found: f, Name: "1.move"}} }
	theirs := file(other, []byte("msg: mine\n"))
	update := second
	update.Data = unheard.Data

	for _, c := range []struct {
		name   string
		start  Start
		past   func(checkpoint lock.Revision) *Past
		found  Found
		asides []Aside
		want   Remedy
		event  lock.EventType
	}{
		// Journal and file agree.
		{"free", killed, released, Found{}, nil, Nothing, 0},
		{"held", killed, byServer, written(own, second), nil, Keep, 0},
		{"held, in a copy", killed, byServer, written(other, second), nil, Keep, 0},
		{"held by somebody's file", killed, byOthers, file(own, []byte("n: 2\n")), nil, Keep, 0},
		{"held, power cut", cut, byServer, written(own, second).ours(), nil, Keep, 0},
		{"held, a sync had failed", Start{Checkpoint: 40, End: 70, Unsynced: true}, byServer, written(own, second), nil, Rewrite, 0},

		// A lock file that says what the server writes there, and a token above the
		// journal's end.
		{"unheard grant", killed, none, written(other, unheard), nil, Remove, 0},
		{"unheard grant after a release", killed, released, written(other, unheard), nil, Remove, 0},
		{"unheard grant, power cut", cut, none, written(other, unheard), nil, Remove, 0},
		{"unheard grant, copied by somebody to another place", killed, none, written(other, unheard).elsewhere("/root/y.lock"), nil, Adopt, lock.Locked},
		{"unheard grant, edited by somebody", killed, none, file(other, append(lockfile.Append(nil, unheard, location), "# mine\n"...)), nil, Adopt, lock.Locked},
		{"unheard grant, no crash", clean, none, written(other, unheard), nil, Adopt, lock.Locked},
		{"copy with an old token", killed, none, written(other, foreign), nil, Adopt, lock.Locked},
		{"overwritten, and nobody was told", killed, byServer, written(other, unheard), nil, Rewrite, 0},

		// After a power cut, a line after the checkpoint, and a file that disagrees.
		{"lost file", cut, byServer, Found{}, nil, Rewrite, 0},
		{"lost update", cut, byServer, written(before, first), nil, Rewrite, 0},
		{"lost text", cut, byServer, file(own, make([]byte, 20)), nil, Rewrite, 0},
		{"text of another hold in the hold's file", cut, byServer, written(own, foreign), nil, Rewrite, 0},
		{"mixed text in the hold's file", cut, byServer, file(own, []byte("n: 1\nlock_tok")), nil, Rewrite, 0},
		{"mixed text, edited since", cut, byServer, file(own, []byte("n: 1\n")).later(time.Hour), nil, Tell, lock.Updated},
		{"lost release", cut, released, written(own, second), nil, Remove, 0},
		{"lost release, and the file has been written again", cut, released, written(own, foreign).later(time.Minute), nil, Remove, 0},
		{"lost release of a file before", cut, released, written(before, foreign).later(time.Minute), nil, Remove, 0},
		{"somebody's file after a release", cut, released, theirs, nil, Adopt, lock.Locked},
		{"somebody's file in the place", cut, byServer, theirs, nil, Adopt, lock.Locked},
		{"somebody's file is back", cut, func(checkpoint lock.Revision) *Past {
			p := byOthers(checkpoint)
			p.Add(lock.Event{Revision: 65, Time: noon, Type: lock.Updated, Cause: lock.Request, Lock: update}, other, checkpoint)
			return p
		}, file(own, []byte("n: 2\n")), nil, Rewrite, 0},

		// Any other line, and a file that disagrees.
		{"removed", late, byServer, Found{}, nil, Tell, lock.Unlocked},
		{"edited", late, byServer, file(own, []byte("n: 5\nlock_token: 50\n")), nil, Tell, lock.Updated},
		{"edited, no power cut", killed, byServer, file(own, []byte("n: 5\nlock_token: 50\n")), nil, Tell, lock.Updated},
		{"removed, no power cut", killed, byServer, Found{}, nil, Tell, lock.Unlocked},

		// A held lock's file in .pylok.
		{"unheard release", killed, byServer, Found{}, taken(written(own, second)), PutBack, 0},
		{"unheard release of somebody's file", killed, byOthers, Found{}, taken(file(own, []byte("n: 2\n"))), PutBack, 0},
		{"unheard release of a file edited just before", killed, byServer, Found{}, taken(file(own, []byte("n: 7\n"))), PutBack, 0},
		{"removed, and a file stands by that it had before", killed, byServer, Found{}, taken(written(before, foreign)), Tell, lock.Unlocked},
		{"unheard update", killed, byServer, written(other, update), moved(written(own, second)), PutBack, 0},
		{"unheard update, removed since", killed, byServer, Found{}, moved(written(own, second)), Tell, lock.Unlocked},
		{"unheard update, edited since", killed, byServer, written(other, update).later(time.Minute), moved(written(own, second)), Tell, lock.Updated},
		{"unheard update, replaced since", killed, byServer, theirs, moved(written(own, second)), Adopt, lock.Locked},

		// After a power cut, a file that a server made, and that is not the hold's.
		{"mixture in the hold's own file, written late", cut, byServer, file(own, []byte("of: another\n\x00\x00\x00lock_h")).later(5 * time.Second), nil, Rewrite, 0},
		{"the hold's own file, edited late", cut, byServer, file(own, []byte("n: 7\n")).later(5 * time.Second), nil, Tell, lock.Updated},
		{"torn unheard grant after an unheard release", cut, byServer, file(other, []byte("of: \x01another\n")).ours().later(time.Second), taken(written(own, second)), Rewrite, 0},
		{"torn unheard grant after an unheard release of a durable hold", late, byServer, file(other, nil).ours().later(time.Minute), taken(written(own, second)), Rewrite, 0},
		{"torn unheard update after another", cut, byServer, file(other, []byte("of: \x01another\n")).ours().later(time.Second), moved(written(own, second)), Rewrite, 0},
		{"somebody's file after an unheard release", cut, byServer, theirs.later(time.Minute), taken(written(own, second)), Adopt, lock.Locked},
		{"torn unheard grant", late, none, file(other, nil).ours(), nil, Remove, 0},
		{"somebody's empty file", late, none, file(other, nil), nil, Adopt, lock.Locked},
		{"torn unheard update", late, byServer, file(other, nil).ours(), nil, Rewrite, 0},
		{"text of another hold", late, byServer, written(other, foreign).ours(), nil, Rewrite, 0},
		{"torn file, no crash", clean, none, file(other, nil).ours(), nil, Adopt, lock.Locked},

		// Another text in the file of a hold, without its token.
		{"overwritten in place", late, byServer, file(own, []byte("n: 5\n")), nil, Tell, lock.Updated},
		{"another file", late, byServer, file(other, []byte("n: 5\n")), nil, Adopt, lock.Locked},

		// A file that journal and snapshot do not know.
		{"somebody's file", cut, none, theirs, nil, Adopt, lock.Locked},
		{"unreadable file of a hold", killed, byServer, Found{Exists: true, Unread: true, ID: own}, nil, Keep, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := c.start.Judge(c.past(c.start.Checkpoint), c.found, c.asides)
			if v.Remedy != c.want || v.Event != c.event {
				t.Errorf("got %+v, want remedy %d and event %v", v, c.want, c.event)
			}
			if agree := c.want == Nothing || c.want == Keep; agree != (v.Why == "") {
				t.Errorf("the reason is %q", v.Why)
			}
			if c.want == PutBack && v.Aside == "" || c.want <= PutBack && c.want != Nothing && v.Lock.Token != 50 {
				t.Errorf("got %+v, want the hold", v)
			}
		})
	}
}

// A tree is one by its file, whoever writes the line; that a hold is stale is the server's to
// say, and its file says so.
func TestJudgeTreesAndStale(t *testing.T) {
	plain, tree, kept := hold(t, `{"n":1}`), hold(t, `{"n":1}`), hold(t, `{"n":1}`)
	tree.Tree, kept.OnExpiry = true, lock.Keep
	stale := kept
	stale.StaleTime, stale.Revision = noon.Add(time.Hour), 60
	thawed := tree
	thawed.Tree, thawed.Revision = false, 60
	after := func(locks ...lock.Lock) func(checkpoint lock.Revision) *Past {
		return func(checkpoint lock.Revision) *Past {
			p := &Past{}
			kind := lock.Locked
			for _, l := range locks {
				p.Add(lock.Event{Revision: l.Revision, Time: noon, Type: kind, Cause: lock.Request, Lock: l}, own, checkpoint)
				kind = lock.Updated
			}
			return p
		}
	}
	killed := Start{Checkpoint: 70, End: 70, Intact: true, Unheard: true}
	cut := Start{Checkpoint: 40, End: 70, Unheard: true}
	scoped := func(f Found) Found {
		return file(own, append([]byte("lock_scope: tree\n"), f.Text...))
	}
	broken := file(own, []byte("n: [1\nlock_scope: tree\nlock_token: 50\n")).later(time.Hour)
	unheard := stale
	unheard.Token, unheard.Revision, unheard.Tree, unheard.Set = 71, 71, true, lock.SetRef{ID: 71, Size: 2}
	for _, c := range []struct {
		name  string
		start Start
		past  func(checkpoint lock.Revision) *Past
		found Found
		want  Remedy
		tree  bool
	}{
		{"a tree", killed, after(tree), written(own, tree), Keep, true},
		{"a tree, root moved", killed, after(tree), written(own, tree).elsewhere("/elsewhere/x.lock"), Keep, true},
		{"frozen by hand", killed, after(plain), scoped(written(own, plain)), Tell, true},
		{"frozen by hand, root moved", killed, after(plain), scoped(written(own, plain)).elsewhere("/elsewhere/x.lock"), Tell, true},
		{"thawed by hand", killed, after(tree), written(own, plain), Tell, false},
		{"thawed by hand, power cut long before", Start{Checkpoint: 66, End: 70}, after(tree), written(own, plain), Tell, false},
		{"a tree's file written over", killed, after(plain), file(own, []byte("n: 1\nlock_scope: tree\nlock_token: 9\nlock_file_location: /root/y.lock\n")), Keep, false},
		{"a slip thaws nothing", killed, after(tree), broken, Tell, true},
		{"a slip freezes nothing", killed, after(plain), broken, Tell, false},
		{"power cut, and the thaw is not in the file", cut, after(tree, thawed), written(own, tree), Rewrite, false},
		{"stale", killed, after(kept, stale), written(own, stale), Keep, false},
		{"stale, power cut, and it is in the file", cut, after(kept, stale), written(own, stale), Keep, false},
		{"stale, power cut, and it is not in the file", cut, after(kept, stale), written(own, kept), Rewrite, false},
		{"stale, and somebody took the line out", killed, after(kept, stale), written(own, kept), Keep, false},
		{"it became stale, and nobody was told", killed, after(kept), written(other, stale), PutBack, false},
		{"an unheard hold with all of it", killed, after(kept), written(other, unheard), Rewrite, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asides []Aside
			if c.want == PutBack {
				asides = []Aside{{Found: written(own, kept), Name: "1.move"}}
				asides[0].Ctime = noon
			}
			v := c.start.Judge(c.past(c.start.Checkpoint), c.found, asides)
			if v.Remedy != c.want || v.Lock.Tree != c.tree || v.Lock.Token != 50 {
				t.Errorf("got %+v, want remedy %d and a tree: %v", v, c.want, c.tree)
			}
		})
	}
}

// What was moved out of a place and is neither the server's nor the hold's is kept.
func TestIsSomebodys(t *testing.T) {
	past := Snapshot(hold(t, `{"n":1}`), false, false, false, own)
	for _, c := range []struct {
		name  string
		past  *Past
		aside Found
		want  bool
	}{
		{"nothing", past, Found{}, false},
		{"a file of the server's", past, file(other, nil).ours(), false},
		{"a file with a token", past, written(other, hold(t, `{"n":9}`)), false},
		{"the hold's, edited", past, file(own, []byte("n: 5\n")), false},
		{"one that says the same", past, file(other, []byte("n: 1\n")), false},
		{"another", past, file(other, []byte("n: 5\n")), true},
		{"one of no lock that is known", nil, file(other, []byte("n: 5\n")), true},
	} {
		if got := (Start{Intact: true}).IsSomebodys(c.past, c.aside); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
