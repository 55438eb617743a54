package service

import (
	"context"
	"iter"
	"reflect"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// fakeLocks notes what it is asked, and answers what it is told to.
type fakeLocks struct {
	lock.Locks

	asked     any  // the last request
	confirmed bool // it had a Confirm

	lock      lock.Lock
	grant     lock.Grant
	release   lock.Release
	setGrant  lock.SetGrant
	answers   []lock.SetAnswer
	handOver  lock.HandOverAnswer
	askAnswer lock.AskAnswer
	waiter    lock.Waiter
	events    []lock.Event
	err       error
}

func (f *fakeLocks) Lock(_ context.Context, _ lock.Caller, r lock.LockRequest) (lock.Grant, error) {
	f.confirmed, r.Confirm = r.Confirm != nil, nil
	f.asked = r
	return f.grant, f.err
}

func (f *fakeLocks) Unlock(_ context.Context, _ lock.Caller, r lock.UnlockRequest) (lock.Release, error) {
	f.asked = r
	return f.release, f.err
}

func (f *fakeLocks) Renew(_ context.Context, _ lock.Caller, r lock.RenewRequest) (lock.Lock, error) {
	f.asked = r
	return f.lock, f.err
}

func (f *fakeLocks) Status(_ context.Context, _ lock.Caller, name lock.Name) (lock.Lock, error) {
	f.asked = name
	return f.lock, f.err
}

func (f *fakeLocks) LockSet(_ context.Context, _ lock.Caller, r lock.SetRequest) (lock.SetGrant, error) {
	f.confirmed, r.Confirm = r.Confirm != nil, nil
	f.asked = r
	return f.setGrant, f.err
}

func (f *fakeLocks) UnlockSet(_ context.Context, _ lock.Caller, r lock.UnlockSetRequest) ([]lock.SetAnswer, error) {
	f.asked = r
	return f.answers, f.err
}

func (f *fakeLocks) RenewSet(_ context.Context, _ lock.Caller, r lock.RenewSetRequest) ([]lock.SetAnswer, error) {
	f.asked = r
	return f.answers, f.err
}

func (f *fakeLocks) HandOver(_ context.Context, _ lock.Caller, r lock.HandOverRequest) (lock.HandOverAnswer, error) {
	f.asked = r
	return f.handOver, f.err
}

func (f *fakeLocks) Ask(_ context.Context, _ lock.Caller, r lock.AskRequest) (lock.AskAnswer, error) {
	f.asked = r
	return f.askAnswer, f.err
}

func (f *fakeLocks) Dismiss(_ context.Context, _ lock.Caller, r lock.DismissRequest) (lock.Waiter, error) {
	f.asked = r
	return f.waiter, f.err
}

// askedPage is a request for a page of List or History.
type askedPage struct {
	pattern lock.Pattern
	after   lock.Name
	query   lock.HistoryQuery
	from    lock.Revision
	limit   int
}

func (f *fakeLocks) List(_ context.Context, _ lock.Caller, p lock.Pattern, after lock.Name, limit int) ([]lock.Lock, lock.Revision, bool, error) {
	f.asked = askedPage{pattern: p, after: after, limit: limit}
	return nil, 0, false, f.err
}

func (f *fakeLocks) History(_ context.Context, _ lock.Caller, q lock.HistoryQuery, from lock.Revision, limit int) (lock.HistoryPage, error) {
	f.asked = askedPage{query: q, from: from, limit: limit}
	return lock.HistoryPage{}, f.err
}

func (f *fakeLocks) Watch(_ context.Context, _ lock.Caller, r lock.WatchRequest) iter.Seq2[lock.Event, error] {
	f.asked = r
	return func(yield func(lock.Event, error) bool) {
		for _, e := range f.events {
			if !yield(e, nil) {
				return
			}
		}
		if f.err != nil {
			yield(lock.Event{}, f.err)
		}
	}
}

// invoke calls a method of a service as gRPC does: the request comes over the wire, and so
// does the answer.
func invoke(t testing.TB, s *Service, method string, request proto.Message) (proto.Message, error) {
	t.Helper()
	codec := newCodec(256 << 10)
	wire, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if method == "Watch" {
		message := new(pylokv1.WatchRequest)
		if err := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, message); err != nil {
			t.Fatal(err)
		}
		return nil, s.Watch(message, &sentEvents{ctx: t.Context(), sent: func(*pylokv1.WatchResponse) {}})
	}
	for _, m := range pylokv1.LockService_ServiceDesc.Methods {
		if m.MethodName != method {
			continue
		}
		answer, err := m.Handler(s, t.Context(), func(message any) error {
			return codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, message)
		}, nil)
		if err != nil {
			return nil, err
		}
		sent, err := codec.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		received := reflect.New(reflect.TypeOf(answer).Elem()).Interface().(proto.Message)
		if err := encoding.GetCodecV2("proto").Unmarshal(sent, received); err != nil {
			t.Fatal(err)
		}
		return received, nil
	}
	t.Fatalf("there is no method %s", method)
	return nil, nil
}
