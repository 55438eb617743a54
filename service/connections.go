package service

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/pylok/pylok/access"
)

// connections are all open connections of a server. gRPC knows a connection only
// after its handshake, and both of its ways to stop wait for that, which somebody
// who connects and says nothing can draw out to the connect timeout.
type connections struct {
	limit    int  // how many may be open at a time; 0: any number
	perPlace int  // how many of them from one place; 0: any number
	tls      bool // whether TLS is spoken on them
	logger   *slog.Logger

	mu     sync.Mutex
	open   map[*connection]struct{}
	places tally // how many are open from each
	closed bool
	stats  ConnectionStats // but Open and Places
	// How many were refused since the log said so last, and when that was: for all, and
	// for those of one place.
	refused, refusedPlace             int
	refusedLogged, refusedPlaceLogged time.Time
	// clientCAs vouch for clients; nil: those that their handshakes were verified by.
	clientCAs *x509.CertPool

	troubles troubles
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
	c.open, c.places = nil, nil
	c.mu.Unlock()
	for conn := range open {
		conn.Conn.Close()
	}
}

// logEvery is how often the log says how many connections were refused, for each cause.
const logEvery = time.Minute

// add adds a connection, and reports whether there is room for it.
func (c *connections) add(conn *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.perPlace > 0 && c.places[conn.place] >= c.perPlace && !conn.place.isRoot() {
		c.stats.RefusedByPlace++
		if c.refusedPlace++; time.Since(c.refusedPlaceLogged) >= logEvery {
			c.logger.Warn("connections were refused: as many are open from one address or user as may be", "from", conn.place, "open", c.places[conn.place], "refused", c.refusedPlace)
			c.refusedPlace, c.refusedPlaceLogged = 0, time.Now()
		}
		return false
	}
	if c.limit > 0 && len(c.open) >= c.limit {
		c.stats.Refused++
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
	c.places.add(conn.place, math.MaxInt)
	return true
}

// check looks at the first bytes of a client: one that speaks TLS where the server does
// not, or the other way, is logged, for neither side's error says so. It reports whether
// the client speaks HTTP/1.
func (c *connections) check(conn *connection, first []byte) (http1 bool) {
	const handshake = 22 // a TLS record's type (RFC 8446, section 5.1)
	isTLS, http1 := first[0] == handshake, isHTTP1(first)
	switch {
	case isTLS && !conn.tls && socketOf(conn) == nil:
		c.complain(tlsToPlaintext, conn)
	case http1 && !conn.tls:
		c.complain(notHTTP2, conn)
	case !isTLS && conn.tls && first[0] >= ' ':
		c.complain(plaintextToTLS, conn)
	}
	return http1
}

func (c *connections) remove(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, open := c.open[conn]; !open {
		return // closed before
	}
	delete(c.open, conn)
	c.places.remove(conn.place)
}

// ConnectionStats are what is counted of connections.
type ConnectionStats struct {
	// Open are open now, from that many Places: addresses, and users of this machine.
	Open, Places int
	// Refused and RefusedByPlace were closed at once since the start, because as many
	// were open as may be in all, and from one place.
	Refused, RefusedByPlace uint64
}

func (c *connections) counted() ConnectionStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Open, stats.Places = len(c.open), len(c.places)
	return stats
}

// place is where connections come from that one can make alone: an IPv4 address, a /64 of
// IPv6, or a user of this machine, by a socket.
type place struct {
	address netip.Prefix
	isUser  bool
	uid     uint32
}

// placeOf returns where a connection comes from.
func placeOf(conn net.Conn) place {
	if socket, ok := conn.(*net.UnixConn); ok {
		if peer, err := access.PeerCredentials(socket); err == nil {
			return place{isUser: true, uid: peer.UID}
		}
		return place{} // has gone
	}
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return place{}
	}
	address, bits := tcp.AddrPort().Addr().Unmap(), 32
	if address.Is6() {
		bits = 64
	}
	prefix, _ := address.Prefix(bits)
	return place{address: prefix}
}

// placeOfCall returns where a call comes from.
func placeOfCall(ctx context.Context) place {
	if p, ok := peer.FromContext(ctx); ok {
		if address, ok := p.Addr.(*remoteAddress); ok {
			return address.connection.place
		}
	}
	return place{}
}

// tally counts something by the places that it comes from. Its zero value counts nothing
// yet.
type tally map[place]int

// add adds one, unless there are as many from the place as may be.
func (t *tally) add(p place, most int) bool {
	if (*t)[p] >= most {
		return false
	}
	if *t == nil {
		*t = make(tally)
	}
	(*t)[p]++
	return true
}

// remove takes away one that was added.
func (t *tally) remove(p place) {
	if (*t)[p]--; (*t)[p] == 0 {
		delete(*t, p)
	}
	if len(*t) == 0 {
		*t = nil // a map that was large stays so
	}
}

// isRoot reports whether it is the user that the place of all others must not keep out.
func (p place) isRoot() bool { return p.isUser && p.uid == 0 }

// String returns the place, for the log.
func (p place) String() string {
	switch {
	case p.isUser:
		return fmt.Sprintf("uid %d", p.uid)
	case p.address.IsValid() && p.address.IsSingleIP():
		return p.address.Addr().String()
	case p.address.IsValid():
		return p.address.String()
	}
	return "an unknown place"
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
		conn := &connection{Conn: accepted, all: l.all, place: placeOf(accepted), tls: l.all.tls && socketOf(accepted) == nil}
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
	place   place
	heard   atomic.Int64 // ns since the Unix epoch
	sent    atomic.Int64 // bytes
	address remoteAddress
	tls     bool // whether TLS is spoken on it

	// Of its beginning, when one goroutine alone reads and writes it:
	checked bool   // its first bytes have been looked at
	held    []byte // what was written before
	linger  bool   // a close is one of a handshake that failed: the client is to read why

	certificates []*x509.Certificate // the client's, the leaf first; all.mu guards it
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
			if err := c.begin(b[:n]); err != nil {
				return 0, err
			}
		}
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// begin looks at the first bytes, and then sends what was held.
func (c *connection) begin(first []byte) error {
	c.checked = true
	if c.all.check(c, first) {
		refuseHTTP1(c.Conn, c.tls)
		return errHTTP1
	}
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = nil
	return err
}

var errHTTP1 = errors.New("the client speaks HTTP/1")

// Write implements net.Conn. What gRPC says in plaintext before it has heard the client is
// held: who speaks HTTP/1 could not read the answer behind it.
func (c *connection) Write(b []byte) (int, error) {
	if !c.checked && !c.tls {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	if c.linger {
		c.linger = false
		linger(c.Conn)
	}
	c.all.remove(c)
	return c.Conn.Close()
}

// silence returns how long the client has not been heard.
func (c *connection) silence() time.Duration {
	return time.Duration(time.Now().UnixNano() - c.heard.Load())
}
