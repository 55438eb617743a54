package filestore_test

import (
	"testing"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/locktest"
)

func openStore(t *testing.T) lock.Store {
	t.Helper()
	s, err := filestore.Open(t.Context(), filestore.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) { locktest.Test(t, openStore) }

func TestManager(t *testing.T) { locktest.TestManager(t, openStore) }
