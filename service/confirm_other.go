//go:build !linux

package service

import (
	"errors"
	"net"
)

// isAcknowledged cannot tell here: a caller who is gone shows by keepalive alone.
func isAcknowledged(net.Conn) (bool, error) { return false, errors.ErrUnsupported }
