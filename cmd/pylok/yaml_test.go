package main

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/document/wiredoc"
)

// nastyTexts are strings that some YAML reader takes for something else when they
// are not quoted.
var nastyTexts = []string{
	"", " ", "a ", " a", "=", "~", "<<", "null", "Null", "NULL", "yes", "Yes", "no", "on", "OFF", "y", "N",
	"true", "True", "FALSE", "1", "-1", "+1", "0x1F", "0o17", "017", "0b1", "1_000", "1.5", ".5", "1.", "1e3", "1E3", "1.0e+3",
	".inf", "-.inf", ".nan", "inf", "nan", "190:20:30", "2019-12-19", "2019-12-19 09:26:03", "2019-12-19T09:26:03Z",
	"-", "- a", "?", "? a", ":", "a:", "a: b", ":a", "a #b", "#a", "a#b", "&a", "*a", "!a", "!!str a", "|", ">", "%a", "@a", "`a",
	"'a'", `"a"`, `a\b`, "[a]", "{a}", "a, b", "---", "...", "--- a", "https://example.com/a?b=c", "/tmp/locks/x.lock",
	"alice@ci-7", "Grüße", "東京", "😀", "e\u0301", "\u00a0", "\u2028", "\u200b", "\ufeff", "\x00", "\x07", "\x1b[31m", "\x7f", "\u009b",
	"\t", "a\tb", "\n", "a\n", "a\nb", "a\nb\n", "a\n\nb", "a\n\n", "\na", " a\nb", "a\n b", "a \nb", "a\n# b\n", "a\r\nb", "a\n\x1b[31m",
	"a\n---\nb", "- a\n- b", "key: value\nother: value", strings.Repeat("long words ", 40), strings.Repeat("x", 5000),
}

func TestYAMLReadsBack(t *testing.T) {
	for _, text := range nastyTexts {
		checkReadsBack(t, map[string]any{
			"plain":  text,
			"list":   []any{text, []any{text, text}, map[string]any{"a": text, "b": []any{text}}},
			"nested": map[string]any{"deeper": map[string]any{"text": text}},
		})
		checkReadsBack(t, map[string]any{text: "key", "nested": map[string]any{text: map[string]any{text: []any{text}}}})
	}
	for _, f := range []float64{
		0, 1, -1, 0.5, -0.1, 1e3, 1e20, 1e21, 1e22, -1e300, 1.5e300, 1e-7, 5e-324, math.MaxFloat64, 1 << 53, -1 << 53, 123456.789,
	} {
		checkReadsBack(t, map[string]any{"number": f})
	}
	checkReadsBack(t, map[string]any{})
	checkReadsBack(t, map[string]any{
		"null": nil, "true": true, "false": false, "map": map[string]any{}, "list": []any{},
		"lists": []any{[]any{}, map[string]any{}, nil, []any{[]any{[]any{1.0}}}},
	})
}

// checkReadsBack checks that yaml.v3 reads what we write of a document. PyYAML is
// asked in TestPyYAML.
func checkReadsBack(t *testing.T, document map[string]any) {
	t.Helper()
	written := toYAML(document)
	if s := string(written); s != printableLines(s) {
		t.Errorf("%q has what a terminal would act upon", s)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(written, &node); err != nil {
		t.Errorf("%#v is written so that it cannot be read: %v\n%s", document, err, written)
		return
	}
	var got map[string]any
	if err := node.Decode(&got); err != nil {
		t.Errorf("%#v: %v\n%s", document, err, written)
		return
	}
	if got := asFloats(got); !reflect.DeepEqual(got, document) {
		t.Errorf("got  %#v\nwant %#v\nfrom\n%s", got, document, written)
	}
}

// asFloats makes all numbers float64, as documents hold them.
func asFloats(value any) any {
	switch v := value.(type) {
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case map[string]any:
		for key := range v {
			v[key] = asFloats(v[key])
		}
	case []any:
		for i := range v {
			v[i] = asFloats(v[i])
		}
	}
	return value
}

func TestYAMLIsReadable(t *testing.T) {
	got := string(toYAML(map[string]any{
		"contact_email": "billyjenkins@example.com",
		"data":          map[string]any{"backend": "App1", "weight": 0.0, "tags": []any{"a", "b"}},
		"datetime":      "2019-12-19 09:26:03.478039",
		"hosts":         []any{map[string]any{"name": "a", "port": 80.0}, map[string]any{"name": "b"}},
		"msg":           "Locking App1 on server-cluster3w1-2 for canary deployment",
		"notes":         "one\n\n  two\n",
		"url":           "https://example.com/ticket?id=65807417",
		"version":       "1.10",
	}))
	want := `contact_email: billyjenkins@example.com
data:
  backend: App1
  tags:
  - a
  - b
  weight: 0
datetime: "2019-12-19 09:26:03.478039"
hosts:
- name: a
  port: 80
- name: b
msg: Locking App1 on server-cluster3w1-2 for canary deployment
notes: |
  one

    two
url: https://example.com/ticket?id=65807417
version: "1.10"
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestYAMLTokens: a token is written to its last digit, and as a whole number: it is
// compared with others elsewhere.
func TestYAMLTokens(t *testing.T) {
	for _, token := range []uint64{1, 1 << 53, 1<<53 + 1, 1<<53 + 2, 1 << 62, math.MaxUint64} {
		l := &pylokv1.Lock{Name: "a/b", State: pylokv1.LockState_LOCK_STATE_LOCKED, Token: token, Data: wiredoc.ToStruct(map[string]any{"l": []any{1.5, map[string]any{}}})}
		for want, written := range map[string][]byte{
			fmt.Sprintf("l:\n- 1.5\n- {}\nlock_action: status\nlock_file_location: null\nlock_file_status: locked\nlock_token: %d\n", token):                                 toYAML(lockDocument(l, "status")),
			fmt.Sprintf("- l:\n  - 1.5\n  - {}\n  lock_action: status\n  lock_file_location: null\n  lock_file_status: locked\n  lock_name: a/b\n  lock_token: %d\n", token): listDocument([]*pylokv1.Lock{l}, "status"),
		} {
			if string(written) != want {
				t.Errorf("got\n%swant\n%s", written, want)
			}
		}
	}
	if got := string(listDocument(nil, "status")); got != "[]\n" {
		t.Errorf("got %q of no locks, want []", got)
	}
}
