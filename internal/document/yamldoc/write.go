package yamldoc

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pylok/pylok/internal/document"
)

// longestPlainKey is the longest key that is written as "key: value". YAML readers
// need not find the colon of a longer one (YAML 1.2.2, section 8.2.2: 1,024
// characters); it is written as "? key".
const longestPlainKey = 1000

// AppendKey appends a key and its colon. What AppendKey and AppendValue write is so written
// that PyYAML's safe_load and yaml.v3 read back the same, and nothing in it is acted upon by
// a terminal.
func AppendKey(b []byte, key string, indent int) []byte {
	start := len(b)
	b = appendString(b, key)
	if len(b)-start > longestPlainKey {
		b = append(b[:start], "? "...)
		b = appendString(b, key)
		b = append(b, '\n')
		b = appendIndent(b, indent)
	}
	return append(b, ':')
}

// appendMapping appends the mapping that is next, which is not empty, as a block
// mapping. Its first line is indented already.
func appendMapping(b []byte, r *document.Reader, indent int) []byte {
	first := true
	for key := range r.Mapping() {
		if !first {
			b = appendIndent(b, indent)
		}
		first = false
		b = AppendKey(b, key, indent)
		b = AppendValue(b, r, indent)
	}
	return b
}

// AppendValue appends what follows a key's colon, up to the end of the line.
func AppendValue(b []byte, r *document.Reader, indent int) []byte {
	switch r.Kind() {
	case document.Mapping:
		if r.IsEmpty() {
			return append(b, " {}\n"...)
		}
		b = append(b, '\n')
		b = appendIndent(b, indent+2)
		return appendMapping(b, r, indent+2)
	case document.List:
		if r.IsEmpty() {
			return append(b, " []\n"...)
		}
		b = append(b, '\n')
		b = appendIndent(b, indent)
		return appendList(b, r, indent)
	}
	return appendScalar(append(b, ' '), r, indent+2)
}

// appendList appends the list that is next, which is not empty, as a block sequence.
// Its first line is indented already.
func appendList(b []byte, r *document.Reader, indent int) []byte {
	for i := range r.List() {
		if i > 0 {
			b = appendIndent(b, indent)
		}
		b = append(b, "- "...)
		switch r.Kind() {
		case document.Mapping:
			if r.IsEmpty() {
				b = append(b, "{}\n"...)
			} else {
				b = appendMapping(b, r, indent+2)
			}
		case document.List:
			if r.IsEmpty() {
				b = append(b, "[]\n"...)
			} else {
				b = appendList(b, r, indent+2)
			}
		default:
			b = appendScalar(b, r, indent+2)
		}
	}
	return b
}

// appendScalar appends a value that is neither a mapping nor a list, and the end of the
// line. The lines of a multi-line string are indented.
func appendScalar(b []byte, r *document.Reader, indent int) []byte {
	switch r.Kind() {
	case document.Number:
		b = document.AppendYAMLNumber(b, r.Number())
	case document.String:
		return AppendText(b, r.String(), indent)
	default:
		switch r.Literal() {
		case document.Null:
			b = append(b, "null"...)
		case document.True:
			b = append(b, "true"...)
		case document.False:
			b = append(b, "false"...)
		}
	}
	return append(b, '\n')
}

// AppendText appends a string and the end of the line. The lines of one that has several
// are indented.
func AppendText(b []byte, s string, indent int) []byte {
	if isBlock(s) {
		return appendBlock(b, s, indent)
	}
	return append(appendString(b, s), '\n')
}

func appendIndent(b []byte, indent int) []byte {
	for range indent {
		b = append(b, ' ')
	}
	return b
}

// appendString writes a string on one line, plain where no YAML reader can take
// it for anything but itself, else in double quotes.
func appendString(b []byte, s string) []byte {
	if isPlain(s) {
		return append(b, s...)
	}
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 0x100:
			b = fmt.Appendf(b, `\x%02X`, r)
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04X`, r)
		default:
			b = fmt.Appendf(b, `\U%08X`, r)
		}
	}
	return append(b, '"')
}

// isPlain reports whether s may stand without quotes. It errs on the side of
// quotes: what YAML 1.1 and 1.2 readers make of plain text differs.
func isPlain(s string) bool {
	if s == "" || s[len(s)-1] == ' ' || s[len(s)-1] == ':' {
		return false
	}
	switch first := s[0]; {
	case isLetter(first):
		if len(s) <= 5 && isReservedWord(s) {
			return false
		}
	case '0' <= first && first <= '9':
		if !provesText(s) {
			return false
		}
	case first == '_' || first == '/':
	default:
		return false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case isLetter(c) || '0' <= c && c <= '9':
		case c == ':' && s[i+1] == ' ', c == '#' && s[i-1] == ' ':
			return false
		case strings.IndexByte(" _-./@+=,;:()%!?'#&*<>$^~", c) < 0:
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// isReservedWord reports whether some YAML reader takes s for a boolean, null or
// a number (yaml.org/type/bool.html, null.html, float.html).
func isReservedWord(s string) bool {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf":
		return true
	}
	return false
}

// provesText reports whether s, which starts with a digit, has a letter that no
// form of number or timestamp has (those use a-f, o, x, t and z), as in 30s.
func provesText(s string) bool {
	return strings.ContainsAny(s, "ghijklmnpqrsuvwyGHIJKLMNPQRSUVWY")
}

// isBlock reports whether s is written as a literal block: it has several lines,
// and nothing that a block could lose.
func isBlock(s string) bool {
	text := strings.TrimSuffix(s, "\n")
	if !strings.Contains(s, "\n") || text == "" {
		return false
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasSuffix(line, " ") || strings.HasPrefix(line, "\t") {
			return false
		}
	}
	if c := text[0]; c == ' ' || c == '\n' || text[len(text)-1] == '\n' {
		return false
	}
	for _, r := range text {
		if r != '\n' && r != '\t' && (!unicode.IsPrint(r) || r == '\uFEFF') {
			return false
		}
	}
	return true
}

func appendBlock(b []byte, s string, indent int) []byte {
	text, ended := strings.CutSuffix(s, "\n")
	b = append(b, '|')
	if !ended {
		b = append(b, '-')
	}
	b = append(b, '\n')
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" {
			b = appendIndent(b, indent)
			b = append(b, line...)
		}
		b = append(b, '\n')
	}
	return b
}
