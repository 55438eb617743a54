package service

import (
	"fmt"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// codec is gRPC's own for protobuf. It sends a response of Watch that was encoded before
// without copying it, so that all streams share the bytes, also while they wait for
// their clients to read. Of a LockRequest it leaves the data as its bytes on the wire,
// among the fields that the message does not know, where requestedData finds it. Data
// of a request that is larger than most bytes it does not read, see leaveDataOut.
type codec struct {
	encoding.CodecV2
	most int
}

func newCodec(most int) codec { return codec{encoding.GetCodecV2("proto"), most} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	if response, ok := message.(*pylokv1.WatchResponse); ok && response.Event == nil {
		return mem.BufferSlice{mem.SliceBuffer(response.ProtoReflect().GetUnknown())}, nil
	}
	return c.CodecV2.Marshal(message)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(wire mem.BufferSlice, message any) error {
	if large, ok := message.(withData); ok && wire.Len() > c.most {
		buffer := wire.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buffer.Free()
		return leaveDataOut(buffer.ReadOnlyData(), large)
	}
	request, ok := message.(*pylokv1.LockRequest)
	if !ok {
		return c.CodecV2.Unmarshal(wire, message)
	}
	buffer := wire.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return unmarshalLock(buffer.ReadOnlyData(), request)
}

// withData is a request that may have data.
type withData interface {
	proto.Message
	GetData() *structpb.Struct
}

// dataLeftOut is the number of a field that no message has. In a request whose data was
// left out it has the size of the data, and is the first of the fields that the message
// does not know.
const dataLeftOut protowire.Number = 1<<29 - 1

// leaveDataOut decodes a request but for its data, which no lock file can hold: decoded
// they would take many times the memory.
func leaveDataOut(wire []byte, request withData) error {
	field := request.ProtoReflect().Descriptor().Fields().ByName("data").Number()
	rest, size := make([]byte, 0, maxRecentBytes), 0
	for len(wire) > 0 {
		number, _, n := protowire.ConsumeField(wire)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if number == field {
			size += n
		} else {
			rest = append(rest, wire[:n]...)
		}
		wire = wire[n:]
	}
	if err := proto.Unmarshal(rest, request); err != nil || size == 0 {
		return err
	}
	mark := protowire.AppendTag(nil, dataLeftOut, protowire.VarintType)
	mark = protowire.AppendVarint(mark, uint64(size))
	message := request.ProtoReflect()
	message.SetUnknown(append(mark, message.GetUnknown()...))
	return nil
}

// checkData refuses a request whose data was left out.
func checkData(request withData) error {
	number, kind, n := protowire.ConsumeTag(request.ProtoReflect().GetUnknown())
	if n < 0 || number != dataLeftOut || kind != protowire.VarintType {
		return nil
	}
	size, _ := protowire.ConsumeVarint(request.ProtoReflect().GetUnknown()[n:])
	return lock.DataTooLarge(fmt.Sprintf("the data is %d bytes long", size))
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
