package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// yamlMapping writes a document as block YAML, keys sorted, a line each. Strings
// that any reader could take for something else are quoted, and what a terminal
// would act upon is escaped.
func yamlMapping(document map[string]any) []byte {
	var w yamlWriter
	w.mapping(document, 0)
	return w.Bytes()
}

// yamlList writes a list as block YAML, as yamlMapping does.
func yamlList(list []any) []byte {
	var w yamlWriter
	w.list(list, 0)
	return w.Bytes()
}

type yamlWriter struct{ bytes.Buffer }

// mapping writes a mapping that starts at the present place, with its other lines
// indented.
func (w *yamlWriter) mapping(m map[string]any, indent int) {
	if len(m) == 0 {
		w.WriteString("{}\n")
		return
	}
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			w.indent(indent)
		}
		text := yamlString(key)
		if len(text) > 128 { // readers look only so far ahead for the colon
			w.WriteString("? " + text + "\n")
			w.indent(indent)
			text = ""
		}
		w.WriteString(text + ":")
		w.value(m[key], indent)
	}
}

// value writes what follows the colon of a key that is indented.
func (w *yamlWriter) value(value any, indent int) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) > 0 {
			w.WriteByte('\n')
			w.indent(indent + 2)
			w.mapping(v, indent+2)
			return
		}
	case []any:
		if len(v) > 0 {
			w.WriteByte('\n')
			w.indent(indent + 2)
			w.list(v, indent+2)
			return
		}
	case string:
		if isBlockText(v) {
			w.block(v, indent+2)
			return
		}
	}
	w.WriteByte(' ')
	w.inline(value, indent)
}

// list writes a list that starts at the present place.
func (w *yamlWriter) list(list []any, indent int) {
	if len(list) == 0 {
		w.WriteString("[]\n")
		return
	}
	for i, element := range list {
		if i > 0 {
			w.indent(indent)
		}
		w.WriteString("- ")
		w.inline(element, indent+2)
	}
}

// inline writes a value that starts at the present place.
func (w *yamlWriter) inline(value any, indent int) {
	switch v := value.(type) {
	case map[string]any:
		w.mapping(v, indent)
	case []any:
		w.list(v, indent)
	default:
		w.WriteString(yamlScalar(v) + "\n")
	}
}

// block writes text of several lines as it is.
func (w *yamlWriter) block(text string, indent int) {
	style := " |-\n"
	if strings.HasSuffix(text, "\n") {
		style = " |\n"
	}
	w.WriteString(style)
	for line := range strings.Lines(text) {
		if line != "\n" {
			w.indent(indent)
		}
		w.WriteString(line)
	}
	if !strings.HasSuffix(text, "\n") {
		w.WriteByte('\n')
	}
}

func (w *yamlWriter) indent(n int) {
	w.WriteString(strings.Repeat(" ", n))
}

// isBlockText reports whether text has several lines that YAML can show as they
// are.
func isBlockText(text string) bool {
	body := strings.TrimSuffix(text, "\n")
	return strings.Contains(text, "\n") &&
		body != "" && body[0] != ' ' && body[0] != '\n' && !strings.HasSuffix(body, "\n") &&
		!strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

// yamlScalar writes a value that is neither a mapping nor a list.
func yamlScalar(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return yamlString(v)
	case uint64:
		return strconv.FormatUint(v, 10)
	case float64:
		return yamlNumber(v)
	}
	return yamlString(fmt.Sprint(value))
}

// yamlNumber writes a number so that YAML 1.1 takes it for one too: with a point
// before an exponent, and the exponent with a sign. In digits, a whole number
// beyond 2^53 would be read back as text.
func yamlNumber(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) <= 1<<53 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if mantissa, exponent, ok := strings.Cut(text, "e"); ok && !strings.Contains(mantissa, ".") {
		return mantissa + ".0e" + exponent
	}
	return text
}

// yamlString writes text on one line, plain where no reader can take it for
// anything else.
func yamlString(text string) string {
	if isPlain(text) {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// yamlWords are those that YAML 1.1 or 1.2 readers take for a boolean, null or a
// number, in lower case.
var yamlWords = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}

// isPlain reports whether text is itself in YAML, unquoted. It errs on the side of
// quotes: what starts with a digit or a sign is quoted, whatever follows.
func isPlain(text string) bool {
	if text == "" || strings.HasSuffix(text, " ") || slices.Contains(yamlWords, strings.ToLower(text)) {
		return false
	}
	for i, r := range text {
		switch {
		case unicode.IsLetter(r) || r == '_':
		case i == 0 && r == '/':
		case i > 0 && (unicode.IsDigit(r) || strings.ContainsRune(" -./@+,;()=%!?'", r)):
		case i > 0 && r == ':' && i+1 < len(text) && text[i+1] != ' ':
		default:
			return false
		}
	}
	return true
}
