package service

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connections are all open connections of a server. gRPC knows a connection only
// after its handshake, and both of its ways to stop wait for that, which somebody
// who connects and says nothing can draw out to the connect timeout.
type connections struct {
	limit  int  // how many may be open at a time; 0: any number
	tls    bool // whether TLS is spoken on them
	logger *slog.Logger

	mu     sync.Mutex
	open   map[*connection]struct{}
	closed bool
	// How many were refused since the log said so last, and when that was.
	refused       int
	refusedLogged time.Time
	// Likewise for clients that speak TLS where the server does not, or the other way.
	mismatched       int
	mismatchedLogged time.Time
}

// listener returns a listener whose connections are among c.
func (c *connections) listener(listener net.Listener) net.Listener {
	return &connectionListener{Listener: listener, all: c}
}

// close closes all connections, and each that is still accepted.
func (c *connections) close() {
	c.mu.Lock()
	c.closed = true
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for conn := range open {
		conn.Conn.Close()
	}
}

// logEvery is how often the log says how many connections were refused or mismatched.
const logEvery = time.Minute

// add adds a connection, and reports whether there is room for it.
func (c *connections) add(conn *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.limit > 0 && len(c.open) >= c.limit {
		if c.refused++; time.Since(c.refusedLogged) >= logEvery {
			c.logger.Warn("connections were refused: as many are open as may be; close some, or raise the limit of open files (ulimit -n)", "open", len(c.open), "refused", c.refused)
			c.refused, c.refusedLogged = 0, time.Now()
		}
		return false
	}
	if c.open == nil {
		c.open = make(map[*connection]struct{})
	}
	c.open[conn] = struct{}{}
	return true
}

// checkTLS logs a client that speaks TLS where the server does not, or the other way, by
// its first bytes: neither side's error says so.
func (c *connections) checkTLS(first []byte) {
	const handshake = 22 // a TLS record's type (RFC 8446, section 5.1)
	isTLS := first[0] == handshake
	if isTLS == c.tls || !isTLS && first[0] < ' ' {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mismatched++; time.Since(c.mismatchedLogged) < logEvery {
		return
	}
	text := "clients do not speak TLS, which this server does: they have to, as with pylok --tls or --ca"
	if isTLS {
		text = "clients speak TLS, which this server does not: they have to leave it, or it needs --tls-cert and --tls-key"
	}
	c.logger.Warn(text, "clients", c.mismatched)
	c.mismatched, c.mismatchedLogged = 0, time.Now()
}

func (c *connections) remove(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

type connectionListener struct {
	net.Listener
	all *connections
}

// Accept implements net.Listener.
func (l *connectionListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := &connection{Conn: accepted, all: l.all}
		conn.address = remoteAddress{accepted.RemoteAddr(), conn}
		conn.heard.Store(time.Now().UnixNano()) // by connecting
		if l.all.add(conn) {
			return conn, nil
		}
		accepted.Close() // nobody is waiting for what this says
	}
}

// connection is an accepted connection, which knows when the client was heard last and
// how much was sent to it.
type connection struct {
	net.Conn
	all     *connections
	heard   atomic.Int64 // ns since the Unix epoch
	sent    atomic.Int64 // bytes
	address remoteAddress
	checked bool // checkTLS has seen its first bytes; only Read uses it
}

// remoteAddress is the client's address as calls know it, with the way back to the
// connection that they came by.
type remoteAddress struct {
	net.Addr
	connection *connection
}

// RemoteAddr implements net.Conn.
func (c *connection) RemoteAddr() net.Addr { return &c.address }

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		if !c.checked {
			c.checked = true
			if socketOf(c) == nil {
				c.all.checkTLS(b[:n])
			}
		}
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.all.remove(c)
	return c.Conn.Close()
}

// silence returns how long the client has not been heard.
func (c *connection) silence() time.Duration {
	return time.Duration(time.Now().UnixNano() - c.heard.Load())
}
