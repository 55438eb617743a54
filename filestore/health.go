package filestore

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/filestore/internal/pool"
	"github.com/pylok/pylok/lock"
)

// health is what ails a store: why it takes no changes, or not all. It is told to
// Config.Health, and logged once.
type health struct {
	logger *slog.Logger
	tell   func(error)

	failed  atomic.Pointer[error] // why nothing can be written any more
	trouble atomic.Pointer[error] // why changes are refused until the disk works again
	away    atomic.Pointer[error] // why they are until the root is in its place again

	telling sync.Mutex // held while tell is called; guards what follows
	told    *error     // what it was told last
}

// failure returns why nothing can be written any more, or nil.
func (h *health) failure() error {
	if err := h.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes the store read-only until it is opened again.
func (h *health) fail(err error) {
	if h.failed.CompareAndSwap(nil, &err) {
		h.tellHealth()
		h.logger.Error("the store is read-only until the server starts again", "error", err)
	}
}

// ioError refuses a change that the file system would not take.
func (h *health) ioError(err error) error {
	if h.trouble.Swap(&err) == nil {
		h.tellHealth()
		h.logger.Error("the store cannot write", "error", err)
	}
	return readOnly(err)
}

// recovered notes that the disk takes changes.
func (h *health) recovered() {
	if h.trouble.Load() != nil && h.trouble.Swap(nil) != nil {
		h.tellHealth()
		h.logger.Info("the store can write again")
	}
}

// tellHealth tells what ails the store now, the gravest if there are several, unless that
// was told before.
func (h *health) tellHealth() {
	h.telling.Lock()
	defer h.telling.Unlock()
	now := cmp.Or(h.failed.Load(), h.away.Load(), h.trouble.Load())
	switch {
	case now == h.told:
		return
	case now == nil:
		h.tell(nil)
	default:
		h.tell(*now)
	}
	h.told = now
}

// probeEvery is how often a store that could not write tries again.
const probeEvery = time.Second

// probes looks, while changes are refused for want of a working disk, whether it
// works again, until ctx ends.
func (s *Store) probes(ctx context.Context) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if s.trouble.Load() == nil {
			continue
		}
		s.between(func(*commit) { s.probe() })
	}
}

// probe tries what a change needs of the disk. The caller must hold committing.
func (s *Store) probe() {
	name := s.pool.Name(newSuffix)
	_, err := pool.Make(s.work, name, make([]byte, lock.MaxFileBytes))
	if err == nil {
		err = s.work.Remove(name)
	}
	if err == nil {
		err = s.journal.MakeRoom()
	}
	if err == nil {
		s.recovered()
	}
}

func outcomeUnknown(err error) error {
	return &lock.Error{
		Reason:  lock.ErrOutcomeUnknown,
		Message: "the change could not be made durable and may or may not be there when the server has been started again; ask then with the same request_id",
		Err:     err,
	}
}

func readOnly(err error) error {
	return &lock.Error{
		Reason:  lock.ErrReadOnly,
		Message: fmt.Sprintf("the store cannot write (%v); nothing changed. Unlocking may still work; ask again when there is room", disk.ReasonOf(err)),
		Err:     err,
	}
}
