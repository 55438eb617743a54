package filestore_test

import (
	"path/filepath"
	"syscall"
	"testing"
)

func makePipe(t *testing.T, root string) {
	if err := syscall.Mkfifo(filepath.Join(root, "x.lock"), 0o644); err != nil {
		t.Fatal(err)
	}
}
