package attempts

import (
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// files are attempts on files, devices and the ioctls of file systems and terminals.
func files() []Attempt {
	denied := []unix.Errno{unix.EACCES, unix.EPERM, unix.EROFS}
	hidden := append([]unix.Errno{unix.ENOENT}, denied...)
	var all []Attempt
	for _, path := range []string{"/proc/1/root/etc/hostname", "/proc/1/environ", "/proc/1/mem",
		"/proc/1/exe", "/proc/1/fd/0", "/proc/1/ns/mnt"} {
		all = append(all, open("open "+path, path, unix.O_RDONLY, hidden))
	}
	for _, path := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/panic",
		"/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/vm/drop_caches",
		"/proc/sys/vm/overcommit_memory", "/proc/sys/fs/file-max", "/proc/sys/fs/suid_dumpable",
		"/proc/sys/kernel/randomize_va_space", "/proc/sys/net/ipv6/conf/all/forwarding",
		"/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled",
		"/sys/kernel/uevent_helper", "/sys/power/state", "/sys/class/net/eth0/mtu",
		"/sys/fs/cgroup/cgroup.procs", "/dev/kmsg", "/dev/mem", "/dev/fuse", "/dev/loop-control",
		"/dev/loop0", "/dev/net/tun", "/dev/kvm", "/dev/vsock"} {
		all = append(all, open("write to "+path, path, unix.O_WRONLY, hidden))
	}
	return append(all,
		mknod("make a disk's node", unix.S_IFBLK, 7, 0),
		mknod("make a memory device's node", unix.S_IFCHR, 1, 1),
		mknod("make a fuse device's node", unix.S_IFCHR, 10, 229),
		ioctl("freeze the disk", fiFreeze, 0, fiThaw),
		ioctl("trim the disk", fiTrim, 0, 0),
		ioctl("resize the disk", ext4Resize, 0, 0),
		ioctl("shut the disk down", ext4Shutdown, 99, 0),
		Attempt{"type for another's terminal", []unix.Errno{unix.EPERM, unix.EIO}, typeAhead},
		Attempt{"give oneself ids of others", []unix.Errno{unix.EPERM, unix.EACCES}, func() error {
			return writeTo("/proc/self/uid_map", "0 0 4294967295")
		}},
	)
}

const (
	fiFreeze     = 0xc0045877
	fiThaw       = 0xc0045878
	fiTrim       = 0xc0185879
	ext4Resize   = 0x40086610 // EXT4_IOC_RESIZE_FS
	ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
)

func open(name, path string, flags int, want []unix.Errno) Attempt {
	return Attempt{name, want, func() error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}}
}

func mknod(name string, kind uint32, major, minor uint32) Attempt {
	return Attempt{name, []unix.Errno{unix.EPERM}, func() error {
		path := filepath.Join(os.TempDir(), "attempt-node")
		err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor))) //nolint:gosec // small
		if err == nil {
			_ = os.Remove(path)
		}
		return err
	}}
}

// ioctl is one of the root's, with a number behind its pointer; undo follows where it succeeds.
func ioctl(name string, request uintptr, value uint64, undo uintptr) Attempt {
	return Attempt{name, []unix.Errno{unix.EPERM, unix.EOPNOTSUPP, unix.ENOTTY}, func() error {
		root, err := os.Open("/")
		if err != nil {
			return err
		}
		defer root.Close()
		argument := [3]uint64{value}
		_, err = raw(unix.SYS_IOCTL, root.Fd(), request,
			uintptr(unsafe.Pointer(&argument))) //nolint:gosec // no other way
		if err == nil && undo != 0 {
			_, _ = raw(unix.SYS_IOCTL, root.Fd(), undo, 0)
		}
		return err
	}}
}

// typeAhead puts a character into the input of a terminal that isn't this process's.
func typeAhead() error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	c := byte(' ')
	_, err = raw(unix.SYS_IOCTL, master.Fd(), unix.TIOCSTI,
		uintptr(unsafe.Pointer(&c))) //nolint:gosec // no other way
	return err
}

func writeTo(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// limits are what a process may not take for itself.
func limits() []Attempt {
	noLimit := unix.Rlimit{Cur: 1 << 30, Max: 1 << 30}
	permitted := []unix.Errno{unix.EPERM, unix.EACCES}
	return []Attempt{
		{"more open files than the limit", permitted, func() error {
			return unix.Setrlimit(unix.RLIMIT_NOFILE, &noLimit)
		}},
		{"a process that is never killed for memory", permitted, func() error {
			return writeTo("/proc/self/oom_score_adj", "-1000")
		}},
		{"a better priority", permitted, func() error {
			return unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
		}},
		{"a priority of real time", permitted, func() error {
			return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr,
				Policy: unix.SCHED_FIFO, Priority: 1}, 0)
		}},
		call("input and output of real time", unix.EPERM, unix.SYS_IOPRIO_SET, 1, 0, 1<<13),
		{"all capabilities", permitted, func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			data := [2]unix.CapUserData{}
			for i := range data {
				data[i] = unix.CapUserData{Effective: ^uint32(0), Permitted: ^uint32(0)}
			}
			return unix.Capset(&header, &data[0])
		}},
		call("other code for this process", unix.EPERM, unix.SYS_PRCTL, unix.PR_SET_MM,
			unix.PR_SET_MM_EXE_FILE, nobody),
	}
}
