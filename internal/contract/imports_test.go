package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pylok/pylok"

// importRule says what of this module a part of it may import besides itself.
// Paths are relative to the module; /... means the package and all below it.
type importRule struct {
	packages     string
	mayImport    []string
	standardOnly bool // nothing from other modules either
}

// importRules is the whole rule of who may import whom. A package that none covers
// is an error, so that a new one is placed on purpose.
var importRules = []importRule{
	{packages: "lock", mayImport: []string{"internal/document"}, standardOnly: true},
	{packages: "lock/locktest", mayImport: []string{"lock", "manager"}},
	{packages: "lock/feed", mayImport: []string{"lock"}, standardOnly: true},
	{packages: "lock/memstore/...", mayImport: []string{"lock", "lock/feed"}},
	{packages: "lease", mayImport: []string{"lock"}},
	{packages: "manager", mayImport: []string{"lock", "lease"}, standardOnly: true},
	{packages: "internal/document", standardOnly: true},
	{packages: "internal/document/...", mayImport: []string{"internal/document"}},
	{packages: "filestore/...", mayImport: []string{"lock", "lock/feed", "internal/document/..."}},
	{packages: "gen/..."},
	{packages: "access/...", mayImport: []string{"lock"}},
	{packages: "service/...", mayImport: []string{"lock", "access/...", "gen/...", "internal/document/..."}},
	{packages: "client/...", mayImport: []string{"lock", "lease", "gen/...", "internal/document/..."}},
	{packages: "examples/go", mayImport: []string{"lock", "gen/...", "client"}},
	{packages: "internal/isolate"},                        // for tests
	{packages: "internal/testcert", standardOnly: true},   // for tests
	{packages: "internal/testissuer", standardOnly: true}, // for tests
	{packages: "internal/load", mayImport: []string{"lock", "gen/...", "client"}},
	{packages: "cmd/...", mayImport: []string{"lock/...", "lease", "manager", "access/...", "filestore/...", "gen/...", "service/...", "client/...", "internal/load", "internal/document/..."}},
}

// goPackage is what the rules look at of a package that go list prints.
type goPackage struct {
	ImportPath string
	Standard   bool
	Dir        string
	GoFiles    []string
	Imports    []string
}

func TestImportRules(t *testing.T) {
	command := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Dir,GoFiles,Imports", module+"/...")
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("reading the output of %s: %v", command, err)
		}
		packages = append(packages, p)
		if _, ours := inModule(p.ImportPath); ours {
			readForCache(t, p.Dir)
		}
	}
	readForCache(t, "../..")
	for _, problem := range checkImports(packages) {
		t.Error(problem)
	}
}

// readForCache makes go test run this test again when a source file has changed,
// which it cannot see from what go list reads.
func readForCache(t *testing.T, dir string) {
	if _, err := os.ReadDir(dir); err != nil {
		t.Fatal(err)
	}
}

// checkImports returns what breaks the rules among packages and all they import.
func checkImports(packages []goPackage) (problems []string) {
	standard := map[string]bool{"C": true}
	for _, p := range packages {
		standard[p.ImportPath] = p.Standard
	}
	looked := false
	for _, p := range packages {
		name, ours := inModule(p.ImportPath)
		if !ours || len(p.GoFiles) == 0 { // tests alone may import anything
			continue
		}
		looked = looked || name == "lock"
		i := slices.IndexFunc(importRules, func(r importRule) bool { return covers(r.packages, name) })
		if i < 0 {
			problems = append(problems, fmt.Sprintf("%s has no import rule: give it one", name))
			continue
		}
		rule := importRules[i]
		for _, path := range p.Imports {
			imported, ours := inModule(path)
			switch {
			case !ours && rule.standardOnly && !standard[path]:
				problems = append(problems, fmt.Sprintf("%s imports %s; it may import the standard library only", name, path))
			case ours && !covers(rule.packages, imported) &&
				!slices.ContainsFunc(rule.mayImport, func(may string) bool { return covers(may, imported) }):
				problems = append(problems, fmt.Sprintf("%s imports %s; of this module it may import only %q", name, imported, rule.mayImport))
			}
		}
	}
	if !looked {
		problems = append(problems, "the package lock is not among those looked at, so nothing was checked")
	}
	return problems
}

// inModule returns a package's path within this module, and whether it is there.
func inModule(path string) (string, bool) {
	return strings.CutPrefix(path, module+"/")
}

// covers reports whether a pattern of importRules covers a package.
func covers(pattern, name string) bool {
	tree, below := strings.CutSuffix(pattern, "/...")
	return name == tree || below && strings.HasPrefix(name, tree+"/")
}

// TestCheckImports shows that each rule can fail.
func TestCheckImports(t *testing.T) {
	const (
		memory  = `of this module it may import only ["lock" "lock/feed"]`
		files   = `of this module it may import only ["lock" "lock/feed" "internal/document/..."]`
		servers = `of this module it may import only ["lock" "access/..." "gen/..." "internal/document/..."]`
		clients = `of this module it may import only ["lock" "lease" "gen/..." "internal/document/..."]`
	)
	for _, test := range []struct {
		pkg, imports string
		want         string // empty: allowed
	}{
		{"lock", "fmt", ""},
		{"lock", "golang.org/x/sys/unix", "lock imports golang.org/x/sys/unix; it may import the standard library only"},
		{"lock", module + "/gen/go/pylok/v1", "lock imports gen/go/pylok/v1; of this module it may import only [\"internal/document\"]"},
		{"lock", module + "/filestore", `lock imports filestore; of this module it may import only ["internal/document"]`},
		{"lock/locktest", module + "/lock", ""},
		{"lock/locktest", module + "/lock/memstore", `lock/locktest imports lock/memstore; of this module it may import only ["lock" "manager"]`},
		{"lock", module + "/manager", `lock imports manager; of this module it may import only ["internal/document"]`},
		{"manager", module + "/lease", ""},
		{"manager", module + "/filestore", `manager imports filestore; of this module it may import only ["lock" "lease"]`},
		{"lock/memstore", module + "/lock/feed", ""},
		{"lock/memstore", module + "/lock", ""},
		{"lock/memstore", "golang.org/x/sys/unix", ""},
		{"lock/memstore", module + "/filestore", "lock/memstore imports filestore; " + memory},
		{"filestore", module + "/lock", ""},
		{"filestore", module + "/filestore/journal", ""},
		{"filestore", module + "/lock/memstore", "filestore imports lock/memstore; " + files},
		{"filestore/journal", module + "/gen/go/pylok/v1", "filestore/journal imports gen/go/pylok/v1; " + files},
		{"gen/go/pylok/v1", module + "/lock", "gen/go/pylok/v1 imports lock; of this module it may import only []"},
		{"service", module + "/lock", ""},
		{"service", module + "/gen/go/pylok/v1", ""},
		{"service", module + "/manager", "service imports manager; " + servers},
		{"service", module + "/filestore", "service imports filestore; " + servers},
		{"service", module + "/client", "service imports client; " + servers},
		{"client", module + "/gen/go/pylok/v1", ""},
		{"client", module + "/service", "client imports service; " + clients},
		{"client", module + "/cmd/pylok", "client imports cmd/pylok; " + clients},
		{"cmd/pylokd", module + "/filestore", ""},
		{"cmd/pylokd", module + "/service", ""},
		{"helpers", "fmt", "helpers has no import rule: give it one"},
	} {
		t.Run(test.pkg+" "+test.imports, func(t *testing.T) {
			got := strings.Join(checkImports([]goPackage{
				{ImportPath: "fmt", Standard: true},
				{ImportPath: "golang.org/x/sys/unix"},
				{ImportPath: module + "/lock", GoFiles: []string{"doc.go"}},
				{ImportPath: module + "/" + test.pkg, GoFiles: []string{"doc.go"}, Imports: []string{test.imports}},
			}), "\n")
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	t.Run("nothing listed", func(t *testing.T) {
		if got := checkImports(nil); len(got) != 1 {
			t.Errorf("got %q, want one problem", got)
		}
	})
	t.Run("only tests", func(t *testing.T) {
		got := checkImports([]goPackage{
			{ImportPath: module + "/lock", GoFiles: []string{"doc.go"}},
			{ImportPath: module + "/internal/contract"},
		})
		if len(got) != 0 {
			t.Errorf("got %q, want none", got)
		}
	})
}
