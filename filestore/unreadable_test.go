package filestore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pylok/pylok/filestore/internal/complaints"
	"github.com/pylok/pylok/lock"
)

// TestUnreadableDirectories: directories that cannot be read are told once each, and once
// more when they can be read again; then what is in them is seen.
func TestUnreadableDirectories(t *testing.T) {
	const directories = 20
	root, log := t.TempDir(), new(logged)
	for i := range directories {
		dir := filepath.Join(root, fmt.Sprint("lost+found-", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s, d := openHooked(t, Config{Root: root, Logger: log.logger()})
	var tried atomic.Int64
	d.on(func(op, name string) error {
		if op == "opendir" && strings.HasPrefix(name, "lost+found-") {
			tried.Add(1)
			return syscall.EACCES
		}
		return nil
	})
	soon(t, "all have been tried many times", func() bool { return tried.Load() > 10*directories })
	if n := strings.Count(log.String(), complaints.UnreadableDirectory); n != directories {
		t.Errorf("there are %d lines for %d directories:\n%s", n, directories, log)
	}
	for i := range directories {
		handWrite(t, root, map[string]string{fmt.Sprintf("lost+found-%d/x", i): "n: 1\n"})
	}
	d.hook.Store(nil)
	for i := range directories {
		name := fmt.Sprintf("lost+found-%d", i)
		await(t, s, name+"/x", lock.Lock.Held)
		soon(t, "it is told", func() bool {
			return strings.Contains(log.String(), `"no longer: `+complaints.UnreadableDirectory+`" directory=`+name+" ")
		})
	}
}
