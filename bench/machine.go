package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pylok/pylok/internal/load"
)

// machine is where a report comes from.
type machine struct {
	Time       time.Time `json:"time"`
	CPU        string    `json:"cpu"`
	CPUs       int       `json:"cpus"`
	MemoryMiB  uint64    `json:"memory_mib"`
	Kernel     string    `json:"kernel"`
	FileSystem string    `json:"file_system"`
	Go         string    `json:"go"`
	Commit     string    `json:"commit"`
	Load       string    `json:"load"` // of the minute before
}

func describeMachine(dir string) (machine, error) {
	var (
		name  unix.Utsname
		info  unix.Sysinfo_t
		where unix.Statfs_t
	)
	if err := unix.Uname(&name); err != nil {
		return machine{}, err
	}
	if err := unix.Sysinfo(&info); err != nil {
		return machine{}, err
	}
	if err := unix.Statfs(dir, &where); err != nil {
		return machine{}, err
	}
	fileSystem := map[int64]string{
		unix.EXT4_SUPER_MAGIC:      "ext4",
		unix.XFS_SUPER_MAGIC:       "xfs",
		unix.BTRFS_SUPER_MAGIC:     "btrfs",
		unix.TMPFS_MAGIC:           "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
		unix.NFS_SUPER_MAGIC:       "nfs",
		unix.F2FS_SUPER_MAGIC:      "f2fs",
	}[int64(where.Type)]
	if fileSystem == "" {
		fileSystem = fmt.Sprintf("file system 0x%x", where.Type)
	}
	commit, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	return machine{
		Time:       time.Now().UTC().Truncate(time.Second),
		CPU:        cpuModel(),
		CPUs:       runtime.NumCPU(),
		MemoryMiB:  info.Totalram * uint64(info.Unit) >> 20,
		Kernel:     unix.ByteSliceToString(name.Release[:]),
		FileSystem: fileSystem,
		Go:         runtime.Version(),
		Commit:     strings.TrimSpace(string(commit)),
		Load:       fmt.Sprintf("%.2f", float64(info.Loads[0])/(1<<16)),
	}, nil
}

// cpuModel returns what /proc/cpuinfo calls the first processor.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if key, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

// String is the line above the tables.
func (m machine) String() string {
	return fmt.Sprintf("pylok %s on %d CPUs (%s), %s MiB of memory, %s, Linux %s, %s; %s; load before: %s",
		m.Commit, m.CPUs, m.CPU, load.FormatCount(float64(m.MemoryMiB)), m.FileSystem, m.Kernel, m.Go, m.Time.Format(time.DateTime+" UTC"), m.Load)
}
