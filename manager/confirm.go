package manager

import (
	"context"
	"errors"

	"github.com/pylok/pylok/lock"
)

// delivery is a grant on the way to the callers who waited for it, by the token of its first
// hold. A request that was sent more than once has one grant, which stands as soon as one of
// its callers has been told.
type delivery struct {
	open int  // callers of whom it is not known yet whether they can be told
	told bool // one of them, or another, has it
}

// deliver begins the delivery of a grant to callers, each of whom ends it by tell.
func (m *Manager) deliver(token lock.Token, callers int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deliveries[token] = &delivery{open: callers}
}

// tell ends the delivery of a grant to one caller, who is asked with confirm, if that is
// set, and returns an error if the caller cannot be told. Where none of the callers can
// be, the holds are given back.
func (m *Manager) tell(ctx context.Context, locks []lock.Lock, actor string, confirm func(context.Context) error) error {
	err := ctx.Err()
	if err == nil && confirm != nil {
		err = confirm(ctx)
	}
	if m.delivered(locks, actor, err == nil) {
		return err
	}
	return errors.Join(err, m.giveBack(locks))
}

// delivered notes whether one caller has been told of a grant. It reports false if that
// was the last, and nobody has been.
func (m *Manager) delivered(locks []lock.Lock, actor string, told bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.deliveries[locks[0].Token]
	d.open--
	d.told = d.told || told
	if d.open > 0 {
		return true
	}
	delete(m.deliveries, locks[0].Token)
	if !d.told {
		for _, l := range locks {
			m.untold[l.Token] = actor // until somebody comes for it before it is given back
		}
	}
	return d.told
}

// giveBack ends holds that nobody could be told of, and hands the locks on; later, where the
// store cannot do it for now.
func (m *Manager) giveBack(locks []lock.Lock) error {
	err := m.undoAgain(locks...)
	if err != nil && mayPass(err) {
		m.undoLater(locks, err)
		return err
	}
	for _, l := range locks {
		m.adopt(l.Token)
	}
	return err
}
