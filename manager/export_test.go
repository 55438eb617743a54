package manager

import "time"

// WithBoottime returns the Config with another clock for leases.
func (c Config) WithBoottime(boottime func() time.Duration) Config {
	c.boottime = boottime
	return c
}
