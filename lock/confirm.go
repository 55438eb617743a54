package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// confirmations are the grants of which it is not known yet whether a caller can be told.
// A request that was sent more than once has one grant, which stands as soon as one of its
// callers has been told.
type confirmations struct {
	mu   sync.Mutex
	open map[Token]*confirmation
}

// confirmation is of one grant.
type confirmation struct {
	asked int  // callers who are being asked
	told  bool // one of them, or another, has it
}

// errUntold: none of a grant's callers can be told.
var errUntold = errors.New("the lock was granted to nobody who can be told")

// confirm calls ask, and returns its error. It is an errUntold if no other caller has been
// told, or is being asked.
func (c *confirmations) confirm(ctx context.Context, token Token, ask func(context.Context) error) error {
	c.mu.Lock()
	one := c.open[token]
	if one == nil {
		one = &confirmation{}
		c.open[token] = one
	}
	one.asked++
	c.mu.Unlock()

	err := ask(ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	one.asked--
	one.told = one.told || err == nil
	if one.asked == 0 {
		delete(c.open, token)
		if !one.told {
			return fmt.Errorf("%w: %w", errUntold, err)
		}
	}
	return err
}

// told notes that a caller has been told of a grant.
func (c *confirmations) told(token Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.open[token]; one != nil {
		one.told = true
	}
}

// giveBack ends a hold that nobody could be told of, and hands the lock on; later, where
// the store cannot do it for now.
func (m *Manager) giveBack(ctx context.Context, l Lock) error {
	m.mu.Lock()
	m.untold[l.Token] = true
	m.mu.Unlock()
	_, err := m.Unlock(context.WithoutCancel(ctx), UnlockRequest{Name: l.Name, Token: l.Token, Reason: "the caller could not be reached when it was granted"})
	if err != nil && mayPass(err) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.undoAfter(l, minRetryPause)
		return err
	}
	m.adopt(l.Token)
	if errors.Is(err, ErrNotHolder) || errors.Is(err, ErrNotLocked) {
		return nil // it has ended by itself
	}
	return err
}
