// Package yamldoc reads and writes the users' documents as YAML: see package document.
package yamldoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/pylok/pylok/internal/document"
)

// Mode is what a Reader makes of what JSON has no form for and of what is easily a
// mistake.
type Mode int

const (
	// Lenient takes all for what it most likely is: of equal keys the last, a key that
	// is no text for its JSON, a value with an unknown tag for the value, 3.0 for a number
	// although it comes back as 3. It refuses aliases alone. It is for files that stand
	// where they are, whoever wrote them.
	Lenient Mode = iota
	// Strict refuses equal keys, keys that are no text, tags, anchors and aliases. It is
	// for what is asked to be taken in.
	Strict
)

// What Parse says of a text with nothing in it.
var (
	errEmpty    = errors.New("is empty")
	errComments = errors.New("has only comments")
)

// Parse returns the node that a text is, which has one YAML document. The error says in
// words what is wrong with the text.
func Parse(text []byte) (*yaml.Node, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errEmpty
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var node yaml.Node
	if err := decoder.Decode(&node); errors.Is(err, io.EOF) {
		return nil, errComments
	} else if err != nil {
		return nil, errors.New("is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one YAML document")
	}
	return node.Content[0], nil
}

// Value returns what a node is: nil, bool, float64, string, []any or map[string]any. What
// JSON has no form for stays the text that it is: timestamps, infinities, numbers that
// would not come back as they were written (see document.ParseNumber), and 1e-7, which YAML
// 1.1 has as text.
func Value(node *yaml.Node, mode Mode) (any, error) { return reader{mode}.value(node, 1) }

type reader struct{ mode Mode }

func (r reader) value(node *yaml.Node, depth int) (any, error) {
	refuse := func(format string, args ...any) (any, error) {
		return nil, fmt.Errorf("line %d: %s", node.Line, fmt.Sprintf(format, args...))
	}
	strict := r.mode == Strict
	switch tag := node.ShortTag(); {
	case depth > document.MaxDepth && node.Kind != yaml.ScalarNode:
		return refuse("nested deeper than %d levels", document.MaxDepth)
	case node.Kind == yaml.AliasNode:
		return refuse("an alias (*%s); write the value out", node.Value)
	case strict && node.Anchor != "":
		return refuse("an anchor (&%s); write the value out where it is meant", node.Anchor)
	case node.Kind == yaml.MappingNode && (tag == "!!map" || !strict):
		return r.mapping(node, depth)
	case node.Kind == yaml.SequenceNode && (tag == "!!seq" || !strict):
		list := make([]any, len(node.Content))
		for i, element := range node.Content {
			var err error
			if list[i], err = r.value(element, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case strict && !isKnown(tag):
		return refuse("the tag %s is not supported", tag)
	}
	value, fits := r.scalar(node)
	if strict && !fits {
		return refuse("%q does not fit the tag %s", node.Value, node.ShortTag())
	}
	return value, nil
}

func (r reader) mapping(node *yaml.Node, depth int) (any, error) {
	mapping := make(map[string]any, len(node.Content)/2)
	for i := 0; i < len(node.Content); i += 2 {
		key, err := r.key(node.Content[i], depth+1)
		if err != nil {
			return nil, err
		}
		if _, twice := mapping[key]; twice && r.mode == Strict {
			return nil, fmt.Errorf("line %d: the key %q is there twice", node.Content[i].Line, key)
		}
		if mapping[key], err = r.value(node.Content[i+1], depth+1); err != nil {
			return nil, err
		}
	}
	return mapping, nil
}

// key returns a key's text, whatever it would be as a value.
func (r reader) key(node *yaml.Node, depth int) (string, error) {
	if r.mode == Strict && (node.Kind != yaml.ScalarNode || node.Anchor != "" || node.ShortTag() == "!!merge") {
		return "", fmt.Errorf("line %d: a key must be plain text", node.Line)
	}
	if node.Kind == yaml.ScalarNode {
		return node.Value, nil
	}
	value, err := r.value(node, depth)
	if err != nil {
		return "", err
	}
	return string(document.Append(nil, value)), nil
}

// isKnown reports whether a scalar's tag is one of YAML's own with a form in JSON, or of
// a time.
func isKnown(tag string) bool {
	switch tag {
	case "!!null", "!!bool", "!!int", "!!float", "!!str", "!!timestamp":
		return true
	}
	return false
}

// scalar returns what a scalar is, and reports whether it fits the tag that it is given.
// An unknown tag is dropped: the value is read as if it had none.
func (r reader) scalar(node *yaml.Node) (value any, fits bool) {
	plain := *node
	if !isKnown(plain.ShortTag()) {
		plain.Tag = ""
	}
	tagged := plain.Style&yaml.TaggedStyle != 0 && plain.Tag != ""
	switch plain.ShortTag() {
	case "!!null":
		return nil, true
	case "!!bool":
		var v bool
		if plain.Decode(&v) == nil {
			return v, true
		}
		return node.Value, false
	case "!!int", "!!float":
		if v, ok := document.ParseNumber(node.Value); ok && (tagged || !hasBareExponent(node.Value)) {
			return v, true
		}
		if v, ok := parseWholeFloat(node.Value); ok && r.mode == Lenient {
			return v, true
		}
		if !tagged {
			return node.Value, true
		}
		var v float64
		if plain.Decode(&v) != nil {
			return node.Value, false
		}
		if _, problem := document.Check(map[string]any{"": v}); problem != "" {
			return node.Value, false
		}
		return v, true
	}
	return node.Value, true
}

// hasBareExponent reports whether a number has an exponent and no point, as JSON writes
// 1e-7. That is text to YAML 1.1 readers, such as PyYAML, which writes the text 1e-7
// without quotes.
func hasBareExponent(number string) bool {
	return strings.Contains(number, "e") && !strings.Contains(number, ".")
}

// parseWholeFloat reads a whole number as Python, and so PyYAML, writes one that is a
// float there: 3.0. In a file it is a number, so that a script's floats stay numbers when
// the file is written anew.
func parseWholeFloat(text string) (float64, bool) {
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil && strconv.FormatFloat(v, 'f', 1, 64) == text
}

// ReadDocument reads YAML or JSON that is asked to be taken in, with a byte order mark or
// without: it must be a mapping.
func ReadDocument(text []byte) (map[string]any, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8 text")
	}
	value, err := readStrict(text)
	if err != nil {
		return nil, err
	}
	mapping, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("it is not a mapping with keys, such as {backend: App1}; write {} for no data")
	}
	return mapping, nil
}

func readStrict(text []byte) (any, error) {
	if json.Valid(text) { // not all of JSON is YAML: tabs, escaped surrogates
		return document.ReadJSON(text)
	}
	node, err := Parse(text)
	switch {
	case err == errEmpty, err == errComments:
		return nil, fmt.Errorf("it %w; write {} for no data", err)
	case err != nil:
		return nil, fmt.Errorf("it %w", err)
	}
	return Value(node, Strict)
}
