package service

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// TestWholeMessages: every answer and every event leaves the service whole. Nothing is in
// fields that its message does not know, its JSON says it all, and so do the bytes that
// codec makes of it.
func TestWholeMessages(t *testing.T) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s := New(m, Config{Root: testRoot, Store: "memory", Version: "1"})
	codec, seen := newCodec(256<<10), map[string]bool{}
	whole := func(method string, message proto.Message, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		seen[method] = true
		wantKnown(t, method, message.ProtoReflect())
		text, err := protojson.Marshal(message)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		again := message.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal(text, again); err != nil || !proto.Equal(again, message) {
			t.Errorf("%s: the JSON %s is not %v: %v", method, text, message, err)
		}
		for range 2 { // the second time as it was remembered
			wire, err := codec.Marshal(message)
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			decoded := message.ProtoReflect().New().Interface()
			if err := encoding.GetCodecV2("proto").Unmarshal(wire, decoded); err != nil || !proto.Equal(decoded, message) {
				t.Errorf("%s: sent is %v, want %v: %v", method, decoded, message, err)
			}
		}
	}
	wantData := func(method string, l *pylokv1.Lock) {
		t.Helper()
		if l.GetData().GetFields()["msg"].GetStringValue() != "canary" {
			t.Errorf("%s: the data is %v", method, l.GetData())
		}
	}

	ctx := t.Context()
	data := document(t, `{"msg": "canary", "list": [1, null, {"a": true}]}`)
	locked, err := s.Lock(ctx, &pylokv1.LockRequest{Name: "lb/a", Data: data, Holder: "alice", Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)}})
	whole("Lock", locked, err)
	wantData("Lock", locked.Lock)
	token := locked.Lock.Token
	found, err := s.Status(ctx, &pylokv1.StatusRequest{Name: "lb/a"})
	whole("Status", found, err)
	wantData("Status", found.Lock)
	listed, err := s.List(ctx, &pylokv1.ListRequest{})
	whole("List", listed, err)
	wantData("List", listed.Locks[0])
	renewed, err := s.Renew(ctx, &pylokv1.RenewRequest{Name: "lb/a", Token: token, Data: data})
	whole("Renew", renewed, err)
	wantData("Renew", renewed.Lock)
	released, err := s.Unlock(ctx, &pylokv1.UnlockRequest{Name: "lb/a", Token: token})
	whole("Unlock", released, err)
	may, err := s.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_BREAK, Name: "lb/a"})
	whole("May", may, err)
	wantData("Unlock", released.Lock)
	set, err := s.LockSet(ctx, &pylokv1.LockSetRequest{
		Names: []string{"set/a", "set/b"}, Choices: []*pylokv1.Choice{{Names: []string{"set/c", "set/d"}}}, Data: data,
		Expiry: &pylokv1.LockSetRequest_Ttl{Ttl: durationpb.New(time.Hour)}, OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP,
	})
	whole("LockSet", set, err)
	var holds []*pylokv1.HoldRef
	for _, l := range set.Locks {
		wantData("LockSet", l)
		holds = append(holds, &pylokv1.HoldRef{Name: l.Name, Token: l.Token})
	}
	kept, err := s.RenewSet(ctx, &pylokv1.RenewSetRequest{Holds: holds})
	whole("RenewSet", kept, err)
	wantData("RenewSet", kept.Answers[0].Lock)
	over, err := s.HandOver(ctx, &pylokv1.HandOverRequest{Name: holds[0].Name, Token: holds[0].Token, Holder: "bob"})
	whole("HandOver", over, err)
	wantData("HandOver", over.Lock)
	asked, err := s.Ask(ctx, &pylokv1.AskRequest{Name: holds[0].Name, Message: "may I?"})
	whole("Ask", asked, err)
	wantData("Ask", asked.Lock)
	waiting := make(chan error, 1)
	go func() {
		_, err := s.Lock(ctx, &pylokv1.LockRequest{Name: holds[0].Name, Data: data, WaitForever: true})
		waiting <- err
	}()
	for len(found.Lock.Waiting) == 0 {
		found, err = s.Status(ctx, &pylokv1.StatusRequest{Name: holds[0].Name})
		whole("Status", found, err)
	}
	dismissed, err := s.Dismiss(ctx, &pylokv1.DismissRequest{Name: holds[0].Name, Place: found.Lock.Waiting[0].Place, Reason: "go"})
	whole("Dismiss", dismissed, err)
	if err := <-waiting; !errors.Is(err, lock.ErrLockHeld) {
		t.Errorf("the waiter got %v", err)
	}
	ended, err := s.UnlockSet(ctx, &pylokv1.UnlockSetRequest{Holds: holds})
	whole("UnlockSet", ended, err)
	wantData("UnlockSet", ended.Answers[1].Lock)
	past, err := s.History(ctx, &pylokv1.HistoryRequest{})
	whole("History", past, err)
	wantData("History", past.Events[0].Lock)
	info, err := s.Info(ctx, &pylokv1.InfoRequest{})
	whole("Info", info, err)

	_, err = s.Lock(ctx, &pylokv1.LockRequest{Name: "lb/b", Data: data})
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{0, 1} { // the present state, the changes
		watching, end := context.WithCancel(ctx)
		stream := &sentEvents{ctx: watching}
		stream.sent = func(response *pylokv1.WatchResponse) {
			whole("Watch", response, nil)
			switch response.GetEvent().GetType() {
			case pylokv1.EventType_EVENT_TYPE_LOCKED:
				wantData("Watch", response.Event.Lock)
			case pylokv1.EventType_EVENT_TYPE_SYNCED:
				end()
			}
		}
		s.Watch(&pylokv1.WatchRequest{AfterRevision: after}, stream)
	}
	for _, method := range pylokv1.LockService_ServiceDesc.Methods {
		if !seen[method.MethodName] {
			t.Errorf("no answer of %s was looked at", method.MethodName)
		}
	}
	if streams := pylokv1.LockService_ServiceDesc.Streams; len(streams) != 1 || !seen["Watch"] {
		t.Errorf("streams besides Watch were not looked at: %v", streams)
	}
}

// wantKnown looks for fields that a message does not know, in it and below it.
func wantKnown(t *testing.T, where string, message protoreflect.Message) {
	t.Helper()
	if unknown := message.GetUnknown(); len(unknown) > 0 {
		t.Errorf("%s: %s has unknown fields: %x", where, message.Descriptor().FullName(), unknown)
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
				wantKnown(t, where, value.Message())
				return true
			})
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				wantKnown(t, where, value.List().Get(i).Message())
			}
		case field.Message() != nil && !field.IsMap():
			wantKnown(t, where, value.Message())
		}
		return true
	})
}

// TestWireDataHasAllFields: what codec makes of an answer has every field of it, and of the
// locks in it.
func TestWireDataHasAllFields(t *testing.T) {
	methods := pylokv1.File_pylok_v1_lock_service_proto.Services().ByName("LockService").Methods()
	for i := range methods.Len() {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(i).Output().FullName())
		if err != nil {
			t.Fatal(err)
		}
		answer := kind.New()
		fillFields(answer, 4)
		wire, err := newCodec(1 << 10).Marshal(answer.Interface())
		if err != nil {
			t.Fatal(err)
		}
		got := kind.New().Interface()
		if err := encoding.GetCodecV2("proto").Unmarshal(wire, got); err != nil || !proto.Equal(got, answer.Interface()) {
			t.Errorf("sent is %v, want %v; %v", got, answer, err)
		}
	}
}

// fillFields sets every field of a message, one of each oneof, and those of the messages in
// it as far down as depth says.
func fillFields(message protoreflect.Message, depth int) {
	if value, ok := message.Interface().(*structpb.Value); ok {
		value.Kind = &structpb.Value_StringValue{StringValue: "x"}
		return
	}
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.IsMap():
			entry := message.Mutable(field).Map()
			value := entry.NewValue()
			fillFields(value.Message(), depth)
			entry.Set(protoreflect.ValueOfString("x").MapKey(), value)
		case field.IsList() && field.Message() != nil:
			if depth > 0 {
				fillFields(message.Mutable(field).List().AppendMutable().Message(), depth-1)
			}
		case field.IsList():
			message.Mutable(field).List().Append(protoreflect.ValueOfString("x"))
		case field.Message() != nil:
			if depth > 0 {
				fillFields(message.Mutable(field).Message(), depth-1)
			}
		case field.Kind() == protoreflect.StringKind:
			message.Set(field, protoreflect.ValueOfString("x"))
		case field.Kind() == protoreflect.BoolKind:
			message.Set(field, protoreflect.ValueOfBool(true))
		case field.Kind() == protoreflect.Uint64Kind:
			message.Set(field, protoreflect.ValueOfUint64(1))
		case field.Kind() == protoreflect.Uint32Kind:
			message.Set(field, protoreflect.ValueOfUint32(1))
		case field.Kind() == protoreflect.Int64Kind:
			message.Set(field, protoreflect.ValueOfInt64(1))
		case field.Kind() == protoreflect.Int32Kind:
			message.Set(field, protoreflect.ValueOfInt32(1))
		case field.Kind() == protoreflect.EnumKind:
			message.Set(field, protoreflect.ValueOfEnum(1))
		default:
			panic("set the field " + field.FullName() + " here")
		}
	}
}

// sentEvents is a stream of Watch whose events go to a function.
type sentEvents struct {
	grpc.ServerStream
	ctx  context.Context
	sent func(*pylokv1.WatchResponse)
}

func (s *sentEvents) Context() context.Context { return s.ctx }

func (s *sentEvents) Send(response *pylokv1.WatchResponse) error {
	s.sent(response)
	return nil
}
