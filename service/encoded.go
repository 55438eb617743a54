package service

import (
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
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

// maxEncodedBytes is how large an event is kept encoded; all of them together take at
// most a few MiB.
const maxEncodedBytes = 8 << 10

// encodedEvents has newer changes as responses of Watch. All who watch are told the
// same, at about the same time, and it is encoded once.
type encodedEvents [512]atomic.Pointer[encodedEvent]

type encodedEvent struct {
	event    lock.Event
	response encodedMessage
}

// response returns the response for a change, with the message that encode makes of it.
func (c *encodedEvents) response(change lock.Event, encode func(lock.Event) *pylokv1.Event) encodedMessage {
	slot := &c[change.Revision%lock.Revision(len(c))]
	have := slot.Load()
	if have != nil && have.event == change {
		return have.response
	}
	response, err := proto.Marshal(&pylokv1.WatchResponse{Event: encode(change)})
	if err != nil {
		panic(fmt.Sprintf("service: an event that no message can hold: %v", err))
	}
	if len(response) <= maxEncodedBytes && (have == nil || have.event.Revision < change.Revision) {
		slot.Store(&encodedEvent{change, response})
	}
	return response
}
