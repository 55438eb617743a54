package service

import (
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func TestLockFileLocation(t *testing.T) {
	name := lock.MustParseName("lb/web-1")
	for root, want := range map[string]string{
		"/srv/locks":  "/srv/locks/lb/web-1.lock",
		"/srv/locks/": "/srv/locks/lb/web-1.lock",
		"/":           "/lb/web-1.lock",
		"":            "",
	} {
		s := New(nil, Config{Root: root})
		if got := s.lockMessage(lock.Lock{Name: name, Token: 1}).GetLockFileLocation(); got != want {
			t.Errorf("root %q: got %q, want %q", root, got, want)
		}
		if got := s.lockMessage(lock.Lock{Name: name}).GetLockFileLocation(); got != "" {
			t.Errorf("root %q and unlocked: got %q, want none", root, got)
		}
	}
}

// TestReservedKeysAreDropped: the original's flow hands them back.
func TestReservedKeysAreDropped(t *testing.T) {
	data, err := dataOf(document(t, `{"lock_token": 7, "lock_holder": "x", "msg": "m", "data": {"lock_token": 1}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := data.JSON(), `{"data":{"lock_token":1},"msg":"m"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzData: a document goes over the wire as the Struct that it is, and comes back
// without having lost anything.
func FuzzData(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"a": null}`, `{"a": [], "b": {}, "c": [[{}]], "d": ""}`,
		`{"a": 0.1, "b": -0, "c": 1e300, "d": 5e-324, "e": 9007199254740993, "f": 1.7976931348623157e308}`,
		`{"a": "<&> \u2028 \u0000 \ud83d\ude00 é", "": true, "é": false}`,
		`{"\"": "\\", "\\\"": "},]:\\\"", "a": ["}", {"]": ","}]}`,
		`{"msg": "x", "data": {"server": "s", "list": [1, "two", null, [true]]}}`,
		`{"a": "` + strings.Repeat("x", 127) + `", "b": {"c": "` + strings.Repeat("x", 20_000) + `"}}`,
	} {
		f.Add(text)
	}
	s := New(nil, Config{})
	f.Fuzz(func(t *testing.T, text string) {
		data, err := lock.ParseData([]byte(text))
		if err != nil {
			t.Skip()
		}
		want := &pylokv1.Lock{Name: "a", State: unlocked, Holder: "h"}
		if !data.IsEmpty() {
			if want.Data, err = structpb.NewStruct(data.Map()); err != nil {
				t.Fatal(err)
			}
		}
		wire, err := proto.Marshal(s.lockMessage(lock.Lock{Name: lock.MustParseName("a"), Holder: "h", Data: data}))
		if err != nil {
			t.Fatal(err)
		}
		received := new(pylokv1.Lock)
		if err := proto.Unmarshal(wire, received); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(received, want) {
			t.Errorf("on the wire %s is %v, want %v", data.JSON(), received, want)
		}
		back, err := dataOf(received.GetData())
		if err != nil {
			t.Fatal(err)
		}
		if back != data || !reflect.DeepEqual(back.Map(), data.Map()) {
			t.Errorf("got %s back, want %s", back.JSON(), data.JSON())
		}
	})
}

// TestLargestDocument: whatever fits in a lock file fits in a message.
func TestLargestDocument(t *testing.T) {
	// A list of zeros grows most: 4 bytes of YAML, "- 0\n", are 11 of protobuf.
	zeros := make([]any, lock.MaxFileBytes/4)
	for i := range zeros {
		zeros[i] = 0.0
	}
	keys := map[string]any{} // "aaa: 0\n" are 18
	for i := range lock.MaxFileBytes / 7 {
		keys[string([]byte{'a' + byte(i/676), 'a' + byte(i/26%26), 'a' + byte(i%26)})] = 0.0
	}
	for name, document := range map[string]map[string]any{"a list": {"a": zeros}, "a mapping": keys} {
		message, err := structpb.NewStruct(document)
		if err != nil {
			t.Fatal(err)
		}
		if size, most := proto.Size(message), 256<<10-4<<10; size > most {
			t.Errorf("%s: got %d bytes, want at most %d", name, size, most)
		}
	}
}

// FuzzPageToken: a token is good for the sequence that made it, and nothing else is.
func FuzzPageToken(f *testing.F) {
	list, history := listSequence(lock.Pattern{}), historySequence(lock.HistoryQuery{})
	f.Add("")
	f.Add(list.afterName(lock.MustParseName("a/b")))
	f.Add(history.afterRevision(1 << 40))
	f.Fuzz(func(t *testing.T, token string) {
		if name, err := list.name(token); err == nil && token != "" && list.afterName(name) != token {
			t.Errorf("List takes %q, and makes %q of %s", token, list.afterName(name), name)
		}
		if revision, err := history.revision(token); err == nil && token != "" {
			again, err := history.revision(history.afterRevision(revision))
			if err != nil || again != revision {
				t.Errorf("History takes %q for %d, and then gives %d, %v", token, revision, again, err)
			}
		}
		if _, err := list.name(token); token != "" && err != nil && !strings.Contains(err.Error(), "page_token") {
			t.Errorf("got %v, want it to name the field", err)
		}
	})
}
