package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// readWithPyYAML is what users of the original library do with a lock file.
// Numbers and strings stay apart in the JSON that it prints, and anything that is
// neither, such as a date, makes json.dump fail.
const readWithPyYAML = `
import json, sys, yaml
documents = {}
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        documents[path] = yaml.safe_load(file)
json.dump(documents, sys.stdout, allow_nan=False)
`

// loadWithPyYAML reads YAML files as Python programs do.
func loadWithPyYAML(t *testing.T, paths ...string) map[string]map[string]any {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import yaml").Run(); err != nil {
		t.Fatalf("%s cannot import yaml (%v): install the Debian package python3-yaml, as make test does", python, err)
	}
	cmd := exec.Command(python, append([]string{"-c", readWithPyYAML}, paths...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("PyYAML: %v\n%s", err, stderr.String())
	}
	var documents map[string]map[string]any
	if err := json.Unmarshal(output, &documents); err != nil {
		t.Fatalf("PyYAML read something that is no mapping: %v\n%s", err, output)
	}
	return documents
}

// TestPyYAML locks with values that YAML readers disagree about, through the real
// programs, and reads back the lock file and what pylok status prints.
func TestPyYAML(t *testing.T) {
	build(t)
	values := []any{
		nil, true, false,
		0.0, -1.0, 0.5, -0.1, 1e20, 1e21, 1e300, 1e-7, 123456.789, float64(1 << 53), -float64(1 << 53),
		math.MaxFloat64, math.SmallestNonzeroFloat64,
		[]any{}, map[string]any{}, []any{[]any{[]any{}, nil}, map[string]any{"a": []any{1.0, "1"}}},
		map[string]any{"1": "a", "true": "b", "null": "c", "2019-12-19": "d", "1e3": "e", "=": "f", "": "g", "~": "h", "<<": "i", "a: b": "j"},
	}
	texts := append([]string{
		"9007199254740993", "18446744073709551616", "2019-12-20 00:00:00", "0o17", "one\n  two\n\nthree", "naïve – “quoted” — ￼",
	}, nastyTexts...)
	for _, text := range texts {
		values = append(values, text)
	}

	root, home := t.TempDir(), t.TempDir()
	variables := append(os.Environ(), "HOME="+home, "GORACE="+raceOptions)
	server, address, err := startServer(root, variables)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stopServer(server); err != nil {
			t.Error(err)
		}
	}()
	var (
		want   = map[string]map[string]any{}
		paths  []string
		client = func(stdin []byte, args ...string) []byte {
			t.Helper()
			cmd := exec.Command(filepath.Join(programs, "pylok"), append(args, "--address", address)...)
			cmd.Env = variables
			cmd.Stdin = bytes.NewReader(stdin)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			output, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
			}
			return output
		}
	)
	// A lock file holds 64 KiB, so the values go into several.
	const perLock = 10
	for i := 0; i < len(values); i += perLock {
		document := map[string]any{}
		for j, value := range values[i:min(i+perLock, len(values))] {
			document[fmt.Sprintf("value %d", i+j)] = value
			document[fmt.Sprintf("list %d", i+j)] = []any{value, []any{value}, map[string]any{"in": value}}
			if text, ok := value.(string); ok {
				document[text] = map[string]any{text: "as a key"}
			}
		}
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		// Go writes 1e20 in digits, and so long a whole number would be text.
		text = bytes.ReplaceAll(text, []byte("100000000000000000000"), []byte("1.0e+20"))
		name := fmt.Sprintf("nasty/%d", i/perLock)
		client(text, "lock", name, "--data-file", "-", "--holder", "=")

		lockFile := filepath.Join(root, name+".lock")
		printed := filepath.Join(home, fmt.Sprintf("%d.yaml", i/perLock))
		if err := os.WriteFile(printed, client(nil, "status", name, "-o", "yaml"), 0o600); err != nil {
			t.Fatal(err)
		}
		want[lockFile], want[printed] = document, document
		paths = append(paths, lockFile, printed)
	}
	list := filepath.Join(home, "list.yaml")
	if err := os.WriteFile(list, append([]byte("list: \n"), client(nil, "list", "-o", "yaml")...), 0o600); err != nil {
		t.Fatal(err)
	}
	got := loadWithPyYAML(t, append(paths, list)...)
	for _, path := range paths {
		for key, value := range want[path] {
			if read, ok := got[path][key]; !ok || !reflect.DeepEqual(read, value) {
				t.Errorf("%s: PyYAML reads under %q\n     %#v (there: %v)\nwant %#v", path, key, read, ok, value)
			}
		}
		for key := range got[path] {
			if _, ours := want[path][key]; !ours && !strings.HasPrefix(key, "lock_") {
				t.Errorf("%s: PyYAML reads a key that nobody wrote: %q", path, key)
			}
		}
		if holder := got[path]["lock_holder"]; holder != "=" {
			t.Errorf("%s: PyYAML reads the holder %#v, want =", path, holder)
		}
	}
	listed, _ := got[list]["list"].([]any)
	if len(listed) != len(paths)/2 {
		t.Fatalf("PyYAML reads a list of %d locks, want %d", len(listed), len(paths)/2)
	}
	for _, element := range listed {
		l := element.(map[string]any)
		lockFile := filepath.Join(root, l["lock_name"].(string)+".lock")
		for key, value := range want[lockFile] {
			if !reflect.DeepEqual(l[key], value) {
				t.Errorf("list: PyYAML reads of %s under %q %#v, want %#v", l["lock_name"], key, l[key], value)
			}
		}
	}
}
