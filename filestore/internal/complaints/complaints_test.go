package complaints

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(strings.Builder)
		c := New(slog.New(slog.NewTextHandler(log, nil)))
		lines := func(want int, parts ...string) {
			t.Helper()
			text := log.String()
			log.Reset()
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
			c.Bad("it fails", "d", denied)
			time.Sleep(time.Second)
		}
		lines(1, `level=WARN msg="it fails" directory=d error=denied times=1`)
		c.Bad("it fails", "e", denied)
		lines(1, "directory=e")
		for range 2 {
			c.Bad("it fails", "d", broken)
		}
		lines(1, "error=broken times=11")
		time.Sleep(repeatAfter)
		c.Bad("it fails", "d", broken)
		lines(1, "error=broken times=13")
		for range 2 {
			c.Well("it fails", "d")
		}
		lines(1, `level=INFO msg="no longer: it fails" directory=d times=13`)
		c.Well("it fails", "nowhere")
		for range 20 { // now and then
			c.Bad("it fails", "d", broken)
			c.Well("it fails", "d")
			time.Sleep(time.Second)
		}
		lines(0)
		time.Sleep(restAfter)
		c.Bad("it fails", "d", broken)
		lines(1, "error=broken times=1")
		c.Forget("it fails", "d")
		c.Well("it fails", "d")
		lines(0)

		for i := range 3 * mostPlaces {
			c.Bad("much fails", fmt.Sprint("d", i), denied)
		}
		lines(mostPlaces+1, "in more places")
		for i := range 3 * mostPlaces {
			c.Well("much fails", fmt.Sprint("d", i))
		}
		lines(mostPlaces)
		time.Sleep(restAfter)
		c.Bad("all fails", "", denied)
		if n := len(c.about); n > 3 { // e, the others of what fails much, and this
			t.Errorf("%d are remembered", n)
		}
	})
}
