package inotify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// appendRecord appends a record as the kernel writes it.
func appendRecord(buf []byte, r record) []byte {
	size := 0
	if len(r.name) > 0 {
		const unit = unix.SizeofInotifyEvent
		size = (len(r.name)/unit + 1) * unit
	}
	buf = binary.NativeEndian.AppendUint32(buf, uint32(r.watch))
	buf = binary.NativeEndian.AppendUint32(buf, r.mask)
	buf = binary.NativeEndian.AppendUint32(buf, 0xc00c1e)
	buf = binary.NativeEndian.AppendUint32(buf, uint32(size))
	return append(append(buf, r.name...), make([]byte, size-len(r.name))...)
}

func TestNext(t *testing.T) {
	want := []record{
		{watch: 1, mask: unix.IN_CREATE, name: []byte("x.lock")},
		{watch: -1, mask: unix.IN_Q_OVERFLOW},
		{watch: 1 << 30, mask: unix.IN_DELETE | unix.IN_ISDIR, name: []byte("fifteen bytes..")},
		{watch: 2, mask: unix.IN_MODIFY, name: []byte("sixteen bytes...")},
		{watch: 3, mask: unix.IN_MOVED_TO, name: bytes.Repeat([]byte("n"), unix.NAME_MAX)},
	}
	var buf []byte
	for _, r := range want {
		before := len(buf)
		if buf = appendRecord(buf, r); len(buf)-before > maxRecord {
			t.Errorf("a record with %d bytes of a name has %d bytes, maxRecord is %d", len(r.name), len(buf)-before, maxRecord)
		}
	}
	rest := buf
	for i, w := range want {
		var got record
		var err error
		if got, rest, err = next(rest); err != nil || got.watch != w.watch || got.mask != w.mask || !bytes.Equal(got.name, w.name) {
			t.Fatalf("record %d: got %+v, %v, want %+v", i, got, err, w)
		}
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes are left", len(rest))
	}
	one := appendRecord(nil, want[0])
	for n := range one {
		if r, _, err := next(one[:n]); !errors.Is(err, errTruncated) {
			t.Errorf("%d of %d bytes: got %+v, %v, want errTruncated", n, len(one), r, err)
		}
	}
}

// FuzzNext: no bytes make next panic, each record has its part of them, and what it
// reads is what it reads again when it is written as the kernel does.
func FuzzNext(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendRecord(appendRecord(nil, record{1, unix.IN_CREATE, []byte("x.lock")}), record{-1, unix.IN_Q_OVERFLOW, nil}))
	f.Add(appendRecord(nil, record{2, unix.IN_DELETE_SELF, nil})[:15])
	f.Fuzz(func(t *testing.T, buf []byte) {
		for len(buf) > 0 {
			r, rest, err := next(buf)
			if err != nil {
				return
			}
			if len(rest) > len(buf)-unix.SizeofInotifyEvent-len(r.name) || !bytes.HasSuffix(buf, rest) {
				t.Fatalf("of %d bytes %d are left after %+v", len(buf), len(rest), r)
			}
			again, none, err := next(appendRecord(nil, r))
			if err != nil || len(none) != 0 || again.watch != r.watch || again.mask != r.mask || !bytes.Equal(again.name, r.name) {
				t.Fatalf("got %+v, and %d bytes, %v when it is written and read again: %+v", r, len(none), err, again)
			}
			buf = rest
		}
	})
}

// TestTake gives a Watcher what a kernel says that is hard to bring about.
func TestTake(t *testing.T) {
	created := record{1, unix.IN_CREATE, []byte("x.lock")}
	for _, test := range []struct {
		name    string
		records []record
		cut     int // bytes that are missing at the end
		want    []string
		missed  bool
		err     error
	}{
		{name: "nothing"},
		{name: "an overflow", records: []record{created, {-1, unix.IN_Q_OVERFLOW, nil}, created}, want: []string{"d/x.lock", "d/x.lock"}, missed: true},
		{name: "a file system that is unmounted", records: []record{{1, unix.IN_UNMOUNT, nil}, {1, unix.IN_IGNORED, nil}}, missed: true},
		{name: "a directory that is not watched any more", records: []record{{7, unix.IN_CREATE, []byte("x.lock")}, {7, unix.IN_IGNORED, nil}}},
		{name: "an event after the end of its watch", records: []record{{1, unix.IN_IGNORED, nil}, created}},
		{name: "half an event", records: []record{created, created}, cut: 1, want: []string{"d/x.lock"}, missed: true, err: errTruncated},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &Watcher{dirs: map[int32]string{1: "d"}}
			var buf []byte
			for _, r := range test.records {
				buf = appendRecord(buf, r)
			}
			var got []string
			missed, err := w.take(buf[:len(buf)-test.cut], func(e Event) { got = append(got, text(e)) })
			if !slices.Equal(got, test.want) || missed != test.missed || !errors.Is(err, test.err) {
				t.Errorf("got %q, missed=%t, %v; want %q, missed=%t, %v", got, missed, err, test.want, test.missed, test.err)
			}
		})
	}
}

// text is an event as the tests compare it.
func text(e Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s", e.Dir, e.Name)
	if e.IsDir {
		b.WriteString(" dir")
	}
	if e.Written {
		b.WriteString(" written")
	}
	return b.String()
}
