package service

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// TestWatchResponse: what is sent decodes to the message that it stands for, the second
// time too, and also where another server than ours sends it.
func TestWatchResponse(t *testing.T) {
	s := New(nil, Config{Root: testRoot})
	at := time.Date(2026, 11, 22, 19, 3, 11, 482e6, time.UTC)
	ours := newCodec(256 << 10)
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
				Token: 1, Revision: uint64(test.revision), AcquireTime: timestamppb.New(at), OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_RELEASE,
			},
		}}
		for _, codec := range []encoding.CodecV2{ours, encoding.GetCodecV2("proto")} {
			wire, err := codec.Marshal(s.watchResponse(change))
			if err != nil {
				t.Fatal(err)
			}
			got := new(pylokv1.WatchResponse)
			if err := codec.Unmarshal(wire, got); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, want) || !proto.Equal(s.watchResponse(change), want) {
				t.Errorf("%T, %d with %s: got %v, want %v", codec, test.revision, test.data, got, want)
			}
		}
	}
}

// FuzzUnmarshalLock: codec makes of any bytes the request that package proto makes of them,
// and the same of its data.
func FuzzUnmarshalLock(f *testing.F) {
	usual := func(text string) []byte {
		wire, err := proto.Marshal(&pylokv1.LockRequest{
			Name: "lb/web-1", Data: document(f, text), Holder: "alice", Wait: durationpb.New(time.Minute),
			Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)},
		})
		if err != nil {
			f.Fatal(err)
		}
		return wire
	}
	for _, text := range []string{
		benchDocument, `{}`, `{"": {"": []}, "a": [[{}], null, true, false, [1, "x"]], "é": "é\u2028\ud83d\ude00"}`,
		`{"a": [0, -0, 7, -7.25, 1e-6, 1e-7, 1e15, 1e20, 1e21, 1e300, 5e-324]}`, `{"a": "\"", "b": "\\", "c": "\u0000"}`,
		`{"lock_token": 7, "a": {"lock_token": 7}}`, `{"a": ` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
		`{"a": ` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, `{"a": ` + strings.Repeat(`{"a":`, 32) + `1` + strings.Repeat("}", 33),
	} {
		f.Add(usual(text))
	}
	// What clients do not usually send.
	const name = "\x0a\x01a"
	for _, data := range []string{
		"", "\x12\x00", "\x12\x00\x12\x00", "\x10\x01", "\x10\x01\x12\x00", "\x12\x00\x10\x01", "\x12\x05\x0a\x00", "\x12\xff\xff\xff\xff\x0f", "\x78\x01\x12\x00\x78\x02",
		"\x12\x02\x0a\x00", "\x12\x05\x0a\x03\x0a\x01a", "\x12\x04\x0a\x02\x12\x00", "\x12\x07\x0a\x05\x0a\x01a\x12\x00", // no key, no value, no kind
		"\x12\x09\x0a\x07\x12\x02\x08\x00\x0a\x01a",                                          // the value first
		"\x12\x14\x0a\x07\x0a\x01a\x12\x02\x20\x00\x0a\x09\x0a\x01a\x12\x04\x20\x00\x20\x01", // a key, and a kind, sent twice
		"\x12\x09\x0a\x07\x0a\x01a\x12\x02\x08\x05", "\x12\x0a\x0a\x08\x0a\x01a\x12\x03\x08\x80\x00", "\x12\x09\x0a\x07\x0a\x01a\x12\x02\x20\x02",
		"\x12\x09\x0a\x07\x0a\x01\xff\x12\x02\x08\x00", "\x12\x0a\x0a\x08\x0a\x01a\x12\x03\x1a\x01\xff",
		"\x12\x10\x0a\x0e\x0a\x01a\x12\x09\x11\x00\x00\x00\x00\x00\x00\xf8\x7f", "\x12\x10\x0a\x0e\x0a\x01a\x12\x09\x11\x00\x00\x00\x00\x00\x00\x00\x80",
		"\x12\x09\x0a\x07\x0a\x01a\x12\x02\x09\x00", "\x12\x09\x0a\x07\x0a\x01a\x12\x02\x0d\x00", "\x12\x09\x0a\x07\x0a\x01a\x12\x02\x3a\x00", "\x12\x0b\x0a\x07\x0a\x01a\x12\x02\x2a\x00\x10\x01",
	} {
		f.Add([]byte(name + data))
		f.Add([]byte(name + data + "\x1a\x01h"))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, want := new(pylokv1.LockRequest), new(pylokv1.LockRequest)
		gotErr := newCodec(256<<10).Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, got)
		wantErr := proto.Unmarshal(wire, want)
		s := new(Service)
		if wantErr != nil {
			if gotErr == nil { // then it is the data
				_, gotErr = s.lockRequest(got)
			}
			if gotErr == nil {
				t.Fatalf("%x: got no error, want %v", wire, wantErr)
			}
			return
		}
		if gotErr != nil {
			t.Fatalf("%x: %v", wire, gotErr)
		}
		gotRequest, gotErr := s.lockRequest(proto.CloneOf(got))
		wantRequest, wantErr := s.lockRequest(proto.CloneOf(want))
		gotRequest.Confirm, wantRequest.Confirm = nil, nil
		if !reflect.DeepEqual(gotRequest, wantRequest) || (gotErr == nil) != (wantErr == nil) {
			t.Errorf("%x: got %+v, %v, want %+v, %v", wire, gotRequest, gotErr, wantRequest, wantErr)
		}
		// The message is still the one that was sent.
		again, err := proto.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		decoded := new(pylokv1.LockRequest)
		if err := proto.Unmarshal(again, decoded); err != nil || !proto.Equal(decoded, want) {
			t.Errorf("%x is %v, want %v; %v", wire, decoded, want, err)
		}
	})
}

// TestDataOnWire: the data of the requests that may wait are left as their bytes on the
// wire, and mean what they mean to package proto.
func TestDataOnWire(t *testing.T) {
	data, long := document(t, benchDocument), document(t, `{"a": "`+strings.Repeat("x", 10<<10)+`"}`)
	s := new(Service)
	for _, sent := range []withData{
		&pylokv1.LockRequest{Name: "a", Data: data, Holder: "h", RequestId: "r"},
		&pylokv1.LockSetRequest{Names: []string{"a", "b"}, Data: data, Holder: "h", RequestId: "r"},
		&pylokv1.LockSetRequest{Names: []string{"a", "b"}, Data: long},
		&pylokv1.LockSetRequest{Names: []string{"a", "b"}, Data: document(t, `{}`)},
		&pylokv1.LockSetRequest{Names: []string{"a", "b"}},
	} {
		field := sent.ProtoReflect().Descriptor().Fields().ByName("data").Number()
		if _, got := dataOnWire(sent); got != field {
			t.Errorf("%T: the field data is %d, want %d", sent, got, field)
		}
		wire, err := proto.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		received := sent.ProtoReflect().New().Interface().(withData)
		if err := newCodec(256<<10).Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, received); err != nil {
			t.Fatal(err)
		}
		if received.GetData() != nil {
			t.Errorf("%T: its data was decoded", sent)
		}
		got, err := requestedData(received)
		want, wantErr := dataOf(sent.GetData())
		if got != want || err != nil || wantErr != nil {
			t.Errorf("%T: got %v, %v, want %v, %v", sent, got, err, want, wantErr)
		}
		set, ok := received.(*pylokv1.LockSetRequest)
		if !ok {
			continue
		}
		if r, err := s.lockSetRequest(set); err != nil || r.Data != want || set.ProtoReflect().GetUnknown() != nil {
			t.Errorf("%v is asked for as %+v, %v", sent, r, err)
		}
	}
}

// TestDataThatIsNoStruct sends data whose bytes cannot be decoded: that is refused with a
// reason, and takes no lock.
func TestDataThatIsNoStruct(t *testing.T) {
	r := serve(t, setup{})
	conn := r.dial(t)
	for _, data := range []string{
		"\x12\x09\x0a\x07\x0a\x01\xff\x12\x02\x08\x00", // a key that is not UTF-8
		"\x12\x02\x0a\x07", // a field longer than the rest
	} {
		err := call(t.Context(), conn, pylokv1.LockService_Lock_FullMethodName, encodedMessage("\x0a\x01a"+data))
		if d := refused(t, err, codes.InvalidArgument, lock.ErrInvalidArgument); d.violation.GetField() != "data" {
			t.Errorf("%x: got %v", data, err)
		}
	}
	if found, err := r.Status(t.Context(), &pylokv1.StatusRequest{Name: "a"}); err != nil || found.GetLock().GetState() == locked {
		t.Errorf("the lock is %v, %v", found, err)
	}
}
