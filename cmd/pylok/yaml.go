package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pylok/pylok/internal/document"
	"github.com/pylok/pylok/internal/document/yamldoc"
)

// toYAML writes a mapping as block YAML, in the form that lock files have. Its values are
// those of documents, and uint64.
func toYAML(mapping map[string]any) []byte { return appendYAML(nil, mapping, 0) }

// appendYAML appends the lines of a mapping, all but the first indented.
func appendYAML(b []byte, mapping map[string]any, indent int) []byte {
	if len(mapping) == 0 {
		return append(b, "{}\n"...)
	}
	for i, key := range slices.Sorted(maps.Keys(mapping)) {
		if i > 0 {
			b = append(b, strings.Repeat(" ", indent)...)
		}
		b = yamldoc.AppendKey(b, key, indent)
		if token, ok := mapping[key].(uint64); ok { // a document's numbers would lose digits of it
			b = append(strconv.AppendUint(append(b, ' '), token, 10), '\n')
			continue
		}
		r := document.NewReader(string(document.Append(nil, mapping[key])))
		b = yamldoc.AppendValue(b, &r, indent)
	}
	return b
}
