package access_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/lock"
)

// linesOf reads an audit file.
func linesOf(t *testing.T, file string) (lines []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var object map[string]any
		if err := json.Unmarshal(line, &object); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, object)
	}
	return lines
}

func TestAudit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	a, err := access.OpenAudit(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; want mode 0600", info, err)
	}
	bob := lock.Caller{Name: "unix:bob", Proof: "socket", Peer: "/run/pylok/pylok.sock"}
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	a.Record(access.Record{Time: at, Caller: bob, Verb: access.Break, Name: "prod/x", Reason: "denied\nfor good"})
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	a.Reopen()
	a.Record(access.Record{Time: at, Caller: bob, Verb: access.Break, Name: "dev/x", Allowed: true, Reason: strings.Repeat("x", 1<<20)})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a.Record(access.Record{}) // after Close: nothing
	before, after := linesOf(t, file+".1"), linesOf(t, file)
	if len(before) != 1 || len(after) != 1 {
		t.Fatalf("%d lines before it was opened anew, and %d after; want one each", len(before), len(after))
	}
	for key, want := range map[string]any{"time": "2026-11-28T12:00:00Z", "caller": "unix:bob", "proof": "socket", "peer": "/run/pylok/pylok.sock", "verb": "break", "name": "prod/x", "allowed": false, "reason": "denied\nfor good"} {
		if before[0][key] != want {
			t.Errorf("%s is %v, want %v", key, before[0][key], want)
		}
	}
	if after[0]["allowed"] != true || len(after[0]["reason"].(string)) > 1024 {
		t.Errorf("the second line is %v", after[0])
	}
}

// TestAuditFlood: who is refused again and again fills no disk, and what is left out is
// counted; what was allowed is written all the same.
func TestAuditFlood(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	a, err := access.OpenAudit(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const refusals = 200_000
	for range refusals {
		a.Record(access.Record{Verb: access.View, Name: "x"})
	}
	for deadline := time.Now().Add(time.Minute); ; { // the queue may be full still
		dropped := a.Dropped()
		if a.Record(access.Record{Verb: access.Break, Name: "y", Allowed: true}); a.Dropped() == dropped {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the queue stays full")
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	var written, dropped, allowed int
	for _, line := range linesOf(t, file) {
		switch {
		case line["dropped"] != nil:
			dropped += int(line["dropped"].(float64))
		case line["allowed"] == true:
			allowed++
		default:
			written++
		}
	}
	if allowed != 1 || written > refusals/10 || written+dropped < refusals {
		t.Errorf("of %d refusals %d are written and %d counted; of the 1 that was allowed %d", refusals, written, dropped, allowed)
	}
	full, err := access.OpenAudit("/dev/full", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	full.Record(access.Record{Allowed: true})
	if err := full.Close(); err != nil || full.Dropped() != 1 {
		t.Errorf("on a full disk %d lines are dropped, %v; want 1", full.Dropped(), err)
	}
}
