package client

import (
	"time"

	"google.golang.org/grpc"
)

// DialTest is Dial with another clock for leases, and with options of gRPC's.
func DialTest(address string, options Options, boottime func() time.Duration, more ...grpc.DialOption) (*Client, error) {
	c, err := dial(address, options, more...)
	if err == nil {
		c.boottime = boottime
	}
	return c, err
}

// Kept returns how many Holds and Sets Close would release.
func (c *Client) Kept() int {
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
	return len(c.keeper.kept)
}
