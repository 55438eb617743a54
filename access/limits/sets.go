package limits

import (
	"context"

	"github.com/pylok/pylok/lock"
)

// LockSet implements lock.Locks.
func (l *Limits) LockSet(ctx context.Context, caller lock.Caller, request lock.SetRequest) (lock.SetGrant, error) {
	return lock.SetGrant{}, errNotYet
}

// UnlockSet implements lock.Locks.
func (l *Limits) UnlockSet(ctx context.Context, caller lock.Caller, request lock.UnlockSetRequest) ([]lock.SetAnswer, error) {
	return nil, errNotYet
}

// RenewSet implements lock.Locks.
func (l *Limits) RenewSet(ctx context.Context, caller lock.Caller, request lock.RenewSetRequest) ([]lock.SetAnswer, error) {
	return nil, errNotYet
}

// HandOver implements lock.Locks.
func (l *Limits) HandOver(ctx context.Context, caller lock.Caller, request lock.HandOverRequest) (lock.HandOverAnswer, error) {
	return lock.HandOverAnswer{}, errNotYet
}

// Ask implements lock.Locks.
func (l *Limits) Ask(ctx context.Context, caller lock.Caller, request lock.AskRequest) (lock.AskAnswer, error) {
	return lock.AskAnswer{}, errNotYet
}

// Dismiss implements lock.Locks.
func (l *Limits) Dismiss(ctx context.Context, caller lock.Caller, request lock.DismissRequest) (lock.Waiter, error) {
	return lock.Waiter{}, errNotYet
}

var errNotYet = lock.Invalid("name", "this server cannot do that yet")
