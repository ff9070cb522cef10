package attempts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// facts are what the kernel tells of the host, and of others' machines on it.
func facts() []Attempt {
	var all []Attempt
	for _, path := range []string{"/proc/partitions", "/proc/diskstats", "/proc/cmdline",
		"/proc/key-users", "/proc/keys", "/proc/locks", "/proc/pressure", "/proc/kcore",
		"/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/schedstat",
		"/proc/scsi", "/proc/acpi", "/proc/interrupts", "/proc/softirqs", "/proc/modules",
		"/proc/kallsyms", "/proc/iomem", "/proc/slabinfo", "/proc/vmallocinfo",
		"/proc/buddyinfo", "/proc/zoneinfo", "/proc/pagetypeinfo", "/proc/kpagecount",
		"/sys/block", "/sys/class/block", "/sys/dev/block", "/sys/class/bdi", "/sys/class/dmi",
		"/sys/devices/virtual/block", "/sys/devices/virtual/bdi", "/sys/devices/virtual/dmi",
		"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/ext4", "/sys/fs/fuse",
		"/sys/kernel/notes", "/sys/kernel/vmcoreinfo", "/sys/kernel/btf", "/sys/kernel/slab",
		"/sys/kernel/debug", "/sys/kernel/security", "/sys/module", "/sys/power"} {
		all = append(all, Attempt{"learn from " + path, []unix.Errno{unix.ENODATA, unix.ENOENT,
			unix.EACCES, unix.EPERM}, func() error { return learn(path) }})
	}
	return all
}

// learn fails with ENODATA for an empty file or directory.
func learn(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		if _, err := f.Readdirnames(1); errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", path, unix.ENODATA)
		}
		return nil
	}
	some := make([]byte, 64)
	n, err := f.Read(some)
	if errors.Is(err, io.EOF) || err == nil && len(bytes.TrimSpace(some[:n])) == 0 {
		return fmt.Errorf("%s: %w", path, unix.ENODATA)
	}
	return err
}
