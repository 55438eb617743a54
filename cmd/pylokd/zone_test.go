package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLinkedZone(t *testing.T) {
	for target, want := range map[string]string{
		"":                                   "", // no such file
		"/proc/self/status":                  "", // is there
		"/no/such/zoneinfo/Europe/Berlin":    "Europe/Berlin",
		"../no/such/zoneinfo/Etc/UTC":        "Etc/UTC",
		"/no/such/zoneinfo/Europe/Nowhere":   "error",
		"/no/such/file":                      "error",
		"/no/such/zoneinfo/../../etc/passwd": "error",
	} {
		file := filepath.Join(t.TempDir(), "localtime")
		if target != "" {
			if err := os.Symlink(target, file); err != nil {
				t.Fatal(err)
			}
		}
		got := ""
		switch zone, err := linkedZone(file); {
		case err != nil:
			got = "error"
			says(t, err.Error(), file, target, "TZ")
		case zone != nil:
			got = zone.String()
		}
		if got != want {
			t.Errorf("a link to %q: got %q, want %q", target, got, want)
		}
	}
}
