package client

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFindAddress: a socket that is there is the address, whether a server answers on it
// or not; root does not look at what a user's environment says.
func TestFindAddress(t *testing.T) {
	dir := t.TempDir()
	runtimeDir, system := filepath.Join(dir, "user"), filepath.Join(dir, "pylok.sock")
	own := filepath.Join(runtimeDir, "pylok", "pylok.sock")
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	find := func(what string, uid int, runtimeDir, want string) {
		t.Helper()
		if got := findAddress(uid, runtimeDir, system); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	touch := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	find("no socket", 1000, runtimeDir, DefaultAddress)
	find("a file in the way", 1000, "/dev/null", DefaultAddress)
	touch(system)
	find("root's socket", 1000, runtimeDir, "unix://"+system)
	find("root's socket, no runtime directory", 1000, "", "unix://"+system)
	touch(own)
	find("a socket of one's own", 1000, runtimeDir, "unix://"+own)
	find("a runtime directory that is not absolute", 1000, "user", "unix://"+system)
	find("root", 0, runtimeDir, "unix://"+system)
}
