package filestore

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/filestore/internal/pool"
	"github.com/pylok/pylok/lock"
)

// ruin is what a server left that did not stop cleanly. It holds
//
//	old       since before the last checkpoint
//	renewed   likewise, with a later ttl
//	updated   likewise, with other data since
//	recent    since after it
//	replaced  likewise; a second hold replaced a first
//	last      since the very last batch
//	theirs    by a file that somebody wrote before the checkpoint
//	taken     likewise, and since by a hold that replaced that
//	amended   likewise, with other data since
//
// and does not hold gone any more, which it held after the checkpoint, nor freed, which
// was held by a file that somebody wrote before it.
type ruin struct {
	root  string
	holds map[string]lock.Lock
	files map[string][]byte // as they are or, for gone, were
	stale map[string][]byte // as they were before, of those that have changed
	end   lock.Revision
}

// makeRuin runs a store and kills it.
func makeRuin(t *testing.T) *ruin {
	t.Helper()
	r := &ruin{root: t.TempDir(), holds: make(map[string]lock.Lock), files: make(map[string][]byte), stale: make(map[string][]byte)}
	byHand := []string{"theirs", "taken", "amended", "freed"}
	for _, name := range byHand {
		r.files[name] = fmt.Appendf(nil, "msg: %s by hand\n", name)
		put(t, r.root, name, r.files[name], -2*time.Hour)
	}
	d := openDisk(t, r.root)
	s := mustOpenOn(t, d)
	do := func(c lock.Change) {
		t.Helper()
		events, err := s.Commit(t.Context(), []lock.Change{c})
		if err != nil {
			t.Fatal(err)
		}
		name := c.Lock.Name.String()
		switch c.Type {
		case lock.Unlocked:
			delete(r.holds, name)
			return
		case lock.Extended:
			r.holds[name] = c.Lock
			return
		}
		r.holds[name] = events[0].Lock
		r.stale[name], r.files[name] = r.files[name], readFile(t, r.root, name)
	}
	get := func(name string) lock.Lock { return present(t.Context(), t, s, lock.MustParseName(name)) }
	data := func(name string) string { return fmt.Sprintf(`{"msg":"%s","n":1}`, name) }
	for _, name := range byHand {
		r.holds[name] = get(name)
	}
	for _, name := range []string{"old", "renewed", "updated", "deep/old"} {
		do(locked(get(name), "holder of "+name, data(name)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDisk(t, r.root)
	s = mustOpenOn(t, d)
	do(locked(get("recent"), "holder of recent", data("recent")))
	do(locked(get("replaced"), "first", data("replaced first")))
	do(locked(get("replaced"), "second", data("replaced")))
	do(updated(get("updated"), data("updated, and with a rather long text")))
	do(updated(get("updated"), data("updated again")))
	renewal := lock.Change{Type: lock.Extended, Cause: lock.Request, Prev: get("renewed").Revision, Lock: get("renewed")}
	renewal.Lock.TTL = time.Hour
	do(renewal)
	do(locked(get("gone"), "holder of gone", data("gone")))
	do(unlocked(get("gone")))
	do(locked(get("taken"), "holder of taken", data("taken")))
	do(updated(get("amended"), data("amended")))
	do(unlocked(get("freed")))
	do(locked(get("last"), "holder of last", data("last")))
	r.end, _ = s.List(t.Context(), lock.Pattern{}, lock.Name{})
	d.kill()
	_ = s.Close()
	return r
}

func readFile(t *testing.T, root, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// put writes a lock file as somebody does, so long after the server stopped.
func put(t *testing.T, root, name string, text []byte, age time.Duration) {
	t.Helper()
	file := filepath.Join(root, name+".lock")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(age)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func rm(t *testing.T, root, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(root, name+".lock")); err != nil {
		t.Fatal(err)
	}
}

// recoverCase is a state of the files, and what a start makes of it.
type recoverCase struct {
	name string
	// ruin changes the files.
	ruin func(t *testing.T, r *ruin)
	// powered: there was no power cut, the process alone was killed.
	powered bool
	// events are those of the start, such as "unlocked old", in any order.
	events []string
	// untouched are names whose files must stay as they are, to the inode.
	untouched []string
	// data is that of the locks that events speak of, if it is not what they
	// had; free are locks that must be free.
	data map[string]string
	free []string
	// problem are names whose lock must have one.
	problem []string
}

const mine = "msg: mine\n"

var recoverCases = []recoverCase{
	{name: "nothing is lost", ruin: func(*testing.T, *ruin) {}, untouched: []string{"old", "recent", "replaced", "updated", "last", "renewed"}},
	{name: "nothing is lost, no power cut", powered: true, ruin: func(*testing.T, *ruin) {}, untouched: []string{"old", "recent", "replaced", "updated", "last", "renewed"}},

	// What a power cut undoes is done again.
	{name: "the file of a recent hold is lost", ruin: func(t *testing.T, r *ruin) { rm(t, r.root, "recent"); rm(t, r.root, "last") }},
	{name: "the file of an updated hold is lost", ruin: func(t *testing.T, r *ruin) { rm(t, r.root, "updated") }},
	{name: "a removal is lost", free: []string{"gone"}, ruin: func(t *testing.T, r *ruin) { put(t, r.root, "gone", r.files["gone"], -time.Hour) }},
	{name: "a replacement is lost", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "replaced", r.stale["replaced"], -time.Hour) }},
	{name: "an update is lost", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "updated", r.stale["updated"], -time.Hour) }},
	{name: "the removal of somebody's file is lost", free: []string{"freed"}, ruin: func(t *testing.T, r *ruin) { put(t, r.root, "freed", r.files["freed"], -2*time.Hour) }},
	{name: "the replacement of somebody's files is lost", ruin: func(t *testing.T, r *ruin) {
		for _, name := range []string{"taken", "amended"} {
			rm(t, r.root, name) // the file that replaced it is another
			put(t, r.root, name, r.stale[name], -2*time.Hour)
		}
	}},
	{name: "files are empty", free: []string{"gone"}, ruin: func(t *testing.T, r *ruin) {
		for _, name := range []string{"recent", "replaced", "updated", "last", "gone"} {
			put(t, r.root, name, nil, -time.Hour)
		}
	}},
	{name: "files are zeros", free: []string{"gone"}, ruin: func(t *testing.T, r *ruin) {
		for _, name := range []string{"recent", "replaced", "updated", "last", "gone"} {
			put(t, r.root, name, make([]byte, len(r.files[name])), -time.Hour)
		}
	}},
	{name: "files are half written", free: []string{"gone"}, ruin: func(t *testing.T, r *ruin) {
		for _, name := range []string{"recent", "replaced", "updated", "last", "gone"} {
			put(t, r.root, name, r.files[name][:len(r.files[name])/2], -time.Hour)
		}
	}},
	{name: "the first halves of files are zeros", free: []string{"gone"}, ruin: func(t *testing.T, r *ruin) {
		for _, name := range []string{"recent", "replaced", "updated", "last", "gone"} {
			text := bytes.Clone(r.files[name])
			clear(text[:len(text)/2])
			put(t, r.root, name, text, -time.Hour)
		}
	}},
	{name: "replaced files are zeros", ruin: func(t *testing.T, r *ruin) {
		for _, name := range []string{"replaced", "updated"} { // longer than what replaced them
			put(t, r.root, name, make([]byte, len(r.stale[name])), -time.Hour)
		}
	}},
	{name: "the directory is lost", ruin: func(t *testing.T, r *ruin) {
		if err := os.RemoveAll(filepath.Join(r.root, "deep")); err != nil {
			t.Fatal(err)
		}
	}, events: []string{"unlocked deep/old"}, free: []string{"deep/old"}},

	// Before the checkpoint the files are right, with or without a power cut.
	{name: "an old hold's file was removed", ruin: func(t *testing.T, r *ruin) { rm(t, r.root, "old"); rm(t, r.root, "renewed") },
		events: []string{"unlocked old", "unlocked renewed"}, free: []string{"old", "renewed"}},
	{name: "an old hold's file was edited", ruin: func(t *testing.T, r *ruin) {
		put(t, r.root, "old", append(bytes.Clone(r.files["old"]), "note: by hand\n"...), 0)
	}, events: []string{"updated old"}, data: map[string]string{"old": `{"msg":"old","n":1,"note":"by hand"}`}, untouched: []string{"old"}},
	{name: "an old hold's file was written anew", ruin: func(t *testing.T, r *ruin) {
		rm(t, r.root, "old")
		put(t, r.root, "old", []byte(mine), 0)
	}, events: []string{"locked old", "unlocked old"}, data: map[string]string{"old": `{"msg":"mine"}`}, untouched: []string{"old"}},
	{name: "an old hold's file was spoilt", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "old", []byte("msg: [\n"), 0) },
		events: []string{"updated old"}, data: map[string]string{"old": `{}`}, problem: []string{"old"}, untouched: []string{"old"}},
	{name: "an old hold's file was emptied", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "old", nil, 0) },
		events: []string{"updated old"}, data: map[string]string{"old": `{}`}, problem: []string{"old"}, untouched: []string{"old"}},

	{name: "an old hold's file was overwritten", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "old", []byte(mine), 0) },
		events: []string{"updated old"}, data: map[string]string{"old": `{"msg":"mine"}`}, untouched: []string{"old"}},
	{name: "a recent hold's file was overwritten", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "recent", []byte(mine), time.Minute) },
		events: []string{"updated recent"}, data: map[string]string{"recent": `{"msg":"mine"}`}, untouched: []string{"recent"}},

	// What was there when the process alone was killed is there, but for what the
	// last batch was in the middle of.
	{name: "files were removed, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) {
		for _, name := range []string{"old", "recent", "replaced", "updated"} {
			rm(t, r.root, name)
		}
	}, events: []string{"unlocked old", "unlocked recent", "unlocked replaced", "unlocked updated"}, free: []string{"old", "recent", "replaced", "updated"}},
	{name: "the last file is missing, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { rm(t, r.root, "last") },
		events: []string{"unlocked last"}, free: []string{"last"}},
	{name: "a recent hold's file was edited, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) {
		put(t, r.root, "recent", append(bytes.Clone(r.files["recent"]), "note: by hand\n"...), 0)
	}, events: []string{"updated recent"}, data: map[string]string{"recent": `{"msg":"recent","n":1,"note":"by hand"}`}, untouched: []string{"recent"}},
	{name: "a recent hold's file was overwritten, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { put(t, r.root, "recent", []byte(mine), 0) },
		events: []string{"updated recent"}, data: map[string]string{"recent": `{"msg":"mine"}`}, untouched: []string{"recent"}},
	{name: "the last hold's file was overwritten, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { put(t, r.root, "last", []byte(mine), 0) },
		events: []string{"updated last"}, data: map[string]string{"last": `{"msg":"mine"}`}, untouched: []string{"last"}},
	{name: "an empty file at once after a release, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { put(t, r.root, "gone", nil, -time.Second) },
		events: []string{"locked gone"}, data: map[string]string{"gone": `{}`}, problem: []string{"gone"}, untouched: []string{"gone"}},
	{name: "a copy after a release, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { put(t, r.root, "gone", r.files["gone"], -time.Hour) },
		events: []string{"locked gone"}, data: map[string]string{"gone": `{"msg":"gone","n":1}`}, untouched: []string{"gone"}},

	{name: "a released file of somebody's again, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { put(t, r.root, "freed", r.files["freed"], -2*time.Hour) },
		events: []string{"locked freed"}, data: map[string]string{"freed": `{"msg":"freed by hand"}`}, untouched: []string{"freed"}},

	// What others made is never destroyed.
	{name: "a released file of somebody's, written again", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "freed", r.files["freed"], time.Second) },
		events: []string{"locked freed"}, data: map[string]string{"freed": `{"msg":"freed by hand"}`}, untouched: []string{"freed"}},
	{name: "somebody's file", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "a/b/new", []byte(mine), 0) },
		events: []string{"locked a/b/new"}, data: map[string]string{"a/b/new": `{"msg":"mine"}`}, untouched: []string{"a/b/new"}},
	{name: "somebody's old file", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "new", []byte(mine), -time.Hour) },
		events: []string{"locked new"}, data: map[string]string{"new": `{"msg":"mine"}`}, untouched: []string{"new"}},
	{name: "somebody's empty file", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "new", nil, -time.Hour) },
		events: []string{"locked new"}, data: map[string]string{"new": `{}`}, problem: []string{"new"}, untouched: []string{"new"}},
	{name: "somebody's file after a release", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "gone", []byte(mine), time.Second) },
		events: []string{"locked gone"}, data: map[string]string{"gone": `{"msg":"mine"}`}, untouched: []string{"gone"}},
	{name: "somebody's file after a release, with an old time", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "gone", []byte(mine), -time.Hour) },
		events: []string{"locked gone"}, data: map[string]string{"gone": `{"msg":"mine"}`}, untouched: []string{"gone"}},
	{name: "somebody's empty file after a release", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "gone", nil, time.Second) },
		events: []string{"locked gone"}, data: map[string]string{"gone": `{}`}, problem: []string{"gone"}, untouched: []string{"gone"}},
	{name: "a copy after a release", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "gone", r.files["gone"], time.Second) },
		events: []string{"locked gone"}, data: map[string]string{"gone": `{"msg":"gone","n":1}`}, untouched: []string{"gone"}},
	{name: "somebody's file in place of a recent hold's", ruin: func(t *testing.T, r *ruin) {
		rm(t, r.root, "recent")
		put(t, r.root, "recent", []byte(mine), time.Second)
	}, events: []string{"locked recent", "unlocked recent"}, data: map[string]string{"recent": `{"msg":"mine"}`}, untouched: []string{"recent"}},
	{name: "a directory in place of a lock file", ruin: func(t *testing.T, r *ruin) {
		rm(t, r.root, "recent")
		if err := os.MkdirAll(filepath.Join(r.root, "recent.lock", "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}, events: []string{"locked recent", "unlocked recent"}, data: map[string]string{"recent": `{}`}, problem: []string{"recent"}, untouched: []string{"recent"}},

	// What the journal does not have was never answered for.
	{name: "a new file that has no place yet", ruin: func(t *testing.T, r *ruin) { orphan(t, r, 1, ".pylok/1000000.new") }},
	{name: "a grant that the journal does not have", ruin: func(t *testing.T, r *ruin) { orphan(t, r, 1, "unheard.lock") }, free: []string{"unheard"}},
	{name: "a grant that the journal does not have, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { orphan(t, r, 1, "unheard.lock") }, free: []string{"unheard"}},
	{name: "a grant after a release that the journal does not have", ruin: func(t *testing.T, r *ruin) { orphan(t, r, 1, "gone.lock") }, free: []string{"gone"}},
	{name: "a replacement that the journal does not have", ruin: func(t *testing.T, r *ruin) {
		rm(t, r.root, "old")
		rm(t, r.root, "recent")
		orphan(t, r, 1, "old.lock")
		orphan(t, r, 2, "recent.lock")
	}},
	{name: "a replacement of somebody's file that the journal does not have", ruin: replaceTheirs},
	{name: "a replacement of somebody's file that the journal does not have, no power cut", powered: true, ruin: replaceTheirs},
	{name: "a torn grant that the journal does not have", ruin: func(t *testing.T, r *ruin) {
		orphan(t, r, 1, "unheard.lock")
		put(t, r.root, "unheard", nil, 0)
	}, free: []string{"unheard"}},
	{name: "grants that the journal does not have, with the text of other holds", ruin: func(t *testing.T, r *ruin) {
		orphan(t, r, 1, "unheard.lock")
		put(t, r.root, "unheard", r.files["gone"], 0)
		orphan(t, r, 2, "unheard2.lock")
		put(t, r.root, "unheard2", r.files["old"], 0)
	}, free: []string{"unheard", "unheard2"}},
	{name: "the text of another hold in the file of a recent one", ruin: func(t *testing.T, r *ruin) { put(t, r.root, "recent", r.files["gone"], -time.Hour) }},
	{name: "a recent hold's place has the file of another, as it may have had before", ruin: func(t *testing.T, r *ruin) {
		if err := os.Rename(filepath.Join(r.root, "last.lock"), filepath.Join(r.root, "recent.lock")); err != nil {
			t.Fatal(err)
		}
		put(t, r.root, "recent", []byte("msg: neither one\x00nor the other\n"), 0)
	}},
	{name: "somebody's copy of a grant that the journal does not have, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) {
		orphan(t, r, 1, "unheard.lock")
		text := readFile(t, r.root, "unheard")
		rm(t, r.root, "unheard")
		put(t, r.root, "copy", text, 0)
	}, events: []string{"locked copy"}, data: map[string]string{"copy": `{"msg":"unheard"}`}, untouched: []string{"copy"}},
	{name: "a held lock's file that somebody moved", ruin: func(t *testing.T, r *ruin) {
		if err := os.Rename(filepath.Join(r.root, "old.lock"), filepath.Join(r.root, "moved.lock")); err != nil {
			t.Fatal(err)
		}
	}, events: []string{"locked moved", "unlocked old"}, free: []string{"old"}, data: map[string]string{"moved": `{"msg":"old","n":1}`}, untouched: []string{"moved"}},
	{name: "an update that is not finished, no power cut", powered: true, ruin: func(t *testing.T, r *ruin) { moveAside(t, r, "old") }, untouched: []string{"last"}},
	{name: "an update that is not finished", ruin: func(t *testing.T, r *ruin) { moveAside(t, r, "old") }, untouched: []string{"last"}},
	{name: "a release that is not finished", ruin: takeOut},
	{name: "a release that is not finished, no power cut", powered: true, ruin: takeOut},
	{name: "a file that stands by", powered: true, ruin: func(t *testing.T, r *ruin) {
		name := lock.MustParseName("gone")
		own := filepath.Join(r.root, ownDir, "1000000-"+hashOf(name)+takeSuffix)
		if err := os.WriteFile(own, r.files["gone"], 0o644); err != nil {
			t.Fatal(err)
		}
	}, free: []string{"gone"}},
	{name: "a file that a version before this one left with a second name", ruin: func(t *testing.T, r *ruin) {
		if err := os.Link(filepath.Join(r.root, "last.lock"), filepath.Join(r.root, ".pylok/1000000.new")); err != nil {
			t.Fatal(err)
		}
	}, untouched: []string{"last"}},
	{name: "a grant that a version before this one left with a second name, no power cut", powered: true, ruin: secondName, free: []string{"unheard"}},
	{name: "a grant that a version before this one left with a second name", ruin: func(t *testing.T, r *ruin) {
		secondName(t, r)
		put(t, r.root, "unheard", nil, 0)
	}, free: []string{"unheard"}},
	{name: "a name on the way", ruin: func(t *testing.T, r *ruin) {
		if err := os.WriteFile(filepath.Join(r.root, ownDir, "99"+moveSuffix), []byte("lock_token: 99\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}},
}

func replaceTheirs(t *testing.T, r *ruin) {
	rm(t, r.root, "theirs")
	orphan(t, r, 1, "theirs.lock")
}

// unheardText is what the server writes for a lock's grant, n revisions after the end of
// the journal.
func unheardText(t *testing.T, r *ruin, n int, file string) []byte {
	t.Helper()
	l := lock.Lock{Name: lock.MustParseName("x"), Holder: "nobody yet", Token: lock.Token(r.end) + lock.Token(n), AcquireTime: time.Now().Truncate(time.Millisecond), Data: mustData(t, `{"msg":"unheard"}`)}
	return lockfile.Append(nil, l, filepath.Join(r.root, file))
}

// orphan makes a new file as the server does, for a grant that the journal does not have.
func orphan(t *testing.T, r *ruin, n int, file string) {
	t.Helper()
	d := openDisk(t, r.root)
	defer d.FS.Close()
	if _, err := pool.Make(d, file, unheardText(t, r, n, file)); err != nil {
		t.Fatal(err)
	}
}

// secondName is orphan as of servers before, whose new files had another name.
func secondName(t *testing.T, r *ruin) {
	t.Helper()
	file := filepath.Join(r.root, "unheard.lock")
	if err := os.WriteFile(file, unheardText(t, r, 1, "elsewhere.lock"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, filepath.Join(r.root, ".pylok/1000000.new")); err != nil {
		t.Fatal(err)
	}
}

// takeOut moves the file of a hold, as a release does.
func takeOut(t *testing.T, r *ruin) {
	t.Helper()
	moved := filepath.Join(r.root, ownDir, "1000000-"+hashOf(lock.MustParseName("old"))+takeSuffix)
	if err := os.Rename(filepath.Join(r.root, "old.lock"), moved); err != nil {
		t.Fatal(err)
	}
}

// moveAside replaces the file of a hold, as an update does.
func moveAside(t *testing.T, r *ruin, name string) {
	t.Helper()
	moved := ".pylok/1000000-" + hashOf(lock.MustParseName(name)) + moveSuffix
	l := r.holds[name].WithData(mustData(t, `{"msg":"unheard"}`))
	d := openDisk(t, r.root)
	defer d.FS.Close()
	if _, err := pool.Make(d, moved, lockfile.Append(nil, l, filepath.Join(r.root, name+".lock"))); err != nil {
		t.Fatal(err)
	}
	if err := d.FS.Exchange(moved, name+".lock"); err != nil {
		t.Fatal(err)
	}
}

// identity tells whether somebody touched a file.
func identity(t *testing.T, root, name string) string {
	t.Helper()
	file := filepath.Join(root, name+".lock")
	info, err := os.Lstat(file)
	if err != nil {
		return err.Error()
	}
	text, _ := os.ReadFile(file)
	return fmt.Sprintf("inode %d, mode %v, mtime %v, text %q", info.Sys().(*syscall.Stat_t).Ino, info.Mode(), info.ModTime(), text)
}

func TestRecover(t *testing.T) {
	for _, c := range recoverCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := makeRuin(t)
			c.ruin(t, r)
			before := make(map[string]string)
			for _, name := range c.untouched {
				before[name] = identity(t, r.root, name)
			}
			for round := range 2 { // the second start has nothing left to do
				d := openDisk(t, r.root)
				if !c.powered {
					d.mount = "after the power cut"
				}
				s := mustOpenOn(t, d)
				c.check(t, r, s, round)
				for name, want := range before {
					if got := identity(t, r.root, name); got != want {
						t.Errorf("round %d: the file of %s was touched:\n got %s\nwant %s", round, name, got, want)
					}
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// check compares a store that was opened in a ruin with what it should be.
func (c recoverCase) check(t *testing.T, r *ruin, s *Store, round int) {
	t.Helper()
	told := make(map[string]lock.Event)
	var events []string
	if end, _ := s.List(t.Context(), lock.Pattern{}, lock.Name{}); end > r.end {
		list, _, err := s.Events(t.Context(), lock.Pattern{}, r.end, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			events = append(events, fmt.Sprintf("%v %v", e.Type, e.Lock.Name))
			told[e.Lock.Name.String()] = e
			if e.Cause != lock.File {
				t.Errorf("the cause of %v %v is %v, want file", e.Type, e.Lock.Name, e.Cause)
			}
			if e.Type == lock.Locked && (e.Lock.Token != lock.Token(e.Revision) || e.Lock.Holder != "") {
				t.Errorf("%v was adopted with token %d for %q, want token %d for nobody", e.Lock.Name, e.Lock.Token, e.Lock.Holder, e.Revision)
			}
		}
	}
	slices.Sort(events)
	if !slices.Equal(events, c.events) {
		t.Errorf("round %d: events %q, want %q", round, events, c.events)
	}
	names := slices.Concat(c.free, slices.Collect(maps.Keys(r.holds)), slices.Collect(maps.Keys(c.data)))
	for _, name := range names {
		want := r.holds[name]
		if e, ok := told[name]; ok && e.Type != lock.Unlocked {
			if e.Type == lock.Updated && (e.Lock.Token != want.Token || e.Lock.Holder != want.Holder) {
				t.Errorf("%s was updated to token %d of %q, want %d of %q", name, e.Lock.Token, e.Lock.Holder, want.Token, want.Holder)
			}
			want = e.Lock
		}
		if data, ok := c.data[name]; ok {
			want.Data = mustData(t, data)
		}
		if slices.Contains(c.free, name) {
			want = lock.Lock{}
		}
		want.Name = lock.MustParseName(name)
		got := present(t.Context(), t, s, want.Name)
		if hasProblem := slices.Contains(c.problem, name); (got.Problem != "") != hasProblem {
			t.Errorf("%s has the problem %q, want one: %v", name, got.Problem, hasProblem)
		}
		want.Problem = got.Problem
		got.Warnings = "" // a copy says what it was a copy of
		if got != want {
			t.Errorf("round %d: %s is\n got %+v\nwant %+v", round, name, got, want)
		}
		_, err := os.Lstat(filepath.Join(r.root, name+".lock"))
		if there := err == nil; there != got.Held() {
			t.Errorf("%s is %s, and has a file: %v", name, got.State(), there)
		}
		if _, outside := told[name]; got.Held() && !outside {
			content := lockfile.Read(readFile(t, r.root, name))
			ofOthers := name == "theirs" && content.Token == 0
			if content.Token != got.Token && !ofOthers || content.Data != got.Data || content.Holder != got.Holder {
				t.Errorf("the file of %s says %+v, want %+v", name, content, got)
			}
		}
	}
	if left := leftNew(t, r.root); len(left) > 0 {
		t.Errorf("%v is left in %s", left, ownDir)
	}
	if round == 0 {
		return
	}
	next, err := s.Commit(t.Context(), []lock.Change{locked(lock.Lock{Name: lock.MustParseName("next")}, "", `{}`)})
	if err != nil {
		t.Fatal(err)
	}
	seen := r.end
	if strings.Contains(c.name, "journal does not have") {
		seen++
	}
	if token := next[0].Lock.Token; token <= lock.Token(seen) {
		t.Errorf("the next token is %d, want one above %d, which has been in a file", token, seen)
	}
}
