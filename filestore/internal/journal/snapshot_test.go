package journal

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// TestSnapshot writes a snapshot of several pieces and reads it, whole and damaged.
func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	fsys, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	at := time.Date(2026, 11, 22, 19, 3, 11, 482_000_000, time.UTC)
	var want []Hold
	for i := range 3000 {
		h := Hold{
			Lock: lock.Lock{
				Name: lock.MustParseName(fmt.Sprintf("lb/server-%04d", i)), Token: lock.Token(i + 1), Revision: lock.Revision(2 * i), AcquireTime: at,
				Data: mustData(t, fmt.Sprintf(`{"a":[{"b":"}],\"\\"}],"n":%d}`, i)), Holder: fmt.Sprintf("ci \"%d\"", i%7), Caller: []string{"", "unix:alice", "github:\"a\"\n"}[i%3],
			},
			FileToken: lock.Token(i),
			File:      disk.Stat{Inode: math.MaxInt64, Size: 262, Mtime: -int64(i), Ctime: int64(i), Birth: math.MaxInt64},
		}
		switch i % 4 {
		case 0:
			h.ByFile, h.Lock.Problem = true, "the file is empty"
		case 1:
			h.Extended, h.Lock.TTL, h.Lock.RequestID = true, time.Duration(i), "id\n"
		case 2:
			h.Lock.ExpireTime, h.Lock.Data, h.File = at.Add(time.Hour), lock.Data{}, disk.Stat{}
			h.Lock.Tree = i%8 == 2
		case 3:
			h.Lock.OnExpiry, h.Lock.StaleTime, h.Lock.Set = lock.Keep, at.Add(time.Duration(i)*time.Second), lock.SetRef{ID: lock.Token(i), Size: 2 + i%63}
		}
		want = append(want, h)
	}
	err = WriteSnapshot(fsys, "snapshot", 7000, func(yield func(Hold) bool) {
		for _, h := range want {
			if !yield(h) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	revision, err := ReadSnapshot(fsys, "snapshot", func(h *Hold) {
		if i >= len(want) || *h != want[i] {
			t.Errorf("hold %d is not what was written: %+v", i, h)
		}
		i++
	})
	if err != nil || revision != 7000 || i != len(want) {
		t.Errorf("got revision %d, %d holds, %v, want revision 7000, %d holds", revision, i, err, len(want))
	}

	text, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	if len(text) < 2*pieceBytes {
		t.Fatalf("the snapshot has %d bytes, which is less than two pieces", len(text))
	}
	refuse := func(what string, text []byte) {
		t.Helper()
		if _, err := readSnapshot(bufio.NewReader(bytes.NewReader(text)), func(*Hold) {}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	refuse("a line left out", bytes.Join(append(lines[:1500:1500], lines[1501:]...), nil))
	for offset := 0; offset < len(text); offset += 99_991 {
		refuse(fmt.Sprintf("cut off at %d", offset), text[:offset])
		damaged := bytes.Clone(text)
		damaged[offset] ^= 1
		refuse(fmt.Sprintf("damaged at %d", offset), damaged)
	}
	refuse("two holds too few", sealedLines(`{"snapshot":"pylok","format":1,"revision":7`, `{"revision":1,"name":"x"`, `{"end":3`))
	refuse("a later format", sealedLines(`{"snapshot":"pylok","format":2,"revision":7`, `{"end":0`))
	refuse("no name", sealedLines(`{"snapshot":"pylok","format":1,"revision":7`, `{"revision":1`, `{"end":1`))
	refuse("half a file", sealedLines(`{"snapshot":"pylok","format":1,"revision":7`, `{"revision":1,"name":"x","file":[1,2]`, `{"end":1`))
}

func sealedLines(bodies ...string) (text []byte) {
	for _, body := range bodies {
		text = append(append(text, sealed(body)...), '\n')
	}
	return text
}
