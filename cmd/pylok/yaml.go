package main

import (
	"github.com/pylok/pylok/internal/document"
	"github.com/pylok/pylok/internal/document/yamldoc"
)

// toYAML writes a mapping or a list as block YAML, in the form that lock files have.
func toYAML(value any) []byte {
	r := document.NewReader(string(document.Append(nil, value)))
	return yamldoc.Append(nil, &r)
}
