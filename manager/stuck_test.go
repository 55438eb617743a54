package manager_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
)

// A lease whose lock file cannot be changed is tried again, more and more rarely, and
// each cause is logged once. When it can be changed, it ends.
func TestExpiryOfAFileThatCannotBeChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := open(t)
		var mu sync.Mutex // guards tried and why
		var log bytes.Buffer
		started := time.Now()
		config := manager.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}
		m, err := manager.New(store, config.WithBoottime(func() time.Duration { return time.Since(started) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		mustLock(t, m, lock.LockRequest{Name: nameA, Holder: "alice", TTL: time.Second})
		var tried []time.Duration
		began := time.Now()
		why := "sticky"
		store.beforeCommit.set(func(*lock.Change) error {
			mu.Lock()
			defer mu.Unlock()
			tried = append(tried, time.Since(began))
			return &lock.Error{Reason: lock.ErrLockFile, Message: why}
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		mu.Lock()
		if len(tried) < 10 || len(tried) > 20 {
			t.Errorf("tried %d times in 10 minutes, at %v; want pauses of 1 s, 2 s, 4 s and so on to 1 min", len(tried), tried)
		}
		for i := 2; i < len(tried); i++ {
			if pause, before := tried[i]-tried[i-1], tried[i-1]-tried[i-2]; pause < before-time.Second {
				t.Errorf("a pause of %v after one of %v", pause, before)
			}
		}
		why = "immutable"
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if l := status(t, m, nameA); l.Holder != "alice" {
			t.Errorf("the lock is %+v; want alice's hold", l)
		}
		store.beforeCommit.remove()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if l := status(t, m, nameA); l.Held() {
			t.Errorf("the lock is %+v; want it free", l)
		}
		m.Close() // it logs nothing after that
		for _, why := range []string{"sticky", "immutable"} {
			if n := strings.Count(log.String(), fmt.Sprintf("error=%s", why)); n != 1 {
				t.Errorf("%s is logged %d times, want once:\n%s", why, n, log.String())
			}
		}
	})
}
