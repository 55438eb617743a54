package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// address resolves the address to listen on, and refuses one that would open the
// locks to the network by accident; nil: the socket alone is served.
func (c *config) address() (*net.TCPAddr, error) {
	if c.listen == none {
		return nil, nil
	}
	address, err := resolve("--listen", c.listen)
	if err != nil {
		return nil, err
	}
	if address.IP.IsLoopback() || c.tlsCert != "" || c.insecure {
		return address, nil
	}
	return nil, usageError{fmt.Errorf("%s can be reached from other machines, and without TLS whoever reaches it can read, take and break locks: give --tls-cert and --tls-key, or --insecure where that is meant", c.listen)}
}

func resolve(flag, text string) (*net.TCPAddr, error) {
	if _, _, err := net.SplitHostPort(text); err != nil {
		return nil, usageError{fmt.Errorf("%s is %q; give HOST:PORT, such as 127.0.0.1:5625", flag, text)}
	}
	address, err := net.ResolveTCPAddr("tcp", text)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s is %q: %w", flag, text, err)}
	}
	return address, nil
}

func listen(flag string, address *net.TCPAddr) (net.Listener, error) {
	listener, err := net.ListenTCP("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another program, maybe another pylokd: stop that one, or choose another address with %s", address, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return listener, nil
}
