package service

import (
	"net"
	"sync"
)

// connections are all open connections of a server. gRPC knows a connection only
// after its handshake, and both of its ways to stop wait for that, which somebody
// who connects and says nothing can draw out to the connect timeout.
type connections struct {
	mu     sync.Mutex
	open   map[*connection]struct{}
	closed bool
}

// of returns a listener whose connections are among c.
func (c *connections) of(listener net.Listener) net.Listener {
	return &connectionListener{Listener: listener, all: c}
}

// close closes all connections, those that are still to come too.
func (c *connections) close() {
	c.mu.Lock()
	c.closed = true
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for one := range open {
		one.Conn.Close()
	}
}

func (c *connections) add(one *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		one.Conn.Close()
		return
	}
	if c.open == nil {
		c.open = make(map[*connection]struct{})
	}
	c.open[one] = struct{}{}
}

func (c *connections) remove(one *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, one)
}

type connectionListener struct {
	net.Listener
	all *connections
}

// Accept implements net.Listener.
func (l *connectionListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	one := &connection{Conn: accepted, all: l.all}
	l.all.add(one)
	return one, nil
}

type connection struct {
	net.Conn
	all *connections
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.all.remove(c)
	return c.Conn.Close()
}
