package history

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

var errCut = errors.New("the test has cut the connection")

// link is a client's connection to one daemon, which the test can cut.
type link struct {
	pylokv1.LockServiceClient
	conn *grpc.ClientConn
	// swallow makes the next bytes from the server cut the connection instead
	// of arriving: most often they are the answer of a change that is made.
	swallow atomic.Bool

	mu   sync.Mutex
	open net.Conn
}

func dial(g *generation) (*link, error) {
	l := &link{}
	var err error
	l.conn, err = grpc.NewClient("passthrough:///"+g.address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond, Multiplier: 2},
			MinConnectTimeout: watchdog,
		}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			// Its port may be another daemon's by now.
			if g.over.Load() {
				return nil, errCut
			}
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			l.mu.Lock()
			l.open = conn
			l.mu.Unlock()
			return &linkConn{conn, l}, nil
		}),
	)
	if err != nil {
		return nil, err
	}
	l.LockServiceClient = pylokv1.NewLockServiceClient(l.conn)
	return l, nil
}

// cut closes the connection under the calls that run on it.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		l.open.Close()
	}
}

type linkConn struct {
	net.Conn
	link *link
}

// Read implements net.Conn.
func (c *linkConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.link.swallow.CompareAndSwap(true, false) {
		c.Conn.Close()
		return 0, errCut
	}
	return n, err
}
