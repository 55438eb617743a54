package client

import (
	"time"

	"google.golang.org/grpc"
)

// DialTest is Dial with another clock for leases, and with options of gRPC's.
func DialTest(address string, boottime func() time.Duration, more ...grpc.DialOption) (*Client, error) {
	c, err := dial(address, Options{}, more...)
	if err == nil {
		c.boottime = boottime
	}
	return c, err
}
