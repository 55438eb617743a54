package lockfile_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// TestReadData reads files as people and programs write them.
func TestReadData(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"flow":                         {`{msg: hi, n: [1, 2]}`, `{"msg":"hi","n":[1,2]}`},
		"JSON":                         {`{"msg": "hi\u00e9", "n": [1, 2.50, null, true]}`, `{"msg":"hié","n":[1,"2.50",null,true]}`},
		"an empty mapping":             {"{}\n", `{}`},
		"no newline at the end":        {"msg: hi", `{"msg":"hi"}`},
		"a document's markers":         {"---\nmsg: hi\n...\n", `{"msg":"hi"}`},
		"a directive":                  {"%YAML 1.1\n---\nmsg: hi\n", `{"msg":"hi"}`},
		"comments":                     {"# before\nmsg: hi # behind\n# after\n", `{"msg":"hi"}`},
		"carriage returns":             {"msg: hi\r\ndata:\r\n  a: |\r\n    x\r\n    y\r\n", `{"data":{"a":"x\ny\n"},"msg":"hi"}`},
		"a byte order mark":            {"\ufeffmsg: hi\n", `{"msg":"hi"}`},
		"UTF-16":                       {"\xff\xfem\x00s\x00g\x00:\x00 \x00h\x00i\x00\n\x00", `{"msg":"hi"}`},
		"no value":                     {"msg:\n", `{"msg":null}`},
		"the original's dates":         {"expire: 2019-12-20 00:00:00\nday: 2019-12-20\n", `{"day":"2019-12-20","expire":"2019-12-20 00:00:00"}`},
		"a time with a zone":           {"t: 2026-11-22T19:03:11.48200Z\n", `{"t":"2026-11-22T19:03:11.48200Z"}`},
		"a tagged time":                {"t: !!timestamp 2019-12-20\n", `{"t":"2019-12-20"}`},
		"2^53":                         {"a: 9007199254740992\nb: -9007199254740992\n", `{"a":9007199254740992,"b":-9007199254740992}`},
		"beyond 2^53":                  {"a: 9007199254740993\nb: -9007199254740993\nc: 18446744073709551615\nd: 123456789012345678901234567890\n", `{"a":"9007199254740993","b":"-9007199254740993","c":"18446744073709551615","d":"123456789012345678901234567890"}`},
		"hexadecimal":                  {"a: 0x1F\n", `{"a":"0x1F"}`},
		"hexadecimal beyond 2^53":      {"a: 0xFFFFFFFFFFFFFFFF\n", `{"a":"0xFFFFFFFFFFFFFFFF"}`},
		"fractions":                    {"a: 1.5\nb: 1.0\nc: 1.0e+3\nd: 0.1\ne: -0.0\n", `{"a":1.5,"b":1,"c":"1.0e+3","d":0.1,"e":-0.0}`},
		"texts to YAML 1.1":            {"a: 1e3\nb: 08\nc: 0o17\nd: -.5\ne: 1234e5\nf: 1e-7\ng: -1e+21\n", `{"a":"1e3","b":"08","c":"0o17","d":"-.5","e":"1234e5","f":"1e-7","g":"-1e+21"}`},
		"infinities":                   {"a: .inf\nb: -.inf\nc: .nan\nd: .Inf\n", `{"a":".inf","b":"-.inf","c":".nan","d":".Inf"}`},
		"too large for a float":        {"a: 1.0e+999\n", `{"a":"1.0e+999"}`},
		"booleans":                     {"a: true\nb: False\nc: TRUE\n", `{"a":true,"b":false,"c":true}`},
		"nulls":                        {"a: ~\nb: null\nc: NULL\n", `{"a":null,"b":null,"c":null}`},
		"quoted":                       {"a: \"true\"\nb: '1'\nc: \"2019-12-20\"\nd: '~'\n", `{"a":"true","b":"1","c":"2019-12-20","d":"~"}`},
		"keys that are no text":        {"1: a\ntrue: b\nnull: c\n1.50: d\n2019-12-20: e\n", `{"1":"a","1.50":"d","2019-12-20":"e","null":"c","true":"b"}`},
		"a list as a key":              {"? [1, a]\n: x\n", `{"[1,\"a\"]":"x"}`},
		"a flow list as a key":         {"[d]: x\n", `{"[\"d\"]":"x"}`},
		"a mapping as a key":           {"? {b: 1, a: 2}\n: x\n", `{"{\"a\":2,\"b\":1}":"x"}`},
		"an empty key":                 {"\"\": x\n", `{"":"x"}`},
		"the same key twice":           {"a: 1\nb: 2\na: 3\n", `{"a":3,"b":2}`},
		"the same key inside":          {"d: {a: 1, a: 2}\n", `{"d":{"a":2}}`},
		"unknown tags":                 {"a: !foo 12\nb: !!python/unicode bar\nc: !foo [1]\nd: !foo {x: 1}\ne: !foo\n", `{"a":12,"b":"bar","c":[1],"d":{"x":1},"e":null}`},
		"an unknown tag, quoted":       {"a: !foo '12'\n", `{"a":"12"}`},
		"a tag on the document":        {"!!python/object:lock.Lock\nmsg: hi\n", `{"msg":"hi"}`},
		"known tags":                   {"a: !!str 12\nb: !!int '12'\nc: !!float 3\nd: !!bool 'true'\ne: !!null ''\n", `{"a":"12","b":12,"c":3,"d":true,"e":null}`},
		"a tag that does not fit":      {"a: !!int abc\nb: !!bool abc\nc: !!float abc\n", `{"a":"abc","b":"abc","c":"abc"}`},
		"binary":                       {"a: !!binary aGk=\n", `{"a":"aGk="}`},
		"a set":                        {"a: !!set {x, y}\n", `{"a":{"x":null,"y":null}}`},
		"pairs":                        {"a: !!omap [x: 1, y: 2]\n", `{"a":[{"x":1},{"y":2}]}`},
		"an anchor that nobody uses":   {"a: &x 1\n", `{"a":1}`},
		"a merge key without an alias": {"<<: {x: 1}\na: 2\n", `{"<<":{"x":1},"a":2}`},
		"a tab after the colon":        {"a:\t1\n", `{"a":1}`},
		"a folded text":                {"a: >\n  x\n  y\n\n  z\n", `{"a":"x y\nz\n"}`},
		"a text over lines":            {"a: x\n  y\n", `{"a":"x y"}`},
		"32 levels":                    {nested(32), nestedJSON(32)},
		"64 KiB":                       {"a: 1\n# " + strings.Repeat("x", 64<<10-8) + "\n", `{"a":1}`},
		"reserved keys":                {"lock_token: 7\nlock_holder: bob\nlock_action: [x]\nlock_acquired: 1\nmsg: hi\ndata: {lock_token: 8}\n", `{"data":{"lock_token":8},"msg":"hi"}`},
		"reserved keys alone":          {"lock_token: 7\nlock_file_status: locked\n", `{}`},
		"characters":                   {"é: 日本😀\n", `{"é":"日本😀"}`},
		"escapes":                      {`a: "\0\x07\e\u2028\U0001F600\N\_"` + "\n", "{\"a\":\"\\u0000\\u0007\\u001b\\u2028😀\u0085\u00a0\"}"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := lockfile.Read([]byte(test.text))
			if want := parseData(t, test.want); got.Problem != "" || got.Data != want {
				t.Errorf("Read(%.200q):\n got %.500s, problem %q\nwant %.500s", test.text, got.Data.JSON(), got.Problem, want.JSON())
			}
		})
	}
}

// nested is a document of n levels, the mapping at the top being the first.
func nested(n int) string {
	return "a: " + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + "\n"
}

func nestedJSON(n int) string {
	return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
}

// TestReadProblem reads files that are held and unreadable, and looks for the word
// that tells why.
func TestReadProblem(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"empty":                      {"", "empty"},
		"spaces":                     {" \n\n", "empty"},
		"zeros":                      {strings.Repeat("\x00", 512), ""},
		"a null":                     {"~\n", "mapping"},
		"only comments":              {"# locked by hand\n", "comments"},
		"only a marker":              {"---\n", "mapping"},
		"only an end":                {"...\n", ""},
		"a word":                     {"locked\n", "mapping"},
		"a number":                   {"12345\n", "mapping"},
		"a list":                     {"- a\n- b\n", "mapping"},
		"malformed":                  {"a: [1, 2\n", "not YAML"},
		"text after a mapping":       {"a: 1\nb\n", "not YAML"},
		"half a quote":               {"a: \"b\n", "not YAML"},
		"a colon too many":           {"a: b: c\n", "not YAML"},
		"a tab to indent":            {"a:\n\tb: 1\n", "not YAML"},
		"bad UTF-8":                  {"a: \xff\xfe\n", "not YAML"},
		"a control character":        {"a: \x01\n", "not YAML"},
		"64 KiB and 1":               {"a: 1\n# " + strings.Repeat("x", 64<<10-7) + "\n", "65536"},
		"33 levels":                  {nested(33), "32"},
		"33 levels of blocks":        {"a:\n" + blocks(32), "32"},
		"33 levels in a key":         {"? " + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "\n: x\n", "32"},
		"20,000 levels":              {"a: " + strings.Repeat("[", 20000), ""},
		"60,000 dashes":              {strings.Repeat("- ", 30000) + "a", ""},
		"an alias":                   {"a: &x 1\nb: *x\n", "alias"},
		"an alias to an outer level": {"a: &x [*x]\n", "alias"},
		"an alias as a key":          {"a: &x 1\n*x : 2\n", "alias"},
		"an alias in a list":         {"a: &x [1]\nb: [*x, *x]\n", "alias"},
		"a merge key with an alias":  {"a: &x {b: 1}\nc:\n  <<: *x\n", "alias"},
		"an unknown alias":           {"a: *x\n", "x"},
		"two documents":              {"a: 1\n---\nb: 2\n", "document"},
		"a second document, empty":   {"a: 1\n---\n", "document"},
		"a second document, broken":  {"a: 1\n---\n[\n", "document"},
		"a bad tag":                  {"a: !<\n", "not YAML"},
		"a bad directive":            {"%YAML 9\n---\na: 1\n", "not YAML"},
		"a long alias":               {"a: *" + strings.Repeat("x", 60000) + "\n", ""},
		"a long anchor":              {"a: &" + strings.Repeat("x", 30000) + " 1\nb: *" + strings.Repeat("x", 30000) + "\n", "alias"},
		"lines behind a key":         {"? a\n  b\n? - x\n: [\n", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := lockfile.Read([]byte(test.text))
			if got.Problem == "" || !strings.Contains(got.Problem, test.want) {
				t.Errorf("Read(%.200q): problem %q, want one with %q; data %.200s", test.text, got.Problem, test.want, got.Data.JSON())
			}
			checkProblem(t, got)
		})
	}
}

// blocks is n levels of block mappings, to stand under a key.
func blocks(n int) (text string) {
	for i := range n {
		text += strings.Repeat(" ", i+1) + "b:\n"
	}
	return text
}

// checkProblem checks what holds for every file with a problem.
func checkProblem(t *testing.T, c lockfile.Content) {
	t.Helper()
	const longest = 1024 // it travels in every event
	switch {
	case c != lockfile.Content{Problem: c.Problem}:
		t.Errorf("besides a problem there is content: %+v", c)
	case !utf8.ValidString(c.Problem):
		t.Errorf("the problem is not UTF-8: %q", c.Problem)
	case len(c.Problem) > longest:
		t.Errorf("the problem is %d bytes long, want at most %d: %.100q...", len(c.Problem), longest, c.Problem)
	case strings.ContainsAny(c.Problem, "\n\r"):
		t.Errorf("the problem has several lines: %q", c.Problem)
	}
}

// TestReadReserved reads the reserved keys, right ones and wrong ones.
func TestReadReserved(t *testing.T) {
	at := time.Date(2026, 11, 22, 19, 3, 11, 482_000_000, time.UTC)
	tests := map[string]struct {
		text string
		want lockfile.Content
	}{
		"all": {
			"lock_token: 42\nlock_holder: alice@ci-7\nlock_caller: \"github:o/r@main run 7\"\nlock_acquired: \"2026-11-22T19:03:11.482Z\"\nlock_ttl: 1h30m\nlock_expires: \"2026-11-22T20:03:11.482+01:00\"\nlock_request_id: id-1\n",
			lockfile.Content{Token: 42, Holder: "alice@ci-7", Caller: "github:o/r@main run 7", AcquireTime: at, TTL: 90 * time.Minute, ExpireTime: at, RequestID: "id-1"},
		},
		"a tree":                    {"lock_scope: tree\n", lockfile.Content{Tree: true}},
		"a tree in quotes":          {"lock_scope: 'tree'\n", lockfile.Content{Tree: true}},
		"another scope":             {"lock_scope: trees\n", lockfile.Content{}},
		"no scope":                  {"lock_scope:\n", lockfile.Content{}},
		"a list as the scope":       {"lock_scope: [tree]\n", lockfile.Content{}},
		"true as the scope":         {"lock_scope: true\n", lockfile.Content{}},
		"a tree, further down":      {"a:\n  lock_scope: tree\n", lockfile.Content{Data: parseData(t, `{"a":{"lock_scope":"tree"}}`)}},
		"a place":                   {"lock_file_location: /tmp/x.lock\n", lockfile.Content{Location: "/tmp/x.lock"}},
		"a hold that is kept":       {"lock_on_expiry: keep\nlock_stale: \"2026-11-22T19:03:11.482Z\"\nlock_set: 41/3\n", lockfile.Content{OnExpiry: lock.Keep, StaleTime: at, Set: lock.SetRef{ID: 41, Size: 3}}},
		"release":                   {"lock_on_expiry: release\n", lockfile.Content{}},
		"a set of no size":          {"lock_set: 41\n", lockfile.Content{}},
		"a set of too many numbers": {"lock_set: 41/3/2\n", lockfile.Content{}},
		"a set past all integers":   {"lock_set: 18446744073709551616/2\n", lockfile.Content{}},
		"a negative set":            {"lock_set: -1/2\n", lockfile.Content{}},
		"a set like a joke":         {"lock_set: 18446744073709551615/2\n", lockfile.Content{}},
		"a time without quotes":     {"lock_acquired: 2026-11-22T19:03:11.482Z\n", lockfile.Content{AcquireTime: at}},
		"a time without a zone":     {"lock_acquired: 2026-11-22 19:03:11\n", lockfile.Content{}},
		"a negative token":          {"lock_token: -1\n", lockfile.Content{}},
		"token zero":                {"lock_token: 0\n", lockfile.Content{}},
		"a token as text":           {"lock_token: '42'\n", lockfile.Content{}},
		"a fraction as a token":     {"lock_token: 1.5\n", lockfile.Content{}},
		"a huge float as a token":   {"lock_token: 1e300\n", lockfile.Content{}},
		"a token past all integers": {"lock_token: 18446744073709551616\n", lockfile.Content{}},
		"infinity as a token":       {"lock_token: .inf\n", lockfile.Content{}},
		"a list as a token":         {"lock_token: [1]\n", lockfile.Content{}},
		"a token beyond 2^53":       {"lock_token: 9007199254740993\n", lockfile.Content{Token: 9007199254740993}},
		"a number as the holder":    {"lock_holder: 12\n", lockfile.Content{}},
		"no holder":                 {"lock_holder:\n", lockfile.Content{}},
		"a negative ttl":            {"lock_ttl: -30s\n", lockfile.Content{}},
		"a number as the ttl":       {"lock_ttl: 30\n", lockfile.Content{}},
		"a ttl past all":            {"lock_ttl: 9999999999h\n", lockfile.Content{}},
		"a bad expiry":              {"lock_expires: tomorrow\n", lockfile.Content{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := lockfile.Read([]byte(test.text)); got != test.want {
				t.Errorf("Read(%q):\n got %+v\nwant %+v", test.text, got, test.want)
			}
		})
	}
}

// FuzzRead: whatever stands in a file, it has a problem, or it has data that is
// the same when it has been written and read again.
func FuzzRead(f *testing.F) {
	for _, text := range nastyTexts {
		f.Add([]byte(text))
		f.Add([]byte("a: " + text + "\n"))
		f.Add([]byte(text + ": 1\n"))
		f.Add([]byte(fmt.Sprintf("%q: [%q]\n", text, text)))
	}
	for _, text := range []string{
		"a: &x 1\nb: *x\n", "? [1, {a: b}]\n: x\n", "a: !foo 12\n", "{a: 1, a: 2}\n", "a: 1\n---\nb: 2\n", "a: >\n  x\n\n  y\n", "a: |2-\n   x\n",
		"a: 2019-12-20\nb: .nan\nc: 0x1F\nd: 1_000\ne: 0o17\nf: 0b1\ng: 1e400\n", "lock_token: 1e300\nlock_ttl: 1ns\nlock_expires: 0001-01-01T00:00:00Z\n", "lock_scope: tree\nlock_set: 41/3\nlock_on_expiry: keep\nlock_stale: 2026-11-22T19:03:11.482Z\nlock_file_location: /tmp/y.lock\n", "\ufeffa: 1\r\n", "a:\n- b\n-\n  - c\n", nested(33), "<<: [{a: 1}]\n", "!!map {? a, b}\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, reserved := lockfile.ReadAll(text)
		if c.Problem != "" {
			checkProblem(t, c)
			return
		}
		warnings := reserved.Warnings(lock.Lock{Token: 1, Holder: "alice", AcquireTime: time.Now()}, "/x.lock", false)
		if !utf8.ValidString(warnings) || len(warnings) > 1000*len(lock.ReservedKeys) {
			t.Errorf("the warnings %q must be UTF-8, and short", warnings)
		}
		for line := range strings.SplitSeq(warnings, "\n") {
			if warnings != "" && !strings.Contains(line, " does not count; ") {
				t.Errorf("the line %q of the warnings is no sentence", line)
			}
		}
		if !utf8.ValidString(c.Holder) || !utf8.ValidString(c.RequestID) {
			t.Errorf("holder %q and request id %q must be UTF-8", c.Holder, c.RequestID)
		}
		if y := c.AcquireTime.Year(); !c.AcquireTime.IsZero() && (y < 1 || y > 9999) {
			return // not a time that is written
		}
		if y := c.StaleTime.Year(); !c.StaleTime.IsZero() && (y < 1 || y > 9999) {
			c.StaleTime = time.Time{}
		}
		l := lock.Lock{
			Data: c.Data, Token: cmp.Or(c.Token, 1), Holder: c.Holder, Caller: c.Caller, RequestID: c.RequestID, TTL: c.TTL, AcquireTime: c.AcquireTime.Truncate(time.Millisecond),
			Set: c.Set, OnExpiry: c.OnExpiry, StaleTime: c.StaleTime.Truncate(time.Millisecond), Tree: c.IsTree(lock.Lock{}, "/x.lock"),
		}
		if l.Tree && c.Location != "" && c.Location != "/x.lock" {
			t.Errorf("a tree is copied from %q", c.Location)
		}
		checkAppendRead(t, l)
	})
}
