package main

import "testing"

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
