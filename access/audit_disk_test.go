package access

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// smallDisk is a file on a disk that has some room, and after that none until it is given
// more.
type smallDisk struct {
	mu   sync.Mutex
	text []byte
	room int
}

func (d *smallDisk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(d.room, len(p))
	d.room -= n
	d.text = append(d.text, p[:n]...)
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *smallDisk) Close() error { return nil }

// TestAuditOnFullDisk: what a full disk has of a line spoils no other, and once there is
// room again the file says how many are missing.
func TestAuditOnFullDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(file, []byte("{\"time\":"), 0o600); err != nil { // of a server that was killed
		t.Fatal(err)
	}
	a, err := OpenAudit(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a.Record(Record{Name: "after-the-kill", Allowed: true})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if names, _ := audited(text); len(names) != 1 || names[0] != "after-the-kill" {
		t.Errorf("after a line that is torn: %q", text)
	}

	for room := range 400 {
		disk := &smallDisk{room: room}
		a := &Audit{logger: slog.New(slog.DiscardHandler), lines: make(chan auditLine, 16), ended: make(chan struct{}), file: disk}
		for range 3 {
			a.Record(Record{Time: time.Unix(1, 0), Name: "x", Allowed: true})
		}
		close(a.lines)
		a.write()
		disk.room = 1 << 20
		a.lines, a.ended = make(chan auditLine, 16), make(chan struct{})
		a.Record(Record{Time: time.Unix(2, 0), Name: "y", Allowed: true})
		close(a.lines)
		a.write()
		names, dropped := audited(disk.text)
		if len(names)+dropped != 4 || names[len(names)-1] != "y" || dropped != a.Dropped() {
			t.Fatalf("with room for %d bytes, of 4 lines there are %q, and %d are said to be missing: %s", room, names, dropped, disk.text)
		}
	}
}

// audited returns the names of the whole lines of an audit file, and how many it says are
// missing.
func audited(text []byte) (names []string, dropped int) {
	for line := range bytes.Lines(text) {
		var l struct {
			auditLine
			Dropped int
		}
		if json.Unmarshal(line, &l) != nil {
			continue
		}
		if dropped += l.Dropped; l.Dropped == 0 {
			names = append(names, l.Name)
		}
	}
	return names, dropped
}
