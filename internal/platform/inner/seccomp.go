package inner

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaceFlags are the clone flags that would make a new namespace.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS |
	unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// seccomp refuses the system calls that have no place in a container: those that act on the whole
// kernel, those that have often been a way out of one, and new namespaces. All else is left to the
// capabilities.
func seccomp() *specs.LinuxSeccomp {
	notPermitted, notThere := uint(unix.EPERM), uint(unix.ENOSYS)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			{Names: kernelWide(), Action: specs.ActErrno, ErrnoRet: &notPermitted},
			{Names: attackSurface(), Action: specs.ActErrno, ErrnoRet: &notPermitted},
			{Names: []string{"unshare", "setns"}, Action: specs.ActErrno, ErrnoRet: &notPermitted},
			// Its flags are in memory, where a filter can't see them; libraries fall back to clone.
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &notThere},
			{Names: []string{"clone"}, Action: specs.ActErrno, ErrnoRet: &notPermitted,
				Args: cloneArgs()},
		},
	}
}

// cloneArgs matches a clone with any of the namespace flags. Each flag needs a condition of its
// own, because a masked comparison can only test for equality.
func cloneArgs() []specs.LinuxSeccompArg {
	var args []specs.LinuxSeccompArg
	for bit := uint64(1); bit <= namespaceFlags; bit <<= 1 {
		if namespaceFlags&bit != 0 {
			args = append(args, specs.LinuxSeccompArg{Index: 0, Value: bit, ValueTwo: bit,
				Op: specs.OpMaskedEqual})
		}
	}
	return args
}

func kernelWide() []string {
	return []string{
		"acct", "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64",
		"delete_module",
		"finit_module", "init_module", "create_module", "get_kernel_syms", "query_module",
		"ioperm", "iopl",
		"kexec_file_load", "kexec_load", "nfsservctl", "quotactl", "quotactl_fd", "reboot",
		"settimeofday", "stime",
		"swapoff", "swapon", "syslog", "_sysctl", "sysfs", "uselib", "ustat", "vm86",
		"vm86old", "vhangup",
	}
}

func attackSurface() []string {
	return []string{
		"add_key", "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick",
		"io_uring_enter",
		"io_uring_register", "io_uring_setup", "kcmp", "keyctl", "lookup_dcookie", "mount",
		"mount_setattr",
		"move_mount", "move_pages", "open_by_handle_at", "open_tree", "perf_event_open",
		"personality", "pidfd_getfd",
		"pivot_root", "process_vm_readv", "process_vm_writev", "request_key", "umount", "umount2",
		"userfaultfd",
	}
}
