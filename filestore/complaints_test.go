package filestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pylok/pylok/lock"
)

func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logged)
		c := newComplaints(log.logger())
		lines := func(want int, parts ...string) {
			t.Helper()
			text := log.String()
			log.text.Reset()
			if n := strings.Count(text, "\n"); n != want {
				t.Errorf("there are %d lines, want %d:\n%s", n, want, text)
			}
			for _, part := range parts {
				if !strings.Contains(text, part) {
					t.Errorf("the log has no %q:\n%s", part, text)
				}
			}
		}
		denied, broken := errors.New("denied"), errors.New("broken")
		for range 10 {
			c.bad("it fails", "d", denied)
			time.Sleep(time.Second)
		}
		lines(1, `level=WARN msg="it fails" directory=d error=denied times=1`)
		c.bad("it fails", "e", denied)
		lines(1, "directory=e")
		for range 2 {
			c.bad("it fails", "d", broken)
		}
		lines(1, "error=broken times=11")
		time.Sleep(repeatAfter)
		c.bad("it fails", "d", broken)
		lines(1, "error=broken times=13")
		for range 2 {
			c.well("it fails", "d")
		}
		lines(1, `level=INFO msg="no longer: it fails" directory=d times=13`)
		c.well("it fails", "nowhere")
		for range 20 { // now and then
			c.bad("it fails", "d", broken)
			c.well("it fails", "d")
			time.Sleep(time.Second)
		}
		lines(0)
		time.Sleep(restAfter)
		c.bad("it fails", "d", broken)
		lines(1, "error=broken times=1")
		c.forget("it fails", "d")
		c.well("it fails", "d")
		lines(0)

		for i := range 3 * mostPlaces {
			c.bad("much fails", fmt.Sprint("d", i), denied)
		}
		lines(mostPlaces+1, "in more places")
		for i := range 3 * mostPlaces {
			c.well("much fails", fmt.Sprint("d", i))
		}
		lines(mostPlaces)
		time.Sleep(restAfter)
		c.bad("all fails", "", denied)
		if n := len(c.about); n > 3 { // e, the others of what fails much, and this
			t.Errorf("%d are remembered", n)
		}
	})
}

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
	if n := strings.Count(log.String(), unreadableDirectory); n != directories {
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
			return strings.Contains(log.String(), `"no longer: `+unreadableDirectory+`" directory=`+name+" ")
		})
	}
}

// TestNoMoreWatches: that inotify is used up is told once, not for each directory.
func TestNoMoreWatches(t *testing.T) {
	log := new(logged)
	s, _ := openHooked(t, Config{Root: t.TempDir(), Logger: log.logger()})
	n := newNotifier(s, false)
	defer n.close()
	for round := range 3 {
		for i := range 20 {
			n.watchFailed(fmt.Sprint("d", i), syscall.ENOSPC)
		}
		if round == 0 {
			continue
		}
		n.watchAgain() // they are gone
	}
	if text := log.String(); strings.Count(text, noNotifications) != 1 {
		t.Errorf("want one line of\n%s", text)
	}
	for i := range 20 {
		n.forget(fmt.Sprint("d", i))
	}
	if text := log.String(); strings.Count(text, "no longer: "+noNotifications) != 1 {
		t.Errorf("want one line more of\n%s", text)
	}
}
