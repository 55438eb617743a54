package manager

import (
	"context"

	"github.com/pylok/pylok/lock"
)

// History returns a page of past events, as the store has them. At most
// Config.MaxHistories read at a time, and the others wait for one of them to end: to read
// the past takes the disk, a processor and some MiB of memory.
func (m *Manager) History(ctx context.Context, caller lock.Caller, q lock.HistoryQuery, from lock.Revision, limit int) (lock.HistoryPage, error) {
	select {
	case m.histories <- struct{}{}:
		defer func() { <-m.histories }()
	case <-ctx.Done():
		return lock.HistoryPage{}, ctx.Err()
	case <-m.running.Done():
		return lock.HistoryPage{}, shuttingDown()
	}
	return m.store.History(ctx, q, from, limit)
}
