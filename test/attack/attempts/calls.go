package attempts

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nobody is a descriptor or an address that doesn't exist.
const nobody = ^uintptr(0)

// text is a path as the kernel takes it.
func text(s string) uintptr {
	b := append([]byte(s), 0)
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(&b[0])) //nolint:gosec // kept
}

// kept are the paths that have been handed to the kernel as numbers: nobody else refers to them.
var kept [][]byte

func mounts() []Attempt {
	const noSysADMIN = unix.EPERM
	return []Attempt{
		{"mount a tmpfs", []unix.Errno{noSysADMIN}, func() error {
			err := unix.Mount("x", "/tmp", "tmpfs", 0, "")
			if err == nil {
				_ = unix.Unmount("/tmp", 0)
			}
			return err
		}},
		{"mount a proc of one's own", []unix.Errno{noSysADMIN}, func() error {
			err := unix.Mount("proc", "/tmp", "proc", 0, "")
			if err == nil {
				_ = unix.Unmount("/tmp", 0)
			}
			return err
		}},
		call("bind a mount", unix.EPERM, unix.SYS_MOUNT, text("/proc"), text("/nowhere"), 0,
			unix.MS_BIND),
		call("remount the root", unix.EPERM, unix.SYS_MOUNT, 0, text("/nowhere"), 0,
			unix.MS_REMOUNT|unix.MS_BIND),
		call("unmount a mask", unix.EPERM, unix.SYS_UMOUNT2, text("/nowhere"), 0),
		call("fsopen", unix.EPERM, unix.SYS_FSOPEN, text("no file system"), 0),
		call("fsconfig", unix.EPERM, unix.SYS_FSCONFIG, nobody),
		call("fsmount", unix.EPERM, unix.SYS_FSMOUNT, nobody),
		call("fspick", unix.EPERM, unix.SYS_FSPICK, nobody, text("nowhere"), 0),
		call("open_tree", unix.EPERM, unix.SYS_OPEN_TREE, nobody, text("nowhere"), 0),
		call("open_tree_attr", unix.ENOSYS, sysOpenTreeAttr, nobody, text("nowhere"), 0),
		call("move_mount", unix.EPERM, unix.SYS_MOVE_MOUNT, nobody, text("x"), nobody, text("x")),
		call("mount_setattr", unix.EPERM, unix.SYS_MOUNT_SETATTR, nobody, text("nowhere"), 0),
		call("pivot_root", unix.EPERM, unix.SYS_PIVOT_ROOT, text("/nowhere"), text("/nowhere")),
		call("quotactl", unix.EPERM, unix.SYS_QUOTACTL, nobody),
		call("quotactl_fd", unix.EPERM, unix.SYS_QUOTACTL_FD, nobody),
	}
}

// sysOpenTreeAttr is newer than the package that has the others.
const sysOpenTreeAttr = 467

func namespaces() []Attempt {
	all := []Attempt{
		{"enter a namespace", []unix.Errno{unix.EPERM}, func() error {
			ns, err := os.Open("/proc/self/ns/net")
			if err != nil {
				return err
			}
			defer ns.Close()
			return unix.Setns(int(ns.Fd()), 0)
		}},
		call("clone3", unix.ENOSYS, unix.SYS_CLONE3, 0, 0),
	}
	for _, kind := range []struct {
		name string
		flag uintptr
	}{
		{"user", unix.CLONE_NEWUSER}, {"mount", unix.CLONE_NEWNS}, {"network", unix.CLONE_NEWNET},
		{"pid", unix.CLONE_NEWPID}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS},
		{"cgroup", unix.CLONE_NEWCGROUP},
	} {
		// With these flags together no kernel makes a process or lets one leave.
		all = append(all,
			call("clone into a "+kind.name+" namespace", unix.EPERM, unix.SYS_CLONE,
				kind.flag|unix.CLONE_THREAD),
			call("unshare the "+kind.name+" namespace", unix.EPERM, unix.SYS_UNSHARE,
				kind.flag|unix.CLONE_SYSVSEM<<16))
	}
	return all
}

// others reach into processes, memory and files of others.
func others() []Attempt {
	return []Attempt{
		call("trace process 1", unix.EPERM, unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1),
		call("read another's memory", unix.EPERM, unix.SYS_PROCESS_VM_READV, 1, 0, 0, 0, 0, 0),
		call("write another's memory", unix.EPERM, unix.SYS_PROCESS_VM_WRITEV, 1, 0, 0, 0, 0, 0),
		call("advise another's memory", unix.EPERM, unix.SYS_PROCESS_MADVISE, nobody),
		call("take another's file", unix.EPERM, unix.SYS_PIDFD_GETFD, nobody),
		call("compare processes", unix.EPERM, unix.SYS_KCMP, 1, 1, 99),
		call("move another's pages", unix.EPERM, unix.SYS_MOVE_PAGES, 1),
		call("migrate another's pages", unix.EPERM, unix.SYS_MIGRATE_PAGES, 1),
		call("open a file by its handle", unix.EPERM, unix.SYS_OPEN_BY_HANDLE_AT, nobody),
		call("watch a file system", unix.EPERM, unix.SYS_FANOTIFY_INIT, nobody),
		call("add a key", unix.EPERM, unix.SYS_ADD_KEY, text("no type"), text("x")),
		call("request a key", unix.EPERM, unix.SYS_REQUEST_KEY, text("no type"), text("x")),
		call("keyctl", unix.EPERM, unix.SYS_KEYCTL, nobody),
		call("handle page faults", unix.EPERM, unix.SYS_USERFAULTFD, nobody),
		call("io_uring_setup", unix.EPERM, unix.SYS_IO_URING_SETUP, 0, 0),
		call("io_uring_enter", unix.EPERM, unix.SYS_IO_URING_ENTER, nobody),
		call("io_uring_register", unix.EPERM, unix.SYS_IO_URING_REGISTER, nobody),
		call("bpf", unix.EPERM, unix.SYS_BPF, nobody),
		call("perf_event_open", unix.EPERM, unix.SYS_PERF_EVENT_OPEN, 0),
		call("a memory policy", unix.EPERM, unix.SYS_SET_MEMPOLICY, nobody),
		call("addresses that aren't random", unix.ENOSYS, unix.SYS_PERSONALITY, 0x0040000),
		{"take the listener of system calls", []unix.Errno{unix.EBUSY}, takeListener},
	}
}

// takeListener installs a filter that sends calls to a listener of its own, in a thread that ends.
func takeListener() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, with its filter
		code := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
		prog := unix.SockFprog{Len: 1, Filter: &code[0]}
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			_, err = raw(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
				unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
				uintptr(unsafe.Pointer(&prog))) //nolint:gosec // no other way
		}
		result <- err
	}()
	return <-result
}

// wholeKernel acts on all that run on the same kernel.
func wholeKernel() []Attempt {
	return []Attempt{
		call("load a module", unix.EPERM, unix.SYS_INIT_MODULE, 0, 0, text("")),
		call("load a module's file", unix.EPERM, unix.SYS_FINIT_MODULE, nobody, text("")),
		call("remove a module", unix.EPERM, unix.SYS_DELETE_MODULE, text("no module"), 0),
		call("load another kernel", unix.EPERM, unix.SYS_KEXEC_LOAD, 0, nobody, 0, nobody),
		call("load another kernel's file", unix.EPERM, unix.SYS_KEXEC_FILE_LOAD, nobody, nobody),
		call("reboot", unix.EPERM, unix.SYS_REBOOT, 0, 0, 0),
		call("swap to a file", unix.EPERM, unix.SYS_SWAPON, text("/nowhere"), 0),
		call("end swapping", unix.EPERM, unix.SYS_SWAPOFF, text("/nowhere")),
		call("account processes", unix.EPERM, unix.SYS_ACCT, text("/nowhere")),
		{"set the time", []unix.Errno{unix.EPERM}, func() error {
			return unix.Settimeofday(&unix.Timeval{Usec: -1})
		}},
		{"set the clock", []unix.Errno{unix.EPERM}, func() error {
			return unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{Nsec: -1})
		}},
		{"tune the clock", []unix.Errno{unix.EPERM}, func() error {
			_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: 1})
			return err
		}},
		call("read the kernel's log", unix.EPERM, unix.SYS_SYSLOG, nobody),
		call("hang up a terminal", unix.EPERM, unix.SYS_VHANGUP),
		call("set the host name", unix.EPERM, unix.SYS_SETHOSTNAME, 0, nobody),
		call("set the domain name", unix.EPERM, unix.SYS_SETDOMAINNAME, 0, nobody),
		call("a call that no kernel has", unix.ENOSYS, 9999),
	}
}
