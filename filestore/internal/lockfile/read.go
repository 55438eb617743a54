package lockfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/pylok/pylok/lock"
)

// Read makes sense of the text of a lock file. It never fails: text that is no
// lock file has a Problem.
func Read(text []byte) Content {
	keys, problem := readMapping(text)
	if problem != "" {
		return Content{Problem: problem}
	}
	data, err := lock.NewData(keys)
	if err != nil {
		return Content{Problem: err.Error()}
	}
	c := Content{Data: data}
	c.Token = readToken(keys["lock_token"])
	c.Holder, _ = keys["lock_holder"].(string)
	c.RequestID, _ = keys["lock_request_id"].(string)
	c.AcquireTime = readTime(keys["lock_acquired"])
	c.ExpireTime = readTime(keys["lock_expires"])
	if ttl, ok := keys["lock_ttl"].(string); ok {
		if d, err := time.ParseDuration(ttl); err == nil && d > 0 {
			c.TTL = d
		}
	}
	return c
}

// readToken reads what the server writes: a whole number. One that no root comes to
// in a million years is somebody's joke.
func readToken(value any) lock.Token {
	text, _ := value.(string) // readScalar's form of a large integer
	if v, ok := value.(float64); ok && v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
		text = strconv.FormatFloat(v, 'f', 0, 64)
	}
	token, err := strconv.ParseUint(text, 10, 62)
	if err != nil {
		return 0
	}
	return lock.Token(token)
}

func readTime(value any) time.Time {
	text, _ := value.(string)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// readMapping reads the document, or says in words why not.
func readMapping(text []byte) (keys map[string]any, problem string) {
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
	value, problem := readNode(document.Content[0], 1)
	if problem != "" {
		return nil, problem
	}
	keys, ok := value.(map[string]any)
	if !ok {
		return nil, "the file is not a YAML mapping (key: value)"
	}
	return keys, ""
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

// readScalar keeps as text whatever JSON has no form for: timestamps, integers
// that a float cannot hold exactly, infinities.
func readScalar(node *yaml.Node) any {
	plain := *node
	switch plain.ShortTag() {
	case "!!null", "!!bool", "!!int", "!!float", "!!str", "!!timestamp":
	default: // an unknown tag is dropped: the value is read as if it had none
		plain.Tag = ""
	}
	switch plain.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		var v bool
		if plain.Decode(&v) == nil {
			return v
		}
	case "!!int":
		const exact = 1 << 53
		var v int64
		if plain.Decode(&v) == nil && -exact <= v && v <= exact {
			return float64(v)
		}
	case "!!float":
		var v float64
		if plain.Decode(&v) == nil && !math.IsInf(v, 0) && !math.IsNaN(v) {
			return v
		}
	}
	return plain.Value
}
