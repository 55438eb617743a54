package wiredoc

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pylok/pylok/internal/document"
)

// FuzzAppendJSON: of bytes that are usual, the JSON is the document that package proto and
// FromStruct make of them, and it comes back from a message as it was.
func FuzzAppendJSON(f *testing.F) {
	add := func(mapping map[string]any) {
		wire, err := proto.Marshal(ToStruct(mapping))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	var deepest any = 1.0
	for range document.MaxDepth - 1 {
		deepest = []any{deepest}
	}
	add(map[string]any{})
	add(map[string]any{"": nil, "a": []any{true, false, []any{}, map[string]any{}}, "é": "\u2028 \" \\ \x00"})
	add(map[string]any{"n": []any{0.0, math.Copysign(0, -1), 1e-6, 1e-7, 1e20, 1e21, 0.1, -7.25, 9007199254740993.0, 5e-324}})
	add(map[string]any{"a": deepest})
	add(map[string]any{"a": []any{deepest}})
	f.Add([]byte("\n\x05\n\x01a\x12\x00"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		text, usual := AppendJSON(nil, wire)
		if !usual {
			return
		}
		message := new(structpb.Struct)
		if err := proto.Unmarshal(wire, message); err != nil {
			t.Fatalf("%q is usual, and no message: %v", wire, err)
		}
		want, err := FromStruct(message)
		if err != nil {
			t.Fatalf("%q is usual, and no document: %v", wire, err)
		}
		if path, problem := document.Check(want); problem != "" {
			t.Fatalf("%q is usual, and %s %s", wire, path, problem)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %s, want %v; %v", wire, text, want, err)
		}
		if back, err := FromStruct(ToStruct(want)); err != nil || !reflect.DeepEqual(back, want) {
			t.Errorf("%v comes back as %v; %v", want, back, err)
		}
	})
}

// TestUsual: what clients usually send takes the fast way.
func TestUsual(t *testing.T) {
	wire, err := proto.Marshal(ToStruct(map[string]any{"msg": "Locking App1", "data": map[string]any{"port": 8080.0, "l": []any{1.5, nil, true}}}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"data":{"l":[1.5,null,true],"port":8080},"msg":"Locking App1"}`
	if got, usual := AppendJSON(nil, wire); !usual || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, usual, want)
	}
}

// TestNoKind: a value of no kind is no null.
func TestNoKind(t *testing.T) {
	for name, value := range map[string]*structpb.Value{
		"alone": {}, "in a list": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{{}}}),
	} {
		if got, err := FromStruct(&structpb.Struct{Fields: map[string]*structpb.Value{"a": value}}); err == nil || !strings.Contains(err.Error(), "no kind") {
			t.Errorf("%s: got %v, %v; want an error", name, got, err)
		}
	}
}
