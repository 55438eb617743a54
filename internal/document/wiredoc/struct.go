// Package wiredoc reads and writes the users' documents as messages, as
// google.protobuf.Struct: see package document.
package wiredoc

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"
)

// FromStruct returns the mapping that a message is. A value of no kind is an error;
// Struct.AsMap would make null of it, and a string of NaN, which lock.NewData refuses.
func FromStruct(message *structpb.Struct) (map[string]any, error) {
	mapping := make(map[string]any, len(message.GetFields()))
	for key, value := range message.GetFields() {
		var err error
		if mapping[key], err = fromValue(value); err != nil {
			return nil, err
		}
	}
	return mapping, nil
}

func fromValue(message *structpb.Value) (any, error) {
	switch kind := message.GetKind().(type) {
	case *structpb.Value_NullValue:
		return nil, nil
	case *structpb.Value_BoolValue:
		return kind.BoolValue, nil
	case *structpb.Value_NumberValue:
		return kind.NumberValue, nil
	case *structpb.Value_StringValue:
		return kind.StringValue, nil
	case *structpb.Value_StructValue:
		return FromStruct(kind.StructValue)
	case *structpb.Value_ListValue:
		list := make([]any, len(kind.ListValue.GetValues()))
		for i, element := range kind.ListValue.GetValues() {
			var err error
			if list[i], err = fromValue(element); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, errors.New("a google.protobuf.Value in it has no kind set; null is a kind too")
}

// ToStruct returns a document, in which document.Check finds nothing, as a message.
func ToStruct(mapping map[string]any) *structpb.Struct {
	message, err := structpb.NewStruct(mapping)
	if err != nil {
		panic(fmt.Sprintf("wiredoc: a document that no message can hold: %v", err))
	}
	return message
}
