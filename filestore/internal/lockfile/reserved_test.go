package lockfile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// TestWarnings: what the server wrote counts, and of what somebody changed there is a
// sentence each.
func TestWarnings(t *testing.T) {
	const location = "/tmp/locks/lb/web-1.lock"
	at := time.Date(2026, 11, 22, 19, 3, 11, 482e6, time.UTC)
	data, err := lock.NewData(map[string]any{"msg": "mine"})
	if err != nil {
		t.Fatal(err)
	}
	leased := lock.Lock{
		Name: lock.MustParseName("lb/web-1"), Data: data, Holder: "alice@ci-7", Caller: "unix:alice", Token: 42, Revision: 43,
		AcquireTime: at, TTL: 30 * time.Minute, RequestID: `id "1"`,
	}
	expiring := leased
	expiring.TTL, expiring.ExpireTime, expiring.Holder, expiring.Caller = 0, at.Add(time.Hour), "", ""
	kept := leased
	kept.OnExpiry, kept.Set, kept.StaleTime = lock.Keep, lock.SetRef{ID: 41, Size: 3}, at.Add(time.Hour)
	tree := expiring
	tree.Tree = true
	for _, test := range []struct {
		name     string
		lock     lock.Lock
		edit     []string // old and new, in pairs
		extended bool
		want     []string
	}{
		{name: "as it was written", lock: leased},
		{name: "as it was written, with an expire time", lock: expiring},
		{name: "as it was written, stale and of a set", lock: kept},
		{name: "as it was written, a tree", lock: tree},
		{name: "a tree that somebody made", lock: tree, edit: []string{"lock_scope: tree", "lock_scope: 'tree'"}},
		{name: "another scope", lock: leased, edit: []string{"lock_token: 42", "lock_token: 42\nlock_scope: all"},
			want: []string{"lock_scope: all does not count; there is none"}},
		{name: "the scope of a copy", lock: expiring, edit: []string{"lock_token: 42", "lock_token: 42\nlock_scope: tree", location, "/tmp/locks/prod.lock"},
			want: []string{
				"lock_file_location: /tmp/locks/prod.lock does not count; it is " + location,
				"lock_scope: tree does not count; the file is a copy, which its lock_file_location says",
			}},
		{name: "stale, kept and of a set by hand", lock: leased, edit: []string{"lock_token: 42", "lock_token: 42\nlock_stale: \"2026-11-22T19:03:11.482Z\"\nlock_set: 41/3\nlock_on_expiry: keep"},
			want: []string{
				"lock_on_expiry: keep does not count; there is none",
				"lock_set: 41/3 does not count; there is none",
				"lock_stale: 2026-11-22T19:03:11.482Z does not count; there is none",
			}},
		{name: "stale, kept and of a set otherwise", lock: kept, edit: []string{"41/3", "41/2", "20:03:11", "21:03:11", "expiry: keep", "expiry: release"},
			want: []string{
				"lock_on_expiry: release does not count; it is keep",
				"lock_set: 41/2 does not count; it is 41/3",
				"lock_stale: 2026-11-22T21:03:11.482Z does not count; it is 2026-11-22T20:03:11.482Z",
			}},
		{name: "the user's own keys", lock: leased, edit: []string{"msg: mine", "msg: yours\nlock_color: red"}},
		{name: "without the reserved keys", lock: leased, edit: []string{"lock_holder: alice@ci-7\n", "", "lock_token: 42\n", ""}},
		{name: "the same in other words", lock: leased, edit: []string{"lock_ttl: 30m", "lock_ttl: '1800s'", "lock_holder: alice@ci-7", `lock_holder: "alice@ci-7"`}},
		{name: "another holder", lock: leased, edit: []string{"alice@ci-7", "mallory"},
			want: []string{"lock_holder: mallory does not count; it is alice@ci-7"}},
		{name: "no holder", lock: leased, edit: []string{"alice@ci-7", ""},
			want: []string{`lock_holder: "" does not count; it is alice@ci-7`}},
		{name: "a caller of nobody's", lock: expiring, edit: []string{"lock_action: lock\n", "lock_action: lock\nlock_caller: unix:mallory\n"},
			want: []string{"lock_caller: unix:mallory does not count; there is none"}},
		{name: "a holder of nobody's", lock: expiring, edit: []string{"lock_token: 42", "lock_token: 42\nlock_holder: mallory\nlock_ttl: 5s"},
			want: []string{"lock_holder: mallory does not count; there is none", "lock_ttl: 5s does not count; there is none"}},
		{name: "another caller", lock: leased, edit: []string{"unix:alice", "unix:mallory"},
			want: []string{"lock_caller: unix:mallory does not count; it is unix:alice"}},
		{name: "no caller", lock: leased, edit: []string{"lock_caller: unix:alice\n", ""}},
		{name: "all of them", lock: leased, edit: []string{
			"lock_token: 42", "lock_token: 9", "lock_ttl: 30m", "lock_ttl: 9h", "19:03:11", "09:09:09", "lock_file_status: locked", "lock_file_status: unlocked",
			location, "/elsewhere", "lock_action: lock", "lock_action: [unlock]", "lock_request_id: \"id \\\"1\\\"\"", "lock_request_id: {a: b}",
		}, want: []string{
			"lock_acquired: 2026-11-22T09:09:09.482Z does not count; it is 2026-11-22T19:03:11.482Z",
			"lock_action: [...] does not count; it is lock",
			"lock_file_location: /elsewhere does not count; it is " + location,
			"lock_file_status: unlocked does not count; it is locked",
			`lock_request_id: {...} does not count; it is "id \"1\""`,
			"lock_token: 9 does not count; it is 42",
			"lock_ttl: 9h does not count; it is 30m",
		}},
		{name: "another end", lock: expiring, edit: []string{"20:03:11", "21:03:11"},
			want: []string{"lock_expires: 2026-11-22T21:03:11.482Z does not count; it is 2026-11-22T20:03:11.482Z"}},
		{name: "a hold that was extended has other terms than its file", lock: leased, extended: true,
			edit: []string{"lock_ttl: 30m", "lock_ttl: 10m", "alice@ci-7", "mallory"},
			want: []string{"lock_holder: mallory does not count; it is alice@ci-7"}},
		{name: "a key many times", lock: leased, edit: []string{"lock_token: 42", "lock_token: 42\n" + strings.Repeat("lock_token: 8\n", 3000) + "lock_token: 9"},
			want: []string{"lock_token: 9 does not count; it is 42"}},
		{name: "what a terminal acts upon, and long", lock: leased, edit: []string{"alice@ci-7", `"a\e[2J\n` + strings.Repeat("x", 300) + `"`},
			want: []string{`lock_holder: "a\x1b[2J\n` + strings.Repeat("x", 94) + `..." does not count; it is alice@ci-7`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := string(lockfile.Append(nil, test.lock, location))
			for i := 0; i < len(test.edit); i += 2 {
				if !strings.Contains(text, test.edit[i]) {
					t.Fatalf("%q is not in\n%s", test.edit[i], text)
				}
				text = strings.Replace(text, test.edit[i], test.edit[i+1], 1)
			}
			_, reserved := lockfile.ReadAll([]byte(text))
			if got, want := reserved.Warnings(test.lock, location, test.extended), strings.Join(test.want, "\n"); got != want {
				t.Errorf("of\n%s\ngot  %q\nwant %q", text, got, want)
			}
		})
	}
}
