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
		if wire := c.changes.get(m, maphash.Comparable(c.seed, m), toWire(m)); wire != nil {
			return mem.BufferSlice{mem.SliceBuffer(wire)}, nil
		}
	case *pylokv1.LockResponse:
		message = &pylokv1.LockResponse{Lock: c.withWireData(m.Lock), Queued: m.Queued}
	case *pylokv1.UnlockResponse:
		message = &pylokv1.UnlockResponse{Lock: c.withWireData(m.Lock), Revision: m.Revision, Next: c.withWireData(m.Next)}
	case *pylokv1.RenewResponse:
		message = &pylokv1.RenewResponse{Lock: c.withWireData(m.Lock)}
	case *pylokv1.StatusResponse:
		message = &pylokv1.StatusResponse{Lock: c.withWireData(m.Lock)}
	case *pylokv1.ListResponse:
		message = &pylokv1.ListResponse{Locks: c.allWithWireData(m.Locks), NextPageToken: m.NextPageToken, Revision: m.Revision}
	case *pylokv1.LockSetResponse:
		message = &pylokv1.LockSetResponse{Locks: c.allWithWireData(m.Locks), Queued: m.Queued}
	case *pylokv1.UnlockSetResponse:
		message = &pylokv1.UnlockSetResponse{Answers: c.answersWithWireData(m.Answers)}
	case *pylokv1.RenewSetResponse:
		message = &pylokv1.RenewSetResponse{Answers: c.answersWithWireData(m.Answers)}
	case *pylokv1.HandOverResponse:
		message = &pylokv1.HandOverResponse{Lock: c.withWireData(m.Lock), Warnings: m.Warnings}
	case *pylokv1.AskResponse:
		message = &pylokv1.AskResponse{Lock: c.withWireData(m.Lock), Heard: m.Heard}
	}
	return c.CodecV2.Marshal(message)
}

// allWithWireData is withWireData for several locks.
func (c *codec) allWithWireData(locks []*pylokv1.Lock) []*pylokv1.Lock {
	same := make([]*pylokv1.Lock, len(locks))
	for i, l := range locks {
		same[i] = c.withWireData(l)
	}
	return same
}

// answersWithWireData is withWireData for the locks in what became of a set.
func (c *codec) answersWithWireData(answers []*pylokv1.SetAnswer) []*pylokv1.SetAnswer {
	same := make([]*pylokv1.SetAnswer, len(answers))
	for i, a := range answers {
		same[i] = &pylokv1.SetAnswer{
			Name:     a.Name,
			Token:    a.Token,
			Lock:     c.withWireData(a.Lock),
			Revision: a.Revision,
			Next:     c.withWireData(a.Next),
			Reason:   a.Reason,
			Message:  a.Message,
		}
	}
	return same
}

// withWireData returns a lock whose data is its bytes on the wire, among the fields that
// the message does not know: encoding a Struct anew takes ten times as long as the rest
// of the lock.
func (c *codec) withWireData(l *pylokv1.Lock) *pylokv1.Lock {
	if l.GetData() == nil {
		return l
	}
	wire := c.data.get(l.Data, maphash.Comparable(c.seed, l.Data), toWire(&pylokv1.Lock{Data: l.Data}))
	if wire == nil {
		return l
	}
	same := &pylokv1.Lock{
		Name:             l.Name,
		State:            l.State,
		LockFileLocation: l.LockFileLocation,
		Holder:           l.Holder,
		Token:            l.Token,
		Revision:         l.Revision,
		AcquireTime:      l.AcquireTime,
		Ttl:              l.Ttl,
		ExpireTime:       l.ExpireTime,
		Waiters:          l.Waiters,
		Problem:          l.Problem,
		Warnings:         l.Warnings,
		Caller:           l.Caller,
		Tree:             l.Tree,
		Set:              l.Set,
		OnExpiry:         l.OnExpiry,
		StaleTime:        l.StaleTime,
		Waiting:          l.Waiting,
		SharedHolds:      l.SharedHolds,
		HeldBelow:        l.HeldBelow,
		BlockedBy:        l.BlockedBy,
		Conflict:         l.Conflict,
		Shared:           l.Shared,
	}
	same.ProtoReflect().SetUnknown(wire)
	return same
}

// toWire returns a function for recent that encodes a message, and returns nil where that
// fails.
func toWire(m proto.Message) func() ([]byte, bool) {
	return func() ([]byte, bool) {
		wire, err := proto.Marshal(m)
		if err != nil {
			return nil, false // it fails once more where gRPC encodes it, and is reported there
		}
		return wire, len(wire) <= 2*maxRecentBytes
	}
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
