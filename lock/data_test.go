package lock_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

func parseData(t *testing.T, text string) lock.Data {
	t.Helper()
	data, err := lock.ParseData([]byte(text))
	if err != nil {
		t.Fatalf("ParseData(%.80s): %v", text, err)
	}
	return data
}

func TestParseData(t *testing.T) {
	tests := []struct{ text, want string }{
		{`{}`, `{}`},
		{` { } `, `{}`},
		{`null`, `{}`},
		{`{"b":1,"a":2}`, `{"a":2,"b":1}`},
		{`{"a": [1, {"d":1, "c":null}, "x"]}`, `{"a":[1,{"c":null,"d":1},"x"]}`},
		{`{"a":1,"a":2}`, `{"a":2}`},
		{`{"a":1.0,"b":1e3,"c":0.50}`, `{"a":1,"b":1000,"c":0.5}`},
		{`{"a":9007199254740992,"b":1e20}`, `{"a":9007199254740992,"b":100000000000000000000}`},
		{`{"a":"<&>\u00e9"}`, `{"a":"<&>é"}`},
		{`{"lock_token":1,"lock_holder":"x","a":1}`, `{"a":1}`},
		{`{"lock_token":1}`, `{}`},
		{`{"a":{"lock_token":1},"Lock_token":2,"lock_tokens":3}`, `{"Lock_token":2,"a":{"lock_token":1},"lock_tokens":3}`},
	}
	for _, test := range tests {
		data := parseData(t, test.text)
		if got := data.JSON(); got != test.want {
			t.Errorf("ParseData(%s) is %s, want %s", test.text, got, test.want)
		}
		if data.IsEmpty() != (test.want == "{}") || data.IsEmpty() != (data == lock.Data{}) {
			t.Errorf("ParseData(%s): IsEmpty is %v", test.text, data.IsEmpty())
		}
	}
	for _, key := range lock.ReservedKeys {
		if data := parseData(t, `{"`+key+`":1}`); !data.IsEmpty() {
			t.Errorf("the reserved key %s is kept: %s", key, data.JSON())
		}
	}
	if !slices.IsSorted(lock.ReservedKeys) {
		t.Errorf("ReservedKeys are not sorted: %q", lock.ReservedKeys)
	}
}

func TestParseDataRefused(t *testing.T) {
	nested := func(levels int) string {
		return strings.Repeat(`{"a":`, levels) + `1` + strings.Repeat(`}`, levels)
	}
	parseData(t, nested(lock.MaxDataDepth))
	tests := []struct {
		text string
		want error
		says string
	}{
		{``, lock.ErrInvalidArgument, "JSON"},
		{`[]`, lock.ErrInvalidArgument, "JSON"},
		{`"a"`, lock.ErrInvalidArgument, "JSON"},
		{`{"a":1} x`, lock.ErrInvalidArgument, "more text"},
		{`{"a":1}{"b":2}`, lock.ErrInvalidArgument, "more text"},
		{`{"a":1e400}`, lock.ErrInvalidArgument, "JSON"},
		{`{"a":NaN}`, lock.ErrInvalidArgument, "JSON"},
		{nested(lock.MaxDataDepth + 1), lock.ErrInvalidArgument, "32 levels"},
		{`{"a":` + strings.Repeat("[", lock.MaxDataDepth) + strings.Repeat("]", lock.MaxDataDepth) + `}`, lock.ErrInvalidArgument, "32 levels"},
		{nested(100_000), lock.ErrInvalidArgument, "JSON"},
		{`{"a":"` + strings.Repeat("x", 300<<10) + `"}`, lock.ErrDataTooLarge, "bytes"},
	}
	for _, test := range tests {
		data, err := lock.ParseData([]byte(test.text))
		var refusal *lock.Error
		if !errors.As(err, &refusal) || !errors.Is(err, test.want) || refusal.Field != "data" || !strings.Contains(refusal.Message, test.says) || !data.IsEmpty() {
			t.Errorf("ParseData(%.80s) = %.80s, %v; want %v that says %q", test.text, data.JSON(), err, test.want, test.says)
		}
	}
	for _, value := range []any{math.NaN(), math.Inf(1), math.Inf(-1), "a\xff", 1, []string{"a"}, time.Now(), map[string]any{"\xff": 1.0}} {
		if data, err := lock.NewData(map[string]any{"a": []any{value}}); !errors.Is(err, lock.ErrInvalidArgument) {
			t.Errorf("NewData of %v = %s, %v; want %v", value, data.JSON(), err, lock.ErrInvalidArgument)
		}
	}
}

// A Data shares nothing with what it was made from or with what it gives out.
func TestDataNeverChanges(t *testing.T) {
	document := map[string]any{"list": []any{1.0}, "lock_token": 7.0}
	data, err := lock.NewData(document)
	if err != nil {
		t.Fatal(err)
	}
	if len(document) != 2 {
		t.Errorf("NewData changed its argument to %v", document)
	}
	document["list"].([]any)[0] = 2.0
	data.Map()["list"].([]any)[0] = 3.0
	if got, want := data.JSON(), `{"list":[1]}`; got != want {
		t.Errorf("the data is %s, want %s", got, want)
	}
	if got, want := data.Map(), (map[string]any{"list": []any{1.0}}); !reflect.DeepEqual(got, want) {
		t.Errorf("Map is %v, want %v", got, want)
	}
	lock.Data{}.Map()["a"] = 1 // is a map
}

func TestDataString(t *testing.T) {
	data := parseData(t, `{"msg":"hello","n":1,"nested":{"expire":"x"},"text":"\"msg\"","a<b":"c"}`)
	for key, want := range map[string]string{"msg": "hello", "n": "", "expire": "", "none": "", "text": `"msg"`, "a<b": "c"} {
		if got := data.String(key); got != want {
			t.Errorf("String(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestDataExpireTime(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	defer func(local *time.Location) { time.Local = local }(time.Local)
	time.Local = zone
	acquired := time.Date(2019, 12, 19, 9, 26, 3, 0, time.UTC)
	tests := []struct {
		data    string
		want    time.Time
		problem string
	}{
		{`{}`, time.Time{}, ""},
		{`{"expire":""}`, time.Time{}, ""},
		{`{"expire":null}`, time.Time{}, ""},
		{`{"expire":20191220}`, time.Time{}, "20191220\", is not text"},
		{`{"nested":{"expire":"2019-12-20 00:00:00"}}`, time.Time{}, ""},
		{`{"expire":"2019-12-20 00:00:00"}`, time.Date(2019, 12, 20, 0, 0, 0, 0, zone), ""},
		{`{"expire":"2019-12-20T00:00:00Z"}`, time.Date(2019, 12, 20, 0, 0, 0, 0, time.UTC), ""},
		{`{"expire":"2019-12-20T00:00:00+02:00"}`, time.Date(2019, 12, 19, 22, 0, 0, 0, time.UTC), ""},
		{`{"expire":"2019-12-20T00:00:00.0001Z"}`, time.Date(2019, 12, 20, 0, 0, 0, 1e6, time.UTC), ""},
		{`{"expire":"2019-12-19 10:26:04"}`, acquired.Add(time.Second), ""},
		{`{"expire":"2019-12-19 10:26:03"}`, time.Time{}, "past"},
		{`{"expire":"2019-12-19 09:26:03"}`, time.Time{}, "past"},
		{`{"expire":"9999-12-31T23:59:59Z"}`, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), ""},
		{`{"expire":"9999-12-31T23:59:59-01:00"}`, time.Time{}, "year"},
		{`{"expire":"tomorrow"}`, time.Time{}, "neither"},
		{`{"expire":"2019-12-20"}`, time.Time{}, "neither"},
		{`{"expire":"` + strings.Repeat("x", 1000) + `"}`, time.Time{}, "neither"},
	}
	for _, test := range tests {
		got, problem := parseData(t, test.data).ExpireTime(acquired)
		if !got.Equal(test.want) || (problem == "") != (test.problem == "") || !strings.Contains(problem, test.problem) || len(problem) > 300 {
			t.Errorf("%.60s: got %v, problem %q; want %v, problem %q", test.data, got, problem, test.want, test.problem)
		}
	}
}

func TestWithData(t *testing.T) {
	acquired := time.Date(2026, 11, 22, 19, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return acquired.Add(time.Duration(hours) * time.Hour) }
	expiring := func(hours int) lock.Data {
		data, err := lock.NewData(map[string]any{"expire": at(hours).Format(time.RFC3339)})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	tests := []struct {
		name string
		hold lock.Lock
		data lock.Data
		want time.Time
	}{
		{"no end, data without", lock.Lock{}, parseData(t, `{"a":1}`), time.Time{}},
		{"no end, data with", lock.Lock{}, expiring(1), at(1)},
		{"end of the data, later", lock.Lock{Data: expiring(1), ExpireTime: at(1)}, expiring(2), at(2)},
		{"end of the data, taken away", lock.Lock{Data: expiring(1), ExpireTime: at(1)}, lock.Data{}, time.Time{}},
		{"end of the request", lock.Lock{Data: expiring(1), ExpireTime: at(3)}, expiring(2), at(3)},
		{"ttl", lock.Lock{TTL: time.Minute}, expiring(2), time.Time{}},
	}
	for _, test := range tests {
		test.hold.AcquireTime = acquired
		if got := test.hold.WithData(test.data); !got.ExpireTime.Equal(test.want) || got.Data != test.data || got.TTL != test.hold.TTL {
			t.Errorf("%s: got %+v, want an end at %v", test.name, got, test.want)
		}
	}
}

// FuzzParseData: the canonical form of a document is its own canonical form, the same
// document, and what encoding/json makes of it.
func FuzzParseData(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `{"b":1,"a":[true,null,"x",{"c":1e300}]}`, `{"a":-0}`, `{"a":"\u2028\ud800<"}`, `{"a":5e-324}`, `{"lock_token":1}`, `{"a":1,"a":{}}`, `[]`, `{"":""}`,
		`{"\"":"\\","\\\"":"},]:\\\"","a":["}",{"]":",","b":[]}],"c":[[],{}]}`, `{"a":[0,-0,7,-7,1e15,-1e15,999999999999999,1e21,1e-7,0.1,9223372036854775808]}`, "{\"a\":\"\x7f\\u0000 \u00e9\"}",
		`{"a":"ä","b":[1,{"lock_token":-0.5e-7}],"c":{}}`, "{\"a\":\"\u2028\"}", `{"b":1,"a":2}`, `{"a":1.0}`, `{"a":1}x`, `{"a":01}`, `{"a":+1}`, `{"a":NaN}`, `{"a":0x1}`, `{"a":1_0}`, "{\"a\":\"\xff\"}", `{"a":[1,]}`, `{"a":tru}`, `{"lock_acquired":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := lock.ParseData(text)
		if err != nil {
			if !errors.Is(err, lock.ErrInvalidArgument) && !errors.Is(err, lock.ErrDataTooLarge) {
				t.Errorf("ParseData(%q): %v", text, err)
			}
			return
		}
		again, err := lock.ParseData([]byte(data.JSON()))
		if err != nil || again != data {
			t.Fatalf("the canonical %s is parsed to %s, %v", data.JSON(), again.JSON(), err)
		}
		made, err := lock.NewData(data.Map())
		if err != nil || made != data {
			t.Errorf("NewData of the Map of %s is %s, %v", data.JSON(), made.JSON(), err)
		}
		var document map[string]any
		if err := json.Unmarshal([]byte(data.JSON()), &document); err != nil || !reflect.DeepEqual(document, data.Map()) {
			t.Errorf("the Map of %s is %v; encoding/json reads %v, %v", data.JSON(), data.Map(), document, err)
		}
		var written bytes.Buffer
		encoder := json.NewEncoder(&written)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(document); err != nil || written.String() != data.JSON()+"\n" {
			t.Errorf("encoding/json writes %s as %s, %v", data.JSON(), &written, err)
		}
		var decoded lock.Data
		encoded, err := json.Marshal(data)
		if err == nil {
			err = json.Unmarshal(encoded, &decoded)
		}
		if err != nil || decoded != data {
			t.Errorf("%s through encoding/json is %s, %v", data.JSON(), decoded.JSON(), err)
		}
		for _, key := range lock.ReservedKeys {
			if _, kept := data.Map()[key]; kept {
				t.Errorf("the reserved key %s is kept in %s", key, data.JSON())
			}
		}
	})
}

// BenchmarkData is what a document costs on its way in and out. This one is the
// original library's example.
func BenchmarkData(b *testing.B) {
	data, err := lock.ParseData([]byte(`{"contact_email":"billyjenkins@example.com","data":{"backend":"App1","server":"server-cluster3w1-2","status":"MAINT"},"msg":"Locking App1 on server-cluster3w1-2 for canary deployment"}`))
	if err != nil {
		b.Fatal(err)
	}
	document := data.Map()
	b.Run("NewData", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := lock.NewData(document); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ParseData", func(b *testing.B) {
		b.ReportAllocs()
		text := []byte(data.JSON())
		for b.Loop() {
			if _, err := lock.ParseData(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Map", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			data.Map()
		}
	})
}
