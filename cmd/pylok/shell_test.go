package main

import (
	"os/exec"
	"testing"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// TestShellCode: a shell sets just what it is told, quoted or not, and runs none of it.
func TestShellCode(t *testing.T) {
	address := "$(exit 1)'; exit 7; `exit 1`\\\"*:5625"
	code := shellCode([]*pylokv1.Lock{{Name: "lb/web", Token: 1<<64 - 1}}, [][2]string{{addressVariable, address}})
	for _, eval := range []string{`eval "$1"`, `set -f; eval $1`} {
		output, err := exec.Command("sh", "-c", eval+`; sh -c 'printf "%s\n" "$PYLOK_NAME" "$PYLOK_TOKEN" "$PYLOK_ADDRESS"'`, "sh", code).Output()
		want := "lb/web\n18446744073709551615\n" + address + "\n"
		if err != nil || string(output) != want {
			t.Errorf("%s: got %q (%v), want %q", eval, output, err, want)
		}
	}
}
