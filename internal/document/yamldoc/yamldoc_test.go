package yamldoc

import (
	"reflect"
	"testing"

	"github.com/pylok/pylok/internal/document"
)

// FuzzReadDocument: what is taken in reads back the same when it has been written, by
// both modes.
func FuzzReadDocument(f *testing.F) {
	for _, text := range []string{
		"a: 1.10\nb: 1.0\nc: [1, ~, true]\nd: {e: 2019-12-19}\n", `{"a": 1e400, "b": 1.5, "c": "\ud83d\ude00"}`,
		"a: |\n  one\n  two\n\nb: >\n  folded\n", "? x\n: y\n", "a: !!float 3\nb: !!int 0x1F\nc: !!str 1\n", "-0.0: -0.0\n", "\ufeffa: b\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, err := ReadDocument(text)
		if err != nil {
			return
		}
		if _, problem := document.Check(want); problem != "" {
			return // lock.NewData refuses it
		}
		r := document.NewReader(string(document.Append(nil, want)))
		var written []byte
		if r.IsEmpty() {
			written = []byte("{}")
		} else {
			for key := range r.Mapping() {
				written = AppendValue(AppendKey(written, key, 0), &r, 0)
			}
		}
		node, err := Parse(written)
		if err != nil {
			t.Fatalf("%q: %v", written, err)
		}
		for _, mode := range []Mode{Lenient, Strict} {
			got, err := Value(node, mode)
			if err != nil || !reflect.DeepEqual(got, any(want)) {
				t.Errorf("%q is written %q and reads as %v, want %v; %v", text, written, got, want, err)
			}
		}
	})
}

// TestModes: what differs between a file that is there and a document that is asked to be
// taken in.
func TestModes(t *testing.T) {
	for _, test := range []struct {
		text    string
		lenient any // nil: refused
		strict  any // nil: refused
	}{
		{"a: 3.0", 3.0, "3.0"},
		{"a: 1.10", "1.10", "1.10"},
		{"a: 1e-7", "1e-7", "1e-7"},
		{"a: 1.5e-7", 1.5e-7, 1.5e-7},
		{"a: 1.0e-07", 1e-7, 1e-7},
		{"a: !!float 1e-7", 1e-7, 1e-7},
		{"a: 1\na: 2", 2.0, nil},
		{"a: &x 1", 1.0, nil},
		{"b: &x 1\na: *x", nil, nil},
		{"a: !secret x", "x", nil},
		{"a: !!int x", "x", nil},
		{"a: !!float 3", 3.0, 3.0},
		{"a: !!set {x}", map[string]any{"x": nil}, nil},
		{"? [1]\n: 2\na: 1", 1.0, nil},
		{"<<: {b: 1}\na: 1", 1.0, nil},
	} {
		node, err := Parse([]byte(test.text))
		if err != nil {
			t.Fatal(err)
		}
		for mode, want := range map[Mode]any{Lenient: test.lenient, Strict: test.strict} {
			got, err := Value(node, mode)
			switch {
			case want == nil && err == nil:
				t.Errorf("%q, mode %d: got %v, want an error", test.text, mode, got)
			case want != nil && (err != nil || !reflect.DeepEqual(got.(map[string]any)["a"], want)):
				t.Errorf("%q, mode %d: got %v, %v; want %v", test.text, mode, got, err, want)
			}
		}
	}
}

// TestNoData: only who gives nothing is told how to give no data.
func TestNoData(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "it is empty; write {} for no data",
		" \n":               "it is empty; write {} for no data",
		"# nothing\n":       "it has only comments; write {} for no data",
		"a: 1\n---\nb: 2\n": "it has more than one YAML document",
		"a: [1\n":           "it is not YAML: line 1: did not find expected ',' or ']'",
	} {
		if _, err := ReadDocument([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: got the error %v, want %s", text, err, want)
		}
	}
}
