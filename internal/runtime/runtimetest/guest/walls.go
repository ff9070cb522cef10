package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holes returns what this process, root of a VM that shares its host's kernel, can do to the host
// or to another VM. It changes nothing where it can: it opens, and closes again.
func holes() []string {
	dir, err := os.MkdirTemp("", "walls")
	if err != nil {
		return []string{err.Error()}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var found []string
	for _, look := range []func(dir string) []string{
		asHostRoot, openDisks, openSettings, freshMounts, callKernel, controlLoop,
	} {
		found = append(found, look(dir)...)
	}
	return found
}

func asHostRoot(string) []string {
	ids, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, count int64
	_, scanErr := fmt.Sscan(string(ids), &inside, &outside, &count)
	if err != nil || scanErr != nil {
		return []string{fmt.Sprint("uid_map: ", err, scanErr)}
	}
	if outside == 0 {
		return []string{"its root is the host's"}
	}
	return nil
}

// openDisks opens loop devices, which other VMs' disks and caches are on.
func openDisks(dir string) []string {
	for n := range uint32(64) {
		node := filepath.Join(dir, "loop"+strconv.Itoa(int(n)))
		if unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, n))) != nil {
			continue
		}
		if fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Close(fd)
			return []string{"it opens other VMs' disks"}
		}
	}
	return nil
}

func openSettings(string) []string {
	var found []string
	for _, path := range []string{"kernel/core_pattern", "kernel/modprobe", "vm/drop_caches",
		"vm/overcommit_memory", "fs/file-max"} {
		if writable("/proc/sys/" + path) {
			found = append(found, "it sets "+path)
		}
	}
	if writable("/proc/sysrq-trigger") {
		found = append(found, "it reboots the host")
	}
	return found
}

func writable(path string) bool {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err == nil
}

// freshMounts mounts file systems of the kernel's anew, to change what they show.
func freshMounts(dir string) []string {
	var found []string
	for kind, files := range map[string][]string{
		"sysfs":    {"kernel/mm/ksm/run", "kernel/profiling", "power/state"},
		"proc":     {"sys/kernel/core_pattern"},
		"devtmpfs": {"null"}, "debugfs": {"sleep_time"},
	} {
		at := filepath.Join(dir, kind)
		if os.Mkdir(at, 0o700) != nil || unix.Mount(kind, at, kind, 0, "") != nil {
			continue
		}
		for _, f := range files {
			if writable(filepath.Join(at, f)) {
				found = append(found, "it writes to its own "+kind)
				break
			}
		}
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
	return found
}

// callKernel makes calls with arguments that can't succeed.
func callKernel(string) []string {
	var found []string
	for name, number := range map[string]uintptr{"bpf": unix.SYS_BPF,
		"init_module": unix.SYS_INIT_MODULE, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT,
		"perf_event_open": unix.SYS_PERF_EVENT_OPEN} {
		if _, _, errno := unix.Syscall6(number, 0, 0, 0, 0, 0, 0); errno != unix.EPERM {
			found = append(found, "the kernel answers "+name)
		}
	}
	return found
}

// controlLoop asks a loop device about itself, as if to let go of it: its own cache, or any.
func controlLoop(dir string) []string {
	nodes, _ := filepath.Glob(filepath.Join(dir, "loop*"))
	for _, node := range append([]string{"/dev/sluice-cache"}, nodes...) {
		fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var info unix.LoopInfo64
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.LOOP_GET_STATUS64,
			uintptr(unsafe.Pointer(&info)))
		_ = unix.Close(fd)
		if !errors.Is(errno, unix.EPERM) {
			return []string{"it controls a loop device"}
		}
	}
	return nil
}

func wallsAnswer() answer { return answer{Text: strings.Join(holes(), "\n")} }
