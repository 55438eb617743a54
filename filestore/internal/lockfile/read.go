package lockfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/pylok/pylok/lock"
)

// Read makes sense of the text of a lock file. It never fails: text that is no
// lock file has a Problem.
func Read(text []byte) Content {
	c, _ := ReadAll(text)
	return c
}

// ReadAll is Read and tells the reserved keys too, whatever stands there.
func ReadAll(text []byte) (Content, Reserved) {
	mapping, problem := readDocument(text)
	if problem != "" {
		return Content{Problem: shorten(problem)}, nil
	}
	value, problem := readNode(mapping, 1)
	if problem != "" {
		return Content{Problem: shorten(problem)}, nil
	}
	keys := value.(map[string]any)
	data, err := lock.NewData(keys)
	if err != nil {
		return Content{Problem: shorten(err.Error())}, nil
	}
	c := Content{Data: data, Token: readToken(mapping)}
	c.Holder, _ = keys["lock_holder"].(string)
	c.RequestID, _ = keys["lock_request_id"].(string)
	c.AcquireTime = readTime(keys["lock_acquired"])
	c.ExpireTime = readTime(keys["lock_expires"])
	if ttl, ok := keys["lock_ttl"].(string); ok {
		if d, err := time.ParseDuration(ttl); err == nil && d > 0 {
			c.TTL = d
		}
	}
	return c, reservedIn(mapping)
}

// shorten cuts a problem that quotes a long file to what fits in a line.
func shorten(problem string) string {
	const most = 200
	if len(problem) <= most {
		return problem
	}
	return strings.ToValidUTF8(problem[:most], "") + "..."
}

// mostToken is more than any root comes to, and leaves room to count on from.
const mostToken = 1 << 62

// readToken reads lock_token as the server writes it, to the last digit. One that is
// too large is somebody's joke.
func readToken(mapping *yaml.Node) (token lock.Token) {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if key.Value != "lock_token" {
			continue
		}
		digits, err := strconv.ParseUint(value.Value, 10, 64)
		if err != nil || value.Style != 0 || digits > mostToken {
			digits = 0
		}
		token = lock.Token(digits)
	}
	return token
}

func readTime(value any) time.Time {
	text, _ := value.(string)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// readDocument returns the mapping that the file is, or says in words why it is
// none.
func readDocument(text []byte) (mapping *yaml.Node, problem string) {
	if len(text) > lock.MaxFileBytes {
		return nil, fmt.Sprintf("the file is larger than %d bytes", lock.MaxFileBytes)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, "the file is empty"
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, "the file has only comments"
	} else if err != nil {
		return nil, "the file is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, "the file has more than one YAML document"
	}
	if mapping = document.Content[0]; mapping.Kind != yaml.MappingNode {
		return nil, "the file is not a YAML mapping (key: value)"
	}
	return mapping, ""
}

// readNode turns a node into what lock.Data holds.
func readNode(node *yaml.Node, depth int) (value any, problem string) {
	if depth > lock.MaxDataDepth && node.Kind != yaml.ScalarNode {
		return nil, fmt.Sprintf("line %d: nested deeper than %d levels", node.Line, lock.MaxDataDepth)
	}
	switch node.Kind {
	case yaml.AliasNode:
		return nil, fmt.Sprintf("line %d: an alias (*%s); write the value out", node.Line, node.Value)
	case yaml.MappingNode:
		mapping := make(map[string]any, len(node.Content)/2)
		for i := 0; i < len(node.Content); i += 2 {
			key, problem := readKey(node.Content[i], depth+1)
			if problem != "" {
				return nil, problem
			}
			// Of equal keys the last counts, as in PyYAML.
			if mapping[key], problem = readNode(node.Content[i+1], depth+1); problem != "" {
				return nil, problem
			}
		}
		return mapping, ""
	case yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, element := range node.Content {
			if list[i], problem = readNode(element, depth+1); problem != "" {
				return nil, problem
			}
		}
		return list, ""
	}
	return readScalar(node), ""
}

// readKey gives a key's text, whatever kind it is.
func readKey(node *yaml.Node, depth int) (key, problem string) {
	if node.Kind == yaml.ScalarNode {
		return node.Value, ""
	}
	value, problem := readNode(node, depth)
	if problem != "" {
		return "", problem
	}
	data, err := lock.NewData(map[string]any{"": value})
	if err != nil {
		return "", err.Error()
	}
	return strings.TrimSuffix(strings.TrimPrefix(data.JSON(), `{"":`), "}"), ""
}

// yaml.v3 takes more for numbers than YAML 1.1 readers such as PyYAML do: 1e3, 0o17,
// -.5, 08. What the two do not agree on is text, as it was for whoever wrote it with
// PyYAML. These are PyYAML's patterns, less base 60, which yaml.v3 reads as text.
var (
	yaml11Int   = regexp.MustCompile(`^[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$`)
	yaml11Float = regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?)$`)
)

// readScalar keeps as text whatever JSON has no form for: timestamps, integers
// that a float cannot hold exactly, infinities.
func readScalar(node *yaml.Node) any {
	value := *node
	switch value.ShortTag() {
	case "!!null", "!!bool", "!!int", "!!float", "!!str", "!!timestamp":
	default: // an unknown tag is dropped: the value is read as if it had none
		value.Tag = ""
	}
	tagged := value.Style&yaml.TaggedStyle != 0 && value.Tag != ""
	switch value.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		var v bool
		if value.Decode(&v) == nil {
			return v
		}
	case "!!int", "!!float":
		if n, ok := readNumber(&value); ok && (tagged || yaml11Int.MatchString(value.Value) || yaml11Float.MatchString(value.Value)) {
			return n
		}
	}
	return value.Value
}

// readNumber reads a number, unless a float would not hold it exactly.
func readNumber(node *yaml.Node) (float64, bool) {
	const exact = 1 << 53
	if node.ShortTag() == "!!int" || yaml11Int.MatchString(node.Value) {
		var v int64
		err := node.Decode(&v)
		return float64(v), err == nil && -exact <= v && v <= exact
	}
	var v float64
	err := node.Decode(&v)
	return v, err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
}
