package access_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/lock"
)

// TestAuditSaysWhen: the line that says how many are missing has the time at which it does.
func TestAuditSaysWhen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	a, err := access.OpenAudit(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 1200 { // 1,000 at once
		a.Record(access.Record{Time: time.Now(), Verb: access.View, Name: "x"})
	}
	a.Reopen()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range linesOf(t, file) {
		if l["dropped"] != nil {
			if l["time"] == "0001-01-01T00:00:00Z" {
				t.Errorf("the line is %v", l)
			}
		}
	}
}

// TestAuditCountsAtTheEnd: what was dropped last is counted too.
func TestAuditCountsAtTheEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	a, err := access.OpenAudit(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 1500 {
		a.Record(access.Record{Time: time.Now(), Verb: access.View, Name: "x"})
	}
	d := a.Dropped()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range linesOf(t, file) {
		if l["dropped"] != nil {
			n += int(l["dropped"].(float64))
		}
	}
	if n != d {
		t.Errorf("file counts %d dropped, want %d", n, d)
	}
}

// TestAuditReopensOnAHangingDisk: the order to open the file anew is not lost when the queue
// is full, here of a pipe that nobody reads, and is no line.
func TestAuditReopensOnAHangingDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := access.OpenAudit(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 20000 {
		a.Record(access.Record{Time: time.Now(), Verb: access.View, Name: "x", Allowed: true})
	}
	if a.Dropped() == 0 {
		t.Fatal("nothing dropped")
	}
	d := a.Dropped()
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	a.Reopen()
	if a.Dropped() != d {
		t.Errorf("Reopen counted as a dropped line: %d to %d", d, a.Dropped())
	}
	go func() {
		b := make([]byte, 1<<16)
		for {
			if _, err := r.Read(b); err != nil {
				return
			}
		}
	}()
	a.Close()
	r.Close()
	if _, err := os.Stat(file); err != nil {
		t.Errorf("not opened anew: %v", err)
	}
}

// fullNote is an access.Note on a disk that has no room and cannot be read.
type fullNote struct{}

func (fullNote) Load() ([]byte, error) { return nil, syscall.EIO }
func (fullNote) Save([]byte) error     { return syscall.ENOSPC }

// TestGuardWatchOnAFullDisk: that the note cannot be saved keeps nobody from watching.
func TestGuardWatchOnAFullDisk(t *testing.T) {
	g := newGuarded(t, "  - {who: [\"*\"], may: [view], locks: [\"a/**\"]}\n", fullNote{})
	ctx, ci := g.ci()
	for _, err := range g.Watch(ctx, ci, lock.WatchRequest{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}
