// Package document has the rules of the users' documents, a lock's data: what a value may
// be, how deep, what a number is. It writes and reads their canonical JSON (keys sorted, no
// white space, otherwise as encoding/json writes it without escapes for HTML), which is
// what lock.Data keeps and the journal has, and reads JSON as people write it. Package
// yamldoc does the same for YAML, package wiredoc for messages.
//
// The package uses the standard library only.
package document

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// MaxDepth is how many levels of mappings and lists a document may have, the document
// itself being the first.
const MaxDepth = 32

// Check looks in a document for a value that it cannot hold: anything but nil, bool,
// finite float64, string in UTF-8, []any and map[string]any, or one nested too deep. It
// returns the path that leads there and what is wrong, or two empty strings.
func Check(mapping map[string]any) (path, problem string) { return check(mapping, 1) }

func check(value any, depth int) (path, problem string) {
	switch value.(type) {
	case []any, map[string]any:
		if depth > MaxDepth {
			return "", fmt.Sprintf("is nested deeper than %d levels", MaxDepth)
		}
	}
	switch v := value.(type) {
	case nil, bool:
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "", fmt.Sprintf("is %v; numbers must be finite", v)
		}
	case string:
		if !utf8.ValidString(v) {
			return "", "is not valid UTF-8"
		}
	case []any:
		for i, element := range v {
			if path, problem := check(element, depth+1); problem != "" {
				return fmt.Sprintf("[%d]", i) + path, problem
			}
		}
	case map[string]any:
		for key, element := range v {
			if !utf8.ValidString(key) {
				return "", "has a key that is not valid UTF-8"
			}
			if path, problem := check(element, depth+1); problem != "" {
				return "." + key + path, problem
			}
		}
	default:
		return "", fmt.Sprintf("is a %T, which a document cannot hold", value)
	}
	return "", ""
}
