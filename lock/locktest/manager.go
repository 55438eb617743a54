package locktest

import (
	"testing"

	"github.com/pylok/pylok/lock"
)

func TestManager(t *testing.T, open func(t *testing.T) lock.Store) {}
