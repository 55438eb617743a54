package lockfile_test

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

const location = "/tmp/locks/server-cluster3w1-2.lock"

// example is the hold of the example in the project's design.
func example(t testing.TB) lock.Lock {
	t.Helper()
	return lock.Lock{
		Name:        lock.MustParseName("server-cluster3w1-2"),
		Data:        parseData(t, `{"msg":"Locking App1 on server-cluster3w1-2 for canary deployment","contact_email":"billyjenkins@example.com","data":{"status":"MAINT","server":"server-cluster3w1-2","backend":"App1"}}`),
		Holder:      "alice@ci-7",
		Token:       42,
		Revision:    42,
		AcquireTime: time.Date(2026, 11, 22, 20, 3, 11, 482_000_000, time.FixedZone("CET", 3600)),
		TTL:         30 * time.Second,
	}
}

// TestAppendExample holds the writer to the example in the project's design, byte
// for byte.
func TestAppendExample(t *testing.T) {
	want, err := os.ReadFile("testdata/server-cluster3w1-2.lock")
	if err != nil {
		t.Fatal(err)
	}
	l := example(t)
	got := lockfile.Append(nil, l, location)
	if string(got) != string(want) {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if got := lockfile.Append([]byte("# before\n"), l, location); string(got) != "# before\n"+string(want) {
		t.Errorf("Append does not leave alone what is there already:\n%s", got)
	}
}

// TestAppendRead writes holds and reads them again.
func TestAppendRead(t *testing.T) {
	acquired := time.Date(2026, 11, 22, 19, 3, 11, 482_000_000, time.UTC)
	tests := map[string]lock.Lock{
		"bare":                {},
		"ttl of 1 ns":         {TTL: 1},
		"ttl of 1 ms":         {TTL: time.Millisecond},
		"ttl of 1.5 s":        {TTL: 1500 * time.Millisecond},
		"ttl of a minute":     {TTL: time.Minute},
		"ttl of 10 minutes":   {TTL: 10 * time.Minute},
		"ttl of an hour":      {TTL: time.Hour},
		"ttl of 20 hours":     {TTL: 20 * time.Hour},
		"ttl of 1h0m30s":      {TTL: time.Hour + 30*time.Second},
		"the longest ttl":     {TTL: math.MaxInt64},
		"expiry":              {ExpireTime: acquired.Add(time.Hour)},
		"expiry in year 9999": {ExpireTime: time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC)},
		"holder like a word":  {Holder: "null"},
		"holder like a time":  {Holder: "2019-12-20"},
		"holder with lines":   {Holder: "alice\nlock_token: 99\n"},
		"holder of spaces":    {Holder: " "},
		"caller":              {Caller: "unix:alice"},
		"caller with lines":   {Caller: "token:ci\nlock_token: 99", Holder: "alice"},
		"caller of CI":        {Caller: "github:acme/web@refs/heads/main run 4711", TTL: time.Minute},
		"request id":          {RequestID: "0e3"},
		"request id, digits":  {RequestID: "123"},
		"tree":                {Tree: true},
		"keep":                {OnExpiry: lock.Keep, TTL: time.Minute},
		"stale":               {OnExpiry: lock.Keep, TTL: time.Minute, StaleTime: acquired.Add(time.Minute)},
		"of a set":            {Set: lock.SetRef{ID: 41, Size: 3}},
		"of the largest set":  {Set: lock.SetRef{ID: 1 << 62, Size: 64}},
		"of a set yet to be":  {Set: lock.SetRef{Size: 2}},
		"stale, of a set":     {OnExpiry: lock.Keep, StaleTime: acquired, Set: lock.SetRef{ID: 7, Size: 64}, Holder: "alice"},
		"token 2^53":          {Token: 1 << 53},
		"token 2^53+1":        {Token: 1<<53 + 1},
		"token 2^62":          {Token: 1 << 62},
		"negative zero":       {Data: parseData(t, `{"a":-0,"b":[-0.0]}`)},
		"data like ours":      {Data: parseData(t, `{"data":{"lock_token":7,"lock_holder":"bob"}}`)},
		"long keys":           {Data: parseData(t, `{"`+strings.Repeat("k", 1200)+`":[{"`+strings.Repeat("é", 700)+`":[[1,[2]],{"a":{}},[]]}],"`+strings.Repeat("m", 1200)+`":"a\nb\n"}`)},
		"lists":               {Data: parseData(t, `{"a":[[],[[]],{},[{}],[[1,2],[3,[4,{"b":["c"]}]]],"x\ny",["x\ny\n"]]}`)},
		"32 levels":           {Data: parseData(t, `{"a":`+strings.Repeat("[", 31)+strings.Repeat("]", 31)+`}`)},
	}
	for name, l := range tests {
		t.Run(name, func(t *testing.T) {
			l.AcquireTime = acquired
			if l.Token == 0 {
				l.Token = 42
			}
			checkAppendRead(t, l)
		})
	}
	for _, text := range append(nastyTexts, longTexts...) {
		data, err := lock.NewData(map[string]any{
			"k" + text: text, text + "k": []any{text, []any{text}, map[string]any{text: text}}, "data": map[string]any{text: text},
		})
		if err != nil {
			t.Fatal(err)
		}
		checkAppendRead(t, lock.Lock{Data: data, Holder: text, Caller: text, RequestID: text, Token: 1, AcquireTime: acquired})
	}
	for _, number := range nastyNumbers {
		data, err := lock.NewData(map[string]any{"n": number, "list": []any{number, -number}})
		if err != nil {
			t.Fatal(err)
		}
		checkAppendRead(t, lock.Lock{Data: data, Token: 1, AcquireTime: acquired})
	}
}

// FuzzWriteRead: what is written is read back, whatever the document.
func FuzzWriteRead(f *testing.F) {
	f.Add([]byte(`{"contact_email":"a@example.com","data":{"n":[1,2.5,null,true]}}`), "alice@ci-7", uint64(42), int64(30e9), int64(0), int64(1795374191482), "id-1")
	f.Add([]byte(`{"a":-0.0,"b":"a\n b\n\n","c":"12e3"}`), "", uint64(1), int64(0), int64(253402300799999), int64(0), "")
	for _, text := range nastyTexts {
		f.Add([]byte(text), text, uint64(len(text)), int64(len(text))*1e6, int64(0), int64(1), text)
	}
	f.Fuzz(func(t *testing.T, document []byte, holder string, token uint64, ttl, expire, acquired int64, requestID string) {
		data, err := lock.ParseData(document)
		if err != nil {
			data = generateData(t, &byteChoices{document})
		}
		l := lock.Lock{
			Data:        data,
			Holder:      strings.ToValidUTF8(holder, "?"),
			Caller:      strings.ToValidUTF8(requestID+holder, "?"),
			Token:       lock.Token(token>>3 + 1),
			TTL:         time.Duration(max(ttl, -(ttl + 1))),
			RequestID:   strings.ToValidUTF8(requestID, "?"),
			AcquireTime: keptTime(acquired),
		}
		if expire != 0 {
			l.ExpireTime = keptTime(expire)
		}
		l.Tree = token&1 != 0
		if token&2 != 0 {
			l.OnExpiry, l.StaleTime = lock.Keep, keptTime(acquired+1)
		}
		if token&4 != 0 {
			l.Set = lock.SetRef{ID: l.Token - 1, Size: int(uint64(ttl) % 65)}
		}
		checkAppendRead(t, l)
	})
}

// keptTime makes a time of the years 1 to 9999, to the millisecond, from a number.
func keptTime(n int64) time.Time {
	const first, last = -62135596799999, 253402300799999
	return time.UnixMilli(first + int64(uint64(n)%(last-first))).UTC()
}

// checkAppendRead writes the file of a hold and reads it again.
func checkAppendRead(t *testing.T, l lock.Lock) {
	t.Helper()
	text := lockfile.Append(nil, l, location)
	if len(text) > lock.MaxFileBytes {
		return // the store refuses it
	}
	got := lockfile.Read(text)
	want := lockfile.Content{
		Data: l.Data, Token: l.Token, Holder: l.Holder, Caller: l.Caller, AcquireTime: l.AcquireTime,
		TTL: l.TTL, ExpireTime: l.ExpireTime, RequestID: l.RequestID,
		OnExpiry: l.OnExpiry, Set: l.Set, StaleTime: l.StaleTime, Tree: l.Tree, Location: location,
	}
	if got != want {
		t.Errorf("reading what was written:\n got %+v\nwant %+v\nfile:\n%s", got, want, text)
	}
	if again := lockfile.Append(nil, l, location); string(again) != string(text) {
		t.Errorf("written twice, it differs:\n%s---\n%s", text, again)
	}
}

func parseData(t testing.TB, json string) lock.Data {
	t.Helper()
	data, err := lock.ParseData([]byte(json))
	if err != nil {
		t.Fatalf("%s: %v", json, err)
	}
	return data
}
