package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// volume is an ext4 file system of its own, on a file, that can lose its power.
type volume struct {
	device  string
	dir     string
	mounted bool
}

// What becomes of a file system when its power goes (EXT4_GOING_FLAGS_*).
const (
	cutFlush     = 0 // everything written is made durable first
	cutLogFlush  = 1 // the file system's own journal is flushed first, file contents are not
	cutNoFlush   = 2 // nothing is flushed
	ext4Shutdown = 2<<30 | 4<<16 | 'X'<<8 | 125
)

// newVolume makes a volume and mounts it; where that is not possible it skips the test.
func newVolume(t *testing.T) *volume {
	t.Helper()
	skip := func(format string, args ...any) {
		t.Helper()
		t.Skipf("NO POWER WAS CUT, and nothing is known of what survives it: "+format, args...)
	}
	if os.Getuid() != 0 {
		skip("mounting a file system needs root")
	}
	for _, tool := range []string{"mkfs.ext4", "e2fsck", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip("%v; it is in the Debian packages e2fsprogs and mount", err)
		}
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 96<<20); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-N", "16384", "-J", "size=8", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, output)
	}
	output, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		skip("there is no loop device: %v\n%s", err, output)
	}
	v := &volume{device: strings.TrimSpace(string(output)), dir: filepath.Join(dir, "mount")}
	t.Cleanup(func() {
		if v.mounted {
			v.unmount(t)
		}
		if output, err := exec.Command("losetup", "--detach", v.device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v\n%s", v.device, err, output)
		}
	})
	if err := os.Mkdir(v.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(v.device, v.dir, "ext4", 0, ""); err != nil {
		skip("no file system can be mounted here: %v", err)
	}
	v.mounted = true
	return v
}

// mount mounts the volume, which repairs it by its own journal.
func (v *volume) mount(t *testing.T, options string) {
	t.Helper()
	if err := unix.Mount(v.device, v.dir, "ext4", 0, options); err != nil {
		t.Fatalf("mounting with %q: %v", options, err)
	}
	v.mounted = true
}

// unmount unmounts the volume; nobody may use it any more.
func (v *volume) unmount(t *testing.T) {
	t.Helper()
	_, problem := within(t.Context(), patience, func() string {
		if err := unix.Unmount(v.dir, 0); err != nil {
			return err.Error()
		}
		return ""
	})
	if problem != "" {
		t.Fatalf("unmounting %s: %s", v.dir, problem)
	}
	v.mounted = false
}

// cut cuts the power: from now on nothing reaches the device.
func (v *volume) cut(flags int) error {
	dir, err := os.Open(v.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), ext4Shutdown, flags); err != nil {
		return fmt.Errorf("EXT4_IOC_SHUTDOWN: %w", err)
	}
	return nil
}

// check has e2fsck look at the unmounted volume.
func (v *volume) check(t *testing.T) {
	t.Helper()
	output, err := exec.Command("e2fsck", "-f", "-p", v.device).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = nil // it has mended what any power cut leaves
	}
	if err != nil {
		t.Errorf("e2fsck: %v\n%s", err, output)
	}
}

// writeBack makes some of what was written durable and not the rest, as a kernel
// does at times of its own choosing: one file's content, or with it all that the
// file system's journal has.
func (v *volume) writeBack(file string, everything bool) {
	f, err := os.Open(file)
	if err != nil {
		return // removed meanwhile, or the power is gone
	}
	defer f.Close()
	if everything {
		f.Sync()
		return
	}
	unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
