package document_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/pylok/pylok/internal/document"
	"github.com/pylok/pylok/lock"
)

// tree reads a value as encoding/json does.
func tree(r *document.Reader) any {
	switch kind := r.Kind(); kind {
	case document.Mapping:
		m := map[string]any{}
		for key := range r.Mapping() {
			m[key] = tree(r)
		}
		return m
	case document.List:
		list := []any{}
		for range r.List() {
			list = append(list, tree(r))
		}
		return list
	case document.String:
		return r.String()
	case document.Number:
		return r.Number()
	default:
		if r.Literal(); kind == document.Null {
			return nil
		}
		return kind == document.True
	}
}

// FuzzReader reads whatever a lock.Data can be, and holds the reader to encoding/json.
func FuzzReader(f *testing.F) {
	for _, text := range []string{
		`{}`,
		`{"":""}`,
		`{"a":[],"b":{},"c":[[],{}],"d":null,"e":true,"f":false}`,
		`{"n":[0,-0,1e300,-1.5e-7,123456789012345678]}`,
		`{"s":"a\"b\\c\u0000\u2028 ä €","k\\\"":"}],:"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := lock.ParseData(text)
		if err != nil {
			return
		}
		r := document.NewReader(data.JSON())
		got := tree(&r)
		var want any
		if err := json.Unmarshal([]byte(data.JSON()), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as %v, want %v", data.JSON(), got, want)
		}
		r = document.NewReader(data.JSON())
		if r.IsEmpty() != data.IsEmpty() {
			t.Errorf("%s: IsEmpty is %v", data.JSON(), !data.IsEmpty())
		}
	})
}
