package service

import (
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// maxEncodedBytes is how large an event is kept encoded; all of them together take at
// most a few MiB.
const maxEncodedBytes = 8 << 10

// encodedEvents has newer changes as they go over the wire. All who watch are told the
// same, at about the same time, and it is encoded once.
type encodedEvents [512]atomic.Pointer[encodedEvent]

type encodedEvent struct {
	event    lock.Event
	response *pylokv1.WatchResponse
}

// response returns the message for a change, which encode makes. The caller must not
// change it.
func (c *encodedEvents) response(change lock.Event, encode func(lock.Event) *pylokv1.Event) *pylokv1.WatchResponse {
	slot := &c[change.Revision%lock.Revision(len(c))]
	have := slot.Load()
	if have != nil && have.event == change {
		return have.response
	}
	wire, err := proto.Marshal(&pylokv1.WatchResponse{Event: encode(change)})
	if err != nil {
		panic(fmt.Sprintf("service: an event that no message can hold: %v", err))
	}
	response := new(pylokv1.WatchResponse)
	response.ProtoReflect().SetUnknown(wire)
	if len(wire) <= maxEncodedBytes && (have == nil || have.event.Revision < change.Revision) {
		slot.Store(&encodedEvent{change, response})
	}
	return response
}
