package service

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func TestEncodedEvents(t *testing.T) {
	s := New(nil, Config{Root: testRoot})
	at := time.Date(2026, 11, 22, 19, 3, 11, 482e6, time.UTC)
	change := func(revision lock.Revision, data string) lock.Event {
		parsed, err := lock.ParseData([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return lock.Event{
			Revision: revision, Time: at, Type: lock.Locked, Cause: lock.Request, Actor: "alice", Reason: "why",
			Lock: lock.Lock{Name: lock.MustParseName("a/b"), Data: parsed, Holder: "alice", Token: lock.Token(revision), Revision: revision, AcquireTime: at},
		}
	}
	check := func(e lock.Event, data string) encodedMessage {
		t.Helper()
		want := &pylokv1.WatchResponse{Event: &pylokv1.Event{
			Revision: uint64(e.Revision), Time: timestamppb.New(at), Type: pylokv1.EventType_EVENT_TYPE_LOCKED,
			Cause: pylokv1.EventCause_EVENT_CAUSE_REQUEST, Actor: "alice", Reason: "why",
			Lock: &pylokv1.Lock{
				Name: "a/b", State: locked, LockFileLocation: testRoot + "/a/b.lock", Data: document(t, data), Holder: "alice",
				Token: uint64(e.Revision), Revision: uint64(e.Revision), AcquireTime: timestamppb.New(at),
			},
		}}
		response := s.watchResponse(e).(encodedMessage)
		wire, err := newCodec().Marshal(response)
		if err != nil {
			t.Fatal(err)
		}
		got := new(pylokv1.WatchResponse)
		if err := newCodec().Unmarshal(wire, got); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("on the wire: got %v, want %v", got, want)
		}
		return response
	}
	same := func(a, b encodedMessage) bool { return &a[0] == &b[0] }
	revisions := lock.Revision(len(s.encoded))

	first := change(revisions+1, `{"a": 1}`)
	response := check(first, `{"a": 1}`)
	if !same(check(first, `{"a": 1}`), response) {
		t.Error("a change was encoded again")
	}
	check(change(1, `{"a": 2}`), `{"a": 2}`)
	if !same(check(first, `{"a": 1}`), response) {
		t.Error("an older change took the place of a newer one")
	}
	// What has the same revision and is not the same is told as it is.
	check(change(revisions+1, `{"a": 3}`), `{"a": 3}`)
	check(change(2*revisions+1, `{"a": 4}`), `{"a": 4}`)
	if same(check(first, `{"a": 1}`), response) {
		t.Error("a newer change did not take the place of an older one")
	}
	large := `{"a": "` + strings.Repeat("x", maxEncodedBytes) + `"}`
	if same(check(change(3, large), large), check(change(3, large), large)) {
		t.Error("a large change is kept encoded")
	}
}
