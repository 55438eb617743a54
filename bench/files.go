package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/internal/load"
)

// lockFileBytes is how long a lock file is.
const lockFileBytes = 400

// startFiles has the benchmark make lock files itself.
func startFiles(_ context.Context, _ *settings, dir string) (*contender, error) {
	t := &filesTarget{dir: filepath.Join(dir, "locks"), text: bytes.Repeat([]byte("x"), lockFileBytes)}
	if err := os.Mkdir(t.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if t.open, err = os.Open(t.dir); err != nil {
		return nil, err
	}
	return &contender{
		target: t,
		about:  fmt.Sprintf("files of %d bytes, made by the benchmark itself: create, fdatasync, link and fsync of the directory; then unlink and fsync; Status reads the file", lockFileBytes),
	}, nil
}

// filesTarget is what a script can do: durable lock files, without a server and
// without waiters.
type filesTarget struct {
	dir  string
	open *os.File // dir
	text []byte
	made atomic.Int64
}

func (t *filesTarget) file(name string) string {
	return filepath.Join(t.dir, filepath.Base(name)+".lock")
}

// Callers implements load.Target.
func (t *filesTarget) Callers(context.Context, int) error { return nil }

// Lock implements load.Target. It fails if the lock is held.
func (t *filesTarget) Lock(_ context.Context, _ int, name string) error {
	temporary := filepath.Join(t.dir, fmt.Sprintf("%d.new", t.made.Add(1)))
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(t.text)
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Link(temporary, t.file(name))
	}
	if err = errors.Join(err, os.Remove(temporary)); err != nil {
		return err
	}
	return t.open.Sync()
}

// Unlock implements load.Target.
func (t *filesTarget) Unlock(_ context.Context, _ int, name string) error {
	if err := os.Remove(t.file(name)); err != nil {
		return err
	}
	return t.open.Sync()
}

// Status implements load.Target.
func (t *filesTarget) Status(_ context.Context, _ int, name string) error {
	_, err := os.ReadFile(t.file(name))
	return err
}

// Subscribe implements load.Target.
func (t *filesTarget) Subscribe(context.Context, int, string, func(), func(int)) error {
	return errors.ErrUnsupported
}

// Close implements load.Target.
func (t *filesTarget) Close() error { return t.open.Close() }

// syncs measures one fdatasync after another, each of a line written into room that
// the file has already: the least that making anything durable takes.
func (t *filesTarget) syncs(ctx context.Context, options load.Options) (load.Run, error) {
	const room = 16 << 20
	f, err := os.Create(filepath.Join(t.dir, "room"))
	if err != nil {
		return load.Run{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, room)); err != nil {
		return load.Run{}, err
	}
	if err := f.Sync(); err != nil {
		return load.Run{}, err
	}
	offset := int64(0)
	return load.Repeat(ctx, 1, options, func(context.Context, int) error {
		if _, err := f.WriteAt(t.text, offset); err != nil {
			return err
		}
		offset = (offset + int64(len(t.text))) % (room - lockFileBytes)
		return unix.Fdatasync(int(f.Fd()))
	})
}
