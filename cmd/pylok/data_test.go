package main

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pylok/pylok/internal/document/yamldoc"
	"github.com/spf13/cobra"
)

func TestParseValue(t *testing.T) {
	for text, want := range map[string]any{
		"App1":                       "App1",
		"":                           "",
		" ":                          " ",
		"true":                       true,
		"false":                      false,
		"null":                       nil,
		"True":                       "True",
		"yes":                        "yes",
		"~":                          "~",
		"=":                          "=",
		"a=b":                        "a=b",
		"7":                          7.0,
		"-7":                         -7.0,
		"+7":                         "+7",
		"007":                        "007",
		"0o17":                       "0o17",
		"0.5":                        0.5,
		".5":                         ".5",
		"1e3":                        "1e3",
		"1.10":                       "1.10",
		"1.1":                        1.1,
		"1.0":                        "1.0",
		"1e+21":                      1e21,
		"-0":                         math.Copysign(0, -1),
		`"1e3"`:                      "1e3",
		`"true"`:                     "true",
		`"line\nline"`:               "line\nline",
		"9007199254740992":           9007199254740992.0,
		"-9007199254740992":          -9007199254740992.0,
		"9007199254740993":           "9007199254740993",
		"-9007199254740993":          "-9007199254740993",
		"123456789012345678901234":   "123456789012345678901234",
		"1e20":                       "1e20",
		"1.0e+20":                    1e20,
		"2019-12-19":                 "2019-12-19",
		"2019-12-19 09:26:03.478039": "2019-12-19 09:26:03.478039",
		"[1, \"a\", null]":           []any{1.0, "a", nil},
		"[]":                         []any{},
		`{"a": {"b": [9007199254740993]}}`: map[string]any{
			"a": map[string]any{"b": []any{"9007199254740993"}},
		},
		"{}":       map[string]any{},
		"NaN":      "NaN",
		"Infinity": "Infinity",
		"1 2":      "1 2",
	} {
		got, err := parseValue(text)
		if err != nil {
			t.Errorf("%q: got the error %v", text, err)
			continue
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, want %#v", text, got, want)
		}
	}
	for _, text := range []string{"{", "[App1]", "{a: 1}", `{"a": 1,}`, "[1] and more"} {
		if got, err := parseValue(text); err == nil {
			t.Errorf("%q: got %#v, want an error: it looks like JSON", text, got)
		}
	}
}

func TestParseDocument(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       map[string]any
	}{
		{"empty mapping", "{}", map[string]any{}},
		{"scalars", "s: App1\nt: true\nn: null\nm: ~\ne:\ni: 7\nf: 0.5\nx: 1e3\nv: 1.10\n", map[string]any{
			"s": "App1", "t": true, "n": nil, "m": nil, "e": nil, "i": 7.0, "f": 0.5, "x": "1e3", "v": "1.10",
		}},
		{"words of YAML 1.1 are text", "a: yes\nb: on\nc: =\nd: y\n", map[string]any{"a": "yes", "b": "on", "c": "=", "d": "y"}},
		{"quotes", "a: '7'\nb: \"true\"\nc: '1e3'\n", map[string]any{"a": "7", "b": "true", "c": "1e3"}},
		{"timestamps stay text", "d: 2019-12-19\nt: 2019-12-19 09:26:03.478039\nz: 2019-12-19T09:26:03Z\n", map[string]any{
			"d": "2019-12-19", "t": "2019-12-19 09:26:03.478039", "z": "2019-12-19T09:26:03Z",
		}},
		{"integers", "a: 9007199254740992\nb: 9007199254740993\nc: -9007199254740993\nd: 18446744073709551615\ne: 99999999999999999999\nf: 0x1F\ng: 0o17\n", map[string]any{
			"a": 9007199254740992.0, "b": "9007199254740993", "c": "-9007199254740993",
			"d": "18446744073709551615", "e": "99999999999999999999", "f": "0x1F", "g": "0o17",
		}},
		{"a tagged whole float", "a: !!float 3\n", map[string]any{"a": 3.0}},
		{"keys are their text", "1: a\ntrue: b\n2019-12-19: c\n~: d\n", map[string]any{"1": "a", "true": "b", "2019-12-19": "c", "~": "d"}},
		{"nested", "data:\n  backend: App1\n  list:\n  - 1\n  - {a: [b]}\n", map[string]any{
			"data": map[string]any{"backend": "App1", "list": []any{1.0, map[string]any{"a": []any{"b"}}}},
		}},
		{"block text", "a: |\n  one\n  two\n", map[string]any{"a": "one\ntwo\n"}},
		{"comments and a document mark", "# ticket\n---\na: 1 # one\n", map[string]any{"a": 1.0}},
		{"JSON with tabs and surrogates", "{\n\t\"a\": \"\\ud83d\\ude00\",\n\t\"b\": 9007199254740993\n}", map[string]any{"a": "😀", "b": "9007199254740993"}},
		{"no numbers of JSON", "a: .inf\nb: [.nan]\n", map[string]any{"a": ".inf", "b": []any{".nan"}}},
		{"JSON numbers that would come back otherwise", `{"a": 1e400, "b": 1.10, "c": 1.5}`, map[string]any{"a": "1e400", "b": "1.10", "c": 1.5}},
		{"flow YAML", "{a: App1}", map[string]any{"a": "App1"}},
		{"a byte order mark", "\ufeffa: 1\n", map[string]any{"a": 1.0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := yamldoc.ReadDocument([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %#v\nwant %#v", got, test.want)
			}
		})
	}
}

func TestParseDocumentRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", "it is empty; write {} for no data"},
		{"only a comment", "# nothing\n", "it has only comments; write {} for no data"},
		{"null", "~\n", "it is not a mapping"},
		{"a list", "- a\n", "it is not a mapping with keys"},
		{"text", "App1", "it is not a mapping"},
		{"a JSON list", "[1]", "it is not a mapping"},
		{"two documents", "a: 1\n---\nb: 2\n", "more than one YAML document"},
		{"broken YAML", "a: [1\n", "line 1"},
		{"a duplicate key", "a: 1\nb: 2\na: 3\n", `line 3: the key "a" is there twice`},
		{"a duplicate key by its text", "1: a\n'1': b\n", `the key "1" is there twice`},
		{"a duplicate key in JSON", `{"a": {"b": 1, "b": 2}}`, `the key "b" is there twice`},
		{"an alias", "a: &x 1\nb: *x\n", "line 1: an anchor (&x); write the value out where it is meant"},
		{"a merge", "a: 1\n<<: {b: 2}\n", "a key must be plain text"},
		{"a mapping as a key", "? {a: 1}\n: b\n", "a key must be plain text"},
		{"a tag", "a: !secret x\n", "line 1: the tag !secret is not supported"},
		{"a tagged mapping", "a: !!set {x}\n", "the tag !!set is not supported"},
		{"binary", "a: !!binary aGk=\n", "the tag !!binary is not supported"},
		{"a wrong tag", "a: !!int x\n", "does not fit the tag !!int"},
		{"no UTF-8", "a: \xff\n", "it is not UTF-8 text"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := yamldoc.ReadDocument([]byte(test.text))
			if err == nil {
				t.Fatalf("got %#v, want an error", got)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got the error %q, want one with %q", err, test.want)
			}
		})
	}
}

func TestDataFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data.yaml")
	if err := os.WriteFile(file, []byte("backend: App1\nmsg: from the file\nlock_token: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		args  []string
		stdin string
		want  map[string]any // nil: no data
		err   string
	}{
		{name: "none"},
		{name: "pairs", args: []string{"--data", "a=1", "--data", "b.c=x,y"}, want: map[string]any{"a": 1.0, "b.c": "x,y"}},
		{name: "msg", args: []string{"--msg", "true"}, want: map[string]any{"msg": "true"}},
		{name: "empty msg", args: []string{"--msg", ""}, want: map[string]any{"msg": ""}},
		{name: "file", args: []string{"--data-file", file}, want: map[string]any{"backend": "App1", "msg": "from the file"}},
		{name: "stdin", args: []string{"--data-file", "-"}, stdin: `{"a": 1}`, want: map[string]any{"a": 1.0}},
		{name: "cleared", args: []string{"--data-file", "-"}, stdin: `{}`, want: map[string]any{}},
		{
			name: "flags replace keys of the file",
			args: []string{"--data-file", file, "--data", "backend=App2", "--msg", "mine"},
			want: map[string]any{"backend": "App2", "msg": "mine"},
		},
		{name: "reserved key", args: []string{"--data", "lock_holder=eve", "--data", "a=1"}, err: "--data lock_holder: this key is the server's own"},
		{name: "other lock_ key", args: []string{"--data", "lock_smith=eve"}, want: map[string]any{"lock_smith": "eve"}},
		{name: "broken list", args: []string{"--data", "a=[1,"}, err: `--data a: [1, looks like JSON and is not: unexpected end of JSON input; to give it as text, write it in quotes as JSON does: "[1,"`},
		{name: "text like a list", args: []string{"--data", `a="[urgent]"`}, want: map[string]any{"a": "[urgent]"}},
		{name: "no equals sign", args: []string{"--data", "backend"}, err: "--data backend is not KEY=VALUE"},
		{name: "no key", args: []string{"--data", "=App1"}, err: "--data =App1 is not KEY=VALUE"},
		{name: "twice", args: []string{"--data", "a=1", "--data", "a=1"}, err: `--data sets the key "a" twice`},
		{name: "msg twice", args: []string{"--data", "msg=a", "--msg", "b"}, err: "--msg and --data msg=... set the same key"},
		{name: "bad value", args: []string{"--data", `a={"b":1,"b":2}`}, err: `--data a: the key "b" is there twice`},
		{name: "bad UTF-8", args: []string{"--data", "a=\xff"}, err: "is not valid UTF-8"},
		{name: "no file", args: []string{"--data-file", file + "x"}, err: "no such file"},
		{name: "bad stdin", args: []string{"--data-file", "-"}, stdin: "[", err: "--data-file: the standard input: "},
		{name: "huge stdin", args: []string{"--data-file", "-"}, stdin: strings.Repeat("#", maxDataFileBytes+1), err: "larger than 1 MiB"},
		{name: "deep", args: []string{"--data", "a=" + strings.Repeat("[", 40) + strings.Repeat("]", 40)}, err: "nested deeper than 32 levels"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := &cobra.Command{}
			data := addDataFlags(cmd, "the data")
			if err := cmd.ParseFlags(test.args); err != nil {
				t.Fatal(err)
			}
			got, err := data.read(t.Context(), strings.NewReader(test.stdin))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got the error %v, want one with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got == nil {
				if test.want != nil {
					t.Errorf("got no data, want %v", test.want)
				}
				return
			}
			if !reflect.DeepEqual(got.AsMap(), test.want) {
				t.Errorf("got %#v, want %#v", got.AsMap(), test.want)
			}
		})
	}
}
