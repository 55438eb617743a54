package service

import (
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// codec is gRPC's own for protobuf. It sends a response of Watch that was encoded before
// without copying it, so that all streams share the bytes, also while they wait for
// their clients to read. Of a LockRequest it leaves the data as its bytes on the wire,
// among the fields that the message does not know, where requestedData finds it.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	if response, ok := message.(*pylokv1.WatchResponse); ok && response.Event == nil {
		return mem.BufferSlice{mem.SliceBuffer(response.ProtoReflect().GetUnknown())}, nil
	}
	return c.CodecV2.Marshal(message)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(wire mem.BufferSlice, message any) error {
	request, ok := message.(*pylokv1.LockRequest)
	if !ok {
		return c.CodecV2.Unmarshal(wire, message)
	}
	buffer := wire.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return unmarshalLock(buffer.ReadOnlyData(), request)
}

func unmarshalLock(wire []byte, request *pylokv1.LockRequest) error {
	before, data, after, ok := cutData(wire)
	if ok {
		_, ok = dataJSON(data)
	}
	if !ok || proto.Unmarshal(before, request) != nil || (proto.UnmarshalOptions{Merge: true}).Unmarshal(after, request) != nil {
		return proto.Unmarshal(wire, request)
	}
	message := request.ProtoReflect()
	message.SetUnknown(slices.Concat(data, message.GetUnknown()))
	return nil
}

// maxRecentBytes is how large an encoding is remembered. All together are a few MiB.
const maxRecentBytes = 8 << 10

// recent remembers how values were encoded lately, for the same ones are sent again and
// again: a change to all who watch, the data of a hold in every answer about it.
type recent[T comparable] [512]atomic.Pointer[encoded[T]]

type encoded[T comparable] struct {
	value T
	wire  []byte
}

// wire returns a value as encode encodes it, which the caller must not change. Values
// with the same hash, which may be any number, take each other's place.
func (r *recent[T]) wire(value T, hash uint64, encode func(T) []byte) []byte {
	slot := &r[hash%uint64(len(r))]
	if have := slot.Load(); have != nil && have.value == value {
		return have.wire
	}
	wire := encode(value)
	if len(wire) <= maxRecentBytes {
		slot.Store(&encoded[T]{value, wire})
	}
	return wire
}
