package main

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Some descriptors are always left for the store, and connections for other addresses.
func TestConnectionLimits(t *testing.T) {
	for _, test := range []struct {
		files           int
		flags           [2]int // in all, of one address
		all, perAddress int
	}{
		{files: 64, all: 32, perAddress: 16},
		{files: 2, all: 1, perAddress: 1},
		{files: 1024, all: 512, perAddress: 256},
		{files: 1 << 20, all: 1<<20 - 2048, perAddress: 4096},
		{files: 64, flags: [2]int{1000, 0}, all: 32, perAddress: 16},
		{files: 1024, flags: [2]int{100, 0}, all: 100, perAddress: 50},
		{files: 1024, flags: [2]int{0, 500}, all: 512, perAddress: 500},
		{files: 0, all: 0, perAddress: 4096},
		{files: 0, flags: [2]int{10, 0}, all: 10, perAddress: 5},
	} {
		c := config{maxConnections: test.flags[0], maxConnectionsPerPlace: test.flags[1]}
		if all, perAddress := c.connectionLimits(test.files); all != test.all || perAddress != test.perAddress {
			t.Errorf("%+v: got %d and %d", test, all, perAddress)
		}
	}
}

// docs/limits.md names every flag of a limit, with its default.
func TestLimitsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	_, help, err := parse([]string{"--help"}, environment("HOME", "/h"))
	if !errors.Is(err, errDone) {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| ([^ |]+)").FindAllStringSubmatch(string(page), -1) {
		rows[row[1]] = row[2]
	}
	if len(rows) < 10 {
		t.Fatalf("the page has only %v", rows)
	}
	looked := 0
	for _, text := range strings.Split(strings.Join(strings.Fields(help), " "), " --") {
		flag, text, _ := strings.Cut(text, " ")
		if !strings.HasPrefix(flag, "max-") && flag != "idle-timeout" || flag == "max-wait" { // which is a rule for a request
			continue
		}
		looked++
		value, found := rows[flag]
		if !found {
			t.Errorf("--%s is not on the page", flag)
		}
		value = strings.ReplaceAll(value, ",", "")
		if _, byDefault, ok := strings.Cut(text, "(default "); ok && flag != "idle-timeout" && strings.TrimSuffix(byDefault, ")") != value {
			t.Errorf("--%s is %s by default, and the page says %s", flag, strings.TrimSuffix(byDefault, ")"), value)
		}
	}
	if looked < 10 {
		t.Errorf("only %d flags were looked at", looked)
	}
}
