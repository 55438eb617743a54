package inotify

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// record is an event as the kernel writes it: a struct inotify_event (inotify(7)).
type record struct {
	watch int32 // the watch descriptor of the directory
	mask  uint32
	name  []byte // of the entry; empty: it is about the directory itself
}

// maxRecord is the size of the largest record, in bytes: the kernel pads a name and
// its final zero to a multiple of the header's size.
const maxRecord = unix.SizeofInotifyEvent + (unix.NAME_MAX+1+unix.SizeofInotifyEvent-1)/unix.SizeofInotifyEvent*unix.SizeofInotifyEvent

// errTruncated: a read has ended within an event, which the kernel never does.
var errTruncated = errors.New("inotify: half an event was read")

// next returns the first record of what was read, and what follows it.
func next(buf []byte) (r record, rest []byte, err error) {
	if len(buf) < unix.SizeofInotifyEvent {
		return record{}, nil, errTruncated
	}
	r.watch = int32(binary.NativeEndian.Uint32(buf))
	r.mask = binary.NativeEndian.Uint32(buf[4:])
	// In between is the cookie, which joins the two halves of a move.
	size := binary.NativeEndian.Uint32(buf[12:])
	buf = buf[unix.SizeofInotifyEvent:]
	if uint64(size) > uint64(len(buf)) {
		return record{}, nil, errTruncated
	}
	r.name, _, _ = bytes.Cut(buf[:size], []byte{0})
	return r, buf[size:], nil
}
