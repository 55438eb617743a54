package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// keptTime makes a time of the years 1 to 9999, to the millisecond, from a number.
func keptTime(n int64) time.Time {
	const first, last = -62135596799999, 253402300799999
	return time.UnixMilli(first + int64(uint64(n)%(last-first))).UTC()
}

func mustData(t testing.TB, text string) lock.Data {
	t.Helper()
	data, err := lock.ParseData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkLine writes a record as a line and reads it again.
func checkLine(t *testing.T, r Record) {
	t.Helper()
	line := appendRecord([]byte("before"), r)
	line, ok := bytes.CutPrefix(line, []byte("before"))
	if !ok || bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
		t.Fatalf("a record is not one line: %q", line)
	}
	line = line[:len(line)-1]
	var object map[string]any
	if err := json.Unmarshal(line, &object); err != nil {
		t.Fatalf("the line is not JSON: %v\n%s", err, line)
	}
	got, err := parseRecord(line)
	if err != nil {
		t.Fatalf("%v\n%s", err, line)
	}
	if got != r {
		t.Errorf("reading what was written:\n got %+v\nwant %+v\nline %s", got, r, line)
	}
}

func TestRecord(t *testing.T) {
	at := time.Date(2026, 11, 22, 19, 3, 11, 482_000_000, time.UTC)
	name := lock.MustParseName("lb/server-1")
	event := func(edit func(*lock.Event)) Record {
		e := lock.Event{
			Revision: 7, Time: at, Type: lock.Locked, Cause: lock.Request,
			Lock: lock.Lock{Name: name, Token: 7, Revision: 7, AcquireTime: at},
		}
		edit(&e)
		return Record{Kind: KindEvent, Event: e, Time: e.Time}
	}
	tests := map[string]Record{
		"header":          {Kind: KindHeader, Revision: 41, Time: at},
		"first header":    {Kind: KindHeader, Time: at},
		"checkpoint":      {Kind: KindCheckpoint, Revision: 7, Time: at, batch: 12345},
		"checkpoint of 0": {Kind: KindCheckpoint, Time: at},
		"extended":        {Kind: KindExtended, More: true, batch: 9, Event: lock.Event{Lock: lock.Lock{Name: name, Token: 7, AcquireTime: at, TTL: time.Hour}}},
		"locked":          event(func(*lock.Event) {}),
		"of all": event(func(e *lock.Event) {
			e.Type, e.Cause, e.Actor, e.Reason = lock.Unlocked, lock.Forced, "bob", "it hung"
			e.Lock.Data, e.Lock.Holder, e.Lock.TTL, e.Lock.RequestID = mustData(t, `{"a":[1,2.5,null,{"b":"x\ny"}],"é":"😀"}`), "alice@ci-7", 30*time.Second, "id-1"
			e.Lock.Caller = "unix:alice"
		}),
		"stale, of a set": event(func(e *lock.Event) {
			e.Type, e.Cause = lock.Updated, lock.Expired
			e.Lock.OnExpiry, e.Lock.StaleTime, e.Lock.Set = lock.Keep, at.Add(time.Hour), lock.SetRef{ID: 6, Size: 64}
		}),
		"a tree that was handed over": event(func(e *lock.Event) { e.Lock.Tree, e.Previous = true, 5 }),
		"of a set without an id":      event(func(e *lock.Event) { e.Lock.Set.Size = 2 }),
		"the last of them": event(func(e *lock.Event) {
			e.Previous, e.Lock.Set = math.MaxUint64, lock.SetRef{ID: math.MaxUint64, Size: math.MaxInt}
		}),
		"expired": event(func(e *lock.Event) {
			e.Type, e.Cause, e.Lock.ExpireTime = lock.Unlocked, lock.Expired, at.Add(time.Hour)
		}),
		"by file":         event(func(e *lock.Event) { e.Type, e.Cause, e.Lock.Problem = lock.Updated, lock.File, "the file is empty" }),
		"ttl of 1 ns":     event(func(e *lock.Event) { e.Lock.TTL = 1 }),
		"ttl of 500 µs":   event(func(e *lock.Event) { e.Lock.TTL = 500 * time.Microsecond }),
		"the longest ttl": event(func(e *lock.Event) { e.Lock.TTL = math.MaxInt64 }),
		"the last numbers": event(func(e *lock.Event) {
			e.Revision, e.Lock.Revision, e.Lock.Token = math.MaxUint64, math.MaxUint64, math.MaxUint64
		}),
		"nasty texts": event(func(e *lock.Event) {
			e.Actor = "\x00\x1f\x7f\"\\\n\r\t\u0085\u2028\u2029\ufeff\ufffd😀</script>"
			e.Reason = `","crc32c":"00000000"}`
			e.Lock.Holder = `{"more":true}`
			e.Lock.Caller = "\u2028\"\\\x00\",\"more\":true"
		}),
		"data like a checksum": event(func(e *lock.Event) { e.Lock.Data = mustData(t, `{"crc32c":"00000000","more":true,"batch":3}`) }),
	}
	for name, r := range tests {
		t.Run(name, func(t *testing.T) { checkLine(t, r) })
	}
}

// FuzzRecord: a line reads as what was written, whatever the event.
func FuzzRecord(f *testing.F) {
	f.Add(uint8(0), uint64(7), int64(1795374191482), "alice@ci-7", "bob", "it hung", "id-1", int64(30e9), []byte(`{"a":[1,2.5,null]}`), true)
	f.Add(uint8(255), uint64(math.MaxUint64), int64(-1), "\x00\"\\\u2028\xff", `","crc32c":"00000000"}`, "\n", "\u0085", int64(-1), []byte(`{"\u2028\u0000":"\ud83d\ude00","n":-0.0,"m":1e300}`), false)
	f.Fuzz(func(t *testing.T, kinds uint8, number uint64, at int64, holder, actor, reason, requestID string, ttl int64, document []byte, more bool) {
		text := func(s string) string { return strings.ToValidUTF8(s, "?") }
		data, err := lock.ParseData(document)
		if err != nil {
			data = mustData(t, fmt.Sprintf(`{"document":%q}`, strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f || r == '"' || r == '\\' || r > 0xffff || r == 0xfffd {
					return '.'
				}
				return 'x'
			}, string(document))))
		}
		l := lock.Lock{
			Name: lock.MustParseName(fmt.Sprintf("a/b-%d", number)), Data: data, Holder: text(holder), Caller: text(actor), Token: lock.Token(number),
			AcquireTime: keptTime(at), TTL: time.Duration(ttl), RequestID: text(requestID), Problem: text(reason),
		}
		if kinds&1 == 1 {
			l.ExpireTime = keptTime(at + 1)
			l.OnExpiry, l.StaleTime, l.Set = lock.Keep, keptTime(at+3), lock.SetRef{ID: lock.Token(number) >> 1, Size: 1 + int(kinds)}
		}
		l.Tree = kinds&8 != 0
		r := Record{Kind: KindExtended, More: more, batch: int64(number >> 1)}
		if kinds&2 == 0 {
			l.Revision = lock.Revision(max(number, 1))
			r.Kind, r.Time = KindEvent, keptTime(at+2)
			r.Event = lock.Event{
				Revision: l.Revision, Time: r.Time, Type: lock.Locked + lock.EventType(kinds>>2)%3, Cause: lock.Request + lock.Cause(kinds>>4)%4,
				Actor: text(actor), Reason: text(reason), Previous: lock.Token(number >> 2),
			}
		}
		r.Event.Lock = l
		checkLine(t, r)
	})
}

// FuzzParse: no bytes make parseRecord panic, and what it takes for a record is
// one, as it is written.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"revision":1}`), true)
	f.Add([]byte(`{"revision":7,"time":"2026-11-22T19:03:11.482Z","type":"locked","cause":"request","name":"x","tree":true,"on_expiry":"keep","set":[6,3],"stale":"2026-11-22T19:03:11.482Z","previous":5`), true)
	f.Add([]byte(`{"journal":"pylok","format":1,"after":0`), true)
	f.Add([]byte(`{"checkpoint":1,"time":"x"`), true)
	f.Add(appendRecord(nil, Record{Kind: KindCheckpoint, Revision: 7}), false)
	f.Fuzz(func(t *testing.T, body []byte, seal bool) {
		if seal {
			body = sealed(string(body))
		}
		r, err := parseRecord(body)
		if err != nil || r.Event.Time.Year() > 9999 || r.Event.Time.Nanosecond()%1e6 != 0 {
			return
		}
		_ = appendRecord(nil, r)
	})
}

// sealed completes the beginning of a line with its checksum.
func sealed(body string) []byte {
	return fmt.Appendf(nil, `%s,"crc32c":"%08x"}`, body, crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)))
}

// TestLineOfBefore reads a line of a server that knew no trees, sets or stale holds, and has
// one that knows more than this one read over what it does not know.
func TestLineOfBefore(t *testing.T) {
	const line = `{"revision":7,"time":"2026-11-22T19:03:11.482Z","type":"locked","cause":"request","name":"x","token":7,"acquired":"2026-11-22T19:03:11.482Z","holder":"alice"`
	at := time.Date(2026, 11, 22, 19, 3, 11, 482_000_000, time.UTC)
	want := lock.Event{
		Revision: 7, Time: at, Type: lock.Locked, Cause: lock.Request,
		Lock: lock.Lock{Name: lock.MustParseName("x"), Token: 7, Revision: 7, AcquireTime: at, Holder: "alice"},
	}
	for _, more := range []string{"", `,"on_expiry":"release"`, `,"on_expiry":"ask","tree":"all","colour":{"a":[1]}`} {
		if r, err := parseRecord(sealed(line + more)); err != nil || r.Event != want {
			t.Errorf("with %s: got %+v, %v; want %+v", more, r.Event, err, want)
		}
	}
}

// TestParseRefuses reads lines that have a right checksum and are wrong all the
// same.
func TestParseRefuses(t *testing.T) {
	tests := map[string]string{
		"no JSON":            `{"revision":`,
		"a later format":     `{"journal":"pylok","format":2,"after":0`,
		"another journal":    `{"journal":"kolyp","format":1,"after":0`,
		"no name":            `{"revision":1,"type":"locked","cause":"request"`,
		"a bad name":         `{"revision":1,"type":"locked","cause":"request","name":"../x"`,
		"no revision":        `{"type":"locked","cause":"request","name":"x"`,
		"an unknown type":    `{"revision":1,"type":"frozen","cause":"request","name":"x"`,
		"an unknown cause":   `{"revision":1,"type":"locked","cause":"magic","name":"x"`,
		"a bad set":          `{"revision":1,"type":"locked","cause":"request","name":"x","set":[1,"2"]`,
		"a set of one":       `{"revision":1,"type":"locked","cause":"request","name":"x","set":[1]`,
		"a bad stale time":   `{"revision":1,"type":"locked","cause":"request","name":"x","stale":"soon"`,
		"a bad time":         `{"revision":1,"type":"locked","cause":"request","name":"x","time":"yesterday"`,
		"a bad ttl":          `{"revision":1,"type":"locked","cause":"request","name":"x","ttl":"30"`,
		"data that is none":  `{"revision":1,"type":"locked","cause":"request","name":"x","data":[1]`,
		"a negative token":   `{"revision":1,"type":"locked","cause":"request","name":"x","token":-1`,
		"an empty extension": `{"type":"extended"`,
	}
	for name, body := range tests {
		t.Run(name, func(t *testing.T) {
			if r, err := parseRecord(sealed(body)); err == nil {
				t.Errorf("parseRecord(%s): got %+v, want an error", body, r)
			}
		})
	}
}

// BenchmarkAppendRecord writes the line of a usual grant.
func BenchmarkAppendRecord(b *testing.B) {
	at := time.Date(2026, 11, 22, 19, 3, 11, 482_000_000, time.UTC)
	r := Record{Kind: KindEvent, Event: lock.Event{
		Revision: 7, Time: at, Type: lock.Locked, Cause: lock.Request, Actor: "alice@ci-7",
		Lock: lock.Lock{
			Name: lock.MustParseName("lb/server-1"), Token: 7, Revision: 7, AcquireTime: at, Holder: "alice@ci-7", TTL: 10 * time.Minute,
			Data: mustData(b, `{"msg":"Locking App1 on server-cluster3w1-2 for canary deployment","contact_email":"billyjenkins@example.com","data":{"status":"MAINT","server":"server-cluster3w1-2","backend":"App1"}}`),
		},
	}}
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = appendRecord(line[:0], r)
	}
}
