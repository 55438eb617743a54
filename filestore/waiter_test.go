package filestore

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// TestWaiterOnAFullDisk: who waits for a lock that is released on a full disk keeps the
// place, and is granted the lock when there is room again.
func TestWaiterOnAFullDisk(t *testing.T) {
	w, _ := openHealthy(t)
	m, err := manager.New(w, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	granted := make(chan error, 1)
	name := lock.MustParseName("a")
	go func() {
		_, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: name, Holder: "carol", Wait: time.Hour})
		granted <- err
	}()
	waiters := func() int {
		l, err := m.Status(t.Context(), lock.Caller{}, name)
		if err != nil {
			t.Fatal(err)
		}
		return l.Waiters
	}
	for waiters() == 0 {
		time.Sleep(time.Millisecond)
	}
	tried := make(chan struct{}, 1000)
	w.disk.arm(func(_ int, op, _ string) error {
		switch op {
		case "create", "allocate", "mkdir":
			select {
			case tried <- struct{}{}:
			default:
			}
			return syscall.ENOSPC
		}
		return nil
	})
	if _, err := m.Unlock(t.Context(), lock.Caller{Name: callerOf("alice")}, lock.UnlockRequest{Name: name, Holder: "alice"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-tried
	}
	if _, err := m.Lock(t.Context(), lock.Caller{}, lock.LockRequest{Name: name, Holder: "dora"}); !errors.Is(err, lock.ErrReadOnly) {
		t.Errorf("a request beside the waiter: %v, want %v", err, lock.ErrReadOnly)
	}
	if waiters() != 1 {
		t.Error("the waiter has lost its place")
	}
	w.disk.arm(nil)
	if err := <-granted; err != nil {
		t.Errorf("the waiter, with room again: %v", err)
	}
	m.Close()
	_ = w.Close()
}
