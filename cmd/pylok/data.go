package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"
	"gopkg.in/yaml.v3"

	"github.com/pylok/pylok/lock"
)

// maxDataFileBytes is the most that is read of a --data-file. A lock file holds 64
// KiB; the rest is room for comments and white space.
const maxDataFileBytes = 1 << 20

// dataHelp is the part of a command's --help that says how data are read.
const dataHelp = `--data KEY=VALUE: VALUE is text, unless it is true, false, null, a number, a list
[...] or a mapping {...} as JSON writes them; '"1e3"' in quotes is the text 1e3, and
text that begins with [ or { needs quotes.
KEY is taken as it is: a dot in it does not nest.
--data-file reads a YAML or JSON mapping, but for the server's own keys, such as
lock_holder, which pylok status -o yaml prints; --data and --msg replace keys of it.
In both, dates stay the text that was written, and so do whole numbers beyond 2^53.`

// dataFlags are the flags that make up data.
type dataFlags struct {
	pairs []string
	file  string
	msg   string
	cmd   *cobra.Command
}

// addDataFlags gives cmd the flags for what is to be done with data.
func addDataFlags(cmd *cobra.Command, what string) *dataFlags {
	f := &dataFlags{cmd: cmd}
	cmd.Flags().StringArrayVar(&f.pairs, "data", nil, "set `KEY=VALUE` in "+what+"; may be given many times")
	cmd.Flags().StringVar(&f.file, "data-file", "", "take "+what+" from a YAML or JSON `FILE`; - is the standard input")
	cmd.Flags().StringVar(&f.msg, "msg", "", "say why, as `TEXT` for people; sets the key msg in "+what)
	must(cmd.RegisterFlagCompletionFunc("data", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("msg", cobra.NoFileCompletions))
	return f
}

// read returns the data that the flags make up, or nil when none was given.
func (f *dataFlags) read(ctx context.Context, stdin io.Reader) (*structpb.Struct, error) {
	given := f.cmd.Flags().Changed
	if !given("data") && !given("data-file") && !given("msg") {
		return nil, nil
	}
	document := map[string]any{}
	if given("data-file") {
		var err error
		if document, err = f.readFile(ctx, stdin); err != nil {
			return nil, err
		}
	}
	pairs, err := parsePairs(f.pairs)
	if err != nil {
		return nil, err
	}
	for key, value := range pairs {
		document[key] = value
	}
	if given("msg") {
		if _, twice := pairs["msg"]; twice {
			return nil, usagef("--msg and --data msg=... set the same key; give one of them")
		}
		document["msg"] = f.msg
	}
	checked, err := lock.NewData(document)
	if err != nil {
		return nil, err
	}
	return structpb.NewStruct(checked.Map())
}

// readFile reads the file, unless the person has enough of waiting for who writes it.
func (f *dataFlags) readFile(ctx context.Context, stdin io.Reader) (map[string]any, error) {
	type result struct {
		document map[string]any
		err      error
	}
	done := make(chan result, 1)
	go func() {
		document, err := readDataFile(f.file, stdin)
		done <- result{document, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, usagef("--data-file: %v", r.err)
		}
		return r.document, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// parsePairs reads the values of --data.
func parsePairs(pairs []string) (map[string]any, error) {
	document := make(map[string]any, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("--data %s is not KEY=VALUE, such as --data backend=App1", pair)
		}
		if _, twice := document[key]; twice {
			return nil, usagef("--data sets the key %q twice", key)
		}
		if slices.Contains(lock.ReservedKeys, key) {
			return nil, usagef("--data %s: this key is the server's own; leave it out", key)
		}
		parsed, err := parseValue(value)
		if err != nil {
			return nil, usagef("--data %s: %v", key, err)
		}
		document[key] = parsed
	}
	return document, nil
}

// parseValue reads the VALUE of --data KEY=VALUE: what it means as JSON, else the
// text. What begins as a list or a mapping is meant to be one.
func parseValue(text string) (any, error) {
	var ignored json.RawMessage
	err := json.Unmarshal([]byte(text), &ignored)
	switch {
	case err == nil:
		return parseJSON([]byte(text))
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["):
		quoted, quoteErr := json.Marshal(text)
		if quoteErr != nil {
			return nil, quoteErr
		}
		return nil, fmt.Errorf("%s looks like JSON and is not: %w; to give it as text, write it in quotes as JSON does: %s", text, err, quoted)
	}
	return text, nil
}

// readDataFile reads a mapping from a YAML or JSON file.
func readDataFile(path string, stdin io.Reader) (map[string]any, error) {
	source := stdin
	if path == "-" {
		path = "the standard input"
	} else {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		source = file
	}
	text, err := io.ReadAll(io.LimitReader(source, maxDataFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDataFileBytes {
		return nil, fmt.Errorf("%s is larger than 1 MiB; a lock file holds 64 KiB", path)
	}
	document, err := parseDocument(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return document, nil
}

// parseDocument reads a YAML or JSON mapping.
func parseDocument(text []byte) (map[string]any, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8 text")
	}
	parse := parseYAML
	if json.Valid(text) { // not all of JSON is YAML: tabs, escaped surrogates
		parse = parseJSON
	}
	value, err := parse(text)
	if err != nil {
		return nil, err
	}
	document, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("it is not a mapping with keys, such as {backend: App1}; write {} for no data")
	}
	return document, nil
}

// parseJSON reads valid JSON.
func parseJSON(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decodeJSON(decoder)
}

// decodeJSON reads the next value, as encoding/json would but for keys that are
// given twice, of which that takes the last.
func decodeJSON(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Number:
		return number(token.String())
	case json.Delim:
		if token == '[' {
			list := []any{}
			for decoder.More() {
				element, err := decodeJSON(decoder)
				if err != nil {
					return nil, err
				}
				list = append(list, element)
			}
			_, err := decoder.Token()
			return list, err
		}
		mapping := map[string]any{}
		for decoder.More() {
			key, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			if _, twice := mapping[key.(string)]; twice {
				return nil, fmt.Errorf("the key %q is there twice", key)
			}
			if mapping[key.(string)], err = decodeJSON(decoder); err != nil {
				return nil, err
			}
		}
		_, err := decoder.Token()
		return mapping, err
	}
	return token, nil
}

// parseYAML reads one YAML document.
func parseYAML(text []byte) (any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, more yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty; write {} for no data")
	} else if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one YAML document")
	}
	return fromYAML(document.Content[0])
}

// fromYAML returns the value of a node.
func fromYAML(node *yaml.Node) (any, error) {
	refuse := func(format string, args ...any) (any, error) {
		return nil, fmt.Errorf("line %d: %s", node.Line, fmt.Sprintf(format, args...))
	}
	if node.Anchor != "" || node.Kind == yaml.AliasNode {
		return refuse("anchors and aliases (& and *) are not supported; write the value out")
	}
	switch tag := node.ShortTag(); {
	case node.Kind == yaml.SequenceNode && tag == "!!seq":
		list := make([]any, len(node.Content))
		for i, element := range node.Content {
			var err error
			if list[i], err = fromYAML(element); err != nil {
				return nil, err
			}
		}
		return list, nil

	case node.Kind == yaml.MappingNode && tag == "!!map":
		mapping := map[string]any{}
		for i := 0; i < len(node.Content); i += 2 {
			key := node.Content[i]
			if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.ShortTag() == "!!merge" {
				return refuse("a key must be plain text")
			}
			if _, twice := mapping[key.Value]; twice {
				return nil, fmt.Errorf("line %d: the key %q is there twice", key.Line, key.Value)
			}
			value, err := fromYAML(node.Content[i+1])
			if err != nil {
				return nil, err
			}
			mapping[key.Value] = value
		}
		return mapping, nil

	case tag == "!!str", tag == "!!timestamp":
		return node.Value, nil

	case tag == "!!null":
		return nil, nil

	case tag == "!!bool", tag == "!!int", tag == "!!float":
		var value any
		if err := node.Decode(&value); err != nil {
			return refuse("%q does not fit the tag %s", node.Value, tag)
		}
		return fromYAMLScalar(node, value)

	default:
		return refuse("the tag %s is not supported", tag)
	}
}

// fromYAMLScalar returns a boolean or a number as a document holds it.
func fromYAMLScalar(node *yaml.Node, value any) (any, error) {
	switch v := value.(type) {
	case bool:
		return v, nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, fmt.Errorf("line %d: %s is not a number that a lock can hold; quote it to keep it as text", node.Line, node.Value)
		}
		if math.Abs(v) <= 1<<53 || !wholeNumber.MatchString(node.Value) {
			return v, nil
		}
		return node.Value, nil // too large for an integer, so it came as a float
	}
	if n, ok := new(big.Int).SetString(fmt.Sprint(value), 10); ok && n.CmpAbs(maxWhole) > 0 {
		return node.Value, nil
	}
	var f float64
	err := node.Decode(&f)
	return f, err
}

// wholeNumber is how a whole number is written, without an exponent.
var wholeNumber = regexp.MustCompile(`^[-+]?[0-9_]+$`)

// maxWhole is the greatest integer up to which a float64 holds every one.
var maxWhole = big.NewInt(1 << 53)

// number returns a JSON number as a document holds it: a float64, or for a whole
// number beyond 2^53 the text.
func number(text string) (any, error) {
	if n, ok := new(big.Int).SetString(text, 10); ok && n.CmpAbs(maxWhole) > 0 {
		return text, nil
	}
	var f float64
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return nil, fmt.Errorf("%s is not a number that a lock can hold; quote it to keep it as text", text)
	}
	return f, nil
}
