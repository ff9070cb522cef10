package inner

import "strings"

// allowed are the calls that any program may make, whatever their arguments. It is the set that
// other container engines allow by default to a root without capabilities over the host. Names that
// the container runtime's library doesn't know are left out by it, and fail with ENOSYS.
func allowed() []string {
	var all []string
	for _, group := range []string{filesCalls, attributeCalls, waitCalls, memoryCalls, processCalls,
		userCalls, signalCalls, timeCalls, networkCalls, messageCalls, of32BitsCalls} {
		all = append(all, strings.Fields(group)...)
	}
	return all
}

const (
	filesCalls = `access cachestat chdir chroot close close_range copy_file_range creat dup dup2 dup3
		faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fcntl fdatasync flock fstat
		fstatfs fsync ftruncate getcwd getdents getdents64 inotify_add_watch inotify_init
		inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup
		io_submit ioctl ioprio_get ioprio_set link linkat listmount lseek lstat mkdir mkdirat mknod
		mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2
		pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2
		rmdir sendfile splice stat statfs statmount statx symlink symlinkat sync sync_file_range
		syncfs tee truncate umask unlink unlinkat vmsplice write writev`

	attributeCalls = `chmod chown fchmod fchmodat fchmodat2 fchown fchownat fgetxattr flistxattr
		fremovexattr fsetxattr futimesat getxattr getxattrat lchown lgetxattr listxattr listxattrat
		llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat utime
		utimensat utimes`

	waitCalls = `epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
		epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_wait futex_waitv
		futex_wake get_robust_list membarrier poll ppoll pselect6 rseq select set_robust_list`

	memoryCalls = `brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2
		mlockall mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
		pkey_mprotect process_mrelease remap_file_pages shmat shmctl shmdt shmget`

	processCalls = `alarm arch_prctl capget capset execve execveat exit exit_group fork
		get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrandom getrlimit
		getrusage getsid gettid landlock_add_rule landlock_create_ruleset landlock_restrict_self
		modify_ldt pidfd_open pidfd_send_signal prctl prlimit64 ptrace restart_syscall
		sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
		sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
		sched_setscheduler sched_yield seccomp set_thread_area set_tid_address setpgid setpriority
		setrlimit setsid sysinfo times uname uretprobe vfork wait4 waitid`

	userCalls = `getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid
		setgroups setregid setresgid setresuid setreuid setuid`

	signalCalls = `kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
		rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill tkill`

	timeCalls = `adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer
		gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun
		timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime`

	networkCalls = `accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom
		recvmmsg recvmsg sendmmsg sendmsg sendto setsockopt shutdown socket
		socketpair`

	messageCalls = `mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl
		msgget msgrcv msgsnd semctl semget semop semtimedop`

	// of32BitsCalls are what programs of 32 bits have instead of some of the above.
	of32BitsCalls = `_llseek _newselect arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush
		chown32 clock_adjtime64 clock_getres_time64 clock_gettime64 clock_nanosleep_time64
		fadvise64_64 fchown32 fcntl64 fstat64 fstatat64 fstatfs64 ftruncate64 futex_time64 getegid32
		geteuid32 getgid32 getgroups32 getresgid32 getresuid32 getuid32 io_pgetevents_time64 ipc
		lchown32 lstat64 mmap2 mq_timedreceive_time64 mq_timedsend_time64 ppoll_time64
		pselect6_time64 recv recvmmsg_time64 rt_sigtimedwait_time64 sched_rr_get_interval_time64
		semtimedop_time64 send sendfile64 set_tls setfsgid32 setfsuid32 setgid32 setgroups32
		setregid32 setresgid32 setresuid32 setreuid32 setuid32 sigprocmask sigreturn stat64
		statfs64 sync_file_range2 timer_gettime64 timer_settime64 timerfd_gettime64
		timerfd_settime64 truncate64 ugetrlimit utimensat_time64 waitpid`
)

// kernelWide are calls that act on the whole kernel.
func kernelWide() []string {
	return strings.Fields(`_sysctl acct clock_settime clock_settime64 create_module delete_module
		finit_module get_kernel_syms init_module ioperm iopl kexec_file_load kexec_load nfsservctl
		query_module quotactl quotactl_fd reboot setdomainname sethostname settimeofday stime swapoff
		swapon sysfs syslog uselib ustat vhangup vm86 vm86old`)
}

// attackSurface are calls that have often been a way out of a container, or reach into others'
// processes and mounts.
func attackSurface() []string {
	return strings.Fields(`add_key bpf fanotify_init fsconfig fsmount fsopen fspick get_mempolicy
		io_uring_enter io_uring_register io_uring_setup kcmp keyctl lookup_dcookie mbind
		migrate_pages mount mount_setattr move_mount move_pages open_by_handle_at open_tree
		perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev
		request_key set_mempolicy set_mempolicy_home_node setns umount umount2 unshare userfaultfd`)
}
