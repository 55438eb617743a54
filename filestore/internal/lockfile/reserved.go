package lockfile

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/pylok/pylok/lock"
)

// Reserved is the reserved keys of a lock file with what stands there. Of equal keys the
// last counts, as for YAML's readers.
type Reserved []setting

type setting struct{ key, text string }

// reservedIn returns the reserved keys of a document.
func reservedIn(mapping *yaml.Node) (reserved Reserved) {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if key.Kind != yaml.ScalarNode || !slices.Contains(lock.ReservedKeys, key.Value) {
			continue
		}
		text := value.Value
		switch value.Kind {
		case yaml.MappingNode:
			text = "{...}"
		case yaml.SequenceNode:
			text = "[...]"
		}
		if reserved == nil {
			reserved = make(Reserved, 0, len(lock.ReservedKeys))
		}
		if i := slices.IndexFunc(reserved, func(s setting) bool { return s.key == key.Value }); i >= 0 {
			reserved[i].text = text
		} else {
			reserved = append(reserved, setting{key.Value, text})
		}
	}
	return reserved
}

// Warnings says which of the keys do not count, because the hold whose file it is, which
// lies at location, has something else: a sentence a line, or nothing. A hold that was
// extended has other terms than its file, by the server's own doing.
func (r Reserved) Warnings(l lock.Lock, location string, extended bool) string {
	var lines []string
	var written []byte
	for _, s := range r {
		if extended && (s.key == "lock_ttl" || s.key == "lock_expires") {
			continue
		}
		if s.key == "lock_scope" && s.text == "tree" && !l.Tree {
			lines = append(lines, "lock_scope: tree does not count; the file is a copy, which its lock_file_location says")
			continue
		}
		written = appendReserved(written[:0], s.key, &l, location)
		if isWritten(written, s) {
			continue // as a rule, and a start looks at millions
		}
		mapping, problem := readMapping(written)
		if problem != "" {
			lines = append(lines, fmt.Sprintf("%s: %s does not count; there is none", s.key, brief(s.text)))
			continue
		}
		if want := mapping.Content[1].Value; s.text != want && !sameDuration(s.text, want) {
			lines = append(lines, fmt.Sprintf("%s: %s does not count; it is %s", s.key, brief(s.text), brief(want)))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// isWritten reports whether a line is a setting with its text as it is, or in quotes.
func isWritten(line []byte, s setting) bool {
	value, ok := bytes.CutPrefix(line, []byte(s.key))
	if !ok {
		return false
	}
	value = bytes.TrimSuffix(bytes.TrimPrefix(value, []byte(": ")), []byte("\n"))
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' && bytes.IndexByte(value, '\\') < 0 {
		value = value[1 : n-1]
	}
	return string(value) == s.text
}

// sameDuration reports whether both texts are the same length of time.
func sameDuration(a, b string) bool {
	d, err := time.ParseDuration(a)
	e, notB := time.ParseDuration(b)
	return err == nil && notB == nil && d == e
}

// brief makes a text fit for a line.
func brief(text string) string {
	const most = 100
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	if quoted := strconv.Quote(text); text == "" || quoted != `"`+text+`"` {
		return quoted
	}
	return text
}
