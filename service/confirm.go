package service

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// A client that stands in line says nothing for as long as it waits. If its machine, or the
// network, has gone meanwhile, gRPC finds out within pingAfter and pingTimeout; until then
// the lock would be granted to nobody, and without a ttl for ever. So before a grant is
// answered to a client that has been silent, something is sent to it, the headers of the
// answer, and the grant stands once the client's machine has acknowledged that.

const (
	// silentAfter is how long ago a client was heard that has to be asked.
	silentAfter = 2 * time.Second
	// confirmWithin is how long its machine has to acknowledge: some retransmissions.
	confirmWithin = 5 * time.Second
	// The operating system does not tell when something is acknowledged, so confirm asks
	// again and again. The pauses double, within these bounds.
	minConfirmPause, maxConfirmPause = 100 * time.Microsecond, 50 * time.Millisecond
)

// errUnacknowledged is returned when the client's machine has not acknowledged what was
// sent to it.
var errUnacknowledged = fmt.Errorf("%w: the caller's machine cannot be reached any more", context.Canceled)

// confirm returns nil once the caller, who has waited, is known to be there still.
func (s *Service) confirm(ctx context.Context) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	address, ok := p.Addr.(*remoteAddress)
	if !ok || address.connection.silence() < silentAfter {
		return nil
	}
	c := address.connection
	began, sent := time.Now(), c.sent.Load()
	if err := grpc.SendHeader(ctx, metadata.MD{}); err != nil {
		return err
	}
	for {
		isSent, waited := c.sent.Load() > sent, time.Since(began)
		acknowledged, err := isAcknowledged(c.Conn)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil: // nobody can tell, or it is closed, which ctx will say
			return nil
		case isSent && acknowledged, c.silence() < waited:
			return nil
		case waited > s.confirmWithin:
			return errUnacknowledged
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(max(waited, minConfirmPause), maxConfirmPause)):
		}
	}
}
