package service

import (
	"fmt"
	"hash/maphash"
	"slices"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/document/wiredoc"
	"github.com/pylok/pylok/lock"
)

// codec is gRPC's own for protobuf, with three additions. What is sent again and again it
// encodes once: a response of Watch that goes to all who watch, whose bytes all streams
// share, also while they wait for their clients to read, and the data of a lock. Of a
// LockRequest and a LockSetRequest it leaves the data as its bytes on the wire, among the
// fields that the message does not know, where requestedData finds it. The data of a request that is larger
// than maxBytes it leaves out, see leaveDataOut.
type codec struct {
	encoding.CodecV2
	maxBytes int
	seed     maphash.Seed
	changes  recent[*pylokv1.WatchResponse, []byte]
	data     recent[*structpb.Struct, []byte] // as the field data of a Lock
}

func newCodec(maxBytes int) *codec {
	return &codec{CodecV2: encoding.GetCodecV2("proto"), maxBytes: maxBytes, seed: maphash.MakeSeed()}
}

// Marshal implements encoding.CodecV2.
func (c *codec) Marshal(message any) (mem.BufferSlice, error) {
	switch m := message.(type) {
	case *pylokv1.WatchResponse:
		if m.GetEvent().GetCause() == pylokv1.EventCause_EVENT_CAUSE_UNSPECIFIED {
			break // a mark in the stream, or a lock as it stands, for this stream alone
		}
		wire := c.changes.get(m, maphash.Comparable(c.seed, m), func() ([]byte, bool) { return toWire(m) })
		if wire != nil {
			return mem.BufferSlice{mem.SliceBuffer(wire)}, nil
		}
	case *pylokv1.LockResponse:
		return c.marshalWithLocks(m, m.Lock)
	case *pylokv1.UnlockResponse:
		return c.marshalWithLocks(m, m.Lock, m.Next)
	case *pylokv1.RenewResponse:
		return c.marshalWithLocks(m, m.Lock)
	case *pylokv1.StatusResponse:
		return c.marshalWithLocks(m, m.Lock)
	case *pylokv1.ListResponse:
		return c.marshalWithLocks(m, m.Locks...)
	case *pylokv1.LockSetResponse:
		return c.marshalWithLocks(m, m.Locks...)
	case *pylokv1.UnlockSetResponse:
		return c.marshalWithLocks(m, locksOf(m.Answers)...)
	case *pylokv1.RenewSetResponse:
		return c.marshalWithLocks(m, locksOf(m.Answers)...)
	case *pylokv1.HandOverResponse:
		return c.marshalWithLocks(m, m.Lock)
	case *pylokv1.AskResponse:
		return c.marshalWithLocks(m, m.Lock)
	}
	return c.CodecV2.Marshal(message)
}

func locksOf(answers []*pylokv1.SetAnswer) []*pylokv1.Lock {
	locks := make([]*pylokv1.Lock, 0, 2*len(answers))
	for _, a := range answers {
		locks = append(locks, a.Lock, a.Next)
	}
	return locks
}

// marshalWithLocks encodes the answer to one call, which nobody else has, and in which the
// locks are. Meanwhile their data are bytes on the wire, among the fields that a lock does
// not know: encoding a Struct anew takes ten times as long as the rest of the lock.
func (c *codec) marshalWithLocks(answer any, locks ...*pylokv1.Lock) (mem.BufferSlice, error) {
	var room [2]*structpb.Struct
	taken := room[:0]
	for _, l := range locks {
		data := l.GetData()
		if data != nil {
			wire := c.data.get(data, maphash.Comparable(c.seed, data), func() ([]byte, bool) {
				return toWire(&pylokv1.Lock{Data: data})
			})
			if wire != nil {
				l.Data = nil
				l.ProtoReflect().SetUnknown(wire)
			}
		}
		taken = append(taken, data)
	}
	sent, err := c.CodecV2.Marshal(answer)
	for i, l := range locks {
		if taken[i] != nil {
			l.Data = taken[i]
			l.ProtoReflect().SetUnknown(nil)
		}
	}
	return sent, err
}

// toWire encodes a message for recent, and returns nil where that fails.
func toWire(m proto.Message) (wire []byte, keep bool) {
	wire, err := proto.Marshal(m)
	if err != nil {
		return nil, false // it fails once more where gRPC encodes it, and is reported there
	}
	return wire, len(wire) <= 2*maxRecentBytes
}

// Unmarshal implements encoding.CodecV2.
func (c *codec) Unmarshal(wire mem.BufferSlice, message any) error {
	if large, ok := message.(withData); ok && wire.Len() > c.maxBytes {
		buffer := wire.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buffer.Free()
		return leaveDataOut(buffer.ReadOnlyData(), large)
	}
	request, field := dataOnWire(message)
	if field == 0 {
		return c.CodecV2.Unmarshal(wire, message)
	}
	buffer := wire.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return unmarshalBesideData(buffer.ReadOnlyData(), request, field)
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
	rest, size := make([]byte, 0, 8<<10), 0
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

// dataOnWire returns the request that a message is and the number of its field data, if that
// is left as its bytes on the wire; 0: it is not.
func dataOnWire(message any) (request withData, field protowire.Number) {
	switch r := message.(type) {
	case *pylokv1.LockRequest:
		return r, 2
	case *pylokv1.LockSetRequest:
		return r, 3
	}
	return nil, 0
}

// unmarshalBesideData decodes a request, but for its field data.
func unmarshalBesideData(wire []byte, request withData, field protowire.Number) error {
	before, data, after, ok := cutData(wire, field)
	if !ok || proto.Unmarshal(before, request) != nil || (proto.UnmarshalOptions{Merge: true}).Unmarshal(after, request) != nil {
		return proto.Unmarshal(wire, request)
	}
	message := request.ProtoReflect()
	message.SetUnknown(slices.Concat(data, message.GetUnknown()))
	return nil
}

// cutData cuts a request on the wire in three: its field data, with its tag, what is before
// and what is after. It reports false where there is no such field, or not just one.
func cutData(wire []byte, field protowire.Number) (before, data, after []byte, ok bool) {
	for rest := wire; len(rest) > 0; {
		number, kind, n := protowire.ConsumeField(rest)
		if n < 0 {
			return nil, nil, nil, false
		}
		if number == field {
			if ok || kind != protowire.BytesType {
				return nil, nil, nil, false
			}
			before, data, after, ok = wire[:len(wire)-len(rest)], rest[:n], rest[n:], true
		}
		rest = rest[n:]
	}
	return before, data, after, ok
}

// requestedData reads the data of a request that codec has decoded, or another codec.
func requestedData(request withData) (lock.Data, error) {
	_, field := dataOnWire(request)
	wire, _, ok := wiredoc.CutField(request.ProtoReflect().GetUnknown(), field)
	if !ok {
		return dataOf(request.GetData())
	}
	if text, usual := wiredoc.AppendJSON(make([]byte, 0, len(wire)+len(wire)/2), wire); usual {
		return lock.ParseData(text)
	}
	sent := new(structpb.Struct)
	if proto.Unmarshal(wire, sent) != nil { // with a text that is not the same each time
		return lock.Data{}, lock.Invalid("data", "its bytes are no google.protobuf.Struct with strings in UTF-8")
	}
	return dataOf(sent)
}
