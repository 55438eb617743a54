package service

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// TestWatchResponse: what is sent decodes to the message that it stands for, the second
// time too, and also where another server than ours sends it.
func TestWatchResponse(t *testing.T) {
	s := New(nil, Config{Root: testRoot})
	at := time.Date(2026, 11, 22, 19, 3, 11, 482e6, time.UTC)
	for _, test := range []struct {
		revision lock.Revision
		data     string
	}{
		{1, `{"a": 1}`},
		{1, `{"a": 1}`},
		{1, `{"a": 2}`}, // the same revision, and yet another event
		{2, `{"a": 2}`},
		{513, `{"a": [1, null, {}]}`},
		{1, `{"a": 1}`},
	} {
		data, err := lock.ParseData([]byte(test.data))
		if err != nil {
			t.Fatal(err)
		}
		change := lock.Event{
			Revision: test.revision, Time: at, Type: lock.Locked, Cause: lock.Request, Actor: "alice", Reason: "why",
			Lock: lock.Lock{Name: lock.MustParseName("a/b"), Data: data, Holder: "alice", Token: 1, Revision: test.revision, AcquireTime: at},
		}
		want := &pylokv1.WatchResponse{Event: &pylokv1.Event{
			Revision: uint64(test.revision), Time: timestamppb.New(at), Type: pylokv1.EventType_EVENT_TYPE_LOCKED,
			Cause: pylokv1.EventCause_EVENT_CAUSE_REQUEST, Actor: "alice", Reason: "why",
			Lock: &pylokv1.Lock{
				Name: "a/b", State: locked, LockFileLocation: testRoot + "/a/b.lock", Data: document(t, test.data), Holder: "alice",
				Token: 1, Revision: uint64(test.revision), AcquireTime: timestamppb.New(at),
			},
		}}
		for _, codec := range []encoding.CodecV2{newCodec(), encoding.GetCodecV2("proto")} {
			wire, err := codec.Marshal(s.watchResponse(change))
			if err != nil {
				t.Fatal(err)
			}
			got := new(pylokv1.WatchResponse)
			if err := codec.Unmarshal(wire, got); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, want) {
				t.Errorf("%T, %d with %s: got %v, want %v", codec, test.revision, test.data, got, want)
			}
		}
	}
}

func TestRecent(t *testing.T) {
	var r recent[string]
	encoded := 0
	check := func(value string, hash uint64, want int) {
		t.Helper()
		encoded = 0
		got := r.wire(value, hash, func(s string) []byte {
			encoded++
			return []byte("<" + s + ">")
		})
		if string(got) != "<"+value+">" || encoded != want {
			t.Errorf("%.10s: got %.10s, encoded %d times; want %d times", value, got, encoded, want)
		}
	}
	check("a", 7, 1)
	check("a", 7, 0)
	check("b", 8, 1)
	check("a", 7, 0)
	check("b", 7, 1) // takes the place of a
	check("a", 7, 1)
	large := strings.Repeat("x", maxRecentBytes)
	check(large, 7, 1)
	check(large, 7, 1)
	check("a", 7, 0)
}
