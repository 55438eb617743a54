package service

import (
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// encodedMessage is a message as it goes over the wire. All streams that send it share
// it, also while it waits for a client to read.
type encodedMessage []byte

// codec is gRPC's own for protobuf, and sends an encodedMessage as it is.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	if wire, ok := message.(encodedMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(wire)}, nil
	}
	return c.CodecV2.Marshal(message)
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
